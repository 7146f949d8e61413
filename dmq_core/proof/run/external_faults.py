"""Faults that a run does not inject itself but that people do meanwhile, recorded with the cluster's own evidence."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault, FaultKind, undo_of
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeChange, NodeState
from dmq_core.errors import DmqError
from dmq_core.proof.acts import told_of
from dmq_core.proof.journal.records import FaultStage
from dmq_core.proof.run.cluster_recorder import monotonic_of
from dmq_core.proof.run.queue_checks import leader_of
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.proof.journal.file import Journal

SCALE: Final = "scale"
REMOVE: Final = "remove"
_RESTARTED: Final = frozenset({NodeAction.KILL, NodeAction.STOP, NodeAction.RESTART})
_ALARMS: Final = frozenset({FaultKind.MEMORY_ALARM, FaultKind.DISK_ALARM})


class ExternalClusterFaults:
    """Puts down in `journal` what is done to `cluster` inside its contexts; `queue` of `host` is the load's own.

    Of an act on a node, which its state shows, it only hears that the node is back.
    """

    def __init__(self, journal: Journal, cluster: Cluster, queue: str, host: str) -> None:
        self._journal = journal
        self._cluster = cluster
        self._queue = queue
        self._host = host
        self._lock = threading.Lock()
        self._active_faults: dict[Fault, tuple[Fault, ...]] = {}
        self._added: set[str] = set()
        self._leaving: set[str] = set()
        self._over = False

    @contextlib.contextmanager
    def recording_fault(self, fault: Fault) -> Iterator[None]:
        """Whatever happens inside is `fault`, or takes one back."""
        if fault.mends:
            with self._undoing(fault):
                yield
        elif self._affects_load(fault):
            node = fault.node or self._leader_or_first()
            with self._recording(str(fault.kind), node, lambda: self._evidence(fault)):
                yield
        else:
            yield

    @contextlib.contextmanager
    def recording_added_node(self, node: str) -> Iterator[None]:
        """Whatever happens inside adds `node`."""
        with self._lock:
            self._leaving.discard(node)
        with self._recording(SCALE, node, lambda: self._evidence_of_running(node)):
            yield
        with self._lock:
            self._added.add(node)

    @contextlib.contextmanager
    def recording_removed_node(self, node: str) -> Iterator[None]:
        """Whatever happens inside removes `node`, which takes back that it was added."""
        with self._lock:
            was_added = node in self._added
            self._leaving.add(node)
        try:
            with (
                self._recording_removal(node)
                if was_added
                else self._recording(REMOVE, node, lambda: self._evidence_of_removal(node))
            ):
                yield
        except DmqError:
            with self._lock:
                self._leaving.discard(node)
            raise

    def is_leaving(self, node: str) -> bool:
        """Whether what its states show is that it is removed."""
        with self._lock:
            return node in self._leaving

    def node_returned(self, node: str, after: NodeAction) -> None:
        """A node is back after that act: what a new start or new links end is over."""
        links = after is NodeAction.ISOLATE
        if after not in _RESTARTED and not links:
            return
        with self._lock:
            left = {
                fault: tuple(f for f in matching if node not in (f.node, f.peer) or (links and f.kind in _ALARMS))
                for fault, matching in self._active_faults.items()
            }
        now = time.monotonic()
        self._record_ended(left, now, now, f"{node} is back without it")

    def stop(self) -> None:
        """The load is over: nothing more is put down."""
        with self._lock:
            self._over = True

    @contextlib.contextmanager
    def _recording(self, name: str, node: str, evidence: Callable[[], str]) -> Iterator[None]:
        self._fault(FaultStage.ASKED, name, node)
        try:
            yield
        except DmqError as error:
            self._fault(FaultStage.FAILED, name, node, error.what)
            raise
        at, said = time.monotonic(), ""
        # Without evidence the verdict is in doubt, and says so.
        with contextlib.suppress(DmqError):
            said = evidence()
        self._fault(FaultStage.BEGAN, name, node, at=at)
        self._fault(FaultStage.HOLDS, name, node, said, at)

    @contextlib.contextmanager
    def _undoing(self, undo: Fault) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except DmqError as error:
            for fault in self._faults_undone_by(undo):
                self._undo(FaultStage.FAILED, str(undo.kind), fault.node or "", error.what)
            raise
        at = time.monotonic()
        # Nobody can tell what is left of them while the nodes do not answer.
        with contextlib.suppress(DmqError):
            now = self._cluster.standing()
            with self._lock:
                left = {
                    fault: tuple(f for f in matching if f in now) for fault, matching in self._active_faults.items()
                }
            self._record_ended(left, began, at, "the nodes tell of it no more")

    @contextlib.contextmanager
    def _recording_removal(self, node: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except DmqError as error:
            self._undo(FaultStage.FAILED, REMOVE, node, error.what)
            raise
        with self._lock:
            self._added.discard(node)
        at = time.monotonic()
        self._undo(FaultStage.BEGAN, REMOVE, node, at=began)
        self._undo(FaultStage.HOLDS, REMOVE, node, self._evidence_of_removal(node), at)

    def _record_ended(self, left: dict[Fault, tuple[Fault, ...]], began: float, at: float, text: str) -> None:
        """Puts down the end of every fault of which nothing is left."""
        for fault, matching in left.items():
            undo = undo_of(fault)
            with self._lock:
                is_over = not matching and self._active_faults.pop(fault, None) is not None
                if matching:
                    self._active_faults[fault] = matching
            if is_over and undo is not None:
                self._undo(FaultStage.BEGAN, str(undo.kind), fault.node or "", at=began)
                self._undo(FaultStage.HOLDS, str(undo.kind), fault.node or "", text, at)

    def _faults_undone_by(self, undo: Fault) -> list[Fault]:
        """The faults that `undo` was to end, or a part of them."""
        ends = {undo.node, undo.peer} - {None}
        with self._lock:
            return [
                fault
                for fault, matching in self._active_faults.items()
                if (undo_of(fault) or fault).kind is undo.kind and any(ends <= {f.node, f.peer} for f in matching)
            ]

    def _affects_load(self, fault: Fault) -> bool:
        """Whether the load may feel it, and its nodes do not show it by their states."""
        if fault.kind is FaultKind.MOVE_LEADER:
            return (fault.queue, fault.virtual_host) == (self._queue, self._host)
        return fault.kind is not FaultKind.ROLLING_RESTART

    def _evidence(self, fault: Fault) -> str:
        """The cluster's evidence; of what can be taken back it is remembered."""
        if fault.kind in (FaultKind.MOVE_LEADER, FaultKind.REBALANCE):
            return f"{self._leader()} leads the queue, as the management API tells"
        matching = told_of(fault, self._cluster.standing())
        with self._lock:
            self._active_faults[fault] = matching
        return f"the nodes tell of it: {matching[0].title}" if matching else ""

    def _leader_or_first(self) -> str:
        # Whoever does it must not wait for this, or be kept from it.
        with contextlib.suppress(DmqError):
            return self._leader()
        return self._cluster.nodes()[0].name

    def _leader(self) -> str:
        return leader_of(self._cluster, self._queue, self._host)

    def _evidence_of_running(self, node: str) -> str:
        states = {info.name: info.state for info in self._cluster.nodes()}
        return f"{self._cluster.backend} shows it as running" if states.get(node) is NodeState.RUNNING else ""

    def _evidence_of_removal(self, node: str) -> str:
        gone = node not in [info.name for info in self._cluster.nodes()]
        return f"{self._cluster.backend} knows it no more" if gone else ""

    def _fault(self, stage: FaultStage, name: str, node: str, text: str = "", at: float | None = None) -> None:
        with self._lock:
            if not self._over:
                self._journal.append_fault(stage, name, node, text, at)

    def _undo(self, stage: FaultStage, name: str, node: str, text: str = "", at: float | None = None) -> None:
        with self._lock:
            if not self._over:
                self._journal.append_undo(stage, name, node, text, at)


# Clients that were on a node know of its death before the backend has cleared up and tells of it.
NOTICED_S: Final = 5.0
_LostAt = Callable[[str, float], float | None]
# What is done to a node shows in its state; of a stopped one nobody can tell whether it was killed.
_ACTS: Final = {
    NodeState.STOPPED: NodeAction.STOP,
    NodeState.PAUSED: NodeAction.PAUSE,
    NodeState.ISOLATED: NodeAction.ISOLATE,
    NodeState.DRAINING: NodeAction.DRAIN,
}
_STATES: Final = {
    NodeAction.KILL: NodeState.STOPPED,
    NodeAction.STOP: NodeState.STOPPED,
    NodeAction.RESTART: NodeState.STOPPED,
    NodeAction.PAUSE: NodeState.PAUSED,
    NodeAction.ISOLATE: NodeState.ISOLATED,
    NodeAction.DRAIN: NodeState.DRAINING,
}
_UNDOES: Final = {
    NodeAction.KILL: NodeAction.START,
    NodeAction.STOP: NodeAction.START,
    NodeAction.RESTART: NodeAction.START,
    NodeAction.PAUSE: NodeAction.UNPAUSE,
    NodeAction.ISOLATE: NodeAction.REJOIN,
    NodeAction.DRAIN: NodeAction.REVIVE,
}


class ExternalNodeFaults:
    """Puts node faults down in `journal`: those that are announced under their name, all others by the state they show.

    `first_loss_at` gives the monotonic second, not before another one, at which a client first lost a node; `back`
    hears which node is back, and after what.
    """

    def __init__(
        self,
        journal: Journal,
        backend: str,
        first_loss_at: _LostAt = lambda _node, _since: None,
        back: Callable[[str, NodeAction], object] = lambda _node, _after: None,
    ) -> None:
        self._journal = journal
        self._backend = backend
        self._lost_at = first_loss_at
        self._back = back
        self._lock = threading.Lock()
        self._announced: dict[str, tuple[NodeAction, float]] = {}
        self._down: dict[str, NodeAction] = {}
        self._undoing: set[str] = set()

    def announce(self, operation: NodeOperation) -> None:
        """An act is about to be done."""
        action, node = operation.action, operation.node
        with self._lock:
            if action in _STATES:
                self._announced[node] = (action, time.monotonic())
                self._journal.append_fault(FaultStage.ASKED, str(action), node)
            elif node in self._down:
                self._undoing.add(node)
                self._journal.append_undo(FaultStage.BEGAN, str(action), node)

    def announce_failure(self, operation: NodeOperation, why: str) -> None:
        """An act that was announced failed."""
        action, node = operation.action, operation.node
        with self._lock:
            if self._announced.pop(node, None) is not None:
                self._journal.append_fault(FaultStage.FAILED, str(action), node, why)
            elif node in self._undoing:
                self._undoing.discard(node)
                self._journal.append_undo(FaultStage.FAILED, str(action), node, why)

    def node_changed(self, change: NodeChange) -> None:
        """A node changed its state."""
        with self._lock:
            if change.state is NodeState.RUNNING:
                self._node_came_up(change)
            elif change.state in _ACTS:
                self._node_went_down(change)

    def _node_went_down(self, change: NodeChange) -> None:
        node, at = change.node, monotonic_of(change.at)
        before = self._down.get(node)
        if before is not None and _STATES[before] is change.state:
            return
        action, asked = self._announced.get(node, (_ACTS[change.state], at))
        if _STATES[action] is not change.state:
            return
        was_announced = self._announced.pop(node, None) is not None
        self._down[node] = action
        act = str(action)
        if not was_announced:
            self._journal.append_fault(FaultStage.ASKED, act, node, at=at)
        began = at
        if action in (NodeAction.KILL, NodeAction.PAUSE, NodeAction.ISOLATE) or not was_announced:
            lost = self._lost_at(node, asked if was_announced else at - NOTICED_S)
            began = at if lost is None else min(at, lost)
        else:
            # These take a while, and clients feel them from the beginning.
            began = min(at, asked)
        self._journal.append_fault(FaultStage.BEGAN, act, node, at=began)
        self._journal.append_fault(FaultStage.HOLDS, act, node, f"{self._backend} says that it is {change.state}", at)

    def _node_came_up(self, change: NodeChange) -> None:
        node = change.node
        action = self._down.pop(node, None)
        if action is None:
            return
        undo, at = NodeOperation(_UNDOES[action], node), monotonic_of(change.at)
        if node not in self._undoing:
            self._journal.append_undo(FaultStage.BEGAN, str(undo.action), node, at=at)
        self._undoing.discard(node)
        self._journal.append_undo(FaultStage.HOLDS, str(undo.action), node, visible(undo.done), at)
        self._back(node, action)
