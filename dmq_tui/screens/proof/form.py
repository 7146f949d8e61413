"""What a proof run is to do, as the console's form has it: its scenario, its question, and the command for it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import CATALOG, PROOF_NAMES, PROOF_USES, ActionKind
from dmq_core.actions.impact import Count, Impact, impact_of
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.majority import Margin
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.proof.scenario import QUEUE_TYPES, ROLES, Scenario, scenario_of
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

RATES = (50, 100, 200, 500, 1000, 2000, 5000)
DURATIONS = (None, 20.0, 30.0, 60.0, 120.0, 300.0)
USUAL_RATE = 500
TARGET_WORDS = {
    "leader": "the node that leads the run's queue",
    "follower": "a node that holds it and does not lead",
    "connected": "the node that the publisher is connected to",
}
_MOVED_WORDS = {
    "leader": "away from the node that leads it",
    "follower": "to a node that holds it and does not lead",
    "connected": "to the node that the publisher is connected to",
}


@dataclass(frozen=True, slots=True)
class ProofForm:
    """One fault under one load; `duration_s` None is as long as that fault needs. `target` may be a node's raw name."""

    fault: ActionKind = NodeAction.KILL
    target: str = "leader"
    rate: int = USUAL_RATE
    duration_s: float | None = None
    queue_type: str = "quorum"

    @property
    def scenario(self) -> Scenario:
        """The run."""
        scenario = scenario_of(self.name, self.target, self.duration_s)
        return replace(scenario, workload=replace(scenario.workload, rate=float(self.rate), queue_type=self.queue_type))

    @property
    def title(self) -> str:
        """`Prove kill leader`, with names still raw."""
        if self.fault is FaultKind.ROLLING_RESTART:
            return "Prove rolling restart"
        return f"Prove {self.name} {self.target}" if self.targeted else f"Prove {self.name}"

    @property
    def name(self) -> str:
        """The word of `--fault`."""
        return PROOF_NAMES[self.fault]

    @property
    def targeted(self) -> bool:
        """Whether the fault happens to a node that is chosen."""
        return PROOF_USES[self.fault].targeted

    def command(self, snapshot: ClusterSnapshot | None) -> str:
        """The `dmq` command that does the same to the cluster as it is now."""
        words = ["dmq proof run", f"--fault {self.name}"]
        words += [] if not self.targeted else [f"--target {visible(self.target)}"]
        words += [] if self.rate == USUAL_RATE else [f"--rate {self.rate}"]
        words += [] if self.duration_s is None else [f"--duration {self.duration_s:g}"]
        words += [] if self.queue_type == "quorum" else [f"--queue-type {self.queue_type}"]
        if snapshot is not None and self.impact(snapshot).margin is Margin.NO_MAJORITY:
            words.append("--allow-majority-loss --force")
        command = " ".join(words)
        return command if snapshot is None else on_cluster(command, snapshot.cluster)

    def impact(self, snapshot: ClusterSnapshot) -> Impact:
        """What it will cause, judged from `snapshot`; a role counts as any node that runs."""
        summary, ending = self._load_sentence(), self._end_sentence()
        victim = self._victim(snapshot)
        if victim is None:
            return Impact(Margin.NO_MAJORITY, 0, len(snapshot.nodes), Count.RUN, summary=summary)
        impact = impact_of(self._action(victim, snapshot), snapshot)
        # What is known of one node is not known of whoever has a role by then.
        target = None if self.target in ROLES else impact.target
        return replace(impact, target=target, summary=summary, ending=ending)

    def _action(self, victim: str, snapshot: ClusterSnapshot) -> Action:
        needs = CATALOG[self.fault].needs
        peer = next((n for n in _running(snapshot) if n != victim), "")
        return Action(
            self.fault,
            victim if "node" in needs else None,
            "the queue" if "queue" in needs else None,
            peer=peer if "peer" in needs else None,
        )

    def _victim(self, snapshot: ClusterSnapshot) -> str | None:
        if self.targeted and self.target not in ROLES:
            return self.target
        return next(iter(_running(snapshot)), None)

    def _load_sentence(self) -> str:
        return (
            f"{self.rate} messages a second for {self.scenario.duration_s:g} s through a {self.queue_type} queue "
            "of the run's own; other queues on the same node feel the fault too."
        )

    def _end_sentence(self) -> str:
        step = self.scenario.steps[0]
        if step.undo_s is None:
            rolls = self.fault is FaultKind.ROLLING_RESTART
            return "Each node is back before the next one goes." if rolls else "It leaves nothing to undo."
        held_s = step.undo_s - step.at_s
        return f"The fault begins after {step.at_s:g} s and is undone {held_s:g} s later, whatever happens."


def target_words(fault: ActionKind, target: str) -> str:
    """What a target means for a fault that takes one; a node's raw name is made safe."""
    of_roles = _MOVED_WORDS if fault is FaultKind.MOVE_LEADER else TARGET_WORDS
    preposition = "to " if fault is FaultKind.MOVE_LEADER else ""
    return of_roles.get(target, f"{preposition}the node {visible(target)}")


def queue_types(fault: ActionKind) -> tuple[str, ...]:
    """The types of queue that a fault makes sense for."""
    return ("quorum",) if PROOF_USES[fault].quorum_only else QUEUE_TYPES


def _running(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    return tuple(n.name for n in snapshot.nodes if n.state is NodeState.RUNNING)


def targets(nodes: Sequence[str]) -> tuple[str, ...]:
    """Whom a fault can hit: roles first, then the nodes by their raw names."""
    return (*ROLES, *(n for n in nodes if n not in ROLES))
