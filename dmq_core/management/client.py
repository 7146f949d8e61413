"""The management API of a cluster through several of its nodes; the one module that knows requests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dmq_core.endpoints import Credentials, TlsSettings
from dmq_core.errors import AccessDeniedError, DmqError, InvalidInputError, NotReachableError, OperationTimeoutError
from dmq_core.management import parse
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.management.models import (
    Alarm,
    BindingFigures,
    ChannelFigures,
    ConnectionFigures,
    ConsumerFigures,
    EntityKey,
    ExchangeFigures,
    NodeFigures,
    Overview,
    Page,
    QueueFigures,
)
from dmq_core.text import path_segment, visible

if TYPE_CHECKING:
    from requests import Session

T = TypeVar("T")
Query = Mapping[str, str]

TIMEOUT_S = 8.0
PATIENCE_S = 0.35
PROBE_S = 0.5
PROBE_EVERY_S = 1.0
AVOID_S = 5.0
LARGEST_BODY = 64 * 1024 * 1024
MOST_LEFT_BEHIND = 8
_CHUNK = 64 * 1024
_WHOAMI = "whoami"
_HINT = "See which nodes run with 'dmq status', and whether rabbitmq_management is enabled on them."


class ManagementClient:
    """Asks one node's management API and fails over to the next within a second when that one dies or freezes.

    Every method may be called from any thread and returns within `timeout_s` in all, or raises `NotReachableError`
    (nobody answers), `AccessDeniedError` (401 or 403), `OperationTimeoutError` (a node that lives did not finish) or
    `InvalidInputError`. A slow call is not taken for a dead node: while one node of a cluster is frozen all others
    gather their figures for seconds, but answer `whoami` at once; only a node that fails that too is left.
    """

    def __init__(
        self,
        endpoints: Sequence[ManagementEndpoint],
        credentials: Credentials,
        *,
        timeout_s: float = TIMEOUT_S,
        largest_body: int = LARGEST_BODY,
    ) -> None:
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._largest_body = largest_body
        self._changed = threading.Condition()
        self._closed = False
        self._clients = tuple(_EndpointClient(endpoint, credentials) for endpoint in endpoints)
        self._asks: ManagementEndpoint | None = None

    @property
    def asks(self) -> ManagementEndpoint | None:
        """Who answered last; None before the first answer."""
        return self._asks

    @property
    def endpoints(self) -> tuple[ManagementEndpoint, ...]:
        """Whom it may ask."""
        return tuple(client.endpoint for client in self._clients)

    def use(self, endpoints: Sequence[ManagementEndpoint]) -> None:
        """Asks these endpoints from now on; what is known of those that stay is kept."""
        with self._changed:
            known = {client.endpoint: client for client in self._clients}
            self._clients = tuple(known.get(e) or _EndpointClient(e, self._credentials) for e in endpoints)
        for client in known.values():
            if client not in self._clients:
                client.close()

    def overview(self) -> Overview:
        """The cluster as a whole."""
        return self._get("overview", parse.overview)

    def nodes(self) -> tuple[NodeFigures, ...]:
        """Every node."""
        return self._get("nodes", parse.nodes)

    def exchanges(self) -> tuple[ExchangeFigures, ...]:
        """Every exchange of every virtual host."""
        return self._get("exchanges", parse.exchanges)

    def queues(self, columns: Sequence[str] = ()) -> tuple[QueueFigures, ...]:
        """Every queue with its statistics; `columns` names the fields that are wanted (empty: all)."""
        return self._get("queues", parse.queues, {"columns": ",".join(columns)} if columns else {})

    def queues_without_rates(self) -> tuple[QueueFigures, ...]:
        """Every queue with state and depths only: cheap for thousands. Classic queues of a down node may be missing."""
        return self._get("queues", parse.queues, {"disable_stats": "true", "enable_queue_totals": "true"})

    def queue_page(
        self, page: int = 1, size: int = 100, name_filter: str = "", columns: Sequence[str] = ()
    ) -> Page[QueueFigures]:
        """One page, counted from 1, of the queues whose name contains `name_filter`; `size` is 1 to 500."""
        if page < 1 or not 1 <= size <= 500:
            raise InvalidInputError(f"there is no page {page} of {size} queues", "Pages begin at 1 and hold 1 to 500.")
        query = {"page": str(page), "page_size": str(size)}
        if name_filter:
            query |= {"name": name_filter, "use_regex": "false"}
        if columns:
            query["columns"] = ",".join(columns)
        return self._get("queues", parse.queue_page, query)

    def queue(self, key: EntityKey) -> QueueFigures | None:
        """One queue; None if there is none of that name."""
        return self._get(f"queues/{_segment(key.vhost)}/{_segment(key.name)}", parse.queue, absent=lambda: None)

    def bindings(self) -> tuple[BindingFigures, ...]:
        """Every binding, those to the default exchange included."""
        return self._get("bindings", parse.bindings)

    def connections(self) -> tuple[ConnectionFigures, ...]:
        """Every client connection."""
        return self._get("connections", parse.connections)

    def channels(self) -> tuple[ChannelFigures, ...]:
        """Every channel."""
        return self._get("channels", parse.channels)

    def consumers(self) -> tuple[ConsumerFigures, ...]:
        """Every consumer."""
        return self._get("consumers", parse.consumers)

    def alarms(self) -> tuple[Alarm, ...]:
        """The resource alarms in effect; quick and exact, also with a node in trouble."""
        return self._get("health/checks/alarms", parse.alarms, good=(200, 503))

    def close(self) -> None:
        """Interrupts whatever runs, in every thread; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for client in self._clients:
            client.close()

    def _get(
        self,
        path: str,
        read: Callable[[object], T],
        query: Query | None = None,
        *,
        good: tuple[int, ...] = (200,),
        absent: Callable[[], T] | None = None,
    ) -> T:
        for client in self._clients:
            client.session()
        deadline = time.monotonic() + self._timeout_s
        troubles: list[tuple[_EndpointClient, _Trouble]] = []
        for client in self._order():
            if troubles and time.monotonic() >= deadline:
                break
            try:
                answer = self._ask(client, path, query or {}, deadline)
                if answer.status == 404 and absent is not None:
                    self._answered(client)
                    return absent()
                value = _value_of(answer, good, read)
            except _Trouble as trouble:
                client.avoid_until = time.monotonic() + AVOID_S
                troubles.append((client, trouble))
            else:
                self._answered(client)
                return value
        raise _error(troubles)

    def _order(self) -> list[_EndpointClient]:
        """Who answered last first, those that just failed last."""
        now, asks = time.monotonic(), self._asks
        return sorted(self._clients, key=lambda d: (d.avoid_until > now, d.endpoint != asks))

    def _answered(self, client: _EndpointClient) -> None:
        client.avoid_until = 0.0
        self._asks = client.endpoint

    def _ask(self, client: _EndpointClient, path: str, query: Query, deadline: float) -> _Answer:
        call = self._launch(client, path, query, deadline)
        try:
            if not self._await(call, min(PATIENCE_S, deadline - time.monotonic())):
                self._outlast(client, call, deadline)
        finally:
            call.left = not call.done
        if call.trouble is not None:
            raise call.trouble
        if call.answer is None:
            raise OperationTimeoutError(
                f"{client.endpoint.name} lives, but did not answer /api/{path} within {self._timeout_s:g} s",
                "A frozen or cut off node makes the others wait; they answer again once they gave it up.",
            )
        return call.answer

    def _outlast(self, client: _EndpointClient, call: _Call, deadline: float) -> None:
        """Waits on for `call` for as long as its node answers `whoami`."""
        while not call.done and deadline - time.monotonic() > PROBE_S:
            probe = self._launch(client, _WHOAMI, {}, time.monotonic() + PROBE_S)
            self._await(call, PROBE_S)
            probe.left = not probe.done
            if not call.done and probe.answer is None:
                raise _Trouble("does not answer")
            self._asks = client.endpoint
            self._await(call, min(PROBE_EVERY_S, deadline - time.monotonic()))
        # Too late to find out more before the bound.
        self._await(call, deadline - time.monotonic())

    def _await(self, call: _Call, seconds: float) -> bool:
        """Whether `call` was done within `seconds`; `NotReachableError` as soon as the client is closed."""
        with self._changed:
            self._changed.wait_for(lambda: call.done or self._closed, max(0.0, seconds))
            if self._closed:
                raise NotReachableError("the management client is closed")
            return call.done

    def _launch(self, client: _EndpointClient, path: str, query: Query, deadline: float) -> _Call:
        if client.left_behind >= MOST_LEFT_BEHIND:
            raise _Trouble("does not answer")
        call = _Call(client, client.session(), path, query, deadline, self._largest_body)
        client.calls.append(call)
        threading.Thread(target=self._run, args=(call,), name=f"management {client.endpoint.name}", daemon=True).start()
        return call

    def _run(self, call: _Call) -> None:
        try:
            call.answer = call.fetch()
        except _Trouble as trouble:
            call.trouble = trouble
        finally:
            with contextlib.suppress(ValueError):
                call.client.calls.remove(call)
            with self._changed:
                call.done = True
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


class _Trouble(Exception):
    """One endpoint did not give what was asked; the next may."""

    def __init__(self, why: str, denied: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.denied = denied


class _EndpointClient:
    """One endpoint with its HTTP session and what is known of its health."""

    def __init__(self, endpoint: ManagementEndpoint, credentials: Credentials) -> None:
        self.endpoint = endpoint
        self.avoid_until = 0.0
        self.calls: list[_Call] = []
        self._credentials = credentials
        self._lock = threading.Lock()
        self._session: Session | None = None

    @property
    def left_behind(self) -> int:
        """How many calls nobody waits for any more still run."""
        return sum(call.left for call in tuple(self.calls))

    def session(self) -> Session:
        """The session, made at first use, before any clock runs: importing requests takes a tenth of a second."""
        import requests

        with self._lock:
            if self._session is None:
                self._session = _new_session(requests.Session(), self._credentials, self.endpoint.tls)
            return self._session

    def close(self) -> None:
        """Closes what is idle; calls that run end by themselves as soon as they get anything."""
        for call in tuple(self.calls):
            call.left = True
        with self._lock:
            if self._session is not None:
                self._session.close()


def _new_session(session: Session, credentials: Credentials, tls: TlsSettings | None) -> Session:
    from requests.auth import HTTPBasicAuth
    from urllib3 import disable_warnings
    from urllib3.exceptions import InsecureRequestWarning

    # The environment could name a proxy, or another password in a netrc file.
    session.trust_env = False
    session.auth = HTTPBasicAuth(credentials.username.encode(), credentials.password.encode())
    # Unpacked bodies have a size that can be bounded while they come.
    session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
    if tls is not None:
        session.verify = (tls.ca_file or True) if tls.verify else False
        if not tls.verify:
            # Whoever switched the check off knows; a warning on stderr would tear the console's screen.
            disable_warnings(InsecureRequestWarning)
        if tls.cert_file is not None:
            session.cert = (tls.cert_file, tls.key_file) if tls.key_file else tls.cert_file
    return session


class _Call:
    """One request on a thread of its own, so that whoever waits for it can leave at any moment."""

    def __init__(
        self, client: _EndpointClient, session: Session, path: str, query: Query, deadline: float, largest_body: int
    ) -> None:
        self.client = client
        self.answer: _Answer | None = None
        self.trouble: _Trouble | None = None
        self.done = False
        self.left = False
        self._session = session
        self._url = f"{client.endpoint.url}/api/{path}"
        self._query = dict(query)
        self._deadline = deadline
        self._largest_body = largest_body

    def fetch(self) -> _Answer:
        """Sends the request and reads the whole answer; `_Trouble` says why there is none."""
        from requests import exceptions
        from urllib3.exceptions import HTTPError

        left = max(0.05, self._deadline - time.monotonic())
        try:
            with self._session.get(
                self._url, params=self._query, timeout=(min(1.0, left), left), stream=True, allow_redirects=False
            ) as response:
                return _Answer(response.status_code, self._body(response.raw))
        except exceptions.SSLError as error:
            raise _Trouble(f"has no TLS that we trust ({_root(error)})") from error
        except (exceptions.Timeout, TimeoutError) as error:
            raise _Trouble("does not answer") from error
        except (exceptions.RequestException, HTTPError, OSError, ValueError) as error:
            refused = isinstance(_root(error), ConnectionRefusedError)
            raise _Trouble("refuses the connection" if refused else "broke the connection off") from error

    def _body(self, raw: Any) -> bytes:
        body = bytearray()
        while chunk := raw.read1(_CHUNK):
            body += chunk
            if len(body) > self._largest_body:
                raise _Trouble(f"answered with more than {self._largest_body} bytes")
            if self.left or time.monotonic() > self._deadline:
                raise _Trouble("does not finish its answer")
        return bytes(body)


def _value_of(answer: _Answer, good: tuple[int, ...], read: Callable[[object], T]) -> T:
    if answer.status in (401, 403):
        raise _Trouble(f"answered {answer.status}", denied=True)
    if answer.status == 400:
        raise InvalidInputError(f"the management API refused the question: {_reason(answer.body)}")
    if answer.status not in good:
        raise _Trouble(f"answered {answer.status}")
    try:
        return read(json.loads(answer.body))
    except (ValueError, RecursionError) as error:
        raise _Trouble("answered with something else than the management API does") from error


def _reason(body: bytes) -> str:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return "no reason given"
    reason = told.get("reason") if isinstance(told, dict) else None
    return visible(str(reason or "no reason given"))[:200]


def _error(troubles: Sequence[tuple[_EndpointClient, _Trouble]]) -> DmqError:
    if not troubles:
        return NotReachableError("no node of the cluster has a management API that we know of", _HINT)
    why = ", ".join(f"{visible(client.endpoint.name)} {trouble.why}" for client, trouble in troubles)
    if any(trouble.denied for _, trouble in troubles):
        return AccessDeniedError(
            f"the management API refuses this user: {why}",
            "Check user and password; the user needs the tag 'monitoring' or 'administrator'.",
        )
    return NotReachableError(f"no management API answers: {why}", _HINT)


def _root(error: BaseException) -> BaseException:
    """The innermost cause: requests wraps what urllib3 wraps around the system's error."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in error.args if isinstance(a, BaseException)), None) or error.__cause__
        if inner is None:
            break
        error = inner
    return error


def _segment(name: str) -> str:
    try:
        return path_segment(name)
    except UnicodeEncodeError:
        raise InvalidInputError(f"{visible(name)} cannot be a name on a broker", "Names are UTF-8 text.") from None
