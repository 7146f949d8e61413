"""A producer that survives its node: pipelined confirms, and one outcome for each message."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from dmq_core.errors import DmqError, MessagingFailed, TimedOut
from dmq_core.messaging.checks import check_message, plain_headers
from dmq_core.messaging.confirms import ConfirmWindow
from dmq_core.messaging.dialing import label
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, Settlement
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.cluster.base import NodeEndpoint
    from dmq_core.messaging.connection import Connection
    from dmq_core.messaging.frames import Content
    from dmq_core.messaging.network import Channel
    from dmq_core.messaging.reasons import CloseReason
    from dmq_core.messaging.transport import Prepared

ID_HEADER = "x-dmq-id"
BATCH = 200
PERSISTENT = MessageProperties()


@dataclass(frozen=True, slots=True)
class ProducerLimits:
    """What a producer holds at most and how long it waits.

    `messages` and `body_bytes` bound what has no outcome yet; beyond them `publish` waits `room_s` seconds for room.
    `window` messages at most are unconfirmed on the wire. A node that confirms nothing for `confirm_s` seconds is left.
    """

    messages: int = 4000
    body_bytes: int = 32 << 20
    window: int = 2000
    room_s: float = 30.0
    confirm_s: float = 10.0


class Handle:
    """One published message on its way to its outcome."""

    __slots__ = ("_producer", "_settlement", "id", "message", "prepared", "return_reason", "sent_at", "size")

    def __init__(self, producer: Producer, message: OutgoingMessage, own_id: str, prepared: Prepared) -> None:
        self._producer = producer
        self._settlement: Settlement | None = None
        self.message = message
        self.id = own_id
        self.prepared = prepared
        self.size = len(message.body)
        self.sent_at = producer._now()
        self.return_reason: str | None = None

    @property
    def settlement(self) -> Settlement | None:
        """How it ended; None while that is open."""
        return self._settlement

    def wait(self, timeout_s: float = 30.0) -> Settlement:
        """Waits for the outcome; `TimedOut` leaves it open."""
        return self._producer._wait_for(self, timeout_s)

    def _end(self, settlement: Settlement) -> bool:
        # The producer's lock is held. The first outcome stands.
        if self._settlement is not None:
            return False
        self._settlement = settlement
        return True


@dataclass(slots=True)
class _Epoch:
    """One channel's life: answers of an earlier channel find its own window, which is empty by then."""

    channel: Channel
    endpoint: NodeEndpoint
    window: ConfirmWindow[Handle] = field(default_factory=ConfirmWindow)
    by_id: dict[str, Handle] = field(default_factory=dict)
    ready: bool = False
    progressed_at: float = 0.0


class Producer:
    """Publishes over a `Connection`, across reconnects; thread-safe.

    Messages are mandatory and persistent unless they say otherwise, and none is sent twice. While no node is there
    they wait, bounded by `limits`. `on_settled` hears each outcome, on the I/O thread or that of `close`; it must not
    block.
    """

    def __init__(
        self,
        connection: Connection,
        limits: ProducerLimits | None = None,
        on_settled: Callable[[Handle], None] | None = None,
    ) -> None:
        self._connection = connection
        self._now = connection.now
        self._limits = limits or ProducerLimits()
        self._on_settled = on_settled
        self._room = threading.Condition()
        self._outbox: deque[Handle] = deque()
        self._woken = False
        self._blocked = False
        self._messages = 0
        self._bytes = 0
        self._closed: DmqError | None = None
        self._epoch: _Epoch | None = None
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)
        connection.attach(self)

    @property
    def outstanding(self) -> int:
        """Messages without an outcome."""
        return self._messages

    def publish(self, message: OutgoingMessage, room_s: float | None = None) -> Handle:
        """Takes `message` on; as `send`."""
        return self.send(
            message.exchange, message.routing_key, message.body, message.properties, message.mandatory, room_s
        )

    def send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: MessageProperties = PERSISTENT,
        mandatory: bool = True,
        room_s: float | None = None,
    ) -> Handle:
        """Takes a message on and returns at once unless there is no room; then waits up to `room_s` seconds.

        `BadInput` if it cannot be sent as it is, `MessagingFailed` if the producer is closed. Without room in time its
        outcome is NOT_SENT.
        """
        message = OutgoingMessage(exchange, routing_key, body, properties, mandatory)
        handle = self._made(message)
        with self._room:
            if self._full(handle.size) and not self._found_room(handle.size, room_s):
                handle._end(Settlement(Outcome.NOT_SENT, None, 0.0, "too many messages wait for the broker"))
            else:
                self._refuse_if_closed()
                self._messages += 1
                self._bytes += handle.size
                self._outbox.append(handle)
                if not self._woken:
                    self._woken = self._connection.call(self._drain)
        if handle.settlement is not None and self._on_settled is not None:
            self._on_settled(handle)
        return handle

    def publish_and_wait(self, message: OutgoingMessage, timeout_s: float = 5.0) -> Settlement:
        """Publishes and waits; without an answer in time the outcome is NOT_SENT if nothing left, else UNKNOWN."""
        deadline = time.monotonic() + timeout_s
        handle = self.publish(message, timeout_s)
        return self.settle(handle, max(0.0, deadline - time.monotonic()))

    def settle(self, handle: Handle, timeout_s: float) -> Settlement:
        """Waits for the outcome; without one in time it is NOT_SENT if nothing left, else UNKNOWN, for good."""
        try:
            return handle.wait(timeout_s)
        except TimedOut:
            return self._given_up(handle, timeout_s)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Waits until every message has its outcome; `TimedOut` if some have none by then."""
        self._may_wait()
        with self._room:
            if not self._room.wait_for(lambda: self._messages == 0, timeout_s):
                raise TimedOut(
                    f"{self._messages} messages have no outcome after {timeout_s:g} s",
                    "Look at the connection's status.",
                )

    def close(self, timeout_s: float = 5.0) -> None:
        """Waits `timeout_s` for what is under way, then settles the rest; may be called twice."""
        try:
            self.flush(timeout_s)
        except TimedOut:
            pass
        finally:
            self._connection.detach(self)
            self._end_all(MessagingFailed("the producer is closed"))

    # What the connection calls, on the I/O thread.

    def channel_opened(self, channel: Channel, endpoint: NodeEndpoint) -> None:
        """The connection gave us a channel: confirms on, then publish."""
        epoch = _Epoch(channel, endpoint)
        self._epoch = epoch
        channel.listen(_Confirms(self, epoch))
        channel.select_confirms(lambda: self._ready(epoch))

    def channel_lost(self, reason: CloseReason) -> None:
        """The connection took the channel away: what had no answer is UNKNOWN."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            self._settle_lost(epoch, reason)

    def flow_changed(self, blocked: bool) -> None:
        """While the broker blocks, messages wait here, where they provably have not left."""
        self._blocked = blocked
        if self._epoch is not None:
            self._epoch.progressed_at = self._now()
        if not blocked:
            self._drain()

    def overdue(self, now: float) -> str:
        """Why the node should be left: it confirms nothing."""
        epoch = self._epoch
        if epoch is None or self._blocked or not epoch.window:
            return ""
        waited = now - epoch.progressed_at
        return f"no confirm for {waited:.1f} s" if waited > self._limits.confirm_s else ""

    def awaits_reply(self) -> bool:
        """Whether confirms are owed."""
        return self._epoch is not None and bool(self._epoch.window)

    def ended(self, error: DmqError | None) -> None:
        """The connection is over."""
        self._end_all(error or MessagingFailed(f"the connection {self._connection.name!r} is closed"))

    # Taking on.

    def _made(self, message: OutgoingMessage) -> Handle:
        from dmq_core.messaging.transport import prepare  # pika is loaded when it is used

        check_message(message)
        own_id = f"{self._prefix}-{next(self._numbers)}"
        return Handle(self, message, own_id, prepare(message, _with_id(message.properties, own_id)))

    def _full(self, size: int) -> bool:
        # One message larger than the whole bound is let through alone rather than never.
        limits = self._limits
        return self._messages >= limits.messages or (self._messages > 0 and self._bytes + size > limits.body_bytes)

    def _found_room(self, size: int, room_s: float | None) -> bool:
        if self._connection.on_io_thread:
            return False
        patience = self._limits.room_s if room_s is None else room_s
        return self._room.wait_for(lambda: self._closed is not None or not self._full(size), patience)

    def _refuse_if_closed(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _may_wait(self) -> None:
        if self._connection.on_io_thread:
            raise MessagingFailed("a callback of the producer cannot wait for the producer", "Wait on another thread.")

    def _wait_for(self, handle: Handle, timeout_s: float) -> Settlement:
        if handle.settlement is None:
            self._may_wait()
            with self._room:
                self._room.wait_for(lambda: handle.settlement is not None, timeout_s)
        if handle.settlement is None:
            raise TimedOut(f"no outcome within {timeout_s:g} s", "The message may still be confirmed; wait again.")
        return handle.settlement

    def _given_up(self, handle: Handle, timeout_s: float) -> Settlement:
        with self._room:
            if handle in self._outbox:
                self._outbox.remove(handle)
                self._release([handle])
                outcome, reason = Outcome.NOT_SENT, self._connection.status.problem or "no node took it"
            else:
                outcome, reason = Outcome.UNKNOWN, f"no answer within {timeout_s:g} s"
            ended = handle._end(Settlement(outcome, None, self._now() - handle.sent_at, reason))
        if ended and self._on_settled is not None:
            self._on_settled(handle)
        settlement = handle.settlement
        if settlement is None:
            raise MessagingFailed("a message has no outcome")
        return settlement

    # Sending and settling, on the I/O thread.

    def _ready(self, epoch: _Epoch) -> None:
        if epoch is self._epoch:
            epoch.ready = True
            epoch.progressed_at = self._now()
            self._drain()

    def _drain(self) -> None:
        epoch = self._epoch
        with self._room:
            if epoch is None or not epoch.ready or self._blocked or not epoch.channel.is_open:
                self._woken = False
                return
            room = min(BATCH, self._limits.window - len(epoch.window))
            batch = [self._outbox.popleft() for _ in range(min(room, len(self._outbox)))]
            # With more to send the loop is woken again right here, or by the confirm that makes room.
            self._woken = bool(self._outbox) and bool(batch) and self._connection.call(self._drain)
        self._send(epoch, batch)

    def _send(self, epoch: _Epoch, batch: list[Handle]) -> None:
        if not batch:
            return
        if not epoch.window:
            epoch.progressed_at = self._now()
        refused: list[tuple[Handle, Settlement]] = []
        with epoch.channel.gathered():
            for handle in batch:
                try:
                    epoch.channel.publish(handle.prepared)
                except Exception as error:  # a message that pika cannot encode fails alone, unsent
                    refused.append((handle, Settlement(Outcome.NOT_SENT, None, 0.0, visible(str(error)))))
                else:
                    epoch.window.add(handle)
                    epoch.by_id[handle.id] = handle
        self._finish(refused)

    def _answered(self, epoch: _Epoch, tag: int, multiple: bool, outcome: Outcome) -> None:
        handles = epoch.window.settle(tag, multiple)
        if not handles:
            return
        now = self._now()
        epoch.progressed_at = now
        where = label(epoch.endpoint)
        ends = []
        for handle in handles:
            epoch.by_id.pop(handle.id, None)
            if outcome is Outcome.CONFIRMED and handle.return_reason is not None:
                ends.append((handle, Settlement(Outcome.RETURNED, where, now - handle.sent_at, handle.return_reason)))
            else:
                reason = "the broker refused it" if outcome is Outcome.NACKED else ""
                ends.append((handle, Settlement(outcome, where, now - handle.sent_at, reason)))
        self._finish(ends)
        if self._outbox and not self._woken:
            self._drain()

    def _returned(self, epoch: _Epoch, content: Content) -> None:
        from dmq_core.messaging.frames import safe_properties  # only returns need it

        properties = safe_properties(content.raw_properties)
        handle = epoch.by_id.get(str(properties.headers.get(ID_HEADER, properties.message_id)))
        if handle is not None:
            handle.return_reason = f"{visible(content.text)} ({content.code})"

    def _settle_lost(self, epoch: _Epoch, reason: CloseReason) -> None:
        handles = epoch.window.abandon()
        epoch.by_id.clear()
        culprit = next((i for i, h in enumerate(handles) if _is_to_blame(h, reason)), None)
        kept = handles if culprit is None else handles[:culprit]
        now, where = self._now(), label(epoch.endpoint)
        ends = [(h, Settlement(Outcome.UNKNOWN, where, now - h.sent_at, reason.text)) for h in kept]
        if culprit is not None:
            blamed = [h for h in handles[culprit:] if _is_to_blame(h, reason)]
            ends += [(h, Settlement(Outcome.NACKED, where, now - h.sent_at, reason.text)) for h in blamed]
            # After a channel error the broker takes nothing more from that channel, so these cannot have arrived.
            innocent = [h for h in handles[culprit:] if not _is_to_blame(h, reason)]
            with self._room:
                self._outbox.extendleft(reversed([h for h in innocent if h.settlement is None]))
                self._release([h for h in innocent if h.settlement is not None])
        self._finish(ends)

    def _end_all(self, error: DmqError) -> None:
        with self._room:
            if self._closed is None:
                self._closed = MessagingFailed(error.what, error.hint) if type(error) is DmqError else error
            epoch, self._epoch = self._epoch, None
            unsent = list(self._outbox)
            self._outbox.clear()
            sent = [] if epoch is None else epoch.window.abandon()
        where = None if epoch is None else label(epoch.endpoint)
        now = self._now()
        ends = [(h, Settlement(Outcome.UNKNOWN, where, now - h.sent_at, error.what)) for h in sent]
        ends += [(h, Settlement(Outcome.NOT_SENT, None, now - h.sent_at, error.what)) for h in unsent]
        self._finish(ends)

    def _finish(self, ends: Iterable[tuple[Handle, Settlement]]) -> None:
        with self._room:
            settled = [handle for handle, settlement in ends if self._ended(handle, settlement)]
            self._room.notify_all()
        if self._on_settled is not None:
            for handle in settled:
                self._on_settled(handle)

    def _ended(self, handle: Handle, settlement: Settlement) -> bool:
        self._release([handle])
        return handle._end(settlement)

    def _release(self, handles: list[Handle]) -> None:
        self._messages -= len(handles)
        self._bytes -= sum(h.size for h in handles)


class _Confirms:
    """Hears the answers to one epoch's publishes."""

    def __init__(self, producer: Producer, epoch: _Epoch) -> None:
        self._producer = producer
        self._epoch = epoch

    def acked(self, tag: int, multiple: bool) -> None:
        self._producer._answered(self._epoch, tag, multiple, Outcome.CONFIRMED)

    def nacked(self, tag: int, multiple: bool) -> None:
        self._producer._answered(self._epoch, tag, multiple, Outcome.NACKED)

    def returned(self, content: Content) -> None:
        self._producer._returned(self._epoch, content)

    def delivered(self, content: Content) -> None:
        """Nothing is delivered on a publishing channel."""

    def read_ended(self) -> None:
        """Every answer was settled as it came."""


def _with_id(properties: MessageProperties, own_id: str) -> MessageProperties:
    """The properties with our id: as message id where there is none, else in a header, for returns to be told by."""
    headers = plain_headers(properties.headers)
    if properties.message_id is None:
        return replace(properties, message_id=own_id, headers=headers)
    return replace(properties, headers={**headers, ID_HEADER: own_id})


def _is_to_blame(handle: Handle, reason: CloseReason) -> bool:
    """Whether the broker closed the channel because of this very message."""
    if reason.code not in (403, 404, 406):
        return False
    if reason.code == 406:
        return f"message size {handle.size} is larger" in reason.text
    return f"exchange '{visible(handle.message.exchange)}'" in reason.text
