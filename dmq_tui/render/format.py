"""Cells, the pieces of text that everything is drawn from, and what turns states into them."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from dmq_core.cluster.protocol import NodeState
from dmq_core.majority import is_majority
from dmq_core.observe.events import Event, Severity
from dmq_core.presentation import UNKNOWN, Tone, node_look
from dmq_core.text import visible


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
    return Cell(f"{online}/{total} !", Tone.WARN if is_majority(online, total) else Tone.BAD)


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
