"""Faults by anybody's hand come into a load's journal under their name, with the cluster's evidence, and undone."""

from __future__ import annotations

import time
from pathlib import Path

from judged_records import evidence_of

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import NodeAction, NodeChange, NodeState
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import RunPhase, RunSetup
from dmq_core.proof.judging.evidence import Evidence
from dmq_core.proof.run.external_faults import ExternalNodeFaults

KILL, START = Action(NodeAction.KILL, "rmq2"), Action(NodeAction.START, "rmq2")


class Story:
    """A journal with a bystander, and what they make of it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "a.journal"
        self.journal = Journal.create(self.path, RunSetup("6f0c", nodes=("rmq1", "rmq2", "rmq3"), queues=("q",)))
        self.journal.append_phase(RunPhase.BEGAN)
        self.node_faults = ExternalNodeFaults(self.journal, "docker", lambda _node, since: since + 0.001)

    def change(self, state: NodeState, node: str = "rmq2") -> None:
        self.node_faults.node_changed(NodeChange(time.time(), node, state))

    def evidence(self) -> Evidence:
        self.journal.close()
        reading = read_journal(self.path)
        return evidence_of(reading.records(), reading.setup)


def test_an_announced_kill_has_its_name_its_evidence_and_its_end(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.node_faults.announce(KILL)
    story.change(NodeState.STOPPED)
    story.node_faults.announce(START)
    story.change(NodeState.STARTING)
    story.change(NodeState.RUNNING)
    (fault,) = story.evidence().faults
    assert (fault.action, fault.node, fault.text) == ("kill", "rmq2", "docker says that it is stopped")
    assert fault.asked_s <= (fault.began_s or -1) <= (fault.held_s or -1) <= (fault.undone_s or -1)


def test_what_somebody_else_does_is_named_by_the_state_that_shows(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.change(NodeState.PAUSED)
    story.change(NodeState.PAUSED)
    story.change(NodeState.RUNNING)
    story.change(NodeState.STOPPED, "rmq3")
    faults = story.evidence().faults
    assert [(f.action, f.node, f.undone_s is not None) for f in faults] == [
        ("pause", "rmq2", True),
        ("stop", "rmq3", False),
    ]
    assert all(f.held_s is not None for f in faults)


def test_an_act_that_failed_is_no_fault_that_held(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.node_faults.announce(KILL)
    story.node_faults.announce_failure(KILL, "docker does not answer")
    (fault,) = story.evidence().faults
    assert (fault.failed, fault.held_s) == ("docker does not answer", None)


def test_a_paused_node_that_is_killed_is_two_faults(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.change(NodeState.PAUSED)
    story.node_faults.announce(KILL)
    story.change(NodeState.STOPPED)
    story.change(NodeState.RUNNING)
    assert [f.action for f in story.evidence().faults] == ["pause", "kill"]
