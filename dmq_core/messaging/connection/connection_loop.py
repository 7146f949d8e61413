"""The I/O thread of a connection: dials, watches, loses, and dials again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import DmqError
from dmq_core.messaging.connection.endpoint_selection import EndpointSelector, describe
from dmq_core.messaging.connection.liveness import LivenessAction, LivenessMonitor
from dmq_core.messaging.connection.partition_detector import PartitionDetector
from dmq_core.messaging.connection.states import (
    LIVE_STATES,
    NO_HOOKS,
    AwaitsMessages,
    ChannelUser,
    ConnectionHooks,
    ConnectionState,
    ConnectionStatus,
    HasWorkers,
    Pausable,
    TopologySetup,
)
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.messaging.transport.protocol import Channel, Link, Network

TICK_S = 0.25
HANDSHAKE_SILENCE_S = 2.0
DENIAL_PATIENCE_S = 30.0
REOPEN_PAUSE_S = 0.2
REOPEN_LONGEST_PAUSE_S = 2.0
# A declaration that a cluster without a majority never answers must not keep everybody from working.
OPENING_LIMIT_S = 5.0
IDLE_LOOK_S = 0.02
PAUSE_LIMIT_S = 2.0
REBALANCE_EVERY_S = (4.0, 8.0)
IDLE_S = 1.0


@dataclass(slots=True)
class _Attachment:
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
    pause_until: float = 0.0
    blocked: str | None = None

    @property
    def arrived(self) -> bool:
        return self.pause_until > 0


class ConnectionLoop:
    """What the I/O thread of a connection owns; only `call` may be used by others."""

    def __init__(
        self,
        name: str,
        credentials: Mapping[NodeEndpoint, Credentials],
        selector: EndpointSelector,
        publish: Callable[[ConnectionStatus, DmqError | None], None],
        network: Network,
        setup: TopologySetup | None = None,
        hooks: ConnectionHooks = NO_HOOKS,
    ) -> None:
        self._network = network
        self._now = network.now
        self._loop = network.loop(self)
        self._name = name
        self._credentials = credentials
        self._selector = selector
        self._publish = publish
        self._setup = setup
        self._ready = False
        self._status = ConnectionStatus(ConnectionState.NEW, self._network.wall())
        self._attachments: list[_Attachment] = []
        self._link: Link | None = None
        self._events: _LinkEvents | None = None
        self._move: _Move | None = None
        self._hooks = hooks
        self._rebalance_at = 0.0
        self._ping_channel: Channel | None = None
        self._liveness = LivenessMonitor()
        self._partition = PartitionDetector()
        self._probe: Channel | None = None
        self._probe_wanted = False
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
        attachment = _Attachment(user)
        self._attachments.append(attachment)
        self._open_channel(attachment)

    def detach(self, user: ChannelUser) -> None:
        """Closes a user's channel and forgets the user."""
        for attachment in [s for s in self._attachments if s.user is user]:
            self._attachments.remove(attachment)
            if attachment.channel is not None:
                attachment.channel.close()

    def leave(self, endpoint: NodeEndpoint | None, why: str) -> None:
        """Abandons the link if it goes to `endpoint` (None: wherever it goes)."""
        if endpoint is not None:
            self._selector.penalize(endpoint, self._now())
        if self._link is not None and endpoint in (None, self._link.endpoint):
            self._link.abandon(why)

    def suspect(self, endpoint: NodeEndpoint, why: str) -> None:
        """Somebody left `endpoint` for good reason; if the link goes there, it is left once nothing is under way."""
        if self._link is not None and self._link.endpoint == endpoint:
            self._partition.suspect(why, self._now())

    def close(self) -> None:
        """Ends everything; back-off included."""
        if self._closing:
            return
        self._closing = True
        self._set(ConnectionState.CLOSING)
        if self._cancel_dial is not None:
            self._cancel_dial()
        if self._move is not None:
            self._cancel_move("the connection is closed")
        if self._link is None:
            self._finish(None)
        else:
            self._link.close()

    def busy(self) -> bool:
        """Whether a user's own threads still work on what came. From any thread."""
        return any(
            isinstance(attachment.user, HasWorkers) and attachment.user.busy()
            for attachment in tuple(self._attachments)
        )

    def _dial(self) -> None:
        self._cancel_dial = None
        self._dialled_at = self._now()
        endpoint = self._selector.next(self._dialled_at)
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
        self._connected(link)
        if self._setup is None:
            self._open_channels(link)
        else:
            self._loop.call_later(OPENING_LIMIT_S, lambda: self._open_channels(link))
            self._setup.run(link, lambda: self._open_channels(link))

    def _connected(self, link: Link) -> None:
        now = self._now()
        self._selector.succeeded(link.endpoint)
        self._liveness.opened(now)
        self._partition.opened(now)
        self._probe, self._probe_wanted = None, False
        self._denied_since = None
        self._rebalance_at = now + random.uniform(*REBALANCE_EVERY_S)
        self._status = replace(
            self._status, epoch=self._status.epoch + 1, broker_version=link.broker_version, problem="", reason=None
        )
        # A channel of its own for the question "are you there?": a user's channel may wait for a slow declaration.
        link.channel(self._ping_channel_opened, self._ping_channel_lost)
        self._set(ConnectionState.OPEN, endpoint=link.endpoint)

    def _open_channels(self, link: Link) -> None:
        """Every user gets a channel, once for each link."""
        if link is self._link and not self._ready:
            self._ready = True
            for attachment in tuple(self._attachments):
                self._open_channel(attachment)

    def lost(self, events: _LinkEvents, reason: CloseReason) -> None:
        """A link is over: users are told, and the next endpoint is tried."""
        if self._move is not None and events is self._move.events:
            self._cancel_move(reason.text)
        elif events is self._events:
            self._lost(events.endpoint, reason)

    def _lost(self, endpoint: NodeEndpoint, reason: CloseReason) -> None:
        # Users lose their channels before the next attempt is planned: by then each has settled or put back what was
        # under way, so nothing of the old link is mistaken for something of the new one.
        if self._move is not None and self._move.arrived:
            self._selector.penalize(endpoint, self._now())
            self._switch(self._move, reason)
            return
        if self._move is not None:
            self._cancel_move(reason.text)
        self._link = self._events = None
        self._ready = False
        self._ping_channel = None
        for attachment in tuple(self._attachments):
            self._take_channel(attachment, reason)
        if self._closing:
            self._finish(None)
            return
        was_open = self._status.state in LIVE_STATES
        pause = self._selector.failed(endpoint, self._now())
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
        for attachment in tuple(self._attachments):
            attachment.user.flow_changed(why is not None)

    # Moving to another node: the link there first, then the users once nothing of theirs is under way.

    def move(self, endpoint: NodeEndpoint) -> None:
        """Goes over to `endpoint`, or stays where it is if that cannot be done without losing anything."""
        if self._move is not None or self._link is None or self._status.state is not ConnectionState.OPEN:
            return
        if any(pausable.is_bound for pausable in self._pausables()):
            self._set(self._status.state)
        else:
            self._move = _Move(*self._linked(endpoint))

    def _arrived(self, move: _Move) -> None:
        move.pause_until = self._now() + PAUSE_LIMIT_S
        for pausable in self._pausables():
            pausable.pause()
        self._await_idle(move)

    def _await_idle(self, move: _Move) -> None:
        if move is not self._move:
            return
        if all(pausable.is_idle() for pausable in self._pausables()):
            self._switch(
                move, CloseReason(RecoveryAction.RECOVER, f"the connection moved to {describe(move.events.endpoint)}")
            )
        elif self._now() > move.pause_until:
            self._cancel_move("what is under way takes too long")
        else:
            self._loop.call_later(IDLE_LOOK_S, lambda: self._await_idle(move))

    def _switch(self, move: _Move, reason: CloseReason) -> None:
        left, self._move = self._link, None
        self._link, self._events = move.link, move.events
        self._ping_channel = None
        for attachment in tuple(self._attachments):
            self._take_channel(attachment, reason)
        if left is not None:
            left.close()
        self._connected(move.link)
        for attachment in tuple(self._attachments):
            self._open_channel(attachment)
        if move.blocked is not None:
            self.blocked(move.events, move.blocked)

    def _cancel_move(self, why: str) -> None:
        move, self._move = self._move, None
        if move is None:
            return
        self._selector.penalize(move.events.endpoint, self._now())
        if self._closing:
            move.link.abandon(why)
        else:
            move.link.close()
        if move.arrived:
            for pausable in self._pausables():
                pausable.resume()
        # Whoever counts on the move hears that it did not come about.
        self._set(self._status.state)

    def _pausables(self) -> tuple[Pausable, ...]:
        return tuple(attachment.user for attachment in self._attachments if isinstance(attachment.user, Pausable))

    def _rebalance(self, link: Link, now: float) -> None:
        if (
            self._hooks.rebalance_target is None
            or now < self._rebalance_at
            or self._status.state is not ConnectionState.OPEN
        ):
            return
        self._rebalance_at = now + random.uniform(*REBALANCE_EVERY_S)
        if self._move is None and (endpoint := self._hooks.rebalance_target(link.endpoint)) is not None:
            self.move(endpoint)

    def _gives_up(self, reason: CloseReason) -> bool:
        if reason.action is not RecoveryAction.GIVE_UP:
            return False
        if self._status.epoch == 0:
            return True
        # A node that is coming up or has lost its majority may refuse what the cluster accepted a moment ago.
        now = self._now()
        self._denied_since = self._denied_since or now
        return now - self._denied_since > DENIAL_PATIENCE_S

    def _open_channel(self, attachment: _Attachment) -> None:
        if self._link is None or not self._ready or attachment.token is not None or attachment not in self._attachments:
            return
        endpoint = self._link.endpoint
        # A channel that was asked for may open after its link or its user is gone; the token tells it is not wanted.
        attachment.token = token = object()

        def opened(channel: Channel) -> None:
            if attachment.token is not token or attachment not in self._attachments:
                channel.close()
                return
            attachment.channel = channel
            attachment.opened_at = self._now()
            attachment.user.channel_opened(channel, endpoint)

        def closed(reason: CloseReason) -> None:
            if attachment.token is token and attachment in self._attachments:
                self._take_channel(attachment, reason)
                self._reopen(attachment)

        self._link.channel(opened, closed)

    def _take_channel(self, attachment: _Attachment, reason: CloseReason) -> None:
        had, attachment.channel, attachment.token = attachment.channel, None, None
        if had is not None:
            attachment.user.channel_lost(reason)

    def _reopen(self, attachment: _Attachment) -> None:
        settled = self._now() - attachment.opened_at > 2 * REOPEN_LONGEST_PAUSE_S
        attachment.failures = 0 if settled else attachment.failures + 1
        pause = (
            0.0
            if attachment.failures <= 1
            else min(REOPEN_LONGEST_PAUSE_S, REOPEN_PAUSE_S * 2.0 ** min(attachment.failures, 6))
        )
        self._loop.call_later(pause, lambda: self._open_channel(attachment))

    def _ping_channel_opened(self, channel: Channel) -> None:
        self._ping_channel = channel

    def _ping_channel_lost(self, _reason: CloseReason) -> None:
        self._ping_channel = None

    # Whether the node still reaches the queues that consumers wait for.

    def _probe_queues(self, link: Link, now: float) -> None:
        if not self._partition.is_due(now):
            return
        waited_for = [w.awaited for w in self._awaiting_users() if w.idle_s(now) >= IDLE_S]
        waited_for = [queue for queue in waited_for if queue]
        if not waited_for:
            return
        if self._probe is not None:
            self._ask_depth(self._probe, self._partition.question(waited_for, now))
        elif not self._probe_wanted:
            # A channel of its own: an answer may take long, and none at all closes the channel.
            self._probe_wanted = True
            link.channel(lambda channel: self._probe_opened(link, channel), lambda _reason: self._probe_lost(link))

    def _ask_depth(self, probe: Channel, queue: str) -> None:
        probe.depth(
            queue,
            lambda depth: (
                self._partition.answered(queue, depth.consumers, self._now()) if probe is self._probe else None
            ),
        )

    def _probe_opened(self, link: Link, channel: Channel) -> None:
        if link is self._link:
            self._probe = channel

    def _probe_lost(self, link: Link) -> None:
        if link is self._link:
            self._probe, self._probe_wanted = None, False
            self._partition.refused()

    def _why_partitioned(self, link: Link, now: float) -> str:
        why = self._partition.why_leave(now)
        awaiting = self._awaiting_users()
        may_leave = bool(why and awaiting) and self._selector.has_better(link.endpoint, now)
        if not may_leave or any(user.idle_s(now) < IDLE_S for user in awaiting):
            return ""
        others = [pausable for pausable in self._pausables() if not isinstance(pausable, AwaitsMessages)]
        if any(pausable.is_bound for pausable in self._pausables()) or not all(other.is_idle() for other in others):
            return ""
        self._partition.left(now)
        return why

    def _awaiting_users(self) -> tuple[AwaitsMessages, ...]:
        return tuple(attachment.user for attachment in self._attachments if isinstance(attachment.user, AwaitsMessages))

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        now = self._now()
        late = now - self._ticked_at > 4 * TICK_S
        self._ticked_at = now
        if late:
            self._liveness.slept()
            self._partition.opened(now)
        if self._link is None:
            return
        if why := self._why_leave(self._link, now, late):
            endpoint = self._link.endpoint
            self.leave(endpoint, why)
            if self._hooks.on_leave is not None:
                self._hooks.on_leave(endpoint, why)
        else:
            self._rebalance(self._link, now)

    def _why_leave(self, link: Link, now: float, late: bool) -> str:
        if self._status.state not in LIVE_STATES:
            return "" if late else self._handshake_silence(link, now)
        why = next((w for w in (attachment.user.overdue(now) for attachment in self._attachments) if w), "")
        # A broker that blocks a publisher reads nothing from it, questions neither.
        if why or late or self._status.state is not ConnectionState.OPEN:
            return why
        if why := self._silence(link, now):
            return why
        self._probe_queues(link, now)
        return self._why_partitioned(link, now)

    def _silence(self, link: Link, now: float) -> str:
        match self._liveness.judge(link.heard_at, now):
            case LivenessAction.ASK:
                # A pulse that is not open yet is a question too, asked when the link opened.
                if self._ping_channel is not None:
                    self._ping_channel.ping()
            case LivenessAction.LEAVE:
                return _silent_for(now - link.heard_at)
        return ""

    def _handshake_silence(self, link: Link, now: float) -> str:
        """A handshake that stands still is left early where there is another node to try, else at its own limit."""
        silent = now - max(link.heard_at, self._dialled_at)
        better = silent >= HANDSHAKE_SILENCE_S and self._selector.has_better(link.endpoint, now)
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
        attachments, self._attachments = self._attachments, []
        for attachment in attachments:
            attachment.user.ended(error)
        self._publish(self._status, error)
        self._loop.stop()

    def crashed(self, error: Exception) -> None:
        """A callback raised: what the link brought cannot be trusted any more."""
        if self._link is not None:
            self._link.abandon(f"the client stumbled: {error!r}")


class _LinkEvents:
    """Passes a link's events on, with the link that they are about."""

    def __init__(self, io: ConnectionLoop, endpoint: NodeEndpoint) -> None:
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
