"""The fake's proof runs and loads: simulated traffic and faults, whose records the real judge makes a result of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dmq_core.actions.action import Action, undo_of
from dmq_core.actions.catalog import PROOF_USES, Scaling
from dmq_core.actions.gate import perform
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.connection_manager import Role
from dmq_core.errors import OperationTimeoutError
from dmq_core.observe.events import ActionDetails, Event, Origin, Severity
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.proof.journal.file import JournalClock
from dmq_core.proof.journal.records import (
    DepthRecord,
    FaultRecord,
    FaultStage,
    HealthRecord,
    LeaderRecord,
    PhaseRecord,
    Record,
    RunPhase,
    RunSetup,
)
from dmq_core.proof.judging.judge import judged
from dmq_core.proof.progress import ProofProgress, ProofReport
from dmq_core.proof.result import ProofResult, TimelineMark
from dmq_core.proof.run.fault_injection import FaultOptions, check
from dmq_core.proof.run.live_curves import LiveCurves, with_result
from dmq_core.proof.run.queue_checks import READ_EVERY_S, READS, problems_of
from dmq_core.proof.run.targets import action_for
from dmq_core.proof.scenario import LOAD, Scenario, ScenarioStep
from dmq_core.testing.simulation.broker import HANDED_OVER_S, SILENT_ELECTION_S, STEP_S, SimBroker
from dmq_core.testing.simulation.cluster import BOOT_S, FakeCluster
from dmq_core.testing.simulation.traffic import LOAD_QUEUE, SimTraffic
from dmq_core.text import visible

FINISHES_WITHIN_S: Final = 60.0
DRAINS_WITHIN_S: Final = 10.0
_EACH_S: Final = 9.0
_DOWN_S: Final = 2.0
_SLICES: Final = 480
_BROKEN: Final = {
    NodeAction.KILL: (NodeState.STOPPED, None),
    NodeAction.STOP: (NodeState.STOPPED, HANDED_OVER_S),
    NodeAction.PAUSE: (NodeState.PAUSED, SILENT_ELECTION_S),
    NodeAction.ISOLATE: (NodeState.ISOLATED, SILENT_ELECTION_S),
    NodeAction.DRAIN: (NodeState.DRAINING, HANDED_OVER_S),
}


@dataclass(slots=True)
class _Holding:
    """A fault that holds, of which `node` is told, to be undone `until_s` seconds after the load began."""

    action: Action
    node: str
    until_s: float
    undo: Action
    is_ending: bool = False


class SimProof:
    """A proof run inside the simulation, as `dmq_core.session.protocol.Proof`; its faults are events.

    `look` gives a snapshot of the cluster, by which the run knows whether it is well.
    """

    def __init__(
        self,
        broker: SimBroker,
        scenario: Scenario,
        cluster: FakeCluster,
        look: Callable[[], ClusterSnapshot],
        *,
        allow_majority_loss: bool,
    ) -> None:
        self._broker = broker
        self._scenario = scenario
        self._cluster = cluster
        self._look = look
        self._records: list[Record] = []
        self._marks: list[TimelineMark] = []
        self._holding: list[_Holding] = []
        self._stopped = self._drained = False
        self._published = threading.Event()
        self._result: ProofResult | None = None
        self._is_load = scenario.name == LOAD
        for step in scenario.steps:
            check(cluster, step, FaultOptions(allow_majority_loss=allow_majority_loss))
        with broker.lock:
            self._waiting = [one for step in scenario.steps for one in _single(step, tuple(broker.nodes))]
            self._setup = self._made_setup()
            is_well = self._look_at_health() or self._is_load or allow_majority_loss
            self._traffic = SimTraffic(broker, scenario.workload.rate, self._records, broker.tell)
            self._curves = LiveCurves(_SLICES, JournalClock(lambda: broker.now, lambda: broker.now))
            self._began = broker.now
            self._leader = self._traffic.leader
            self._note_leader()
            self._phase(RunPhase.BEGAN)
            broker.steppers.append(self)
            if self._is_load:
                broker.listeners.append(self._hear)
            if not is_well:
                self._give_up("the cluster is not well, and a run on it was not forced")

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The roles of its connected clients and their nodes."""
        at = (("publisher", Role.PUBLISHING), ("consumer", Role.CONSUMING))
        return tuple((name, node) for name, role in at if (node := self._traffic.node_of(role)) is not None)

    def progress(self) -> ProofProgress:
        """How it does."""
        with self._broker.lock:
            running = self._result is None and not self._drained
            account = with_result(
                self._curves.account(LOAD_QUEUE, self._scenario.workload.rate, running=running),
                self._result,
                self._traffic.node_of(Role.PUBLISHING),
                self._traffic.node_of(Role.CONSUMING),
            )
            doing = "draining the queue" if self._published.is_set() else "under load"
            planned_s, marks = self._scenario.duration_s, tuple(self._marks)
            return ProofProgress(account, self._after, planned_s, marks, doing, self._stopped)

    def stop(self) -> None:
        """Undoes the faults at the next step of the clock, then ends; at once where there are none."""
        self._stopped = True
        with self._broker.lock:
            if not self._scenario.steps:
                self._end_load()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over within so many seconds of the wall."""
        return self._published.wait(timeout_s)

    def finish(self) -> ProofReport:
        """Waits until the clock was moved far enough, drains the queue in simulated time, and has it judged."""
        if not self._published.wait(FINISHES_WITHIN_S):
            raise OperationTimeoutError("the simulated run does not end", "Move its clock on.")
        if not self._drained:
            self._drain()
        with self._broker.lock:
            self._drained = True
            self._remove()
            result = self._result = self._result or judged(self._records, self._setup)
        stem = f"/state/dmq/proofs/{self._scenario.name}"
        return ProofReport(result, (f"{stem}.html", f"{stem}.json"))

    def close(self) -> None:
        """Undoes its faults and ends at once."""
        with self._broker.lock:
            if not self._drained:
                self._give_up("by the user")

    def step(self, now: float, elapsed_s: float) -> None:
        """Moves on to `now`."""
        self._traffic.step(now, elapsed_s)
        if self._traffic.leader != self._leader:
            self._elected()
        if not self._published.is_set():
            self._step_faults()
        traffic = self._traffic.progress()
        if traffic.counts.attempted:
            self._curves.look(traffic)

    # The course of the run.

    @property
    def _after(self) -> float:
        return round(self._broker.now - self._began, 3)

    def _made_setup(self) -> RunSetup:
        return RunSetup(
            run="simulated",
            backend=str(self._broker.backend),
            rabbitmq="4.3.6",
            fault=self._scenario.fault,
            target=self._scenario.target,
            nodes=tuple(self._broker.nodes),
            queues=(LOAD_QUEUE,),
            keys=("load",),
            workload=self._scenario.workload,
            seed=self._scenario.seed,
            cluster=self._broker.name,
        )

    def _step_faults(self) -> None:
        while self._waiting and not self._stopped and self._after >= self._waiting[0].at_s:
            self._inject(self._waiting.pop(0))
        for holding in [h for h in self._holding if self._stopped or h.until_s <= self._after]:
            self._undo(holding)
        is_late = self._after >= self._scenario.duration_s and not self._waiting
        if (self._stopped or is_late) and not self._holding:
            self._end_load()

    def _end_load(self) -> None:
        if self._published.is_set():
            return
        if self._hear in self._broker.listeners:
            self._broker.listeners.remove(self._hear)
        self._traffic.stop_publishing()
        self._phase(RunPhase.PUBLISHED)
        self._published.set()

    def _give_up(self, why: str) -> None:
        for holding in tuple(self._holding):
            self._undo(holding)
        self._phase(RunPhase.INTERRUPTED, why)
        self._end_load()
        self._traffic.end()
        self._drained = True
        self._remove()

    def _remove(self) -> None:
        if self in self._broker.steppers:
            self._broker.steppers.remove(self)

    def _drain(self) -> None:
        """Lets the consumer take what is there, and reads on every node that nothing is left."""
        waited = 0.0
        while waited < DRAINS_WITHIN_S and self._holds_messages():
            self._broker.wait(STEP_S)
            waited += STEP_S
        with self._broker.lock:
            self._traffic.end()
        for number in range(READS):
            self._broker.wait(READ_EVERY_S if number else 0.0)
            with self._broker.lock:
                self._read_depths()
        with self._broker.lock:
            self._look_at_health()
            if not self._traffic.depth:
                self._phase(RunPhase.DRAINED)

    def _holds_messages(self) -> bool:
        # Never in the middle of a move of the clock, or it would depend on the thread when the drain begins.
        with self._broker.lock:
            return bool(self._traffic.undelivered or self._traffic.depth)

    # What is put down.

    def _phase(self, phase: RunPhase, text: str = "") -> None:
        self._records.append(PhaseRecord(self._broker.now, self._broker.now, phase, text))

    def _note_leader(self) -> None:
        self._records.append(LeaderRecord(self._broker.now, self._broker.now, LOAD_QUEUE, self._leader or ""))

    def _note_fault(self, stage: FaultStage, act: str, node: str, text: str = "", *, undo: bool = False) -> None:
        self._records.append(FaultRecord(self._broker.now, self._broker.now, undo, stage, act, node, text))

    def _read_depths(self) -> None:
        now = self._broker.now
        for node in self._broker.nodes.values():
            known = node.serves and node.name in self._setup.nodes
            ready, unacked = (self._traffic.depth, 0) if known else (None, None)
            if node.name in self._setup.nodes:
                self._records.append(DepthRecord(now, now, node.name, LOAD_QUEUE, ready, unacked))

    def _look_at_health(self) -> bool:
        """Puts down how the cluster is; whether it is well."""
        snapshot, now = self._look(), self._broker.now
        problems = problems_of(snapshot)
        self._records.append(HealthRecord(now, now, tuple(node.name for node in snapshot.running), problems))
        return not problems

    def _elected(self) -> None:
        before, self._leader = self._leader, self._traffic.leader
        self._note_leader()
        self._mark("leader", f"leader {before or 'none'} → {self._leader}" if self._leader else f"leader {before} lost")

    def _hear(self, event: Event | None) -> None:
        """Faults by the hand of others are in the account of a load, with the word of the session that does them."""
        if event is None or not isinstance(event.details, ActionDetails):
            return
        done = visible(event.details.done)
        is_undo = event.severity is not Severity.FAULT and event.kind != "node_add"
        self._mark("undo" if is_undo else "fault", done)
        act, node = event.kind.partition("_")[2], event.subject
        if node not in self._broker.nodes:
            node = self._leader or ""
        if not is_undo:
            self._note_fault(FaultStage.ASKED, act, node)
        self._note_fault(FaultStage.BEGAN, act, node, undo=is_undo)
        self._note_fault(FaultStage.HOLDS, act, node, done, undo=is_undo)

    # Faults of its own.

    def _inject(self, step: ScenarioStep) -> None:
        node = self._resolve(step.target) if PROOF_USES[step.fault].targeted else ""
        if step.fault is FaultKind.MOVE_LEADER and node == self._leader:
            node = self._resolve("follower")
        nodes, leader = self._cluster.nodes(), self._leader
        action = action_for(step.fault, node, leader=leader, queue=LOAD_QUEUE, vhost="/", nodes=nodes)
        name, node = str(action.kind), action.node or leader or nodes[0].name
        self._note_fault(FaultStage.ASKED, name, node)
        self._tell(action, node, is_undo=False)
        if isinstance(action.kind, FaultKind):
            perform(self._cluster, action, read_only=False)
        elif action.kind is Scaling.ADD:
            self._broker.add_node(node)
            self._boot(node, lambda: self._broker.grow_onto(node))
        else:
            self._broker.set_state(node, *_BROKEN[NodeAction(name)])
        self._note_fault(FaultStage.BEGAN, name, node)
        self._note_fault(FaultStage.HOLDS, name, node, self._evidence(action, node))
        undo = undo_of(action, leader)
        if undo is not None:
            self._holding.append(_Holding(action, node, step.undo_s or 0.0, undo))

    def _evidence(self, action: Action, node: str) -> str:
        if action.kind in (FaultKind.MOVE_LEADER, FaultKind.REBALANCE):
            return f"{self._traffic.leader} leads the queue"
        if isinstance(action.kind, FaultKind):
            return f"the nodes tell of it: {action.title}"
        return f"{self._broker.backend} says that it is {self._broker.nodes[node].state}"

    def _undo(self, holding: _Holding) -> None:
        undo, node = holding.undo, holding.node
        if holding.is_ending:
            return
        holding.is_ending = True
        self._note_fault(FaultStage.BEGAN, str(undo.kind), node, undo=True)
        self._tell(undo, node, is_undo=True)
        if undo.kind is NodeAction.START:
            self._boot(node, lambda: self._undone(holding))
            return
        if isinstance(undo.kind, FaultKind):
            perform(self._cluster, undo, read_only=False)
        elif undo.kind is Scaling.REMOVE:
            self._broker.set_state(node, NodeState.STOPPED)
            self._broker.remove_node(node)
        else:
            self._broker.set_state(node, NodeState.RUNNING)
        self._undone(holding)

    def _undone(self, holding: _Holding) -> None:
        self._holding.remove(holding)
        undo = holding.undo
        self._note_fault(FaultStage.HOLDS, str(undo.kind), holding.node, undo.title, undo=True)

    def _boot(self, node: str, then: Callable[[], None]) -> None:
        def serve() -> None:
            if node in self._broker.nodes and self._broker.nodes[node].state is NodeState.STARTING:
                self._broker.set_state(node, NodeState.RUNNING)
            then()

        self._broker.set_state(node, NodeState.STARTING)
        self._broker.later(BOOT_S, serve)

    def _tell(self, action: Action, node: str, *, is_undo: bool) -> None:
        severity = Severity.PLAIN if is_undo else Severity.FAULT
        self._broker.say(Origin.YOU, severity, action.event_kind, node, ActionDetails(node, action.done))
        self._mark("undo" if is_undo else "fault", visible(action.done))

    def _mark(self, kind: str, text: str) -> None:
        self._marks.append(TimelineMark(self._after, kind, text))

    def _resolve(self, target: str) -> str:
        others = [node.name for node in self._broker.serving() if node.name != self._leader]
        roles = {
            "leader": self._leader,
            "follower": others[-1],
            "connected": self._traffic.node_of(Role.PUBLISHING),
        }
        return roles.get(target, target) or others[0]


def _single(step: ScenarioStep, nodes: tuple[str, ...]) -> list[ScenarioStep]:
    """`step` itself, or a rolling restart as one stop for each node."""
    if step.fault is not FaultKind.ROLLING_RESTART:
        return [step]
    begins = [(step.at_s + number * _EACH_S, node) for number, node in enumerate(nodes)]
    return [ScenarioStep(at_s, NodeAction.STOP, node, at_s + _DOWN_S) for at_s, node in begins]
