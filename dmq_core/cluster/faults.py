"""Faults of a whole cluster, as values: what there is, what each will do, how long it may take, and its way back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dmq_core.errors import BadInput


class FaultKind(StrEnum):
    """What can be done to a cluster that dmq made, beside the acts on its nodes; the words are fixed for scripts."""

    MEMORY_ALARM = "memory-alarm"
    CLEAR_MEMORY_ALARM = "clear-memory-alarm"
    DISK_ALARM = "disk-alarm"
    CLEAR_DISK_ALARM = "clear-disk-alarm"
    MOVE_LEADER = "move-leader"
    REBALANCE = "rebalance"
    ROLLING_RESTART = "rolling-restart"


_ALARMS = frozenset({FaultKind.MEMORY_ALARM, FaultKind.DISK_ALARM})
_AT_A_NODE = _ALARMS | {FaultKind.CLEAR_MEMORY_ALARM, FaultKind.CLEAR_DISK_ALARM, FaultKind.MOVE_LEADER}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: `node` (ours, `rmq2`) is where an alarm is or a leader goes; `queue` of `virtual_host` is moved.

    `BadInput` if the kind needs a node or a queue that is not given, or is given one that it has no use for.
    """

    kind: FaultKind
    node: str | None = None
    queue: str | None = None
    virtual_host: str = "/"

    def __post_init__(self) -> None:
        moves = self.kind is FaultKind.MOVE_LEADER
        for what, given, wanted in (
            ("a node", self.node, self.kind in _AT_A_NODE),
            ("a queue", self.queue, moves),
        ):
            if (given is not None) is not wanted:
                verb = "needs" if wanted else "takes no"
                noun = what if wanted else what.removeprefix("a ")
                raise BadInput(f"{self.kind} {verb} {noun}", "'dmq fault list' tells what each fault needs.")

    @property
    def title(self) -> str:
        """`Memory alarm at rmq2`."""
        words = str(self.kind).replace("-", " ").capitalize()
        what = "" if self.queue is None else f" of {self.queue}"
        where = "" if self.node is None else f" {'to' if self.queue is not None else 'at'} {self.node}"
        return f"{words}{what}{where}"

    @property
    def destructive(self) -> bool:
        """Whether it takes something away from clients, so that people are asked first."""
        return self.kind in _ALARMS or self.kind is FaultKind.ROLLING_RESTART


@dataclass(frozen=True, slots=True)
class FaultNotes:
    """What a kind of fault is expected to do, and the seconds (a node, for a rolling restart) in which it is done."""

    expected: str
    limit_s: float


_NOTES = {
    FaultKind.MEMORY_ALARM: FaultNotes(
        "Every publisher of the cluster is blocked within a second, whichever node it is on; consumers go on.", 20.0
    ),
    FaultKind.CLEAR_MEMORY_ALARM: FaultNotes(
        "Publishers go on within a second, unless another alarm holds them.", 20.0
    ),
    FaultKind.DISK_ALARM: FaultNotes(
        "Every publisher of the cluster is blocked within a second, whichever node it is on; consumers go on.", 20.0
    ),
    FaultKind.CLEAR_DISK_ALARM: FaultNotes("Publishers go on within a second, unless another alarm holds them.", 20.0),
    FaultKind.MOVE_LEADER: FaultNotes("The queue's leader is on that node within a second; nothing is lost.", 20.0),
    FaultKind.REBALANCE: FaultNotes("Leaders of quorum queues are spread evenly; some move, nothing is lost.", 60.0),
    FaultKind.ROLLING_RESTART: FaultNotes(
        "One node after the other is drained and restarted, about 15 seconds each; a majority always runs.",
        180.0,
    ),
}


def notes_of(kind: FaultKind) -> FaultNotes:
    """What is to be known of a kind of fault."""
    return _NOTES[kind]


def needs_of(kind: FaultKind) -> tuple[str, ...]:
    """What a kind of fault has to be given: `node`, `queue`, both or nothing."""
    needs = ("node",) if kind in _AT_A_NODE else ()
    return (*needs, "queue") if kind is FaultKind.MOVE_LEADER else needs


def undo_of(fault: Fault, leader_before: str | None = None) -> Fault | None:
    """The fault that takes `fault` back; a moved leader goes back to `leader_before`. None: there is no way back."""
    match fault.kind:
        case FaultKind.MEMORY_ALARM:
            return Fault(FaultKind.CLEAR_MEMORY_ALARM, fault.node)
        case FaultKind.DISK_ALARM:
            return Fault(FaultKind.CLEAR_DISK_ALARM, fault.node)
        case FaultKind.MOVE_LEADER if leader_before is not None and leader_before != fault.node:
            return Fault(FaultKind.MOVE_LEADER, leader_before, fault.queue, fault.virtual_host)
        case _:
            return None
