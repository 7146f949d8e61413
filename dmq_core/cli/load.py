"""`dmq load`: a steady confirmed publisher and an acknowledging consumer, and the account of every message."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import click

from dmq_core.cli import reach
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import Output, clock
from dmq_core.cluster.base import Progress
from dmq_core.observe.events import Event
from dmq_core.proof.account import LoadAccount

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
        running = session.load(rate, lambda event: out.say(_event_line(event)))
        try:
            with out.progress() as progress:
                deadline = None if seconds is None else time.monotonic() + seconds
                pause = threading.Event()
                while deadline is None or time.monotonic() < deadline:
                    left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
                    pause.wait(max(0.0, left))
                    if out.live:
                        progress(Progress(_sentence(running.account())))
        finally:
            account = running.stop()
            _report(out, account)
    return int(account.lost > 0)


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


def _event_line(event: Event) -> str:
    return f"{clock(event.at)}  {event.text}"
