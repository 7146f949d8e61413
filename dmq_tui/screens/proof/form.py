"""What a proof run is to do, as the console's form has it: its scenario, its question, and the command for it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dmq_core.actions.impact import Impact, Margin, impact_of, impact_of_addition, impact_of_fault
from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import DELAY_MS, FaultKind, needs_of
from dmq_core.cluster.faults.model import Fault as ClusterFault
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.proof.acts import STATES
from dmq_core.proof.scenario import QUEUE_TYPES, QUORUM_ONLY, ROLES, UNTARGETED, Fault, Scenario, scenario_of
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

RATES = (50, 100, 200, 500, 1000, 2000, 5000)
DURATIONS = (None, 20.0, 30.0, 60.0, 120.0, 300.0)
USUAL_RATE = 500
FAULT_WORDS = {
    Fault.KILL: "as kill -9 does, then start it again",
    Fault.STOP: "in good order, then start it again",
    Fault.PAUSE: "it keeps its connections and says nothing",
    Fault.ISOLATE: "cut it off from its peers, not from clients",
    Fault.DRAIN: "maintenance: it gives leaders and clients away",
    Fault.ROLLING: "stop and start every node, one after the other",
    Fault.MEMORY_ALARM: "every publisher is blocked until it ends",
    Fault.DISK_ALARM: "every publisher is blocked until it ends",
    Fault.MOVE_LEADER: "the queue's leader goes, and comes back",
    Fault.REBALANCE: "leaders are spread evenly over the nodes",
    Fault.CUT_LINK: "it and one other node do not reach each other",
    Fault.SLOW_LINK: f"what it and the others send waits up to {DELAY_MS} ms",
    Fault.SCALE: "queues grow onto a new node, and leave it again",
}
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
UNTARGETED_WORDS = {
    Fault.ROLLING: "every node, in turn",
    Fault.REBALANCE: "the leaders of all queues",
    Fault.SCALE: "a node more",
}


@dataclass(frozen=True, slots=True)
class ProofForm:
    """One fault under one load; `duration_s` None is as long as that fault needs. `target` may be a node's raw name."""

    fault: Fault = Fault.KILL
    target: str = "leader"
    rate: int = USUAL_RATE
    duration_s: float | None = None
    queue_type: str = "quorum"

    @property
    def scenario(self) -> Scenario:
        """The run."""
        scenario = scenario_of(self.fault, self.target, self.duration_s)
        return replace(scenario, workload=replace(scenario.workload, rate=float(self.rate), queue_type=self.queue_type))

    @property
    def title(self) -> str:
        """`Prove kill leader`, with names still raw."""
        if self.fault is Fault.ROLLING:
            return "Prove rolling restart"
        return f"Prove {self.fault}" if self.fault in UNTARGETED else f"Prove {self.fault} {self.target}"

    def command(self, snapshot: ClusterSnapshot | None) -> str:
        """The `dmq` command that does the same to the cluster as it is now."""
        words = ["dmq proof run", f"--fault {self.fault}"]
        words += [] if self.fault in UNTARGETED else [f"--target {visible(self.target)}"]
        words += [] if self.rate == USUAL_RATE else [f"--rate {self.rate}"]
        words += [] if self.duration_s is None else [f"--duration {self.duration_s:g}"]
        words += [] if self.queue_type == "quorum" else [f"--queue-type {self.queue_type}"]
        if snapshot is not None and self.impact(snapshot).margin is Margin.NO_MAJORITY:
            words.append("--allow-majority-loss --force")
        command = " ".join(words)
        return command if snapshot is None else on_cluster(command, snapshot.cluster)

    def impact(self, snapshot: ClusterSnapshot) -> Impact:
        """What it will cause, judged from `snapshot`; a role counts as any node that runs."""
        sentences = [self._load_sentence()]
        victim = self._victim(snapshot)
        if victim is None:
            return Impact(Margin.NO_MAJORITY, (*sentences, "No node runs: no majority."))
        told = self._told(victim, snapshot)
        sentences += [*told.sentences, self._end_sentence()]
        return Impact(told.margin, tuple(sentences))

    def _told(self, victim: str, snapshot: ClusterSnapshot) -> Impact:
        if self.fault is Fault.SCALE:
            return impact_of_addition(snapshot)
        if self.fault is Fault.ROLLING or self.fault in STATES:
            action = NodeAction.STOP if self.fault is Fault.ROLLING else NodeAction(str(self.fault))
            told = impact_of(NodeOperation(action, victim), snapshot)
            # What is known of one node is not known of whoever has a role by then.
            anyone = self.fault is Fault.ROLLING or self.target in ROLES
            return replace(told, sentences=told.sentences[1:]) if anyone else told
        return impact_of_fault(self._cluster_fault(victim, snapshot), snapshot)

    def _cluster_fault(self, victim: str, snapshot: ClusterSnapshot) -> ClusterFault:
        kind = FaultKind(str(self.fault))
        needs = needs_of(kind)
        peer = next((n for n in _running(snapshot) if n != victim), "")
        return ClusterFault(
            kind,
            victim if "node" in needs else None,
            "the queue" if "queue" in needs else None,
            peer=peer if "peer" in needs else None,
        )

    def _victim(self, snapshot: ClusterSnapshot) -> str | None:
        if self.fault not in UNTARGETED and self.target not in ROLES:
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
            rolls = self.fault is Fault.ROLLING
            return "Each node is back before the next one goes." if rolls else "It leaves nothing to undo."
        held_s = step.undo_s - step.at_s
        return f"The fault begins after {step.at_s:g} s and is undone {held_s:g} s later, whatever happens."


def target_words(fault: Fault, target: str) -> str:
    """What a target means for a fault that takes one; a node's raw name is made safe."""
    of_roles = _MOVED_WORDS if fault is Fault.MOVE_LEADER else TARGET_WORDS
    preposition = "to " if fault is Fault.MOVE_LEADER else ""
    return of_roles.get(target, f"{preposition}the node {visible(target)}")


def queue_types(fault: Fault) -> tuple[str, ...]:
    """The types of queue that a fault makes sense for."""
    return ("quorum",) if fault in QUORUM_ONLY else QUEUE_TYPES


def _running(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    return tuple(n.name for n in snapshot.nodes if n.state is NodeState.RUNNING)


def targets(nodes: Sequence[str]) -> tuple[str, ...]:
    """Whom a fault can hit: roles first, then the nodes by their raw names."""
    return (*ROLES, *(n for n in nodes if n not in ROLES))
