"""Nodes come and go on every backend: under load, interrupted, twice at once, and never at the price of a message."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pika
import pytest
from clients import ClusterMaker, await_until, channel, connect, drain, node, publish

from dmq_core.cluster.docker.cluster import DockerCluster
from dmq_core.cluster.local import node as local_node
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.installation import find_installation
from dmq_core.cluster.local.node import places
from dmq_core.cluster.local.state import read_state
from dmq_core.cluster.protocol import Backend, Cluster, NodeAction, NodeState
from dmq_core.cluster.scaling.queue_members import QueueMembers
from dmq_core.errors import InvalidInputError, RefusedError
from dmq_core.management.models import QueueFigures
from dmq_core.testing import ClusterUnderTest

pytestmark = pytest.mark.thorough

SCALER = """
import sys
from dmq_core.cluster.discovery import find_cluster
cluster = find_cluster(sys.argv[1], sys.argv[2])
tell = lambda progress: print(progress.text, flush=True)
cluster.remove_node(sys.argv[3], tell) if len(sys.argv) > 3 else cluster.add_node(tell)
"""


def names(cluster: Cluster) -> list[str]:
    return [info.name for info in cluster.nodes()]


def whole(cluster: Cluster) -> bool:
    return {info.state for info in cluster.nodes()} == {NodeState.RUNNING}


def again(cluster: Cluster) -> Cluster:
    """The cluster as another program finds it."""
    return DockerCluster(cluster.name) if cluster.backend is Backend.DOCKER else LocalCluster(cluster.name)


def queues(cluster: Cluster, but: str = "") -> dict[str, QueueFigures]:
    def run(name: str, tool: str, words: tuple[str, ...], limit_s: float) -> str:
        assert isinstance(cluster, LocalCluster), "only 3.10 needs a tool for this"
        state, installation = read_state(cluster.folder), find_installation()
        assert state is not None
        assert installation is not None
        place = next(place for place in places(cluster.folder, state) if place.node.name == name)
        return local_node.tool(place, state, installation, tool, words, limit_s)

    works = QueueMembers(cluster.nodes, run, cluster.credentials)
    return {queue.name: queue for queue in works.queues(but)}


def online(cluster: Cluster, queue: str, but: str = "") -> set[str]:
    """Where the queue's members are online, as the nodes `but` one tell."""
    return set(queues(cluster, but)[queue].online)


def depth(cluster: Cluster, queue: str) -> int:
    """How many messages there are, those included of which the publisher never heard."""
    with channel(cluster.nodes()[0].endpoint) as ch:
        return int(ch.queue_declare(queue, passive=True).method.message_count)


@contextmanager
def publishing(cluster: Cluster, queue: str) -> Iterator[list[str]]:
    """Publishes one confirmed message after another, to whichever node takes them; gives those that were confirmed."""
    confirmed: list[str] = []
    stop = threading.Event()
    numbers = itertools.count()

    def publish_on(turn: int) -> None:
        infos = cluster.nodes()
        with suppress(pika.exceptions.AMQPError, OSError), channel(infos[turn % len(infos)].endpoint) as ch:
            ch.confirm_delivery()
            while not stop.wait(0.002):
                body = str(next(numbers))
                ch.basic_publish("", queue, body.encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)
                confirmed.append(body)

    def run() -> None:
        for turn in itertools.count():
            if stop.wait(0.05):
                return
            publish_on(turn)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        await_until(lambda: len(confirmed) > 20, 20, "the load runs")
        yield confirmed
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def goes_on(confirmed: list[str]) -> None:
    """Returns once messages are confirmed that were not yet sent."""
    before = len(confirmed)
    await_until(lambda: len(confirmed) > before + 20, 20, "the load goes on")


@contextmanager
def scaling(cluster: Cluster, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Another program that adds a node, or removes the one that `words` name."""
    command = [sys.executable, "-c", SCALER, cluster.name, str(cluster.backend), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate(timeout=30)


def await_words(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    assert any(words in line for line in process.stdout), f"it never said {words!r}"


def test_a_cluster_grows_and_shrinks_under_load_and_keeps_every_message(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(nodes=3)
    cluster.start()
    publish(cluster.nodes()[0].endpoint, "work", ["first"])
    with channel(cluster.nodes()[0].endpoint) as ch:
        ch.queue_declare("past", durable=True, arguments={"x-queue-type": "stream"})
    with publishing(cluster, "work") as confirmed:
        assert cluster.add_node() == "rmq4"
        assert names(cluster) == ["rmq1", "rmq2", "rmq3", "rmq4"]
        assert whole(cluster)
        assert online(cluster, "work") == {"rmq1", "rmq2", "rmq3", "rmq4"}
        assert online(cluster, "past") == {"rmq1", "rmq2", "rmq3", "rmq4"}
        connect(node(cluster, "rmq4").endpoint).close()
        goes_on(confirmed)
        leader = ClusterUnderTest(cluster).leader_of("work")
        gone = node(cluster, leader)
        cluster.remove_node(leader)
        goes_on(confirmed)
    left = sorted({"rmq1", "rmq2", "rmq3", "rmq4"} - {leader})
    assert names(cluster) == names(again(cluster)) == left
    assert online(cluster, "work") == set(left)
    assert online(cluster, "past") == set(left)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(gone.endpoint)
    cluster.stop()
    again(cluster).start()
    assert whole(cluster)
    got = drain(cluster.nodes()[0].endpoint, "work", depth(cluster, "work"))
    assert {"first", *confirmed} <= set(got)
    assert again(cluster).add_node() == leader
    assert online(cluster, "past", leader) == {"rmq1", "rmq2", "rmq3", "rmq4"}


def test_a_node_with_a_classic_queue_stays_unless_it_is_forced_and_the_last_one_stays(
    make_cluster: ClusterMaker,
) -> None:
    cluster = make_cluster(nodes=2)
    cluster.start()
    publish(node(cluster, "rmq2").endpoint, "mail", ["a", "b"], "classic")
    publish(node(cluster, "rmq1").endpoint, "work", ["c"])
    with pytest.raises(RefusedError, match=r"classic queue 'mail' would be lost with rmq2"):
        cluster.remove_node("rmq2")
    assert drain(node(cluster, "rmq2").endpoint, "mail", 2) == ["a", "b"]
    assert online(cluster, "work") == {"rmq1", "rmq2"}
    cluster.remove_node("rmq2", force=True)
    assert names(cluster) == ["rmq1"]
    assert set(queues(cluster)) == {"work"}
    assert drain(node(cluster, "rmq1").endpoint, "work", 1) == ["c"]
    with pytest.raises(RefusedError, match="last node"):
        cluster.remove_node("rmq1")
    with pytest.raises(InvalidInputError, match="rmq2"):
        cluster.remove_node("rmq2")
    cluster.stop()
    cluster.start()
    assert whole(cluster)


def test_a_node_that_is_down_is_removed_and_none_joins_while_one_is(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(nodes=3)
    cluster.start()
    publish(node(cluster, "rmq1").endpoint, "work", ["a"])
    await_until(lambda: online(cluster, "work") == {"rmq1", "rmq2", "rmq3"}, 10, "every member is online")
    cluster.act(NodeAction.KILL, "rmq2")
    with pytest.raises(RefusedError, match="rmq2 is stopped"):
        cluster.add_node()
    with pytest.raises(RefusedError, match="no majority"):
        cluster.remove_node("rmq3")
    cluster.remove_node("rmq2")
    assert names(cluster) == ["rmq1", "rmq3"]
    assert online(cluster, "work") == {"rmq1", "rmq3"}
    assert cluster.add_node() == "rmq2"
    assert online(cluster, "work") == {"rmq1", "rmq2", "rmq3"}
    assert drain(node(cluster, "rmq2").endpoint, "work", 1) == ["a"]


@pytest.mark.parametrize("by_start", [True, False], ids=["by a start", "by the next"])
def test_an_addition_that_was_killed_is_finished(make_cluster: ClusterMaker, by_start: bool) -> None:
    cluster = make_cluster(nodes=1)
    cluster.start()
    publish(node(cluster, "rmq1").endpoint, "work", ["a"])
    with scaling(cluster) as process:
        await_until(lambda: len(names(cluster)) == 2, 30, "the node is in the cluster's definition")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    if by_start:
        again(cluster).start()
    else:
        assert again(cluster).add_node() == "rmq2"
    assert names(cluster) == ["rmq1", "rmq2"]
    assert whole(cluster)
    assert online(cluster, "work") == {"rmq1", "rmq2"}
    assert again(cluster).add_node() == "rmq3"


@pytest.mark.parametrize("by_start", [True, False], ids=["by a start", "by the next"])
def test_a_removal_that_was_killed_is_finished(make_cluster: ClusterMaker, by_start: bool) -> None:
    cluster = make_cluster(nodes=3)
    cluster.start()
    publish(node(cluster, "rmq1").endpoint, "work", ["a"])
    with scaling(cluster, "rmq3") as process:
        await_words(process, "the others forget the node")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    if by_start:
        again(cluster).start()
    else:
        again(cluster).remove_node("rmq3")
    assert names(cluster) == ["rmq1", "rmq2"]
    assert whole(cluster)
    assert online(cluster, "work") == {"rmq1", "rmq2"}
    assert drain(node(cluster, "rmq2").endpoint, "work", 1) == ["a"]
    assert again(cluster).add_node() == "rmq3"
    assert whole(cluster)


def test_two_additions_at_the_same_time_add_two_nodes(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(nodes=1)
    cluster.start()
    with ThreadPoolExecutor(2) as pool:
        added = list(pool.map(lambda c: c.add_node(), [cluster, again(cluster)]))
    assert sorted(added) == ["rmq2", "rmq3"]
    assert names(cluster) == ["rmq1", "rmq2", "rmq3"]
    assert whole(cluster)
