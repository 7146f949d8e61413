"""What only clusters of local processes have to prove, with the RabbitMQ that this machine has installed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import await_until, drain, publish

from dmq_core.cluster.local import processes
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.installation import find_installation
from dmq_core.cluster.local.node import CLUSTER_MARK, NODE_MARK, is_node_process
from dmq_core.cluster.ports import port_is_free
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.cluster.view import ClusterView

pytestmark = [
    pytest.mark.real,
    pytest.mark.local,
    pytest.mark.skipif(find_installation() is None, reason="rabbitmq-server is not installed"),
]

STARTER = """
import sys
from dmq_core.cluster.local.cluster import LocalCluster
LocalCluster(sys.argv[1], nodes=2).start(lambda progress: print(progress.text, flush=True))
print("whole", flush=True)
"""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder whose path is short enough for anything that is kept in it, and which must be gone at the end."""
    with tempfile.TemporaryDirectory(prefix="dmq-") as folder:
        monkeypatch.setenv("DMQ_STATE_DIR", f"{folder}/state")
        yield Path(folder) / "state"


@pytest.fixture
def cluster(state: Path) -> Iterator[LocalCluster]:
    made = LocalCluster("dmq", nodes=1)
    yield made
    made.destroy()
    assert not processes.find(CLUSTER_MARK, str(made.folder))
    assert not state.exists()


def node_pids(cluster: LocalCluster) -> list[int]:
    found = processes.find(NODE_MARK)
    return [p.pid for p, folder in found.items() if Path(folder).parent == cluster.folder and is_node_process(p)]


def system_rabbitmq() -> dict[str, tuple[int, int]]:
    """What there is of the system's own RabbitMQ, with the time of its last change and its size."""
    roots = (Path("/etc/rabbitmq"), Path("/var/lib/rabbitmq"), Path("/var/log/rabbitmq"))
    paths = [path for root in roots if root.exists() for path in (root, *root.rglob("*"))]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_a_start_killed_half_way_is_finished_by_the_next_and_two_at_once_do_not_get_in_each_others_way(
    cluster: LocalCluster,
) -> None:
    def starter() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", STARTER, cluster.name], stdout=subprocess.PIPE, text=True)

    with starter() as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "rmq1 boots\n"
        killed.kill()
    with starter() as one, starter() as two:
        told = [one.communicate(timeout=170)[0], two.communicate(timeout=170)[0]]
    assert all(text.endswith("whole\n") for text in told)
    assert sum(text.count("rmq2 boots") for text in told) <= 1
    # They outlive all the programs that started them.
    assert [n.state for n in cluster.nodes()] == [NodeState.RUNNING] * 2
    assert len(node_pids(cluster)) == 2


def test_a_foreign_epmd_a_taken_port_and_the_systems_own_rabbitmq_are_left_alone(cluster: LocalCluster) -> None:
    installation = find_installation()
    assert installation is not None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        foreign_port = taken.getsockname()[1]
    foreign = subprocess.Popen([str(installation.epmd), "-address", "127.0.0.1", "-port", str(foreign_port)])
    before = system_rabbitmq()
    # The kernel may still be taking it from a node that was killed a moment ago; whoever keeps it does as well.
    with contextlib.suppress(AssertionError):
        await_until(lambda: port_is_free(5672), 2, "the usual port is free")
    holder = socket.create_server(("127.0.0.1", 5672)) if port_is_free(5672) else None
    try:
        await_until(lambda: foreign_port in processes.listening_ports(), 5, "the foreign epmd listens")
        cluster.start()
        (node,) = cluster.nodes()
        assert node.endpoint.amqp_port != 5672
        cluster.act(NodeAction.KILL, "rmq1")
        assert not processes.find(NODE_MARK, str(cluster.folder / "rmq1"))
        cluster.destroy()
        assert foreign.poll() is None
        assert system_rabbitmq() == before
    finally:
        if holder is not None:
            holder.close()
        foreign.kill()
        foreign.wait(5)


def test_every_listener_is_on_loopback_alone(local_cluster: LocalCluster) -> None:
    ours = {p.pid for p in processes.find(CLUSTER_MARK, str(local_cluster.folder))}
    inodes = {link.readlink().name for pid in ours for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    listeners = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes
    ]
    addresses = {listener.split(":")[0] for listener in listeners}
    assert len(listeners) >= 3 * 4 + 1
    assert addresses <= {"0100007F", "00000000000000000000000001000000"}


def test_the_tools_death_does_not_touch_messages_and_nodes_hold_none_of_its_files(local_cluster: LocalCluster) -> None:
    endpoint = local_cluster.nodes()[0].endpoint
    publish(endpoint, "outlives", ["a", "b"])
    for pid in node_pids(local_cluster):
        standard = [Path(f"/proc/{pid}/fd/{fd}").readlink() for fd in (0, 1, 2)]
        assert standard[0] == Path("/dev/null")
        assert all(path.is_relative_to(local_cluster.folder) for path in standard[1:])
        assert Path(f"/proc/{pid}/cwd").readlink().is_relative_to(local_cluster.folder)
        assert os.getsid(pid) == pid
    assert drain(endpoint, "outlives", 2) == ["a", "b"]


def test_the_nodes_are_called_what_rabbitmq_calls_them_and_are_of_the_version_installed(
    local_cluster: LocalCluster,
) -> None:
    nodes = local_cluster.nodes()
    client = ClusterView.of(local_cluster).management()
    try:
        assert {f.name for f in client.nodes()} == {n.erlang_name for n in nodes}
        installation = find_installation()
        assert installation is not None
        assert client.overview().rabbitmq_version == str(installation.version) == local_cluster.rabbitmq
    finally:
        client.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="this user is an ordinary one already: every other test shows it")
@pytest.mark.thorough
def test_an_ordinary_user_can_start_kill_and_destroy_a_cluster() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="dmq-") as folder:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        context = multiprocessing.get_context("fork")
        told = context.SimpleQueue()
        child = context.Process(target=_as_user, args=(nobody.pw_uid, nobody.pw_gid, folder, told))
        child.start()
        child.join(120)
        assert not child.is_alive(), "it takes too long"
        assert told.get() == "destroyed"
        assert list(Path(folder).iterdir()) == []


def _as_user(user: int, group: int, folder: str, told: multiprocessing.SimpleQueue[str]) -> None:
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        os.environ |= {"DMQ_STATE_DIR": f"{folder}/state", "HOME": "/nonexistent", "USER": "nobody"}
        cluster = LocalCluster("plain", nodes=1)
        cluster.start()
        (pid,) = node_pids(cluster)
        assert Path(f"/proc/{pid}").stat().st_uid == user
        cluster.act(NodeAction.KILL, "rmq1")
        cluster.act(NodeAction.START, "rmq1")
        cluster.destroy()
        told.put("destroyed")
    except BaseException:
        told.put(traceback.format_exc())
