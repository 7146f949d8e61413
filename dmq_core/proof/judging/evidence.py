"""What a journal holds for and against its own account: faults, depths, health, counters, clock and damage; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from itertools import pairwise
from typing import Final

from dmq_core.actions.catalog import CATALOG
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.records import (
    AttemptRecord,
    CountersRecord,
    DamageRecord,
    DeliveryRecord,
    DepthRecord,
    FaultRecord,
    FaultStage,
    ForeignRecord,
    HealthRecord,
    OutcomeRecord,
    PhaseRecord,
    Record,
    RunPhase,
    RunSetup,
)
from dmq_core.proof.result import CounterCheck
from dmq_core.settings.settings import DEFAULT_CLUSTER

STABLE_READS: Final = 3
STABLE_S: Final = 1.5
KEPT_DAMAGE: Final = 20
# A broker's counters are told so much later than they were asked for, at most.
TOLD_WITHIN_S: Final = 10.0
# What a broker did is on record so long after its end: answers that it had sent, deliveries that wait for a handler.
RECORDED_WITHIN_S: Final = 3.0
# What ends which faults of a node, on which others may stand beside them.
_ENDED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    **{undo: tuple(spec.kind for spec in CATALOG.values() if spec.undo is undo) for undo in CATALOG},
    NodeAction.START: (NodeAction.KILL, NodeAction.STOP, NodeAction.RESTART),
}
_ENDS_THE_BROKER: Final[frozenset[str]] = frozenset(
    spec.kind for spec in CATALOG.values() if spec.state is NodeState.STOPPED
)


@dataclass(frozen=True, slots=True)
class ObservedFault:
    """One fault; moments are seconds after the load began, None: that never was.

    `text` is the cluster's evidence that it held, `failed` and `undo_failed` what went wrong (empty: nothing).
    `confirmed_before` counts confirms before it was asked for, `confirmed_after` those of messages that were sent once
    it held. `same_broker`: the node's own counters show that its broker was the same one before and after.
    """

    action: str
    node: str
    asked_s: float
    began_s: float | None = None
    held_s: float | None = None
    undone_s: float | None = None
    text: str = ""
    failed: str = ""
    undo_failed: str = ""
    confirmed_before: int = 0
    confirmed_after: int = 0
    same_broker: bool = False


@dataclass(frozen=True, slots=True)
class FinalDepth:
    """What is known of a queue on a node after the last delivery; a stream is empty where it was read to its end.

    `empty`: stably so, after `reads` zero reads in a row; `ready` and `unacked` are the last figures (None: not known).
    """

    node: str
    queue: str
    empty: bool = False
    reads: int = 0
    ready: int | None = None
    unacked: int | None = None
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the verdict rests on beside the account.

    `health_problems` are the problems before the load began (None: nobody looked). `down` are nodes that do not run in
    the end. `clock_step_s` is how far wall and monotonic time came apart. `damage` says what cannot be read, `is_cut`
    that the tail is missing, `interrupted` why the run was given up (None: it was not).
    """

    faults: tuple[ObservedFault, ...] = ()
    drained: bool = False
    depths: tuple[FinalDepth, ...] = ()
    health_problems: tuple[str, ...] | None = None
    nodes: int = 0
    down: tuple[str, ...] = ()
    clock_step_s: float = 0.0
    damage: tuple[str, ...] = ()
    is_cut: bool = False
    interrupted: str | None = None
    counter_checks: tuple[CounterCheck, ...] = ()
    requested_fault: str = "none"
    cluster: str = ""
    order_promised: bool = False
    reads_streams: bool = False


@dataclass(slots=True)
class _Reads:
    """The zero reads of one queue on one node since anything last moved."""

    number: int = 0
    first: float = 0.0
    last: DepthRecord | None = None

    def add(self, read: DepthRecord) -> None:
        self.last = read
        if read.ready == 0 and read.unacked == 0:
            self.first = read.at if not self.number else self.first
            self.number += 1
        else:
            self.number = 0

    def is_stable(self) -> bool:
        return self.last is not None and self.number >= STABLE_READS and self.last.at - self.first >= STABLE_S


@dataclass(frozen=True, slots=True)
class _CountsAt:
    """How much was on record at a moment, in deliveries the second ones included."""

    at: float
    confirmed: int
    delivered: int


@dataclass(slots=True)
class _Broker:
    """The counters of one node over all its epochs, beside the account at the same moments; and when epochs ended."""

    reads: list[tuple[CountersRecord, _CountsAt]] = field(default_factory=list)
    ends: list[_CountsAt] = field(default_factory=list)
    was_read_first: bool = False

    def balanced(self, what: str) -> tuple[int, int]:
        """What the node counted, of `confirmed` or `delivered`, and how much of the account may be missing from it."""
        counted = allowed = 0
        for (before, then), (after, now) in pairwise(self.reads):
            count, later = getattr(before, what), getattr(after, what)
            if before.epoch == after.epoch and later >= count:
                counted += later - count
            else:
                # A new broker counts from 0; what the old one did after the last look at it nobody knows.
                ends = [end for end in self.ends if then.at < end.at < now.at]
                counted += later
                allowed += getattr(ends[-1] if ends else now, what) - getattr(then, what)
        return counted, allowed


class EvidenceCollector:
    """Takes the records of one journal in order; not thread-safe."""

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._start: float | None = None
        self._offset: float | None = None
        self._step = 0.0
        self._faults: list[ObservedFault] = []
        self._sent_before_hold: dict[int, int] = {}
        self._newest = self._confirmed = self._delivered = 0
        self._moved = False
        self._phases: dict[RunPhase, str] = {}
        self._depths = {(node, queue): _Reads() for node in setup.nodes for queue in setup.queues}
        self._health_problems: tuple[str, ...] | None = None
        self._running: tuple[str, ...] | None = None
        self._looked_late = False
        self._brokers: dict[str, _Broker] = {}
        self._recent: deque[_CountsAt] = deque()
        self._ending: deque[tuple[float, str]] = deque()
        self._damage: list[str] = []
        self._is_cut = False
        # Looked up once, since a method that chooses by type is made anew at each look.
        self._note_record = self._note

    def add(self, record: Record) -> None:
        """Notes a record."""
        if not isinstance(record, DamageRecord):
            offset = record.wall - record.at
            self._offset = offset if self._offset is None else self._offset
            self._step = max(self._step, abs(offset - self._offset))
            self._note_ends(record.at)
        self._note_record(record)

    def evidence(self) -> Evidence:
        """The evidence as far as the records go."""
        return Evidence(
            faults=tuple(replace(f, same_broker=self._is_same_broker(f)) for f in self._faults),
            drained=RunPhase.DRAINED in self._phases,
            depths=tuple(self._depth(node, queue, reads) for (node, queue), reads in self._depths.items()),
            health_problems=self._health_problems,
            nodes=len(self._setup.nodes),
            down=self._down(),
            clock_step_s=self._step,
            damage=tuple(self._damage),
            is_cut=self._is_cut,
            interrupted=self._phases.get(RunPhase.INTERRUPTED),
            counter_checks=self._counter_checks(),
            requested_fault=self._setup.fault or "none",
            cluster=self._setup.cluster or DEFAULT_CLUSTER,
            order_promised=self._setup.ordered,
            reads_streams=self._setup.reads_streams,
        )

    @singledispatchmethod
    def _note(self, record: Record) -> None:
        """Other records prove nothing here."""

    @_note.register
    def _attempted(self, record: AttemptRecord) -> None:
        self._newest = max(self._newest, *record.numbers, 0)
        self._something_moved()

    @_note.register
    def _settled(self, record: OutcomeRecord) -> None:
        if record.outcome is not Outcome.CONFIRMED:
            return
        self._confirmed += len(record.numbers)
        self._remember(record.at, len(record.numbers), 0)
        for index, newest in self._sent_before_hold.items():
            after = sum(1 for number in record.numbers if number > newest)
            fault = self._faults[index]
            self._faults[index] = replace(fault, confirmed_after=fault.confirmed_after + after)

    @_note.register
    def _came(self, record: DeliveryRecord) -> None:
        self._delivered += len(record.numbers)
        self._remember(record.at, 0, len(record.numbers))
        self._something_moved()

    @_note.register
    def _foreign(self, record: ForeignRecord) -> None:
        self._something_moved()

    @_note.register
    def _phase(self, record: PhaseRecord) -> None:
        self._phases[record.phase] = record.text
        if record.phase is RunPhase.BEGAN and self._start is None:
            self._start = record.at

    @_note.register
    def _depth_read(self, record: DepthRecord) -> None:
        self._depths.setdefault((record.node, record.queue), _Reads()).add(record)

    @_note.register
    def _health(self, record: HealthRecord) -> None:
        self._running, self._looked_late = record.running, self._moved
        if not self._moved:
            missing = [f"{node} does not run" for node in self._setup.nodes if node not in record.running]
            self._health_problems = (*missing, *record.problems)

    @_note.register
    def _counted(self, record: CountersRecord) -> None:
        broker = self._brokers.setdefault(record.node, _Broker())
        broker.was_read_first |= not self._moved
        later = [new for new in self._recent if new.at >= record.at]
        confirmed = self._confirmed - sum(new.confirmed for new in later)
        delivered = self._delivered - sum(new.delivered for new in later)
        broker.reads.append((record, _CountsAt(record.at, confirmed, delivered)))

    @_note.register
    def _damaged(self, record: DamageRecord) -> None:
        if record.torn:
            self._is_cut = True
        elif len(self._damage) < KEPT_DAMAGE:
            self._damage.append(record.why)

    @_note.register
    def _fault(self, record: FaultRecord) -> None:
        if record.undo:
            self._undo(record)
            return
        if record.stage is FaultStage.ASKED:
            self._faults.append(self._new_fault(record))
            return
        index = self._open_fault(record.node, record.action)
        if index is None:
            self._faults.append(self._new_fault(record))
            index = len(self._faults) - 1
        fault, at_s = self._faults[index], self._since_load(record.at)
        match record.stage:
            case FaultStage.BEGAN:
                self._faults[index] = replace(fault, began_s=at_s)
            case FaultStage.HOLDS:
                self._faults[index] = replace(fault, held_s=at_s, text=record.text)
                self._sent_before_hold[index] = self._newest
                if record.action in _ENDS_THE_BROKER:
                    self._ending.append((record.at + RECORDED_WITHIN_S, record.node))
            case FaultStage.FAILED:
                self._faults[index] = replace(fault, failed=record.text or "it is not known why")

    def _undo(self, record: FaultRecord) -> None:
        index = self._open_fault(record.node, *_ENDED_BY.get(record.action, ()))
        if index is None:
            return
        if record.stage is FaultStage.HOLDS:
            self._faults[index] = replace(self._faults[index], undone_s=self._since_load(record.at))
        elif record.stage is FaultStage.FAILED:
            self._faults[index] = replace(self._faults[index], undo_failed=record.text or "it is not known why")

    def _new_fault(self, record: FaultRecord) -> ObservedFault:
        return ObservedFault(record.action, record.node, self._since_load(record.at), confirmed_before=self._confirmed)

    def _open_fault(self, node: str, *acts: str) -> int | None:
        """The latest fault of a node that is not undone, of one of `acts` where there is such a one."""
        open_ones = [i for i, f in enumerate(self._faults) if f.node == node and f.undone_s is None]
        return max((i for i in open_ones if self._faults[i].action in acts), default=max(open_ones, default=None))

    def _since_load(self, at: float) -> float:
        return 0.0 if self._start is None else round(at - self._start, 6)

    def _something_moved(self) -> None:
        self._moved = True
        for reads in self._depths.values():
            reads.number, reads.last = 0, None

    def _depth(self, node: str, queue: str, reads: _Reads) -> FinalDepth:
        if reads.last is None:
            return FinalDepth(node, queue)
        at_s = self._since_load(reads.last.at)
        return FinalDepth(node, queue, reads.is_stable(), reads.number, reads.last.ready, reads.last.unacked, at_s)

    def _down(self) -> tuple[str, ...]:
        """By the last look at the cluster's health; without one, by faults that were not undone."""
        if self._running is not None and self._looked_late:
            return tuple(node for node in self._setup.nodes if node not in self._running)
        away = {f.node for f in self._faults if f.held_s is not None and f.undone_s is None}
        return tuple(node for node in self._setup.nodes if node in away)

    # The brokers' own counters.

    def _remember(self, at: float, confirmed: int, delivered: int) -> None:
        """What the account grew by lately: a broker may have told its counters before that."""
        self._recent.append(_CountsAt(at, confirmed, delivered))
        while self._recent[0].at < at - TOLD_WITHIN_S:
            self._recent.popleft()

    def _note_ends(self, at: float) -> None:
        while self._ending and self._ending[0][0] < at:
            end, node = self._ending.popleft()
            self._brokers.setdefault(node, _Broker()).ends.append(_CountsAt(end, self._confirmed, self._delivered))

    def _is_same_broker(self, fault: ObservedFault) -> bool:
        broker = self._brokers.get(fault.node)
        if fault.action not in _ENDS_THE_BROKER or fault.held_s is None or broker is None:
            return False
        before = [c.epoch for c, _ in broker.reads if self._since_load(c.at) < fault.asked_s]
        after = [c.epoch for c, _ in broker.reads if self._since_load(c.at) > fault.held_s]
        return bool(before and after) and before[-1] == after[0]

    def _counter_checks(self) -> tuple[CounterCheck, ...]:
        """Only where every node was read before anything was sent, and again after everything had come."""
        brokers = [self._brokers.get(node, _Broker()) for node in self._setup.nodes]
        if not brokers or not all(self._is_framed(broker) for broker in brokers):
            return ()
        return tuple(self._balance(what, accounted, brokers) for what, accounted in self._accounted().items())

    def _accounted(self) -> dict[str, int]:
        return {"confirmed": self._confirmed, "delivered": self._delivered}

    def _is_framed(self, broker: _Broker) -> bool:
        if not broker.reads or not broker.was_read_first:
            return False
        last = broker.reads[-1][1]
        return {what: getattr(last, what) for what in self._accounted()} == self._accounted()

    def _balance(self, what: str, accounted: int, brokers: list[_Broker]) -> CounterCheck:
        pairs = [broker.balanced(what) for broker in brokers]
        return CounterCheck(what, accounted, sum(counted for counted, _ in pairs), sum(allowed for _, allowed in pairs))
