"""A cluster that somebody else runs, reached by URLs: it can be seen and spoken to, but nothing of it is changed."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from dmq_core.cluster.amqp_probe import Greeting, accepts, greeting
from dmq_core.cluster.faults.model import Fault
from dmq_core.cluster.protocol import Backend, NodeAction, NodeChange, NodeInfo, NodeState
from dmq_core.cluster.readiness import side_by_side
from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import AccessDeniedError, InvalidInputError, NotReachableError, OperationTimeoutError, RefusedError
from dmq_core.management.client import ManagementClient
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.management.models import Overview
from dmq_core.progress import ProgressListener, no_progress
from dmq_core.text import visible
from dmq_core.tls import tls_context
from dmq_core.urls import PlannedEndpoint, credentials_of, parse_url, plan_endpoints

PROBE_LIMIT_S = 3.0
_WATCH_S = 0.4
_REMEMBERED_S = 0.3


@dataclass(frozen=True, slots=True)
class _Probe:
    """What one endpoint turned out to be."""

    info: NodeInfo
    cluster_name: str = ""
    denied: bool = False
    trouble: str = ""

    @property
    def answers(self) -> bool:
        return self.info.state is NodeState.RUNNING


class AttachedCluster:
    """The cluster behind `urls` (AMQP or HTTP, with or without TLS, one or several of its nodes).

    `credentials` beat those in the URLs; without either it is `guest`. `InvalidInputError` if a URL or a TLS file
    makes no sense. Nothing is asked before `attach` or another method is called; threads may share it.
    """

    def __init__(
        self, urls: Sequence[str], *, credentials: Credentials | None = None, tls: TlsSettings | None = None
    ) -> None:
        parsed = [parse_url(url) for url in urls]
        if not parsed:
            raise InvalidInputError("no URL is given", "Give one like amqp://host:5672.")
        if any(url.scheme.secured for url in parsed):
            tls_context(tls or TlsSettings())
        self._credentials = credentials or credentials_of(parsed) or Credentials()
        self._plan = plan_endpoints(parsed, tls)
        self._host = parsed[0].host
        self._lock = threading.Lock()
        self._probes: tuple[_Probe, ...] | None = None
        self._asked_at = 0.0

    def __repr__(self) -> str:
        return f"AttachedCluster({self._host!r})"

    @property
    def name(self) -> str:
        """The host of the first URL."""
        return self._host

    @property
    def backend(self) -> Backend:
        """Always attached."""
        return Backend.ATTACHED

    @property
    def credentials(self) -> Credentials:
        """The user that front ends connect as."""
        return self._credentials

    def attach(self) -> None:
        """Asks every endpoint who it is, within 5 s.

        `NotReachableError` if none answers, `AccessDeniedError` if those that do know this user not.
        """
        probes = self._ask()
        if any(p.answers and not p.denied for p in probes):
            return
        if any(p.denied for p in probes):
            raise AccessDeniedError(
                f"{self._host} does not accept the user {visible(self._credentials.username)}",
                "Check the user and DMQ_PASSWORD; a user of the management API needs the tag 'monitoring'.",
            )
        why = "; ".join(dict.fromkeys(p.trouble for p in probes))
        raise NotReachableError(
            f"{self._host} cannot be reached: {why}", "Check host and port, and that RabbitMQ runs there."
        )

    def exists(self) -> bool:
        """Whether any endpoint answers, within 5 s."""
        return any(p.answers for p in self._ask())

    def nodes(self) -> tuple[NodeInfo, ...]:
        """Every endpoint, under the name that RabbitMQ gave its node, or `host:port` until it is known."""
        return tuple(p.info for p in self._ask())

    def start(self, progress: ProgressListener = no_progress) -> None:
        """Raises `RefusedError`."""
        self._refuse("started")

    def stop(self, progress: ProgressListener = no_progress) -> None:
        """Raises `RefusedError`."""
        self._refuse("stopped")

    def destroy(self, progress: ProgressListener = no_progress) -> None:
        """Raises `RefusedError`."""
        self._refuse("destroyed")

    def act(self, action: NodeAction, node: str, progress: ProgressListener = no_progress) -> None:
        """Raises `RefusedError`."""
        raise RefusedError(
            f"{node} of {self._host} is left as it is: dmq did not make this cluster",
            f"'dmq start' makes one on which 'dmq node {action}' works.",
        )

    def add_node(self, progress: ProgressListener = no_progress) -> str:
        """Raises `RefusedError`."""
        self._refuse("given a node")

    def remove_node(self, node: str, progress: ProgressListener = no_progress, *, force: bool = False) -> None:
        """Raises `RefusedError`."""
        self._refuse(f"made to lose {node}")

    def inject(self, fault: Fault, progress: ProgressListener = no_progress) -> str | None:
        """Raises `RefusedError`."""
        raise RefusedError(
            f"{fault.kind}: refused, dmq did not make {self._host}",
            f"'dmq start' makes a cluster on which 'dmq fault do {fault.kind}' works.",
        )

    def logs(self, node: str, lines: int = 200) -> str:
        """Raises `RefusedError`: the log is a file on a machine that is not ours."""
        raise RefusedError(
            f"the log of {node} is on its own machine", "'dmq tail --exchange amq.rabbitmq.log' may show it."
        )

    def active_faults(self) -> tuple[Fault, ...]:
        """Raises `RefusedError`: what was done to a link is asked of the node itself."""
        raise RefusedError("active faults are known of clusters that dmq made only", "'dmq status' tells of alarms.")

    def metrics(self, node: str) -> str:
        """Raises `RefusedError`: the port is one of a machine that is not ours."""
        raise RefusedError(f"the counters of {node} are on its own machine", "Ask the management API for rates.")

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        """Yields endpoints that begin or cease to answer, until `stop` is set."""
        known = {info.name: info.state for info in self.nodes()}
        while not stop.wait(_WATCH_S):
            seen = {info.name: info.state for info in self.nodes()}
            for name, state in seen.items():
                if known.get(name, state) is not state:
                    yield NodeChange(time.time(), name, state)
            known = seen

    def _refuse(self, what: str) -> NoReturn:
        raise RefusedError(
            f"{self._host} cannot be {what}: dmq did not make this cluster", "Leave out --url to use one of your own."
        )

    def _ask(self) -> tuple[_Probe, ...]:
        """What the endpoints say now, or said a moment ago."""
        with self._lock:
            if self._probes is not None and time.monotonic() - self._asked_at < _REMEMBERED_S:
                return self._probes
            known = self._probes or (None,) * len(self._plan)
            asked = side_by_side(lambda pair: self._look(*pair), list(zip(self._plan, known, strict=True)))
            self._probes = _one_cluster_each_name(asked)
            self._asked_at = time.monotonic()
            return self._probes

    def _look(self, planned: PlannedEndpoint, known: _Probe | None) -> _Probe:
        if known is not None and known.cluster_name and not known.denied:
            return self._look_again(known)
        endpoint = planned.endpoint
        overview, denied, trouble = self._overview(endpoint)
        greets, amqp_trouble = _greets(endpoint)
        if overview is not None or greets is not None:
            endpoint, overview = self._with_guess(planned, overview, greets)
        if greets is not None and overview is None:
            denied = accepts(endpoint, self._credentials, PROBE_LIMIT_S) is False
        fallback = f"{endpoint.host}:{endpoint.amqp_port or endpoint.management_port}"
        node = (visible(overview.node) if overview else "") or fallback
        info = NodeInfo(node, node, _state(overview is not None or greets is not None or denied), endpoint)
        name = overview.cluster_name if overview else greets.cluster_name if greets else ""
        return _Probe(info, name, denied, trouble or amqp_trouble or "nothing answers")

    def _look_again(self, known: _Probe) -> _Probe:
        """Whether an endpoint that is known still listens; its management port, where there is one, is not logged."""
        endpoint = known.info.endpoint
        answers = _listens(endpoint)
        info = NodeInfo(known.info.name, known.info.erlang_name, _state(answers), endpoint)
        return _Probe(info, known.cluster_name, known.denied, "" if answers else "nothing answers")

    def _with_guess(
        self, planned: PlannedEndpoint, overview: Overview | None, greets: Greeting | None
    ) -> tuple[NodeEndpoint, Overview | None]:
        """The endpoint with a port that was guessed and at which the same cluster answers, else as it was given."""
        for guess in planned.guesses:
            if overview is not None:
                found, _ = _greets(guess)
                if found is not None and found.cluster_name == overview.cluster_name:
                    return guess, overview
            elif greets is not None:
                told, _, _ = self._overview(guess)
                if told is not None and told.cluster_name == greets.cluster_name:
                    return guess, told
        return planned.endpoint, overview

    def _overview(self, endpoint: NodeEndpoint) -> tuple[Overview | None, bool, str]:
        """What the management API tells, whether it refused the user, and what went wrong."""
        url = endpoint.management_url
        if url is None:
            return None, False, ""
        client = ManagementClient(
            [ManagementEndpoint(endpoint.host, url, endpoint.tls)], self._credentials, timeout_s=PROBE_LIMIT_S
        )
        try:
            return client.overview(), False, ""
        except AccessDeniedError:
            return None, True, "the user is refused"
        except (NotReachableError, OperationTimeoutError, InvalidInputError) as error:
            return None, False, error.what
        finally:
            client.close()


def _greets(endpoint: NodeEndpoint) -> tuple[Greeting | None, str]:
    try:
        found = greeting(endpoint, PROBE_LIMIT_S)
    except ssl.SSLError as error:
        return None, f"its TLS cannot be trusted ({visible(str(error.reason or error))})"
    how = "with TLS " if endpoint.tls else ""
    return found, "" if found else f"no AMQP broker answers {how}on port {endpoint.amqp_port}"


def _listens(endpoint: NodeEndpoint) -> bool:
    port = endpoint.management_port or endpoint.amqp_port
    try:
        with socket.create_connection((endpoint.host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _state(answers: bool) -> NodeState:
    return NodeState.RUNNING if answers else NodeState.UNREACHABLE


def _one_cluster_each_name(probes: Sequence[_Probe]) -> tuple[_Probe, ...]:
    """The probes, each under a name of its own: behind a balancer several endpoints may be the same node."""
    names: set[str] = set()
    result: list[_Probe] = []
    for probe in probes:
        info = probe.info
        if info.name in names:
            endpoint = info.endpoint
            own = f"{endpoint.host}:{endpoint.amqp_port or endpoint.management_port}"
            info = NodeInfo(own, info.erlang_name, info.state, endpoint)
        names.add(info.name)
        result.append(_Probe(info, probe.cluster_name, probe.denied, probe.trouble))
    return tuple(result)
