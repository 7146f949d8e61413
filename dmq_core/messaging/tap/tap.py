"""A tap: copies of messages on their way, taken from nobody and bounded on both sides."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dmq_core.errors import DmqError
from dmq_core.messaging.connection.topology_commands import queue_depth
from dmq_core.messaging.consuming.subscription import Subscription, SubscriptionOptions
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import SeenMessage
from dmq_core.messaging.tap.plan import cut, plan_tap, untraced
from dmq_core.messaging.tap.source import TailSource, TailStatus
from dmq_core.messaging.topology.model import PrivateBinding, PrivateQueue

if TYPE_CHECKING:
    from dmq_core.messaging.connection.connection import Connection

QUEUE_LENGTH = 10_000
BUFFER_MESSAGES = 5_000
BUFFER_BYTES = 32 << 20
BATCH = 500
BATCH_PAUSE_S = 0.05
OVERFLOW_LOOK_S = 2.0


class Tap:
    """A running tap on `source`, which gives its listener batches of at most 500, oldest first, from one thread.

    `exchange_type` is the type of `source.exchange`. For a `source.queue`, `bindings` are what that queue is bound by;
    the tap is bound alike. The firehose (no exchange, no queue) shows something only while tracing is on, which is
    the caller's to switch. `InvalidInputError` if nothing of the kind can be tapped.

    >>> from threading import Event
    >>> seen = Event()
    >>> manager.declare(Exchange("shop", "topic"))
    >>> tap = Tap(manager.consuming(), TailSource("shop", "order.#"), lambda messages: seen.set())
    >>> tap.wait_ready(timeout_s=10)
    >>> _ = TopicProducer(manager, "shop").publish("order.eu", "a book")
    >>> seen.wait(timeout=10)
    True
    >>> tap.close()
    """

    def __init__(
        self,
        connection: Connection,
        source: TailSource,
        listener: Callable[[tuple[SeenMessage, ...]], None],
        *,
        exchange_type: str = "topic",
        bindings: Iterable[PrivateBinding] = (),
    ) -> None:
        self._plan = plan_tap(source, exchange_type, tuple(bindings))
        self._connection = connection
        self._listener = listener
        self._buffer = _Buffer()
        self._seen = 0
        self._overflow = ""
        self._looked_at = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._hand_out, name="tap", daemon=True)
        queue = PrivateQueue("dmq.tap", self._plan.bindings, QUEUE_LENGTH)
        self._consumer = Subscription(connection, queue, self._take, SubscriptionOptions(prefetch=1000))
        self._thread.start()

    def status(self) -> TailStatus:
        """How it is doing, without I/O."""
        status = self._consumer.status
        problem = self._overflow
        if not status.consuming:
            problem = status.problem or self._connection.status.problem or "connecting"
        return TailStatus(self._plan.method, self._plan.blind_spots, self._seen, self._buffer.dropped, problem)

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Waits until the tap is bound and receives; a typed error says why it does not after `timeout_s` seconds."""
        self._consumer.wait_consuming(timeout_s)

    def close(self) -> None:
        """Ends it within 2 s, the queue with it; may be called twice."""
        self._closed.set()
        self._buffer.end()
        self._consumer.stop(timeout_s=0.5)
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _take(self, deliveries: tuple[Delivery, ...]) -> None:
        # Acknowledged at once: the tap's own bound must drop what its listener cannot take, and count it.
        for delivery in deliveries:
            self._buffer.add(self._seen_as(delivery))
            delivery.ack()

    def _seen_as(self, delivery: Delivery) -> SeenMessage:
        message = SeenMessage(
            at=delivery.at,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            body=delivery.body,
            size=len(delivery.body),
            properties=delivery.properties,
        )
        return cut(untraced(message) if self._plan.is_firehose else message)

    def _hand_out(self) -> None:
        while not self._closed.is_set():
            batch = self._buffer.take(BATCH)
            if not batch:
                continue
            self._seen += len(batch)
            self._listener(batch)
            if len(batch) == BATCH:
                self._look_for_overflow()
            # A pause makes batches out of a stream, so that a listener is not called for each message.
            self._closed.wait(BATCH_PAUSE_S)

    def _look_for_overflow(self) -> None:
        """What the broker dropped at the queue's bound cannot be counted from here, only noticed."""
        now = time.monotonic()
        if now - self._looked_at < OVERFLOW_LOOK_S:
            return
        self._looked_at = now
        with contextlib.suppress(DmqError):
            depth = queue_depth(self._connection, self._consumer.status.queue, timeout_s=1.0)
            full = depth is not None and depth.ready >= QUEUE_LENGTH
            self._overflow = "more comes than can be read here: the broker drops some, uncounted" if full else ""


class _Buffer:
    """Messages between the consumer and the listener, bounded in number and bytes; the oldest give way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[SeenMessage] = deque()
        self._bytes = 0
        self._over = False
        self.dropped = 0

    def add(self, message: SeenMessage) -> None:
        with self._changed:
            self._messages.append(message)
            self._bytes += len(message.body)
            while len(self._messages) > BUFFER_MESSAGES or self._bytes > BUFFER_BYTES:
                self._bytes -= len(self._messages.popleft().body)
                self.dropped += 1
            self._changed.notify()

    def take(self, limit: int) -> tuple[SeenMessage, ...]:
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._over)
            batch = tuple(self._messages.popleft() for _ in range(min(limit, len(self._messages))))
            self._bytes -= sum(len(m.body) for m in batch)
            return batch

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
