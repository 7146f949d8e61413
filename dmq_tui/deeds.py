"""What the console does to a cluster, as values: acts on nodes, faults of the whole, nodes more and fewer; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dmq_core.actions.impact import Impact, Margin, impact_of, impact_of_addition, impact_of_fault, impact_of_removal
from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault, FaultKind, undo_of
from dmq_core.cluster.protocol import NodeAction
from dmq_core.observe.snapshot import ClusterSnapshot

_RESULT = {
    NodeAction.KILL: "killed",
    NodeAction.STOP: "stopped",
    NodeAction.START: "serves again",
    NodeAction.RESTART: "restarted and serves",
    NodeAction.PAUSE: "frozen",
    NodeAction.UNPAUSE: "goes on",
    NodeAction.ISOLATE: "cut off from its peers",
    NodeAction.REJOIN: "is with its peers again",
    NodeAction.DRAIN: "in maintenance",
    NodeAction.REVIVE: "serves again",
}
_UNDOES = {
    FaultKind.CLEAR_MEMORY_ALARM: "ends it",
    FaultKind.CLEAR_DISK_ALARM: "ends it",
    FaultKind.MEND_LINK: "mends it",
    FaultKind.MOVE_LEADER: "moves it back",
}


@dataclass(frozen=True, slots=True)
class Addition:
    """One node more."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One node less."""

    node: str


@dataclass(frozen=True, slots=True)
class Mending:
    """All that takes faults back, one after the other."""

    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing to do, captured whole so that a moving cursor cannot change its target; names in it are raw.

    `result` says that it was done, `nodes` which it concerns (empty: all), `undoes` what it does as a way back.
    """

    act: NodeOperation | Fault | Addition | Removal | Mending
    title: str
    command: str
    result: str
    nodes: frozenset[str]
    destructive: bool
    undoes: str = "takes it back"

    @property
    def node(self) -> str:
        """The one node that it concerns; empty where that is not one."""
        return next(iter(self.nodes)) if len(self.nodes) == 1 else ""

    def impact(self, snapshot: ClusterSnapshot) -> Impact:
        """What it will cause, judged from `snapshot`."""
        match self.act:
            case NodeOperation() as operation:
                return impact_of(operation, snapshot)
            case Fault() as fault:
                return impact_of_fault(fault, snapshot)
            case Addition():
                return impact_of_addition(snapshot)
            case Removal(node):
                return impact_of_removal(node, snapshot)
            case Mending(faults):
                told = [s for fault in faults for s in impact_of_fault(fault, snapshot).sentences]
                return Impact(Margin.SAFE, tuple(dict.fromkeys(told)))


def of_node(operation: NodeOperation) -> Deed:
    """An act on a node."""
    result, undoes = f"{operation.node} {_RESULT[operation.action]}", f"{operation.action}s it"
    nodes = frozenset({operation.node})
    return Deed(operation, operation.title, operation.command, result, nodes, operation.destructive, undoes)


def of_fault(fault: Fault) -> Deed:
    """A fault of the whole cluster, or what takes one back."""
    nodes = frozenset(n for n in (fault.node, fault.peer) if n is not None)
    undoes = _UNDOES.get(fault.kind, "takes it back")
    return Deed(fault, fault.title, fault.command, fault.done, nodes, fault.destructive, undoes)


def addition() -> Deed:
    """One node more."""
    return Deed(Addition(), "Add a node", "dmq node add", "one node more", frozenset(), False)


def removal(node: str) -> Deed:
    """One node less."""
    nodes = frozenset({node})
    return Deed(
        Removal(node), f"Remove {node}", f"dmq node remove {node}", f"{node} removed", nodes, True, "removes it"
    )


def mending(standing: Sequence[Fault]) -> Deed | None:
    """What takes back all of `standing`; None where there is nothing to take back."""
    faults = tuple(dict.fromkeys(back for back in map(undo_of, standing) if back is not None))
    if len(faults) < 2:
        return of_fault(faults[0]) if faults else None
    nodes = frozenset(n for f in faults for n in (f.node, f.peer) if n is not None)
    title = f"Take back {len(faults)} faults"
    return Deed(Mending(faults), title, "", f"{len(faults)} faults taken back", nodes, False)
