"""`dmq load`: a steady confirmed publisher and an acknowledging consumer, the account of every message, a verdict."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import click

from dmq_core.cli import connect
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import Output
from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Event
from dmq_core.presentation import clock, duration
from dmq_core.progress import Progress, ProgressListener, no_progress
from dmq_core.proof.progress import LoadAccount
from dmq_core.proof.report.wording import headline
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.proof.progress import ProofReport
    from dmq_core.session.protocol import Proof

_LOOK_S = 0.5
_HISTORIES = ("confirm_history", "delivery_history")


@click.command()
@click.option(
    "--rate",
    type=click.FloatRange(0, 5000, min_open=True),
    default=500.0,
    metavar="R",
    help="Messages per second (default: 500).",
)
@click.option("--for", "seconds", type=click.FloatRange(0), metavar="SECONDS", help="Stop after this many seconds.")
@common_options
def load(invocation: Invocation, rate: float, seconds: float | None) -> int:
    """Run a steady load and account for every message.

    A confirmed publisher and an acknowledging consumer use one quorum queue; without --for they run until Ctrl-C.
    Faults during the load, whoever causes them, are part of the account and the verdict. Journal (about 300 MB per hour
    at 500/s) and report are kept in dmq's state directory; the load ends by itself after 1 GB or one day.
    Exit status: 0 if no message was lost, 1 otherwise.
    """
    out = invocation.out
    with connect.open_session(invocation.settings) as session:
        session.observe(lambda observation: _tell(out, observation.events))
        running = session.load(rate)
        try:
            with out.progress() as progress:
                _run(running, seconds, progress if out.live else no_progress)
        finally:
            running.stop()
            report = running.finish()
            account = running.progress().account
            _report(out, account, report)
    return int(account.lost > 0)


def _run(running: Proof, seconds: float | None, progress: ProgressListener) -> None:
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not running.wait(min(_LOOK_S, left)):
        progress(Progress(_sentence(running.progress().account)))


def _tell(out: Output, events: tuple[Event, ...]) -> None:
    for event in events:
        out.say(f"{clock(event.at)}  {event_text(event)}")


def _report(out: Output, account: LoadAccount, report: ProofReport) -> None:
    result = report.result
    if out.json:
        found = {"verdict": str(result.verdict), "reasons": list(result.reasons), "journal": result.journal}
        out.document(_document(account) | found)
        return
    out.text(headline(result))
    for line in (*report.problems, *result.reasons):
        out.text(f"  {visible(line)}")
    out.text(_sentence(account))
    out.text(
        f"longest gap: {duration(account.longest_confirm_gap_s)} between confirms, "
        f"{duration(account.longest_delivery_gap_s)} between deliveries"
    )
    for file in report.files[:1]:
        out.text(f"report: {visible(file)}")


def _document(account: LoadAccount) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(account).items() if name not in _HISTORIES}


def _sentence(account: LoadAccount) -> str:
    return (
        f"confirmed {account.confirmed:,}  delivered {account.delivered:,}  in flight {account.in_flight:,}  "
        f"redelivered {account.redelivered:,}  unknown {account.unknown:,}  lost {account.lost:,}"
    )
