"""A steady load: a confirmed publisher and an acknowledging consumer on one quorum queue, and its running account."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dmq_core.cluster.base import Credentials, NodeEndpoint, NodeInfo
from dmq_core.errors import BadInput, DmqError
from dmq_core.messaging.consuming.consumer import Consumer, ConsumerStatus
from dmq_core.messaging.consuming.delivery import Delivery
from dmq_core.messaging.linking.connection import Connection
from dmq_core.messaging.linking.dialing import label
from dmq_core.messaging.linking.states import ConnectionStatus
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage
from dmq_core.messaging.publishing.producer import Handle, Producer, ProducerLimits
from dmq_core.messaging.topology import Binding, Exchange, Queue, delete_queue, queue_depth
from dmq_core.observe.events import Event, Gravity, Origin
from dmq_core.proof.account import LoadAccount
from dmq_core.proof.felt import ClientStory
from dmq_core.proof.gauges import GapMeter, RateHistory
from dmq_core.proof.ledger import Ledger

MAX_RATE = 20_000.0
TICK_S = 0.01
UNCOUNTED_WITHIN_S = 2.0
SETUP_S = 20.0
DRAIN_S = 10.0
_PROBE = "dmq-probe"
_LOG = logging.getLogger("dmq.proof")


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What a load looks like: messages a second, its queue (and exchange of that name), least body size in bytes.

    Each message is acknowledged `work_s` seconds after its delivery, so that some are always unacknowledged.
    """

    rate: float = 500.0
    queue: str = "dmq.load"
    body_bytes: int = 100
    work_s: float = 0.1


class DemoLoad:
    """A running load on the nodes of a cluster; it begins when it is made, and survives every node but not `stop`.

    Publisher and consumer keep to different nodes, the consumer to that of `leader` where it is known (called on an
    I/O thread, must not block). `listener` hears what the clients felt, from one background thread.
    """

    def __init__(
        self,
        nodes: Sequence[NodeInfo],
        credentials: Credentials,
        listener: Callable[[Event], None],
        settings: LoadSettings | None = None,
        leader: Callable[[], NodeEndpoint | None] | None = None,
    ) -> None:
        self._settings = settings or LoadSettings()
        if not 0 < self._settings.rate <= MAX_RATE:
            raise BadInput(
                f"a load of {self._settings.rate:g} messages/s makes no sense", f"Ask for up to {MAX_RATE:g}."
            )
        self._names = {node.endpoint: node.name for node in nodes}
        self._endpoints = tuple(n.endpoint for n in nodes if n.endpoint.amqp_port is not None)
        self._leader = leader or (lambda: None)
        self._listener = listener
        self._run = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._stop_lock = threading.Lock()
        self._ledger = Ledger()
        self._story = ClientStory(self._name_of, self._settings.rate)
        self._events: deque[Event] = deque()
        now = time.monotonic()
        self._confirms, self._confirm_gap = RateHistory(now), GapMeter()
        self._deliveries, self._delivery_gap = RateHistory(now), GapMeter()
        self._at_work: deque[tuple[float, Delivery]] = deque()
        self._no_more = threading.Event()
        self._over = threading.Event()
        self._final: LoadAccount | None = None
        self._made_queue = False
        self._shutting = False
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._in = Connection(self._endpoints, credentials, "dmq load consumer", prefer=self._consumer_order)
        self._out = Connection(
            self._endpoints, credentials, "dmq load publisher", self._publisher_order, self._publisher_changed
        )
        self._conductor = threading.Thread(target=self._conduct, name="load publish", daemon=True)
        self._worker = threading.Thread(target=self._work, name="load work", daemon=True)
        self._worker.start()
        self._conductor.start()

    def account(self) -> LoadAccount:
        """The account so far, without I/O."""
        return self._final or self._account(running=not self._over.is_set())

    def leave(self, endpoint: NodeEndpoint) -> None:
        """Has both clients leave a node that is known to be gone, sooner than they would notice."""
        for connection in (self._in, self._out):
            connection.leave(endpoint, "the cluster says that the node is gone")

    def stop(self) -> LoadAccount:
        """Stops publishing, drains (at most 10 s), closes, gives the final account; may be called twice."""
        with self._stop_lock:
            if self._final is None:
                self._no_more.set()
                if self._producer is None:
                    # Still setting up: that fails at once then, instead of at its bound.
                    self._close_connections()
                self._conductor.join(SETUP_S)
                drained = self._drain(time.monotonic() + DRAIN_S)
                with self._lock:
                    self._ledger.close(drained)
                self._shut(drained)
                self._final = self._account(running=False)
            return self._final

    # Setting up and publishing, on the conductor's thread.

    def _conduct(self) -> None:
        try:
            self._set_up()
            if self._producer is not None:
                self._publish(self._producer)
        except DmqError as error:
            if not self._no_more.is_set():
                what = f"the load ended: {error.what}"
                self._emit(Gravity.BAD, "load_failed", what)
            self._close_connections()
            self._over.set()

    def _set_up(self) -> None:
        queue = self._settings.queue
        self._out.wait_open(SETUP_S)
        self._made_queue = queue_depth(self._out, queue, SETUP_S) is None
        declare = (
            Exchange(queue, "topic", auto_delete=True),
            Queue(queue, "quorum"),
            Binding(queue, queue, "load.#"),
        )
        self._consumer = Consumer(
            self._in,
            queue,
            self._received,
            prefetch=max(200, int(self._settings.rate * self._settings.work_s * 4)),
            declare=declare,
            on_change=self._consumer_changed,
        )
        self._consumer.wait_consuming(SETUP_S)
        pending = max(200, int(self._settings.rate * 2))
        producer = Producer(self._out, ProducerLimits(messages=pending), self._settled)
        self._await_routing(producer)
        self._producer = producer

    def _await_routing(self, producer: Producer) -> None:
        """A binding that one node has just made may not route on another for a moment."""
        probe = OutgoingMessage(
            self._settings.queue, "load.probe", b"", MessageProperties(message_id=self._run, type=_PROBE)
        )
        deadline = time.monotonic() + SETUP_S
        while time.monotonic() < deadline and not self._no_more.wait(TICK_S):
            if producer.publish_and_wait(probe).outcome is Outcome.CONFIRMED:
                return

    def _publish(self, producer: Producer) -> None:
        rate, limit = self._settings.rate, max(200, int(self._settings.rate * 2))
        offered_until = time.monotonic()
        while not self._no_more.wait(TICK_S):
            now = time.monotonic()
            # What could not be offered in time is not made up for, or a recovery would begin with a flood.
            offered_until = max(offered_until, now - 0.2)
            while offered_until < now and producer.outstanding < limit and not self._no_more.is_set():
                offered_until += 1.0 / rate
                self._publish_one(producer)

    def _publish_one(self, producer: Producer) -> None:
        with self._lock:
            number = self._ledger.attempt()
            now = time.monotonic()
            self._confirm_gap.offered(now)
            self._delivery_gap.offered(now)
        properties = MessageProperties(message_id=f"{self._run}-{number}", app_id="dmq", timestamp=int(time.time()))
        producer.publish(
            OutgoingMessage(self._settings.queue, "load.steady", self._body(number), properties), room_s=0.5
        )

    def _body(self, number: int) -> bytes:
        """A line that a person who tails the load can follow, filled up to the size asked for."""
        return f'{{"message": {number}, "run": "{self._run}"}}'.encode().ljust(self._settings.body_bytes)

    def _settled(self, handle: Handle) -> None:
        number = self._number(handle.message.properties.message_id)
        settlement = handle.settlement
        if number is None or settlement is None:
            return
        with self._lock:
            now = time.monotonic()
            self._ledger.settled(number, settlement.outcome)
            if settlement.outcome is Outcome.CONFIRMED:
                longest = self._confirm_gap.longest_s
                gap = self._confirm_gap.came(now, more=self._ledger.outstanding > 0)
                self._confirms.add(now)
                self._events.extend(self._story.confirmed(gap, gap > longest))
            elif settlement.outcome is Outcome.UNKNOWN:
                self._story.unknown()

    # Receiving and working.

    def _received(self, deliveries: tuple[Delivery, ...]) -> None:
        due = time.monotonic() + self._settings.work_s
        with self._lock:
            for delivery in deliveries:
                self._count(delivery)
        self._at_work.extend((due, delivery) for delivery in deliveries)

    def _count(self, delivery: Delivery) -> None:
        number = self._number(delivery.properties.message_id)
        if number is None:
            return
        now = time.monotonic()
        recovered = self._ledger.recovered
        self._ledger.delivered(number, delivery.redelivered, now)
        self._story.recovered(self._ledger.recovered - recovered)
        if delivery.redelivered:
            self._story.redelivered()
        longest = self._delivery_gap.longest_s
        gap = self._delivery_gap.came(now, more=self._ledger.undelivered > 0)
        self._deliveries.add(now)
        self._events.extend(self._story.delivered(gap, gap > longest))

    def _number(self, message_id: str | None) -> int | None:
        """The number in an id of this run; None for probes and for what other runs left behind."""
        run, _, number = (message_id or "").partition("-")
        return int(number) if run == self._run and number.isascii() and number.isdigit() else None

    def _work(self) -> None:
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            while self._at_work and self._at_work[0][0] <= now:
                self._at_work.popleft()[1].ack()
            self._tell()
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            self._events.extend(self._story.due())
        while self._events:
            try:
                self._listener(self._events.popleft())
            except Exception:  # the listener is not ours; its failure must not stop the acknowledgements
                _LOG.exception("the listener of a load failed")

    # Where the clients go.

    def _publisher_order(self) -> tuple[NodeEndpoint, ...]:
        avoided = self._in.status.endpoint or self._leader()
        return tuple(e for e in self._endpoints if e != avoided)

    def _consumer_order(self) -> tuple[NodeEndpoint, ...]:
        leader, publisher = self._leader(), self._out.status.endpoint
        elsewhere = tuple(e for e in self._endpoints if e not in (leader, publisher))
        return elsewhere if leader is None else (leader, *elsewhere)

    def _name_of(self, endpoint: NodeEndpoint) -> str:
        return self._names.get(endpoint, label(endpoint))

    def _publisher_changed(self, status: ConnectionStatus) -> None:
        with self._lock:
            self._events.extend(self._story.publisher(status))

    def _consumer_changed(self, status: ConsumerStatus) -> None:
        if self._shutting:
            return
        with self._lock:
            self._events.extend(self._story.consumer(status))

    def _emit(self, gravity: Gravity, kind: str, text: str) -> None:
        self._events.append(Event(time.time(), Origin.CLIENT, gravity, kind, self._settings.queue, text))

    # Ending.

    def _drain(self, deadline: float) -> bool:
        """Whether everything that was confirmed is delivered, or the queue is known to hold nothing more."""
        if self._producer is None:
            return False
        while time.monotonic() < deadline:
            with self._lock:
                done = self._ledger.undelivered == 0 and not self._at_work
            if done:
                return True
            time.sleep(TICK_S)
        return self._is_empty()

    def _is_empty(self) -> bool:
        """Three reads of zero: a queue whose leader is silent for a moment reads as empty."""
        for _ in range(3):
            try:
                depth = queue_depth(self._out, self._settings.queue, timeout_s=1.0)
            except DmqError:
                return False
            if depth is None:
                return True
            if depth.ready or self._at_work:
                return False
            time.sleep(0.3)
        return True

    def _shut(self, drained: bool) -> None:
        self._shutting = True
        if self._consumer is not None:
            self._consumer.stop(timeout_s=2.0)
        if self._producer is not None:
            self._producer.close(timeout_s=0.5)
        if drained and self._made_queue:
            self._delete_queue()
        self._close_connections()
        self._over.set()
        self._worker.join(2.0)

    def _close_connections(self) -> None:
        self._out.close()
        self._in.close()

    def _delete_queue(self) -> None:
        deadline = time.monotonic() + UNCOUNTED_WITHIN_S
        try:
            depth = queue_depth(self._out, self._settings.queue, timeout_s=2.0)
            # Brokers still count a consumer that has just left; one that stays is somebody else's.
            while depth is not None and depth.consumers and time.monotonic() < deadline:
                time.sleep(0.1)
                depth = queue_depth(self._out, self._settings.queue, timeout_s=2.0)
            if depth is not None and depth.ready == 0 and depth.consumers == 0:
                delete_queue(self._out, self._settings.queue, timeout_s=3.0)
        except DmqError as error:
            what = f"the queue of the load stays: {error.what}"
            self._emit(Gravity.NOTICE, "queue_stays", what)

    def _account(self, running: bool) -> LoadAccount:
        with self._lock:
            now = time.monotonic()
            counts = self._ledger.counts()
            return LoadAccount(
                running=running,
                queue=self._settings.queue,
                rate=self._settings.rate,
                taken_at=time.time(),
                attempted=counts.attempted,
                outstanding=counts.outstanding,
                confirmed=counts.confirmed,
                nacked=counts.nacked,
                returned=counts.returned,
                unknown=counts.unknown,
                not_sent=counts.not_sent,
                delivered=counts.delivered,
                redelivered=counts.redelivered,
                duplicates=counts.duplicates,
                in_flight=counts.in_flight,
                lost=counts.lost,
                longest_confirm_gap_s=self._confirm_gap.longest_yet(now),
                longest_delivery_gap_s=self._delivery_gap.longest_yet(now),
                current_confirm_gap_s=self._confirm_gap.current(now),
                current_delivery_gap_s=self._delivery_gap.current(now),
                publisher_at=self._story.publisher_node,
                consumer_at=self._story.consumer_node,
                slice_s=0.5,
                confirm_history=self._confirms.rates(now),
                delivery_history=self._deliveries.rates(now),
            )
