"""The one gate that everything passes which changes a cluster or its messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dmq_core.actions.action import Action, undo_of
from dmq_core.actions.catalog import Scaling
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Backend, Cluster, NodeAction
from dmq_core.errors import RefusedError
from dmq_core.progress import ProgressListener, no_progress


def perform(
    cluster: Cluster, action: Action, *, read_only: bool, force: bool = False, progress: ProgressListener = no_progress
) -> Action | None:
    """Does `action` and returns what undoes it, unless the session is read-only or the cluster is somebody else's.

    Then it is `RefusedError`. With `force`, the removal of a node also deletes the queues that are only on it.
    """
    guard(cluster, action.title, read_only=read_only)
    node = action.node or ""
    match action.kind:
        case NodeAction() as kind:
            cluster.act(kind, node, progress)
        case FaultKind() as kind:
            fault = Fault(kind, action.node, action.queue, action.virtual_host, action.peer, action.delay_ms)
            return undo_of(action, cluster.inject(fault, progress))
        case Scaling.ADD:
            return Action(Scaling.REMOVE, cluster.add_node(progress))
        case Scaling.REMOVE:
            cluster.remove_node(node, progress, force=force)
    return action.undo


@dataclass(frozen=True, slots=True)
class ClusterActions:
    """What can be done to one cluster, through the gate; each raises `RefusedError` where it may not be done."""

    perform: Callable[[Action], Action | None]
    stop: Callable[[], None]
    start: Callable[[], None]


def actions_on(cluster: Cluster, progress: ProgressListener, *, read_only: bool) -> ClusterActions:
    """What a session can do to `cluster`."""

    def stop() -> None:
        guard(cluster, f"Stop {cluster.name}", read_only=read_only)
        cluster.stop(progress)

    def start() -> None:
        guard(cluster, f"Start {cluster.name}", read_only=read_only)
        cluster.start(progress)

    return ClusterActions(partial(perform, cluster, read_only=read_only, progress=progress), stop, start)


def guard(cluster: Cluster, title: str, *, read_only: bool) -> None:
    """The gate of every action on a cluster's nodes: raises `RefusedError` when `title` may not be done."""
    guard_change(title, read_only=read_only)
    if cluster.backend is Backend.ATTACHED:
        raise RefusedError(
            f"{title}: refused, dmq did not make {cluster.name}",
            "Faults are for clusters that 'dmq start' made; an attached one is only watched.",
        )


def guard_change(title: str, *, read_only: bool) -> None:
    """The gate of everything that changes a cluster or its messages.

    Raises `RefusedError` if the session is read-only.
    """
    if read_only:
        raise RefusedError(f"{title}: refused, this session is read-only", "Leave out --read-only and DMQ_READ_ONLY.")
