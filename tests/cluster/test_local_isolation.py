"""What a local node does that is cut off from its peers, and how it comes back, with the RabbitMQ installed here."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pika
import pytest
from clients import await_until, channel, connect, drain, node, publish
from pika.adapters.blocking_connection import BlockingChannel

from dmq_core.cluster import readiness
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.installation import find_installation
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeState
from dmq_core.progress import Progress

pytestmark = [
    pytest.mark.real,
    pytest.mark.local,
    pytest.mark.skipif(find_installation() is None, reason="rabbitmq-server is not installed"),
]

NOTICED_WITHIN_S = 15.0  # about six, on a machine that has nothing else to do
CERTAINLY_UNNOTICED_S = 3.0
PERSISTENT = pika.BasicProperties(delivery_mode=2)
STARTER = """
import sys
from dmq_core.cluster.local.cluster import LocalCluster
cluster = LocalCluster(sys.argv[1])
print(*(n.state for n in cluster.nodes()), flush=True)
cluster.start()
print(*(n.state for n in cluster.nodes()), flush=True)
"""


def states(cluster: Cluster) -> list[NodeState]:
    return [n.state for n in cluster.nodes()]


def seen_by(cluster: Cluster, name: str) -> set[str]:
    """The nodes, by our names, that this one sees running; empty while it does not answer."""
    seen = readiness.running_nodes(node(cluster, name).endpoint, cluster.credentials, timeout_s=1.0)
    return {n.name for n in cluster.nodes() if n.erlang_name in (seen or ())}


def partitioned(cluster: Cluster) -> bool:
    return any(readiness.partitioned(n.endpoint, cluster.credentials) for n in cluster.nodes())


def await_noticed(cluster: Cluster, lonely: str) -> None:
    others = {n.name for n in cluster.nodes()} - {lonely}
    await_until(
        lambda: all(seen_by(cluster, other) == others for other in others), NOTICED_WITHIN_S, f"{lonely} is missed"
    )


def alone(cluster: Cluster, name: str) -> bool:
    return not seen_by(cluster, name) - {name}


def note_time(times: list[float], _progress: Progress) -> None:
    times.append(time.monotonic())


def declare_led_by(cluster: Cluster, leader: str, queue: str) -> None:
    with channel(node(cluster, leader).endpoint) as ch:
        where = {"x-queue-type": "quorum", "x-queue-leader-locator": "client-local"}
        ch.queue_declare(queue, durable=True, arguments=where)


def confirmed(ch: BlockingChannel, queue: str, body: str) -> str:
    ch.basic_publish("", queue, body.encode(), PERSISTENT, mandatory=True)
    return body


def test_a_leader_that_is_cut_off_serves_on_while_the_others_elect_and_loses_nothing_that_was_confirmed(
    local_cluster: Cluster,
) -> None:
    declare_led_by(local_cluster, "rmq2", "led")
    with channel(node(local_cluster, "rmq1").endpoint) as ch:
        ch.confirm_delivery()
        sent = [confirmed(ch, "led", f"before {i}") for i in range(100)]
        local_cluster.act(NodeAction.ISOLATE, "rmq2")
        connect(node(local_cluster, "rmq2").endpoint).close()
        assert states(LocalCluster(local_cluster.name)) == [NodeState.RUNNING, NodeState.ISOLATED, NodeState.RUNNING]
        # These wait for the new leader.
        sent += [confirmed(ch, "led", f"during {i}") for i in range(100)]
        await_noticed(local_cluster, "rmq2")
        local_cluster.act(NodeAction.REJOIN, "rmq2")
        sent += [confirmed(ch, "led", f"after {i}") for i in range(100)]
    assert set(states(local_cluster)) == {NodeState.RUNNING}
    assert not partitioned(local_cluster)
    assert drain(node(local_cluster, "rmq2").endpoint, "led", len(sent)) == sent


@pytest.mark.thorough
def test_a_cut_shorter_than_the_others_wait_goes_unnoticed(local_cluster: Cluster) -> None:
    log = Path(LocalCluster(local_cluster.name).folder, "rmq1", "log", "rmq1@localhost.log")
    for _ in range(5):
        before, began = log.stat().st_size, time.monotonic()
        mended_at: list[float] = []
        local_cluster.act(NodeAction.ISOLATE, "rmq3")
        local_cluster.act(NodeAction.REJOIN, "rmq3", partial(note_time, mended_at))
        if mended_at[0] - began < CERTAINLY_UNNOTICED_S:
            break
    assert mended_at[0] - began < CERTAINLY_UNNOTICED_S, "this machine is too busy to tell"
    assert "rmq3@localhost down" not in log.read_bytes()[before:].decode(errors="replace")
    assert seen_by(local_cluster, "rmq1") == {"rmq1", "rmq2", "rmq3"}


@pytest.mark.thorough
def test_a_start_by_another_program_heals_a_cluster_that_lost_its_majority(local_cluster: Cluster) -> None:
    bodies = [str(i) for i in range(50)]
    publish(node(local_cluster, "rmq1").endpoint, "kept", bodies)
    for lonely in ("rmq1", "rmq2"):
        local_cluster.act(NodeAction.ISOLATE, lonely)
    await_until(partial(alone, local_cluster, "rmq3"), NOTICED_WITHIN_S, "rmq3 misses the others")
    told = subprocess.run(
        [sys.executable, "-c", STARTER, local_cluster.name], capture_output=True, text=True, timeout=120, check=True
    ).stdout.splitlines()
    assert told[0].startswith("isolated isolated ")
    assert told[1] == "running running running"
    assert not partitioned(local_cluster)
    assert drain(node(local_cluster, "rmq3").endpoint, "kept", len(bodies)) == bodies


@pytest.mark.thorough
def test_every_node_can_be_cut_off_and_none_reaches_another(local_cluster: Cluster) -> None:
    names = [n.name for n in local_cluster.nodes()]
    for name in names:
        local_cluster.act(NodeAction.ISOLATE, name)
    for name in names:
        await_until(partial(alone, local_cluster, name), 15.0, f"{name} is alone")
    heard: list[Progress] = []
    local_cluster.act(NodeAction.REJOIN, names[0], heard.append)
    assert "majority" in heard[-1].text
    for name in names[1:]:
        local_cluster.act(NodeAction.REJOIN, name)
    assert all(seen_by(local_cluster, name) == set(names) for name in names)


@pytest.mark.thorough
def test_a_node_that_was_cut_off_can_be_ended_and_started_and_another_restarts_without_it(
    local_cluster: Cluster,
) -> None:
    for end in (NodeAction.KILL, NodeAction.STOP):
        local_cluster.act(NodeAction.ISOLATE, "rmq2")
        local_cluster.act(NodeAction.RESTART, "rmq1")
        assert states(local_cluster) == [NodeState.RUNNING, NodeState.ISOLATED, NodeState.RUNNING]
        local_cluster.act(end, "rmq2")
        local_cluster.act(NodeAction.START, "rmq2")
        assert seen_by(local_cluster, "rmq2") == {"rmq1", "rmq2", "rmq3"}


@pytest.mark.thorough
@pytest.mark.parametrize("noticed", [False, True])
def test_a_start_makes_a_node_serve_that_was_drained_and_cut_off(local_cluster: Cluster, noticed: bool) -> None:
    local_cluster.act(NodeAction.DRAIN, "rmq2")
    local_cluster.act(NodeAction.ISOLATE, "rmq2")
    if noticed:
        await_noticed(local_cluster, "rmq2")
    heard: list[Progress] = []
    local_cluster.start(heard.append)
    assert set(states(local_cluster)) == {NodeState.RUNNING}
    assert not any("stopped and started" in p.text for p in heard)
    connect(node(local_cluster, "rmq2").endpoint).close()


@pytest.mark.thorough
@pytest.mark.parametrize("held_s", [4.0, 4.5, 5.0, 5.5, 6.0, 7.0])
def test_a_rejoin_at_the_very_moment_of_notice_ends_whole(local_cluster: Cluster, held_s: float) -> None:
    """The two ends of a link notice at different moments, and Mnesia takes some of them ill."""
    bodies = [str(i) for i in range(50)]
    publish(node(local_cluster, "rmq3").endpoint, "kept", bodies)
    local_cluster.act(NodeAction.ISOLATE, "rmq3")
    time.sleep(held_s)  # the moment is the point, whatever can be seen by then
    local_cluster.act(NodeAction.REJOIN, "rmq3")
    assert set(states(local_cluster)) == {NodeState.RUNNING}
    assert not partitioned(local_cluster)
    assert all(seen_by(local_cluster, n.name) == {"rmq1", "rmq2", "rmq3"} for n in local_cluster.nodes())
    assert drain(node(local_cluster, "rmq1").endpoint, "kept", len(bodies)) == bodies
