"""Pane 6: the load and the running account of its messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult

from dmq_core.observe.events import Event, LoadDetails, Origin, Severity
from dmq_core.presentation import Tone, duration, rate
from dmq_core.proof.progress import LoadAccount, ProofReport
from dmq_core.proof.report.wording import headline
from dmq_core.proof.result import Verdict
from dmq_core.text import visible
from dmq_tui.commands import PaneId
from dmq_tui.panes.pane import Pane
from dmq_tui.render.format import Cell, Line
from dmq_tui.render.lines import load_lines
from dmq_tui.widgets.paint import Painted

_LESSON = (
    " No load. l starts a steady publisher with confirms and a consumer with acknowledgements on one quorum queue;",
    " then kill a node and watch what becomes of every message; l again ends it with a verdict.",
)
_GAP_WORTH_SAYING_S = 1.0
_ROOM_FOR_WHY = 12


class LoadView(Painted, can_focus=True):
    """Two charts and the account."""

    account: LoadAccount | None = None
    faults: Sequence[float] = ()
    closing: Sequence[Line] = ()

    def lines(self, width: int) -> Sequence[Line]:
        """The charts and the account, or what a load is."""
        if self.account is None:
            return tuple((Cell(text, Tone.QUIET),) for text in _LESSON)
        closing = self.closing if self.size.height >= _ROOM_FOR_WHY else ()
        return (*closing, *load_lines(self.account, width, self.size.height - len(closing), self.faults))


class LoadPane(Pane):
    """The load: its border says the rate, the queue, where its clients are, and what it waits for."""

    pane: ClassVar[PaneId] = PaneId.LOAD

    def __init__(self) -> None:
        super().__init__()
        self.view = LoadView()

    def compose(self) -> ComposeResult:
        """The charts and the account."""
        yield self.view

    def on_mount(self) -> None:
        """Names the pane."""
        self.set_title()

    @property
    def body(self) -> LoadView:
        """The charts."""
        return self.view

    def report(
        self, account: LoadAccount | None, faults: Sequence[float], doing: str, report: ProofReport | None
    ) -> None:
        """Shows the account as it is now; `doing` says what is under way, `report` is that of a load that is over."""
        self.view.closing = () if report is None else _closing(report)
        self.view.account = account
        self.view.faults = faults
        self.view.refresh()
        if account is None:
            self.set_title(doing)
            return
        waits = max(account.current_confirm_gap_s, account.current_delivery_gap_s)
        self.set_title(
            f"{rate(account.rate)}/s on {visible(account.queue)}" if account.running else "ended",
            headline(report.result) if report is not None else "",
            doing,
            f"publisher on {visible(account.publisher_at)}" if account.publisher_at else "",
            f"consumer on {visible(account.consumer_at)}" if account.consumer_at else "",
            f"silent for {duration(waits)}" if account.running and waits >= _GAP_WORTH_SAYING_S else "",
        )


def load_ended(report: ProofReport, at: float) -> Event:
    """The story's entry about the end of a load at the epoch second `at`."""
    result = report.result
    details = LoadDetails(headline(result), next(iter(report.files), ""))
    return Event(at, Origin.CLIENT, _SEVERITY[result.verdict], "load_ended", "", details)


def _closing(report: ProofReport) -> tuple[Line, ...]:
    """The verdict in two lines: it, and its first reason."""
    result, tone = report.result, _TONE[report.result.verdict]
    why = next(iter((*report.problems, *result.reasons)), "")
    return ((Cell(f" {headline(result)}", tone),), (Cell(f" {visible(why)}"),))


_SEVERITY = {Verdict.PASS: Severity.GOOD, Verdict.FAIL: Severity.BAD, Verdict.INCONCLUSIVE: Severity.NOTICE}
_TONE = {Verdict.PASS: Tone.GOOD, Verdict.FAIL: Tone.BAD, Verdict.INCONCLUSIVE: Tone.WARN}
