"""What connections, declarations, producers and consumers do when the link to a real broker breaks at every step."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from clients import await_until

from dmq_core.cluster.discovery import docker_unavailable
from dmq_core.cluster.protocol import Backend, Cluster, NodeAction
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import DmqError
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.states import ConnectionHooks, ConnectionState, ConnectionStatus
from dmq_core.messaging.connection.topology_commands import declare, delete_queue, queue_depth
from dmq_core.messaging.consuming.subscription import Subscription
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import Outcome, OutgoingMessage, PublishResult
from dmq_core.messaging.publishing.publish_future import PublishFuture
from dmq_core.messaging.publishing.publisher import ProducerLimits, Publisher
from dmq_core.messaging.topology.model import Queue
from dmq_core.testing import ChaosProxy, Direction, ProtocolStep

BACKEND = Backend.DOCKER if docker_unavailable() is None else Backend.LOCAL
pytestmark = [pytest.mark.real, getattr(pytest.mark, str(BACKEND))]

# What a call is given, what it may take beyond that on a busy machine, and what a failover may take.
BOUND_S, GRACE_S, FAILOVER_S = 1.5, 0.75, 3.0
Open = Callable[..., Connection]


@dataclass(frozen=True, slots=True)
class Link:
    """A cluster whose first node is reached through a proxy, and whose second is not."""

    cluster: Cluster
    proxy: ChaosProxy
    healthy: NodeEndpoint

    @property
    def both(self) -> list[NodeEndpoint]:
        return [self.proxy.endpoint, self.healthy]


@pytest.fixture
def link(cluster_on: Callable[[Backend], Cluster]) -> Iterator[Link]:
    cluster = cluster_on(BACKEND)
    first, second, *_ = (node.endpoint for node in cluster.nodes())
    with ChaosProxy(first.host, first.amqp_port or 0) as proxy:
        yield Link(cluster, proxy, second)


@pytest.fixture
def connect(link: Link) -> Iterator[Open]:
    """Makes connections to the given endpoints (by default to the proxied node alone), and closes them at the end."""
    made: list[Connection] = []

    def make(*endpoints: NodeEndpoint, on_change: Callable[[ConnectionStatus], None] | None = None) -> Connection:
        places = endpoints or (link.proxy.endpoint,)
        made.append(
            Connection(
                places,
                dict.fromkeys(places, link.cluster.credentials),
                "dmq test",
                ConnectionHooks(on_change=on_change),
            )
        )
        return made[-1]

    yield make
    for connection in made:
        connection.begin_closing()
    for connection in made:
        connection.close()


@pytest.fixture
def queue(link: Link, connect: Open) -> Iterator[str]:
    name = f"test.proxy.{secrets.token_hex(4)}"
    direct = connect(link.healthy)
    declare(direct, [Queue(name, "quorum")], 30)
    yield name
    delete_queue(direct, name, timeout_s=20)


class Collector:
    """A handler that acknowledges and remembers bodies."""

    def __init__(self) -> None:
        self.bodies: Counter[bytes] = Counter()

    def __call__(self, deliveries: tuple[Delivery, ...]) -> None:
        for delivery in deliveries:
            self.bodies[delivery.body] += 1
            delivery.ack()


def to(queue: str, body: bytes = b"x" * 100) -> OutgoingMessage:
    return OutgoingMessage("", queue, body)


def is_open_at(connection: Connection, endpoint: NodeEndpoint) -> Callable[[], bool]:
    return lambda: connection.status.endpoint == endpoint


# Each public call on a connection of its own; what comes of it, an error included.
def opening(connection: Connection, _queue: str) -> object:
    return connection.wait_open(BOUND_S)


def declaring(connection: Connection, queue: str) -> object:
    declare(connection, [Queue(queue, "quorum")], BOUND_S)
    return "declared"


def consuming(connection: Connection, queue: str) -> object:
    consumer = Subscription(connection, queue, Collector())
    try:
        return consumer.wait_consuming(BOUND_S)
    finally:
        consumer.stop(0)


def publishing(connection: Connection, queue: str) -> object:
    return Publisher(connection).publish_and_wait(to(queue), BOUND_S)


Call = Callable[[Connection, str], object]
EVERY_CALL: tuple[Call, ...] = (opening, declaring, consuming, publishing)
HELD_UP: dict[ProtocolStep, tuple[Call, ...]] = {
    ProtocolStep.CONNECT: EVERY_CALL,
    ProtocolStep.START: EVERY_CALL,
    ProtocolStep.TUNE: EVERY_CALL,
    ProtocolStep.OPEN: EVERY_CALL,
    ProtocolStep.CHANNEL: EVERY_CALL[1:],
    ProtocolStep.DECLARE: (declaring,),
    ProtocolStep.CONSUME: (consuming,),
    ProtocolStep.MID_BODY: (publishing,),
}
BEFORE_OPEN = (ProtocolStep.CONNECT, ProtocolStep.START, ProtocolStep.TUNE, ProtocolStep.OPEN)
# One of each kind; the rest is alike, and takes as long.
SAMPLES = (ProtocolStep.TUNE, ProtocolStep.DECLARE, ProtocolStep.MID_BODY)


def mostly_samples(steps: Iterable[ProtocolStep]) -> list[Any]:
    return [step if step in SAMPLES else pytest.param(step, marks=pytest.mark.thorough) for step in steps]


@pytest.mark.parametrize("step", mostly_samples(ProtocolStep))
def test_a_black_hole_at_any_step_ends_every_call_that_it_holds_up_within_its_bound(
    link: Link, connect: Open, queue: str, step: ProtocolStep
) -> None:
    link.proxy.stall_at(step)

    def outcome(call: Call) -> tuple[object, float]:
        began = time.monotonic()
        try:
            return call(connect(), queue), time.monotonic() - began
        except DmqError as error:
            return error, time.monotonic() - began

    with ThreadPoolExecutor(len(EVERY_CALL)) as pool:
        results = dict(zip(HELD_UP[step], pool.map(outcome, HELD_UP[step]), strict=True))
    for call, (result, seconds) in results.items():
        assert seconds < BOUND_S + GRACE_S, f"{call.__name__} took {seconds:.2f} s"
        if call is publishing:
            assert isinstance(result, PublishResult)
            assert result.outcome is (Outcome.UNKNOWN if step is ProtocolStep.MID_BODY else Outcome.NOT_SENT)
            assert result.reason
        else:
            assert isinstance(result, DmqError), f"{call.__name__} gave {result}"
            assert result.what
    assert step is ProtocolStep.CONNECT or link.proxy.counts.triggered >= len(results)


@pytest.mark.parametrize("step", mostly_samples(BEFORE_OPEN))
def test_a_connection_that_stands_still_before_it_opens_goes_to_the_next_node_in_time(
    link: Link, connect: Open, step: ProtocolStep
) -> None:
    link.proxy.stall_at(step)
    connection = connect(*link.both)
    began = time.monotonic()
    assert connection.wait_open(FAILOVER_S) == link.healthy
    assert time.monotonic() - began < FAILOVER_S
    assert connection.status.epoch == 1


@pytest.mark.parametrize("step", mostly_samples(step for step in ProtocolStep if step not in BEFORE_OPEN))
def test_a_link_that_stalls_after_it_opened_is_left_for_the_next_node_in_time(
    link: Link, connect: Open, queue: str, step: ProtocolStep
) -> None:
    connection = connect(*link.both)
    assert connection.wait_open(10) == link.proxy.endpoint
    link.proxy.stall_at(step)
    began = time.time()
    if step is ProtocolStep.CONSUME:
        Subscription(connection, queue, Collector()).wait_consuming(20)
    elif step is ProtocolStep.MID_BODY:
        assert Publisher(connection).publish_and_wait(to(queue), 20).outcome is Outcome.UNKNOWN
    else:
        declare(connection, [Queue(queue, "quorum")], 20)
    assert connection.wait_open(10) == link.healthy
    assert connection.status.at - began < FAILOVER_S
    assert Publisher(connection).publish_and_wait(to(queue), 10).outcome is Outcome.CONFIRMED


def test_a_message_whose_ack_is_lost_is_unknown_though_the_broker_has_it(link: Link, connect: Open, queue: str) -> None:
    link.proxy.drop_acks()
    connection = connect()
    producer = Publisher(connection)
    handles = [producer.publish(to(queue, b"%d" % n)) for n in range(50)]
    producer.flush(10)
    assert Counter(h.result(0).outcome for h in handles) == {Outcome.UNKNOWN: 50}
    assert link.proxy.counts.dropped > 0
    assert (queue_depth(connect(link.healthy), queue, 10) or pytest.fail("gone")).ready == 50
    link.proxy.heal()
    assert producer.publish_and_wait(to(queue), 10).outcome is Outcome.CONFIRMED


@pytest.mark.parametrize(
    ("step", "direction"),
    [(ProtocolStep.MID_BODY, Direction.TO_BROKER), (None, Direction.TO_BROKER), (None, Direction.TO_CLIENT)],
)
def test_a_frame_that_is_cut_leaves_the_message_unknown_and_the_connection_comes_back(
    link: Link, connect: Open, queue: str, step: ProtocolStep | None, direction: Direction
) -> None:
    connection = connect()
    producer = Publisher(connection)
    assert producer.publish_and_wait(to(queue), 10).outcome is Outcome.CONFIRMED
    link.proxy.cut_at(step, direction=direction)
    settlement = producer.publish_and_wait(to(queue), 10)
    assert settlement.outcome is Outcome.UNKNOWN
    assert "reset" in settlement.reason
    link.proxy.heal()
    assert producer.publish_and_wait(to(queue), 10).outcome is Outcome.CONFIRMED
    assert connection.status.epoch >= 2


def test_resets_in_full_flow_settle_every_message_once_and_lose_none_that_was_confirmed(
    link: Link, connect: Open, queue: str
) -> None:
    settled: Counter[PublishFuture] = Counter()

    def note(handle: PublishFuture) -> None:
        settled[handle] += 1

    producer = Publisher(connect(), ProducerLimits(window=200), on_done=note)
    handles: list[PublishFuture] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            handles.append(producer.publish(to(queue, b"%d" % len(handles))))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for _ in range(4):
            reached = len(settled)
            await_until(lambda reached=reached: len(settled) > reached + 500, 30, "messages flow")
            link.proxy.reset()
    finally:
        stop.set()
        publisher.join(40)
    producer.flush(60)
    assert set(settled) == set(handles)
    assert set(settled.values()) == {1}
    outcomes = Counter(h.result(0).outcome for h in handles)
    assert set(outcomes) == {Outcome.CONFIRMED, Outcome.UNKNOWN}
    assert outcomes[Outcome.UNKNOWN] <= 4 * 200, "at most a window for each reset"
    collector = Collector()
    Subscription(connect(link.healthy), queue, collector)
    confirmed = {h.message.body for h in handles if h.result(0).outcome is Outcome.CONFIRMED}
    await_until(lambda: confirmed <= set(collector.bodies), 60, "everything that was confirmed is delivered")
    assert set(collector.bodies.values()) == {1}, "nothing was sent twice"


def test_consumers_of_an_idle_queue_leave_a_node_that_stalls_within_three_seconds(
    link: Link, connect: Open, queue: str
) -> None:
    connections = []
    for _ in range(6):
        # Opened one after the other, so that each is at another point between two questions.
        connections.append(connect(*link.both))
        assert Subscription(connections[-1], queue, Collector()).wait_consuming(10).endpoint == link.proxy.endpoint
    stalled_at = time.time()
    link.proxy.stall()
    await_until(lambda: all(is_open_at(c, link.healthy)() for c in connections), 10, "all are elsewhere")
    waited = [c.status.at - stalled_at for c in connections]
    assert max(waited) < FAILOVER_S, waited


def test_a_consumer_leaves_a_frozen_node_within_three_seconds(link: Link, connect: Open, queue: str) -> None:
    first, second, third = (node.endpoint for node in link.cluster.nodes())
    consumer = Subscription(connect(third, second, first), queue, Collector())
    connection = connect(third, second, first)
    assert consumer.wait_consuming(10).endpoint == third
    assert connection.wait_open(10) == third
    frozen_at = time.time()
    link.cluster.act(NodeAction.PAUSE, "rmq3")
    try:
        await_until(lambda: connection.status.endpoint not in (None, third), 10, "it is elsewhere")
    finally:
        link.cluster.act(NodeAction.UNPAUSE, "rmq3")
    assert connection.status.at - frozen_at < FAILOVER_S


def test_a_slow_link_works_and_its_idleness_raises_no_alarm(link: Link, connect: Open, queue: str) -> None:
    link.proxy.delay(0.05, jitter_s=0.02)
    changes: list[ConnectionState] = []
    connection = connect(on_change=lambda status: changes.append(status.state))
    direct = connect(link.healthy, on_change=lambda status: changes.append(status.state))
    collector = Collector()
    consumer = Subscription(connection, queue, collector)
    consumer.wait_consuming(10)
    Subscription(direct, queue, collector).wait_consuming(10)
    producer = Publisher(connection)
    began = time.monotonic()
    for n in range(500):
        producer.publish(to(queue, b"%d" % n))
    producer.flush(20)
    await_until(lambda: len(collector.bodies) == 500, 20, "all have come")
    assert time.monotonic() - began < 10, "they were pipelined, not sent one by one"
    idle_from = time.monotonic()
    while time.monotonic() - idle_from < 6:
        assert connection.status.epoch == direct.status.epoch == 1, connection.status.problem
        time.sleep(0.1)
    assert ConnectionState.RECOVERING not in changes
    assert set(collector.bodies.values()) == {1}


def test_a_large_message_on_a_slow_uplink_is_no_silence(link: Link, connect: Open, queue: str) -> None:
    link.proxy.throttle(1e6, Direction.TO_BROKER)
    changes: list[ConnectionState] = []
    connection = connect(on_change=lambda status: changes.append(status.state))
    began = time.monotonic()
    settlement = Publisher(connection).publish_and_wait(to(queue, b"x" * 6_000_000), 30)
    assert settlement.outcome is Outcome.CONFIRMED, settlement.reason
    assert time.monotonic() - began > 4, "it took longer than an idle node is given to answer"
    assert ConnectionState.RECOVERING not in changes
