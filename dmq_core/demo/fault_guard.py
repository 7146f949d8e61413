"""Nodes that a demo takes down: through the one gate, one demo at a time, and brought back whatever happens."""

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

_WAY_BACK: Final = {
    NodeState.STARTING: NodeAction.START,
    NodeState.STOPPED: NodeAction.START,
    NodeState.UNREACHABLE: NodeAction.START,
    NodeState.PAUSED: NodeAction.UNPAUSE,
    NodeState.ISOLATED: NodeAction.REJOIN,
    NodeState.DRAINING: NodeAction.REVIVE,
}
# One that was frozen while it was cut off has to be brought back twice.
_ROUNDS: Final = 2


class DemoLock:
    """The right of one demo to take nodes of a cluster down, among all programs of this user.

    `RefusedError` if another demo has it: two at once could take the majority away.
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
                f"another demo is taking nodes of {cluster.name} down", "Play this one when that one is over."
            ) from None

    def end(self) -> None:
        """Lets the next one have it."""
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class ClusterActions:
    """What can be done to a cluster's nodes; each raises `RefusedError` where it may not be done."""

    perform: Callable[[NodeOperation], object]
    cause: Callable[[Fault], Fault | None]
    stop: Callable[[], None]
    start: Callable[[], None]


def actions_on(cluster: Cluster, progress: ProgressListener, *, read_only: bool) -> ClusterActions:
    """Acts through the gate of a session."""

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
    """Acts on the nodes of `cluster` for a demo, and brings back, in `repair`, what no longer is as it was.

    Without `may_lose_majority`, an act that would leave none is `RefusedError`.
    """

    def __init__(self, cluster: Cluster, acts: ClusterActions, *, may_lose_majority: bool) -> None:
        self._cluster = cluster
        self._acts = acts
        self._may_lose_majority = may_lose_majority
        self._taken: set[str] = set()
        self._interrupted: NodeOperation | None = None
        self._backs: list[Fault] = []

    def perform(self, operation: NodeOperation) -> None:
        """Does an act on a node."""
        if operation.destructive:
            self._check_majority(operation.title, [operation.node])
            self._take([operation.node])
        self._interrupted = operation
        try:
            self._acts.perform(operation)
        except DmqError:
            self._interrupted = None
            raise
        self._interrupted = None

    def cause(self, fault: Fault) -> Fault | None:
        """Does a fault of the whole cluster; gives its way back, which `repair` takes if nobody does before.

        A leader that was moved stays: it is that of a queue that goes with the demo.
        """
        if fault.destructive:
            self._take(self._names())
        back = undo_of(fault)
        if back is not None and back not in self._backs:
            # Before the act, which may be interrupted.
            self._backs.append(back)
        told = self._acts.cause(fault)
        if fault in self._backs:
            self._backs.remove(fault)
        return told

    def stop(self) -> None:
        """Stops every node."""
        self._check_majority(f"Stop {self._cluster.name}", self._names())
        self._take(self._names())
        self._acts.stop()

    def start(self) -> None:
        """Starts every node that does not run."""
        self._acts.start()

    def repair(self) -> None:
        """Brings back the nodes that were taken down, and takes every fault back; `ClusterError` if it cannot."""
        if self._interrupted is not None:
            # RabbitMQ's tool may still be at it in the node: only when it is done to its end, the node's state is sure.
            _tried(partial(self._acts.perform, self._interrupted))
            self._interrupted = None
        problems = list(self._bring_nodes_back())
        backs, self._backs = self._backs, []
        for back in reversed(backs):
            problems += _tried(partial(self._acts.cause, back))
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
            return _tried(self._acts.start)
        operations = [NodeOperation(_WAY_BACK[node.state], node.name) for node in down]
        return [problem for operation in operations for problem in _tried(partial(self._acts.perform, operation))]

    def _missing(self) -> list[NodeInfo]:
        """The nodes that ran before they were taken down, and do not run now."""
        return [
            node for node in self._cluster.nodes() if node.name in self._taken and node.state is not NodeState.RUNNING
        ]

    def _take(self, names: Sequence[str]) -> None:
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


def _tried(act: Callable[[], object]) -> list[str]:
    """Does `act`; what went wrong."""
    try:
        act()
    except DmqError as error:
        return [error.what]
    return []
