"""Faults of a whole cluster, as values: what there is, what each will do, how long it may take, and its way back."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum

from dmq_core.errors import InvalidInputError


class FaultKind(StrEnum):
    """What can be done to a cluster that dmq made, beside the acts on its nodes; the words are fixed for scripts."""

    MEMORY_ALARM = "memory-alarm"
    CLEAR_MEMORY_ALARM = "clear-memory-alarm"
    DISK_ALARM = "disk-alarm"
    CLEAR_DISK_ALARM = "clear-disk-alarm"
    MOVE_LEADER = "move-leader"
    REBALANCE = "rebalance"
    ROLLING_RESTART = "rolling-restart"
    CUT_LINK = "cut-link"
    SLOW_LINK = "slow-link"
    MEND_LINK = "mend-link"


DELAY_MS = 100
_DELAYS_MS = range(1, 5001)
_LOOK = "'dmq fault list' tells what each fault needs."
_ALARMS = frozenset({FaultKind.MEMORY_ALARM, FaultKind.DISK_ALARM})
_LINKS = frozenset({FaultKind.CUT_LINK, FaultKind.SLOW_LINK, FaultKind.MEND_LINK})
_AT_A_NODE = _ALARMS | _LINKS | {FaultKind.CLEAR_MEMORY_ALARM, FaultKind.CLEAR_DISK_ALARM, FaultKind.MOVE_LEADER}
_MENDS = frozenset({FaultKind.CLEAR_MEMORY_ALARM, FaultKind.CLEAR_DISK_ALARM, FaultKind.MEND_LINK})
_ALARM_WORDS = {
    FaultKind.MEMORY_ALARM: "memory alarm",
    FaultKind.CLEAR_MEMORY_ALARM: "memory alarm",
    FaultKind.DISK_ALARM: "disk alarm",
    FaultKind.CLEAR_DISK_ALARM: "disk alarm",
}
_MAY_TAKE_PEER = _LINKS - {FaultKind.CUT_LINK}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: `node` (ours, `rmq2`) is where an alarm is or a leader goes; `queue` of `virtual_host` is moved.

    Of a link, `node` and `peer` are the ends; None is every peer. A slow one holds what arrives for up to `delay_ms`
    (1..5000) at each end. `InvalidInputError` if the kind is not given what it needs, or is given what it has no use
    for.
    """

    kind: FaultKind
    node: str | None = None
    queue: str | None = None
    virtual_host: str = "/"
    peer: str | None = None
    delay_ms: int = DELAY_MS

    def __post_init__(self) -> None:
        needs, takes = needs_of(self.kind), takes_of(self.kind)
        delay = None if self.delay_ms == DELAY_MS else self.delay_ms
        for what, given in (("node", self.node), ("queue", self.queue), ("peer", self.peer), ("delay", delay)):
            if given is None and what in needs:
                raise InvalidInputError(f"{self.kind} needs a {what}", _LOOK)
            if given is not None and what not in (*needs, *takes):
                raise InvalidInputError(f"{self.kind} takes no {what}", _LOOK)
        if self.delay_ms not in _DELAYS_MS:
            raise InvalidInputError(f"a delay of {self.delay_ms} ms", f"It may be 1 to {_DELAYS_MS[-1]}.")
        if self.node is not None and self.node == self.peer:
            raise InvalidInputError(f"{self.node} has no link to itself", "The peer is another node.")

    @property
    def title(self) -> str:
        """`Memory alarm at rmq2`; `Cut link of rmq1 and rmq2`."""
        words = str(self.kind).replace("-", " ").capitalize()
        if self.kind in _LINKS:
            slowly = f" by {self.delay_ms} ms" if self.kind is FaultKind.SLOW_LINK else ""
            return f"{words} of {self.node} and {self.peer or 'all its peers'}{slowly}"
        what = "" if self.queue is None else f" of {self.queue}"
        where = "" if self.node is None else f" {'to' if self.queue is not None else 'at'} {self.node}"
        return f"{words}{what}{where}"

    @property
    def command(self) -> str:
        """The `dmq` command that does the same."""
        said = {"--node": self.node, "--peer": self.peer, "--queue": self.queue}
        if self.virtual_host != "/":
            said["--vhost"] = self.virtual_host
        if self.delay_ms != DELAY_MS:
            said["--delay"] = str(self.delay_ms)
        options = [f"{name} {shlex.quote(value)}" for name, value in said.items() if value is not None]
        return " ".join([f"dmq fault do {self.kind}", *options])

    @property
    def done(self) -> str:
        """`rmq2 put under a memory alarm`; `link of rmq1 and rmq2 cut`."""
        link = f"link of {self.node} and {self.peer or 'all its peers'}"
        match self.kind:
            case FaultKind.MEMORY_ALARM | FaultKind.DISK_ALARM:
                return f"{self.node} put under a {_ALARM_WORDS[self.kind]}"
            case FaultKind.CLEAR_MEMORY_ALARM | FaultKind.CLEAR_DISK_ALARM:
                return f"{self.node} relieved of its {_ALARM_WORDS[self.kind]}"
            case FaultKind.MOVE_LEADER:
                return f"leader of {self.queue} moved to {self.node}"
            case FaultKind.REBALANCE:
                return "leaders spread evenly"
            case FaultKind.ROLLING_RESTART:
                return "every node restarted in turn"
            case FaultKind.CUT_LINK:
                return f"{link} cut"
            case FaultKind.SLOW_LINK:
                return f"{link} slowed by {self.delay_ms} ms"
            case FaultKind.MEND_LINK:
                return f"{link} mended"

    @property
    def mends(self) -> bool:
        """Whether it only takes back what another fault did."""
        return self.kind in _MENDS

    @property
    def destructive(self) -> bool:
        """Whether it takes something away from clients, so that people are asked first."""
        return self.kind in _ALARMS | {FaultKind.ROLLING_RESTART, FaultKind.CUT_LINK, FaultKind.SLOW_LINK}


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
    FaultKind.CUT_LINK: FaultNotes(
        "Nothing passes between the two nodes any more, both still reach all others; they notice after five to six"
        " seconds.",
        30.0,
    ),
    FaultKind.SLOW_LINK: FaultNotes(
        "What one node sends the other waits for up to the delay, half of it on average, each way; nobody is given up"
        " unless the delay is of the order of seconds.",
        60.0,
    ),
    FaultKind.MEND_LINK: FaultNotes(
        "The nodes reach each other at full speed again; the cluster is whole within ten seconds.", 90.0
    ),
}


def notes_of(kind: FaultKind) -> FaultNotes:
    """What is to be known of a kind of fault."""
    return _NOTES[kind]


def needs_of(kind: FaultKind) -> tuple[str, ...]:
    """What a kind of fault has to be given, of `node`, `queue` and `peer`."""
    further = {FaultKind.MOVE_LEADER: ("queue",), FaultKind.CUT_LINK: ("peer",)}
    return (*(("node",) if kind in _AT_A_NODE else ()), *further.get(kind, ()))


def takes_of(kind: FaultKind) -> tuple[str, ...]:
    """What a kind of fault may be given beside: `peer`, `delay` or nothing."""
    return (
        *(("peer",) if kind in _MAY_TAKE_PEER else ()),
        *(("delay",) if kind is FaultKind.SLOW_LINK else ()),
    )


def undo_of(fault: Fault, leader_before: str | None = None) -> Fault | None:
    """The fault that takes `fault` back; a moved leader goes back to `leader_before`. None: there is no way back."""
    match fault.kind:
        case FaultKind.MEMORY_ALARM:
            return Fault(FaultKind.CLEAR_MEMORY_ALARM, fault.node)
        case FaultKind.DISK_ALARM:
            return Fault(FaultKind.CLEAR_DISK_ALARM, fault.node)
        case FaultKind.MOVE_LEADER if leader_before is not None and leader_before != fault.node:
            return Fault(FaultKind.MOVE_LEADER, leader_before, fault.queue, fault.virtual_host)
        case FaultKind.CUT_LINK | FaultKind.SLOW_LINK:
            return Fault(FaultKind.MEND_LINK, fault.node, peer=fault.peer)
        case _:
            return None
