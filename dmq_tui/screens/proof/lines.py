"""From the values of a proof run to lines of cells: chart with marks, account, nodes and verdict; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import groupby

from dmq_core.cluster.protocol import NodeState
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.presentation import Tone, count, duration, rate
from dmq_core.proof.progress import LoadAccount, ProofReport
from dmq_core.proof.report.wording import headline, timeline_rows
from dmq_core.proof.result import Curves, ProofResult, TimelineMark, Verdict
from dmq_core.text import visible
from dmq_tui.render.chart import block
from dmq_tui.render.format import Cell, Line, fit, state_cell
from dmq_tui.render.lines import load_figures, width_of
from dmq_tui.widgets.prose import words

_GLYPH = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?"}
_LABEL = 15
_ROOMY = 92
# Glyph, the line that it stands on in the chart, tone.
_MARKS = {
    "fault": ("▲", "┃", Tone.BAD),
    "leader": ("★", "┊", Tone.WARN),
    "undo": ("↺", "│", Tone.GOOD),
}
_OTHER = (" ", " ", Tone.PLAIN)
_OWN_QUEUE = re.compile(r"dmq\.proof\.[0-9a-f]+")


def chart(
    curves: Curves,
    marks: Sequence[TimelineMark],
    elapsed_s: float,
    planned_s: float,
    width: int,
    height: int,
    *,
    gap_s: float = math.inf,
    live: bool = True,
) -> tuple[Line, ...]:
    """Both curves over the planned time, or once it is over the whole one, marks through both, and what the marks are.

    Where nothing came the ground line is red, unless for longer than the longest gap `gap_s`, since then nothing was on
    offer; where no time has passed yet there is nothing.
    """
    room = max(8, width - _LABEL - 1)
    shown = [m for m in marks if m.kind in _MARKS]
    tall = max(1, (height - 2) // 2)
    span = max(planned_s if live else 0.0, elapsed_s, 1.0)
    columns = _columns(shown, span, room)
    pairs = [
        (title, _values(rates, curves.slice_s, span, elapsed_s, room))
        for title, rates in (("confirms", curves.confirms), ("deliveries", curves.deliveries))
    ]
    top = max(value or 1.0 for _, values in pairs for value in values)
    longest = max(1, int((gap_s + 2 * curves.slice_s) / span * room)) if gap_s < math.inf else room
    blocks = [
        line
        for title, values in pairs
        for line in _block(title, values, _gap_columns(values, longest), tall, top, columns, live=live)
    ]
    said = f" {elapsed_s:.1f} of {planned_s:g} s" if live else f" took {elapsed_s:.1f} s"
    legends = _legends(shown, width - 1, max(1, height - 1 - 2 * tall))
    return (*blocks, (Cell(fit(said, _LABEL), Tone.QUIET), *_glyphs(columns, room)), *legends)


def figures(account: LoadAccount, width: int, *, live: bool) -> tuple[Line, ...]:
    """The account, in columns that do not jump; `live` tells how long nothing has come."""
    known = dict(load_figures(account))
    if width >= _ROOMY:
        rows: tuple[tuple[str, ...], ...] = (
            ("confirmed", "delivered", "in flight", "lost"),
            ("redelivered", "duplicates", "unknown", "nacked"),
        )
    else:
        rows = (("confirmed", "delivered", "in flight"), ("redelivered", "duplicates", "unknown"), ("lost", "nacked"))
    lines = [_facts(known, row) for row in rows]
    return (*lines, _gaps(account, live=live))


def nodes(snapshot: ClusterSnapshot | None, leader: str | None, width: int, *, inline: bool) -> tuple[Line, ...]:
    """Each node with its state, on a line of its own or `inline`; `leader` leads the run's queue."""
    if snapshot is None:
        return (words(" not seen yet", Tone.QUIET),)
    cells = [_node(node, leader, min(12, max(4, width - 26)), inline=inline) for node in snapshot.nodes]
    return tuple(_flowing(cells, width)) if inline else tuple(cells)


def timeline(marks: Sequence[TimelineMark], height: int) -> tuple[Line, ...]:
    """What happened on the way, with the distance from the last fault; the newest where there is no room for all."""
    told = [
        (Cell(f" {since:>8} ", Tone.QUIET), Cell(f"{glyph} ", tone), Cell(_said(mark)))
        for mark, since, (glyph, _, tone) in _dated(marks)
    ]
    return tuple(told[-height:]) or (words(" Nothing has happened yet.", Tone.QUIET),)


def verdict_line(result: ProofResult) -> Line:
    """The verdict in one line."""
    return (Cell(f"{_GLYPH[result.verdict]} {headline(result)}"),)


def verdict_lines(report: ProofReport) -> tuple[Line, ...]:
    """Why the verdict is what it is, what followed the fault, what is left to do, and where the reports are."""
    result = report.result
    reasons = [words(visible(reason)) for reason in result.reasons]
    # Of what makes it a PASS the first sentence says enough; what speaks against one has to be read.
    first = 1 if result.verdict is Verdict.PASS else len(reasons)
    lines: list[Line] = reasons[:first]
    lines += [(Cell("! ", Tone.BAD), Cell(visible(problem), Tone.BAD)) for problem in report.problems]
    told = [
        cell
        for moment in timeline_rows(result.timeline)
        if moment.after_s is not None
        for cell in (Cell(f"{moment.name} ", Tone.QUIET), Cell(f"+{duration(moment.after_s)}  ", Tone.STRONG))
    ]
    if told:
        lines.append((Cell("after the fault  ", Tone.QUIET), *told))
    if report.files:
        lines.append((Cell("report  ", Tone.QUIET), Cell(visible(_together(report.files)), Tone.ACCENT)))
    return (*lines, *reasons[first:])


def _values(
    rates: Sequence[float], slice_s: float, span: float, elapsed_s: float, room: int
) -> tuple[float | None, ...]:
    """The mean rate of each of `room` columns; None where no slice has ended yet."""
    each = span / room / slice_s
    found: list[float | None] = []
    for column in range(room):
        first = int(column * each + 1e-9)
        part = rates[first : max(first + 1, int((column + 1) * each + 1e-9))]
        found.append(sum(part) / len(part) if part and column * each * slice_s < elapsed_s else None)
    return tuple(found)


def _columns(marks: Sequence[TimelineMark], span: float, room: int) -> dict[int, str]:
    """Which kind of mark stands in which column; what would cover another one moves one on."""
    places: dict[int, str] = {}
    for mark in marks:
        column = min(room - 1, int(mark.at_s / span * room))
        while column in places and column < room - 1:
            column += 1
        places[column] = mark.kind
    return places


def _gap_columns(values: Sequence[float | None], longest: int) -> frozenset[int]:
    """The columns of those runs without anything that are no longer than a gap can be."""
    gaps: set[int] = set()
    for is_zero, run in groupby(range(len(values)), key=lambda column: values[column] == 0):
        columns = tuple(run)
        if is_zero and len(columns) <= longest:
            gaps.update(columns)
    return frozenset(gaps)


def _block(
    title: str,
    values: Sequence[float | None],
    gaps: frozenset[int],
    height: int,
    top: float,
    marks: dict[int, str],
    *,
    live: bool,
) -> tuple[Line, ...]:
    last = next((v for v in reversed(values) if v is not None), None)
    now = f"{rate(last):>6}/s" if live and last is not None else ""
    labels = {0: f" {title}"}
    if height > 2:
        labels[1] = f" top {rate(top)}/s"
    if now:
        labels[height - 1] = f" {title[:5]}{now}" if height == 1 else f" {now}"
    return tuple(
        (
            Cell(fit(labels.get(row, ""), _LABEL), Tone.STRONG if row and row in labels else Tone.QUIET),
            *_runs(
                [
                    _mark(marks[column])
                    if column in marks
                    else _bar(value, height - 1 - row, height, top, column in gaps)
                    for column, value in enumerate(values)
                ]
            ),
        )
        for row in range(height)
    )


def _mark(kind: str) -> tuple[str, Tone]:
    _, line, tone = _MARKS[kind]
    return line, tone


def _bar(value: float | None, level: int, height: int, top: float, is_gap: bool) -> tuple[str, Tone]:
    """What one column shows `level` lines over the ground."""
    if value is None:
        return " ", Tone.PLAIN
    tone = Tone.ACCENT if value else Tone.BAD if is_gap else Tone.FAINT
    return block(value, top, level, height), tone


def _runs(cells: Sequence[tuple[str, Tone]]) -> list[Cell]:
    return [Cell("".join(char for char, _ in run), tone) for tone, run in groupby(cells, key=lambda c: c[1])]


def _glyphs(columns: dict[int, str], room: int) -> list[Cell]:
    glyphs = [_MARKS[columns[c]] if c in columns else _OTHER for c in range(room)]
    return _runs([(glyph, tone) for glyph, _, tone in glyphs])


def _dated(marks: Sequence[TimelineMark]) -> list[tuple[TimelineMark, str, tuple[str, str, Tone]]]:
    """Each mark with its distance from the fault before it; a fault, and what comes before any, with its own second."""
    dated = []
    fault_s: float | None = None
    for mark in marks:
        fault_s = mark.at_s if mark.kind == "fault" else fault_s
        since = f"{mark.at_s:.1f} s" if fault_s is None or mark.kind == "fault" else f"+{mark.at_s - fault_s:.2f} s"
        dated.append((mark, since, _MARKS.get(mark.kind, _OTHER)))
    return dated


def _said(mark: TimelineMark) -> str:
    """What happened; the run's own queue needs no name."""
    return _OWN_QUEUE.sub("the queue", visible(mark.text))


def _legends(marks: Sequence[TimelineMark], width: int, most: int) -> list[Line]:
    """What the marks are and when; where there is no room for all, the undoings go first, then the oldest."""
    told = [
        (mark, (Cell(f"{glyph} ", tone), Cell(f"{since} ", Tone.STRONG), Cell(f"{_said(mark)}  ")))
        for mark, since, (glyph, _, tone) in _dated(marks)
    ]
    lines = _flowing([cells for _, cells in told], width)
    if len(lines) > most:
        lines = _flowing([cells for mark, cells in told if mark.kind != "undo"], width)
    return lines[-most:]


def _flowing(parts: Sequence[Line], width: int) -> list[Line]:
    """As many parts to a line as there is room for."""
    lines: list[Line] = []
    line: Line = (Cell(" "),)
    for part in parts:
        if len(line) > 1 and width_of(line) + width_of(part) > width:
            lines.append(line)
            line = (Cell(" "),)
        line += part
    return [*lines, line]


def _node(node: NodeView, leader: str | None, width: int, *, inline: bool) -> Line:
    name = visible(node.name)
    leads = Cell("")
    if node.name == leader:
        # Until another one is elected, figures go on naming the one that went.
        up = node.state is NodeState.RUNNING
        leads = Cell("★ leader", Tone.WARN) if up else Cell("led the queue", Tone.QUIET)
    if inline:
        return (Cell(f"{name} ", Tone.STRONG), state_cell(node.state), Cell(" "), leads, Cell("  "))
    return (Cell(f" {fit(name, width)} ", Tone.STRONG), state_cell(node.state, 14), leads)


def _facts(known: dict[str, Cell], row: Sequence[str]) -> Line:
    cells: list[Cell] = []
    for word in row:
        cells += [Cell(f" {word:<11}", Tone.QUIET), Cell(f"{known[word].text:>9}", known[word].tone), Cell("  ")]
    return tuple(cells)


def _gaps(account: LoadAccount, *, live: bool) -> Line:
    line = [Cell(" longest gap  confirms ", Tone.QUIET), _gap(account.longest_confirm_gap_s)]
    line += [Cell("  deliveries ", Tone.QUIET), _gap(account.longest_delivery_gap_s)]
    silent = max(account.current_confirm_gap_s, account.current_delivery_gap_s)
    if live and silent >= 0.2:
        line.append(Cell(f"   ▲ silent for {duration(silent)}", Tone.BAD))
    return tuple(line)


def _gap(number: float) -> Cell:
    return Cell(duration(number), Tone.WARN if number >= 1 else Tone.STRONG)


def _together(files: Sequence[str]) -> str:
    """`…/x.html and .json` for files that differ in their ends only."""
    first, *others = files
    stem = first.rpartition(".")[0]
    if others and all(other.rpartition(".")[0] == stem for other in others):
        return f"{first} and " + ", ".join(f".{other.rpartition('.')[2]}" for other in others)
    return ", ".join(files)


def total(account: LoadAccount) -> str:
    """How many messages were sent, for a border."""
    return f"{count(account.attempted)} attempted"
