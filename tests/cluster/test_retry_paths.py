"""Retry paths on real nodes: growing delays, honest counts, parking, and no loss when a hand-off is refused."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from clients import await_until, channel, publish

from dmq_core.cluster.protocol import Cluster, NodeAction
from dmq_core.connection_manager import BrokerConnectionManager, Role
from dmq_core.messaging.connection.topology_commands import queue_depth
from dmq_core.messaging.consuming.consumers import DirectConsumer
from dmq_core.messaging.consuming.decoding import MessageHeaders
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.retry.delayed import Retry
from dmq_core.messaging.topology.model import Queue
from dmq_core.versions import Version

pytestmark = pytest.mark.thorough

STEP_S = 0.3
PROPERTIES = MessageProperties(
    content_type="application/octet-stream",
    priority=3,
    correlation_id="c-1",
    message_id="m-1",
    type="order",
    headers={"shop": 7},
)

Make = Callable[[Cluster], BrokerConnectionManager]


@pytest.fixture
def manager_of() -> Iterator[Make]:
    """Makes managers for clusters, and closes them at the end."""
    made: list[BrokerConnectionManager] = []

    def make(cluster: Cluster) -> BrokerConnectionManager:
        manager = BrokerConnectionManager(name="dmq retry test")
        for node in cluster.nodes():
            at, user = node.endpoint, cluster.credentials
            manager.register_broker(node.name, at.host, at.amqp_port, username=user.username, password=user.password)
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.close()


@pytest.fixture
def work() -> str:
    """A name for a queue that no test has used."""
    return f"test.retry.{secrets.token_hex(4)}"


class Failing:
    """A handler that fails whatever `fails` says, and remembers when each attempt came and as which."""

    def __init__(self, fails: Callable[[object], bool] = lambda _message: True) -> None:
        self.fails = fails
        self.at: list[float] = []
        self.deliveries: list[Delivery] = []
        self.done: Counter[object] = Counter()

    def __call__(self, message: object, headers: MessageHeaders) -> bool:
        self.at.append(time.monotonic())
        self.deliveries.append(headers.delivery)
        if self.fails(message):
            raise ValueError(f"cannot bear {message}")
        self.done[message] += 1
        return True

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.at)]


def send(manager: BrokerConnectionManager, queue: str, *bodies: bytes, properties: MessageProperties) -> None:
    producer = Publisher(manager.publishing())
    for body in bodies:
        settlement = producer.publish_and_wait(OutgoingMessage("", queue, body, properties), 20)
        assert settlement.outcome is Outcome.CONFIRMED, settlement.reason
    producer.close()


def ready(manager: BrokerConnectionManager, queue: str) -> int:
    connection = manager.consuming()
    try:
        depth = queue_depth(connection, queue, 20)
    finally:
        manager.release(connection)
    return 0 if depth is None else depth.ready


def taken(cluster: Cluster, queue: str) -> tuple[bytes, Any]:
    """The one message in `queue`, with pika's properties."""
    with channel(cluster.nodes()[0].endpoint, cluster.credentials) as ch:
        _method, properties, body = ch.basic_get(queue, auto_ack=True)
        return body, properties


def clean(cluster: Cluster, *queues: str) -> None:
    with channel(cluster.nodes()[0].endpoint, cluster.credentials) as ch:
        for queue in queues:
            ch.queue_delete(queue)


@pytest.mark.parametrize("mode", ["auto", "ladder", "in place"])
def test_a_message_that_always_fails_comes_as_often_as_agreed_ever_later_and_is_parked(
    real_cluster: Cluster, manager_of: Make, work: str, mode: str
) -> None:
    manager, handler = manager_of(real_cluster), Failing()
    retry = Retry((STEP_S, 2 * STEP_S, 3 * STEP_S), mode=mode)
    order = "strict" if mode == "in place" else "none"
    consumer = DirectConsumer(manager, work, retry=retry, order=order)
    consumer.declare_queue(queue_type="quorum")
    consumer.start_consuming(handler)
    send(manager, work, b"\xff\x00 bytes", properties=PROPERTIES)
    await_until(lambda: ready(manager, f"{work}.parked") == 1, 30, "the message is parked")
    assert len(handler.at) == 4
    for gap, delay in zip(handler.gaps, retry.policy.delays, strict=True):
        assert delay - 0.02 <= gap < delay + 1.5
    consumer.stop_consuming()
    assert ready(manager, work) == 0
    body, kept = taken(real_cluster, f"{work}.parked")
    assert body == b"\xff\x00 bytes"
    assert (kept.content_type, kept.priority, kept.correlation_id, kept.message_id, kept.type) == (
        "application/octet-stream", 3, "c-1", "m-1", "order",
    )  # fmt: skip
    told = kept.headers
    assert told["shop"] == 7
    assert (told["x-dmq-attempts"], told["x-dmq-queue"], told["x-dmq-routing-key"]) == (4, work, work)
    assert told["x-dmq-error"].startswith("ValueError: cannot bear")
    assert told["x-dmq-first-failure"] < told["x-dmq-last-failure"]
    rungs = [f"{work}.retry.{round(delay * 1000)}" for delay in retry.policy.delays]
    native = mode == "auto" and manager.broker_version() >= Version(4, 3)
    with_ladder = mode == "ladder" or (mode == "auto" and not native)
    connection = manager.consuming()
    assert [queue_depth(connection, rung) is not None for rung in rungs] == [with_ladder] * 3
    clean(real_cluster, work, f"{work}.parked", *rungs)


@pytest.mark.real
@pytest.mark.docker
def test_a_queue_that_was_there_without_the_arguments_is_served_by_the_ladder(
    docker_cluster: Cluster, manager_of: Make, work: str
) -> None:
    publish(docker_cluster.nodes()[0].endpoint, work, ["old"], "classic")
    manager, handler = manager_of(docker_cluster), Failing()
    consumer = DirectConsumer(manager, work, retry=Retry((STEP_S, 2 * STEP_S)))
    consumer.declare_queue()
    consumer.start_consuming(handler)
    await_until(lambda: ready(manager, f"{work}.parked") == 1, 30, "the message is parked")
    assert len(handler.at) == 3
    assert all(gap >= delay - 0.02 for gap, delay in zip(handler.gaps, (STEP_S, 2 * STEP_S), strict=True))
    consumer.stop_consuming()
    clean(docker_cluster, work, f"{work}.parked", f"{work}.retry.300", f"{work}.retry.600")


def test_while_the_parking_queue_is_full_nothing_is_acknowledged_and_nothing_spins(
    real_cluster: Cluster, manager_of: Make, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []
    whole = Publisher.send

    def counted(self: Publisher, *arguments: object, **options: object) -> object:
        tries.append(time.monotonic())
        return whole(self, *arguments, **options)  # type: ignore[arg-type]

    manager, handler = manager_of(real_cluster), Failing()
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    manager.declare(Queue(f"{work}.parked", "classic", arguments=full))
    send(manager, f"{work}.parked", b"in the way", properties=PROPERTIES)
    consumer = DirectConsumer(manager, work, retry=Retry((STEP_S,), attempts=1))
    consumer.declare_queue(queue_type="quorum")
    monkeypatch.setattr(Publisher, "send", counted)
    send(manager, work, b"refused", properties=PROPERTIES)
    tries.clear()
    consumer.start_consuming(handler)
    await_until(lambda: len(tries) >= 5, 20, "it keeps trying")
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(tries)), "no hot loop"
    assert tries[4] - tries[0] >= 0.7, "pauses grow"
    assert (len(handler.at), consumer.stats.acked) == (1, 0)
    assert handler.deliveries[0].answer is None
    assert taken(real_cluster, f"{work}.parked")[0] == b"in the way"
    await_until(lambda: ready(manager, f"{work}.parked") == 1, 20, "it is parked when there is room")
    assert taken(real_cluster, f"{work}.parked")[0] == b"refused"
    assert len(handler.at) == 1
    consumer.stop_consuming()
    assert ready(manager, work) == 0
    clean(real_cluster, work, f"{work}.parked", f"{work}.retry.300")


def test_a_node_that_is_killed_while_messages_climb_the_ladder_takes_none_with_it(
    real_cluster: Cluster, manager_of: Make, work: str
) -> None:
    manager = manager_of(real_cluster)
    seen: Counter[object] = Counter()
    lock = threading.Lock()

    def twice(message: object) -> bool:
        with lock:
            seen[message] += 1
            return seen[message] <= 2

    handler = Failing(twice)
    consumer = DirectConsumer(manager, work, retry=Retry((STEP_S, 2 * STEP_S, 2 * STEP_S), attempts=9, mode="ladder"))
    consumer.declare_queue(queue_type="quorum")
    consumer.start_consuming(handler)
    bodies = [f"m{n}" for n in range(100)]
    plain = MessageProperties(content_type="text/plain")
    send(manager, work, *(body.encode() for body in bodies[:50]), properties=plain)
    victim = next(str(i.broker) for i in manager.connections if i.role is Role.PUBLISHING)
    real_cluster.act(NodeAction.KILL, victim)
    try:
        for body in bodies[50:]:
            deliver(manager, work, body.encode(), plain)
        await_until(lambda: len(handler.done) == 100, 90, "every message is handled in the end")
    finally:
        real_cluster.act(NodeAction.START, victim)
    assert all(count >= 3 for count in seen.values())
    consumer.stop_consuming()
    await_until(lambda: ready(manager, work) == 0, 30, "nothing is left in the queue")
    assert ready(manager, f"{work}.parked") == 0
    clean(real_cluster, work, f"{work}.parked", f"{work}.retry.300", f"{work}.retry.600")


def deliver(manager: BrokerConnectionManager, queue: str, body: bytes, properties: MessageProperties) -> None:
    """Sends until it is confirmed, whatever dies meanwhile."""
    message = OutgoingMessage("", queue, body, properties)

    def confirmed() -> bool:
        # On RabbitMQ 3 a channel that published while the queue had no leader is refused for ever.
        producer = Publisher(manager.publishing())
        outcome = producer.publish_and_wait(message, 10).outcome
        producer.close()
        return outcome is Outcome.CONFIRMED

    await_until(confirmed, 60, "the message is confirmed")
