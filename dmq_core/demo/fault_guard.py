"""Faults of a demo: done through the one gate, by one demo at a time, and undone whatever happens."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from dmq_core.actions.action import RECOVERY, Action
from dmq_core.actions.gate import ClusterActions
from dmq_core.actions.impact import votes_without
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeInfo, NodeState
from dmq_core.errors import ClusterError, DmqError, RefusedError
from dmq_core.majority import is_majority
from dmq_core.state_directory import state_folder

# One that was frozen while it was cut off has to be brought back twice.
_ROUNDS: Final = 2


class DemoLock:
    """Lets one demo at a time take nodes of a cluster down, among all programs of this user.

    `RefusedError` if another demo holds it: two at once could lose the majority.
    """

    def __init__(self, cluster: Cluster) -> None:
        folder = state_folder() / "demos"
        path = folder / f"{cluster.backend}-{cluster.name}.lock"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ClusterError(
                f"{path} cannot be used: {error.strerror}", "Let DMQ_STATE_DIR name a folder that you may write to."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise RefusedError(
                f"another demo is taking nodes of {cluster.name} down", "Run this one when that one is over."
            ) from None

    def end(self) -> None:
        """Releases the lock."""
        os.close(self._file)


class FaultGuard:
    """Does actions to `cluster` for a demo, and undoes, in `repair`, what no longer is as it was.

    Without `may_lose_majority`, an action that would leave none is `RefusedError`.
    """

    def __init__(self, cluster: Cluster, actions: ClusterActions, *, may_lose_majority: bool) -> None:
        self._cluster = cluster
        self._actions = actions
        self._may_lose_majority = may_lose_majority
        self._taken: set[str] = set()
        self._interrupted: Action | None = None
        self._undos: list[Action] = []

    def perform(self, action: Action) -> Action | None:
        """Does an action and returns what undoes it, which `repair` does if nobody does before.

        A leader that was moved stays: it is that of a queue that goes with the demo.
        """
        if not isinstance(action.kind, NodeAction):
            return self._inject(action)
        if action.destructive:
            self._check_majority(action.title, [action.node or ""])
            self._note_taken([action.node or ""])
        self._interrupted = action
        try:
            undo = self._actions.perform(action)
        except DmqError:
            self._interrupted = None
            raise
        self._interrupted = None
        return undo

    def _inject(self, fault: Action) -> Action | None:
        if fault.destructive:
            self._note_taken(self._names())
        undo = fault.undo
        if undo is not None and undo not in self._undos:
            # Before it is done, which may be interrupted.
            self._undos.append(undo)
        told = self._actions.perform(fault)
        if fault in self._undos:
            self._undos.remove(fault)
        return told

    def stop(self) -> None:
        """Stops every node."""
        self._check_majority(f"Stop {self._cluster.name}", self._names())
        self._note_taken(self._names())
        self._actions.stop()

    def start(self) -> None:
        """Starts every node that does not run."""
        self._actions.start()

    def repair(self) -> None:
        """Brings back the nodes that were taken down, and undoes every fault; `ClusterError` if it cannot."""
        if self._interrupted is not None:
            # RabbitMQ's tool may still be at it in the node: only when it is done to its end, the node's state is sure.
            _attempt(partial(self._actions.perform, self._interrupted))
            self._interrupted = None
        problems = list(self._bring_nodes_back())
        undos, self._undos = self._undos, []
        for undo in reversed(undos):
            problems += _attempt(partial(self._actions.perform, undo))
        if problems:
            raise ClusterError(
                f"{self._cluster.name} is not whole: {'; '.join(problems)}", "'dmq start' makes it whole."
            )

    def _bring_nodes_back(self) -> Sequence[str]:
        problems: Sequence[str] = ()
        for _ in range(_ROUNDS):
            down = self._missing()
            if not down:
                return ()
            problems = self._brought_back(down)
        return problems if self._missing() else ()

    def _brought_back(self, down: Sequence[NodeInfo]) -> Sequence[str]:
        nodes = self._cluster.nodes()
        if not is_majority(len(nodes) - len(down), len(nodes)):
            # A node may wait for others while it starts: without a majority they have to come together.
            return _attempt(self._actions.start)
        actions = [Action(RECOVERY[node.state], node.name) for node in down]
        return [problem for action in actions for problem in _attempt(partial(self._actions.perform, action))]

    def _missing(self) -> list[NodeInfo]:
        """The nodes that ran before they were taken down, and do not run now."""
        return [
            node for node in self._cluster.nodes() if node.name in self._taken and node.state is not NodeState.RUNNING
        ]

    def _note_taken(self, names: Sequence[str]) -> None:
        self._taken |= {n.name for n in self._cluster.nodes() if n.name in names and n.state is NodeState.RUNNING}

    def _names(self) -> list[str]:
        return [node.name for node in self._cluster.nodes()]

    def _check_majority(self, title: str, going: Sequence[str]) -> None:
        nodes = self._cluster.nodes()
        if not self._may_lose_majority and not is_majority(votes_without(nodes, *going), len(nodes)):
            raise RefusedError(
                f"{title}: refused, no majority of the nodes would be left", "Is another node down already?"
            )


def _attempt(action: Callable[[], object]) -> list[str]:
    """Does `action`; what went wrong."""
    try:
        action()
    except DmqError as error:
        return [error.what]
    return []
