"""The clients of a proof run: publishers and consumers on the library's public classes, as users have them.

Every message is in the journal before it is published, and every delivery before it is acknowledged.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dmq_core.errors import DmqError, OperationTimeoutError
from dmq_core.messaging.consuming.consumers import DirectConsumer
from dmq_core.messaging.delivery.stream_offset import FIRST
from dmq_core.messaging.messages import MessageProperties, Outcome
from dmq_core.messaging.publishing.producers import (
    DirectProducer,
    FanoutProducer,
    HeadersProducer,
    Producer,
    TopicProducer,
)
from dmq_core.messaging.publishing.publisher import ProducerLimits
from dmq_core.messaging.topology.model import Binding, Entity, Exchange, Queue
from dmq_core.proof.gauges import GapMeter
from dmq_core.proof.journal.records import message_id, number_of
from dmq_core.proof.run.client_events import ClientEventLog
from dmq_core.proof.run.live_account import LiveAccount, MessageCounts
from dmq_core.proof.run.stream_end import EndMarks
from dmq_core.versions import parse_version

if TYPE_CHECKING:
    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.messaging.consuming.decoding import MessageHeaders
    from dmq_core.messaging.publishing.publish_future import PublishFuture
    from dmq_core.proof.journal.file import Journal
    from dmq_core.proof.journal.records import RunSetup

Handler = Callable[[object, "MessageHeaders"], bool | None]
HandlerWrapper = Callable[[Handler], Handler]
TICK_S: Final = 0.01
ROUTES_WITHIN_S: Final = 20.0
STOPS_WITHIN_S: Final = 5.0
MARKED_WITHIN_S: Final = 10.0
SETTLES_WITHIN_S: Final = 40.0
_BEHIND_S: Final = 0.2
_MOST_HANDLERS: Final = 64
_PROBE: Final = "probe"
_MATCH: Final = "dmq-proof"


def unwrapped(handler: Handler) -> Handler:
    """No wrapper at all."""
    return handler


@dataclass(frozen=True, slots=True)
class TrafficProgress:
    """How the traffic does now: the counts so far, and the gaps in seconds, open ones included."""

    counts: MessageCounts
    longest_confirm_gap_s: float = 0.0
    longest_delivery_gap_s: float = 0.0


def entities_of(setup: RunSetup, members: int) -> tuple[Entity, ...]:
    """What a run declares; its exchange goes with its last queue. `members` is how many nodes hold a queue."""
    kind = setup.workload.exchange_type
    arguments: dict[str, object] = {}
    if setup.workload.queue_type == "quorum":
        arguments["x-quorum-initial-group-size"] = members
        if setup.rabbitmq and parse_version(setup.rabbitmq).major >= 4:
            # Each loss of a consumer's node counts as a return: with the usual limit of 20, a long run drops messages.
            arguments["x-delivery-limit"] = -1
    elif setup.reads_streams:
        arguments["x-initial-cluster-size"] = members
    declared: list[Entity] = [Exchange(setup.exchange, kind, auto_delete=True)]
    for queue in setup.queues:
        declared.append(Queue(queue, setup.workload.queue_type, arguments=arguments))
        match kind:
            case "topic":
                declared.append(Binding(setup.exchange, queue, "proof.#"))
            case "headers":
                declared.append(Binding(setup.exchange, queue, arguments={"x-match": "all", _MATCH: setup.run}))
            case "fanout":
                declared.append(Binding(setup.exchange, queue))
            case _:
                declared += [Binding(setup.exchange, queue, key) for key in setup.keys]
    return tuple(declared)


class Traffic:
    """Publishers over `manager`, consumers over `consuming` (None: the same); nothing moves before `open` and `begin`.

    `wrap_handler` gets the handler that each consumer would run, and gives the one that it does; `epoch` tells how
    often the consumers' connection has been opened; `client_events` hears of gaps and rushes.
    """

    def __init__(
        self,
        manager: BrokerConnectionManager,
        setup: RunSetup,
        journal: Journal,
        wrap_handler: HandlerWrapper = unwrapped,
        epoch: Callable[[], int] = lambda: 0,
        consuming: BrokerConnectionManager | None = None,
        client_events: ClientEventLog | None = None,
    ) -> None:
        self._manager = manager
        self._consuming = consuming or manager
        self._setup = setup
        self._workload = setup.workload
        self._journal = journal
        self._wrap_handler = wrap_handler
        self._epoch = epoch
        self._positions = {key: position for position, key in enumerate(setup.keys)}
        self.end_marks = EndMarks(setup.run)
        self._by_key = setup.workload.exchange_type in ("direct", "topic")
        self._most = max(200, int(setup.workload.rate / setup.workload.publishers * 2))
        self._lock = threading.Lock()
        self._account = LiveAccount()
        self._client_events = client_events or ClientEventLog(setup.workload.rate)
        self._confirm_gap, self._delivery_gap = GapMeter(), GapMeter()
        self._no_more = threading.Event()
        self._error: DmqError | None = None
        self._consumers: list[DirectConsumer] = []
        self._producers: list[Producer] = []
        self._threads: list[threading.Thread] = []

    @property
    def error(self) -> DmqError | None:
        """What ended the publishing too early; None: nothing."""
        return self._error

    def progress(self) -> TrafficProgress:
        """How it does, without waiting."""
        with self._lock:
            now = time.monotonic()
            return TrafficProgress(
                self._account.counts(), self._confirm_gap.longest_so_far(now), self._delivery_gap.longest_so_far(now)
            )

    @property
    def undelivered(self) -> int:
        """Messages that have been confirmed and not delivered, or are on their way."""
        with self._lock:
            return self._account.undelivered

    def open(self) -> None:
        """Starts the consumers, makes the publishers, and waits until messages are routed.

        Raises `OperationTimeoutError` in 20 s.
        """
        for number, queue in enumerate(self._setup.read_by):
            consumer = DirectConsumer(self._consuming, queue, concurrency=self._handlers())
            self._consumers.append(consumer)
            offset = FIRST if self._setup.reads_streams else None
            consumer.start_consuming(self._wrap_handler(self._handler(number, queue)), offset=offset)
        limits = ProducerLimits(messages=self._most)
        make = _PRODUCERS[self._workload.exchange_type]
        for _ in range(self._workload.publishers):
            producer = make(self._manager, self._setup.exchange, limits=limits, on_done=self._settled)
            producer.declare_exchange(auto_delete=True)
            self._producers.append(producer)
        for key in range(len(self._setup.keys)):
            self._await_route(self._producers[0], key)

    def begin(self) -> None:
        """Begins to publish."""
        for number, producer in enumerate(self._producers):
            thread = threading.Thread(target=self._run, args=(number, producer), name="proof publisher", daemon=True)
            self._threads.append(thread)
            thread.start()

    def fail(self, error: DmqError) -> None:
        """Ends the publishing because of `error`; from any thread."""
        self._error = self._error or error
        self._no_more.set()

    def stop_publishing(self, timeout_s: float = SETTLES_WITHIN_S) -> None:
        """Publishes no more and waits until every message has its outcome; the rest is unknown after `timeout_s`."""
        self._no_more.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        for producer in self._producers:
            producer.close(max(0.1, deadline - time.monotonic()))

    def publish_end_mark(self, mark: str) -> bool:
        """Publishes the message `mark` behind all others; whether it was confirmed within ten seconds."""
        make = _PRODUCERS[self._workload.exchange_type]
        with contextlib.suppress(DmqError), make(self._manager, self._setup.exchange) as producer:
            return self._put(producer, mark, 0, b"").result(MARKED_WITHIN_S).outcome is Outcome.CONFIRMED
        return False

    def stop_consuming(self) -> None:
        """Answers what was delivered, and ends; what was not handled goes back."""
        for consumer in self._consumers:
            consumer.stop_consuming(STOPS_WITHIN_S)

    # Publishing.

    def _run(self, publisher: int, producer: Producer) -> None:
        try:
            self._publish(publisher, producer)
        except DmqError as error:
            self.fail(error)

    def _publish(self, publisher: int, producer: Producer) -> None:
        rate = self._workload.rate / self._workload.publishers
        behind_s = max(_BEHIND_S, 2 / rate)
        keys = [key for key in range(len(self._setup.keys)) if key % self._workload.publishers == publisher]
        offered_until = time.monotonic()
        while not self._no_more.wait(TICK_S):
            now = time.monotonic()
            # What could not be offered in time is not made up for, or a recovery would begin with a flood.
            offered_until = max(offered_until, now - behind_s)
            due = min(int((now - offered_until) * rate), self._most - producer.outstanding)
            if due > 0:
                offered_until += due / rate
                self._send(publisher, producer, due, keys)

    def _send(self, publisher: int, producer: Producer, count: int, keys: Sequence[int]) -> None:
        with self._lock:
            numbers = [self._account.attempt() for _ in range(count)]
            now = time.monotonic()
            self._confirm_gap.expect(now)
            self._delivery_gap.expect(now)
        positions = [keys[number % len(keys)] for number in numbers]
        self._journal.append_attempts(publisher, numbers, positions)
        for number, position in zip(numbers, positions, strict=True):
            self._put(producer, message_id(self._setup.run, number), position, self._body(number))

    def _put(self, producer: Producer, an_id: str, position: int, body: bytes) -> PublishFuture:
        key = self._setup.keys[position]
        properties = MessageProperties(message_id=an_id, type=key, app_id="dmq proof")
        match producer:
            case DirectProducer() | TopicProducer():
                return producer.publish(key, body, properties)
            case HeadersProducer():
                return producer.publish({_MATCH: self._setup.run}, body, properties)
            case FanoutProducer():
                return producer.publish(body, properties)
        raise TypeError("no such producer")

    def _body(self, number: int) -> bytes:
        """A line that a person who tails the load can follow, filled up to the size asked for."""
        return f'{{"message": {number}, "run": "{self._setup.run}"}}'.encode().ljust(self._workload.size)

    def _await_route(self, producer: Producer, key: int) -> None:
        """A binding that one node has just made may not route on another for a moment."""
        deadline = time.monotonic() + ROUTES_WITHIN_S
        while time.monotonic() < deadline and not self._no_more.wait(TICK_S):
            handle = self._put(producer, f"{self._setup.run}-{_PROBE}", key, b"")
            try:
                if handle.result(ROUTES_WITHIN_S).outcome is Outcome.CONFIRMED:
                    return
            except OperationTimeoutError:
                break
        raise OperationTimeoutError(
            f"no message was routed and confirmed within {ROUTES_WITHIN_S:g} s", "Does the cluster have a majority?"
        )

    def _settled(self, handle: PublishFuture) -> None:
        number = number_of(self._setup.run, handle.properties.message_id)
        if number is None:
            return
        result = handle.result(0)
        self._journal.append_outcome(number, result.outcome, result.sends, result.reason)
        with self._lock:
            self._account.settled(number, result.outcome)
            if result.outcome is Outcome.CONFIRMED:
                longest_s = self._confirm_gap.longest_s
                gap_s = self._confirm_gap.arrived(time.monotonic(), more=self._account.outstanding > 0)
                self._client_events.confirmed(gap_s, gap_s > longest_s)
            elif result.outcome is Outcome.UNKNOWN:
                self._client_events.unknown()

    # Receiving.

    def _handlers(self) -> int:
        """How many handlers keep up with the rate."""
        busy = self._workload.rate * self._workload.handler_s / self._workload.consumers
        return min(_MOST_HANDLERS, max(1, math.ceil(busy * 1.5)))

    def _handler(self, consumer: int, queue: str) -> Handler:
        # Each reader of a stream gets every message, and one of them is enough to see how the run does.
        is_counted = consumer == 0 if self._setup.reads_streams else queue == self._setup.queues[0]

        def handle(_message: object, headers: MessageHeaders) -> bool:
            delivery = headers.delivery
            said = delivery.properties.message_id
            number = number_of(self._setup.run, said)
            epoch = self._epoch() if delivery.is_current else self._epoch() - 1
            if number is None:
                is_mark = self.end_marks.note(consumer, said, delivery.offset)
                if not is_mark and said != f"{self._setup.run}-{_PROBE}":
                    self._journal.append_foreign(consumer, epoch, queue, [str(said)])
                return True
            key = delivery.routing_key if self._by_key else delivery.properties.type
            flagged = (0,) if delivery.redelivered else ()
            position = self._positions.get(key or "", -1)
            self._journal.append_deliveries(consumer, epoch, queue, (number,), (position,), flagged)
            if is_counted:
                self._count(number, delivery.redelivered)
            if self._workload.handler_s:
                time.sleep(self._workload.handler_s)
            if delivery.ack():
                self._journal.append_answers(consumer, epoch, (number,))
            return True

        return handle

    def _count(self, number: int, redelivered: bool) -> None:
        with self._lock:
            now = time.monotonic()
            recovered, longest_s = self._account.recovered, self._delivery_gap.longest_s
            self._account.delivered(number, redelivered, now)
            gap_s = self._delivery_gap.arrived(now, more=self._account.undelivered > 0)
            recovered = self._account.recovered - recovered
            self._client_events.delivered(gap_s, gap_s > longest_s, redelivered=redelivered, recovered=recovered)


_PRODUCERS: Final[dict[str, type[DirectProducer | TopicProducer | FanoutProducer | HeadersProducer]]] = {
    "direct": DirectProducer,
    "topic": TopicProducer,
    "fanout": FanoutProducer,
    "headers": HeadersProducer,
}
