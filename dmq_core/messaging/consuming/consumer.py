"""A consumer that survives its node: manual acks, deliveries bound to their channel, handlers off the I/O thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from dmq_core.errors import DmqError, MessagingFailed, TimedOut
from dmq_core.messaging.amqp.frames import Content, safe_properties
from dmq_core.messaging.consuming.acks import AckBook
from dmq_core.messaging.messages import MessageProperties
from dmq_core.messaging.topology import NO_ARGUMENTS, Arguments, Entity, PrivateQueue, Queue

if TYPE_CHECKING:
    from dmq_core.cluster.base import NodeEndpoint
    from dmq_core.messaging.linking.connection import Connection
    from dmq_core.messaging.linking.reasons import CloseReason
    from dmq_core.messaging.network import Channel

FLUSH_AT = 50
# What a queue's leader on another node had sent already comes after the broker agreed to send no more.
SILENT_S = 0.1
FLUSH_S = 0.005
LEAVE_S = 0.1
CANCELLED = "the broker cancelled the consumer"
_LOG = logging.getLogger("dmq.messaging")


class Answer(StrEnum):
    """What the broker is told of a delivery: it is done, it failed for good, it failed, or it was not tried.

    >>> Answer("reject") is Answer.REJECT
    True
    """

    ACK = "ack"
    REJECT = "reject"
    REJECT_REQUEUE = "reject and requeue"
    GIVE_BACK = "give back"


class Delivery:
    """One message from a queue, to be answered once; answers may come from any thread and at any time.

    An answer gives False, and sends nothing, if the channel that brought the message is gone (the broker delivers it
    again) or it was answered before. A consumer answers by what its handler returns; a handler may do so itself.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message, headers):
    ...     delivery = headers.delivery
    ...     print(delivery.routing_key, delivery.body, delivery.attempts, delivery.reject(requeue=False))
    ...     done.set()
    ...     return True
    >>> consumer = DirectConsumer("orders", manager)
    >>> consumer.declare_queue()
    >>> with consumer.start_consuming(handle), DirectProducer(manager) as producer:
    ...     _ = producer.publish("orders", "a bad book")
    ...     done.wait(timeout=10)
    orders b'a bad book' 1 True
    True
    """

    __slots__ = ("_answer", "_content", "_epoch", "_properties", "at", "queue")

    def __init__(self, content: Content, epoch: _Epoch, queue: str, at: float) -> None:
        self._content = content
        self._epoch = epoch
        self._properties: MessageProperties | None = None
        self._answer: Answer | None = None
        self.queue = queue
        self.at = at

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self._content.body

    @property
    def exchange(self) -> str:
        """The exchange that it was published to; empty for the default one."""
        return self._content.exchange

    @property
    def routing_key(self) -> str:
        """The key that it was published with."""
        return self._content.routing_key

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""
        return self._content.redelivered

    @property
    def properties(self) -> MessageProperties:
        """Its properties; malformed ones stand raw in a header."""
        if self._properties is None:
            self._properties = safe_properties(self._content.raw_properties)
        return self._properties

    @property
    def raw_properties(self) -> bytes:
        """Its properties as they came on the wire."""
        return self._content.raw_properties

    @property
    def attempts(self) -> int:
        """Which attempt at this message this is, from 1, as far as its queue counts.

        A copy that `Retry` made is a new message to its queue; the copy's header `x-dmq-attempts` counts on.
        """
        return returns_counted(self) + 1

    @property
    def answer(self) -> Answer | None:
        """What it was answered; None while it is open, and if its channel was gone before."""
        return self._answer

    @property
    def is_current(self) -> bool:
        """Whether the channel that brought it still lives."""
        return self._epoch.alive

    def ack(self) -> bool:
        """It is done."""
        return self._answered(Answer.ACK)

    def reject(self, requeue: bool = False) -> bool:
        """It failed: dead-lettered or dropped, or with `requeue` tried again, which counts toward a delivery limit."""
        return self._answered(Answer.REJECT_REQUEUE if requeue else Answer.REJECT)

    def give_back(self) -> bool:
        """It was not tried; another consumer may have it."""
        return self._answered(Answer.GIVE_BACK)

    def _answered(self, answer: Answer) -> bool:
        taken = self._epoch.answer(self._content.tag, answer)
        if taken:
            self._answer = answer
        return taken


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """Whether it receives from `queue` at `endpoint` (None: nowhere), and why not (empty: all is well).

    >>> print(DirectConsumer("orders", manager).status.problem)
    not started
    """

    consuming: bool
    queue: str
    endpoint: NodeEndpoint | None = None
    problem: str = ""


@dataclass(slots=True)
class _Epoch:
    """One channel's life. Answers are noted under a lock and sent by the I/O thread."""

    channel: Channel
    endpoint: NodeEndpoint
    wake: Callable[[_Epoch, bool], None]
    flush_at: int = FLUSH_AT
    queue: str = ""
    consumer_tag: str = ""
    alive: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)
    book: AckBook = field(default_factory=AckBook)
    others: list[tuple[int, Answer]] = field(default_factory=list)
    subscriptions: int = 0
    silent_since: float | None = None
    timer_set: bool = False
    woken: bool = False

    @property
    def is_urgent(self) -> bool:
        return self.book.waiting >= self.flush_at or bool(self.others)

    @property
    def owes_nothing(self) -> bool:
        with self.lock:
            return not (self.book.running or self.book.waiting or self.others)

    def answer(self, tag: int, answer: Answer) -> bool:
        with self.lock:
            if not self.alive:
                return False
            if answer is Answer.ACK:
                taken = self.book.ack(tag)
            else:
                taken = self.book.settle(tag)
                if taken:
                    self.others.append((tag, answer))
            urgent = self.is_urgent
            wake = taken and not self.woken and (urgent or not self.timer_set)
            if wake:
                self.woken = True
        if wake:
            self.wake(self, urgent)
        return taken

    def send(self) -> None:
        with self.lock:
            self.timer_set = self.woken = False
            acks = self.book.due()
            others, self.others = self.others, []
        if not self.alive or not self.channel.is_open:
            return
        with self.channel.gathered():
            # First of all, so that no joined acknowledgement covers what was answered otherwise.
            for tag, answer in others:
                if answer is Answer.GIVE_BACK:
                    self.channel.give_back(tag)
                else:
                    self.channel.reject(tag, answer is Answer.REJECT_REQUEUE)
            for tag, multiple in acks:
                self.channel.ack(tag, multiple)

    def end(self) -> None:
        with self.lock:
            self.alive = False


class Consumer:
    """Receives from a queue over a `Connection`, across reconnects, broker cancels and redeclarations.

    `queue` is a name, or a `PrivateQueue` that is declared anew on each node that the connection comes to. `handler`
    gets what has come since it last returned, oldest first, on a thread of the consumer's own; it answers each
    delivery, now or later. If it raises, what it left unanswered of that batch is rejected and requeued. `declare` is
    declared before each consume. `prefetch` bounds what is unanswered. `on_change` hears each status, on the I/O
    thread; `on_end` once why it is over; `busy` tells whether threads of the handler's own are still at work.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str | PrivateQueue,
        handler: Callable[[tuple[Delivery, ...]], None],
        *,
        prefetch: int = 200,
        declare: tuple[Entity, ...] = (),
        exclusive: bool = False,
        arguments: Arguments = NO_ARGUMENTS,
        on_change: Callable[[ConsumerStatus], None] | None = None,
        on_end: Callable[[DmqError], None] | None = None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection = connection
        self._wall = connection.wall
        self._queue = queue
        self._handler = handler
        self._prefetch = prefetch
        self._declare = declare
        self._exclusive = exclusive
        self._arguments = arguments
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
        self._epoch: _Epoch | None = None
        self._worker = threading.Thread(target=self._work, name=f"consume {name}", daemon=True)
        connection.attach(self)
        self._worker.start()

    @property
    def status(self) -> ConsumerStatus:
        """Whether it receives, without waiting."""
        return self._status

    def wait_consuming(self, timeout_s: float = 10.0) -> ConsumerStatus:
        """Waits until it receives; `MessagingFailed` or another typed error says why it does not."""
        with self._changed:
            self._changed.wait_for(lambda: self._status.consuming or self._over is not None, timeout_s)
            if self._status.consuming:
                return self._status
            if self._over is not None:
                raise self._over
        problem = self._status.problem or self._connection.status.problem
        if problem:
            raise MessagingFailed(f"nothing is consumed from {self._status.queue!r}: {problem}")
        raise TimedOut(f"nothing is consumed from {self._status.queue!r} after {timeout_s:g} s", "Is the cluster up?")

    def cancel(self) -> None:
        """Asks the broker for no more; what has come can still be answered. Returns at once."""
        with self._changed:
            self._stopping = True
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
        self._finish(MessagingFailed(f"the consumer of {self._status.queue!r} is stopped"))
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
        epoch = _Epoch(channel, endpoint, self._wake, max(1, min(FLUSH_AT, self._prefetch // 4)))
        self._epoch = epoch
        channel.listen(_Deliveries(self, epoch))
        channel.prefetch(self._prefetch, lambda: self._subscribe(epoch))

    def channel_lost(self, reason: CloseReason) -> None:
        """The connection took the channel away: what it brought is stale."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.end()
        with self._changed:
            # The broker delivers these again; handling them twice would help nobody.
            self._arrived.clear()
            self._changed.notify_all()
        self._set(ConsumerStatus(False, self._status.queue, None, reason.text))

    def flow_changed(self, blocked: bool) -> None:
        """Consumers are never blocked."""

    def overdue(self, now: float) -> str:
        """A consumer that receives nothing may have nothing to receive."""
        return ""

    def busy(self) -> bool:
        """Whether the handler still works on what came."""
        return self._busy or bool(self._arrived) or self._handler_busy()

    @property
    def is_bound(self) -> bool:
        """Whether its queue ends with the connection."""
        return (
            self._exclusive
            or not isinstance(self._queue, str)
            or any(isinstance(entity, Queue) and entity.exclusive for entity in self._declare)
        )

    def rest(self, resting: bool) -> None:
        """While it rests, the broker sends no more, and what has come is handled."""
        epoch = self._epoch
        if epoch is None or self._stopping:
            return
        if resting:
            self._cancel(lambda: self._fell_silent(epoch))
        else:
            epoch.silent_since = None
            self._subscribe(epoch)

    def at_rest(self) -> bool:
        """Whether everything that came was answered, and the answers were sent."""
        epoch = self._epoch
        if epoch is None:
            return True
        is_silent = epoch.silent_since is not None and self._connection.now() - epoch.silent_since > SILENT_S
        return is_silent and not self.busy() and epoch.owes_nothing

    def ended(self, error: DmqError | None) -> None:
        """The connection is over."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.end()
        self._finish(error or MessagingFailed(f"the connection {self._connection.name!r} is closed"))

    # Subscribing.

    def _subscribe(self, epoch: _Epoch) -> None:
        if isinstance(self._queue, str):
            entities = self._declare
            epoch.queue = self._queue
        else:
            queue, bindings = self._queue.entities()
            entities = (*self._declare, queue, *bindings)
            epoch.queue = queue.name
        self._declare_next(epoch, list(entities))

    def _declare_next(self, epoch: _Epoch, entities: list[Entity]) -> None:
        if epoch is not self._epoch:
            return
        if entities:
            epoch.channel.declare(entities[0], lambda _depth: self._declare_next(epoch, entities[1:]))
            return
        epoch.subscriptions = number = epoch.subscriptions + 1
        epoch.consumer_tag = epoch.channel.consume(
            epoch.queue,
            self._exclusive,
            self._arguments,
            lambda: self._set(ConsumerStatus(True, epoch.queue, epoch.endpoint)),
            lambda: self._cancelled(epoch, number),
        )

    def _cancelled(self, epoch: _Epoch, number: int) -> None:
        # Every subscription that a channel ever had hears of a cancel; only the last one is over by it.
        if epoch is not self._epoch or self._stopping or number != epoch.subscriptions:
            return
        if not epoch.channel.is_open:
            # It is being closed, and what comes after it subscribes again.
            return
        self._set(ConsumerStatus(False, epoch.queue, None, CANCELLED))
        self._subscribe(epoch)

    def _cancel(self, done: Callable[[], None]) -> None:
        epoch = self._epoch
        if epoch is not None and epoch.consumer_tag and epoch.channel.is_open:
            epoch.channel.cancel(epoch.consumer_tag, done)

    # Receiving and answering.

    def _fell_silent(self, epoch: _Epoch) -> None:
        epoch.silent_since = self._connection.now()

    def _received(self, epoch: _Epoch, contents: list[Content]) -> None:
        if epoch is not self._epoch:
            return
        if epoch.silent_since is not None:
            self._fell_silent(epoch)
        with epoch.lock:
            epoch.book.delivered(contents[-1].tag)
        at = self._wall()
        with self._changed:
            self._arrived += [Delivery(content, epoch, epoch.queue, at) for content in contents]
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wake(self, epoch: _Epoch, urgent: bool) -> None:
        self._connection.call(epoch.send if urgent else lambda: self._send_later(epoch))

    def _send_later(self, epoch: _Epoch) -> None:
        with epoch.lock:
            epoch.timer_set, epoch.woken = True, False
            urgent = epoch.is_urgent
        if urgent:
            epoch.send()
        else:
            epoch.channel.later(FLUSH_S, epoch.send)

    def _send_the_last(self, sent: threading.Event) -> None:
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.send()
            epoch.end()
            self._unanswered = epoch.book.running
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
                delivery.give_back()
            self._finish(MessagingFailed(f"the handler of {self._status.queue!r} ended: {type(error).__name__}"))
            self._connection.call(lambda: self._send_the_last(threading.Event()))
            self._connection.detach(self)

    def _is_done(self) -> bool:
        epoch = self._epoch
        return (
            self._over is not None or epoch is None or (not self._arrived and not self._busy and not epoch.book.running)
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


class _Deliveries:
    """Hears one epoch's deliveries."""

    def __init__(self, consumer: Consumer, epoch: _Epoch) -> None:
        self._consumer = consumer
        self._epoch = epoch
        self._contents: list[Content] = []
        self.delivered = self._contents.append

    def read_ended(self) -> None:
        if self._contents:
            self._consumer._received(self._epoch, self._contents)
            self._contents.clear()

    def acked(self, tag: int, multiple: bool) -> None:
        """Nothing is published on a consuming channel."""

    def nacked(self, tag: int, multiple: bool) -> None:
        """Nothing is published on a consuming channel."""

    def returned(self, content: Content) -> None:
        """Nothing is published on a consuming channel."""


def returns_counted(delivery: Delivery) -> int:
    """How often the queue of `delivery` has counted its return; 0 for a queue that does not count."""
    counted = delivery.properties.headers.get("x-delivery-count", 0) if delivery.redelivered else 0
    return counted if isinstance(counted, int) else 0
