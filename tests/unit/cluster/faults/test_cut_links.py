"""Local nodes that are cut off from their peers, with a make-believe RabbitMQ: processes, notes and states are real."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_rabbitmq import MakeBelieve

from dmq_core.cluster.local import processes
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.node import NODE_MARK, is_node_process
from dmq_core.cluster.local.processes import OwnProcess
from dmq_core.cluster.protocol import NodeAction, NodeChange
from dmq_core.errors import ClusterError, InvalidInputError
from dmq_core.progress import Progress
from dmq_core.versions import Version

pytestmark = pytest.mark.skipif(not processes.supported(), reason="local clusters need Linux 5.3 or newer")


@pytest.fixture
def rabbitmq(tmp_path: Path) -> MakeBelieve:
    return MakeBelieve(tmp_path / "rabbitmq")


@pytest.fixture
def make(
    tmp_path: Path, rabbitmq: MakeBelieve, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LocalCluster]]:
    monkeypatch.setenv("DMQ_STATE_DIR", str(tmp_path / "state"))
    made: list[LocalCluster] = []

    def build(nodes: int | None = None, rabbitmq: MakeBelieve = rabbitmq) -> LocalCluster:
        made.append(LocalCluster("one", nodes=nodes, installation=rabbitmq.installation))
        return made[-1]

    yield build
    for cluster in made:
        cluster.destroy()


@pytest.fixture
def cluster(make: Callable[..., LocalCluster]) -> LocalCluster:
    started = make()
    started.start()
    return started


def states(cluster: LocalCluster) -> list[str]:
    return [str(n.state) for n in cluster.nodes()]


def asked(rabbitmq: MakeBelieve) -> list[str]:
    """The nodes that were made to evaluate something, in name order."""
    return sorted(call.split()[2] for call in rabbitmq.ctl_calls if call.split()[3] == "eval")


def node_process(cluster: LocalCluster, node: str) -> OwnProcess:
    return next(p for p in processes.find(NODE_MARK, str(cluster.folder / node)) if is_node_process(p))


def test_an_isolated_node_says_so_to_every_program_until_it_rejoins(
    cluster: LocalCluster, make: Callable[..., LocalCluster], rabbitmq: MakeBelieve
) -> None:
    before = node_process(cluster, "rmq2")
    cluster.act(NodeAction.ISOLATE, "rmq2")
    assert asked(rabbitmq) == ["rmq2@localhost"]
    other = make()
    assert states(other) == states(cluster) == ["running", "isolated", "running"]
    other.act(NodeAction.REJOIN, "rmq2")
    assert states(other) == states(cluster) == ["running"] * 3
    assert asked(rabbitmq) == ["rmq1@localhost", "rmq2@localhost", "rmq2@localhost", "rmq3@localhost"]
    assert node_process(cluster, "rmq2") == before


def test_a_second_isolation_and_a_second_rejoin_ask_rabbitmq_nothing(
    cluster: LocalCluster, rabbitmq: MakeBelieve
) -> None:
    for action in (NodeAction.ISOLATE, NodeAction.REJOIN):
        cluster.act(action, "rmq1")
        calls = rabbitmq.ctl_calls
        cluster.act(action, "rmq1")
        assert rabbitmq.ctl_calls == calls


def test_the_links_are_opened_at_both_ends_but_not_at_nodes_that_are_cut_off_or_frozen(
    make: Callable[..., LocalCluster], rabbitmq: MakeBelieve
) -> None:
    cluster = make(nodes=5)
    cluster.start()
    for node in ("rmq1", "rmq2"):
        cluster.act(NodeAction.ISOLATE, node)
    cluster.act(NodeAction.PAUSE, "rmq3")
    already = len(rabbitmq.ctl_calls)
    cluster.act(NodeAction.REJOIN, "rmq1")
    assert sorted(call.split()[2] for call in rabbitmq.ctl_calls[already:]) == [
        "rmq1@localhost",
        "rmq4@localhost",
        "rmq5@localhost",
    ]
    assert states(cluster) == ["running", "isolated", "paused", "running", "running"]


@pytest.mark.parametrize("bring_back", [NodeAction.START, NodeAction.RESTART, None])
def test_a_start_of_any_kind_connects_an_isolated_node_again(
    cluster: LocalCluster, bring_back: NodeAction | None
) -> None:
    before = node_process(cluster, "rmq3")
    cluster.act(NodeAction.ISOLATE, "rmq3")
    heard: list[Progress] = []
    if bring_back is None:
        cluster.start(heard.append)
        assert any("rmq3 was cut off and rejoins" in p.text for p in heard)
    else:
        cluster.act(bring_back, "rmq3")
    assert states(cluster) == ["running"] * 3
    assert (node_process(cluster, "rmq3") == before) is (bring_back is not NodeAction.RESTART)


@pytest.mark.parametrize("end", [NodeAction.KILL, NodeAction.STOP])
def test_an_isolation_ends_with_the_process_that_was_isolated(cluster: LocalCluster, end: NodeAction) -> None:
    cluster.act(NodeAction.ISOLATE, "rmq2")
    cluster.act(end, "rmq2")
    assert states(cluster) == ["running", "stopped", "running"]
    cluster.act(NodeAction.START, "rmq2")
    assert states(cluster) == ["running"] * 3


@pytest.mark.parametrize("note", [b"", b"1 2\n", b"\xff\x00"])
def test_a_note_of_another_process_is_not_believed(cluster: LocalCluster, note: bytes) -> None:
    (cluster.folder / "rmq1" / "isolated").write_bytes(note)
    assert states(cluster) == ["running"] * 3


def test_a_node_that_is_paused_and_isolated_is_shown_paused_and_stays_isolated_when_it_goes_on(
    cluster: LocalCluster,
) -> None:
    cluster.act(NodeAction.ISOLATE, "rmq1")
    cluster.act(NodeAction.PAUSE, "rmq1")
    assert states(cluster)[0] == "paused"
    cluster.act(NodeAction.UNPAUSE, "rmq1")
    assert states(cluster)[0] == "isolated"
    cluster.act(NodeAction.PAUSE, "rmq1")
    cluster.start()
    assert states(cluster) == ["running"] * 3


def test_a_node_that_does_not_run_or_is_frozen_can_be_neither_isolated_nor_rejoin(cluster: LocalCluster) -> None:
    cluster.act(NodeAction.PAUSE, "rmq1")
    cluster.act(NodeAction.KILL, "rmq2")
    for action in (NodeAction.ISOLATE, NodeAction.REJOIN):
        with pytest.raises(InvalidInputError, match="is paused"):
            cluster.act(action, "rmq1")
        with pytest.raises(InvalidInputError, match="does not run"):
            cluster.act(action, "rmq2")


def test_a_node_without_peers_cannot_be_isolated(make: Callable[..., LocalCluster]) -> None:
    alone = make(nodes=1)
    alone.start()
    with pytest.raises(InvalidInputError, match="no peers"):
        alone.act(NodeAction.ISOLATE, "rmq1")


def test_without_a_majority_to_join_a_rejoin_says_what_the_node_waits_for(cluster: LocalCluster) -> None:
    for node in ("rmq1", "rmq2"):
        cluster.act(NodeAction.ISOLATE, node)
    cluster.act(NodeAction.KILL, "rmq3")
    heard: list[Progress] = []
    cluster.act(NodeAction.REJOIN, "rmq1", heard.append)
    assert heard[-1].text == "rmq1 serves once a majority of the nodes is there"
    assert states(cluster) == ["running", "isolated", "stopped"]


def test_a_cut_that_failed_half_way_is_shown_and_can_be_mended(cluster: LocalCluster, rabbitmq: MakeBelieve) -> None:
    rabbitmq.order("ctl-fails")
    for action in (NodeAction.ISOLATE, NodeAction.REJOIN):
        with pytest.raises(ClusterError, match="eval failed on rmq2"):
            cluster.act(action, "rmq2")
        assert states(cluster) == ["running", "isolated", "running"]
    rabbitmq.countermand("ctl-fails")
    cluster.act(NodeAction.REJOIN, "rmq2")
    assert states(cluster) == ["running"] * 3


def test_a_mnesia_node_that_stays_apart_after_an_isolation_is_stopped_and_started_inside(
    make: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = MakeBelieve(tmp_path / "old", Version(3, 10, 8))
    cluster = make(rabbitmq=old)
    cluster.start()
    cluster.act(NodeAction.ISOLATE, "rmq2")
    monkeypatch.setattr(
        "dmq_core.cluster.readiness.partitioned", lambda *_: not any("start_app" in call for call in old.ctl_calls)
    )
    heard: list[Progress] = []
    cluster.act(NodeAction.REJOIN, "rmq2", heard.append)
    assert [call.split()[-1] for call in old.ctl_calls][-2:] == ["stop_app", "start_app"]
    assert any("stopped and started" in p.text for p in heard)


def test_an_isolation_and_its_end_are_told_within_half_a_second(cluster: LocalCluster) -> None:
    stop = threading.Event()
    heard: list[NodeChange] = []
    ready = threading.Event()

    def listen() -> None:
        for change in cluster.watch(stop):
            heard.append(change)
            ready.set()

    listener = threading.Thread(target=listen)
    listener.start()
    # What the watch sees first cannot be seen from here: a change that it surely tells shows that it is there.
    while not ready.wait(0.2):
        process = node_process(cluster, "rmq3")
        processes.send(process, signal.SIGCONT if processes.frozen(process) else signal.SIGSTOP)
    heard.clear()
    cluster.act(NodeAction.ISOLATE, "rmq1")
    held_at = time.time()
    time.sleep(0.5)
    stop.set()
    listener.join(5)
    told = [change for change in heard if change.node == "rmq1"]
    assert [str(change.state) for change in told] == ["isolated"]
    assert told[0].at - held_at < 0.5
