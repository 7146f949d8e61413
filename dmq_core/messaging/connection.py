"""A connection that comes back: it dials one endpoint after the other and gives each user a channel wherever it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from dmq_core.cluster.base import Credentials, NodeEndpoint
from dmq_core.errors import DmqError, MessagingFailed, NotReachable, TimedOut
from dmq_core.messaging.dialing import Dialer

if TYPE_CHECKING:
    from dmq_core.messaging.transport import Channel, CloseReason, Link

TICK_S = 0.25
QUIET_S = 0.75
SILENCE_LIMIT_S = 2.0
SILENCE_LONGEST_S = 10.0
DENIAL_PATIENCE_S = 30.0
REOPEN_PAUSE_S = 0.2
REOPEN_LONGEST_PAUSE_S = 2.0
CLOSE_LIMIT_S = 4.0


class ConnectionState(StrEnum):
    """What a connection is doing."""

    NEW = "new"
    CONNECTING = "connecting"
    OPEN = "open"
    BLOCKED = "blocked"
    RECOVERING = "recovering"
    CLOSING = "closing"
    CLOSED = "closed"
    FAILED = "failed"


LIVE_STATES = frozenset({ConnectionState.OPEN, ConnectionState.BLOCKED})
FINAL_STATES = frozenset({ConnectionState.CLOSED, ConnectionState.FAILED})


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """What a connection is doing since `at` (epoch seconds), where (None: nowhere), and what last went wrong.

    `epoch` counts how often it was opened.
    """

    state: ConnectionState
    at: float
    endpoint: NodeEndpoint | None = None
    epoch: int = 0
    problem: str = ""
    broker_version: str = ""


class ChannelUser(Protocol):
    """Somebody who needs a channel. Everything is called on the connection's I/O thread and must not block."""

    def channel_opened(self, channel: Channel, endpoint: NodeEndpoint) -> None:
        """A fresh channel; it replaces every earlier one."""
        ...

    def channel_lost(self, reason: CloseReason) -> None:
        """The channel is gone; another follows unless the user detaches."""
        ...

    def flow_changed(self, blocked: bool) -> None:
        """The broker began or ceased to block publishers."""
        ...

    def overdue(self, now: float) -> str:
        """Asked every quarter second: why the node must be left (empty: it need not be)."""
        ...

    def awaits_reply(self) -> bool:
        """Whether the broker owes this user an answer, so that silence is a bad sign."""
        ...

    def ended(self, error: DmqError | None) -> None:
        """No channel will come any more: the connection was closed, or failed with `error`."""
        ...


class Connection:
    """A recovering AMQP connection named `name` to one of `endpoints`; methods may be called from any thread.

    It starts with its first user or `start`. `prefer` may reorder the endpoints at each attempt; it is called on the
    I/O thread and must not block. Listeners hear each change of status there, in order. A node from which nothing is
    heard for about two seconds though it was asked is left for another.
    """

    def __init__(
        self,
        endpoints: Sequence[NodeEndpoint],
        credentials: Credentials,
        name: str,
        prefer: Callable[[], Sequence[NodeEndpoint]] | None = None,
        on_change: Callable[[ConnectionStatus], None] | None = None,
    ) -> None:
        self.name = name
        self._credentials = credentials
        self._dialer = Dialer(endpoints, prefer)
        self._changed = threading.Condition()
        self._status = ConnectionStatus(ConnectionState.NEW, time.time())
        self._error: DmqError | None = None
        self._on_change = on_change
        self._thread: threading.Thread | None = None
        self._closing = False
        self._io: _Io | None = None

    @property
    def status(self) -> ConnectionStatus:
        """What it is doing now, without waiting."""
        return self._status

    @property
    def on_io_thread(self) -> bool:
        """Whether the caller is the I/O thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Begins to connect; returns at once, and does nothing the second time. `MessagingFailed` once closed."""
        self._running_io()

    def wait_open(self, timeout_s: float = 10.0) -> NodeEndpoint:
        """Waits until it is open; `AccessDenied` or `NotReachable` say why it is not."""
        self.start()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._status.state not in LIVE_STATES:
                if self._status.state in FINAL_STATES:
                    raise self._error or MessagingFailed(f"the connection {self.name!r} is closed")
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise self._not_open(timeout_s)
            endpoint = self._status.endpoint
        if endpoint is None:
            raise MessagingFailed(f"the connection {self.name!r} is open but nowhere")
        return endpoint

    def attach(self, user: ChannelUser) -> None:
        """Gives `user` a channel as soon and as often as the connection opens, until `detach`."""
        io = self._running_io()
        if not io.call(lambda: io.attach(user)):
            raise MessagingFailed(f"the connection {self.name!r} is closed")

    def detach(self, user: ChannelUser) -> None:
        """Closes the user's channel and forgets the user, who hears nothing more."""
        if self._io is not None:
            io = self._io
            io.call(lambda: io.detach(user))

    def call(self, callback: Callable[[], None]) -> bool:
        """Has the I/O thread call `callback`; False if there is no such thread any more."""
        return self._io is not None and self._io.call(callback)

    def leave(self, endpoint: NodeEndpoint | None, why: str) -> None:
        """Leaves `endpoint` at once if connected there (None: wherever it is) and avoids it for a while."""
        if self._io is not None:
            io = self._io
            io.call(lambda: io.leave(endpoint, why))

    def close(self) -> None:
        """Ends it within four seconds, back-off included; final, and may be called twice."""
        with self._changed:
            thread = self._thread
            self._closing = True
            if thread is None:
                self._status = replace(self._status, state=ConnectionState.CLOSED, at=time.time())
                return
        if self._io is not None:
            self._io.call(self._io.close)
        if threading.current_thread() is not thread:
            thread.join(CLOSE_LIMIT_S)

    def _running_io(self) -> _Io:
        with self._changed:
            if self._closing:
                raise MessagingFailed(f"the connection {self.name!r} is closed")
            if self._io is None:
                self._io = _Io(self.name, self._credentials, self._dialer, self._publish)
                self._thread = threading.Thread(target=self._io.run, name=f"amqp {self.name}", daemon=True)
                self._thread.start()
            return self._io

    def _publish(self, status: ConnectionStatus, error: DmqError | None) -> None:
        with self._changed:
            self._status = status
            self._error = error
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change(status)

    def _not_open(self, timeout_s: float) -> DmqError:
        problem = self._status.problem
        if problem:
            return NotReachable(problem, "Check that the cluster runs and that the port is an AMQP port.")
        return TimedOut(f"no node answered within {timeout_s:g} s", "Check that the cluster runs.")


@dataclass(slots=True)
class _Seat:
    """A user with the channel that it has now."""

    user: ChannelUser
    channel: Channel | None = None
    token: object | None = None
    failures: int = 0
    opened_at: float = 0.0


class _Io:
    """What the I/O thread of a connection owns; only `call` may be used by others."""

    def __init__(
        self,
        name: str,
        credentials: Credentials,
        dialer: Dialer,
        publish: Callable[[ConnectionStatus, DmqError | None], None],
    ) -> None:
        # Imported here so that naming a connection does not load pika.
        from dmq_core.messaging import transport

        self._transport = transport
        self._loop = transport.Loop(self._crashed)
        self._name = name
        self._credentials = credentials
        self._dialer = dialer
        self._publish = publish
        self._status = ConnectionStatus(ConnectionState.NEW, time.time())
        self._seats: list[_Seat] = []
        self._link: Link | None = None
        self._pulse: Channel | None = None
        self._asked_at: float | None = None
        self._opened_at = 0.0
        self._patience_s = SILENCE_LIMIT_S
        self._ticked_at = time.monotonic()
        self._cancel_dial: Callable[[], None] | None = None
        self._denied_since: float | None = None
        self._closing = False

    # Called from any thread.

    def call(self, callback: Callable[[], None]) -> bool:
        return self._loop.call_soon(callback)

    # The I/O thread.

    def run(self) -> None:
        self._loop.call_later(0, self._dial)
        self._loop.call_later(TICK_S, self._tick)
        self._loop.run()

    def attach(self, user: ChannelUser) -> None:
        if self._closing:
            user.ended(None)
            return
        seat = _Seat(user)
        self._seats.append(seat)
        self._open_channel(seat)

    def detach(self, user: ChannelUser) -> None:
        for seat in [s for s in self._seats if s.user is user]:
            self._seats.remove(seat)
            if seat.channel is not None:
                seat.channel.close()

    def leave(self, endpoint: NodeEndpoint | None, why: str) -> None:
        if endpoint is not None:
            self._dialer.punish(endpoint, time.monotonic())
        if self._link is not None and endpoint in (None, self._link.endpoint):
            self._link.abandon(why)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._set(ConnectionState.CLOSING)
        if self._cancel_dial is not None:
            self._cancel_dial()
        if self._link is None:
            self._finish(None)
        else:
            self._link.close()

    def _dial(self) -> None:
        self._cancel_dial = None
        endpoint = self._dialer.next(time.monotonic())
        if self._status.state is ConnectionState.NEW:
            self._set(ConnectionState.CONNECTING, endpoint=None)
        listener = _LinkEvents(self, endpoint)
        self._link = self._transport.Link(self._loop, endpoint, self._credentials, self._name, listener)

    def opened(self, endpoint: NodeEndpoint) -> None:
        link = self._link
        if link is None:
            return
        self._dialer.succeeded(endpoint)
        self._denied_since = None
        self._asked_at = None
        self._status = replace(
            self._status, epoch=self._status.epoch + 1, broker_version=link.broker_version, problem=""
        )
        # A channel of its own for the question "are you there?": a user's channel may wait for a slow declaration.
        link.channel(self._pulse_opened, self._pulse_lost)
        self._set(ConnectionState.OPEN, endpoint=endpoint)
        for seat in tuple(self._seats):
            self._open_channel(seat)

    def lost(self, endpoint: NodeEndpoint, reason: CloseReason) -> None:
        self._link = None
        self._pulse = None
        for seat in tuple(self._seats):
            self._vacate(seat, reason)
        if self._closing:
            self._finish(None)
            return
        was_open = self._status.state in LIVE_STATES
        pause = self._dialer.failed(endpoint, time.monotonic())
        problem = f"{self._transport.describe(endpoint)}: {reason.text}"
        if self._gives_up(reason):
            self._finish(reason.error(self._transport.describe(endpoint)))
            return
        state = ConnectionState.RECOVERING if was_open or self._status.epoch else ConnectionState.CONNECTING
        self._set(state, endpoint=None, problem=problem)
        self._cancel_dial = self._loop.call_later(pause, self._dial)

    def blocked(self, why: str | None) -> None:
        if self._status.state not in LIVE_STATES:
            return
        problem = "" if why is None else f"the broker blocks publishers: {why}"
        self._set(ConnectionState.OPEN if why is None else ConnectionState.BLOCKED, problem=problem)
        for seat in tuple(self._seats):
            seat.user.flow_changed(why is not None)

    def _gives_up(self, reason: CloseReason) -> bool:
        if reason.cure is not self._transport.Cure.GIVE_UP:
            return False
        if self._status.epoch == 0:
            return True
        # A node that is coming up or has lost its majority may refuse what the cluster accepted a moment ago.
        now = time.monotonic()
        self._denied_since = self._denied_since or now
        return now - self._denied_since > DENIAL_PATIENCE_S

    def _open_channel(self, seat: _Seat) -> None:
        if self._link is None or self._status.state not in LIVE_STATES or seat.token is not None:
            return
        if seat not in self._seats:
            return
        endpoint = self._link.endpoint
        seat.token = token = object()

        def opened(channel: Channel) -> None:
            if seat.token is not token or seat not in self._seats:
                channel.close()
                return
            seat.channel = channel
            seat.opened_at = time.monotonic()
            seat.user.channel_opened(channel, endpoint)

        def closed(reason: CloseReason) -> None:
            if seat.token is token and seat in self._seats:
                self._vacate(seat, reason)
                self._reopen(seat)

        self._link.channel(opened, closed)

    def _vacate(self, seat: _Seat, reason: CloseReason) -> None:
        had, seat.channel, seat.token = seat.channel, None, None
        if had is not None:
            seat.user.channel_lost(reason)

    def _reopen(self, seat: _Seat) -> None:
        settled = time.monotonic() - seat.opened_at > 2 * REOPEN_LONGEST_PAUSE_S
        seat.failures = 0 if settled else seat.failures + 1
        pause = (
            0.0 if seat.failures <= 1 else min(REOPEN_LONGEST_PAUSE_S, REOPEN_PAUSE_S * 2.0 ** min(seat.failures, 6))
        )
        self._loop.call_later(pause, lambda: self._open_channel(seat))

    def _pulse_opened(self, channel: Channel) -> None:
        self._pulse = channel

    def _pulse_lost(self, _reason: CloseReason) -> None:
        self._pulse = None

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        now = time.monotonic()
        late = now - self._ticked_at > 4 * TICK_S
        self._ticked_at = now
        link = self._link
        if link is None or self._status.state not in LIVE_STATES:
            return
        why = next((w for w in (seat.user.overdue(now) for seat in self._seats) if w), "")
        # A late tick means that we ourselves were asleep: what the node said meanwhile is still unread.
        if not why and not late and self._status.state is ConnectionState.OPEN:
            why = self._silence(link, now)
        elif late:
            self._asked_at = None
        if why:
            self.leave(link.endpoint, why)

    def _silence(self, link: Link, now: float) -> str:
        silent = now - link.heard_at
        if silent < QUIET_S:
            self._asked_at = None
            if now - self._opened_at > SILENCE_LONGEST_S:
                self._patience_s = SILENCE_LIMIT_S
            return ""
        if self._asked_at is None:
            self._asked_at = now
            if self._pulse is not None:
                self._pulse.ping()
            return ""
        owed = any(seat.user.awaits_reply() for seat in self._seats)
        if now - self._asked_at < self._patience_s and not (owed and silent >= self._patience_s):
            return ""
        # A cluster without a majority throttles publishers, which looks like a freeze wherever we go; each flight in a
        # row waits longer, so that not every two seconds' messages end as unknown.
        self._patience_s = min(SILENCE_LONGEST_S, 2 * self._patience_s)
        return f"silent for {silent:.1f} s"

    def _set(
        self, state: ConnectionState, *, endpoint: NodeEndpoint | str | None = "", problem: str | None = None
    ) -> None:
        changes: dict[str, object] = {"state": state, "at": time.time()}
        if not isinstance(endpoint, str):
            changes["endpoint"] = endpoint
        if problem is not None:
            changes["problem"] = problem
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]  # the keys are its own fields
        self._publish(self._status, None)

    def _finish(self, error: DmqError | None) -> None:
        self._closing = True
        state = ConnectionState.CLOSED if error is None else ConnectionState.FAILED
        self._status = replace(
            self._status, state=state, at=time.time(), endpoint=None, problem="" if error is None else error.what
        )
        seats, self._seats = self._seats, []
        for seat in seats:
            seat.user.ended(error)
        self._publish(self._status, error)
        self._loop.stop()

    def _crashed(self, error: Exception) -> None:
        if self._link is not None:
            self._link.abandon(f"the client stumbled: {error!r}")


class _LinkEvents:
    """Passes a link's events on, with the endpoint that they are about."""

    def __init__(self, io: _Io, endpoint: NodeEndpoint) -> None:
        self._io = io
        self._endpoint = endpoint

    def opened(self) -> None:
        self._io.opened(self._endpoint)

    def lost(self, reason: CloseReason) -> None:
        self._io.lost(self._endpoint, reason)

    def blocked(self, why: str | None) -> None:
        self._io.blocked(why)
