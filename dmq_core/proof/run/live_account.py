"""What became of each message of a run, by set algebra; pure, and bounded however long the run lasts.

A message that was confirmed and delivered is forgotten; only what is open, and a bounded number of oddities, is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Final

from dmq_core.messaging.messages import Outcome

KEPT_ODDITIES: Final = 100_000
OVERTAKEN_S: Final = 90.0
_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class MessageCounts:
    """Numbers of messages. `duplicates` counts second deliveries, `redelivered` deliveries with the flag.

    `leak` was returned and yet delivered, `phantom` not sent and yet delivered, `unexpected` never attempted;
    `recovered` had an unknown outcome and was delivered.
    """

    attempted: int = 0
    outstanding: int = 0
    confirmed: int = 0
    nacked: int = 0
    returned: int = 0
    unknown: int = 0
    not_sent: int = 0
    delivered: int = 0
    redelivered: int = 0
    duplicates: int = 0
    recovered: int = 0
    leak: int = 0
    phantom: int = 0
    unexpected: int = 0
    in_flight: int = 0
    lost: int = 0


_COUNTED: Final = tuple(f.name for f in fields(MessageCounts) if f.name not in ("outstanding", "in_flight", "lost"))


class LiveAccount:
    """The account of one run whose messages are numbered from 1; not thread-safe.

    Times are monotonic seconds. A confirmed message counts as lost once deliveries have flowed for 90 s since its
    confirm without it (`OVERTAKEN_S`), or once `close` finds the queue drained.
    """

    def __init__(self, kept: int = KEPT_ODDITIES) -> None:
        self._kept = kept
        self._tally = dict.fromkeys(_COUNTED, 0)
        self._unsettled: set[int] = set()
        self._delivered_early: set[int] = set()
        self._awaited: OrderedDict[int, float] = OrderedDict()
        self._odd: OrderedDict[int, Outcome] = OrderedDict()
        self._flowed_s = 0.0
        self._last_delivery: float | None = None
        self._drained = False

    def attempt(self) -> int:
        """The number of the next message, noted before it is published."""
        self._tally["attempted"] += 1
        number = self._tally["attempted"]
        self._unsettled.add(number)
        return number

    def settled(self, number: int, outcome: Outcome) -> None:
        """Notes the outcome of a publish; only the first one counts."""
        if number not in self._unsettled:
            return
        self._unsettled.discard(number)
        self._tally[outcome.value] += 1
        if number in self._delivered_early:
            self._delivered_early.discard(number)
            self._explain(outcome)
        elif outcome is Outcome.CONFIRMED:
            self._awaited[number] = self._flowed_s
        else:
            self._odd[number] = outcome
            if len(self._odd) > self._kept:
                self._odd.popitem(last=False)

    def delivered(self, number: int, redelivered: bool, now: float) -> bool:
        """Notes a delivery; whether it is the first one of its message."""
        self._flow(now)
        self._tally["redelivered"] += redelivered
        if not 1 <= number <= self._tally["attempted"]:
            self._tally["unexpected"] += 1
            return False
        first = self._first_delivery(number)
        self._tally["delivered" if first else "duplicates"] += 1
        return first

    def close(self, drained: bool) -> None:
        """Ends the run; if the queue is `drained`, what was confirmed and not delivered is lost."""
        self._drained = drained

    @property
    def undelivered(self) -> int:
        """Messages that may still be delivered, the unknown ones aside."""
        return len(self._awaited) + len(self._unsettled) - len(self._delivered_early)

    @property
    def outstanding(self) -> int:
        """Messages without an outcome."""
        return len(self._unsettled)

    @property
    def recovered(self) -> int:
        """Messages with an unknown outcome that were delivered."""
        return self._tally["recovered"]

    def lost(self) -> tuple[int, ...]:
        """The numbers of the lost messages, oldest confirm first."""
        if self._drained:
            return tuple(self._awaited)
        lost = []
        for number, stamp in self._awaited.items():
            if self._flowed_s - stamp <= OVERTAKEN_S:
                break
            lost.append(number)
        return tuple(lost)

    def counts(self) -> MessageCounts:
        """The account now."""
        lost = len(self.lost())
        return MessageCounts(
            **self._tally, outstanding=len(self._unsettled), in_flight=len(self._awaited) - lost, lost=lost
        )

    def _first_delivery(self, number: int) -> bool:
        if number in self._unsettled:
            first = number not in self._delivered_early
            self._delivered_early.add(number)
            return first
        if self._awaited.pop(number, None) is not None:
            return True
        outcome = self._odd.pop(number, None)
        if outcome is None:
            return False
        self._explain(outcome)
        return True

    def _explain(self, outcome: Outcome) -> None:
        match outcome:
            case Outcome.UNKNOWN:
                self._tally["recovered"] += 1
            case Outcome.RETURNED:
                self._tally["leak"] += 1
            case Outcome.NOT_SENT:
                self._tally["phantom"] += 1

    def _flow(self, now: float) -> None:
        if self._last_delivery is not None:
            # A standstill is no time in which a message could have been overtaken.
            self._flowed_s += min(_PAUSE_S, max(0.0, now - self._last_delivery))
        self._last_delivery = now
