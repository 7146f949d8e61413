"""Faults that a run does not do itself, put down with the cluster's own evidence: whoever does them, however."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.protocol import NodeAction, NodeChange, NodeState
from dmq_core.proof.records import Stage
from dmq_core.proof.witness import monotonic_of
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.proof.journal import Journal

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


class Bystander:
    """Puts node faults down in `journal`: those that are announced under their name, all others by the state they show.

    `lost_at` gives the monotonic second, not before another one, at which a client first lost a node; `back`
    hears which node is back, and after what.
    """

    def __init__(
        self,
        journal: Journal,
        backend: str,
        lost_at: _LostAt = lambda _node, _since: None,
        back: Callable[[str, NodeAction], object] = lambda _node, _after: None,
    ) -> None:
        self._journal = journal
        self._backend = backend
        self._lost_at = lost_at
        self._back = back
        self._lock = threading.Lock()
        self._announced: dict[str, tuple[NodeAction, float]] = {}
        self._down: dict[str, NodeAction] = {}
        self._mending: set[str] = set()

    def announced(self, operation: NodeOperation) -> None:
        """An act is about to be done."""
        action, node = operation.action, operation.node
        with self._lock:
            if action in _STATES:
                self._announced[node] = (action, time.monotonic())
                self._journal.append_fault(Stage.ASKED, str(action), node)
            elif node in self._down:
                self._mending.add(node)
                self._journal.append_undo(Stage.BEGAN, str(action), node)

    def failed(self, operation: NodeOperation, why: str) -> None:
        """An act that was announced failed."""
        action, node = operation.action, operation.node
        with self._lock:
            if self._announced.pop(node, None) is not None:
                self._journal.append_fault(Stage.FAILED, str(action), node, why)
            elif node in self._mending:
                self._mending.discard(node)
                self._journal.append_undo(Stage.FAILED, str(action), node, why)

    def changed(self, change: NodeChange) -> None:
        """A node changed its state."""
        with self._lock:
            if change.state is NodeState.RUNNING:
                self._up(change)
            elif change.state in _ACTS:
                self._gone(change)

    def _gone(self, change: NodeChange) -> None:
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
            self._journal.append_fault(Stage.ASKED, act, node, at=at)
        began = at
        if action in (NodeAction.KILL, NodeAction.PAUSE, NodeAction.ISOLATE) or not was_announced:
            lost = self._lost_at(node, asked if was_announced else at - NOTICED_S)
            began = at if lost is None else min(at, lost)
        else:
            # These take a while, and clients feel them from the beginning.
            began = min(at, asked)
        self._journal.append_fault(Stage.BEGAN, act, node, at=began)
        self._journal.append_fault(Stage.HOLDS, act, node, f"{self._backend} says that it is {change.state}", at)

    def _up(self, change: NodeChange) -> None:
        node = change.node
        action = self._down.pop(node, None)
        if action is None:
            return
        undo, at = NodeOperation(_UNDOES[action], node), monotonic_of(change.at)
        if node not in self._mending:
            self._journal.append_undo(Stage.BEGAN, str(undo.action), node, at=at)
        self._mending.discard(node)
        self._journal.append_undo(Stage.HOLDS, str(undo.action), node, visible(undo.done), at)
        self._back(node, action)
