"""What people do to a whole cluster while a load runs comes into its journal, with the nodes' own word, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from judged_records import evidence_of

from dmq_core.actions.action import Action, action_of
from dmq_core.actions.catalog import Scaling
from dmq_core.actions.gate import perform
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import NodeAction
from dmq_core.errors import ClusterError, DmqError
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import RunPhase, RunSetup
from dmq_core.proof.judging.evidence import ObservedFault
from dmq_core.proof.run import external_faults as beside_module
from dmq_core.proof.run.external_faults import ExternalClusterFaults
from dmq_core.testing import FakeSession

ALARM = Action(FaultKind.MEMORY_ALARM, "rmq2")
CUT = Action(FaultKind.CUT_LINK, "rmq3", peer="rmq1")
SLOW = Action(FaultKind.SLOW_LINK, "rmq2")


class Story:
    """A simulated cluster, a load's journal, and what its evidence is."""

    def __init__(self, path: Path) -> None:
        self.session = FakeSession()
        self.cluster = self.session.cluster
        self.path = path / "a.journal"
        setup = RunSetup("6f0c", nodes=("rmq1", "rmq2", "rmq3"), queues=("dmq.load",))
        self.journal = Journal.create(self.path, setup)
        self.began = time.monotonic()
        self.journal.append_phase(RunPhase.BEGAN)
        self.cluster_faults = ExternalClusterFaults(self.journal, self.cluster, "dmq.load", "/")

    def do(self, action: Action) -> None:
        with self.cluster_faults.recording_fault(action):
            perform(self.cluster, action, read_only=False)

    def undo(self, action: Action) -> None:
        assert action.undo is not None
        self.do(action.undo)

    def faults(self) -> tuple[ObservedFault, ...]:
        self.journal.close()
        reading = read_journal(self.path)
        return evidence_of(reading.records(), reading.setup).faults


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    monkeypatch.setattr(beside_module, "leader_of", lambda _cluster, _queue, _host: "rmq1")
    matching = Story(tmp_path)
    yield matching
    matching.session.close()


def test_an_alarm_has_its_name_the_nodes_word_and_its_end(story: Story) -> None:
    story.do(ALARM)
    story.undo(ALARM)
    (fault,) = story.faults()
    assert (fault.action, fault.node) == ("memory-alarm", "rmq2")
    assert fault.text == "the nodes tell of it: Memory alarm at rmq2"
    assert fault.asked_s <= (fault.began_s or -1) == (fault.held_s or -1) <= (fault.undone_s or -1)


def test_a_fault_is_over_when_it_is_undone_however_late_the_nodes_tell(story: Story) -> None:
    story.do(ALARM)
    with story.session.script.hold("active_faults") as gate:
        threading.Timer(0.3, gate.set).start()
        story.undo(ALARM)
        ended = time.monotonic()
    (fault,) = story.faults()
    assert fault.undone_s is not None
    assert fault.undone_s < ended - story.began - 0.25


def test_each_fault_of_a_node_ends_with_what_undoes_that_one(story: Story) -> None:
    story.do(ALARM)
    story.do(Action(FaultKind.CUT_LINK, "rmq2", peer="rmq1"))
    story.undo(ALARM)
    assert [(f.action, f.undone_s is not None) for f in story.faults()] == [("memory-alarm", True), ("cut-link", False)]


def test_a_link_is_mended_from_either_end(story: Story) -> None:
    story.do(CUT)
    (active,) = story.cluster.active_faults()
    assert active.node == "rmq1"
    story.undo(action_of(active))
    (fault,) = story.faults()
    assert (fault.action, fault.node, fault.undone_s is not None) == ("cut-link", "rmq3", True)


def test_slow_links_are_over_once_the_last_one_is_mended(story: Story) -> None:
    story.do(SLOW)
    first, second = story.cluster.active_faults()
    story.undo(action_of(first))
    assert SLOW in story.cluster_faults._active_faults
    story.undo(action_of(second))
    (fault,) = story.faults()
    assert (fault.action, fault.node, fault.undone_s is not None) == ("slow-link", "rmq2", True)


@pytest.mark.parametrize(
    ("node", "after", "ended"),
    [
        ("rmq2", NodeAction.KILL, {"memory-alarm", "slow-link"}),
        ("rmq2", NodeAction.ISOLATE, {"slow-link"}),
        ("rmq2", NodeAction.PAUSE, set()),
        ("rmq3", NodeAction.STOP, {"slow-link"}),
    ],
)
def test_a_node_that_is_back_has_lost_what_a_new_start_ends(
    story: Story, node: str, after: NodeAction, ended: set[str]
) -> None:
    story.do(ALARM)
    story.do(Action(FaultKind.SLOW_LINK, "rmq2", peer="rmq3"))
    story.cluster_faults.node_returned(node, after)
    assert {f.action for f in story.faults() if f.undone_s is not None} == ended


def test_a_fault_that_failed_says_why_and_one_without_evidence_has_none(story: Story) -> None:
    story.session.script.fail_next("inject", ClusterError("rmq2 does not answer"))
    with pytest.raises(DmqError):
        story.do(ALARM)
    story.session.script.fail_next("active_faults", ClusterError("rmq1 does not answer"))
    story.do(ALARM)
    failed, silent = story.faults()
    assert (failed.failed, failed.held_s) == ("rmq2 does not answer", None)
    assert (silent.failed, silent.text, silent.held_s is not None) == ("", "", True)


def test_an_undo_that_failed_is_told_of_the_fault_that_it_was_to_end(story: Story) -> None:
    story.do(ALARM)
    story.session.script.fail_next("inject", ClusterError("rmq2 does not answer"))
    with pytest.raises(DmqError):
        story.undo(ALARM)
    (fault,) = story.faults()
    assert (fault.undone_s, fault.undo_failed) == (None, "rmq2 does not answer")


def test_only_the_loads_own_leader_is_a_fault_of_the_load(story: Story) -> None:
    story.session.broker.declare_queue("dmq.load", leader="rmq3")
    story.do(Action(FaultKind.MOVE_LEADER, "rmq1", "orders"))
    story.do(Action(FaultKind.MOVE_LEADER, "rmq1", "dmq.load"))
    story.do(Action(FaultKind.REBALANCE))
    said = "rmq1 leads the queue, as the management API tells"
    assert [(f.action, f.node, f.text) for f in story.faults()] == [
        ("move-leader", "rmq1", said),
        ("rebalance", "rmq1", said),
    ]


def test_a_node_more_is_a_fault_that_its_removal_ends(story: Story) -> None:
    story.do(Action(Scaling.ADD, "rmq4"))
    story.do(Action(Scaling.REMOVE, "rmq4"))
    assert story.cluster_faults.is_leaving("rmq4")
    (fault,) = story.faults()
    assert (fault.action, fault.node, fault.text) == ("add", "rmq4", "docker shows it as running")
    assert fault.undone_s is not None


def test_a_node_less_is_a_fault_unless_it_stays(story: Story) -> None:
    story.session.script.fail_next("remove_node", ClusterError("queues are only on it"))
    with pytest.raises(DmqError):
        story.do(Action(Scaling.REMOVE, "rmq3"))
    assert not story.cluster_faults.is_leaving("rmq3")
    story.do(Action(Scaling.REMOVE, "rmq3"))
    failed, gone = story.faults()
    assert failed.failed == "queues are only on it"
    assert (gone.action, gone.text) == ("remove", "docker knows it no more")


def test_after_the_load_nothing_is_put_down(story: Story) -> None:
    story.cluster_faults.stop()
    story.do(ALARM)
    assert story.faults() == ()
    assert story.journal.failure is None
