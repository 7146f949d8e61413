"""The one gate that everything passes which changes a cluster or its messages."""

from __future__ import annotations

from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault
from dmq_core.cluster.protocol import Backend, Cluster
from dmq_core.errors import RefusedError
from dmq_core.progress import ProgressListener, no_progress


def perform(
    cluster: Cluster,
    operation: NodeOperation,
    *,
    read_only: bool,
    progress: ProgressListener = no_progress,
) -> None:
    """Does `operation`, unless the session is read-only or the cluster is somebody else's (`RefusedError`)."""
    guard(cluster, operation.title, read_only=read_only)
    cluster.act(operation.action, operation.node, progress)


def add_node(cluster: Cluster, *, read_only: bool, progress: ProgressListener = no_progress) -> str:
    """Adds a node and returns its name, unless the session is read-only or the cluster somebody else's
    (`RefusedError`)."""
    guard(cluster, "Add a node", read_only=read_only)
    return cluster.add_node(progress)


def remove_node(
    cluster: Cluster, node: str, *, read_only: bool, force: bool = False, progress: ProgressListener = no_progress
) -> None:
    """Removes `node`, unless the session is read-only or the cluster is somebody else's (`RefusedError`).

    `force` also deletes the queues that are only on it.
    """
    guard(cluster, f"Remove {node}", read_only=read_only)
    cluster.remove_node(node, progress, force=force)


def cause(cluster: Cluster, fault: Fault, *, read_only: bool, progress: ProgressListener = no_progress) -> Fault | None:
    """Does `fault` and returns its way back, unless the session is read-only or the cluster somebody else's."""
    guard(cluster, fault.title, read_only=read_only)
    return cluster.cause(fault, progress)


def guard(cluster: Cluster, title: str, *, read_only: bool) -> None:
    """The gate of every act on a cluster's nodes: raises `RefusedError` when `title` may not be done."""
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
