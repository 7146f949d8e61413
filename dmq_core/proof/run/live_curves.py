"""The account of a run while it lasts, as front ends show it: counts, gaps, and curves in slices of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dmq_core.proof.gauges import RateHistory
from dmq_core.proof.journal.file import JournalClock
from dmq_core.proof.progress import LoadAccount, final_account
from dmq_core.proof.result import ProofResult
from dmq_core.proof.run.live_account import MessageCounts
from dmq_core.proof.run.workload import TrafficProgress

SLICE_S: Final = 0.25


class LiveCurves:
    """What has been seen of a run's traffic since its first message, curves for the last `slices` of it."""

    def __init__(self, slices: int, clock: JournalClock | None = None) -> None:
        self._clock = clock or JournalClock()
        self.began_at = self._clock.wall()
        self._began = self._seen = self._clock.mono()
        self._progress = TrafficProgress(MessageCounts())
        self._confirms = RateHistory(self._began, SLICE_S, slices)
        self._deliveries = RateHistory(self._began, SLICE_S, slices)
        self._last = [self._began, self._began]

    @property
    def elapsed_s(self) -> float:
        """Seconds from its first message to the last look."""
        return self._seen - self._began

    def look(self, progress: TrafficProgress) -> None:
        """Notes how the traffic does now."""
        before, now = self._progress.counts, progress.counts
        self._progress, self._seen = progress, self._clock.mono()
        confirmed = now.confirmed - before.confirmed
        # As confirms are counted once for each message, so are deliveries.
        delivered = now.delivered - before.delivered
        for index, (history, new) in enumerate(((self._confirms, confirmed), (self._deliveries, delivered))):
            history.add(self._seen, max(0, new))
            if new > 0:
                self._last[index] = self._seen

    def account(self, queue: str, rate: float, *, running: bool) -> LoadAccount:
        """What was seen at the last look."""
        counts, seen = self._progress.counts, self._seen
        account = LoadAccount(
            running=running,
            queue=queue,
            rate=rate,
            taken_at=self._clock.wall(),
            longest_confirm_gap_s=self._progress.longest_confirm_gap_s,
            longest_delivery_gap_s=self._progress.longest_delivery_gap_s,
            current_confirm_gap_s=seen - self._last[0] if counts.outstanding else 0.0,
            current_delivery_gap_s=seen - self._last[1] if counts.in_flight or counts.outstanding else 0.0,
            slice_s=SLICE_S,
            confirm_history=self._confirms.rates(seen),
            delivery_history=self._deliveries.rates(seen),
        )
        return replace(account, **{name: getattr(counts, name) for name in _SHARED})


_SHARED: Final = (
    "attempted",
    "outstanding",
    "confirmed",
    "nacked",
    "returned",
    "unknown",
    "not_sent",
    "delivered",
    "redelivered",
    "duplicates",
    "in_flight",
    "lost",
)


def with_result(
    account: LoadAccount, result: ProofResult | None, publisher_at: str | None, consumer_at: str | None
) -> LoadAccount:
    """`account` with where its clients are; once there is a `result`, its figures with the curves that were seen."""
    if result is not None:
        shape = ("queue", "slice_s", "confirm_history", "delivery_history")
        account = replace(final_account(result), **{name: getattr(account, name) for name in shape})
    return replace(account, publisher_at=publisher_at, consumer_at=consumer_at)
