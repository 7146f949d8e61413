"""What followed the first fault of a run: who noticed, who led, and when messages went through again; pure.

The moment of a fault is recorded only after it, when the cluster reports it. So everything that may have followed is
kept from the moment at which the fault was asked for, and sorted out once its moment is known.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.records import (
    AttemptRecord,
    ClientEvent,
    ClientRecord,
    DeliveryRecord,
    FaultRecord,
    FaultStage,
    LeaderRecord,
    OutcomeRecord,
)
from dmq_core.proof.result import Timeline

MOST_STEPS = 10_000


@dataclass(slots=True)
class _FirstThrough:
    """When the first message that was sent at `after` or later came through; before `after` is known, candidates."""

    candidates: list[tuple[float, float]] = field(default_factory=list)
    best: float | None = None

    def offer(self, sent: float, at: float, after: float | None) -> None:
        if after is None:
            self.candidates.append((sent, at))
        elif sent >= after and self.best is None:
            self.best = at

    def since(self, after: float) -> float | None:
        moments = [at for sent, at in self.candidates if sent >= after]
        return min([*moments, *([] if self.best is None else [self.best])], default=None)


class FirstFaultTimeline:
    """Takes the records of one journal in order; not thread-safe."""

    def __init__(self) -> None:
        self.node = ""
        self._asked: float | None = None
        self._began: float | None = None
        self._holds: float | None = None
        self._undone: float | None = None
        self._clients: list[ClientRecord] = []
        self._leaders: dict[str, str] = {}
        self._elections: list[LeaderRecord] = []
        self._newest = 0
        self._base = 0
        self._sent_at = array("d")
        self._unsettled = 0
        self._confirm, self._delivery = _FirstThrough(), _FirstThrough()
        self._resolved: float | None = None

    def fault(self, step: FaultRecord) -> None:
        """Notes a stage; only the first fault has a timeline."""
        if step.undo:
            if self._asked is not None and self._undone is None:
                self._undone = step.at
        elif self._asked is None:
            self._asked, self.node = step.at, step.node
            self._base = self._newest + 1
            self._note_stage(step)
        elif step.node == self.node:
            self._note_stage(step)

    def attempted(self, record: AttemptRecord) -> None:
        """Notes attempts."""
        top = max(record.numbers, default=0)
        self._newest = max(self._newest, top)
        self._unsettled += len(record.numbers)
        if self._asked is None or self._is_through:
            return
        missing = top - self._base + 1 - len(self._sent_at)
        if missing > 0:
            self._sent_at.frombytes(bytes(missing * self._sent_at.itemsize))
        for number in record.numbers:
            # Of a republished message the first time counts: the earlier copy may be the one that arrives.
            if number >= self._base and not self._sent_at[number - self._base]:
                self._sent_at[number - self._base] = record.at

    def settled(self, record: OutcomeRecord) -> None:
        """Notes outcomes."""
        self._unsettled -= len(record.numbers)
        if self._asked is None:
            return
        if record.outcome is Outcome.UNKNOWN or min(record.numbers, default=self._base) < self._base:
            self._resolved = max(self._resolved or 0.0, record.at)
        if record.outcome is Outcome.CONFIRMED and not self._is_through:
            self._confirm.offer(self._last_sent(record.numbers), record.at, self._moment)

    def delivered(self, record: DeliveryRecord) -> None:
        """Notes deliveries."""
        if self._asked is not None and not self._is_through:
            self._delivery.offer(self._last_sent(record.numbers), record.at, self._moment)

    def client(self, step: ClientRecord) -> None:
        """Notes what a client went through."""
        if len(self._clients) < MOST_STEPS:
            self._clients.append(step)

    def led(self, step: LeaderRecord) -> bool:
        """Notes who leads; whether that is news."""
        before = self._leaders.get(step.queue)
        self._leaders[step.queue] = step.node
        if before in (None, step.node):
            return False
        if len(self._elections) < MOST_STEPS:
            self._elections.append(step)
        return True

    def timeline(self, start: float) -> Timeline:
        """The moments; `start` is the monotonic second at which the load began."""
        fault = self._moment
        if fault is None:
            return Timeline()
        lost = [step for step in self._clients if step.event is ClientEvent.LOST and self._is_in_window(step.at)]
        elected = self._elected()
        resolved = self._resolved if self._unsettled <= 0 else None
        return Timeline(
            fault_s=_sent_before_hold(fault, start),
            noticed_s=_sent_before_hold(min((step.at for step in lost), default=None), fault),
            reconnected_s=_sent_before_hold(self._reconnected(lost), fault),
            leader_elected_s=_sent_before_hold(elected, fault),
            first_confirm_s=_sent_before_hold(self._confirm.since(fault), fault),
            first_delivery_s=_sent_before_hold(self._delivery.since(fault), fault),
            unknowns_resolved_s=_sent_before_hold(
                resolved if resolved is not None and resolved >= fault else None, fault
            ),
        )

    @property
    def _moment(self) -> float | None:
        """When the cluster says that it began; a fault that never held has no moment."""
        return self._holds if self._began is None else self._began

    @property
    def _is_through(self) -> bool:
        return self._moment is not None and self._confirm.best is not None and self._delivery.best is not None

    def _note_stage(self, step: FaultRecord) -> None:
        if step.stage is FaultStage.BEGAN and self._began is None:
            self._began = step.at
        elif step.stage is FaultStage.HOLDS and self._holds is None:
            self._holds = step.at

    def _last_sent(self, numbers: tuple[int, ...]) -> float:
        index = max(numbers, default=0) - self._base
        return self._sent_at[index] if 0 <= index < len(self._sent_at) else 0.0

    def _is_in_window(self, at: float) -> bool:
        # Clients may notice a fault before the moment at which the cluster says that it began.
        return self._asked is not None and at >= self._asked and (self._undone is None or at < self._undone)

    def _reconnected(self, lost: list[ClientRecord]) -> float | None:
        """When the last client that had lost its node was back; None if one never was."""
        back: list[float] = []
        for step in lost:
            later = [
                other.at
                for other in self._clients
                if (other.role, other.number) == (step.role, step.number)
                and other.event is not ClientEvent.LOST
                and other.at >= step.at
            ]
            if not later:
                return None
            back.append(min(later))
        return max(back, default=None)

    def _elected(self) -> float | None:
        """When the last queue that changed its leader had its first new one."""
        first: dict[str, float] = {}
        for step in self._elections:
            if step.node and self._is_in_window(step.at):
                first.setdefault(step.queue, step.at)
        return max(first.values(), default=None)


def _sent_before_hold(at: float | None, since: float) -> float | None:
    return None if at is None else round(max(0.0, at - since), 6)
