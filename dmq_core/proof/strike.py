"""Faults of a proof run: who is hit, whether that may be done, the act itself, and that it is always undone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.base import Cluster, NodeAction, NodeInfo, NodeState, Progress, ProgressListener
from dmq_core.connection_manager import Role
from dmq_core.errors import BadInput, DmqError, NotReachable, Refused
from dmq_core.operations import NodeOperation, guard, on_cluster, perform
from dmq_core.proof.records import Stage
from dmq_core.proof.scenario import ROLES, Fault, Step
from dmq_core.proof.witness import Witness, monotonic_of
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.proof.journal import Journal

REST_S: Final = 4.0
LOOKS_AHEAD_S: Final = 1.0
_EVIDENCE_WITHIN_S: Final = 1.0
_ATTEMPTS: Final = 3
_PAUSE_S: Final = 1.0
# An event's own clock may be a little behind ours.
_CLOCKS_S: Final = 0.05
_STATES: Final = {
    Fault.KILL: (NodeState.STOPPED,),
    Fault.STOP: (NodeState.STOPPED,),
    Fault.PAUSE: (NodeState.PAUSED,),
    Fault.ISOLATE: (NodeState.ISOLATED,),
    Fault.DRAIN: (NodeState.DRAINING,),
}
# The others take a while, and clients feel them from the beginning.
_AT_ONCE: Final = frozenset({Fault.KILL, Fault.PAUSE, Fault.ISOLATE})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the strikes of a run may do."""

    read_only: bool = False
    allow_majority_loss: bool = False


def check(cluster: Cluster, step: Step, rules: Rules) -> None:
    """Raises what would keep `step` from being done, before anything is begun: `Refused` or `BadInput`."""
    title = f"{str(step.fault).capitalize()} {visible(step.target) or 'restart'}"
    guard(cluster, title, read_only=rules.read_only)
    nodes = cluster.nodes()
    if step.target not in ("", *ROLES) and step.target not in [node.name for node in nodes]:
        names = ", ".join(node.name for node in nodes)
        raise BadInput(f"{cluster.name} has no node '{visible(step.target)}'", f"Its nodes are {names}.")
    if step.target == "follower" and len(nodes) < 2:
        raise BadInput("a cluster of one node has no follower", "Take another target.")
    refuse_majority_loss(nodes, "", title, rules)


def refuse_majority_loss(nodes: tuple[NodeInfo, ...], target: str, title: str, rules: Rules) -> None:
    """`Refused` if without one more node (`target`, empty: any) no majority serves, unless that was asked for."""
    serving = sum(node.state is NodeState.RUNNING and node.name != target for node in nodes)
    serving -= not target
    if 2 * serving <= len(nodes) and not rules.allow_majority_loss:
        raise Refused(
            f"{title}: no majority of the {len(nodes)} nodes would be left",
            "Quorum queues then stop taking messages until nodes return; --allow-majority-loss does it all the same.",
        )


class Lane(threading.Thread):
    """Steps one after the other on a thread of its own; whatever happens, each fault that began is undone.

    A step begins at its second after `began_at` (monotonic), and not before the one before it is undone. With `skips`,
    a step that would cost the majority is left out, else it ends the lane with `error`.
    """

    def __init__(self, striker: Striker, steps: tuple[Step, ...], began_at: float, skips: bool) -> None:
        super().__init__(name="proof faults", daemon=True)
        self._striker = striker
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
                if self._striker.await_strike(max(REST_S if number and self._skips else 0.0, pause_s), self.stopped):
                    return
                self._do(step)
        except DmqError as error:
            self.error = error

    def _do(self, step: Step) -> None:
        hold_s = None if step.undo_s is None else step.undo_s - step.at_s
        try:
            self._striker.strike(step, hold_s, self.stopped)
        except Refused:
            if not self._skips:
                raise


class Striker:
    """Does faults to a cluster through the one gate, and tells the journal how far each is.

    `look` is called, and must not wait, a little before each fault and once its node is back.
    """

    def __init__(
        self,
        cluster: Cluster,
        queue: str,
        journal: Journal,
        witness: Witness,
        rules: Rules,
        seed: int,
        progress: ProgressListener,
        look: Callable[[], object] = lambda: None,
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._journal = journal
        self._witness = witness
        self._rules = rules
        self._random = random.Random(seed)
        self._progress = progress
        self._look = look
        self._lock = threading.Lock()
        self.hit: list[str] = []
        self.not_undone: list[str] = []

    def await_strike(self, pause_s: float, stopped: threading.Event) -> bool:
        """Waits so long before a fault; whether it was stopped meanwhile."""
        if stopped.wait(max(0.0, pause_s - LOOKS_AHEAD_S)):
            return True
        self._look()
        return stopped.wait(max(0.0, min(pause_s, LOOKS_AHEAD_S)))

    def strike(self, step: Step, hold_s: float | None, stopped: threading.Event) -> None:
        """Does one step, holds it for `hold_s` seconds or until `stopped`, and undoes it."""
        if step.fault is Fault.ROLLING:
            self._roll(stopped)
            return
        with self._lock:
            # Two lanes must neither choose the same node nor together break the majority.
            operation = NodeOperation(NodeAction(str(step.fault)), self._resolve(step.target))
            nodes = self._cluster.nodes()
            refuse_majority_loss(nodes, operation.node, operation.title, self._rules)
            self.hit.append(operation.node)
            asked_at = self._begin(operation)
        try:
            held_from = self._evidence(step, operation, asked_at)
            stopped.wait(max(0.0, (hold_s or 0.0) - (time.monotonic() - held_from)))
        finally:
            self._undo(operation)

    def _begin(self, operation: NodeOperation, gently: bool = False) -> float:
        """Does the act, `gently` after the node has given its leaders and clients away; the second of asking for it."""
        act, node = str(operation.action), operation.node
        self._progress(Progress(operation.title, node))
        self._journal.append_fault(Stage.ASKED, act, node)
        asked_at = time.time()
        try:
            if gently:
                perform(self._cluster, NodeOperation(NodeAction.DRAIN, node), read_only=self._rules.read_only)
            perform(self._cluster, operation, read_only=self._rules.read_only)
        except DmqError as error:
            self._journal.append_fault(Stage.FAILED, act, node, error.what)
            self._undo(operation)
            raise
        return asked_at

    def _evidence(self, step: Step, operation: NodeOperation, asked_at: float) -> float:
        """Notes when the fault began and from when on it holds, by the cluster's own word; gives the latter."""
        act, node, states = str(operation.action), operation.node, _STATES[step.fault]
        change = self._witness.await_change(node, states, asked_at - _CLOCKS_S, _EVIDENCE_WITHIN_S)
        backend, at = self._cluster.backend, time.monotonic()
        state = next((n.state for n in self._cluster.nodes() if n.name == node), None)
        if change is not None:
            at, text = monotonic_of(change.at), f"{backend} says that it is {change.state}"
        elif state in states:
            text = f"{backend} shows it as {state}"
        else:
            text = ""
        self._journal.append_fault(Stage.BEGAN, act, node, at=self._began(step.fault, node, asked_at, at))
        self._journal.append_fault(Stage.HOLDS, act, node, text, at)
        return at

    def _began(self, fault: Fault, node: str, asked_at: float, held: float) -> float:
        """The monotonic second at which clients could feel it first."""
        asked = monotonic_of(asked_at)
        if fault not in _AT_ONCE:
            return asked
        # A backend tells of a death once it has cleared up, and clients that were there know it sooner.
        lost = self._witness.lost_at(node, asked)
        return held if lost is None else min(held, lost)

    def _undo(self, operation: NodeOperation) -> None:
        """Brings the node back, trying three times; what that takes is told, whether it helps or not."""
        undo = operation.undo
        if undo is None:
            return
        act, node = str(undo.action), undo.node
        self._progress(Progress(undo.title, node))
        self._journal.append_undo(Stage.BEGAN, act, node)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                perform(self._cluster, undo, read_only=self._rules.read_only)
            except DmqError as error:
                if attempt == _ATTEMPTS:
                    self._journal.append_undo(Stage.FAILED, act, node, error.what)
                    again = on_cluster(undo.command, self._cluster.name)
                    self.not_undone.append(f"{node} is not back: {error.what}; '{again}' tries again")
                time.sleep(_PAUSE_S)
            else:
                self._journal.append_undo(Stage.HOLDS, act, node, undo.done)
                self._look()
                return

    def _roll(self, stopped: threading.Event) -> None:
        """Drains and restarts every node in turn, the leader's last, each once the one before it serves again."""
        leader = self._witness.leader(self._queue)
        nodes = sorted(self._cluster.nodes(), key=lambda node: node.name == leader)
        for node in nodes:
            if self.await_strike(REST_S if self.hit else 0.0, stopped):
                return
            refuse_majority_loss(self._cluster.nodes(), node.name, "Rolling restart", self._rules)
            self.hit.append(node.name)
            operation = NodeOperation(NodeAction.STOP, node.name)
            asked_at = self._begin(operation, gently=True)
            try:
                self._evidence(Step(0.0, Fault.STOP), operation, asked_at)
            finally:
                self._undo(operation)

    def _resolve(self, target: str) -> str:
        """The node that `target` is now."""
        running = [node.name for node in self._cluster.nodes() if node.state is NodeState.RUNNING]
        leader = self._witness.leader(self._queue)
        clients = {self._witness.node_of(Role.PUBLISHING), self._witness.node_of(Role.CONSUMING)}
        found: str | None = target
        if target == "leader":
            found = leader
        elif target == "connected":
            found = self._witness.node_of(Role.PUBLISHING)
        elif target == "follower":
            followers = [name for name in running if name != leader]
            # One that serves no client shows what the loss of a member alone does.
            found = self._random.choice([n for n in followers if n not in clients] or followers or [None])
        if found is None:
            raise NotReachable(f"nobody knows who the {target} is", "Name a node instead.")
        return found
