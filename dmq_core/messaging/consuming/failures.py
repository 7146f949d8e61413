"""What becomes of a delivery whose handler failed: the seam between consumers and ways of trying again."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dmq_core.errors import BadInput
from dmq_core.messaging.declaring.queue_arguments import WITH_DELIVERY_LIMIT
from dmq_core.messaging.topology import NO_ARGUMENTS, Arguments, Entity, Queue
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.messaging.consuming.delivery import Delivery
    from dmq_core.versions import Version

DELIVERY_LIMIT: Final = 20
PAUSE_S: Final = 0.1
REMEMBERED: Final = 1000
_LOG = logging.getLogger("dmq.messaging")
_COUNTS: Final = frozenset({"x-delivery-count", "x-acquired-count"})


@dataclass(frozen=True, slots=True)
class FailurePlan:
    """What a failure path needs at the broker: `arguments` for the queue itself, `entities` declared beside it.

    >>> plan = FailurePlan({"x-dead-letter-exchange": "bin"}, (Exchange("bin", "fanout"),))
    >>> manager.declare(*plan.entities, Queue("orders", "classic", arguments=plan.arguments))
    """

    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    entities: tuple[Entity, ...] = ()


class FailurePath(Protocol):
    """What becomes of a delivery whose handler failed. One path serves one consumer.

    >>> class Bury(Requeue):    # dead-letters at the first failure
    ...     def failed(self, delivery, why):
    ...         delivery.reject(requeue=False)
    >>> path: FailurePath = Bury()
    >>> consumer = DirectConsumer("orders", manager, retry=path)
    >>> consumer.declare_queue()
    """

    @property
    def keeps_order(self) -> bool:
        """Whether a failed message comes again before every later one of its queue; ordered consumers need that."""
        ...

    def prepare(self, queue: Queue, version: Version) -> FailurePlan:
        """What must be declared for `queue`, whose own arguments win over the plan's, on that broker; pure."""
        ...

    def bind(self, manager: BrokerConnectionManager, queue_name: str) -> None:
        """Called once before consuming starts."""
        ...

    def failed(self, delivery: Delivery, why: str) -> None:
        """Answers the delivery, at once or later; never drops it. On a handler's thread, which it must not hold up."""
        ...

    def close(self, timeout_s: float) -> None:
        """Ends it; what is not answered by then goes back to the queue with its channel."""
        ...


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
    >>> consumer = DirectConsumer("orders", manager, retry=Requeue(limit=2))
    >>> consumer.declare_queue()
    >>> dead = DirectConsumer("orders.dead", manager)
    >>> with consumer.start_consuming(lambda message, headers: False), dead.start_consuming(bury):
    ...     _ = DirectProducer(manager).publish("orders", "a bad book")
    ...     done.wait(timeout=10)
    a bad book failed 3 times
    True
    """

    keeps_order = True

    def __init__(self, limit: int = DELIVERY_LIMIT, dead_letter: bool = True) -> None:
        if limit < 0:
            raise BadInput(f"a limit of {limit} returns makes no sense", "Give 0 or more.")
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
        from dmq_core.messaging.retry import InStream  # which needs the publishing side, as nothing else here does

        return InStream(self._limit, cluster) if self._dead_letter else self

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


def dead_letter_queue(queue: Queue, version: Version) -> Queue:
    """Where messages of `queue` go that nobody could handle: `<queue>.dead`, which itself drops none."""
    # Before 4.0 no limit is the default, and a negative one drops at the first return.
    unlimited = {"x-delivery-limit": -1} if version >= WITH_DELIVERY_LIMIT else NO_ARGUMENTS
    return Queue(dead_letter_name(queue.name), "quorum", arguments=unlimited, adopt=True)


def dead_letter_arguments(queue: Queue) -> dict[str, object]:
    """What makes `queue` dead-letter to `dead_letter_queue`, without loss where its type can."""
    arguments: dict[str, object] = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letter_name(queue.name),
    }
    if queue.type == "quorum":
        # Without rejecting publishes at a length limit, the broker silently falls back to at-most-once.
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return arguments


def dead_letter_name(queue: str) -> str:
    """The queue for dead letters of `queue`."""
    return f"{queue}.dead"
