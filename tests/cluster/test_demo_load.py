"""The demo load on real nodes: whatever is killed, nothing that was confirmed is lost, and the story is told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from clients import await_until, node

from dmq_core.cluster.base import Cluster, Credentials, NodeAction, NodeEndpoint, NodeInfo, NodeState
from dmq_core.messaging.linking.connection import Connection
from dmq_core.messaging.topology import queue_depth
from dmq_core.observe.events import Event
from dmq_core.proof.account import LoadAccount
from dmq_core.proof.workload import DemoLoad, LoadSettings

pytestmark = [pytest.mark.real, pytest.mark.docker]

Begin = Callable[..., tuple[DemoLoad, list[Event]]]


@pytest.fixture
def begin(docker_cluster: Cluster) -> Iterator[Begin]:
    """Begins loads, and stops them at the end."""
    loads: list[DemoLoad] = []

    def make(consumer_at: str | None = None, rate: float = 200.0) -> tuple[DemoLoad, list[Event]]:
        events: list[Event] = []
        leader = None if consumer_at is None else node(docker_cluster, consumer_at).endpoint
        settings = LoadSettings(rate=rate, queue=f"test.load.{os.getpid()}.{len(loads)}")
        load = DemoLoad(docker_cluster.nodes(), docker_cluster.credentials, events.append, settings, lambda: leader)
        loads.append(load)
        await_until(lambda: load.account().delivered > 100, 60, "the load flows")
        return load, events

    yield make
    for load in loads:
        load.stop()


def kinds(events: list[Event]) -> set[str]:
    return {event.kind for event in events}


def flows_again(load: DemoLoad) -> None:
    reached = load.account().delivered
    await_until(lambda: load.account().delivered > reached + 100, 90, "messages flow again")


def assert_balanced(account: LoadAccount) -> None:
    settled = account.confirmed + account.nacked + account.returned + account.unknown + account.not_sent
    assert account.attempted == settled + account.outstanding


def test_an_undisturbed_load_accounts_for_all_and_leaves_nothing(docker_cluster: Cluster, begin: Begin) -> None:
    load, events = begin()
    running = load.account()
    assert running.running
    assert running.publisher_at != running.consumer_at
    assert {"publisher_connected", "consumer_connected"} <= kinds(events)
    await_until(lambda: max(load.account().confirm_history[-6:]) > 50, 20, "the chart shows the rate")
    final = load.stop()
    assert not final.running
    assert final.attempted == final.confirmed == final.delivered
    assert (final.lost, final.in_flight, final.outstanding, final.duplicates) == (0, 0, 0, 0)
    assert load.stop() == final
    assert load.account() == final
    connection = Connection([n.endpoint for n in docker_cluster.nodes()], docker_cluster.credentials, "dmq test")
    assert queue_depth(connection, final.queue) is None, "the load made its queue, so it removes it"
    connection.close()


def test_a_kill_of_the_consumers_node_redelivers_and_loses_nothing(docker_cluster: Cluster, begin: Begin) -> None:
    load, events = begin(consumer_at="rmq2")
    assert load.account().consumer_at == "rmq2"
    docker_cluster.act(NodeAction.KILL, "rmq2")
    await_until(lambda: load.account().consumer_at not in (None, "rmq2"), 30, "the consumer is elsewhere")
    flows_again(load)
    await_until(lambda: "redelivered" in kinds(events), 90, "redeliveries are told")
    final = load.stop()
    assert_balanced(final)
    assert final.lost == 0
    assert final.in_flight == 0
    assert final.redelivered > 0
    assert {"consumer_lost", "consumer_resumed"} <= kinds(events)
    assert any(e.text.startswith("consumer lost rmq2") for e in events)


@pytest.mark.parametrize(
    ("action", "undo"),
    [
        pytest.param(NodeAction.STOP, NodeAction.START, marks=pytest.mark.thorough),
        (NodeAction.PAUSE, NodeAction.UNPAUSE),
    ],
)
def test_the_publishers_node_may_stop_or_freeze(
    docker_cluster: Cluster, begin: Begin, action: NodeAction, undo: NodeAction
) -> None:
    load, events = begin(consumer_at="rmq1")
    home = load.account().publisher_at
    assert home is not None
    docker_cluster.act(action, home)
    await_until(lambda: load.account().publisher_at not in (None, home), 40, "the publisher is elsewhere")
    flows_again(load)
    docker_cluster.act(undo, home)
    final = load.stop()
    assert_balanced(final)
    assert final.lost == 0
    assert {"publisher_lost", "publisher_resumed", "first_confirm"} <= kinds(events)
    assert final.longest_confirm_gap_s > 0


@pytest.mark.thorough
def test_the_load_survives_the_whole_cluster_and_goes_on_when_it_is_back(docker_cluster: Cluster, begin: Begin) -> None:
    load, _ = begin()
    docker_cluster.stop()
    await_until(lambda: load.account().publisher_at is None, 30, "nobody is there")
    await_until(lambda: load.account().outstanding >= 200, 30, "messages wait")
    # The bound on what waits is twice the rate; more is not taken on however long it lasts.
    threading.Event().wait(3.0)
    assert load.account().outstanding <= 400
    docker_cluster.start()
    flows_again(load)
    final = load.stop()
    assert_balanced(final)
    assert final.lost == 0


def test_a_load_that_cannot_begin_says_why_and_stops_at_once() -> None:
    events: list[Event] = []
    nobody = NodeInfo("rmq1", "rabbit@rmq1", NodeState.STOPPED, NodeEndpoint("127.0.0.1", 9, None))
    load = DemoLoad([nobody], Credentials(), events.append)
    final = load.stop()
    assert not final.running
    assert final.attempted == 0
