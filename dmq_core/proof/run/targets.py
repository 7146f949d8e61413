"""Whom a step of a proof run hits: the fault that the catalog knows, with its target in the cluster as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import CATALOG, ActionKind, Scaling, Scope
from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import lowest_free_name


def action_for(
    kind: ActionKind, node: str, *, leader: str | None, queue: str, vhost: str, nodes: Sequence[NodeInfo]
) -> Action:
    """What a fault is for `node` (empty where it takes none), with the leader and the nodes as they are now."""
    spec = CATALOG[kind]
    if kind is Scaling.ADD:
        return Action(kind, lowest_free_name([info.name for info in nodes]))
    if spec.scope is Scope.QUEUE:
        return Action(kind, node, queue, vhost)
    peer = other_end(node, leader, nodes) if "peer" in spec.needs else None
    return Action(kind, node if "node" in spec.needs else None, peer=peer)


def other_end(node: str, leader: str | None, nodes: Sequence[NodeInfo]) -> str | None:
    """The other end of a link of `node`: a node that runs, rather one that does not lead, and rather the last."""
    others = [n.name for n in nodes if n.state is NodeState.RUNNING and n.name != node]
    return next((n for n in reversed(others) if n != leader), others[0] if others else None)
