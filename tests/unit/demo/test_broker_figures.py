"""What demos ask a management API: who consumes, who leads, who is connected where; on a cluster in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import NodeAction
from dmq_core.demo.broker_figures import activity, leader, spread
from dmq_core.demo.context import DemoContext
from dmq_core.demo.inbox import Inbox
from dmq_core.management.models import ConnectionFigures, ConsumerFigures, EntityKey
from dmq_core.messaging import ConnectionState, DirectConsumer, DirectProducer, Policy, Queue
from dmq_core.testing.simulation.demo_environment import MemoryDemoEnvironment

KEY = EntityKey("/", "jobs")


@pytest.fixture
def stage() -> Iterator[MemoryDemoEnvironment]:
    with contextlib.closing(MemoryDemoEnvironment()) as made:
        yield made


@pytest.fixture
def context(stage: MemoryDemoEnvironment) -> Iterator[DemoContext]:
    context = DemoContext(stage.environment())
    yield context
    context.close()


def test_a_consumer_is_known_by_the_name_of_its_connection() -> None:
    consumers = [
        ConsumerFigures("/", "jobs", "t1", "c1", active=True),
        ConsumerFigures("/", "jobs", "t2", "c2", active=False),
        ConsumerFigures("/", "other", "t3", "c2"),
    ]
    connections = [ConnectionFigures("c1", client_name="Ann consuming 1"), ConnectionFigures("c2", client_name="Ben")]
    assert activity(consumers, connections, KEY) == {"Ann consuming 1": True, "Ben": False}


def test_a_connection_that_is_not_told_yet_has_no_name() -> None:
    assert activity([ConsumerFigures("/", "jobs", "t1", "c1")], [], KEY) == {"?": True}


def test_nobody_leads_a_queue_that_is_not_there(stage: MemoryDemoEnvironment) -> None:
    assert leader(None, stage.cluster.nodes()) == ""


def test_names_that_begin_alike_are_told_apart(stage: MemoryDemoEnvironment) -> None:
    connections = [ConnectionFigures("c1", "rabbit@rmq2", client_name="a publishing 1")]
    assert spread(connections, "a", stage.cluster.nodes()) == {"rmq1": 0, "rmq2": 1, "rmq3": 0}
    assert not any(spread(connections, "a publish", stage.cluster.nodes()).values())


def test_the_scene_tells_who_is_active_who_leads_and_who_is_where(context: DemoContext) -> None:
    jobs = context.unique_name("jobs")
    context.manager.declare(Queue(jobs, "quorum", arguments={"x-single-active-consumer": True}))
    for name in ("Ann", "Ben"):
        consumer = DirectConsumer(context.client(name, Policy.LEAST_CONNECTIONS), jobs)
        context.on_close(consumer.close)
        consumer.start_consuming(Inbox().handle)
        assert context.wait_consuming(consumer)
    assert context.activity(jobs) == {"Ann": True, "Ben": False}
    assert sum(context.spread("Ann").values()) == 1
    assert context.leader(jobs) == "rmq1"


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (NodeAction.KILL, NodeAction.START),
        (NodeAction.STOP, NodeAction.START),
        (NodeAction.DRAIN, NodeAction.REVIVE),
        (NodeAction.PAUSE, NodeAction.UNPAUSE),
        (NodeAction.ISOLATE, NodeAction.REJOIN),
    ],
)
def test_what_is_done_to_a_node_is_felt_by_clients(
    stage: MemoryDemoEnvironment, context: DemoContext, down: NodeAction, up: NodeAction
) -> None:
    jobs = context.unique_name("jobs")
    context.manager.declare(Queue(jobs, "quorum"))
    assert context.leader(jobs) == "rmq1"
    stage.cluster.act(down, "rmq1")
    assert context.wait_until(lambda: context.leader(jobs) not in ("", "rmq1"))
    assert context.wait_until(lambda: context.ready(jobs) == 0)
    stage.cluster.act(up, "rmq1")
    stage.cluster.act(NodeAction.KILL, "rmq2")
    assert context.wait_until(lambda: context.leader(jobs) in ("rmq1", "rmq3")), "two of three can elect one"


def test_an_alarm_blocks_publishers_until_it_is_over(stage: MemoryDemoEnvironment, context: DemoContext) -> None:
    jobs = context.unique_name("jobs")
    context.manager.declare(Queue(jobs, "quorum"))
    stage.cluster.inject(Fault(FaultKind.DISK_ALARM, "rmq2"))
    with DirectProducer(context.manager) as producer:
        handle = producer.publish(jobs, "a job")
        assert context.wait_until(lambda: context.manager.state is ConnectionState.BLOCKED)
        stage.cluster.inject(Fault(FaultKind.CLEAR_DISK_ALARM, "rmq2"))
        assert handle.result(10).outcome == "confirmed"
