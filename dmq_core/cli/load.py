"""`dmq load`: a steady confirmed publisher and an acknowledging consumer, and the account of every message."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from dmq_core.cli import reach
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import Output, clock
from dmq_core.cluster.base import Progress, ProgressListener, silent
from dmq_core.observe.events import Event
from dmq_core.proof.account import LoadAccount

if TYPE_CHECKING:
    from dmq_core.session import Load

_LOOK_S = 0.5
_HISTORIES = ("confirm_history", "delivery_history")


@click.command()
@click.option(
    "--rate",
    type=click.FloatRange(0, 5000, min_open=True),
    default=500.0,
    metavar="R",
    help="Messages a second, at most 5000; by default 500.",
)
@click.option("--for", "seconds", type=click.FloatRange(0), metavar="SECONDS", help="End after so many seconds.")
@common_options
def load(invocation: Invocation, rate: float, seconds: float | None) -> int:
    """Run a steady load and account for every message.

    A publisher with confirms and a consumer with acknowledgements work on a quorum queue, without --for until Ctrl-C.
    Ends with 0 if nothing was lost, and with 1 otherwise.
    """
    out = invocation.out
    with reach.open_session(invocation.settings) as session:
        # The observation finds the queue's leader for the load, and adds what the broker does to the story.
        session.observe(lambda observation: _tell(out, observation.events))
        running = session.load(rate, lambda event: _tell(out, (event,)))
        try:
            with out.progress() as progress:
                _run(running, seconds, progress if out.live else silent)
        finally:
            account = running.stop()
            _report(out, account)
    return int(account.lost > 0)


def _run(running: Load, seconds: float | None, progress: ProgressListener) -> None:
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    pause = threading.Event()
    while (left := deadline - time.monotonic()) > 0:
        pause.wait(min(_LOOK_S, left))
        progress(Progress(_sentence(running.account())))


def _tell(out: Output, events: tuple[Event, ...]) -> None:
    for event in events:
        out.say(f"{clock(event.at)}  {event.text}")


def _report(out: Output, account: LoadAccount) -> None:
    if out.json:
        out.document(_document(account))
        return
    out.text(_sentence(account))
    out.text(
        f"longest gap: {account.longest_confirm_gap_s:.2f} s between confirms, "
        f"{account.longest_delivery_gap_s:.2f} s between deliveries"
    )


def _document(account: LoadAccount) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(account).items() if name not in _HISTORIES}


def _sentence(account: LoadAccount) -> str:
    return (
        f"confirmed {account.confirmed:,}  delivered {account.delivered:,}  in flight {account.in_flight:,}  "
        f"redelivered {account.redelivered:,}  unknown {account.unknown:,}  lost {account.lost:,}"
    )
