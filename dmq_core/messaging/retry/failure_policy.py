"""What becomes of a delivery whose handler failed: the seam between consumers and ways of trying again."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dmq_core.messaging.topology.model import NO_ARGUMENTS, Arguments, Entity, Queue
from dmq_core.messaging.topology.queue_arguments import WITH_DELIVERY_LIMIT

if TYPE_CHECKING:
    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.versions import Version

DELIVERY_LIMIT: Final = 20
PAUSE_S: Final = 0.1
_LOG = logging.getLogger("dmq.messaging")


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
    >>> consumer = DirectConsumer(manager, "orders", retry=path)
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
