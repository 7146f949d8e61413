"""Failed messages that go back to their queue, and how their attempts are counted."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.retry.failure_policy import (
    _LOG,
    DELIVERY_LIMIT,
    PAUSE_S,
    FailurePath,
    FailurePlan,
    dead_letter_arguments,
    dead_letter_queue,
)
from dmq_core.messaging.topology.model import Queue
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.versions import Version

REMEMBERED: Final = 1000
_COUNTS: Final = frozenset({"x-delivery-count", "x-acquired-count"})


class Requeue:
    """Failed messages go back to the front of their queue at once; after `limit` returns they go to `<queue>.dead`.

    A quorum queue counts the returns itself. For one that does not count, this path does as long as it lives, and
    slows down. Without `dead_letter` a quorum queue drops a message at the limit, any other tries it for ever. A stream
    takes nothing back: the consumer tries a message again where it stands, and with `dead_letter` publishes a copy to
    `<queue>.dead` at the limit; without, it logs that it passes it over.

    >>> from threading import Event
    >>> done = Event()
    >>> def bury(message, headers):
    ...     print(message, "failed", consumer.stats.failed, "times")
    ...     done.set()
    ...     return True
    >>> consumer = DirectConsumer(manager, "orders", retry=Requeue(limit=2))
    >>> consumer.declare_queue()
    >>> dead = DirectConsumer(manager, "orders.dead")
    >>> with consumer.start_consuming(lambda message, headers: False), dead.start_consuming(bury):
    ...     _ = DirectProducer(manager).publish("orders", "a bad book")
    ...     done.wait(timeout=10)
    a bad book failed 3 times
    True
    """

    keeps_order = True

    def __init__(self, limit: int = DELIVERY_LIMIT, dead_letter: bool = True) -> None:
        if limit < 0:
            raise InvalidInputError(f"a limit of {limit} returns makes no sense", "Give 0 or more.")
        self._limit = limit
        self._dead_letter = dead_letter
        self._lock = threading.Lock()
        self._failures: dict[object, int] = {}
        self._closed = threading.Event()

    def prepare(self, queue: Queue, version: Version) -> FailurePlan:
        """A delivery limit where the queue counts, and a dead-letter queue."""
        limited = {"x-delivery-limit": self._limit} if queue.type == "quorum" else {}
        if not self._dead_letter:
            return FailurePlan(limited)
        return FailurePlan({**limited, **dead_letter_arguments(queue)}, (dead_letter_queue(queue, version),))

    def bind(self, manager: BrokerConnectionManager, queue_name: str) -> None:
        """Nothing is needed."""

    def failed(self, delivery: Delivery, why: str) -> None:
        """Back to the queue."""
        if delivery.offset is not None:
            self._failed_in_stream(delivery, why)
            return
        if not delivery.redelivered or not _COUNTS.isdisjoint(delivery.properties.headers):
            delivery.reject(requeue=True)
            return
        # Nothing but this pause keeps a message that nobody can handle from going round as fast as it can.
        self._closed.wait(PAUSE_S)
        delivery.reject(requeue=not (self._dead_letter and self._counted(delivery) > self._limit))

    def close(self, timeout_s: float) -> None:
        """Ends pauses."""
        self._closed.set()

    def in_stream(self, cluster: str) -> FailurePath:
        """The path that does the same for a stream of `cluster`."""
        from dmq_core.messaging.retry.delayed import RetryInStream

        return RetryInStream(self._limit, cluster) if self._dead_letter else self

    def _failed_in_stream(self, delivery: Delivery, why: str) -> None:
        if delivery.attempts <= self._limit:
            self._closed.wait(PAUSE_S)
            delivery.reject(requeue=True)
        elif delivery.reject():
            _LOG.error(
                "the message at offset %d of the stream %r is passed over, it failed %d times: %s",
                delivery.offset,
                visible(delivery.queue),
                delivery.attempts,
                why,
            )

    def _counted(self, delivery: Delivery) -> int:
        who = delivery.properties.message_id or hash((delivery.routing_key, delivery.body))
        with self._lock:
            # The first failure, before which it was not redelivered, went uncounted.
            count = self._failures.pop(who, 1) + 1
            self._failures[who] = count
            if len(self._failures) > REMEMBERED:
                del self._failures[next(iter(self._failures))]
        return count
