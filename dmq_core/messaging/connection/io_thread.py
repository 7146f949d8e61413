"""The I/O thread of a connection: dials, watches, loses, and dials again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import DmqError
from dmq_core.messaging.connection.endpoint_selection import Dialer, describe
from dmq_core.messaging.connection.liveness import SilenceWatch, Verdict
from dmq_core.messaging.connection.partition_detector import ReachWatch
from dmq_core.messaging.connection.states import (
    LIVE_STATES,
    ChannelUser,
    ConnectionState,
    ConnectionStatus,
    Mover,
    OpeningAct,
    Waiter,
    Worker,
)
from dmq_core.messaging.transport.close_reason import CloseReason, Cure
from dmq_core.messaging.transport.protocol import Channel, Link, Network

TICK_S = 0.25
HANDSHAKE_SILENCE_S = 2.0
DENIAL_PATIENCE_S = 30.0
REOPEN_PAUSE_S = 0.2
REOPEN_LONGEST_PAUSE_S = 2.0
# A declaration that a cluster without a majority never answers must not keep everybody from working.
OPENING_LIMIT_S = 5.0
REST_LOOK_S = 0.02
REST_LIMIT_S = 2.0
RELIEF_EVERY_S = (4.0, 8.0)
IDLE_S = 1.0


@dataclass(slots=True)
class _Seat:
    """A user with the channel that it has now."""

    user: ChannelUser
    channel: Channel | None = None
    token: object | None = None
    failures: int = 0
    opened_at: float = 0.0


@dataclass(slots=True)
class _Move:
    """The link to another node, opened beside the one in use, and when to give up on resting users."""

    link: Link
    events: _LinkEvents
    rest_until: float = 0.0
    blocked: str | None = None

    @property
    def arrived(self) -> bool:
        return self.rest_until > 0


class Recovery:
    """What the I/O thread of a connection owns; only `call` may be used by others."""

    def __init__(
        self,
        name: str,
        credentials: Mapping[NodeEndpoint, Credentials],
        dialer: Dialer,
        publish: Callable[[ConnectionStatus, DmqError | None], None],
        network: Network,
        opening: OpeningAct | None = None,
        relief: Callable[[NodeEndpoint], NodeEndpoint | None] | None = None,
        on_leave: Callable[[NodeEndpoint, str], None] | None = None,
    ) -> None:
        self._network = network
        self._now = network.now
        self._loop = network.loop(self)
        self._name = name
        self._credentials = credentials
        self._dialer = dialer
        self._publish = publish
        self._opening = opening
        self._curtain_up = False
        self._status = ConnectionStatus(ConnectionState.NEW, self._network.wall())
        self._seats: list[_Seat] = []
        self._link: Link | None = None
        self._events: _LinkEvents | None = None
        self._move: _Move | None = None
        self._relief = relief
        self._relief_at = 0.0
        self._on_leave = on_leave
        self._pulse: Channel | None = None
        self._watch = SilenceWatch()
        self._reach = ReachWatch()
        self._asker: Channel | None = None
        self._asker_wanted = False
        self._dialled_at = 0.0
        self._ticked_at = self._now()
        self._cancel_dial: Callable[[], None] | None = None
        self._denied_since: float | None = None
        self._closing = False

    def call(self, callback: Callable[[], None]) -> bool:
        """Has the thread call `callback`; False if it has ended. The one method for other threads."""
        return self._loop.call_soon(callback)

    def run(self) -> None:
        """Connects, and serves until it is closed or gives up."""
        self._loop.call_later(0, self._dial)
        self._loop.call_later(TICK_S, self._tick)
        self._loop.run()

    def attach(self, user: ChannelUser) -> None:
        """Seats a user."""
        if self._closing:
            user.ended(None)
            return
        seat = _Seat(user)
        self._seats.append(seat)
        self._open_channel(seat)

    def detach(self, user: ChannelUser) -> None:
        """Closes a user's channel and forgets the user."""
        for seat in [s for s in self._seats if s.user is user]:
            self._seats.remove(seat)
            if seat.channel is not None:
                seat.channel.close()

    def leave(self, endpoint: NodeEndpoint | None, why: str) -> None:
        """Abandons the link if it goes to `endpoint` (None: wherever it goes)."""
        if endpoint is not None:
            self._dialer.punish(endpoint, self._now())
        if self._link is not None and endpoint in (None, self._link.endpoint):
            self._link.abandon(why)

    def doubt(self, endpoint: NodeEndpoint, why: str) -> None:
        """Somebody left `endpoint` for good reason; if the link goes there, it is left once nothing is under way."""
        if self._link is not None and self._link.endpoint == endpoint:
            self._reach.doubted(why, self._now())

    def close(self) -> None:
        """Ends everything; back-off included."""
        if self._closing:
            return
        self._closing = True
        self._set(ConnectionState.CLOSING)
        if self._cancel_dial is not None:
            self._cancel_dial()
        if self._move is not None:
            self._stay("the connection is closed")
        if self._link is None:
            self._finish(None)
        else:
            self._link.close()

    def busy(self) -> bool:
        """Whether a user's own threads still work on what came. From any thread."""
        return any(isinstance(seat.user, Worker) and seat.user.busy() for seat in tuple(self._seats))

    def _dial(self) -> None:
        self._cancel_dial = None
        self._dialled_at = self._now()
        endpoint = self._dialer.next(self._dialled_at)
        if self._status.state is ConnectionState.NEW:
            self._set(ConnectionState.CONNECTING, endpoint=None)
        self._link, self._events = self._linked(endpoint)

    def _linked(self, endpoint: NodeEndpoint) -> tuple[Link, _LinkEvents]:
        events = _LinkEvents(self, endpoint)
        return self._network.link(self._loop, endpoint, self._credentials[endpoint], self._name, events), events

    def opened(self, events: _LinkEvents) -> None:
        """The link opened: every user gets a channel."""
        if self._move is not None and events is self._move.events:
            self._arrived(self._move)
            return
        link = self._link
        if link is None:
            return
        self._moved_in(link)
        if self._opening is None:
            self._raise_curtain(link)
        else:
            self._loop.call_later(OPENING_LIMIT_S, lambda: self._raise_curtain(link))
            self._opening.play(link, lambda: self._raise_curtain(link))

    def _moved_in(self, link: Link) -> None:
        now = self._now()
        self._dialer.succeeded(link.endpoint)
        self._watch.opened(now)
        self._reach.opened(now)
        self._asker, self._asker_wanted = None, False
        self._denied_since = None
        self._relief_at = now + random.uniform(*RELIEF_EVERY_S)
        self._status = replace(
            self._status, epoch=self._status.epoch + 1, broker_version=link.broker_version, problem="", reason=None
        )
        # A channel of its own for the question "are you there?": a user's channel may wait for a slow declaration.
        link.channel(self._pulse_opened, self._pulse_lost)
        self._set(ConnectionState.OPEN, endpoint=link.endpoint)

    def _raise_curtain(self, link: Link) -> None:
        """Every user gets a channel, once for each link."""
        if link is self._link and not self._curtain_up:
            self._curtain_up = True
            for seat in tuple(self._seats):
                self._open_channel(seat)

    def lost(self, events: _LinkEvents, reason: CloseReason) -> None:
        """A link is over: users are told, and the next endpoint is tried."""
        if self._move is not None and events is self._move.events:
            self._stay(reason.text)
        elif events is self._events:
            self._lost(events.endpoint, reason)

    def _lost(self, endpoint: NodeEndpoint, reason: CloseReason) -> None:
        if self._move is not None and self._move.arrived:
            self._dialer.punish(endpoint, self._now())
            self._switch(self._move, reason)
            return
        if self._move is not None:
            self._stay(reason.text)
        self._link = self._events = None
        self._curtain_up = False
        self._pulse = None
        for seat in tuple(self._seats):
            self._vacate(seat, reason)
        if self._closing:
            self._finish(None)
            return
        was_open = self._status.state in LIVE_STATES
        pause = self._dialer.failed(endpoint, self._now())
        problem = f"{describe(endpoint)}: {reason.text}"
        if self._gives_up(reason):
            self._finish(reason.error(describe(endpoint)), reason)
            return
        state = ConnectionState.RECOVERING if was_open or self._status.epoch else ConnectionState.CONNECTING
        self._set(state, endpoint=None, problem=problem, reason=reason)
        self._cancel_dial = self._loop.call_later(pause, self._dial)

    def blocked(self, events: _LinkEvents, why: str | None) -> None:
        """The broker blocks publishers, or (None) no longer does."""
        if self._move is not None and events is self._move.events:
            self._move.blocked = why
        if events is not self._events or self._status.state not in LIVE_STATES:
            return
        problem = "" if why is None else f"the broker blocks publishers: {why}"
        self._set(ConnectionState.OPEN if why is None else ConnectionState.BLOCKED, problem=problem)
        for seat in tuple(self._seats):
            seat.user.flow_changed(why is not None)

    # Moving to another node: the link there first, then the users once nothing of theirs is under way.

    def move(self, endpoint: NodeEndpoint) -> None:
        """Goes over to `endpoint`, or stays where it is if that cannot be done without losing anything."""
        if self._move is not None or self._link is None or self._status.state is not ConnectionState.OPEN:
            return
        if any(mover.is_bound for mover in self._movers()):
            self._set(self._status.state)
        else:
            self._move = _Move(*self._linked(endpoint))

    def _arrived(self, move: _Move) -> None:
        move.rest_until = self._now() + REST_LIMIT_S
        for mover in self._movers():
            mover.rest(True)
        self._await_rest(move)

    def _await_rest(self, move: _Move) -> None:
        if move is not self._move:
            return
        if all(mover.at_rest() for mover in self._movers()):
            self._switch(move, CloseReason(Cure.RECOVER, f"the connection moved to {describe(move.events.endpoint)}"))
        elif self._now() > move.rest_until:
            self._stay("what is under way takes too long")
        else:
            self._loop.call_later(REST_LOOK_S, lambda: self._await_rest(move))

    def _switch(self, move: _Move, reason: CloseReason) -> None:
        left, self._move = self._link, None
        self._link, self._events = move.link, move.events
        self._pulse = None
        for seat in tuple(self._seats):
            self._vacate(seat, reason)
        if left is not None:
            left.close()
        self._moved_in(move.link)
        for seat in tuple(self._seats):
            self._open_channel(seat)
        if move.blocked is not None:
            self.blocked(move.events, move.blocked)

    def _stay(self, why: str) -> None:
        move, self._move = self._move, None
        if move is None:
            return
        self._dialer.punish(move.events.endpoint, self._now())
        if self._closing:
            move.link.abandon(why)
        else:
            move.link.close()
        if move.arrived:
            for mover in self._movers():
                mover.rest(False)
        # Whoever counts on the move hears that it did not come about.
        self._set(self._status.state)

    def _movers(self) -> tuple[Mover, ...]:
        return tuple(seat.user for seat in self._seats if isinstance(seat.user, Mover))

    def _seek_relief(self, link: Link, now: float) -> None:
        if self._relief is None or now < self._relief_at or self._status.state is not ConnectionState.OPEN:
            return
        self._relief_at = now + random.uniform(*RELIEF_EVERY_S)
        if self._move is None and (endpoint := self._relief(link.endpoint)) is not None:
            self.move(endpoint)

    def _gives_up(self, reason: CloseReason) -> bool:
        if reason.cure is not Cure.GIVE_UP:
            return False
        if self._status.epoch == 0:
            return True
        # A node that is coming up or has lost its majority may refuse what the cluster accepted a moment ago.
        now = self._now()
        self._denied_since = self._denied_since or now
        return now - self._denied_since > DENIAL_PATIENCE_S

    def _open_channel(self, seat: _Seat) -> None:
        if self._link is None or not self._curtain_up or seat.token is not None or seat not in self._seats:
            return
        endpoint = self._link.endpoint
        seat.token = token = object()

        def opened(channel: Channel) -> None:
            if seat.token is not token or seat not in self._seats:
                channel.close()
                return
            seat.channel = channel
            seat.opened_at = self._now()
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
        settled = self._now() - seat.opened_at > 2 * REOPEN_LONGEST_PAUSE_S
        seat.failures = 0 if settled else seat.failures + 1
        pause = (
            0.0 if seat.failures <= 1 else min(REOPEN_LONGEST_PAUSE_S, REOPEN_PAUSE_S * 2.0 ** min(seat.failures, 6))
        )
        self._loop.call_later(pause, lambda: self._open_channel(seat))

    def _pulse_opened(self, channel: Channel) -> None:
        self._pulse = channel

    def _pulse_lost(self, _reason: CloseReason) -> None:
        self._pulse = None

    # Whether the node still reaches the queues that consumers wait for.

    def _ask(self, link: Link, now: float) -> None:
        if not self._reach.is_due(now):
            return
        waited_for = [w.awaited for w in self._waiters() if w.idle_s(now) >= IDLE_S]
        waited_for = [queue for queue in waited_for if queue]
        if not waited_for:
            return
        if self._asker is not None:
            self._put(self._asker, self._reach.question(waited_for, now))
        elif not self._asker_wanted:
            # A channel of its own: an answer may take long, and none at all closes the channel.
            self._asker_wanted = True
            link.channel(lambda channel: self._asker_opened(link, channel), lambda _reason: self._asker_lost(link))

    def _put(self, asker: Channel, queue: str) -> None:
        asker.depth(
            queue,
            lambda depth: self._reach.answered(queue, depth.consumers, self._now()) if asker is self._asker else None,
        )

    def _asker_opened(self, link: Link, channel: Channel) -> None:
        if link is self._link:
            self._asker = channel

    def _asker_lost(self, link: Link) -> None:
        if link is self._link:
            self._asker, self._asker_wanted = None, False
            self._reach.refused()

    def _why_out_of_reach(self, link: Link, now: float) -> str:
        why = self._reach.why_leave(now)
        waiters = self._waiters()
        may_leave = bool(why and waiters) and self._dialer.has_better(link.endpoint, now)
        if not may_leave or any(waiter.idle_s(now) < IDLE_S for waiter in waiters):
            return ""
        others = [mover for mover in self._movers() if not isinstance(mover, Waiter)]
        if any(mover.is_bound for mover in self._movers()) or not all(other.at_rest() for other in others):
            return ""
        self._reach.left(now)
        return why

    def _waiters(self) -> tuple[Waiter, ...]:
        return tuple(seat.user for seat in self._seats if isinstance(seat.user, Waiter))

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        now = self._now()
        late = now - self._ticked_at > 4 * TICK_S
        self._ticked_at = now
        if late:
            self._watch.slept()
            self._reach.opened(now)
        if self._link is None:
            return
        if why := self._why_leave(self._link, now, late):
            endpoint = self._link.endpoint
            self.leave(endpoint, why)
            if self._on_leave is not None:
                self._on_leave(endpoint, why)
        else:
            self._seek_relief(self._link, now)

    def _why_leave(self, link: Link, now: float, late: bool) -> str:
        if self._status.state not in LIVE_STATES:
            return "" if late else self._silence_at_the_door(link, now)
        why = next((w for w in (seat.user.overdue(now) for seat in self._seats) if w), "")
        # A broker that blocks a publisher reads nothing from it, questions neither.
        if why or late or self._status.state is not ConnectionState.OPEN:
            return why
        if why := self._silence(link, now):
            return why
        self._ask(link, now)
        return self._why_out_of_reach(link, now)

    def _silence(self, link: Link, now: float) -> str:
        match self._watch.judge(link.heard_at, now):
            case Verdict.ASK:
                # A pulse that is not open yet is a question too, asked when the link opened.
                if self._pulse is not None:
                    self._pulse.ping()
            case Verdict.LEAVE:
                return _silent_for(now - link.heard_at)
        return ""

    def _silence_at_the_door(self, link: Link, now: float) -> str:
        """A handshake that stands still is left early where there is another node to try, else at its own limit."""
        silent = now - max(link.heard_at, self._dialled_at)
        better = silent >= HANDSHAKE_SILENCE_S and self._dialer.has_better(link.endpoint, now)
        return _silent_for(silent) if better else ""

    def _set(
        self,
        state: ConnectionState,
        *,
        endpoint: NodeEndpoint | str | None = "",
        problem: str | None = None,
        reason: CloseReason | None = None,
    ) -> None:
        changes: dict[str, object] = {"state": state, "at": self._network.wall()}
        if not isinstance(endpoint, str):
            changes["endpoint"] = endpoint
        if problem is not None:
            changes |= {"problem": problem, "reason": reason}
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]  # the keys are its own fields
        self._publish(self._status, None)

    def _finish(self, error: DmqError | None, reason: CloseReason | None = None) -> None:
        self._closing = True
        state = ConnectionState.CLOSED if error is None else ConnectionState.FAILED
        self._status = replace(
            self._status,
            state=state,
            at=self._network.wall(),
            endpoint=None,
            problem="" if error is None else error.what,
            reason=reason,
        )
        seats, self._seats = self._seats, []
        for seat in seats:
            seat.user.ended(error)
        self._publish(self._status, error)
        self._loop.stop()

    def crashed(self, error: Exception) -> None:
        """A callback raised: what the link brought cannot be trusted any more."""
        if self._link is not None:
            self._link.abandon(f"the client stumbled: {error!r}")


class _LinkEvents:
    """Passes a link's events on, with the link that they are about."""

    def __init__(self, io: Recovery, endpoint: NodeEndpoint) -> None:
        self._io = io
        self.endpoint = endpoint

    def opened(self) -> None:
        self._io.opened(self)

    def lost(self, reason: CloseReason) -> None:
        self._io.lost(self, reason)

    def blocked(self, why: str | None) -> None:
        self._io.blocked(self, why)


def _silent_for(seconds: float) -> str:
    return f"silent for {seconds:.1f} s"
