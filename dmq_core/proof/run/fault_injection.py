"""Faults of a proof run: who is hit, whether that may be done, the act itself, and that it is always undone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from dmq_core.actions.action import Action, action_of, matching_faults, undo_of
from dmq_core.actions.catalog import CATALOG, PROOF_NAMES, PROOF_USES, Scaling
from dmq_core.actions.gate import guard, perform
from dmq_core.actions.impact import votes_without
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeInfo, NodeState
from dmq_core.connection_manager import Role
from dmq_core.errors import DmqError, InvalidInputError, NotReachableError, RefusedError
from dmq_core.majority import is_majority
from dmq_core.progress import Progress, ProgressListener
from dmq_core.proof.journal.records import FaultStage
from dmq_core.proof.run.cluster_recorder import ClusterRecorder, monotonic_of
from dmq_core.proof.run.queue_checks import all_connected_since, leader_of
from dmq_core.proof.run.targets import action_for
from dmq_core.proof.scenario import ROLES, ScenarioStep
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.proof.journal.file import Journal

REST_S: Final = 4.0
LOOKS_AHEAD_S: Final = 1.0
_EVIDENCE_WITHIN_S: Final = 1.0
_ATTEMPTS: Final = 3
_PAUSE_S: Final = 1.0
# An event's own clock may be a little behind ours.
_CLOCKS_S: Final = 0.05
_ELECTS_WITHIN_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class FaultOptions:
    """What the faults of a run may do; `seed` repeats the random choices."""

    read_only: bool = False
    allow_majority_loss: bool = False
    seed: int = 0


def check(cluster: Cluster, step: ScenarioStep, options: FaultOptions) -> None:
    """Raises what would keep `step` from being done, before anything is begun.

    Raises `RefusedError` or `InvalidInputError`.
    """
    spec = CATALOG[step.fault]
    title = f"{spec.label} {visible(step.target)}" if step.target else spec.title
    guard(cluster, title, read_only=options.read_only)
    nodes = cluster.nodes()
    if step.target not in ("", *ROLES) and step.target not in [node.name for node in nodes]:
        names = ", ".join(node.name for node in nodes)
        raise InvalidInputError(f"{cluster.name} has no node '{visible(step.target)}'", f"Its nodes are {names}.")
    if step.target == "follower" and len(nodes) < 2:
        raise InvalidInputError("a cluster of one node has no follower", "Take another target.")
    if len(nodes) < min(2, spec.least_nodes):
        raise InvalidInputError(f"a cluster of one node has nothing for {step.fault}", "Take another fault.")
    if spec.takes_node_away:
        refuse_majority_loss(nodes, "", title, options)


def refuse_majority_loss(nodes: tuple[NodeInfo, ...], target: str, title: str, options: FaultOptions) -> None:
    """`RefusedError` if without one more node (`target`, empty: any) no majority serves, unless that was asked for."""
    voting = votes_without(nodes, target) - (not target)
    if not is_majority(voting, len(nodes)) and not options.allow_majority_loss:
        away = ", ".join(f"{node.name} is {node.state}" for node in nodes if node.state is not NodeState.RUNNING)
        raise RefusedError(
            f"{title}: no majority of the {len(nodes)} nodes would be left",
            (f"Now {away}; 'dmq doctor' tells how to undo that. " if away else "")
            + "Quorum queues then stop taking messages until nodes return; --allow-majority-loss does it all the same.",
        )


def evidence_for(action: Action, active: Sequence[Fault]) -> str:
    """What the nodes themselves tell of an alarm or a link that is cut or slow; empty: nothing."""
    found = matching_faults(action, active)
    return f"the nodes tell of it: {action_of(found[0]).title}" if found else ""


class FaultSequence(threading.Thread):
    """Steps one after the other on a thread of its own; whatever happens, each fault that began is undone.

    A step begins at its second after `began_at` (monotonic), and not before the one before it is undone. With `skips`,
    a step that may not be done, or fails, does not end the lane (the journal tells of one that fails); else that is
    its `error`.
    """

    def __init__(self, injector: FaultInjector, steps: tuple[ScenarioStep, ...], began_at: float, skips: bool) -> None:
        super().__init__(name="proof faults", daemon=True)
        self._injector = injector
        self._steps = steps
        self._began_at = began_at
        self._skips = skips
        self.stopped = threading.Event()
        self.error: DmqError | None = None

    def run(self) -> None:
        """Does the steps until the last is undone or `stopped` is set."""
        try:
            for number, step in enumerate(self._steps):
                pause_s = self._began_at + step.at_s - time.monotonic()
                if self._injector.wait_before(max(REST_S if number and self._skips else 0.0, pause_s), self.stopped):
                    return
                self._do(step)
        except DmqError as error:
            self.error = error

    def _do(self, step: ScenarioStep) -> None:
        hold_s = None if step.undo_s is None else step.undo_s - step.at_s
        try:
            self._injector.inject(step, hold_s, self.stopped, alone=self._skips)
        except DmqError as error:
            if not self._skips:
                raise
            self._injector.report_skipped(step, error)


@dataclass(frozen=True, slots=True)
class _Injection:
    """A fault, the node that it is told of, and what undoes it; `gently`: its node is drained before."""

    action: Action
    node: str
    undo: Action | None
    gently: bool = False

    @property
    def ends(self) -> frozenset[str]:
        """Every node that it concerns: its own, and that at the other end of a link."""
        return self.action.nodes | {self.node}


class FaultInjector:
    """Injects faults into a cluster through the one gate, and tells the journal how far each is.

    `look` is called, and must not wait, a little before each fault and once its node is back; `told` hears of each
    fault as it begins, with the node that it is told of, and again (True) of what undoes it.
    """

    def __init__(
        self,
        cluster: Cluster,
        queue: str,
        journal: Journal,
        recorder: ClusterRecorder,
        options: FaultOptions,
        progress: ProgressListener,
        look: Callable[[], object] = lambda: None,
        told: Callable[[Action, str, bool], object] = lambda _action, _node, _is_undo: None,
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._journal = journal
        self._recorder = recorder
        self._options = options
        self._random = random.Random(options.seed)
        self._progress = progress
        self._look = look
        self._told = told
        self._lock = threading.Lock()
        self._busy: frozenset[str] = frozenset()
        self.targeted_nodes: list[str] = []
        self.problems: list[str] = []

    def wait_before(self, pause_s: float, stopped: threading.Event) -> bool:
        """Waits so long before a fault; whether it was stopped meanwhile."""
        if stopped.wait(max(0.0, pause_s - LOOKS_AHEAD_S)):
            return True
        self._look()
        return stopped.wait(max(0.0, min(pause_s, LOOKS_AHEAD_S)))

    def report_skipped(self, step: ScenarioStep, error: DmqError) -> None:
        """Tells that a step was left out, and why."""
        self._progress(Progress(f"left out {PROOF_NAMES[step.fault]} {step.target}".rstrip() + f": {error.what}"))

    def inject(
        self, step: ScenarioStep, hold_s: float | None, stopped: threading.Event, *, alone: bool = False
    ) -> None:
        """Does one step, holds it for `hold_s` seconds or until `stopped`, and undoes it.

        `alone`: `RefusedError` for a node that another step has hit and not given back yet.
        """
        if step.fault is FaultKind.ROLLING_RESTART:
            self._roll(stopped)
            return
        with self._lock:
            # Two lanes must neither choose the same node nor together break the majority.
            fault = self._aimed(step)
            title = fault.action.title
            if fault.action.spec.takes_node_away:
                refuse_majority_loss(self._cluster.nodes(), fault.node, title, self._options)
            if alone and not self._busy.isdisjoint(fault.ends):
                raise RefusedError(f"{title}: another fault holds there", "Wait until it is undone.")
            self.targeted_nodes.append(fault.node)
            fault, asked_at = self._begin(fault)
            self._busy |= fault.ends
        try:
            held_from = self._note_evidence(fault, asked_at)
            stopped.wait(max(0.0, (hold_s or 0.0) - (time.monotonic() - held_from)))
        finally:
            self._undo(fault)
            with self._lock:
                self._busy -= fault.ends

    def _aimed(self, step: ScenarioStep) -> _Injection:
        """What the step does, to the nodes as they are now."""
        nodes, leader = self._cluster.nodes(), self._recorder.leader(self._queue)
        node = self._resolve(step.target) if PROOF_USES[step.fault].targeted else ""
        if step.fault is FaultKind.MOVE_LEADER and node == leader:
            node = self._resolve("follower")
        vhost = nodes[0].endpoint.virtual_host
        action = action_for(step.fault, node, leader=leader, queue=self._queue, vhost=vhost, nodes=nodes)
        return _Injection(action, action.node or leader or nodes[0].name, undo_of(action, leader))

    def _begin(self, fault: _Injection) -> tuple[_Injection, float]:
        """Does it; gives it with the undo that is now known, and the epoch second of asking for it."""
        action, name, node = fault.action, str(fault.action.kind), fault.node
        self._progress(Progress(action.title, node))
        self._told(action, node, False)
        self._journal.append_fault(FaultStage.ASKED, name, node)
        asked_at = time.time()
        try:
            if fault.gently:
                self._perform(Action(NodeAction.DRAIN, node))
            undo = self._perform(action)
        except DmqError as error:
            self._journal.append_fault(FaultStage.FAILED, name, node, error.what)
            self._undo(fault)
            raise
        # Only now the name of a node that was added is sure.
        return replace(fault, undo=undo or fault.undo), asked_at

    def _perform(self, action: Action) -> Action | None:
        return perform(self._cluster, action, read_only=self._options.read_only)

    def _note_evidence(self, fault: _Injection, asked_at: float) -> float:
        """Notes when the fault began and from when on it holds, by the cluster's own word; gives the latter."""
        at = time.monotonic()
        if fault.action.spec.state is not None:
            began, at, text = self._change(fault, fault.action.spec.state, asked_at)
        else:
            began = self._began(fault, asked_at, at) if fault.action.spec.at_once else at
            text = self._evidence_for(fault, asked_at)
        self._journal.append_fault(FaultStage.BEGAN, str(fault.action.kind), fault.node, at=began)
        self._journal.append_fault(FaultStage.HOLDS, str(fault.action.kind), fault.node, text, at)
        return at

    def _change(self, fault: _Injection, state: NodeState, asked_at: float) -> tuple[float, float, str]:
        """When a node's fault could be felt first and when it held, and who says so."""
        change = self._recorder.await_change(fault.node, (state,), asked_at - _CLOCKS_S, _EVIDENCE_WITHIN_S)
        backend, at = self._cluster.backend, time.monotonic()
        now = self._state_of(fault.node)
        if change is not None:
            at, text = monotonic_of(change.at), f"{backend} says that it is {change.state}"
        else:
            text = f"{backend} shows it as {now}" if now is state else ""
        return self._began(fault, asked_at, at), at, text

    def _evidence_for(self, fault: _Injection, asked_at: float) -> str:
        """What the cluster itself says of a fault that holds; empty: nothing."""
        match fault.action.kind:
            case FaultKind.CLOSE_CONNECTIONS:
                closed = all_connected_since(self._cluster, fault.node, asked_at)
                return f"no connection of {fault.node} is older, as the management API tells" if closed else ""
            case FaultKind.MOVE_LEADER:
                elected = self._recorder.await_leader(self._queue, fault.node, _ELECTS_WITHIN_S)
                return f"the log of {fault.node} told that it was elected" if elected else ""
            case FaultKind.REBALANCE:
                host = self._cluster.nodes()[0].endpoint.virtual_host
                return f"{leader_of(self._cluster, self._queue, host)} leads the queue, as the management API tells"
            case FaultKind():
                return evidence_for(fault.action, self._cluster.active_faults())
            case _:
                running = self._state_of(fault.node) is NodeState.RUNNING
                return f"{self._cluster.backend} shows it as running" if running else ""

    def _state_of(self, name: str) -> NodeState | None:
        return next((node.state for node in self._cluster.nodes() if node.name == name), None)

    def _began(self, fault: _Injection, asked_at: float, held: float) -> float:
        """The monotonic second at which clients could feel it first."""
        asked = monotonic_of(asked_at)
        if not fault.action.spec.at_once:
            # It takes a while, and clients feel it from the beginning.
            return asked
        # A backend tells of a death once it has cleared up, and clients that were there know it sooner.
        lost = self._recorder.first_loss_at(fault.node, asked)
        return held if lost is None else min(held, lost)

    def _undo(self, fault: _Injection) -> None:
        """Undoes the fault, trying three times; what that takes is told, whether it helps or not."""
        undo, node = fault.undo, fault.node
        if undo is None:
            return
        name = str(undo.kind)
        self._progress(Progress(undo.title, node))
        self._told(undo, node, True)
        self._journal.append_undo(FaultStage.BEGAN, name, node)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if undo.kind is not Scaling.REMOVE or self._state_of(undo.node or "") is not None:
                    self._perform(undo)
            except DmqError as error:
                if attempt == _ATTEMPTS:
                    self._journal.append_undo(FaultStage.FAILED, name, node, error.what)
                    again = on_cluster(undo.command, self._cluster.name)
                    node_returned = fault.action.spec.state is None
                    what = f"{fault.action.title} is not undone" if node_returned else f"{node} is not back"
                    self.problems.append(f"{what}: {error.what}; '{again}' tries again")
                time.sleep(_PAUSE_S)
            else:
                self._journal.append_undo(FaultStage.HOLDS, name, node, undo.title)
                self._look()
                return

    def _roll(self, stopped: threading.Event) -> None:
        """Drains and restarts every node in turn, the leader's last, each once the one before it serves again."""
        leader = self._recorder.leader(self._queue)
        nodes = sorted(self._cluster.nodes(), key=lambda node: node.name == leader)
        for node in nodes:
            if self.wait_before(REST_S if self.targeted_nodes else 0.0, stopped):
                return
            refuse_majority_loss(self._cluster.nodes(), node.name, "Rolling restart", self._options)
            self.targeted_nodes.append(node.name)
            stop = Action(NodeAction.STOP, node.name)
            fault, asked_at = self._begin(_Injection(stop, node.name, stop.undo, gently=True))
            try:
                self._note_evidence(fault, asked_at)
            finally:
                self._undo(fault)

    def _resolve(self, target: str) -> str:
        """The node that `target` is now."""
        running = [node.name for node in self._cluster.nodes() if node.state is NodeState.RUNNING]
        leader = self._recorder.leader(self._queue)
        clients = {self._recorder.node_of(Role.PUBLISHING), self._recorder.node_of(Role.CONSUMING)}
        found: str | None = target
        if target == "leader":
            found = leader
        elif target == "connected":
            found = self._recorder.node_of(Role.PUBLISHING)
        elif target == "follower":
            followers = [name for name in running if name != leader]
            # One that serves no client shows what the loss of a member alone does.
            found = self._random.choice([n for n in followers if n not in clients] or followers or [None])
        if found is None:
            raise NotReachableError(f"nobody knows who the {target} is", "Name a node instead.")
        return found
