"""When what happened in a run, from its journal: moments, marks, curves and the longest gaps; pure, by monotonic time.

A gap lasts from the offer of a message to the next confirm (or first delivery) of any, or from one to the next while
more are due; a message that failed stays on offer until a later one succeeds, or an outage whose messages fail at once
would be no gap at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Final

from dmq_core.actions.catalog import BY_NAME
from dmq_core.messaging.messages import Outcome
from dmq_core.proof.gauges import GapMeter
from dmq_core.proof.journal.records import (
    AttemptRecord,
    ClientEvent,
    ClientRecord,
    DamageRecord,
    DeliveryRecord,
    FaultRecord,
    FaultStage,
    LeaderRecord,
    OutcomeRecord,
    PhaseRecord,
    Record,
    RunPhase,
)
from dmq_core.proof.judging.first_fault import FirstFaultTimeline
from dmq_core.proof.result import Curves, Timeline, TimelineMark

SLICE_S: Final = 0.25
MOST_SLICES: Final = 2400
MOST_MARKS: Final = 10_000


@dataclass(frozen=True, slots=True)
class RunHistory:
    """How a run went; `began` and `ended` are monotonic and `began_at` and `ended_at` epoch seconds, 0 without records.

    `node` is the first that was hit.
    """

    timeline: Timeline
    marks: tuple[TimelineMark, ...]
    curves: Curves
    max_confirm_gap_s: float
    max_delivery_gap_s: float
    began: float
    ended: float
    began_at: float
    ended_at: float
    node: str = ""


def past_tense(action: str, *, undo: bool = False) -> str:
    """`kill` as `killed`."""
    spec = BY_NAME.get(action)
    if spec is None:
        return action
    return (undo and spec.undone) or spec.past_tense


class _Slices:
    """Events in slices of time; slices double in width where there would be more than 2,400."""

    def __init__(self) -> None:
        self.width_s = SLICE_S
        self.counts: list[int] = []

    def add(self, after_s: float, number: int) -> None:
        while after_s / self.width_s >= MOST_SLICES:
            self.double()
        index = max(0, math.floor(after_s / self.width_s))
        self.counts.extend([0] * (index + 1 - len(self.counts)))
        self.counts[index] += number

    def double(self) -> None:
        pairs = [*self.counts, 0]
        self.counts = [pairs[i] + pairs[i + 1] for i in range(0, len(self.counts), 2)]
        self.width_s *= 2


class _Gaps:
    """The longest gaps between confirms and between first deliveries, by what is still due; a byte a message."""

    def __init__(self) -> None:
        self.confirms, self.deliveries = GapMeter(), GapMeter()
        self._due = bytearray(1)
        self._undelivered = 0
        self._unsettled = 0

    def attempted(self, at: float, numbers: tuple[int, ...]) -> None:
        self.confirms.expect(at)
        self.deliveries.expect(at)
        self._unsettled += len(numbers)
        top = max(numbers, default=0)
        if top >= len(self._due):
            self._due.extend(bytes(top * 5 // 4 + 1 - len(self._due)))
        for number in numbers:
            self._undelivered += not self._due[number]
            self._due[number] = 1

    def settled(self, at: float, outcome: Outcome, numbers: tuple[int, ...]) -> None:
        self._unsettled -= len(numbers)
        if outcome is Outcome.CONFIRMED:
            self.confirms.arrived(at, more=self._unsettled > 0)
        else:
            _note_gap(self.confirms, at)
            self._no_more_due(numbers)
            _note_gap(self.deliveries, at)

    def delivered(self, at: float, numbers: tuple[int, ...]) -> None:
        if self._no_more_due(numbers):
            self.deliveries.arrived(at, more=self._undelivered > 0)

    def ended(self, at: float) -> None:
        """At the end of the record, what is due has waited until then."""
        if self._unsettled > 0:
            _note_gap(self.confirms, at)
        if self._undelivered > 0:
            _note_gap(self.deliveries, at)

    def _no_more_due(self, numbers: Iterable[int]) -> int:
        due, found = self._due, 0
        for number in numbers:
            if number < len(due) and due[number]:
                due[number] = 0
                found += 1
        self._undelivered -= found
        return found


class TimelineBuilder:
    """Takes the records of one journal in order; not thread-safe."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._last: tuple[float, float] = (0.0, 0.0)
        self._load_began: float | None = None
        self._confirms, self._deliveries = _Slices(), _Slices()
        self._gaps = _Gaps()
        self._marks: list[tuple[float, str, str]] = []
        self._first_fault = FirstFaultTimeline()
        # Looked up once, since a method that chooses by type is made anew at each look.
        self._note_record = self._note

    def add(self, record: Record) -> None:
        """Notes a record."""
        if isinstance(record, DamageRecord):
            return
        if self._began is None:
            self._began = (record.at, record.wall)
        self._last = max(self._last, (record.at, record.wall))
        self._note_record(record)

    def build(self) -> RunHistory:
        """The course as far as the records go."""
        began, began_at = self._began or (0.0, 0.0)
        start = began if self._load_began is None else self._load_began
        self._gaps.ended(self._last[0])
        return RunHistory(
            timeline=self._first_fault.timeline(start),
            marks=self._marks_since(start),
            curves=self._curves(self._last[0] - start),
            max_confirm_gap_s=round(self._gaps.confirms.longest_s, 6),
            max_delivery_gap_s=round(self._gaps.deliveries.longest_s, 6),
            began=began,
            ended=self._last[0],
            began_at=began_at,
            ended_at=self._last[1],
            node=self._first_fault.node,
        )

    @singledispatchmethod
    def _note(self, record: Record) -> None:
        """Other records have no place in time."""

    @_note.register
    def _phase(self, record: PhaseRecord) -> None:
        if record.phase is RunPhase.BEGAN:
            self._load_began = record.at

    @_note.register
    def _attempted(self, record: AttemptRecord) -> None:
        self._gaps.attempted(record.at, record.numbers)
        self._first_fault.attempted(record)

    @_note.register
    def _settled(self, record: OutcomeRecord) -> None:
        self._gaps.settled(record.at, record.outcome, record.numbers)
        self._first_fault.settled(record)
        if record.outcome is Outcome.CONFIRMED:
            self._confirms.add(self._since_load(record.at), len(record.numbers))

    @_note.register
    def _delivered(self, record: DeliveryRecord) -> None:
        self._gaps.delivered(record.at, record.numbers)
        self._first_fault.delivered(record)
        self._deliveries.add(self._since_load(record.at), len(record.numbers))

    @_note.register
    def _fault(self, record: FaultRecord) -> None:
        self._first_fault.fault(record)
        kind = "undo" if record.undo else "fault"
        if record.stage is FaultStage.FAILED:
            self._mark(record.at, kind, f"{record.action} of {record.node} failed: {record.text}")
        elif record.stage is FaultStage.BEGAN:
            self._mark(record.at, kind, f"{record.node} {past_tense(record.action, undo=record.undo)}")

    @_note.register
    def _client(self, record: ClientRecord) -> None:
        self._first_fault.client(record)
        who = f"{record.role} {record.number + 1}"
        match record.event:
            case ClientEvent.LOST:
                text = f"{who} lost {record.node}" + (f": {record.text}" if record.text else "")
            case ClientEvent.RECONNECTED:
                text = f"{who} now on {record.node}"
            case ClientEvent.CONNECTED:
                text = f"{who} on {record.node}"
        self._mark(record.at, "client", text)

    @_note.register
    def _led(self, record: LeaderRecord) -> None:
        if self._first_fault.led(record):
            term = f" (term {record.term})" if record.term else ""
            text = f"{record.node} leads {record.queue}{term}" if record.node else f"nobody leads {record.queue}"
            self._mark(record.at, "leader", text)

    def _mark(self, at: float, kind: str, text: str) -> None:
        if len(self._marks) < MOST_MARKS:
            self._marks.append((at, kind, text))

    def _marks_since(self, start: float) -> tuple[TimelineMark, ...]:
        # What clients noticed at the same moment follows from the fault.
        in_order = sorted(self._marks, key=lambda mark: (mark[0], mark[1] != "fault"))
        return tuple(TimelineMark(round(at - start, 6), kind, text) for at, kind, text in in_order)

    def _since_load(self, at: float) -> float:
        start = self._load_began if self._load_began is not None else (self._began or self._last)[0]
        return at - start

    def _curves(self, lasted_s: float) -> Curves:
        for slices in (self._confirms, self._deliveries):
            slices.add(max(0.0, lasted_s), 0)
        while self._confirms.width_s < self._deliveries.width_s:
            self._confirms.double()
        while self._deliveries.width_s < self._confirms.width_s:
            self._deliveries.double()
        width = self._confirms.width_s
        rates = [tuple(count / width for count in slices.counts) for slices in (self._confirms, self._deliveries)]
        length = max(len(curve) for curve in rates)
        confirms, deliveries = (curve + (0.0,) * (length - len(curve)) for curve in rates)
        return Curves(width, confirms, deliveries)


def _note_gap(meter: GapMeter, at: float) -> None:
    """The gap so far counts, and goes on."""
    meter.longest_s = meter.longest_so_far(at)
