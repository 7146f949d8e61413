"""Producers of the four types on real nodes: every message ends in exactly one way, and the way is the true one."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from clients import await_until, drain, rabbitmqctl
from conftest import ON_DOCKER

from dmq_core.cluster.protocol import Backend, Cluster, NodeAction
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import InvalidInputError, MessagingError, OperationTimeoutError
from dmq_core.messaging import DirectProducer, FanoutProducer, HeadersProducer, TopicProducer
from dmq_core.messaging.connection.states import ConnectionState
from dmq_core.messaging.connection.topology_commands import delete_queue, queue_depth
from dmq_core.messaging.messages import Outcome
from dmq_core.messaging.publishing.aio import AsyncProducer
from dmq_core.messaging.publishing.publisher import ProducerLimits, PublishFuture
from dmq_core.messaging.topology.model import Binding, Exchange, Queue

ON_LOCAL_TOO = pytest.param(
    Backend.LOCAL, marks=(pytest.mark.real, pytest.mark.local, pytest.mark.thorough), id="local"
)


# RabbitMQ 3.10 refuses a message while the quorum queue that it is for has no leader; later ones wait.
REFUSED_WITHOUT_LEADER = {Backend.DOCKER: (), Backend.LOCAL: (Outcome.NACKED,)}


def flows_again(handles: list[PublishFuture], deadline: float) -> bool:
    """Whether one of the latest messages is confirmed; fails if that is not so by then."""
    assert time.monotonic() < deadline, "nothing is confirmed any more"
    return any(h.done() and h.result().outcome is Outcome.CONFIRMED for h in handles[-500:])


def ready(manager: BrokerConnectionManager, queue: str) -> int:
    """How many messages wait in a queue that is there."""
    depth = queue_depth(manager.publishing(), queue, 20)
    assert depth is not None
    return depth.ready


@pytest.fixture(params=[ON_DOCKER, ON_LOCAL_TOO])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every version that can be had: those in Docker, and the one that is installed."""
    chosen: Backend = request.param
    return chosen


@pytest.fixture
def manager(real_cluster: Cluster) -> Iterator[BrokerConnectionManager]:
    with BrokerConnectionManager() as made:
        for node in real_cluster.nodes():
            made.register_broker(node.name, node.endpoint.host, node.endpoint.amqp_port)
        yield made


@pytest.fixture
def queue(manager: BrokerConnectionManager) -> Iterator[str]:
    name = f"test.{secrets.token_hex(4)}"
    manager.declare(Queue(name, "quorum"))
    yield name
    manager.forget(Queue(name, "quorum"))
    delete_queue(manager.publishing(), name)


def test_ten_thousand_interleaved_messages_with_and_without_a_route_are_told_apart_exactly(
    manager: BrokerConnectionManager, queue: str
) -> None:
    with DirectProducer(connection_manager=manager) as producer:
        handles = [producer.publish(queue if i % 2 else f"{queue}.nobody", f"{i}") for i in range(10_000)]
        producer.flush(60)
        outcomes = [handle.result(0).outcome for handle in handles]
    assert outcomes[1::2] == [Outcome.CONFIRMED] * 5000
    assert outcomes[::2] == [Outcome.RETURNED] * 5000
    depth = queue_depth(manager.publishing(), queue)
    assert depth is not None
    assert depth.ready == 5000


def test_each_type_of_exchange_routes_by_its_own_rule(
    manager: BrokerConnectionManager, queue: str, real_cluster: Cluster
) -> None:
    manager.declare(
        *(Exchange(f"{queue}.{kind}", kind, auto_delete=True) for kind in ("direct", "topic", "fanout", "headers")),
        Binding(f"{queue}.direct", queue, "red"),
        Binding(f"{queue}.topic", queue, "log.*.error"),
        Binding(f"{queue}.fanout", queue),
        Binding(f"{queue}.headers", queue, arguments={"x-match": "all", "colour": "red"}),
    )
    settled = [
        DirectProducer(manager, f"{queue}.direct").publish_and_wait("red", "direct"),
        DirectProducer(manager, f"{queue}.direct").publish_and_wait("blue", "never"),
        TopicProducer(manager, f"{queue}.topic").publish_and_wait("log.disk.error", "topic"),
        TopicProducer(manager, f"{queue}.topic").publish_and_wait("log.disk.notice", "never"),
        FanoutProducer(manager, f"{queue}.fanout").publish_and_wait("fanout"),
        HeadersProducer(manager, f"{queue}.headers").publish_and_wait({"colour": "red"}, "headers"),
        HeadersProducer(manager, f"{queue}.headers").publish_and_wait({"colour": "blue"}, "never"),
    ]
    taken, returned = Outcome.CONFIRMED, Outcome.RETURNED
    assert [s.outcome for s in settled] == [taken, returned, taken, returned, taken, taken, returned]
    assert sorted(drain(real_cluster.nodes()[0].endpoint, queue, 4)) == ["direct", "fanout", "headers", "topic"]


def test_a_producer_makes_its_exchange_and_refuses_one_of_another_type(manager: BrokerConnectionManager) -> None:
    name = f"test.{secrets.token_hex(4)}"
    topic = TopicProducer(manager, name)
    topic.declare_exchange(auto_delete=True)
    assert topic.publish_and_wait("a.key", "x").outcome is Outcome.RETURNED
    with pytest.raises(MessagingError, match="inequivalent arg 'type'"):
        DirectProducer(manager, name).publish("a.key", "x")
    with pytest.raises(InvalidInputError, match="exchange_name"):
        TopicProducer(manager)


def test_asyncio_awaits_outcomes_and_its_loop_is_never_held_up(manager: BrokerConnectionManager, queue: str) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)

    async def main() -> Counter[Outcome]:
        watching = asyncio.create_task(watch())
        # Less room than messages, so that publishing has to wait for some of them.
        producer = DirectProducer(connection_manager=manager, limits=ProducerLimits(messages=300))
        async with AsyncProducer(producer) as publishing:
            settled = await asyncio.gather(*(publishing.publish(queue, f"{i}") for i in range(3000)))
            with pytest.raises(InvalidInputError):
                await publishing.publish("k" * 300, "x")
        watching.cancel()
        return Counter(s.outcome for s in settled)

    assert asyncio.run(main()) == {Outcome.CONFIRMED: 3000}
    assert longest < 1.0


def test_an_alarm_blocks_publishers_and_its_end_releases_them_with_nothing_lost(
    real_cluster: Cluster, manager: BrokerConnectionManager, queue: str
) -> None:
    def watermark(fraction: str) -> None:
        rabbitmqctl(real_cluster, "rmq3", "set_vm_memory_high_watermark", fraction)

    with DirectProducer(
        connection_manager=manager, limits=ProducerLimits(messages=500, capacity_timeout_s=0.2)
    ) as producer:
        assert producer.publish_and_wait(queue, "before").outcome is Outcome.CONFIRMED
        watermark("0.00001")
        try:
            handles = [producer.publish(queue, "during")]
            # The broker blocks those who publish, once it sees them do it.
            await_until(lambda: _publishes_until_blocked(producer, queue, handles, manager), 20, "it blocks")
            waiting = [producer.publish(queue, "waiting") for _ in range(100)]
            with pytest.raises(OperationTimeoutError):
                producer.flush(0.5)
            assert all(not handle.done() for handle in waiting)
        finally:
            watermark("0.6")
        producer.flush(30)
        assert {h.result(0).outcome for h in handles + waiting} == {Outcome.CONFIRMED}
        assert manager.state is ConnectionState.OPEN


def _publishes_until_blocked(
    producer: DirectProducer, queue: str, handles: list[PublishFuture], manager: BrokerConnectionManager
) -> bool:
    handles.append(producer.publish(queue, "during"))
    return manager.state is ConnectionState.BLOCKED


@pytest.mark.parametrize(
    "action",
    [
        NodeAction.KILL,
        pytest.param(NodeAction.STOP, marks=pytest.mark.thorough),
        pytest.param(NodeAction.PAUSE, marks=pytest.mark.thorough),
        pytest.param(NodeAction.DRAIN, marks=pytest.mark.thorough),
    ],
)
def test_what_was_confirmed_under_load_is_there_after_its_node_is_gone(
    real_cluster: Cluster, manager: BrokerConnectionManager, queue: str, action: NodeAction
) -> None:
    handles: list[PublishFuture] = []
    with DirectProducer(connection_manager=manager) as producer:
        acting = threading.Thread(target=lambda: real_cluster.act(action, "rmq1"), daemon=True)
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < 4 or not flows_again(handles, began + 30):
            if number == 500:
                acting.start()
            handles.append(producer.publish(queue, f"{number}"))
            number += 1
            if number % 20 == 0:
                threading.Event().wait(0.02)
        producer.flush(30)
        acting.join(60)
    outcomes = Counter(handle.result(0).outcome for handle in handles)
    assert set(outcomes) <= {Outcome.CONFIRMED, Outcome.UNKNOWN, *REFUSED_WITHOUT_LEADER[real_cluster.backend]}
    confirmed = {handle.body.decode() for handle in handles if handle.result(0).outcome is Outcome.CONFIRMED}
    real_cluster.start()
    await_until(lambda: ready(manager, queue) >= len(confirmed), 60, "everything that was confirmed is counted")
    there = set(drain(real_cluster.nodes()[1].endpoint, queue, ready(manager, queue)))
    assert confirmed <= there
    assert there <= {handle.body.decode() for handle in handles}
    assert any(int(body) >= 500 for body in confirmed), "some were published after the node had gone"


def test_with_republish_nothing_stays_unknown_when_the_node_is_killed(
    real_cluster: Cluster, manager: BrokerConnectionManager, queue: str
) -> None:
    with DirectProducer(connection_manager=manager, limits=ProducerLimits(republish=True)) as producer:
        producer.publish_and_wait(queue, "first", timeout_s=20)
        handles = [producer.publish(queue, f"{i}") for i in range(2000)]
        real_cluster.act(NodeAction.KILL, "rmq1")
        handles += [producer.publish(queue, f"{i}") for i in range(2000, 2500)]
        producer.flush(30)
        outcomes = {handle.result(0).outcome for handle in handles}
        assert outcomes <= {Outcome.CONFIRMED, *REFUSED_WITHOUT_LEADER[real_cluster.backend]}
