"""How a run or a load does while it lasts, and what it leaves, as front ends show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmq_core.proof.result import ProofResult, TimelineMark

if TYPE_CHECKING:
    from dmq_core.proof.result import ProofResult


@dataclass(frozen=True, slots=True)
class ProofProgress:
    """A run after `elapsed_s` of the `planned_s` seconds of its load; both histories of `account` begin with the load.

    `activity` is what it is at (`draining the queue`), `is_stopping` whether it was asked to end early.
    """

    account: LoadAccount
    elapsed_s: float
    planned_s: float
    marks: tuple[TimelineMark, ...] = ()
    activity: str = ""
    is_stopping: bool = False


@dataclass(frozen=True, slots=True)
class ProofReport:
    """A run that is over: `files` are its reports, `problems` say what could not be undone or removed."""

    result: ProofResult
    files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadAccount:
    """The state of a load at `taken_at` (epoch seconds); counts of messages, gaps in seconds.

    `attempted = confirmed + nacked + returned + unknown + not_sent + outstanding`. `delivered` counts distinct
    messages, `redelivered` deliveries that carried the flag, `duplicates` second deliveries of the same message.
    `in_flight` was confirmed and is not yet delivered; `lost` are confirmed messages that later ones overtook for
    longer than a delivery can take, or that a drained queue did not hold. `confirm_history` and `delivery_history`
    are messages a second in slices of `slice_s`, oldest first.
    """

    running: bool
    queue: str
    rate: float
    taken_at: float
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
    in_flight: int = 0
    lost: int = 0
    longest_confirm_gap_s: float = 0.0
    longest_delivery_gap_s: float = 0.0
    current_confirm_gap_s: float = 0.0
    current_delivery_gap_s: float = 0.0
    publisher_at: str | None = None
    consumer_at: str | None = None
    slice_s: float = 0.5
    confirm_history: tuple[float, ...] = ()
    delivery_history: tuple[float, ...] = ()


def final_account(result: ProofResult) -> LoadAccount:
    """The account of a result in the shape in which it was shown while it ran; its queue and curves are not in it."""
    account, again = result.account, result.account.duplicates
    return LoadAccount(
        running=False,
        queue="",
        rate=result.workload.rate,
        taken_at=result.ended_at,
        attempted=account.attempted,
        confirmed=account.confirmed,
        nacked=account.nacked,
        returned=account.returned,
        unknown=account.unknown,
        not_sent=account.not_sent,
        delivered=account.delivered,
        redelivered=account.redelivered,
        duplicates=again.redelivery + again.republish + again.retry_handoff + again.unexplained,
        lost=len(account.lost),
        longest_confirm_gap_s=result.max_confirm_gap_s,
        longest_delivery_gap_s=result.max_delivery_gap_s,
    )
