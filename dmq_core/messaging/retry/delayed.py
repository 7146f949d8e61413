"""Trying failed messages again after growing delays, and parking what fails for good; nothing is lost on the way."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from dmq_core.errors import InvalidInputError, MessagingError
from dmq_core.messaging.publishing.publisher import ProducerLimits, Publisher
from dmq_core.messaging.retry.failure_policy import PAUSE_S, FailurePlan, dead_letter_name, dead_letter_queue
from dmq_core.messaging.retry.forwarding import LOOK_S, Forward, ForwarderThread
from dmq_core.messaging.retry.headers import Failure, attempts_before, properties_of_copy
from dmq_core.messaging.retry.plan import Mode, chosen_mode, delay_queue, parking_queue, policy, retry_plan

if TYPE_CHECKING:
    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.messaging.connection.connection import Connection
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.messaging.topology.model import Queue
    from dmq_core.versions import Version

REMEMBERED: Final = 10_000
# A copy that waited in the producer for a node would leave long after the broker has delivered the original again.
_LIMITS: Final = ProducerLimits(while_recovering="fail")


class Retry:
    """A failure path that tries a message `attempts` times, each delay in seconds after the failure before.

    Without `attempts` there is one more than delays; with more, the last delay serves for the rest. Delays are from
    0.001 s to a year and attempts 1 or more, else `InvalidInputError`. `mode` says who lets a message wait: `ladder`
    one queue for each delay, `native` the queue itself, where RabbitMQ 4.3 or newer can, `in place` the worker, which
    keeps the order, `auto` the queue itself if it can keep those very delays, else the ladder. What fails for good
    goes to `<queue>.parked`, its body and properties kept and the failures told in headers `x-dmq-*`; without
    `parking` it is dead-lettered, for which its queue needs a dead-letter exchange of its own. `cluster` is where the
    consumer's queue is.

    A stream takes nothing back: there a message is tried again in place, and `ladder` and `native` are refused.

    A message is acknowledged only once its copy is confirmed. While it is not, copies are tried again after 0.1 to 5
    seconds. Should the broker have taken a copy without our knowing it, the message comes twice, with the same message
    id and the same `x-dmq-attempts`. Waiting in place blocks the worker whose message failed.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message, headers):
    ...     print(message, "failed", headers.get("x-dmq-attempts", 0), "times before")
    ...     if "x-dmq-attempts" in headers:
    ...         done.set()
    ...     return done.is_set()
    >>> consumer = DirectConsumer(manager, "orders", retry=Retry(delays=(0.1, 0.5)))
    >>> consumer.declare_queue()
    >>> with consumer.start_consuming(handle), DirectProducer(manager) as producer:
    ...     _ = producer.publish("orders", "a book")
    ...     done.wait(timeout=10)
    a book failed 0 times before
    a book failed 1 times before
    True
    """

    def __init__(
        self,
        delays: Sequence[float] = (1.0, 5.0, 30.0),
        attempts: int | None = None,
        mode: Mode | str = Mode.AUTO,
        *,
        parking: bool = True,
        cluster: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        if mode not in tuple(Mode):
            raise InvalidInputError(f"there is no retry mode {mode!r}", f"The modes are {', '.join(Mode)}.")
        self.policy = policy(delays, attempts)
        self.mode = Mode(mode)
        self._parking = parking
        self._cluster = cluster
        self._wall = wall
        self._serves = Mode.LADDER
        self._first_failures = _FirstFailures()
        self._closing = threading.Event()
        self._manager: BrokerConnectionManager | None = None
        self._connection: Connection | None = None
        self._thread: ForwarderThread | None = None

    @property
    def keeps_order(self) -> bool:
        """Whether a failed message comes again before every later one of its queue."""
        return self.mode is Mode.IN_PLACE

    def prepare(self, queue: Queue, version: Version) -> FailurePlan:
        """What must be declared for `queue`; its mode is then settled. `InvalidInputError` if it cannot be served."""
        self._serves = chosen_mode(self.mode, self.policy, queue, version)
        return retry_plan(self._serves, self.policy, self._parking, queue, version)

    def bind(self, manager: BrokerConnectionManager, queue_name: str) -> None:
        """Opens what copies are published over."""
        self._manager = manager
        self._connection = connection = manager.publishing(self._cluster)
        self._thread = ForwarderThread(queue_name)
        self._thread.start(lambda tell: Publisher(connection, _LIMITS, tell))

    def failed(self, delivery: Delivery, why: str) -> None:
        """Has the message tried again, or gives it up; in place this takes the delay, else it returns at once."""
        failure = self._failure(delivery, why)
        last = self.policy.is_last(failure.attempts)
        if last and not self._parking:
            delivery.reject(requeue=False)
        elif last:
            self._forward(delivery, self._given_up_to(delivery.queue), failure, is_parked=True)
        elif self._serves is Mode.NATIVE:
            delivery.reject(requeue=True)
        elif self._serves is Mode.IN_PLACE:
            if self._still_there_after(delivery, self.policy.delay_s(failure.attempts)):
                delivery.reject(requeue=True)
        else:
            target = delay_queue(delivery.queue, self.policy.delay_s(failure.attempts))
            self._forward(delivery, target, failure, is_parked=False)

    def close(self, timeout_s: float) -> None:
        """Ends it after at most `timeout_s` and a second; may be called twice."""
        self._closing.set()
        if self._thread is not None:
            self._thread.close(timeout_s)
        connection, self._connection = self._connection, None
        if connection is not None and self._manager is not None:
            self._manager.release(connection)

    def _given_up_to(self, queue: str) -> str:
        return parking_queue(queue)

    def _failure(self, delivery: Delivery, why: str) -> Failure:
        headers = delivery.properties.headers
        now = self._wall()
        if self._serves is Mode.LADDER:
            return Failure(attempts_before(headers) + 1, now, now, why)
        attempts = delivery.attempts
        first_at = self._first_failures.seen(delivery.properties.message_id, now, anew=attempts == 1)
        return Failure(attempts_before(headers) + attempts, first_at, now, why)

    def _forward(self, delivery: Delivery, target: str, failure: Failure, *, is_parked: bool) -> None:
        if self._thread is None or self._thread.forwarder is None:
            raise MessagingError("this retry path is bound to no consumer", "Give it to a consumer.")
        properties = properties_of_copy(
            delivery.properties, delivery.exchange, delivery.routing_key, delivery.queue, failure, parked=is_parked
        )
        forward = Forward(delivery, target, properties)
        self._thread.forwarder.take(forward)
        if self._serves is Mode.IN_PLACE:
            # What comes after must not be handled while this one may still come back.
            while delivery.is_current and not forward.over.wait(LOOK_S) and not self._closing.is_set():
                pass

    def _still_there_after(self, delivery: Delivery, seconds: float) -> bool:
        """Waits; False as soon as the delivery is stale or the path closes: then the broker has to deliver it again."""
        end = time.monotonic() + seconds
        while delivery.is_current and not self._closing.is_set():
            left = end - time.monotonic()
            if left <= 0:
                return True
            self._closing.wait(min(LOOK_S, left))
        return False


class RetryInStream(Retry):
    """What `Requeue` is for other queues: after `limit` returns at once, a copy goes to `<queue>.dead`."""

    def __init__(self, limit: int, cluster: str) -> None:
        super().__init__((PAUSE_S,), limit + 1, Mode.IN_PLACE, cluster=cluster)

    def prepare(self, queue: Queue, version: Version) -> FailurePlan:
        """A dead-letter queue."""
        super().prepare(queue, version)
        return FailurePlan(entities=(dead_letter_queue(queue, version),))

    def _given_up_to(self, queue: str) -> str:
        return dead_letter_name(queue)


class _FirstFailures:
    """When messages failed first, where only the broker counts; of the last `REMEMBERED` that have an id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: OrderedDict[str, float] = OrderedDict()

    def seen(self, message_id: str | None, now: float, *, anew: bool) -> float | None:
        """The epoch second of the first failure: `now` if `anew`; None if it is not known."""
        if anew and message_id is not None:
            with self._lock:
                self._times[message_id] = now
                while len(self._times) > REMEMBERED:
                    self._times.popitem(last=False)
        return now if anew else self._times.get(message_id or "")
