"""The parts of the proof screen that are drawn line by line, and the words beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dmq_core.actions.wording import sentences_of
from dmq_core.errors import DmqError
from dmq_core.majority import Margin
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.proof.progress import ProofProgress, ProofReport
from dmq_core.proof.result import Curves
from dmq_core.text import visible
from dmq_tui.render.format import Cell
from dmq_tui.screens.proof import lines as proof_lines
from dmq_tui.screens.proof.form import ProofForm
from dmq_tui.widgets.paint import Line, Painted
from dmq_tui.widgets.prose import words

_TONES = {Margin.SAFE: Tone.PLAIN, Margin.NO_MARGIN: Tone.WARN, Margin.NO_MAJORITY: Tone.BAD}


class ChartView(Painted):
    """Both curves with their marks; before a run the word that there is none."""

    curves = Curves(1.0, (), ())
    progress: ProofProgress | None = None
    report: ProofReport | None = None

    def lines(self, width: int) -> Sequence[Line]:
        """The chart of the result, or of the run so far."""
        if self.report is not None:
            result = self.report.result
            curves = result.curves
            lasted = max(len(curves.confirms), len(curves.deliveries)) * curves.slice_s
            planned = self.progress.planned_s if self.progress is not None else lasted
            gap_s = max(result.max_confirm_gap_s, result.max_delivery_gap_s)
            return proof_lines.chart(
                curves, result.marks, lasted, planned, width, self.size.height, gap_s=gap_s, live=False
            )
        if self.progress is None:
            return (words(" Drawn here once the run has begun, with the fault and the election on it.", Tone.QUIET),)
        now = self.progress
        account = now.account
        curves = Curves(account.slice_s, account.confirm_history, account.delivery_history)
        gap_s = max(account.longest_confirm_gap_s, account.longest_delivery_gap_s)
        return proof_lines.chart(curves, now.marks, now.elapsed_s, now.planned_s, width, self.size.height, gap_s=gap_s)


class LinesView(Painted):
    """Lines that a function makes for the width at hand."""

    made: Callable[[int], Sequence[Line]] = staticmethod(lambda _width: ())

    def show(self, made: Callable[[int], Sequence[Line]]) -> None:
        """Shows other lines."""
        self.made = made
        self.refresh()

    def lines(self, width: int) -> Sequence[Line]:
        """The lines."""
        return self.made(width)


def impact_lines(form: ProofForm, snapshot: ClusterSnapshot | None) -> list[Line]:
    """What the run will cause, and the command for it."""
    if snapshot is None:
        return [words("The impact is not known: the cluster has not been seen yet.", Tone.WARN)]
    impact = form.impact(snapshot)
    lines = [
        words(visible(told.text), Tone.PLAIN if told.margin is None else _TONES[told.margin])
        for told in sentences_of(impact)
    ]
    same = (Cell("CLI equivalent: ", Tone.QUIET), Cell(form.command(snapshot)))
    return [*lines, (), same]


def trouble(error: DmqError | None) -> list[Line]:
    """Why there is no run; empty without an error."""
    if error is None:
        return []
    hint = [words(visible(error.hint))] if error.hint else []
    return [(Cell("✗ ", Tone.BAD), Cell(visible(error.what), Tone.BAD)), *hint]


def progress_line(progress: ProofProgress | None, form: ProofForm) -> Line:
    """How far the run is."""
    if progress is None:
        return (Cell("◐ beginning", Tone.WARN), Cell(f"  {visible(form.scenario.title)}", Tone.QUIET))
    if progress.is_stopping:
        return (Cell("◐ ending: faults are undone first, then the queue is drained", Tone.WARN),)
    left = max(0.0, progress.planned_s - progress.elapsed_s)
    said = f"{left:.0f} s to go" if left else "load is over, or waits for the last undoing"
    return (Cell("● running", Tone.STRONG), Cell(f"  {said}", Tone.QUIET))


def doing_line(progress: ProofProgress | None) -> Line:
    """What it is at."""
    doing = "is the cluster well?" if progress is None else visible(progress.activity)
    return (Cell("now: ", Tone.QUIET), Cell(doing))
