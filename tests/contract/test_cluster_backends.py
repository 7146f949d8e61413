"""What every backend that runs nodes promises; the same tests over Docker and local processes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pika
import pytest
from clients import ClusterMaker, await_until, channel, connect, drain, mostly_on_docker, mostly_on_local, node, publish

from dmq_core.cluster.docker.cluster import DockerCluster
from dmq_core.cluster.docker.engine import connect as connect_engine
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.node import CLUSTER_MARK
from dmq_core.cluster.protocol import Backend, Cluster, NodeAction, NodeChange, NodeState
from dmq_core.endpoints import Credentials
from dmq_core.errors import ClusterNotFoundError, DmqError, InvalidInputError
from dmq_core.proof.run.broker_counters import parse_counters
from dmq_core.state_directory import state_folder
from dmq_core.testing.pytest_support.cluster_under_test import ClusterUnderTest

NODES = ("rmq1", "rmq2", "rmq3")
LONGER_THAN_NET_TICKTIME_S = 8.0


@contextmanager
def watching(cluster: Cluster) -> Iterator[list[NodeChange]]:
    """Collects what the backend pushes."""
    heard: list[NodeChange] = []
    stop = threading.Event()
    thread = threading.Thread(target=_listen, args=(cluster, stop, heard), daemon=True)
    thread.start()
    time.sleep(0.5)  # nothing tells that the engine listens; a change before that is not pushed
    yield heard
    stop.set()
    thread.join(5.0)
    assert not thread.is_alive(), "watch goes on after it was told to stop"


def _listen(cluster: Cluster, stop: threading.Event, heard: list[NodeChange]) -> None:
    for change in cluster.watch(stop):
        heard.append(change)  # noqa: PERF402  # the test reads the list while it grows


def states(cluster: Cluster) -> dict[str, NodeState]:
    return {n.name: n.state for n in cluster.nodes()}


def reopened(name: str, backend: Backend) -> Cluster:
    """The cluster as another program finds it."""
    return DockerCluster(name) if backend is Backend.DOCKER else LocalCluster(name)


def listens(port: int | None) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return port is not None and probe.connect_ex(("127.0.0.1", port)) == 0


def remains(cluster: Cluster) -> list[str]:
    """Everything of a cluster that is still here, found without asking the cluster itself."""
    folders = [str(p) for p in state_folder().rglob(cluster.name)]
    if cluster.backend is Backend.LOCAL:
        mine = [str(p.pid) for p, folder in processes.find(CLUSTER_MARK).items() if folder.endswith(cluster.name)]
        return folders + mine
    engine = connect_engine()
    label = f"dmq.cluster={cluster.name}"
    things = [c.name for c in engine.containers(label)] + [n.name for n in engine.networks(label)]
    return folders + things + [v.name for v in engine.volumes(label)]


def test_a_started_cluster_has_running_nodes_on_loopback(real_cluster: Cluster) -> None:
    nodes = real_cluster.nodes()
    assert tuple(n.name for n in nodes) == NODES
    assert {n.state for n in nodes} == {NodeState.RUNNING}
    assert {n.endpoint.host for n in nodes} == {"127.0.0.1"}
    assert len({p for n in nodes for p in (n.endpoint.amqp_port, n.endpoint.management_port)}) == 6
    assert len({n.erlang_name for n in nodes}) == 3
    for each in nodes:
        connect(each.endpoint).close()


def test_asking_for_the_nodes_is_quick(real_cluster: Cluster) -> None:
    def seconds() -> float:
        began = time.monotonic()
        real_cluster.nodes()
        return time.monotonic() - began

    assert min(seconds() for _ in range(5)) < 0.3


def test_a_second_start_changes_nothing(real_cluster: Cluster) -> None:
    before = real_cluster.nodes()
    connections = [connect(n.endpoint) for n in before]
    with watching(real_cluster) as heard:
        real_cluster.start()
    assert real_cluster.nodes() == before
    assert heard == []
    for connection in connections:
        connection.process_data_events(0.1)
        assert connection.is_open
        connection.close()


def test_a_killed_node_is_stopped_and_a_start_brings_it_back(real_cluster: Cluster) -> None:
    with watching(real_cluster) as heard:
        killed_at = time.time()
        real_cluster.act(NodeAction.KILL, "rmq2")
        assert states(real_cluster) == {
            "rmq1": NodeState.RUNNING,
            "rmq2": NodeState.STOPPED,
            "rmq3": NodeState.RUNNING,
        }
        await_until(lambda: bool(heard), 1.0, "the kill is pushed")
        assert (heard[0].node, heard[0].state) == ("rmq2", NodeState.STOPPED)
        assert abs(heard[0].at - killed_at) < 1.0
        assert not listens(node(real_cluster, "rmq2").endpoint.amqp_port)
        assert "rabbit" in real_cluster.logs("rmq2", 500).lower()
        assert len(real_cluster.logs("rmq2", 5).splitlines()) == 5

        real_cluster.act(NodeAction.KILL, "rmq2")
        real_cluster.act(NodeAction.STOP, "rmq2")
        real_cluster.act(NodeAction.START, "rmq2")
        assert states(real_cluster)["rmq2"] is NodeState.RUNNING
        connect(node(real_cluster, "rmq2").endpoint).close()
        await_until(lambda: heard[-1].state is NodeState.RUNNING, 2.0, "the start is pushed")
        assert {c.node for c in heard} == {"rmq2"}


@mostly_on_local
def test_a_restart_is_a_new_process_on_the_same_ports(real_cluster: Cluster) -> None:
    before = node(real_cluster, "rmq1")
    connection = connect(before.endpoint)
    real_cluster.act(NodeAction.RESTART, "rmq1")
    assert node(real_cluster, "rmq1") == before
    with pytest.raises(pika.exceptions.AMQPError):
        connection.process_data_events(5)
    connect(before.endpoint).close()


def test_a_paused_node_goes_on_where_it_was(real_cluster: Cluster) -> None:
    before = node(real_cluster, "rmq2")
    with channel(before.endpoint) as ch:
        ch.queue_declare("mine", exclusive=True)
        real_cluster.act(NodeAction.PAUSE, "rmq2")
        assert states(real_cluster)["rmq2"] is NodeState.PAUSED
        real_cluster.act(NodeAction.PAUSE, "rmq2")
        real_cluster.act(NodeAction.UNPAUSE, "rmq2")
        assert states(real_cluster)["rmq2"] is NodeState.RUNNING
        assert ch.queue_declare("mine", passive=True).method.message_count == 0


@mostly_on_docker
def test_an_isolated_node_says_so_to_every_program_serves_clients_and_is_back_when_it_rejoins(
    real_cluster: Cluster, backend: Backend
) -> None:
    before = real_cluster.nodes()
    publish(before[1].endpoint, "around-cut", ["before"])
    real_cluster.act(NodeAction.ISOLATE, "rmq2")
    assert states(reopened(real_cluster.name, backend)) == {
        "rmq1": NodeState.RUNNING,
        "rmq2": NodeState.ISOLATED,
        "rmq3": NodeState.RUNNING,
    }
    connect(before[1].endpoint).close()
    real_cluster.act(NodeAction.REJOIN, "rmq2")
    assert real_cluster.nodes() == before
    publish(before[1].endpoint, "around-cut", ["after"])
    assert drain(before[2].endpoint, "around-cut", 2) == ["before", "after"]


@mostly_on_local
def test_a_pause_that_the_others_noticed_heals_when_it_ends(real_cluster: Cluster) -> None:
    real_cluster.act(NodeAction.PAUSE, "rmq1")
    time.sleep(LONGER_THAN_NET_TICKTIME_S)
    real_cluster.act(NodeAction.UNPAUSE, "rmq1")
    assert set(states(real_cluster).values()) == {NodeState.RUNNING}
    publish(node(real_cluster, "rmq1").endpoint, "after-pause", ["a", "b"])
    assert drain(node(real_cluster, "rmq3").endpoint, "after-pause", 2) == ["a", "b"]


@pytest.mark.thorough
def test_a_paused_node_can_be_taken_down_and_a_start_completes_what_is_half_up(real_cluster: Cluster) -> None:
    real_cluster.act(NodeAction.PAUSE, "rmq2")
    real_cluster.act(NodeAction.STOP, "rmq2")
    real_cluster.act(NodeAction.PAUSE, "rmq3")
    real_cluster.act(NodeAction.KILL, "rmq3")
    real_cluster.act(NodeAction.PAUSE, "rmq1")
    assert states(real_cluster) == {
        "rmq1": NodeState.PAUSED,
        "rmq2": NodeState.STOPPED,
        "rmq3": NodeState.STOPPED,
    }
    real_cluster.start()
    assert set(states(real_cluster).values()) == {NodeState.RUNNING}


@mostly_on_docker
def test_persistent_messages_survive_a_full_stop_and_start(real_cluster: Cluster) -> None:
    bodies = [str(i) for i in range(50)]
    before = real_cluster.nodes()
    for kind in ("quorum", "classic"):
        publish(before[0].endpoint, f"kept-{kind}", bodies, kind)
    real_cluster.stop()
    assert set(states(real_cluster).values()) == {NodeState.STOPPED}
    assert not any(listens(n.endpoint.amqp_port) for n in before)
    assert all("SIGTERM received" in real_cluster.logs(n, 300) for n in NODES)
    real_cluster.start()
    assert real_cluster.nodes() == before
    for kind in ("quorum", "classic"):
        assert drain(before[1].endpoint, f"kept-{kind}", len(bodies)) == bodies


@pytest.mark.thorough
def test_confirmed_messages_survive_the_death_of_every_node_at_once(real_cluster: Cluster) -> None:
    bodies = [str(i) for i in range(100)]
    publish(node(real_cluster, "rmq2").endpoint, "survivors", bodies)
    # RabbitMQ writes where a new quorum queue's members are only after half a second, and nothing tells when it has:
    # killed everywhere before that, it starts them empty.
    time.sleep(2.0)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: real_cluster.act(NodeAction.KILL, n), NODES))
    assert set(states(real_cluster).values()) == {NodeState.STOPPED}
    real_cluster.start()
    assert drain(node(real_cluster, "rmq3").endpoint, "survivors", len(bodies)) == bodies


@mostly_on_docker
def test_a_drained_node_takes_no_clients_and_is_back_when_revived(real_cluster: Cluster) -> None:
    endpoint = node(real_cluster, "rmq2").endpoint
    real_cluster.act(NodeAction.DRAIN, "rmq2")
    assert states(real_cluster) == {"rmq1": NodeState.RUNNING, "rmq2": NodeState.DRAINING, "rmq3": NodeState.RUNNING}
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(endpoint)
    real_cluster.act(NodeAction.DRAIN, "rmq2")
    real_cluster.act(NodeAction.REVIVE, "rmq2")
    assert set(states(real_cluster).values()) == {NodeState.RUNNING}
    connect(endpoint).close()


@mostly_on_docker
def test_a_start_revives_what_was_drained_and_lets_go_on_what_was_paused(real_cluster: Cluster) -> None:
    before = real_cluster.nodes()
    real_cluster.act(NodeAction.DRAIN, "rmq3")
    real_cluster.act(NodeAction.PAUSE, "rmq1")
    for action in (NodeAction.DRAIN, NodeAction.REVIVE):
        with pytest.raises(InvalidInputError, match="paused"):
            real_cluster.act(action, "rmq1")
    real_cluster.start()
    assert real_cluster.nodes() == before


@mostly_on_docker
def test_an_alarm_blocks_publishers_on_every_node_until_it_is_undone(real_cluster: Cluster) -> None:
    publish(node(real_cluster, "rmq1").endpoint, "blocked", ["before"])
    assert real_cluster.inject(Fault(FaultKind.MEMORY_ALARM, "rmq2")) is None
    blocked = threading.Event()
    connection = connect(node(real_cluster, "rmq1").endpoint)
    connection.add_on_connection_blocked_callback(lambda *_: blocked.set())
    connection.channel().basic_publish("", "blocked", b"during")
    await_until(lambda: connection.process_data_events(0.1) or blocked.is_set(), 5, "the publisher is blocked")
    assert real_cluster.inject(Fault(FaultKind.CLEAR_MEMORY_ALARM, "rmq2")) is None
    assert sorted(drain(node(real_cluster, "rmq3").endpoint, "blocked", 2)) == ["before", "during"]
    connection.close()


def test_connections_of_a_node_are_closed_with_a_reason_and_those_of_others_stay(real_cluster: Cluster) -> None:
    closed, other = connect(node(real_cluster, "rmq2").endpoint), connect(node(real_cluster, "rmq1").endpoint)
    assert real_cluster.inject(Fault(FaultKind.CLOSE_CONNECTIONS, "rmq2")) is None
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="closed by dmq"):
        closed.process_data_events(5)
    other.process_data_events(0)
    other.close()
    connect(node(real_cluster, "rmq2").endpoint).close()


def test_a_leader_moves_to_the_node_that_is_named_and_back(real_cluster: Cluster) -> None:
    queue = 'it\'s "q" \N{SNOWMAN}'
    publish(node(real_cluster, "rmq1").endpoint, queue, ["kept"])
    home = ClusterUnderTest(real_cluster).leader_of(queue)
    other = next(n for n in NODES if n != home)
    before = real_cluster.inject(Fault(FaultKind.MOVE_LEADER, other, queue))
    assert ClusterUnderTest(real_cluster).leader_of(queue) == other
    assert before == home
    with pytest.raises(InvalidInputError, match="no quorum queue"):
        real_cluster.inject(Fault(FaultKind.MOVE_LEADER, other, "nowhere"))
    assert drain(node(real_cluster, "rmq1").endpoint, queue, 1) == ["kept"]


@pytest.mark.thorough
def test_a_rolling_restart_keeps_every_message(real_cluster: Cluster) -> None:
    before = real_cluster.nodes()
    publish(before[0].endpoint, "rolled", ["a", "b"])
    assert real_cluster.inject(Fault(FaultKind.ROLLING_RESTART)) is None
    assert real_cluster.nodes() == before
    assert drain(before[2].endpoint, "rolled", 2) == ["a", "b"]


def test_a_node_tells_its_own_counters_and_how_long_it_runs(real_cluster: Cluster) -> None:
    for info in real_cluster.nodes():
        told = parse_counters(real_cluster.metrics(info.name))
        assert told.uptime_s > 0
        assert told.confirmed >= 0
    real_cluster.act(NodeAction.PAUSE, "rmq3")
    with pytest.raises(DmqError):
        real_cluster.metrics("rmq3")


def test_an_unknown_node_is_bad_input(real_cluster: Cluster) -> None:
    for action in NodeAction:
        with pytest.raises(InvalidInputError, match="rmq9"):
            real_cluster.act(action, "rmq9")
    with pytest.raises(InvalidInputError, match="rmq9"):
        real_cluster.logs("rmq9")


def test_what_cannot_be_done_to_a_node_is_bad_input(real_cluster: Cluster) -> None:
    real_cluster.act(NodeAction.PAUSE, "rmq3")
    with pytest.raises(InvalidInputError, match="paused"):
        real_cluster.act(NodeAction.START, "rmq3")
    real_cluster.act(NodeAction.KILL, "rmq3")
    for action in set(NodeAction) - {NodeAction.KILL, NodeAction.STOP, NodeAction.START, NodeAction.RESTART}:
        with pytest.raises(InvalidInputError, match="does not run"):
            real_cluster.act(action, "rmq3")


def test_a_cluster_that_does_not_exist_has_no_nodes(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster()
    assert not cluster.exists()
    assert cluster.nodes() == ()
    for act in (cluster.stop, lambda: cluster.act(NodeAction.KILL, "rmq1"), lambda: cluster.logs("rmq1")):
        with pytest.raises(ClusterNotFoundError):
            act()
    cluster.destroy()
    assert remains(cluster) == []


@mostly_on_docker
def test_a_destroyed_cluster_leaves_nothing(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(nodes=1)
    cluster.start()
    ports = [p for n in cluster.nodes() for p in (n.endpoint.amqp_port, n.endpoint.management_port)]
    assert all(listens(p) for p in ports)
    assert remains(cluster) != []
    cluster.destroy()
    assert remains(cluster) == []
    assert not any(listens(p) for p in ports)
    assert not cluster.exists()
    assert cluster.nodes() == ()


@pytest.mark.thorough
def test_two_clusters_side_by_side_do_not_disturb_each_other(real_cluster: Cluster, make_cluster: ClusterMaker) -> None:
    other = make_cluster(nodes=1)
    with watching(real_cluster) as heard:
        other.start()
        other.act(NodeAction.KILL, "rmq1")
        other.start()
        publish(other.nodes()[0].endpoint, "elsewhere", ["x"])
        with channel(real_cluster.nodes()[0].endpoint) as ch, pytest.raises(pika.exceptions.ChannelClosedByBroker):
            ch.queue_declare("elsewhere", passive=True)
        other.destroy()
    assert heard == []
    assert set(states(real_cluster).values()) == {NodeState.RUNNING}


@mostly_on_docker
def test_two_starts_at_the_same_time_make_one_cluster(make_cluster: ClusterMaker, backend: Backend) -> None:
    first = make_cluster(nodes=1)
    second = make_cluster(nodes=1, name=first.name)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first.start), pool.submit(second.start)]:
            done.result()
    assert first.nodes() == second.nodes()
    assert states(first) == {"rmq1": NodeState.RUNNING}


@mostly_on_docker
def test_a_cluster_remembers_its_user_and_keeps_the_password_to_itself(
    make_cluster: ClusterMaker, backend: Backend
) -> None:
    password = "p w'\"\\{}\N{SNOWMAN}" + str(os.getpid())
    cluster = make_cluster(nodes=1, credentials=Credentials("alice", password))
    cluster.start()
    endpoint = cluster.nodes()[0].endpoint
    assert reopened(cluster.name, backend).credentials == Credentials("alice", password)
    connect(endpoint, Credentials("alice", password)).close()
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(endpoint, Credentials("guest", "guest"))
    assert password not in cluster.logs("rmq1", 5000)
    assert password not in repr(cluster.nodes()) + repr(cluster.credentials)
