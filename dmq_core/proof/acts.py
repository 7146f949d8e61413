"""What a proof run can do to a cluster, each with its way back: acts on a node, faults of the whole, a node more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dmq_core.actions.gate import add_node, cause, perform, remove_node
from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault as ClusterFault
from dmq_core.cluster.faults.model import FaultKind, undo_of
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import lowest_free_name
from dmq_core.proof.scenario import Fault

# Does something to a cluster through the one gate, which may be told that the session is read-only.
Doing = Callable[[Cluster, bool], object]

# What a node is while its fault holds.
STATES: Final = {
    Fault.KILL: (NodeState.STOPPED,),
    Fault.STOP: (NodeState.STOPPED,),
    Fault.PAUSE: (NodeState.PAUSED,),
    Fault.ISOLATE: (NodeState.ISOLATED,),
    Fault.DRAIN: (NodeState.DRAINING,),
}
# After these a node may not count for the majority; of a link that is cut one end may go.
TAKES_AWAY: Final = frozenset({*STATES, Fault.ROLLING, Fault.CUT_LINK})
_OF_THE_CLUSTER: Final = frozenset(
    {
        Fault.MEMORY_ALARM,
        Fault.DISK_ALARM,
        Fault.MOVE_LEADER,
        Fault.REBALANCE,
        Fault.CUT_LINK,
        Fault.SLOW_LINK,
    }
)


@dataclass(frozen=True, slots=True)
class WayBack:
    """What takes an act back, however much of it was done; `command` is the `dmq` command that does the same."""

    name: str
    title: str
    done: str
    command: str
    do: Doing


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is done to `node`; `name` is the journal's word for it, `back` None where nothing is to be undone.

    `title` says what is done, `done` that it was. `fault` is what it is for the cluster as a whole, None for an act on
    a node.
    """

    kind: Fault
    name: str
    node: str
    title: str
    done: str
    do: Doing
    back: WayBack | None
    fault: ClusterFault | None = None

    @property
    def takes_away(self) -> bool:
        """Whether its node may not count for the majority."""
        return self.kind in TAKES_AWAY

    @property
    def ends(self) -> frozenset[str]:
        """Every node that it concerns: its own, and that at the other end of a link."""
        peer = None if self.fault is None else self.fault.peer
        return frozenset({self.node} if peer is None else {self.node, peer})


def act_for(fault: Fault, node: str, *, leader: str | None, queue: str, vhost: str, nodes: Sequence[NodeInfo]) -> Act:
    """The act that `fault` is for `node` (empty where it takes none), with the leader and the nodes as they are now."""
    if fault is Fault.SCALE:
        return one_more(nodes)
    if fault not in _OF_THE_CLUSTER:
        return on_node(fault, node)
    kind = FaultKind(str(fault))
    match kind:
        case FaultKind.MOVE_LEADER:
            return on_cluster(ClusterFault(kind, node, queue, vhost), node, leader)
        case FaultKind.CUT_LINK:
            return on_cluster(ClusterFault(kind, node, peer=other_end(node, leader, nodes)), node)
        case FaultKind.REBALANCE:
            return on_cluster(ClusterFault(kind), leader or nodes[0].name)
        case _:
            return on_cluster(ClusterFault(kind, node), node)


def on_node(fault: Fault, node: str, *, gently: bool = False) -> Act:
    """An act on one node; `gently` after it has given its leaders and clients away."""
    operation = NodeOperation(NodeAction(str(fault)), node)
    drain = NodeOperation(NodeAction.DRAIN, node)

    def do(cluster: Cluster, read_only: bool) -> None:
        for one in [drain, operation] if gently else [operation]:
            perform(cluster, one, read_only=read_only)

    return Act(fault, str(fault), node, operation.title, operation.done, do, _back_to_service(operation.undo))


def on_cluster(fault: ClusterFault, node: str, leader: str | None = None) -> Act:
    """A fault of the whole cluster, told of `node`; `leader` is where a leader that moves was before."""
    undo = undo_of(fault, leader)

    def do(cluster: Cluster, read_only: bool) -> None:
        cause(cluster, fault, read_only=read_only)

    def take_back(cluster: Cluster, read_only: bool) -> None:
        if undo is not None:
            cause(cluster, undo, read_only=read_only)

    name = "" if undo is None else "leader-back" if undo.kind is FaultKind.MOVE_LEADER else str(undo.kind)
    back = None if undo is None else WayBack(name, undo.title, undo.done, undo.command, take_back)
    return Act(Fault(str(fault.kind)), str(fault.kind), node, fault.title, fault.done, do, back, fault)


def one_more(nodes: Sequence[NodeInfo]) -> Act:
    """A node more than there are, which goes again; one that somebody else adds meanwhile stays."""
    name = lowest_free_name([node.name for node in nodes])
    added: list[str] = []

    def do(cluster: Cluster, read_only: bool) -> None:
        # Should it fail half way, this is the one that may be there.
        added[:] = [name]
        added[:] = [add_node(cluster, read_only=read_only)]

    def take_back(cluster: Cluster, read_only: bool) -> None:
        for node in cluster.nodes():
            if node.name in added:
                remove_node(cluster, node.name, read_only=read_only)

    back = WayBack("remove", f"Remove {name}", f"{name} removed", f"dmq node remove {name}", take_back)
    return Act(Fault.SCALE, str(Fault.SCALE), name, "Add a node", f"{name} added", do, back)


def other_end(node: str, leader: str | None, nodes: Sequence[NodeInfo]) -> str | None:
    """The other end of a link of `node`: a node that runs, rather one that does not lead, and rather the last."""
    others = [n.name for n in nodes if n.state is NodeState.RUNNING and n.name != node]
    return next((n for n in reversed(others) if n != leader), others[0] if others else None)


def word_of(cluster: Cluster, fault: ClusterFault) -> str:
    """What the nodes themselves tell of an alarm or a link that is cut or slow; empty: nothing."""
    found = told_of(fault, cluster.standing())
    return f"the nodes tell of it: {found[0].title}" if found else ""


def told_of(fault: ClusterFault, standing: Sequence[ClusterFault]) -> tuple[ClusterFault, ...]:
    """What of `standing` is what `fault` did; one that slows all links of a node is told of link by link."""
    ends = {fault.node, fault.peer} - {None}
    return tuple(f for f in standing if f.kind is fault.kind and ends <= {f.node, f.peer})


def undo_command(name: str, node: str) -> str:
    """The `dmq` command that takes back what a journal calls `name`; empty where nothing is left of it."""
    if name not in list(Fault) or name in (Fault.ROLLING, Fault.MOVE_LEADER, Fault.REBALANCE):
        return ""
    if name == Fault.SCALE:
        return f"dmq node remove {node}"
    if Fault(name) in STATES:
        back = NodeOperation(NodeAction(name), node).undo
        return "" if back is None else back.command
    # Which peer's link it was is told by no journal; all of them are mended.
    kind = {Fault.CUT_LINK: FaultKind.SLOW_LINK}.get(Fault(name), FaultKind(name))
    undo = undo_of(ClusterFault(kind, node))
    return "" if undo is None else undo.command


def _back_to_service(undo: NodeOperation | None) -> WayBack | None:
    if undo is None:
        return None

    def do(cluster: Cluster, read_only: bool) -> None:
        perform(cluster, undo, read_only=read_only)

    return WayBack(str(undo.action), undo.title, undo.done, undo.command, do)
