"""A consumer that survives its node: manual acks, deliveries bound to their channel, handlers off the I/O thread."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dmq_core.errors import DmqError, MessagingError, OperationTimeoutError
from dmq_core.messaging.amqp.frames import Content
from dmq_core.messaging.delivery.delivery import FLUSH_AT, ConsumerChannel, Delivery
from dmq_core.messaging.delivery.stream_offset import FIRST, OFFSET, Offset, StreamPosition
from dmq_core.messaging.topology.model import NO_ARGUMENTS, NOT_FOUND, Arguments, Entity, PrivateQueue, Queue
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.endpoints import NodeEndpoint
    from dmq_core.messaging.connection.connection import Connection
    from dmq_core.messaging.transport.close_reason import CloseReason
    from dmq_core.messaging.transport.protocol import Channel

# What a queue's leader on another node had sent already comes after the broker agreed to send no more.
SILENT_S = 0.1
FLUSH_S = 0.005
LEAVE_S = 0.1
CANCELLED = "the broker cancelled the consumer"
_LOG = logging.getLogger("dmq.messaging")


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """Whether it receives from `queue` at `endpoint` (None: nowhere), and why not (empty: all is well).

    `code` is the broker's reply code, if it was the broker that ended it.

    >>> print(DirectConsumer(manager, "orders").status.problem)
    not started
    """

    consuming: bool
    queue: str
    endpoint: NodeEndpoint | None = None
    problem: str = ""
    code: int | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionOptions:
    """How a subscription receives.

    `prefetch` bounds what is unanswered. `declare` is declared before each consume. `offset` says where to begin in a
    stream (None: it is no stream); on each later channel it goes on behind what was settled, and in a stream that was
    deleted and declared anew at its beginning. With `keeps_place` its queue goes to the next consumer only once what it
    holds is back there, in its order.
    """

    prefetch: int = 200
    declare: tuple[Entity, ...] = ()
    exclusive: bool = False
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    offset: Offset | None = None
    keeps_place: bool = False


_DEFAULTS = SubscriptionOptions()


class Subscription:
    """Receives from a queue over a `Connection`, across reconnects, broker cancels and redeclarations.

    `queue` is a name, or a `PrivateQueue` that is declared anew on each node that the connection comes to. `handler`
    gets what has come since it last returned, oldest first, on a thread of the subscription's own; it answers each
    delivery, now or later. If it raises, what it left unanswered of that batch is rejected and requeued. `on_change`
    hears each status, on the I/O thread; `on_end` once why it is over; `busy` tells whether threads of the handler's
    own are still at work.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str | PrivateQueue,
        handler: Callable[[tuple[Delivery, ...]], None],
        options: SubscriptionOptions = _DEFAULTS,
        *,
        on_change: Callable[[ConsumerStatus], None] | None = None,
        on_end: Callable[[DmqError], None] | None = None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection = connection
        self._wall = connection.wall
        self._queue = queue
        self._handler = handler
        self._options = options
        self._position = None if options.offset is None else StreamPosition(options.offset)
        self._on_change = on_change
        self._on_end = on_end
        self._handler_busy = busy
        self._changed = threading.Condition()
        name = queue if isinstance(queue, str) else queue.prefix
        self._status = ConsumerStatus(False, name)
        self._arrived: deque[Delivery] = deque()
        self._busy = False
        self._stopping = False
        self._unanswered = 0
        self._over: DmqError | None = None
        self._channel: ConsumerChannel | None = None
        self._heard_at = 0.0
        self._worker = threading.Thread(target=self._work, name=f"consume {name}", daemon=True)
        connection.attach(self)
        self._worker.start()

    @property
    def status(self) -> ConsumerStatus:
        """Whether it receives, without waiting."""
        return self._status

    def wait_consuming(self, timeout_s: float = 10.0) -> ConsumerStatus:
        """Waits until it receives; `MessagingError` or another typed error says why it does not."""
        with self._changed:
            self._changed.wait_for(lambda: self._status.consuming or self._over is not None, timeout_s)
            if self._status.consuming:
                return self._status
            if self._over is not None:
                raise self._over
        problem = self._status.problem or self._connection.status.problem
        if problem:
            raise MessagingError(f"nothing is consumed from {self._status.queue!r}: {problem}")
        raise OperationTimeoutError(
            f"nothing is consumed from {self._status.queue!r} after {timeout_s:g} s", "Is the cluster up?"
        )

    def cancel(self) -> None:
        """Asks the broker for no more; what has come can still be answered. Returns at once."""
        with self._changed:
            self._stopping = True
        # Whoever is cancelled is followed by the next consumer at once, while it still holds earlier messages.
        if not self._options.keeps_place:
            self._connection.call(lambda: self._cancel(self._notify))

    def stop(self, timeout_s: float = 5.0) -> None:
        """Asks for no more, lets the handler finish what has come within `timeout_s`, sends the acks, and ends.

        What is unanswered by then goes back to the queue, in its order. May be called twice.
        """
        deadline = time.monotonic() + timeout_s
        self.cancel()
        if self._may_wait:
            with self._changed:
                self._changed.wait_for(self._is_done, timeout_s)
        self.leave(max(LEAVE_S, deadline - time.monotonic()))

    def leave(self, timeout_s: float = LEAVE_S) -> int:
        """Sends the answers that there are, waits until they are sent, and ends; gives how many deliveries had none."""
        sent = threading.Event()
        if not self._connection.call(lambda: self._send_the_last(sent)):
            self._send_the_last(sent)
        self._connection.detach(self)
        if self._may_wait:
            sent.wait(timeout_s)
        self._finish(MessagingError(f"the consumer of {self._status.queue!r} is stopped"))
        if self._may_wait:
            self._worker.join(timeout_s)
        return self._unanswered

    @property
    def _may_wait(self) -> bool:
        return not self._connection.on_io_thread and threading.current_thread() is not self._worker

    # What the connection calls, on the I/O thread.

    def channel_opened(self, channel: Channel, endpoint: NodeEndpoint) -> None:
        """The connection gave us a channel: subscribe on it."""
        if self._stopping:
            return
        # With few allowed unanswered, the broker waits for every ack.
        consumer_channel = ConsumerChannel(
            channel, endpoint, self._wake, max(1, min(FLUSH_AT, self._options.prefetch // 4))
        )
        self._channel = consumer_channel
        self._heard_at = self._connection.now()
        channel.listen(_DeliverySink(self, consumer_channel))
        channel.prefetch(self._options.prefetch, lambda: self._subscribe(consumer_channel))

    def channel_lost(self, reason: CloseReason) -> None:
        """The connection took the channel away: what it brought is stale."""
        consumer_channel, self._channel = self._channel, None
        if consumer_channel is not None:
            consumer_channel.end()
        if reason.code == NOT_FOUND and "no queue" in reason.text:
            self._begin_anew()
        with self._changed:
            # The broker delivers these again; handling them twice would help nobody.
            self._arrived.clear()
            self._changed.notify_all()
        self._set(ConsumerStatus(False, self._status.queue, None, reason.text, reason.code))

    def flow_changed(self, blocked: bool) -> None:
        """Consumers are never blocked."""

    def overdue(self, now: float) -> str:
        """A consumer that receives nothing may have nothing to receive."""
        return ""

    def busy(self) -> bool:
        """Whether the handler still works on what came."""
        return self._busy or bool(self._arrived) or self._handler_busy()

    @property
    def awaited(self) -> str:
        """The queue that it waits for; empty while it has no channel, and once it is stopping."""
        consumer_channel = self._channel
        return "" if consumer_channel is None or self._stopping else consumer_channel.queue

    def idle_s(self, now: float) -> float:
        """For how many seconds nothing has come; 0 while something that came is not answered."""
        consumer_channel = self._channel
        if self.busy() or not (consumer_channel is None or consumer_channel.owes_nothing):
            return 0.0
        return math.inf if consumer_channel is None else now - self._heard_at

    @property
    def is_bound(self) -> bool:
        """Whether its queue ends with the connection."""
        return (
            self._options.exclusive
            or not isinstance(self._queue, str)
            or any(isinstance(entity, Queue) and entity.exclusive for entity in self._options.declare)
        )

    def pause(self) -> None:
        """Has the broker send no more; what has come is handled.

        One that keeps its place goes on all the same, and is idle in a moment in which nothing comes.
        """
        consumer_channel = self._channel
        if consumer_channel is not None and self._is_pausable:
            self._cancel(lambda: self._fell_silent(consumer_channel))

    def resume(self) -> None:
        """Receives again."""
        consumer_channel = self._channel
        if consumer_channel is None or not self._is_pausable:
            return
        if self._position is not None:
            # Before 4.0 a channel that still holds something of a stream gets no more by another subscription.
            consumer_channel.channel.close()
        else:
            consumer_channel.silent_since = None
            self._subscribe(consumer_channel)

    @property
    def _is_pausable(self) -> bool:
        return not self._stopping and not self._options.keeps_place

    def is_idle(self) -> bool:
        """Whether everything that came was answered, and the answers were sent."""
        consumer_channel = self._channel
        if consumer_channel is None:
            return True
        silent_since = self._heard_at if self._options.keeps_place else consumer_channel.silent_since
        is_silent = silent_since is not None and self._connection.now() - silent_since > SILENT_S
        return is_silent and not self.busy() and consumer_channel.owes_nothing

    def ended(self, error: DmqError | None) -> None:
        """The connection is over."""
        consumer_channel, self._channel = self._channel, None
        if consumer_channel is not None:
            consumer_channel.end()
        self._finish(error or MessagingError(f"the connection {self._connection.name!r} is closed"))

    # Subscribing.

    def _subscribe(self, consumer_channel: ConsumerChannel) -> None:
        if isinstance(self._queue, str):
            entities = self._options.declare
            consumer_channel.queue = self._queue
        else:
            queue, bindings = self._queue.entities()
            entities = (*self._options.declare, queue, *bindings)
            consumer_channel.queue = queue.name
        self._declare_next(consumer_channel, list(entities))

    def _declare_next(self, consumer_channel: ConsumerChannel, entities: list[Entity]) -> None:
        if consumer_channel is not self._channel:
            return
        if entities:
            consumer_channel.channel.declare(
                entities[0], lambda _depth: self._declare_next(consumer_channel, entities[1:])
            )
            return
        consumer_channel.subscriptions = number = consumer_channel.subscriptions + 1
        asked_at = self._wall()
        consumer_channel.consumer_tag = consumer_channel.channel.consume(
            consumer_channel.queue,
            self._options.exclusive,
            self._options.arguments
            if self._position is None
            else {**self._options.arguments, OFFSET: self._position.start},
            lambda: self._subscribed(consumer_channel, asked_at),
            lambda: self._cancelled(consumer_channel, number),
        )

    def _subscribed(self, consumer_channel: ConsumerChannel, asked_at: float) -> None:
        if self._position is not None:
            self._position.subscribed(asked_at)
        self._set(ConsumerStatus(True, consumer_channel.queue, consumer_channel.endpoint))

    def _begin_anew(self) -> None:
        """The stream is gone, and one that takes its name has offsets of its own."""
        if self._position is not None and self._position.has_begun:
            self._position = StreamPosition(FIRST)

    def _cancelled(self, consumer_channel: ConsumerChannel, number: int) -> None:
        # Every subscription that a channel ever had hears of a cancel; only the last one is over by it.
        if consumer_channel is not self._channel or self._stopping or number != consumer_channel.subscriptions:
            return
        if not consumer_channel.channel.is_open:
            # It is being closed, and what comes after it subscribes again.
            return
        self._set(ConsumerStatus(False, consumer_channel.queue, None, CANCELLED))
        self._begin_anew()
        self._subscribe(consumer_channel)

    def _cancel(self, done: Callable[[], None]) -> None:
        consumer_channel = self._channel
        if consumer_channel is not None and consumer_channel.consumer_tag and consumer_channel.channel.is_open:
            consumer_channel.channel.cancel(consumer_channel.consumer_tag, done)

    # Receiving and answering.

    def _fell_silent(self, consumer_channel: ConsumerChannel) -> None:
        consumer_channel.silent_since = self._connection.now()

    def _received(self, consumer_channel: ConsumerChannel, contents: list[Content]) -> None:
        if consumer_channel is not self._channel:
            return
        if consumer_channel.silent_since is not None:
            self._fell_silent(consumer_channel)
        self._heard_at = self._connection.now()
        with consumer_channel.lock:
            consumer_channel.acks.delivered(contents[-1].tag)
        at = self._wall()
        position = self._position
        deliveries = [Delivery(content, consumer_channel, consumer_channel.queue, at, position) for content in contents]
        if position is not None:
            self._tell_missed(position, deliveries[0])
        with self._changed:
            self._arrived += deliveries
            self._changed.notify_all()

    def _tell_missed(self, position: StreamPosition, delivery: Delivery) -> None:
        missed = range(0) if delivery.offset is None else position.missed(delivery.offset)
        if missed:
            _LOG.error(
                "the stream %r no longer has the offsets %d to %d, which were not handled",
                visible(delivery.queue),
                missed[0],
                missed[-1],
            )

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wake(self, consumer_channel: ConsumerChannel, urgent: bool) -> None:
        self._connection.call(consumer_channel.send if urgent else lambda: self._send_later(consumer_channel))

    def _send_later(self, consumer_channel: ConsumerChannel) -> None:
        with consumer_channel.lock:
            consumer_channel.timer_set, consumer_channel.woken = True, False
            urgent = consumer_channel.is_urgent
        if urgent:
            consumer_channel.send()
        else:
            consumer_channel.channel.later(FLUSH_S, consumer_channel.send)

    def _send_the_last(self, sent: threading.Event) -> None:
        consumer_channel, self._channel = self._channel, None
        if consumer_channel is not None:
            consumer_channel.send()
            consumer_channel.end()
            self._unanswered = consumer_channel.acks.running
        sent.set()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._arrived or self._over is not None)
                batch = tuple(self._arrived)
                self._arrived.clear()
                if not batch:
                    return
                self._busy = True
            self._handle(batch)

    def _handle(self, batch: tuple[Delivery, ...]) -> None:
        try:
            self._handler(batch)
        except Exception:  # the handler is the user's; its failure must not end the consumer
            _LOG.exception("the handler of %r failed", self._status.queue)
            for delivery in batch:
                delivery.reject(requeue=True)
        except BaseException as error:  # it wants to end: SystemExit and the like
            for delivery in batch:
                delivery.requeue()
            self._finish(MessagingError(f"the handler of {self._status.queue!r} ended: {type(error).__name__}"))
            self._connection.call(lambda: self._send_the_last(threading.Event()))
            self._connection.detach(self)

    def _is_done(self) -> bool:
        consumer_channel = self._channel
        return (
            self._over is not None
            or consumer_channel is None
            or (not self._arrived and not self._busy and not consumer_channel.acks.running)
        )

    def _set(self, status: ConsumerStatus) -> None:
        with self._changed:
            self._status = status
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change(status)

    def _finish(self, error: DmqError) -> None:
        with self._changed:
            is_first, self._over = self._over is None, self._over or error
            self._arrived.clear()
            self._changed.notify_all()
        if is_first and self._on_end is not None:
            self._on_end(error)
        if self._status.consuming:
            self._set(ConsumerStatus(False, self._status.queue, None, error.what))


class _DeliverySink:
    """Hears one consumer_channel's deliveries."""

    def __init__(self, consumer: Subscription, consumer_channel: ConsumerChannel) -> None:
        self._consumer = consumer
        self._channel = consumer_channel
        self._contents: list[Content] = []
        self.delivered = self._contents.append

    def read_ended(self) -> None:
        if self._contents:
            self._consumer._received(self._channel, self._contents)
            self._contents.clear()

    def acked(self, tag: int, multiple: bool) -> None:
        """Nothing is published on a consuming channel."""

    def nacked(self, tag: int, multiple: bool) -> None:
        """Nothing is published on a consuming channel."""

    def returned(self, content: Content) -> None:
        """Nothing is published on a consuming channel."""
