"""Acts on one node of a cluster in Docker: down and up, frozen, cut off, in maintenance, and back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from dmq_core.cluster.docker.definition import NODE_LABEL, ClusterDefinition
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.errors import ConflictError
from dmq_core.cluster.docker.isolation import cut_off, is_cut_off, let_back, maintain
from dmq_core.cluster.docker.provisioning import ALIVE
from dmq_core.cluster.docker.readiness import Boot, NodeWaiter
from dmq_core.cluster.docker.values import Container
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.errors import ClusterError, InvalidInputError, OperationTimeoutError
from dmq_core.progress import Progress, ProgressListener

ACTION_LIMIT_S = 60.0
FREEZES_WITHIN_S = 15.0
_GRACE_S = 30
_AGAIN_S = 0.2
StateOf = Callable[[ClusterDefinition, str, Container], NodeState]


def freeze(pause: Callable[[str], None], container: str, within_s: float = FREEZES_WITHIN_S) -> None:
    """Pauses a container, again for up to `within_s` seconds where a busy kernel does not get to all its processes."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            pause(container)
        except ClusterError as error:
            if "unable to freeze" not in error.what or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_AGAIN_S)


class NodeActions:
    """Acts on the nodes of a cluster, each within 60 s; `state_of` says what a container's node is doing."""

    def __init__(
        self,
        engine: Engine,
        definition: ClusterDefinition,
        state_of: StateOf,
        waiter: NodeWaiter,
        progress: ProgressListener,
    ) -> None:
        self._engine = engine
        self._definition = definition
        self._state_of = state_of
        self._waiter = waiter
        self._progress = progress
        self._deadline = time.monotonic() + ACTION_LIMIT_S

    def do(self, action: NodeAction, container: Container) -> None:
        """Does `action` to the node in `container`; `InvalidInputError` if the node is in no state for it."""
        acts: dict[NodeAction, Callable[[Container, str], None]] = {
            NodeAction.KILL: self._kill,
            NodeAction.STOP: self._stop,
            NodeAction.START: self._start,
            NodeAction.RESTART: self._restart,
            NodeAction.PAUSE: self._pause,
            NodeAction.UNPAUSE: self._unpause,
            NodeAction.ISOLATE: self._isolate,
            NodeAction.REJOIN: self._rejoin,
            NodeAction.DRAIN: self._drain,
            NodeAction.REVIVE: self._revive,
        }
        acts[action](container, container.labels[NODE_LABEL])

    def _kill(self, container: Container, _node: str) -> None:
        if container.status in ALIVE:
            # It may have ended by itself a moment ago, which is what was asked for.
            with contextlib.suppress(ConflictError):
                self._engine.kill_container(container.id)
        _await_stopped(self._engine, container)

    def _stop(self, container: Container, _node: str) -> None:
        halt(self._engine, container, self._progress)

    def _start(self, container: Container, node: str) -> None:
        state = self._state_of(self._definition, node, container)
        if state is NodeState.PAUSED:
            raise InvalidInputError(f"{node} is paused, not stopped", f"'dmq node unpause {node}' lets it go on.")
        if state is NodeState.ISOLATED:
            self._rejoin(container, node)
        elif state is NodeState.DRAINING:
            self._revive(container, node)
        else:
            self._bring_up(container, node)

    def _restart(self, container: Container, node: str) -> None:
        self._stop(container, node)
        self._bring_up(container, node)

    def _pause(self, container: Container, node: str) -> None:
        self._check_runs(container, node, frozen=True)
        if container.status != "paused":
            freeze(self._engine.pause_container, container.id)

    def _unpause(self, container: Container, node: str) -> None:
        self._check_runs(container, node, frozen=True)
        if not is_cut_off(self._definition, container):
            self._bring_up(container, node)
        elif container.status == "paused":
            self._engine.unpause_container(container.id)

    def _isolate(self, container: Container, node: str) -> None:
        self._check_runs(container, node, frozen=True)
        cut_off(self._engine, self._definition, container)

    def _rejoin(self, container: Container, node: str) -> None:
        self._check_runs(container, node)
        let_back(self._engine, self._definition, container)
        self._waiter.await_node(node, Boot(restarts=0), self._deadline, apart=True)

    def _drain(self, container: Container, node: str) -> None:
        self._check_connected(container, node)
        if self._state_of(self._definition, node, container) is NodeState.DRAINING:
            return
        maintain(self._engine, container, "drain")
        # What the node has said comes to the engine's log a moment later.
        while self._state_of(self._definition, node, container) is not NodeState.DRAINING:
            if time.monotonic() > self._deadline:
                raise OperationTimeoutError(
                    f"{node} does not say that it is in maintenance", f"See 'dmq node logs {node}'."
                )
            time.sleep(0.05)

    def _revive(self, container: Container, node: str) -> None:
        self._check_connected(container, node)
        if self._state_of(self._definition, node, container) is NodeState.DRAINING:
            maintain(self._engine, container, "revive")
        self._waiter.await_node(node, Boot(restarts=0), self._deadline)

    def _check_runs(self, container: Container, node: str, *, frozen: bool = False) -> None:
        """Refuses a node that is stopped and, unless `frozen`, one that is paused."""
        if container.status not in ALIVE:
            raise InvalidInputError(f"{node} does not run", f"'dmq node start {node}' starts it.")
        if container.status == "paused" and not frozen:
            raise InvalidInputError(f"{node} is paused", f"'dmq node unpause {node}' lets it go on.")

    def _check_connected(self, container: Container, node: str) -> None:
        self._check_runs(container, node)
        if is_cut_off(self._definition, container):
            raise InvalidInputError(f"{node} is isolated", f"'dmq node rejoin {node}' connects it again.")

    def _bring_up(self, container: Container, node: str) -> None:
        current = self._engine.container(container.id) or container
        if is_cut_off(self._definition, current):
            self._progress(Progress("the node was cut off; connecting it to its peers", node))
            let_back(self._engine, self._definition, current)
        if current.status == "paused":
            self._engine.unpause_container(container.id)
        elif current.status != "running":
            self._engine.start_container(container.id)
        self._waiter.await_node(node, Boot(restarts=1), self._deadline, apart=current.status == "paused")


def halt(engine: Engine, container: Container, progress: ProgressListener) -> None:
    """Stops a node in good order, within 60 s; nothing happens if it does not run."""
    if container.status in ALIVE:
        progress(Progress("stopping the node", container.labels.get(NODE_LABEL)))
        if container.status == "paused":
            with contextlib.suppress(ConflictError):
                engine.unpause_container(container.id)
        engine.stop_container(container.id, _GRACE_S)
    _await_stopped(engine, container)


def _await_stopped(engine: Engine, container: Container) -> None:
    deadline = time.monotonic() + ACTION_LIMIT_S
    while (now := engine.container(container.id)) is not None and now.status in ALIVE:
        if time.monotonic() > deadline:
            raise OperationTimeoutError(
                f"{container.name} did not stop within {ACTION_LIMIT_S:.0f} s", "Look at 'docker ps'."
            )
        time.sleep(0.05)
