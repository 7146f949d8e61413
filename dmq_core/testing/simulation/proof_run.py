"""The fake's proof runs and loads: a `SimLoad`, faults inside the simulation, and a verdict from both."""

from __future__ import annotations

import threading
from typing import Final

from dmq_core.cluster.faults.model import Fault as ClusterFault
from dmq_core.cluster.protocol import NodeState
from dmq_core.errors import OperationTimeoutError, RefusedError
from dmq_core.management.models import EntityKey
from dmq_core.observe.events import Event, Origin, Severity
from dmq_core.proof.acts import Act, act_for
from dmq_core.proof.progress import LoadAccount, ProofProgress, ProofReport
from dmq_core.proof.result import Account, Curves, Duplicates, ProofResult, Timeline, TimelineMark, Verdict
from dmq_core.proof.scenario import LOAD, UNTARGETED, Fault, Scenario, ScenarioStep
from dmq_core.testing.simulation.broker import HANDED_OVER_S, SILENT_ELECTION_S, SimBroker
from dmq_core.testing.simulation.cluster import BOOT_S, FakeCluster
from dmq_core.testing.simulation.load import LOAD_QUEUE, SimLoad
from dmq_core.text import visible

FINISHES_WITHIN_S: Final = 60.0
_EACH_S: Final = 9.0
_DOWN_S: Final = 2.0
_BROKEN: Final = {
    Fault.KILL: (NodeState.STOPPED, None),
    Fault.STOP: (NodeState.STOPPED, HANDED_OVER_S),
    Fault.PAUSE: (NodeState.PAUSED, SILENT_ELECTION_S),
    Fault.ISOLATE: (NodeState.ISOLATED, SILENT_ELECTION_S),
    Fault.DRAIN: (NodeState.DRAINING, HANDED_OVER_S),
}


class SimProof:
    """A proof run inside the simulation, as `dmq_core.session.protocol.Proof`; its faults are part of the story."""

    def __init__(
        self, broker: SimBroker, scenario: Scenario, cluster: FakeCluster, *, allow_majority_loss: bool
    ) -> None:
        self._broker = broker
        self._scenario = scenario
        self._cluster = cluster
        self._marks: list[TimelineMark] = []
        self._waiting = [one for step in scenario.steps for one in _single(step, tuple(broker.nodes))]
        self._down: list[tuple[float, Act, ClusterFault | None]] = []
        self._stopped = False
        self._published = threading.Event()
        with broker.lock:
            down = [n for n in broker.nodes.values() if not n.serves]
            is_load = scenario.name == LOAD
            if not is_load and 2 * (len(broker.serving()) - 1) <= len(broker.nodes) and not allow_majority_loss:
                raise RefusedError(f"{scenario.title}: no majority of the nodes would be left", "Ask for it.")
            self._problem = f"the cluster is not well: {down[0].name} is {down[0].state}" if down else ""
            self._load = SimLoad(broker, scenario.workload.rate)
            self._began = broker.now
            self._leader = self._leads()
            broker.steppers.append(self)
            if is_load:
                broker.listeners.append(self._hear)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The roles of its connected clients and their nodes."""
        return self._load.places

    def progress(self) -> ProofProgress:
        """How it does."""
        with self._broker.lock:
            after = self._broker.now - self._began
            doing = "draining the queue" if self._published.is_set() else "under load"
            return ProofProgress(
                self._load.account(), after, self._scenario.duration_s, tuple(self._marks), doing, self._stopped
            )

    def stop(self) -> None:
        """Undoes the faults at the next step of the clock, then ends; at once where there are none."""
        self._stopped = True
        with self._broker.lock:
            if not self._scenario.steps:
                self._end(self._broker.now - self._began)

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over within so many seconds of the wall."""
        return self._published.wait(timeout_s)

    def finish(self) -> ProofReport:
        """Waits until the clock was moved far enough, and drains."""
        if not self._published.wait(FINISHES_WITHIN_S):
            raise OperationTimeoutError("the simulated run does not end", "Move its clock on.")
        account = self._load.stop()
        stem = f"/state/dmq/proofs/{self._scenario.name}"
        return ProofReport(self._result(account), (f"{stem}.html", f"{stem}.json"))

    def close(self) -> None:
        """Undoes its faults and ends at once."""
        with self._broker.lock:
            self._end(self._broker.now - self._began)
        self._load.close()

    def step(self, now: float, elapsed_s: float) -> None:
        """Moves on to `now`."""
        after = now - self._began
        while self._waiting and not self._stopped and after >= self._waiting[0].at_s:
            self._strike(self._waiting.pop(0), after)
        for due in [d for d in self._down if d[0] <= after]:
            self._undo(due, after)
        if self._leads() not in (None, self._leader):
            self._mark(after, "leader", f"leader {self._leader} → {self._leads()}")
            self._leader = self._leads()
        is_late = after >= self._scenario.duration_s and not (self._waiting or self._down)
        if self._stopped or is_late:
            self._end(after)

    def _end(self, after: float) -> None:
        for down in tuple(self._down):
            self._undo(down, after)
        if self in self._broker.steppers:
            self._broker.steppers.remove(self)
        if self._hear in self._broker.listeners:
            self._broker.listeners.remove(self._hear)
        self._published.set()

    def _hear(self, event: Event | None) -> None:
        """Faults by the hand of others are marks of a load."""
        if event is not None and event.origin is Origin.YOU:
            kind = "fault" if event.severity is Severity.FAULT else "undo"
            self._mark(event.at - self._began, kind, event.text.removesuffix(" (you)"))

    def _strike(self, step: ScenarioStep, after: float) -> None:
        node = "" if step.fault in UNTARGETED else self._resolve(step.target)
        if step.fault is Fault.MOVE_LEADER and node == self._leader:
            node = self._resolve("follower")
        nodes = self._cluster.nodes()
        act = act_for(step.fault, node, leader=self._leader, queue=LOAD_QUEUE, vhost="/", nodes=nodes)
        self._tell(act.name, act.node, act.done, after, back=False)
        back = None
        if act.fault is not None:
            back = self._cluster.cause(act.fault)
        elif act.kind is Fault.SCALE:
            self._broker.add_node(act.node)
            self._boot(act.node)
            self._broker.grow_onto(act.node)
        else:
            self._broker.set_state(act.node, *_BROKEN[act.kind])
        self._down.append((step.undo_s or 0.0, act, back))

    def _undo(self, down: tuple[float, Act, ClusterFault | None], after: float) -> None:
        self._down.remove(down)
        _, act, back = down
        if act.back is None:
            return
        self._tell(act.back.name, act.node, act.back.done, after, back=True)
        if act.fault is not None:
            if back is not None:
                self._cluster.cause(back)
        elif act.kind is Fault.SCALE:
            self._broker.set_state(act.node, NodeState.STOPPED)
            self._broker.remove_node(act.node)
        elif act.kind in (Fault.KILL, Fault.STOP):
            self._boot(act.node)
        else:
            self._broker.set_state(act.node, NodeState.RUNNING)

    def _boot(self, node: str) -> None:
        def serve() -> None:
            if node in self._broker.nodes and self._broker.nodes[node].state is NodeState.STARTING:
                self._broker.set_state(node, NodeState.RUNNING)

        self._broker.set_state(node, NodeState.STARTING)
        self._broker.later(BOOT_S, serve)

    def _tell(self, name: str, node: str, done: str, after: float, *, back: bool) -> None:
        severity = Severity.PLAIN if back else Severity.FAULT
        self._broker.say(Origin.YOU, severity, f"node_{name}", node, f"{visible(done)} (you)")
        self._mark(after, "undo" if back else "fault", visible(done))

    def _mark(self, after: float, kind: str, text: str) -> None:
        self._marks.append(TimelineMark(after, kind, text))

    def _leads(self) -> str | None:
        return self._broker.queues[EntityKey("/", LOAD_QUEUE)].leader

    def _resolve(self, target: str) -> str:
        clients = dict(self.places)
        others = [n.name for n in self._broker.serving() if n.name != self._leader]
        roles = {"leader": self._leader, "follower": others[-1], "connected": clients.get("publisher")}
        return roles.get(target, target) or others[0]

    def _result(self, account: LoadAccount) -> ProofResult:
        verdict, reason = self._verdict(account)
        faults = [m for m in self._marks if m.kind == "fault"]
        return ProofResult(
            verdict=verdict,
            reasons=(reason,),
            backend=str(self._broker.backend),
            rabbitmq="4.3.6",
            fault=self._scenario.fault,
            target=self._scenario.target,
            node=faults[0].text.partition(" ")[0] if faults else "",
            workload=self._scenario.workload,
            account=_final(account),
            timeline=self._timeline(account),
            marks=tuple(self._marks),
            curves=Curves(account.slice_s, account.confirm_history, account.delivery_history),
            max_confirm_gap_s=account.longest_confirm_gap_s,
            max_delivery_gap_s=account.longest_delivery_gap_s,
            began_at=self._began,
            ended_at=account.taken_at,
        )

    def _verdict(self, account: LoadAccount) -> tuple[Verdict, str]:
        if account.lost:
            return Verdict.FAIL, f"{account.lost} confirmed messages were never delivered."
        if self._problem:
            return Verdict.INCONCLUSIVE, f"{self._problem}."
        if self._scenario.steps and not self._marks:
            return Verdict.INCONCLUSIVE, "The run was ended before its fault."
        return Verdict.PASS, "Every confirmed message was delivered, and the queue is empty."

    def _timeline(self, account: LoadAccount) -> Timeline:
        fault = next((m.at_s for m in self._marks if m.kind == "fault"), None)
        if fault is None:
            return Timeline()
        elected = next((m.at_s - fault for m in self._marks if m.kind == "leader" and m.at_s >= fault), None)
        return Timeline(
            fault_s=fault,
            leader_elected_s=elected,
            first_confirm_s=account.longest_confirm_gap_s,
            first_delivery_s=account.longest_delivery_gap_s,
        )


def _single(step: ScenarioStep, nodes: tuple[str, ...]) -> list[ScenarioStep]:
    """`step` itself, or a rolling restart as one stop for each node."""
    if step.fault is not Fault.ROLLING:
        return [step]
    begins = [(step.at_s + number * _EACH_S, node) for number, node in enumerate(nodes)]
    return [ScenarioStep(at_s, Fault.STOP, node, at_s + _DOWN_S) for at_s, node in begins]


def _final(account: LoadAccount) -> Account:
    return Account(
        attempted=account.attempted,
        confirmed=account.confirmed,
        unknown=account.unknown,
        delivered=account.delivered,
        redelivered=account.redelivered,
        duplicates=Duplicates(redelivery=account.duplicates),
        lost=tuple(f"message-{number}" for number in range(account.lost)),
    )
