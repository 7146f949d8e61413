"""Faults that a run does not inject itself but that people do meanwhile, recorded with the cluster's own evidence."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from dmq_core.actions.action import Action, matching_faults
from dmq_core.actions.catalog import CATALOG, ActionKind, Scaling
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeChange, NodeState
from dmq_core.errors import DmqError
from dmq_core.proof.journal.records import FaultStage
from dmq_core.proof.run.cluster_recorder import monotonic_of
from dmq_core.proof.run.fault_injection import evidence_for
from dmq_core.proof.run.queue_checks import leader_of
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.proof.journal.file import Journal

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
        self._active_faults: dict[Action, tuple[Fault, ...]] = {}
        self._added: set[str] = set()
        self._leaving: set[str] = set()
        self._over = False

    @contextlib.contextmanager
    def recording_fault(self, action: Action) -> Iterator[None]:
        """Whatever happens inside is `action`: a fault, or what undoes one, or a node that is added or removed."""
        recording: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if action.kind is Scaling.ADD:
            recording = self._recording_added_node(action.node or "")
        elif action.kind is Scaling.REMOVE:
            recording = self._recording_removed_node(action.node or "")
        elif action.ends_another:
            recording = self._undoing(action)
        elif self._affects_load(action):
            node = action.node or self._leader_or_first()
            recording = self._recording(action.kind, node, lambda: self._evidence_for(action))
        with recording:
            yield

    @contextlib.contextmanager
    def _recording_added_node(self, node: str) -> Iterator[None]:
        with self._lock:
            self._leaving.discard(node)
        with self._recording(Scaling.ADD, node, lambda: self._evidence_of_running(node)):
            yield
        with self._lock:
            self._added.add(node)

    @contextlib.contextmanager
    def _recording_removed_node(self, node: str) -> Iterator[None]:
        """Removes a node, which undoes that it was added."""
        with self._lock:
            was_added = node in self._added
            self._leaving.add(node)
        try:
            with (
                self._recording_removal(node)
                if was_added
                else self._recording(Scaling.REMOVE, node, lambda: self._evidence_of_removal(node))
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
                action: tuple(f for f in told if node not in (f.node, f.peer) or (links and f.kind in _ALARMS))
                for action, told in self._active_faults.items()
            }
        now = time.monotonic()
        self._record_ended(left, now, now, f"{node} is back without it")

    def stop(self) -> None:
        """The load is over: nothing more is put down."""
        with self._lock:
            self._over = True

    @contextlib.contextmanager
    def _recording(self, kind: ActionKind, node: str, evidence: Callable[[], str]) -> Iterator[None]:
        name = str(kind)
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
    def _undoing(self, undo: Action) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except DmqError as error:
            for action in self._faults_undone_by(undo):
                self._undo(FaultStage.FAILED, str(undo.kind), action.node or "", error.what)
            raise
        at = time.monotonic()
        # Nobody can tell what is left of them while the nodes do not answer.
        with contextlib.suppress(DmqError):
            now = self._cluster.active_faults()
            with self._lock:
                left = {action: tuple(f for f in told if f in now) for action, told in self._active_faults.items()}
            self._record_ended(left, began, at, "the nodes tell of it no more")

    @contextlib.contextmanager
    def _recording_removal(self, node: str) -> Iterator[None]:
        name = str(Scaling.REMOVE)
        began = time.monotonic()
        try:
            yield
        except DmqError as error:
            self._undo(FaultStage.FAILED, name, node, error.what)
            raise
        with self._lock:
            self._added.discard(node)
        at = time.monotonic()
        self._undo(FaultStage.BEGAN, name, node, at=began)
        self._undo(FaultStage.HOLDS, name, node, self._evidence_of_removal(node), at)

    def _record_ended(self, left: dict[Action, tuple[Fault, ...]], began: float, at: float, text: str) -> None:
        """Puts down the end of every fault of which nothing is left."""
        for action, told in left.items():
            undo = action.undo
            with self._lock:
                is_over = not told and self._active_faults.pop(action, None) is not None
                if told:
                    self._active_faults[action] = told
            if is_over and undo is not None:
                self._undo(FaultStage.BEGAN, str(undo.kind), action.node or "", at=began)
                self._undo(FaultStage.HOLDS, str(undo.kind), action.node or "", text, at)

    def _faults_undone_by(self, undo: Action) -> list[Action]:
        """What `undo` was to end, or a part of it."""
        with self._lock:
            return [
                action
                for action, told in self._active_faults.items()
                if action.spec.undo is undo.kind and any(undo.nodes <= {f.node, f.peer} for f in told)
            ]

    def _affects_load(self, action: Action) -> bool:
        """Whether the load may feel it, and its nodes do not show it by their states."""
        if action.kind is FaultKind.MOVE_LEADER:
            return (action.queue, action.virtual_host) == (self._queue, self._host)
        return action.kind is not FaultKind.ROLLING_RESTART

    def _evidence_for(self, action: Action) -> str:
        """The cluster's evidence; of what can be undone it is remembered."""
        if action.kind in (FaultKind.MOVE_LEADER, FaultKind.REBALANCE):
            return f"{self._leader()} leads the queue, as the management API tells"
        active = self._cluster.active_faults()
        with self._lock:
            self._active_faults[action] = matching_faults(action, active)
        return evidence_for(action, active)

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
_ACTIONS: Final = {
    **{state: action for action in NodeAction if (state := CATALOG[action].state) is not None},
    NodeState.STOPPED: NodeAction.STOP,
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

    def announce(self, action: Action) -> None:
        """An action on a node is about to be done."""
        name, node = str(action.kind), action.node or ""
        with self._lock:
            if action.spec.state is not None:
                self._announced[node] = (NodeAction(name), time.monotonic())
                self._journal.append_fault(FaultStage.ASKED, name, node)
            elif node in self._down:
                self._undoing.add(node)
                self._journal.append_undo(FaultStage.BEGAN, name, node)

    def announce_failure(self, action: Action, why: str) -> None:
        """An action that was announced failed."""
        name, node = str(action.kind), action.node or ""
        with self._lock:
            if self._announced.pop(node, None) is not None:
                self._journal.append_fault(FaultStage.FAILED, name, node, why)
            elif node in self._undoing:
                self._undoing.discard(node)
                self._journal.append_undo(FaultStage.FAILED, name, node, why)

    def node_changed(self, change: NodeChange) -> None:
        """A node changed its state."""
        with self._lock:
            if change.state is NodeState.RUNNING:
                self._node_came_up(change)
            elif change.state in _ACTIONS:
                self._node_went_down(change)

    def _node_went_down(self, change: NodeChange) -> None:
        node, at = change.node, monotonic_of(change.at)
        before = self._down.get(node)
        if before is not None and CATALOG[before].state is change.state:
            return
        action, asked = self._announced.get(node, (_ACTIONS[change.state], at))
        if CATALOG[action].state is not change.state:
            return
        was_announced = self._announced.pop(node, None) is not None
        self._down[node] = action
        act = str(action)
        if not was_announced:
            self._journal.append_fault(FaultStage.ASKED, act, node, at=at)
        began = at
        if CATALOG[action].at_once or not was_announced:
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
        undo, at = Action(CATALOG[action].undo or NodeAction.START, node), monotonic_of(change.at)
        if node not in self._undoing:
            self._journal.append_undo(FaultStage.BEGAN, str(undo.kind), node, at=at)
        self._undoing.discard(node)
        self._journal.append_undo(FaultStage.HOLDS, str(undo.kind), node, visible(undo.done), at)
        self._back(node, action)
