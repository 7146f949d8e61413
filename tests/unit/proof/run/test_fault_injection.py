"""Faults of a proof run: who may be hit, who is, and that everything that was begun is undone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dmq_core.actions.catalog import ActionKind, Scaling
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeChange, NodeState
from dmq_core.connection_manager import Role
from dmq_core.errors import ClusterError, InvalidInputError, NotReachableError, RefusedError
from dmq_core.progress import no_progress
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import FaultRecord, FaultStage, RunSetup
from dmq_core.proof.run.fault_injection import FaultInjector, FaultOptions, FaultSequence, check
from dmq_core.proof.run.targets import other_end
from dmq_core.proof.scenario import ScenarioStep
from dmq_core.testing import FakeSession


class Hearsay:
    """What a witness would know, said by the test."""

    def __init__(self, leader: str | None = "rmq2", connected: str | None = "rmq1") -> None:
        self._leader = leader
        self._connected = connected

    def leader(self, _queue: str) -> str | None:
        return self._leader

    def node_of(self, _role: Role) -> str | None:
        return self._connected

    def await_leader(self, _queue: str, _node: str, timeout_s: float) -> bool:
        return timeout_s > 0

    def first_loss_at(self, _node: str, _since: float) -> float | None:
        return None

    def await_change(self, node: str, states: Sequence[NodeState], since: float, timeout_s: float) -> NodeChange:
        return NodeChange(time.time(), node, states[0])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    session = FakeSession()
    yield session.cluster
    session.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "run.journal", RunSetup(run="r")) as opened:
        yield opened


def injector(
    cluster: Cluster, journal: Journal, recorder: object | None = None, options: FaultOptions | None = None
) -> FaultInjector:
    hearsay = recorder or Hearsay()
    return FaultInjector(cluster, "q", journal, hearsay, options or FaultOptions(), no_progress)  # type: ignore[arg-type]


def steps_of(journal: Journal) -> list[tuple[bool, FaultStage, str, str]]:
    journal.close()
    records = read_journal(journal.path).records()
    return [(r.undo, r.stage, r.action, r.node) for r in records if isinstance(r, FaultRecord)]


def running(cluster: Cluster) -> list[str]:
    return [node.name for node in cluster.nodes() if node.state is NodeState.RUNNING]


@pytest.mark.parametrize(
    ("target", "targeted_nodes"), [("leader", "rmq2"), ("connected", "rmq1"), ("follower", "rmq3"), ("rmq1", "rmq1")]
)
def test_the_target_is_found_when_the_fault_begins(
    cluster: Cluster, journal: Journal, target: str, targeted_nodes: str
) -> None:
    struck = injector(cluster, journal)
    struck.inject(ScenarioStep(0, NodeAction.KILL, target, 0), 0.0, threading.Event())
    assert struck.targeted_nodes == [targeted_nodes]


def test_a_fault_is_told_and_undone_in_order(cluster: Cluster, journal: Journal) -> None:
    struck = injector(cluster, journal)
    struck.inject(ScenarioStep(0, NodeAction.PAUSE, "leader", 0), 0.0, threading.Event())
    assert running(cluster) == ["rmq1", "rmq2", "rmq3"]
    assert steps_of(journal) == [
        (False, FaultStage.ASKED, "pause", "rmq2"),
        (False, FaultStage.BEGAN, "pause", "rmq2"),
        (False, FaultStage.HOLDS, "pause", "rmq2"),
        (True, FaultStage.BEGAN, "unpause", "rmq2"),
        (True, FaultStage.HOLDS, "unpause", "rmq2"),
    ]


@pytest.mark.parametrize(
    ("fault", "target", "targeted_nodes", "undo"),
    [
        (FaultKind.MEMORY_ALARM, "leader", "rmq2", "clear-memory-alarm"),
        (FaultKind.DISK_ALARM, "rmq3", "rmq3", "clear-disk-alarm"),
        (Scaling.ADD, "", "rmq4", "remove"),
    ],
)
def test_a_fault_of_the_whole_cluster_is_told_and_undone_too(
    cluster: Cluster, journal: Journal, fault: ActionKind, target: str, targeted_nodes: str, undo: str
) -> None:
    struck = injector(cluster, journal)
    struck.inject(ScenarioStep(0, fault, target, 0), 0.0, threading.Event())
    assert running(cluster) == ["rmq1", "rmq2", "rmq3"]
    assert [(stage, act) for _, stage, act, node in steps_of(journal) if node == targeted_nodes] == [
        (FaultStage.ASKED, str(fault)),
        (FaultStage.BEGAN, str(fault)),
        (FaultStage.HOLDS, str(fault)),
        (FaultStage.BEGAN, undo),
        (FaultStage.HOLDS, undo),
    ]


def test_a_leader_that_moves_away_goes_to_a_follower_and_back(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    moved: list[str | None] = []
    monkeypatch.setattr(cluster, "inject", lambda fault, _progress: moved.append(fault.node))
    injector(cluster, journal).inject(ScenarioStep(0, FaultKind.MOVE_LEADER, "leader", 0), 0.0, threading.Event())
    assert moved == ["rmq3", "rmq2"]


def test_a_link_is_cut_to_a_node_that_does_not_lead_and_mended(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    caused: list[tuple[str, str | None, str | None]] = []
    monkeypatch.setattr(cluster, "inject", lambda fault, _progress: caused.append((fault.kind, fault.node, fault.peer)))
    for fault in (FaultKind.CUT_LINK, FaultKind.SLOW_LINK):
        injector(cluster, journal).inject(ScenarioStep(0, fault, "connected", 0), 0.0, threading.Event())
    assert caused == [
        ("cut-link", "rmq1", "rmq3"),
        ("mend-link", "rmq1", "rmq3"),
        ("slow-link", "rmq1", None),
        ("mend-link", "rmq1", None),
    ]


def test_the_other_end_of_a_link_does_not_lead_as_far_as_that_can_be(cluster: Cluster) -> None:
    nodes = cluster.nodes()
    assert [other_end(node, "rmq3", nodes) for node in ("rmq1", "rmq2", "rmq3")] == ["rmq2", "rmq1", "rmq2"]
    assert other_end("rmq1", "rmq2", nodes[:2]) == "rmq2"
    assert other_end("rmq1", None, nodes[:1]) is None


def test_an_alarm_that_cannot_be_undone_is_told_with_what_to_do(
    cluster: Cluster, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject = cluster.inject

    def stubborn(fault: Fault, *_: object) -> str | None:
        if fault.kind is FaultKind.CLEAR_MEMORY_ALARM:
            raise ClusterError("no luck")
        return inject(fault)

    monkeypatch.setattr(cluster, "inject", stubborn)
    monkeypatch.setattr("dmq_core.proof.run.fault_injection._PAUSE_S", 0.0)
    struck = injector(cluster, journal)
    struck.inject(ScenarioStep(0, FaultKind.MEMORY_ALARM, "leader", 0), 0.0, threading.Event())
    assert struck.problems == [
        "Memory alarm at rmq2 is not undone: no luck; 'dmq fault do clear-memory-alarm --node rmq2' tries again"
    ]


def test_a_run_that_ends_early_undoes_at_once(cluster: Cluster, journal: Journal) -> None:
    lane = FaultSequence(
        injector(cluster, journal), (ScenarioStep(0, NodeAction.PAUSE, "leader", 600),), time.monotonic(), skips=False
    )
    lane.start()
    deadline = time.monotonic() + 10
    while running(cluster) == ["rmq1", "rmq2", "rmq3"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running(cluster) == ["rmq1", "rmq3"]
    lane.stopped.set()
    lane.join(20)
    assert not lane.is_alive()
    assert running(cluster) == ["rmq1", "rmq2", "rmq3"]


def test_a_fault_that_fails_half_way_is_undone_and_told(
    cluster: Cluster, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = cluster.act

    def half(action: NodeAction, node: str, *rest: object) -> None:
        act(action, node)
        if action is NodeAction.KILL:
            raise ClusterError("half way")

    monkeypatch.setattr(cluster, "act", half)
    with pytest.raises(ClusterError, match="half way"):
        injector(cluster, journal).inject(ScenarioStep(0, NodeAction.KILL, "leader", 0), 0.0, threading.Event())
    assert running(cluster) == ["rmq1", "rmq2", "rmq3"]
    assert (False, FaultStage.FAILED, "kill", "rmq2") in steps_of(journal)


def test_an_undo_that_fails_is_tried_again_and_told_with_what_to_do(
    cluster: Cluster, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, tried = cluster.act, []

    def stubborn(action: NodeAction, node: str, *rest: object) -> None:
        if action is NodeAction.UNPAUSE:
            tried.append(node)
            raise ClusterError("no luck")
        act(action, node)

    monkeypatch.setattr(cluster, "act", stubborn)
    monkeypatch.setattr("dmq_core.proof.run.fault_injection._PAUSE_S", 0.0)
    struck = injector(cluster, journal)
    struck.inject(ScenarioStep(0, NodeAction.PAUSE, "leader", 0), 0.0, threading.Event())
    assert tried == ["rmq2"] * 3
    assert struck.problems == ["rmq2 is not back: no luck; 'dmq node unpause rmq2' tries again"]


def test_the_majority_is_never_lost_unless_that_was_asked_for(cluster: Cluster, journal: Journal) -> None:
    cluster.act(NodeAction.PAUSE, "rmq3")
    step = ScenarioStep(0, NodeAction.PAUSE, "leader", 0)
    with pytest.raises(RefusedError, match="no majority of the 3 nodes") as refused:
        check(cluster, step, FaultOptions())
    assert "rmq3 is paused; 'dmq doctor' tells how to undo that" in refused.value.hint
    struck = injector(cluster, journal)
    with pytest.raises(RefusedError, match="Pause rmq2: no majority"):
        struck.inject(step, 0.0, threading.Event())
    assert running(cluster) == ["rmq1", "rmq2"]
    injector(cluster, journal, options=FaultOptions(allow_majority_loss=True)).inject(step, 0.0, threading.Event())


def test_a_lane_of_random_faults_leaves_out_what_would_cost_the_majority(cluster: Cluster, journal: Journal) -> None:
    cluster.act(NodeAction.PAUSE, "rmq3")
    struck = injector(cluster, journal)
    lane = FaultSequence(struck, (ScenarioStep(0, NodeAction.PAUSE, "leader", 0),), time.monotonic(), skips=True)
    lane.start()
    lane.join(20)
    assert lane.error is None
    assert struck.targeted_nodes == []


def test_a_lane_of_random_faults_hits_no_node_that_another_one_holds_and_outlives_what_fails(
    cluster: Cluster, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    struck, done = injector(cluster, journal), threading.Event()
    holding = threading.Thread(
        target=struck.inject,
        args=(ScenarioStep(0, FaultKind.MEMORY_ALARM, "rmq2", 600), 600.0, done),
        kwargs={"alone": True},
    )
    holding.start()
    deadline = time.monotonic() + 10
    while "rmq2" not in struck.targeted_nodes and time.monotonic() < deadline:
        time.sleep(0.01)
    monkeypatch.setattr("dmq_core.proof.run.fault_injection.REST_S", 0.0)
    steps = (
        ScenarioStep(0, NodeAction.PAUSE, "rmq2", 0),
        ScenarioStep(0, FaultKind.MOVE_LEADER, "rmq3", 0),
        ScenarioStep(0, NodeAction.PAUSE, "rmq1", 0),
    )
    lane = FaultSequence(struck, steps, time.monotonic(), skips=True)
    lane.start()
    lane.join(20)
    done.set()
    holding.join(20)
    assert (lane.error, struck.targeted_nodes) == (None, ["rmq2", "rmq3", "rmq1"])
    told = [(stage, act) for undo, stage, act, _ in steps_of(journal) if not undo and stage is FaultStage.FAILED]
    assert told == [(FaultStage.FAILED, "move-leader")]


def test_a_rolling_restart_comes_to_every_node_and_to_the_leader_last(
    cluster: Cluster, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmq_core.proof.run.fault_injection.REST_S", 0.0)
    struck = injector(cluster, journal)
    struck.inject(ScenarioStep(0, FaultKind.ROLLING_RESTART, ""), None, threading.Event())
    assert struck.targeted_nodes == ["rmq1", "rmq3", "rmq2"]
    assert running(cluster) == ["rmq1", "rmq2", "rmq3"]


def test_who_may_not_do_it_is_told_before_anything_is_done(cluster: Cluster) -> None:
    with pytest.raises(RefusedError, match="read-only"):
        check(cluster, ScenarioStep(0, NodeAction.KILL, "leader", 1), FaultOptions(read_only=True))
    with pytest.raises(InvalidInputError, match="no node 'rmq9'"):
        check(cluster, ScenarioStep(0, NodeAction.KILL, "rmq9", 1), FaultOptions())


def test_nobody_is_hit_where_nobody_knows_the_target(cluster: Cluster, journal: Journal) -> None:
    struck = injector(cluster, journal, Hearsay(leader=None))
    with pytest.raises(NotReachableError, match="nobody knows who the leader is"):
        struck.inject(ScenarioStep(0, NodeAction.KILL, "leader", 0), 0.0, threading.Event())
    assert struck.targeted_nodes == []
