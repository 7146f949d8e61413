"""How states and numbers look to people, the same on the command line and in the console.

What is not known is `–`, never 0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

from dmq_core.cluster.protocol import NodeState

UNKNOWN = "–"
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


class Tone(StrEnum):
    """What a piece of text means to the eye; each front end has a colour for it."""

    PLAIN = "plain"
    STRONG = "strong"
    QUIET = "quiet"
    FAINT = "faint"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    ACCENT = "accent"


@dataclass(frozen=True, slots=True)
class StateLook:
    """A state for the eye: with its word a glyph and a tone, so that it survives without colour."""

    glyph: str
    tone: Tone


_NODE_LOOKS = {
    NodeState.RUNNING: StateLook("●", Tone.GOOD),
    NodeState.STARTING: StateLook("◐", Tone.WARN),
    NodeState.STOPPED: StateLook("✗", Tone.BAD),
    NodeState.PAUSED: StateLook("‖", Tone.BAD),
    NodeState.ISOLATED: StateLook("⊘", Tone.BAD),
    NodeState.DRAINING: StateLook("▽", Tone.WARN),
    NodeState.UNREACHABLE: StateLook("?", Tone.BAD),
}


def node_look(state: NodeState) -> StateLook:
    """How a node's state is shown; red is for what is broken now."""
    return _NODE_LOOKS[state]


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


def duration(number: float | None) -> str:
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
