"""Local clusters with a make-believe RabbitMQ: processes, folders, locks and ports are real."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_rabbitmq import MakeBelieve

from dmq_core.cluster.local import cluster as module
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.node import CLUSTER_MARK, NODE_MARK, is_node_process
from dmq_core.cluster.local.processes import OwnProcess
from dmq_core.cluster.protocol import NodeAction, NodeChange, NodeState
from dmq_core.endpoints import Credentials
from dmq_core.errors import ClusterError, ClusterNotFoundError, InvalidInputError, NodeBootError
from dmq_core.progress import Progress
from dmq_core.state_directory import state_folder
from dmq_core.versions import Version

pytestmark = pytest.mark.skipif(not processes.supported(), reason="local clusters need Linux 5.3 or newer")

NODES = ["rmq1", "rmq2", "rmq3"]


@pytest.fixture
def rabbitmq(tmp_path: Path) -> MakeBelieve:
    return MakeBelieve(tmp_path / "rabbitmq")


@pytest.fixture
def make(
    tmp_path: Path, rabbitmq: MakeBelieve, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LocalCluster]]:
    monkeypatch.setenv("DMQ_STATE_DIR", str(tmp_path / "state"))
    made: list[LocalCluster] = []

    def build(name: str = "one", **options: object) -> LocalCluster:
        options.setdefault("installation", rabbitmq.installation)
        made.append(LocalCluster(name, **options))  # type: ignore[arg-type]  # the tests' own options
        return made[-1]

    yield build
    for cluster in made:
        cluster.destroy()


@pytest.fixture
def cluster(make: Callable[..., LocalCluster]) -> LocalCluster:
    return make()


def node_processes(cluster: LocalCluster) -> dict[str, OwnProcess]:
    found = [(folder, p) for p, folder in processes.find(NODE_MARK).items() if is_node_process(p)]
    ours = [(Path(folder), p) for folder, p in found if Path(folder).parent == cluster.folder]
    assert len({folder for folder, _ in ours}) == len(ours), "two processes for one node"
    return {folder.name: p for folder, p in ours}


def states(cluster: LocalCluster) -> list[str]:
    return [str(n.state) for n in cluster.nodes()]


def nothing_is_left(cluster: LocalCluster) -> bool:
    return not processes.find(CLUSTER_MARK, str(cluster.folder)) and not state_folder().exists()


def test_a_start_makes_nodes_that_run_and_a_destroy_leaves_neither_process_nor_folder(cluster: LocalCluster) -> None:
    assert not cluster.exists()
    heard: list[Progress] = []
    cluster.start(heard.append)
    assert states(cluster) == ["running"] * 3
    assert sorted(node_processes(cluster)) == NODES
    assert [p.fraction for p in heard if p.fraction] == [1 / 3, 2 / 3, 1.0]
    cluster.destroy()
    assert not cluster.exists()
    assert cluster.nodes() == ()
    assert nothing_is_left(cluster)


def test_a_second_start_and_a_start_by_somebody_else_change_nothing(make: Callable[..., LocalCluster]) -> None:
    one, same = make(), make()
    one.start()
    before = node_processes(one)
    one.start()
    same.start()
    assert node_processes(one) == before
    assert same.nodes() == one.nodes()


def test_many_starts_at_once_make_one_process_for_each_node(make: Callable[..., LocalCluster]) -> None:
    starters = [make() for _ in range(6)]
    with ThreadPoolExecutor(len(starters)) as pool:
        for done in [pool.submit(c.start) for c in starters]:
            done.result(60)
    assert sorted(node_processes(starters[0])) == NODES


def test_a_start_that_is_interrupted_leaves_nothing_of_what_it_made(cluster: LocalCluster) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.node == "rmq2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.start(interrupt)
    assert nothing_is_left(cluster)


def test_a_start_that_is_interrupted_leaves_what_was_there_before(cluster: LocalCluster) -> None:
    cluster.start()
    cluster.stop()

    def interrupt(progress: Progress) -> None:
        if progress.node == "rmq2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.start(interrupt)
    assert cluster.exists()
    cluster.start()
    assert sorted(node_processes(cluster)) == NODES


def test_what_a_killed_start_left_without_a_state_file_is_cleared_away(cluster: LocalCluster, tmp_path: Path) -> None:
    folder = cluster.folder / "rmq1"
    folder.mkdir(parents=True)
    environment = {CLUSTER_MARK: str(cluster.folder), NODE_MARK: str(folder), "PATH": "/usr/bin:/bin"}
    orphan = processes.identify(processes.spawn(["sleep", "600"], environment, folder, tmp_path / "out"))
    assert orphan is not None
    cluster.start()
    assert not processes.alive(orphan)
    assert states(cluster) == ["running"] * 3


def test_a_node_that_cannot_boot_fails_the_start_at_once_with_its_reason_and_its_log(
    cluster: LocalCluster, rabbitmq: MakeBelieve
) -> None:
    rabbitmq.fail("rmq2", "the moon is full")
    began = time.monotonic()
    with pytest.raises(NodeBootError, match="rmq2 did not boot: the moon is full"):
        cluster.start()
    assert time.monotonic() - began < 10
    assert "BOOT FAILED" in cluster.logs("rmq2")
    rabbitmq.mend("rmq2")
    cluster.start()
    assert states(cluster) == ["running"] * 3


def test_a_node_of_an_existing_cluster_that_gives_up_once_is_started_once_more(
    cluster: LocalCluster, rabbitmq: MakeBelieve
) -> None:
    cluster.start()
    cluster.stop()
    rabbitmq.fail("rmq3", "tables came too late", once=True)
    heard: list[Progress] = []
    cluster.start(heard.append)
    assert any("tables came too late; once more" in p.text for p in heard)
    assert states(cluster) == ["running"] * 3


def test_a_node_of_an_existing_cluster_that_gives_up_twice_fails_the_start(
    cluster: LocalCluster, rabbitmq: MakeBelieve
) -> None:
    cluster.start()
    cluster.stop()
    rabbitmq.fail("rmq3", "no luck")
    with pytest.raises(NodeBootError, match="no luck"):
        cluster.start()
    assert states(cluster)[:2] == ["running"] * 2


def test_a_kill_takes_the_helpers_along_and_nobody_else(cluster: LocalCluster, rabbitmq: MakeBelieve) -> None:
    rabbitmq.order("with-helper")
    cluster.start()
    before = node_processes(cluster)
    cluster.act(NodeAction.KILL, "rmq2")
    assert not processes.find(NODE_MARK, str(cluster.folder / "rmq2"))
    assert states(cluster) == ["running", "stopped", "running"]
    cluster.act(NodeAction.KILL, "rmq2")
    cluster.act(NodeAction.START, "rmq2")
    after = node_processes(cluster)
    assert {n: p for n, p in after.items() if n != "rmq2"} == {n: p for n, p in before.items() if n != "rmq2"}
    assert after["rmq2"] != before["rmq2"]


def test_a_node_that_ignores_the_request_to_stop_is_killed(
    cluster: LocalCluster, rabbitmq: MakeBelieve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STOP_LIMIT_S", 0.5)
    rabbitmq.order("stubborn")
    cluster.start()
    heard: list[Progress] = []
    cluster.act(NodeAction.STOP, "rmq1", heard.append)
    assert states(cluster)[0] == "stopped"
    assert any("is killed" in p.text for p in heard)


def test_a_stop_ends_the_clusters_epmd_too_and_keeps_its_folder(cluster: LocalCluster) -> None:
    cluster.start()
    cluster.stop()
    assert states(cluster) == ["stopped"] * 3
    assert not processes.find(CLUSTER_MARK, str(cluster.folder))
    cluster.stop()
    cluster.start()
    assert states(cluster) == ["running"] * 3


@pytest.mark.parametrize("end", [NodeAction.KILL, NodeAction.STOP, NodeAction.UNPAUSE])
def test_a_paused_node_says_so_and_can_be_ended_or_let_go_on(cluster: LocalCluster, end: NodeAction) -> None:
    cluster.start()
    cluster.act(NodeAction.PAUSE, "rmq1")
    cluster.act(NodeAction.PAUSE, "rmq1")
    assert states(cluster) == ["paused", "running", "running"]
    with pytest.raises(InvalidInputError, match="paused"):
        cluster.act(NodeAction.START, "rmq1")
    cluster.act(end, "rmq1")
    assert states(cluster)[0] == ("running" if end is NodeAction.UNPAUSE else "stopped")


def test_a_start_lets_paused_nodes_go_on(cluster: LocalCluster) -> None:
    cluster.start()
    before = node_processes(cluster)
    for node in NODES:
        cluster.act(NodeAction.PAUSE, node)
    cluster.start()
    assert states(cluster) == ["running"] * 3
    assert node_processes(cluster) == before


@pytest.mark.parametrize("action", [NodeAction.PAUSE, NodeAction.UNPAUSE])
def test_a_node_that_does_not_run_can_be_neither_paused_nor_unpaused(cluster: LocalCluster, action: NodeAction) -> None:
    cluster.start()
    cluster.act(NodeAction.KILL, "rmq3")
    with pytest.raises(InvalidInputError, match="does not run"):
        cluster.act(action, "rmq3")


def test_a_mnesia_node_that_stays_apart_after_a_pause_is_stopped_and_started_inside(
    make: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbitmq = MakeBelieve(tmp_path / "old", Version(3, 10, 8))
    cluster = make("old", installation=rabbitmq.installation)
    cluster.start()
    monkeypatch.setattr("dmq_core.cluster.readiness.partitioned", lambda *_: not rabbitmq.ctl_calls)
    cluster.act(NodeAction.PAUSE, "rmq2")
    heard: list[Progress] = []
    cluster.act(NodeAction.UNPAUSE, "rmq2", heard.append)
    assert [call.split()[-1] for call in rabbitmq.ctl_calls] == ["stop_app", "start_app"]
    assert all("rmq2@localhost" in call for call in rabbitmq.ctl_calls)
    assert any("stopped and started" in p.text for p in heard)


def test_a_port_that_was_taken_while_the_node_was_stopped_makes_it_move_and_say_so(cluster: LocalCluster) -> None:
    cluster.start()
    before = [n.endpoint for n in cluster.nodes()]
    cluster.stop()
    heard: list[Progress] = []
    with socket.create_server(("127.0.0.1", before[1].amqp_port or 0)) as foreign:
        cluster.start(heard.append)
        after = [n.endpoint for n in cluster.nodes()]
        assert foreign.fileno() > 0
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1].amqp_port != before[1].amqp_port
    assert any(f"port {before[1].amqp_port} is taken" in p.text for p in heard)


def test_an_epmd_that_died_comes_back_with_the_next_node(cluster: LocalCluster) -> None:
    cluster.start()
    epmd = next(
        p for p in processes.find(CLUSTER_MARK, str(cluster.folder)) if not processes.has_variable(p, NODE_MARK)
    )
    processes.send(epmd, signal.SIGKILL)
    assert processes.await_end([epmd], 5) == ()
    cluster.act(NodeAction.RESTART, "rmq2")
    assert states(cluster) == ["running"] * 3
    assert (
        len([p for p in processes.find(CLUSTER_MARK, str(cluster.folder)) if not processes.has_variable(p, NODE_MARK)])
        == 1
    )


def test_a_death_is_told_within_half_a_second(cluster: LocalCluster) -> None:
    cluster.start()
    stop = threading.Event()
    heard: list[NodeChange] = []

    def listen() -> None:
        heard.extend(cluster.watch(stop))

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.3)
    killed_at = time.time()
    processes.send(node_processes(cluster)["rmq2"], signal.SIGKILL)
    time.sleep(1.0)
    stop.set()
    listener.join(5)
    told = [change for change in heard if change.state is NodeState.STOPPED]
    assert [change.node for change in told] == ["rmq2"]
    assert told[0].at - killed_at < 0.5


def test_a_ruined_state_file_is_told_and_the_cluster_can_still_be_destroyed(cluster: LocalCluster) -> None:
    cluster.start()
    (cluster.folder / "state.json").write_text("{")
    with pytest.raises(ClusterError, match="cannot be understood"):
        cluster.nodes()
    assert cluster.exists()
    cluster.destroy()
    assert nothing_is_left(cluster)


def test_what_does_not_fit_the_cluster_that_is_there_is_bad_input(make: Callable[..., LocalCluster]) -> None:
    make(nodes=1).start()
    with pytest.raises(InvalidInputError, match="has 1 node"):
        make(nodes=3).start()
    with pytest.raises(InvalidInputError, match=r"has RabbitMQ 4\.3\.6, not 3\.10"):
        make(rabbitmq="3.10").start()
    for text in ("", "x", "4.", "4.3.6.1", "4\n"):
        with pytest.raises(InvalidInputError):
            make(rabbitmq=text)


def test_a_cluster_that_is_not_there_cannot_be_acted_upon(cluster: LocalCluster) -> None:
    acts: list[Callable[[], object]] = [
        cluster.stop,
        lambda: cluster.act(NodeAction.KILL, "rmq1"),
        lambda: cluster.logs("rmq1"),
    ]
    for act in acts:
        with pytest.raises(ClusterNotFoundError):
            act()
    cluster.destroy()
    assert nothing_is_left(cluster)


def test_a_state_folder_that_cannot_be_written_is_told_in_a_line(
    tmp_path: Path, rabbitmq: MakeBelieve, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DMQ_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(ClusterError, match="cannot be used") as caught:
        LocalCluster("one", installation=rabbitmq.installation).start()
    assert "DMQ_STATE_DIR" in caught.value.hint


def test_the_password_is_in_no_argument_environment_or_readable_file(make: Callable[..., LocalCluster]) -> None:
    cluster = make(credentials=Credentials("u", "hunter2hunter2"))
    cluster.start()
    for process in processes.find(CLUSTER_MARK, str(cluster.folder)):
        for source in ("cmdline", "environ"):
            assert b"hunter2" not in Path(f"/proc/{process.pid}/{source}").read_bytes()
    for path in cluster.folder.rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o077 == 0, path
    assert "hunter2" not in repr(cluster) + repr(cluster.credentials)
    assert make().credentials == Credentials("u", "hunter2hunter2")
