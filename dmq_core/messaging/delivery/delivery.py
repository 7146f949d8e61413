"""One message from a queue, and the channel's life within which it can be answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from dmq_core.messaging.amqp.frames import Content, safe_properties
from dmq_core.messaging.delivery.ack_tracker import AckTracker
from dmq_core.messaging.delivery.stream_offset import StreamPosition, offset_of
from dmq_core.messaging.messages import MessageProperties

if TYPE_CHECKING:
    from dmq_core.endpoints import NodeEndpoint
    from dmq_core.messaging.transport.protocol import Channel

FLUSH_AT = 50


class Answer(StrEnum):
    """What the broker is told of a delivery: it is done, it failed for good, it failed, or it was not tried.

    >>> Answer("reject") is Answer.REJECT
    True
    """

    ACK = "ack"
    REJECT = "reject"
    REJECT_REQUEUE = "reject and requeue"
    REQUEUE = "requeue"


_RETURNS: Final = (Answer.REJECT_REQUEUE, Answer.REQUEUE)


class Delivery:
    """One message from a queue, to be answered once; answers may come from any thread and at any time.

    An answer gives False, and sends nothing, if the channel that brought the message is gone (the broker delivers it
    again) or it was answered before. A consumer answers by what its handler returns; a handler may do so itself.

    A message of a stream has an `offset`, and stays in the stream whatever it is answered: it is done, or with
    `requeue` and `requeue` the consumer tries it again at once. That counts though its channel is gone.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message, headers):
    ...     delivery = headers.delivery
    ...     print(delivery.routing_key, delivery.body, delivery.attempts, delivery.reject(requeue=False))
    ...     done.set()
    ...     return True
    >>> consumer = DirectConsumer(manager, "orders")
    >>> consumer.declare_queue()
    >>> with consumer.start_consuming(handle), DirectProducer(manager) as producer:
    ...     _ = producer.publish("orders", "a bad acks")
    ...     done.wait(timeout=10)
    orders b'a bad acks' 1 True
    True
    """

    __slots__ = (
        "_answer",
        "_channel",
        "_content",
        "_position",
        "_properties",
        "_seen",
        "at",
        "offset",
        "queue",
        "returns",
    )

    def __init__(
        self,
        content: Content,
        consumer_channel: ConsumerChannel,
        queue: str,
        at: float,
        position: StreamPosition | None = None,
    ) -> None:
        self._content = content
        self._channel = consumer_channel
        self._properties: MessageProperties | None = None
        self._answer: Answer | None = None
        self.queue = queue
        self.at = at
        self.returns = 0
        self.offset = None if position is None else offset_of(self.properties.headers)
        self._position = None if self.offset is None else position
        self._seen = position is not None and self.offset is not None and position.delivered(self.offset)

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
        """Whether it may have been delivered before; for a stream, whether this consumer had that offset before."""
        return self._content.redelivered or self._seen or self.returns > 0

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
        return self._channel.alive

    def ack(self) -> bool:
        """It is done."""
        return self._answered(Answer.ACK)

    def reject(self, requeue: bool = False) -> bool:
        """It failed: dead-lettered or dropped, or with `requeue` tried again, which counts toward a delivery limit.

        What is dropped of a stream is passed over by this consumer, and stays in the stream.
        """
        return self._answered(Answer.REJECT_REQUEUE if requeue else Answer.REJECT)

    def requeue(self) -> bool:
        """It was not tried; another consumer may have it."""
        return self._answered(Answer.REQUEUE)

    @property
    def is_settled(self) -> bool:
        """Whether it is done already, because its stream delivered it before and it was answered then."""
        position, offset = self._position, self.offset
        return self._answer is None and position is not None and offset is not None and position.is_settled(offset)

    @property
    def comes_back(self) -> bool:
        """Whether it was returned to its stream, which takes nothing back, so that its consumer has to try it again."""
        return self._position is not None and self._answer in _RETURNS and self.is_current

    def reopen(self) -> None:
        """Takes the answer of a message that comes back as not given."""
        self._answer = None

    def again(self) -> Delivery:
        """The next attempt at a message that comes back."""
        other = copy(self)
        other._answer = None
        other.returns += 1
        return other

    def _answered(self, answer: Answer) -> bool:
        if self._position is None or self.offset is None:
            taken = self._channel.answer(self._content.tag, answer)
        elif self._answer is not None:
            taken = False
        elif answer in _RETURNS:
            taken = self.is_current
        else:
            # A rejection means nothing to a stream, and before 4.0 ends the connection.
            sent = self._channel.answer(self._content.tag, Answer.ACK)
            taken = self._position.settle(self.offset) or sent
        if taken:
            self._answer = answer
        return taken


@dataclass(slots=True)
class ConsumerChannel:
    """One channel's life. Answers are noted under a lock and sent by the I/O thread.

    Delivery tags mean something on the channel that brought them only, and every channel counts them from 1. An answer
    that comes after a reconnect would acknowledge somebody else's message, so each delivery keeps the channel that it
    came on, and answers into the void once that has ended.
    """

    channel: Channel
    endpoint: NodeEndpoint
    wake: Callable[[ConsumerChannel, bool], None]
    flush_at: int = FLUSH_AT
    queue: str = ""
    consumer_tag: str = ""
    alive: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)
    acks: AckTracker = field(default_factory=AckTracker)
    others: list[tuple[int, Answer]] = field(default_factory=list)
    subscriptions: int = 0
    silent_since: float | None = None
    timer_set: bool = False
    woken: bool = False

    @property
    def is_urgent(self) -> bool:
        """Whether the broker should hear now of what was answered."""
        return self.acks.waiting >= self.flush_at or bool(self.others)

    @property
    def owes_nothing(self) -> bool:
        """Whether everything that came was answered, and the answers were sent."""
        with self.lock:
            return not (self.acks.running or self.acks.waiting or self.others)

    def answer(self, tag: int, answer: Answer) -> bool:
        """Notes an answer; False if the channel is gone or it was answered before."""
        with self.lock:
            if not self.alive:
                return False
            if answer is Answer.ACK:
                taken = self.acks.ack(tag)
            else:
                taken = self.acks.settle(tag)
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
        """Sends what was noted; on the I/O thread."""
        with self.lock:
            self.timer_set = self.woken = False
            acks = self.acks.due()
            others, self.others = self.others, []
        if not self.alive or not self.channel.is_open:
            return
        with self.channel.gathered():
            # First of all, so that no joined acknowledgement covers what was answered otherwise.
            for tag, answer in others:
                if answer is Answer.REQUEUE:
                    self.channel.requeue(tag)
                else:
                    self.channel.reject(tag, answer is Answer.REJECT_REQUEUE)
            for tag, multiple in acks:
                self.channel.ack(tag, multiple)

    def end(self) -> None:
        """Nothing can be answered any more."""
        with self.lock:
            self.alive = False


def returns_counted(delivery: Delivery) -> int:
    """How often the queue of `delivery` has counted its return; 0 for a queue that does not count."""
    if delivery.offset is not None:
        return delivery.returns
    counted = delivery.properties.headers.get("x-delivery-count", 0) if delivery.redelivered else 0
    return counted if isinstance(counted, int) else 0
