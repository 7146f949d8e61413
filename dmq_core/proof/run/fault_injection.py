"""Faults of a proof run: who is hit, whether that may be done, the act itself, and that it is always undone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dmq_core.actions.gate import guard
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import Cluster, NodeInfo, NodeState
from dmq_core.connection_manager import Role
from dmq_core.errors import DmqError, InvalidInputError, NotReachableError, RefusedError
from dmq_core.progress import Progress, ProgressListener
from dmq_core.proof.acts import STATES, TAKES_AWAY, Act, act_for, on_node, word_of
from dmq_core.proof.journal.records import FaultStage
from dmq_core.proof.run.cluster_recorder import ClusterRecorder, monotonic_of
from dmq_core.proof.run.queue_checks import leader_of
from dmq_core.proof.scenario import ROLES, UNTARGETED, Fault, ScenarioStep
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
_NEED_TWO: Final = frozenset({Fault.MOVE_LEADER, Fault.CUT_LINK, Fault.SLOW_LINK})
_ELECTS_WITHIN_S: Final = 3.0
# The others take a while, and clients feel them from the beginning.
_AT_ONCE: Final = frozenset({Fault.KILL, Fault.PAUSE, Fault.ISOLATE})


@dataclass(frozen=True, slots=True)
class FaultLimits:
    """What the strikes of a run may do."""

    read_only: bool = False
    allow_majority_loss: bool = False


def check(cluster: Cluster, step: ScenarioStep, limits: FaultLimits) -> None:
    """Raises what would keep `step` from being done, before anything is begun.

    Raises `RefusedError` or `InvalidInputError`.
    """
    title = f"{str(step.fault).capitalize()} {visible(step.target) or 'restart'}"
    guard(cluster, title, read_only=limits.read_only)
    nodes = cluster.nodes()
    if step.target not in ("", *ROLES) and step.target not in [node.name for node in nodes]:
        names = ", ".join(node.name for node in nodes)
        raise InvalidInputError(f"{cluster.name} has no node '{visible(step.target)}'", f"Its nodes are {names}.")
    if step.target == "follower" and len(nodes) < 2:
        raise InvalidInputError("a cluster of one node has no follower", "Take another target.")
    if step.fault in _NEED_TWO and len(nodes) < 2:
        raise InvalidInputError(f"a cluster of one node has nothing for {step.fault}", "Take another fault.")
    if step.fault in TAKES_AWAY:
        refuse_majority_loss(nodes, "", title, limits)


def refuse_majority_loss(nodes: tuple[NodeInfo, ...], target: str, title: str, limits: FaultLimits) -> None:
    """`RefusedError` if without one more node (`target`, empty: any) no majority serves, unless that was asked for."""
    serving = sum(node.state is NodeState.RUNNING and node.name != target for node in nodes)
    serving -= not target
    if 2 * serving <= len(nodes) and not limits.allow_majority_loss:
        away = ", ".join(f"{node.name} is {node.state}" for node in nodes if node.state is not NodeState.RUNNING)
        raise RefusedError(
            f"{title}: no majority of the {len(nodes)} nodes would be left",
            (f"Now {away}; 'dmq doctor' tells the way back. " if away else "")
            + "Quorum queues then stop taking messages until nodes return; --allow-majority-loss does it all the same.",
        )


class FaultSequence(threading.Thread):
    """Steps one after the other on a thread of its own; whatever happens, each fault that began is undone.

    A step begins at its second after `began_at` (monotonic), and not before the one before it is undone. With `skips`,
    a step that may not be done, or fails, does not end the lane (the journal tells of one that fails); else that is
    its `error`.
    """

    def __init__(self, injector: FaultInjector, steps: tuple[ScenarioStep, ...], began_at: float, skips: bool) -> None:
        super().__init__(name="proof faults", daemon=True)
        self._striker = injector
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
                if self._striker.wait_before(max(REST_S if number and self._skips else 0.0, pause_s), self.stopped):
                    return
                self._do(step)
        except DmqError as error:
            self.error = error

    def _do(self, step: ScenarioStep) -> None:
        hold_s = None if step.undo_s is None else step.undo_s - step.at_s
        try:
            self._striker.inject(step, hold_s, self.stopped, alone=self._skips)
        except DmqError as error:
            if not self._skips:
                raise
            self._striker.report_skipped(step, error)


class FaultInjector:
    """Does faults to a cluster through the one gate, and tells the journal how far each is.

    `look` is called, and must not wait, a little before each fault and once its node is back; `told` hears of each act
    as it begins, and again (True) as it is taken back.
    """

    def __init__(
        self,
        cluster: Cluster,
        queue: str,
        journal: Journal,
        recorder: ClusterRecorder,
        limits: FaultLimits,
        seed: int,
        progress: ProgressListener,
        look: Callable[[], object] = lambda: None,
        told: Callable[[Act, bool], object] = lambda _act, _back: None,
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._journal = journal
        self._recorder = recorder
        self._limits = limits
        self._random = random.Random(seed)
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
        self._progress(Progress(f"left out {step.fault} {step.target}".rstrip() + f": {error.what}"))

    def inject(
        self, step: ScenarioStep, hold_s: float | None, stopped: threading.Event, *, alone: bool = False
    ) -> None:
        """Does one step, holds it for `hold_s` seconds or until `stopped`, and undoes it.

        `alone`: `RefusedError` for a node that another step has hit and not given back yet.
        """
        if step.fault is Fault.ROLLING:
            self._roll(stopped)
            return
        with self._lock:
            # Two lanes must neither choose the same node nor together break the majority.
            act = self._act(step)
            if act.takes_away:
                refuse_majority_loss(self._cluster.nodes(), act.node, act.title, self._limits)
            if alone and not self._busy.isdisjoint(act.ends):
                raise RefusedError(f"{act.title}: another fault holds there", "Wait until it is undone.")
            self.targeted_nodes.append(act.node)
            asked_at = self._begin(act)
            self._busy |= act.ends
        try:
            held_from = self._evidence(act, asked_at)
            stopped.wait(max(0.0, (hold_s or 0.0) - (time.monotonic() - held_from)))
        finally:
            self._undo(act)
            with self._lock:
                self._busy -= act.ends

    def _act(self, step: ScenarioStep) -> Act:
        """What the step does, to the nodes as they are now."""
        nodes, leader = self._cluster.nodes(), self._recorder.leader(self._queue)
        node = "" if step.fault in UNTARGETED else self._resolve(step.target)
        if step.fault is Fault.MOVE_LEADER and node == leader:
            node = self._resolve("follower")
        vhost = nodes[0].endpoint.virtual_host
        return act_for(step.fault, node, leader=leader, queue=self._queue, vhost=vhost, nodes=nodes)

    def _begin(self, act: Act) -> float:
        """Does the act; gives the epoch second of asking for it."""
        self._progress(Progress(act.title, act.node))
        self._told(act, False)
        self._journal.append_fault(FaultStage.ASKED, act.name, act.node)
        asked_at = time.time()
        try:
            act.do(self._cluster, self._limits.read_only)
        except DmqError as error:
            self._journal.append_fault(FaultStage.FAILED, act.name, act.node, error.what)
            self._undo(act)
            raise
        return asked_at

    def _evidence(self, act: Act, asked_at: float) -> float:
        """Notes when the fault began and from when on it holds, by the cluster's own word; gives the latter."""
        at = time.monotonic()
        if act.kind in STATES:
            began, at, text = self._change(act, asked_at)
        else:
            began, text = at, self._word(act)
        self._journal.append_fault(FaultStage.BEGAN, act.name, act.node, at=began)
        self._journal.append_fault(FaultStage.HOLDS, act.name, act.node, text, at)
        return at

    def _change(self, act: Act, asked_at: float) -> tuple[float, float, str]:
        """When a node's fault could be felt first and when it held, and who says so."""
        states = STATES[act.kind]
        change = self._recorder.await_change(act.node, states, asked_at - _CLOCKS_S, _EVIDENCE_WITHIN_S)
        backend, at = self._cluster.backend, time.monotonic()
        state = self._state_of(act.node)
        if change is not None:
            at, text = monotonic_of(change.at), f"{backend} says that it is {change.state}"
        else:
            text = f"{backend} shows it as {state}" if state in states else ""
        return self._began(act, asked_at, at), at, text

    def _word(self, act: Act) -> str:
        """What the cluster itself says of a fault that holds; empty: nothing."""
        fault = act.fault
        if fault is None:
            running = self._state_of(act.node) is NodeState.RUNNING
            return f"{self._cluster.backend} shows it as running" if running else ""
        match fault.kind:
            case FaultKind.MOVE_LEADER:
                elected = self._recorder.await_leader(self._queue, act.node, _ELECTS_WITHIN_S)
                return f"the log of {act.node} told that it was elected" if elected else ""
            case FaultKind.REBALANCE:
                host = self._cluster.nodes()[0].endpoint.virtual_host
                return f"{leader_of(self._cluster, self._queue, host)} leads the queue, as the management API tells"
            case _:
                return word_of(self._cluster, fault)

    def _state_of(self, name: str) -> NodeState | None:
        return next((node.state for node in self._cluster.nodes() if node.name == name), None)

    def _began(self, act: Act, asked_at: float, held: float) -> float:
        """The monotonic second at which clients could feel it first."""
        asked = monotonic_of(asked_at)
        if act.kind not in _AT_ONCE:
            return asked
        # A backend tells of a death once it has cleared up, and clients that were there know it sooner.
        lost = self._recorder.first_loss_at(act.node, asked)
        return held if lost is None else min(held, lost)

    def _undo(self, act: Act) -> None:
        """Takes the fault back, trying three times; what that takes is told, whether it helps or not."""
        back = act.back
        if back is None:
            return
        self._progress(Progress(back.title, act.node))
        self._told(act, True)
        self._journal.append_undo(FaultStage.BEGAN, back.name, act.node)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                back.do(self._cluster, self._limits.read_only)
            except DmqError as error:
                if attempt == _ATTEMPTS:
                    self._journal.append_undo(FaultStage.FAILED, back.name, act.node, error.what)
                    again = on_cluster(back.command, self._cluster.name)
                    what = f"{act.node} is not back" if act.kind in STATES else f"{act.title} is not taken back"
                    self.problems.append(f"{what}: {error.what}; '{again}' tries again")
                time.sleep(_PAUSE_S)
            else:
                self._journal.append_undo(FaultStage.HOLDS, back.name, act.node, back.title)
                self._look()
                return

    def _roll(self, stopped: threading.Event) -> None:
        """Drains and restarts every node in turn, the leader's last, each once the one before it serves again."""
        leader = self._recorder.leader(self._queue)
        nodes = sorted(self._cluster.nodes(), key=lambda node: node.name == leader)
        for node in nodes:
            if self.wait_before(REST_S if self.targeted_nodes else 0.0, stopped):
                return
            refuse_majority_loss(self._cluster.nodes(), node.name, "Rolling restart", self._limits)
            self.targeted_nodes.append(node.name)
            act = on_node(Fault.STOP, node.name, gently=True)
            asked_at = self._begin(act)
            try:
                self._evidence(act, asked_at)
            finally:
                self._undo(act)

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
