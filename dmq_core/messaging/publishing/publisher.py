"""A producer that survives its node: pipelined confirms, and one outcome for each message."""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Literal

from dmq_core.errors import DmqError, InvalidInputError, MessagingError, OperationTimeoutError
from dmq_core.messaging.amqp.wire import MessageEncoder, own_id
from dmq_core.messaging.connection import fork_guard
from dmq_core.messaging.connection.states import LIVE_STATES, ConnectionState
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, PublishResult
from dmq_core.messaging.publishing.publish_channel import PublishChannel
from dmq_core.messaging.publishing.publish_future import BatchOutcome, PublishFuture
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.endpoints import NodeEndpoint
    from dmq_core.messaging.connection.connection import Connection
    from dmq_core.messaging.transport.protocol import Channel

__all__ = ["PERSISTENT", "ProducerLimits", "Publisher"]
PERSISTENT = MessageProperties()
_LOG = logging.getLogger("dmq.messaging")
BATCH_BYTES = 1 << 20
LARGE_BYTES = 64 << 10
ROOM_STRIDE = 50
CONFIRM_LONGEST_S = 10.0
FRESH_CHANNEL_AFTER_S = 1.0
FRESH_CHANNEL_LONGEST_S = 10.0
# Where nobody has said what the channel will be: as RabbitMQ and pika have it by default.
_LIKELY_CHANNEL = (2, 131_064)
_ANY_CHANGE = sys.maxsize


@dataclass(frozen=True, slots=True)
class ProducerLimits:
    """What a producer holds at most, how long it waits, and what it does when its node goes.

    `messages` and `body_bytes` bound what has no outcome yet; beyond them `publish` waits `capacity_timeout_s` seconds
    for room. `window` messages at most are unconfirmed on the wire. A node that confirms nothing for `confirm_s`
    seconds is left; each time in a row it gets twice as long, up to ten seconds. A message that is unconfirmed for
    `confirm_limit_s` seconds after it was sent costs the channel. While the connection recovers, messages wait
    ("park") or end at once as NOT_SENT ("fail"). `republish`: what was on the wire of a lost channel is sent again,
    with the same id and before newer messages, instead of ending as UNKNOWN; consumers may then see it twice.
    `messages` and `window` are 1 or more.

    >>> limits = ProducerLimits(messages=20_000, capacity_timeout_s=5.0, republish=True)
    >>> with DirectProducer(manager, limits=limits) as producer:
    ...     print(producer.has_capacity)
    True
    """

    messages: int = 4000
    body_bytes: int = 32 << 20
    window: int = 2000
    capacity_timeout_s: float = 30.0
    confirm_s: float = 2.0
    confirm_limit_s: float = 30.0
    while_recovering: Literal["park", "fail"] = "park"
    republish: bool = False

    def __post_init__(self) -> None:
        """Raises `InvalidInputError` for what could not work."""
        for name in ("messages", "window", "body_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} of a producer is {getattr(self, name)}", "Give 1 or more.")
        for name in ("capacity_timeout_s", "confirm_s", "confirm_limit_s"):
            if not getattr(self, name) >= 0:
                raise InvalidInputError(f"{name} of a producer is {getattr(self, name)}", "Give seconds, 0 or more.")
        if self.while_recovering not in ("park", "fail"):
            raise InvalidInputError(f"while_recovering is {visible(str(self.while_recovering))}", "Say park or fail.")


class Publisher:
    """Publishes over a `Connection`, across reconnects; thread-safe.

    Messages are mandatory and persistent unless they say otherwise, and none is sent twice unless `limits` say so.
    `on_done` hears each outcome, on the I/O thread or that of `close`; it must not block.
    """

    def __init__(
        self,
        connection: Connection,
        limits: ProducerLimits | None = None,
        on_done: Callable[[PublishFuture], None] | None = None,
    ) -> None:
        self._connection = connection
        self._now = connection.now
        self._limits = limits or ProducerLimits()
        self._on_done = on_done
        self._has_callbacks = False
        self._fork_generation = fork_guard.generation
        # One lock for everything below; `_wait_marks` are the numbers of outstanding messages that somebody waits for.
        self._lock = threading.RLock()
        self._change = threading.Condition(self._lock)
        self._wait_marks: list[int] = []
        self._outbox: deque[PublishFuture] = deque()
        self._sent_before: dict[PublishFuture, int] = {}
        self._messages = 0
        self._bytes = 0
        self._blocked = False
        self._paused = False
        self._closed: DmqError | None = None
        self._channel: PublishChannel | None = None
        self._most = self._limits.messages
        self._most_bytes = self._limits.body_bytes
        self._fails_fast = self._limits.while_recovering == "fail"
        self._may_refuse = self._fails_fast
        self._patience_s = self._limits.confirm_s
        self._fresh_again_at = 0.0
        self._fresh_pause_s = FRESH_CHANNEL_AFTER_S
        self._encoder = MessageEncoder(*_LIKELY_CHANNEL)
        self._prefix = secrets.token_hex(6).encode()
        self._numbers = count(1)
        connection.attach(self)

    @property
    def outstanding(self) -> int:
        """Messages without an outcome."""
        return self._messages

    @property
    def has_capacity(self) -> bool:
        """Whether a small message would be taken on without waiting."""
        return self._messages < self._most and self._bytes < self._most_bytes

    def publish(self, message: OutgoingMessage, capacity_timeout_s: float | None = None) -> PublishFuture:
        """Takes `message` on; as `send`."""
        return self.send(
            message.exchange,
            message.routing_key,
            message.body,
            message.properties,
            message.mandatory,
            capacity_timeout_s,
        )

    def send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: MessageProperties = PERSISTENT,
        mandatory: bool = True,
        capacity_timeout_s: float | None = None,
    ) -> PublishFuture:
        """Takes a message on and returns at once unless there is no room; then waits up to `capacity_timeout_s`
        seconds.

        `InvalidInputError` if it cannot be sent as it is, `MessagingError` if the producer is closed or another
        process made it. Without room in time its outcome is NOT_SENT. The same `properties` value costs less the
        second time.
        """
        if self._fork_generation != fork_guard.generation:
            fork_guard.refuse("the producer")
        # A large body is copied into frames only when they are about to be sent.
        large = type(body) is bytes and len(body) > LARGE_BYTES
        own = own_id(self._prefix, next(self._numbers))
        encoder = self._encoder
        frames = encoder.encode(exchange, routing_key, b"" if large else body, properties, mandatory, own)
        future = PublishFuture(self, exchange, routing_key, body, properties, mandatory, own, self._now())
        if not large:
            future.frames, future.encoder = frames, encoder
        size = future.size
        refusal = ""
        # The I/O thread empties the outbox whenever it can, so only what comes into an empty one wakes it.
        wake = False
        with self._lock:
            if self._may_refuse or self._messages >= self._most or self._bytes + size > self._most_bytes:
                refusal = self._refusal(size, capacity_timeout_s)
            if not refusal:
                self._messages += 1
                self._bytes += size
                wake = not self._outbox
                self._outbox.append(future)
        if wake:
            self._connection.call(self._drain)
        elif refusal:
            future.ended = BatchOutcome(Outcome.NOT_SENT, None, self._now(), refusal, sends=0)
            self._tell([future])
        return future

    def publish_and_wait(self, message: OutgoingMessage, timeout_s: float = 5.0) -> PublishResult:
        """Publishes and waits; without an answer in time the outcome is NOT_SENT if nothing left, else UNKNOWN."""
        deadline = time.monotonic() + timeout_s
        future = self.publish(message, timeout_s)
        return self.result_or_give_up(future, max(0.0, deadline - time.monotonic()))

    def result_or_give_up(self, future: PublishFuture, timeout_s: float) -> PublishResult:
        """Waits for the outcome; without one in time it is NOT_SENT if nothing left, else UNKNOWN, for good."""
        try:
            return self.wait_for(future, timeout_s)
        except OperationTimeoutError:
            return self._given_up(future, timeout_s)

    def wait_for(self, future: PublishFuture, timeout_s: float) -> PublishResult:
        """Waits for the outcome of `future`; `OperationTimeoutError` leaves it open."""
        if future.ended is None:
            self._may_wait()
            with self._lock:
                self._await(lambda: future.ended is not None, timeout_s, _ANY_CHANGE)
        if future.ended is None:
            raise OperationTimeoutError(
                f"no outcome within {timeout_s:g} s", "The message may still be confirmed; wait again."
            )
        return future.result(0)

    def add_callback(self, future: PublishFuture, callback: Callable[[PublishFuture], None]) -> bool:
        """Notes that `callback` is to be called once `future` is done; False if it is done already."""
        with self._lock:
            if future.ended is not None:
                return False
            self._has_callbacks = True
            if future.callbacks is None:
                future.callbacks = []
            future.callbacks.append(callback)
            return True

    def flush(self, timeout_s: float = 30.0) -> None:
        """Waits until every message has its outcome, of which `on_done` was told.

        Raises `OperationTimeoutError` if some have none.
        """
        self._may_wait()
        deadline = time.monotonic() + timeout_s
        with self._lock:
            if not self._await(lambda: self._messages == 0, timeout_s, 0):
                raise OperationTimeoutError(
                    f"{self._messages} messages have no outcome after {timeout_s:g} s",
                    "Look at the connection's status.",
                )
        if self._on_done is not None or self._has_callbacks:
            # Whoever waits is woken first; listeners hear in the same turn of the I/O thread.
            told = threading.Event()
            if self._connection.call(told.set):
                told.wait(max(0.0, deadline - time.monotonic()))

    def close(self, timeout_s: float = 5.0) -> None:
        """Waits `timeout_s` for what is under way, then settles the rest; may be called twice."""
        if self._fork_generation != fork_guard.generation:
            return
        try:
            if not self._connection.on_io_thread:
                self.flush(timeout_s)
        except OperationTimeoutError:
            pass
        finally:
            self._connection.detach(self)
            status = self._connection.status
            held = f", {status.problem}" if status.state is ConnectionState.BLOCKED else ""
            self._end_all(MessagingError(f"the producer is closed{held}"))

    # What the connection calls, on the I/O thread.

    def channel_opened(self, channel: Channel, endpoint: NodeEndpoint) -> None:
        """The connection gave us a channel: confirms on, then publish."""
        if not self._encoder.fits(channel.number, channel.frame_limit):
            self._encoder = MessageEncoder(channel.number, channel.frame_limit)
        publish_channel = PublishChannel(channel, endpoint, self._encoder, self._now(), self._answered)
        self._blocked = self._connection.status.state is ConnectionState.BLOCKED
        self._paused = False
        self._channel = publish_channel
        channel.listen(publish_channel)
        channel.select_confirms(lambda: self._ready(publish_channel))

    def channel_lost(self, reason: CloseReason) -> None:
        """The connection took the channel away: what had no answer is UNKNOWN, or sent again."""
        with self._lock:
            publish_channel, self._channel = self._channel, None
            self._may_refuse = self._closed is not None or self._fails_fast
        if publish_channel is not None:
            self._settle_lost(publish_channel, reason)
        if self._fails_fast:
            # The connection's state tells of the loss only after its users were told.
            self._connection.call(self._fail_waiting)

    def flow_changed(self, blocked: bool) -> None:
        """While the broker blocks, messages wait here, where they provably have not left."""
        self._blocked = blocked
        with self._lock:
            if self._channel is not None:
                self._channel.restart_clock(self._now())
        if not blocked:
            self._drain()

    def overdue(self, now: float) -> str:
        """Why the node should be left: it confirms nothing, or does not close a channel."""
        publish_channel = self._channel
        if publish_channel is None or self._blocked:
            return ""
        if publish_channel.expired_at is not None:
            return "" if now - publish_channel.expired_at <= self._patience_s else "it does not close a channel"
        with self._lock:
            stalled_s, oldest_at = publish_channel.stalled_s(now), publish_channel.window.oldest_at
        if stalled_s > self._patience_s:
            # A cluster without a majority throttles publishers, which looks like a freeze wherever we go; each flight
            # in a row waits longer, so that not every two seconds' messages end as unknown.
            self._patience_s = min(max(CONFIRM_LONGEST_S, self._limits.confirm_s), 2 * self._patience_s)
            return f"no confirm for {stalled_s:.1f} s"
        if oldest_at is not None and now - oldest_at > self._limits.confirm_limit_s:
            # That confirm is lost. Closing the channel is the one way to be sure that it never comes.
            publish_channel.expired_at, publish_channel.ready = now, False
            why = f"no confirm within {self._limits.confirm_limit_s:g} s"
            self._settle_lost(publish_channel, CloseReason(RecoveryAction.RECOVER, why))
            publish_channel.channel.close()
        return ""

    @property
    def is_bound(self) -> bool:
        """Nothing of a producer ends with its connection."""
        return False

    def pause(self) -> None:
        """Messages wait here until `resume`."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._drain()

    def is_idle(self) -> bool:
        """Whether nothing is on the wire without its answer."""
        return self._channel is None or not self._channel.window

    def ended(self, error: DmqError | None) -> None:
        """The connection is over."""
        self._end_all(error or MessagingError(f"the connection {self._connection.name!r} is closed"))

    # Taking on.

    def _refusal(self, size: int, capacity_timeout_s: float | None) -> str:
        """Why a message is not taken on, after waiting for room; the lock is held, and let go while waiting."""
        if self._full(size) and not self._connection.on_io_thread:
            patience = self._limits.capacity_timeout_s if capacity_timeout_s is None else capacity_timeout_s
            # Waking for every confirm costs more than the confirms, so waiting ends when there is much room at once.
            self._await(lambda: self._unusable() or not self._full(size, self._most // 2), patience, self._most // 2)
        if self._closed is not None:
            raise self._closed
        return self._unusable() or ("too many messages wait for the broker" if self._full(size) else "")

    def _full(self, size: int, most: int | None = None) -> bool:
        # One message larger than the whole bound is let through alone rather than never.
        messages, most = self._messages, self._most - 1 if most is None else most
        return messages > most or (messages > 0 and self._bytes + size > self._most_bytes)

    def _unusable(self) -> str:
        if self._closed is not None:
            return self._closed.what
        if not self._fails_fast or self._channel is not None:
            return ""
        status = self._connection.status
        # Before the first attempt has failed a node may still be there.
        return f"no node is there: {status.problem}" if status.state not in LIVE_STATES and status.problem else ""

    def _may_wait(self) -> None:
        if self._connection.on_io_thread:
            raise MessagingError("a callback of the producer cannot wait for the producer", "Wait on another thread.")

    def _await(self, come: Callable[[], object], timeout_s: float, mark: int) -> bool:
        """Waits, with the lock, until `come`; it is looked at when no more than `mark` messages are outstanding."""
        self._wait_marks.append(mark)
        try:
            return bool(self._change.wait_for(come, timeout_s))
        finally:
            self._wait_marks.remove(mark)

    def _given_up(self, future: PublishFuture, timeout_s: float) -> PublishResult:
        with self._lock:
            if future.ended is None:
                waits = future in self._outbox
                if waits:
                    self._outbox.remove(future)
                    self._release([future])
                sends = self._sent_before.pop(future, 0) if waits else self._sent_before.get(future, 0) + 1
                reason = self._connection.status.problem or "no node took it"
                if sends:
                    reason = f"no answer within {timeout_s:g} s"
                outcome = Outcome.UNKNOWN if sends else Outcome.NOT_SENT
                future.ended = BatchOutcome(outcome, None, self._now(), reason, sends)
                self._change.notify_all()
                ended = [future]
            else:
                ended = []
        self._tell(ended)
        return self.wait_for(future, timeout_s)

    # Sending and settling, on the I/O thread.

    def _ready(self, publish_channel: PublishChannel) -> None:
        if publish_channel is self._channel:
            publish_channel.ready = True
            with self._lock:
                self._may_refuse = self._closed is not None
            self._drain()

    def _drain(self) -> None:
        refused: list[PublishFuture] = []
        with self._lock:
            publish_channel = self._channel
            if (
                publish_channel is None
                or not publish_channel.ready
                or self._blocked
                or self._paused
                or not publish_channel.channel.is_open
            ):
                return
            batch = self._next_batch(self._limits.window - len(publish_channel.window))
            stale = [future for future in batch if future.encoder is not publish_channel.encoder]
            if stale:
                batch, refused = self._encode_again(batch, publish_channel.encoder)
            publish_channel.sent(batch, self._now())
            more = bool(self._outbox) and len(publish_channel.window) < self._limits.window
        if batch:
            publish_channel.channel.publish(batch)
        for future in stale:
            if future.size > LARGE_BYTES:
                future.forget_frames()
        self._tell(refused)
        if more:
            self._connection.call(self._drain)

    def _next_batch(self, room: int) -> list[PublishFuture]:
        outbox = self._outbox
        if len(outbox) <= room and self._bytes <= BATCH_BYTES:
            batch = list(outbox)
            outbox.clear()
            return batch
        batch = []
        size = 0
        while outbox and len(batch) < room and size < BATCH_BYTES:
            future = outbox.popleft()
            size += future.size
            batch.append(future)
        return batch

    def _encode_again(
        self, batch: list[PublishFuture], encoder: MessageEncoder
    ) -> tuple[list[PublishFuture], list[PublishFuture]]:
        """The batch in frames for `encoder`, and what cannot be sent there and ended."""
        good: list[PublishFuture] = []
        refused: list[PublishFuture] = []
        for future in batch:
            try:
                if future.encoder is not encoder:
                    future.encode(encoder)
                good.append(future)
            except InvalidInputError as error:
                outcome = Outcome.UNKNOWN if future in self._sent_before else Outcome.NOT_SENT
                refused += self._end([future], BatchOutcome(outcome, None, self._now(), error.what, sends=0))
        return good, refused

    def _answered(self, publish_channel: PublishChannel) -> None:
        now = self._now()
        with self._lock:
            taken, refused = publish_channel.take_answered(now)
            if taken or refused:
                self._patience_s = self._limits.confirm_s
            taken, ended = self._end_returned(publish_channel, taken, now)
            if taken:
                ended += self._end(taken, BatchOutcome(Outcome.CONFIRMED, publish_channel.where, now))
            if refused:
                ended += self._end(
                    refused, BatchOutcome(Outcome.NACKED, publish_channel.where, now, "the broker refused it")
                )
            # A little room is not worth a write of its own.
            room = self._limits.window - len(publish_channel.window)
            enough = min(ROOM_STRIDE, len(self._outbox), max(1, self._limits.window // 4))
            drain = bool(self._outbox) and room >= enough
        self._tell(ended)
        if publish_channel.worn_out:
            self._ask_for_a_fresh_channel(publish_channel, now)
        if drain and publish_channel is self._channel:
            self._drain()

    def _ask_for_a_fresh_channel(self, publish_channel: PublishChannel, now: float) -> None:
        """Closes a channel that goes on refusing, once nothing on its wire could end as unknown.

        The queue may just be full, which a fresh channel does not mend, so each in a row waits twice as long.
        """
        if publish_channel.ready and now >= self._fresh_again_at:
            in_a_row = now - self._fresh_again_at < FRESH_CHANNEL_LONGEST_S
            self._fresh_pause_s = (
                min(2 * self._fresh_pause_s, FRESH_CHANNEL_LONGEST_S) if in_a_row else FRESH_CHANNEL_AFTER_S
            )
            publish_channel.ready, self._fresh_again_at = False, now + self._fresh_pause_s
        if not (publish_channel.ready or publish_channel.window or publish_channel.expired_at):
            publish_channel.channel.close()

    def _end_returned(
        self, publish_channel: PublishChannel, futures: list[PublishFuture], now: float
    ) -> tuple[list[PublishFuture], list[PublishFuture]]:
        """Of messages that leave the wire those that no return came for, and the others, which end as RETURNED."""
        if not publish_channel.returned_for:
            return futures, []
        ended: list[PublishFuture] = []
        for future in futures:
            if future in publish_channel.returned_for:
                ended += self._end(
                    [future],
                    BatchOutcome(Outcome.RETURNED, publish_channel.where, now, publish_channel.returned_for[future]),
                )
        rest = [future for future in futures if future not in publish_channel.returned_for]
        publish_channel.returned_for = {h: why for h, why in publish_channel.returned_for.items() if h.ended is None}
        return rest, ended

    def _settle_lost(self, publish_channel: PublishChannel, reason: CloseReason) -> None:
        publish_channel.read_ended()
        now = self._now()
        with self._lock:
            lost, ended = self._end_returned(publish_channel, publish_channel.window.abandon(), now)
            unknown = BatchOutcome(Outcome.UNKNOWN, publish_channel.where, now, reason.text)
            self._end([future for future in lost if future.ended is not None], unknown)
            rest = [future for future in lost if future.ended is None]
            culprit = next((i for i, future in enumerate(rest) if _is_to_blame(future, reason)), len(rest))
            unsure, later = rest[:culprit], rest[culprit:]
            blamed = [future for future in later if _is_to_blame(future, reason)]
            ended += self._end(blamed, BatchOutcome(Outcome.NACKED, publish_channel.where, now, reason.text))
            # After a channel error the broker takes nothing more from that channel, so these cannot have arrived.
            again = [future for future in later if future.ended is None]
            if self._limits.republish:
                for future in unsure:
                    self._sent_before[future] = self._sent_before.get(future, 0) + 1
                again = unsure + again
            else:
                ended += self._end(unsure, unknown)
            self._outbox.extendleft(reversed(again))
        self._tell(ended)

    def _fail_waiting(self) -> None:
        with self._lock:
            why = self._unusable()
            ended = self._end_waiting(None, why) if why else []
        self._tell(ended)

    def _end_all(self, error: DmqError) -> None:
        with self._lock:
            if self._closed is None:
                self._closed = MessagingError(error.what, error.hint) if type(error) is DmqError else error
            self._may_refuse = True
            publish_channel, self._channel = self._channel, None
            ended: list[PublishFuture] = []
            if publish_channel is not None:
                now = self._now()
                sent, ended = self._end_returned(publish_channel, publish_channel.window.abandon(), now)
                ended += self._end(sent, BatchOutcome(Outcome.UNKNOWN, publish_channel.where, now, error.what))
            ended += self._end_waiting(None if publish_channel is None else publish_channel.where, error.what)
            self._change.notify_all()
        self._tell(ended)

    def _end_waiting(self, where: str | None, why: str) -> list[PublishFuture]:
        waiting = list(self._outbox)
        self._outbox.clear()
        now = self._now()
        sent = [future for future in waiting if future in self._sent_before]
        unsent = [future for future in waiting if future not in self._sent_before]
        return self._end(sent, BatchOutcome(Outcome.UNKNOWN, where, now, why, sends=0)) + self._end(
            unsent, BatchOutcome(Outcome.NOT_SENT, None, now, why, sends=0)
        )

    def _end(self, futures: list[PublishFuture], outcome: BatchOutcome) -> list[PublishFuture]:
        """Settles messages that leave the producer, and gives those that had no outcome; the lock is held."""
        self._release(futures)
        newly_ended: list[PublishFuture] = []
        for future in futures:
            future.frames = b""
            if future.ended is None:
                future.ended = outcome
                newly_ended.append(future)
        if self._sent_before:
            for future in futures:
                before = self._sent_before.pop(future, 0)
                if before and future.ended is outcome:
                    future.ended = replace(outcome, sends=outcome.sends + before)
        return newly_ended

    def _release(self, futures: list[PublishFuture]) -> None:
        self._messages -= len(futures)
        self._bytes -= sum([future.size for future in futures])
        if self._wait_marks and self._messages <= max(self._wait_marks):
            self._change.notify_all()

    def _tell(self, ended: list[PublishFuture]) -> None:
        if self._on_done is None and not self._has_callbacks:
            return
        for future in ended:
            callbacks, future.callbacks = future.callbacks, None
            for callback in callbacks or ():
                _call(callback, future)
            if self._on_done is not None:
                self._on_done(future)


def _call(callback: Callable[[PublishFuture], None], future: PublishFuture) -> None:
    try:
        callback(future)
    except Exception:  # as with Python's futures: one callback's failure is logged, and the others are called
        _LOG.exception("a callback of a published message failed")


def _is_to_blame(future: PublishFuture, reason: CloseReason) -> bool:
    """Whether the broker closed the channel because of this very message."""
    if reason.code not in (403, 404, 406):
        return False
    if reason.code == 406:
        return f"message size {future.size} is larger" in reason.text
    return f"exchange '{visible(future.exchange)}'" in reason.text
