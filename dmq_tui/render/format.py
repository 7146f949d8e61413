"""Cells, the pieces of text that everything is drawn from, and what turns states and curves into them."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from dmq_core.cluster.protocol import NodeState
from dmq_core.observe.events import Event, Severity
from dmq_core.presentation import UNKNOWN, Tone, node_look
from dmq_core.text import visible

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text with its tone; already safe to show, never markup."""

    text: str
    tone: Tone = Tone.PLAIN


Line = tuple[Cell, ...]


_EVENT_MARKS = {
    Severity.FAULT: ("✗", Tone.BAD),
    Severity.BAD: ("!", Tone.BAD),
    Severity.NOTICE: ("★", Tone.WARN),
    Severity.PLAIN: (" ", Tone.PLAIN),
    Severity.GOOD: ("✓", Tone.GOOD),
}


def state_cell(state: NodeState, width: int = 0) -> Cell:
    """A node's state as glyph and word, in `width` cells or more."""
    look = node_look(state)
    return Cell(f"{look.glyph} {state}".ljust(width), look.tone)


def event_mark(event: Event) -> Cell:
    """The glyph of an event."""
    glyph, tone = _EVENT_MARKS[event.severity]
    return Cell(glyph, tone)


def event_tone(event: Event) -> Tone:
    """The tone of an event's sentence: coloured only where it is bad."""
    return Tone.BAD if event.severity in (Severity.FAULT, Severity.BAD) else Tone.PLAIN


def members(online: int, total: int) -> Cell:
    """Members online of all: `2/3 !` in yellow where the margin is gone, red where the majority is."""
    if not total:
        return Cell(UNKNOWN, Tone.QUIET)
    if online == total:
        return Cell(f"{online}/{total}  ")
    return Cell(f"{online}/{total} !", Tone.WARN if 2 * online > total else Tone.BAD)


def spark(values: tuple[float, ...], width: int, top: float | None = None) -> str:
    """The last `width` values as bars from 0 to `top` (None: their highest), padded on the left."""
    if width <= 0:
        return ""
    shown = values[-width:]
    highest = top if top is not None else max(shown, default=0.0)
    return "".join(_bar(v, highest) for v in shown).rjust(width)


def bars(values: tuple[float, ...], width: int, height: int, top: float) -> tuple[str, ...]:
    """The last `width` values as bars of `height` lines from 0 to `top`, top line first, padded on the left."""
    shown = values[-width:] if width > 0 else ()
    steps = len(_BARS)
    levels = [round(min(v, top) / top * height * steps) if top > 0 and v > 0 else 0 for v in shown]
    lines = []
    for line in range(height - 1, -1, -1):
        filled = [min(steps, max(0, level - line * steps)) for level in levels]
        lines.append("".join(_BARS[f - 1] if f else _BARS[0] if line == 0 else " " for f in filled).rjust(width))
    return tuple(lines)


def name(text: str, empty: str = "(default)") -> str:
    """A name from outside, safe to show; the nameless default exchange gets a word."""
    return visible(text) or empty


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells: padded, or cut at its end with `…`."""
    length = cell_len(text)
    if length == width:
        return text
    if length < width:
        padding = " " * (width - length)
        return padding + text if right else text + padding
    if width <= 0:
        return ""
    return set_cell_size(text, width - 1) + "…"


def _bar(value: float, highest: float) -> str:
    if highest <= 0 or value <= 0:
        return _BARS[0]
    return _BARS[max(1, min(len(_BARS) - 1, round(value / highest * (len(_BARS) - 1))))]
