"""The one place where numbers and states become text; what is not known is `–`, never 0."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from rich.cells import cell_len, set_cell_size

from dmq_core.cluster.protocol import NodeState
from dmq_core.observe.events import Event, Severity
from dmq_core.text import visible

UNKNOWN = "–"
_BARS = "▁▂▃▄▅▆▇█"
_SIZES = ("B", "KB", "MB", "GB", "TB", "PB")


class Tone(StrEnum):
    """What a piece of text means to the eye; the theme turns it into a colour."""

    PLAIN = "plain"
    STRONG = "strong"
    QUIET = "quiet"
    FAINT = "faint"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    ACCENT = "accent"


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text with its tone; already safe to show, never markup."""

    text: str
    tone: Tone = Tone.PLAIN


Line = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A state for the eye: a glyph, a word and a tone, so that it survives without colour."""

    glyph: str
    word: str
    tone: Tone

    @property
    def cell(self) -> Cell:
        """Glyph and word as one cell."""
        return Cell(f"{self.glyph} {self.word}", self.tone)


_NODE_MARKS = {
    NodeState.RUNNING: Mark("●", "running", Tone.GOOD),
    NodeState.STARTING: Mark("◐", "starting", Tone.WARN),
    NodeState.STOPPED: Mark("✗", "stopped", Tone.BAD),
    NodeState.PAUSED: Mark("‖", "paused", Tone.BAD),
    NodeState.ISOLATED: Mark("⊘", "isolated", Tone.BAD),
    NodeState.DRAINING: Mark("▽", "draining", Tone.WARN),
    NodeState.UNREACHABLE: Mark("?", "unreachable", Tone.BAD),
}
_EVENT_MARKS = {
    Severity.FAULT: ("✗", Tone.BAD),
    Severity.BAD: ("!", Tone.BAD),
    Severity.NOTICE: ("★", Tone.WARN),
    Severity.PLAIN: (" ", Tone.PLAIN),
    Severity.GOOD: ("✓", Tone.GOOD),
}


def node_mark(state: NodeState) -> Mark:
    """How a node's state is shown."""
    return _NODE_MARKS[state]


def event_mark(event: Event) -> Cell:
    """The glyph of an event."""
    glyph, tone = _EVENT_MARKS[event.severity]
    return Cell(glyph, tone)


def event_tone(event: Event) -> Tone:
    """The tone of an event's sentence: coloured only where it is bad."""
    return Tone.BAD if event.severity in (Severity.FAULT, Severity.BAD) else Tone.PLAIN


def count(number: int | None) -> str:
    """A count with thousands separators: `12,408`."""
    return UNKNOWN if number is None else f"{number:,}"


def short_count(number: int | None) -> str:
    """A count in at most seven cells: `999,999`, then `1.23M`, `12.3M`, `1.23G`."""
    if number is None:
        return UNKNOWN
    if number < 1_000_000:
        return f"{number:,}"
    value, unit = (number / 1e6, "M") if number < 999_500_000 else (number / 1e9, "G")
    return f"{value:.2f}{unit}" if value < 9.995 else f"{value:.1f}{unit}" if value < 99.95 else f"{value:,.0f}{unit}"


def rate(per_second: float | None) -> str:
    """Messages a second: whole from 10 on, one decimal below, `0` for none."""
    if per_second is None:
        return UNKNOWN
    if 0 < per_second < 9.95:
        return f"{per_second:.1f}"
    return f"{per_second:,.0f}"


def size(number: int | None) -> str:
    """Bytes as three figures and a unit: `182 MB`, `1.2 GB` (powers of 1000, as disks and RabbitMQ count)."""
    if number is None:
        return UNKNOWN
    value = float(number)
    unit = 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value /= 1000
        unit += 1
    text = f"{value:.1f}" if unit and value < 9.95 else f"{value:.0f}"
    return f"{text} {_SIZES[unit]}"


def seconds(number: float | None) -> str:
    """A duration: `0.43 s`, `12.0 s`, `3 min 20 s`."""
    if number is None:
        return UNKNOWN
    if number < 9.995:
        return f"{number:.2f} s"
    if number < 99.95:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest} s"


def age(number: float | None) -> str:
    """How old a figure is, short: `0.4 s`, `12 s`, `3 min`, `2 h`; `never` for None."""
    if number is None:
        return "never"
    if number < 9.95:
        return f"{number:.1f} s"
    if number < 119.5:
        return f"{number:.0f} s"
    if number < 7170:
        return f"{number / 60:.0f} min"
    return f"{number / 3600:.0f} h"


def distance(number: float | None) -> str:
    """Seconds since a fault: `0.00` at the fault, `+0.41` after it, `+3:05` from a minute on; None is empty."""
    if number is None:
        return ""
    if number < 0.005:
        return "0.00"
    if number < 59.995:
        return f"+{number:.2f}"
    minutes, rest = divmod(round(number), 60)
    return f"+{minutes}:{rest:02d}"


def clock(at: float, digits: int = 3) -> str:
    """The local time of an epoch second: `10:42:07.113`."""
    whole = int(at)
    text = time.strftime("%H:%M:%S", time.localtime(whole))
    return f"{text}.{int((at - whole) * 10**digits):0{digits}d}" if digits else text


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
