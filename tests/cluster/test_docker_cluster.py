"""Clusters in Docker when things go wrong: interrupted, half made, in the way of others, out of connect."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clients import ClusterMaker, await_until, connect, drain, node, publish

from dmq_core.cluster.docker.cluster import DockerCluster, docker_cluster_names
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.engine import connect as connect_engine
from dmq_core.cluster.docker.errors import ConflictError, PortTakenError
from dmq_core.cluster.docker.values import Container, ContainerPlan, File
from dmq_core.cluster.ports import PortChooser
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeState
from dmq_core.endpoints import Credentials
from dmq_core.errors import BackendUnavailableError, ClusterError, InvalidInputError, NodeBootError
from dmq_core.progress import Progress
from dmq_core.testing.pytest_support.cluster_under_test import ClusterUnderTest

pytestmark = [pytest.mark.real, pytest.mark.docker]
STARTER = """
import sys
from dmq_core.cluster.docker.cluster import DockerCluster
DockerCluster(sys.argv[1], nodes=int(sys.argv[2])).start()
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        found = connect_engine()
    except BackendUnavailableError as error:
        pytest.skip(f"Docker is missing: {error.what}")
    yield found
    found.close()


def label(cluster: Cluster) -> str:
    return f"dmq.cluster={cluster.name}"


def containers(engine: Engine, cluster: Cluster) -> dict[str, Container]:
    return {c.labels["dmq.node"]: c for c in engine.containers(label(cluster))}


def running(cluster: Cluster) -> bool:
    return {n.state for n in cluster.nodes()} == {NodeState.RUNNING}


@contextmanager
def starting(cluster: Cluster, nodes: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """Another program that starts the cluster."""
    process = subprocess.Popen([sys.executable, "-c", STARTER, cluster.name, str(nodes)], stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.wait(30)


def await_containers(engine: Engine, cluster: Cluster, count: int, status: str | None = None) -> None:
    def there() -> bool:
        found = [c for c in engine.containers(label(cluster)) if status in (None, c.status)]
        return len(found) >= count

    await_until(there, 60, f"{count} containers {status or ''}")


@pytest.mark.parametrize(
    ("count", "status"),
    [
        pytest.param(1, None, marks=pytest.mark.thorough, id="while making"),
        pytest.param(2, "running", id="while booting"),
    ],
)
def test_a_start_that_was_killed_is_finished_by_the_next(
    engine: Engine, make_docker_cluster: ClusterMaker, count: int, status: str | None
) -> None:
    cluster = make_docker_cluster(nodes=2)
    with starting(cluster) as process:
        await_containers(engine, cluster, count, status)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    cluster.start()
    assert running(cluster)
    assert len(containers(engine, cluster)) == 2


def test_an_interrupted_start_leaves_nothing(engine: Engine, make_docker_cluster: ClusterMaker) -> None:
    cluster = make_docker_cluster(nodes=2)
    with starting(cluster) as process:
        await_containers(engine, cluster, 1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert b"KeyboardInterrupt" in stderr
    assert not cluster.exists()
    assert engine.volumes(label(cluster)) == []


@pytest.mark.thorough
def test_an_interrupted_start_keeps_a_cluster_that_was_there(engine: Engine, make_docker_cluster: ClusterMaker) -> None:
    cluster = make_docker_cluster(nodes=1)
    cluster.start()
    publish(cluster.nodes()[0].endpoint, "kept", ["a"])
    cluster.stop()
    with starting(cluster, nodes=1) as process:
        await_containers(engine, cluster, 1, "running")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    cluster.start()
    assert drain(cluster.nodes()[0].endpoint, "kept", 1) == ["a"]


@pytest.mark.thorough
def test_containers_networks_and_volumes_that_went_missing_are_made_again(
    engine: Engine, make_docker_cluster: ClusterMaker
) -> None:
    cluster = make_docker_cluster(nodes=2, credentials=Credentials("alice", "pass"))
    cluster.start()
    before = cluster.nodes()
    cluster.stop()
    engine.remove_container(containers(engine, cluster)["rmq2"].id)
    for network in engine.networks(label(cluster)):
        engine.remove_network(network.id)
    again = DockerCluster(cluster.name)
    assert [n.state for n in again.nodes()] == [NodeState.STOPPED, NodeState.STOPPED]
    with pytest.raises(ClusterError, match="container of rmq2 is gone"):
        again.act(NodeAction.KILL, "rmq2")
    again.start()
    assert again.nodes() == before
    for each in before:
        connect(each.endpoint, Credentials("alice", "pass")).close()


@pytest.mark.thorough
def test_a_port_that_somebody_took_meanwhile_is_named(make_docker_cluster: ClusterMaker) -> None:
    cluster = make_docker_cluster(nodes=1)
    cluster.start()
    port = cluster.nodes()[0].endpoint.amqp_port
    assert port is not None
    cluster.stop()
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        foreign.bind(("127.0.0.1", port))
        foreign.listen()
        with pytest.raises(PortTakenError) as caught:
            cluster.start()
        assert str(port) in caught.value.what
        assert str(port) in caught.value.hint
    cluster.start()
    assert cluster.nodes()[0].endpoint.amqp_port == port


@pytest.mark.thorough
def test_a_new_cluster_takes_other_ports_when_its_first_choice_is_lost(
    make_docker_cluster: ClusterMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the choice of a port and the start of a container somebody else may take it."""
    foreign = socket.socket()
    foreign.bind(("127.0.0.1", 0))
    foreign.listen()
    lost = foreign.getsockname()[1]
    chosen: list[int] = []
    take = PortChooser.take

    def unlucky(self: PortChooser, wanted: int | None = None) -> int:
        chosen.append(lost if not chosen else take(self, wanted))
        return chosen[-1]

    monkeypatch.setattr(PortChooser, "take", unlucky)
    cluster = make_docker_cluster(nodes=1)
    with foreign:
        cluster.start()
    assert chosen[0] == lost
    assert cluster.nodes()[0].endpoint.amqp_port not in (None, lost)


def test_what_others_own_is_neither_used_nor_touched(
    engine: Engine, make_docker_cluster: ClusterMaker, docker_cluster: Cluster
) -> None:
    image = next(iter(containers(engine, docker_cluster).values())).image
    cluster = make_docker_cluster(nodes=1)
    name = f"dmq-{cluster.name}-rmq1"
    foreign = engine.create_container(ContainerPlan(name, image, {"mine": "yes"}, {}, "bridge", {}, {}))
    try:
        with pytest.raises(ConflictError) as caught:
            cluster.start()
        assert name in caught.value.what
        cluster.destroy()
        found = engine.container(foreign)
        assert found is not None
        assert (found.status, found.labels.get("mine")) == ("created", "yes")
        assert not cluster.exists()
    finally:
        engine.remove_container(foreign)


@pytest.mark.thorough
def test_a_node_that_cannot_boot_tells_the_reason_from_its_log(
    engine: Engine, make_docker_cluster: ClusterMaker
) -> None:
    cluster = make_docker_cluster(nodes=1)
    cluster.start()
    container = containers(engine, cluster)["rmq1"].id
    configuration = engine.read_file(container, "/etc/rabbitmq/rabbitmq.conf") or ""
    cluster.stop()
    owner = (0, 0)
    engine.write_files(
        container, [File("/etc/rabbitmq/rabbitmq.conf", configuration + "no_such_key = 1\n", 0o644, *owner)]
    )
    began = time.monotonic()
    with pytest.raises(NodeBootError, match="no_such_key"):
        cluster.start()
    assert time.monotonic() - began < 60
    engine.write_files(container, [File("/etc/rabbitmq/rabbitmq.conf", configuration, 0o644, *owner)])
    cluster.start()
    assert running(cluster)


def test_secrets_are_neither_in_environment_nor_labels_nor_command(
    make_docker_cluster: ClusterMaker, engine: Engine
) -> None:
    cluster = make_docker_cluster(nodes=1, credentials=Credentials("alice", "sesame-seeds"))
    cluster.start()
    container = containers(engine, cluster)["rmq1"]
    cookie = engine.read_file(container.id, "/var/lib/rabbitmq/.erlang.cookie")
    described = subprocess.run(["docker", "inspect", container.id], capture_output=True, text=True, check=True).stdout
    processes = subprocess.run(["docker", "top", container.id], capture_output=True, text=True, check=True).stdout
    assert cookie
    for secret in ("sesame-seeds", ",".join(str(b) for b in b"sesame-seeds"), cookie):
        assert secret not in described + processes
    status, listing = engine.run_in(
        container.id,
        ["stat", "-c", "%a %U", "/etc/rabbitmq/advanced.config", "/var/lib/rabbitmq/.erlang.cookie"],
        "root",
    )
    assert (status, listing.split()) == (0, ["600", "rabbitmq", "400", "rabbitmq"])


def test_the_server_is_the_first_process_and_not_root(docker_cluster: Cluster, engine: Engine) -> None:
    container = containers(engine, docker_cluster)["rmq1"]
    status, seen = engine.run_in(container.id, ["stat", "-c", "%U", "/proc/1"], "root")
    assert (status, seen.strip()) == (0, "rabbitmq")
    status, seen = engine.run_in(container.id, ["cat", "/proc/1/comm"], "root")
    assert (status, seen.strip()) == (0, "beam.smp")


def test_ports_are_published_on_loopback_only(docker_cluster: Cluster, engine: Engine) -> None:
    names = [c.name for c in containers(engine, docker_cluster).values()]
    published = subprocess.run(["docker", "port", names[0]], capture_output=True, text=True, check=True).stdout
    addresses = [line.split(" -> ")[1] for line in published.splitlines()]
    assert len(addresses) == 2
    assert all(a.startswith("127.0.0.1:") for a in addresses)


def test_the_engine_lists_the_cluster(docker_cluster: Cluster) -> None:
    assert docker_cluster.name in docker_cluster_names()


def test_another_size_or_version_than_it_was_made_with_is_refused(docker_cluster: Cluster) -> None:
    with pytest.raises(InvalidInputError, match="3 nodes"):
        DockerCluster(docker_cluster.name, nodes=5).start()
    with pytest.raises(InvalidInputError, match="RabbitMQ"):
        DockerCluster(docker_cluster.name, rabbitmq="3.10").start()
    DockerCluster(docker_cluster.name, nodes=3).start()


@pytest.mark.thorough
def test_a_start_that_waits_for_another_says_so(engine: Engine, make_docker_cluster: ClusterMaker) -> None:
    cluster = make_docker_cluster(nodes=1)
    heard: list[Progress] = []
    with starting(cluster, nodes=1) as process:
        await_containers(engine, cluster, 1)
        cluster.start(heard.append)
        assert process.wait(60) == 0
    assert any("another dmq is busy" in p.text for p in heard)
    assert running(cluster)


def test_a_watch_goes_on_after_the_engines_stream_broke(docker_cluster: Cluster) -> None:
    assert isinstance(docker_cluster, DockerCluster)
    engine = docker_cluster._engine
    streams: list[Any] = []
    real = engine.event_stream

    def remembered() -> Any:
        streams.append(real())
        return streams[-1]

    heard: list[tuple[str, NodeState]] = []
    stop = threading.Event()

    def listen() -> None:
        for change in docker_cluster.watch(stop):
            heard.append((change.node, change.state))  # noqa: PERF401  # the test reads the list while it grows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "event_stream", remembered)
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        await_until(lambda: len(streams) == 1, 5, "the watch listens")
        streams[0].close()
        docker_cluster.act(NodeAction.PAUSE, "rmq3")
        await_until(lambda: ("rmq3", NodeState.PAUSED) in heard, 5, "what happened meanwhile is told")
        docker_cluster.act(NodeAction.UNPAUSE, "rmq3")
        await_until(lambda: heard[-1] == ("rmq3", NodeState.RUNNING), 5, "and what happens after")
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


@contextmanager
def heard_of(cluster: Cluster, engine: Engine, name: str) -> Iterator[list[NodeState]]:
    """Collects the states of a node as they are pushed."""
    states: list[NodeState] = []
    stop, listening = threading.Event(), threading.Event()
    real = engine.event_stream

    def stream() -> Any:
        opened = real()
        listening.set()
        return opened

    def listen() -> None:
        for change in cluster.watch(stop):
            if change.node == name:
                states.append(change.state)  # noqa: PERF401  # the test reads the list while it grows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "event_stream", stream)
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        assert listening.wait(5)
        yield states
        stop.set()
        thread.join(5)


def queue_leader(cluster: Cluster, queue: str) -> str:
    return ClusterUnderTest(cluster).leader_of(queue)


def test_a_cut_off_node_keeps_its_clients_and_no_majority_until_it_rejoins(docker_cluster: Cluster) -> None:
    assert isinstance(docker_cluster, DockerCluster)
    publish(node(docker_cluster, "rmq1").endpoint, "cut", ["before"])
    with heard_of(docker_cluster, docker_cluster._engine, "rmq2") as heard:
        connection = connect(node(docker_cluster, "rmq2").endpoint)
        docker_cluster.act(NodeAction.ISOLATE, "rmq2")
        docker_cluster.act(NodeAction.ISOLATE, "rmq2")
        assert node(DockerCluster(docker_cluster.name), "rmq2").state is NodeState.ISOLATED
        await_until(lambda: heard == [NodeState.ISOLATED], 2, "the cut is pushed")
        connection.process_data_events(0.5)
        assert connection.is_open
        await_until(lambda: queue_leader(docker_cluster, "cut") != "rmq2", 20, "a leader among the others")
        publish(node(docker_cluster, "rmq3").endpoint, "cut", ["during"])
        for action in (NodeAction.DRAIN, NodeAction.REVIVE):
            with pytest.raises(InvalidInputError, match="isolated"):
                docker_cluster.act(action, "rmq2")
        docker_cluster.act(NodeAction.REJOIN, "rmq2")
        await_until(lambda: heard[-1] is NodeState.RUNNING, 3, "the end of the cut is pushed")
    assert running(docker_cluster)
    assert drain(node(docker_cluster, "rmq2").endpoint, "cut", 2) == ["before", "during"]


@pytest.mark.thorough
def test_a_start_connects_what_was_cut_off_whatever_happened_to_it_since(docker_cluster: Cluster) -> None:
    docker_cluster.act(NodeAction.ISOLATE, "rmq1")
    docker_cluster.act(NodeAction.PAUSE, "rmq1")
    docker_cluster.act(NodeAction.UNPAUSE, "rmq1")
    assert node(docker_cluster, "rmq1").state is NodeState.ISOLATED
    docker_cluster.act(NodeAction.KILL, "rmq1")
    assert node(docker_cluster, "rmq1").state is NodeState.STOPPED
    docker_cluster.act(NodeAction.START, "rmq1")
    assert running(docker_cluster)
    docker_cluster.act(NodeAction.DRAIN, "rmq2")
    docker_cluster.act(NodeAction.ISOLATE, "rmq2")
    docker_cluster.act(NodeAction.ISOLATE, "rmq3")
    heard: list[Progress] = []
    docker_cluster.start(heard.append)
    assert running(docker_cluster)
    assert {p.node for p in heard if "cut off" in p.text} == {"rmq2", "rmq3"}


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ("unix:///nonexistent/docker.sock", "no Docker engine runs"),
        ("tcp://127.0.0.1:1", "no Docker engine runs"),
        ("nonsense", "does not answer"),
    ],
)
def test_an_engine_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch, host: str, what: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    began = time.monotonic()
    with pytest.raises(BackendUnavailableError) as caught:
        DockerCluster("nowhere").nodes()
    assert time.monotonic() - began < 2
    assert what in caught.value.what
    assert caught.value.hint


def test_an_engine_that_hangs_is_told_within_two_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "docker.sock"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        began = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="no answer in time"):
            DockerCluster("nowhere").exists()
        assert time.monotonic() - began < 2


def test_a_socket_that_this_user_may_not_use_says_how_to_be_let_in(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user that may not use Docker")
    path = tmp_path / "docker.sock"
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as forbidden:
        forbidden.bind(str(path))
        forbidden.listen()
        path.chmod(0o600)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        os.seteuid(65534)
        try:
            with pytest.raises(BackendUnavailableError, match="may not use the Docker engine") as caught:
                connect_engine()
        finally:
            os.seteuid(0)
    assert "usermod -aG docker" in caught.value.hint


def test_a_docker_context_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    (tmp_path / "config.json").write_text("{}")
    for command in (
        ["docker", "context", "create", "here", "--docker", "host=unix:///var/run/docker.sock"],
        ["docker", "context", "create", "away", "--docker", f"host=unix://{tmp_path}/none.sock"],
    ):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "here")
    connect_engine().close()
    monkeypatch.setenv("DOCKER_CONTEXT", "away")
    with pytest.raises(BackendUnavailableError, match=r"none\.sock"):
        connect_engine()
    monkeypatch.setenv("DOCKER_CONTEXT", "missing")
    with pytest.raises(BackendUnavailableError, match="missing"):
        connect_engine()
    monkeypatch.delenv("DOCKER_CONTEXT")
    subprocess.run(["docker", "context", "use", "away"], env=environment, check=True, capture_output=True)
    with pytest.raises(BackendUnavailableError, match=r"none\.sock"):
        connect_engine()
