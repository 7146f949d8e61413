"""Faults of a demo: done through the one gate, by one demo at a time, and undone whatever happens."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from dmq_core.actions.gate import cause, guard, perform
from dmq_core.actions.impact import LOST_STATES
from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault, undo_of
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeInfo, NodeState
from dmq_core.errors import ClusterError, DmqError, RefusedError
from dmq_core.progress import ProgressListener
from dmq_core.state_directory import state_folder

_UNDO: Final = {
    NodeState.STARTING: NodeAction.START,
    NodeState.STOPPED: NodeAction.START,
    NodeState.UNREACHABLE: NodeAction.START,
    NodeState.PAUSED: NodeAction.UNPAUSE,
    NodeState.ISOLATED: NodeAction.REJOIN,
    NodeState.DRAINING: NodeAction.REVIVE,
}
# One that was frozen while it was cut off has to be brought undo twice.
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


@dataclass(frozen=True, slots=True)
class ClusterActions:
    """What a demo can do to a cluster; each raises `RefusedError` where it may not be done."""

    perform: Callable[[NodeOperation], object]
    cause: Callable[[Fault], Fault | None]
    stop: Callable[[], None]
    start: Callable[[], None]


def actions_on(cluster: Cluster, progress: ProgressListener, *, read_only: bool) -> ClusterActions:
    """Actions through the gate, which refuses them to a read-only session."""

    def stop() -> None:
        guard(cluster, f"Stop {cluster.name}", read_only=read_only)
        cluster.stop(progress)

    def start() -> None:
        guard(cluster, f"Start {cluster.name}", read_only=read_only)
        cluster.start(progress)

    return ClusterActions(
        partial(perform, cluster, read_only=read_only, progress=progress),
        partial(cause, cluster, read_only=read_only, progress=progress),
        stop,
        start,
    )


class FaultGuard:
    """Does the faults of a demo on `cluster`, and undoes in `repair` what the demo left.

    Without `may_lose_majority`, an action that would leave no majority raises `RefusedError`.
    """

    def __init__(self, cluster: Cluster, actions: ClusterActions, *, may_lose_majority: bool) -> None:
        self._cluster = cluster
        self._actions = actions
        self._may_lose_majority = may_lose_majority
        self._taken: set[str] = set()
        self._interrupted: NodeOperation | None = None
        self._undos: list[Fault] = []

    def perform(self, operation: NodeOperation) -> None:
        """Does an action on a node."""
        if operation.destructive:
            self._check_majority(operation.title, [operation.node])
            self._note_taken([operation.node])
        self._interrupted = operation
        try:
            self._actions.perform(operation)
        except DmqError:
            self._interrupted = None
            raise
        self._interrupted = None

    def cause(self, fault: Fault) -> Fault | None:
        """Does a fault of the whole cluster; gives its undo, which `repair` does if the demo has not done it before.

        A leader that was moved stays: it is that of a queue that goes with the demo.
        """
        if fault.destructive:
            self._note_taken(self._names())
        undo = undo_of(fault)
        if undo is not None and undo not in self._undos:
            # Before the action, which may be interrupted.
            self._undos.append(undo)
        told = self._actions.cause(fault)
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
        """Brings undo the nodes that were taken down and undoes every fault; `ClusterError` if it cannot."""
        if self._interrupted is not None:
            # RabbitMQ's tool may still be at work in the node: its state is certain only once the action was repeated.
            _attempt(partial(self._actions.perform, self._interrupted))
            self._interrupted = None
        problems = list(self._bring_nodes_back())
        undos, self._undos = self._undos, []
        for undo in reversed(undos):
            problems += _attempt(partial(self._actions.cause, undo))
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
        if 2 * len(down) >= len(self._cluster.nodes()):
            # A node may wait for others while it starts: without a majority they have to come together.
            return _attempt(self._actions.start)
        operations = [NodeOperation(_UNDO[node.state], node.name) for node in down]
        return [problem for operation in operations for problem in _attempt(partial(self._actions.perform, operation))]

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
        staying = [node for node in nodes if node.name not in going and node.state not in LOST_STATES]
        if not self._may_lose_majority and 2 * len(staying) <= len(nodes):
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
