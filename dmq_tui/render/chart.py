"""Curves as bars of eighths of a cell that begin at 0: the console's one renderer of charts.

Textual's Sparkline begins at the lowest value, so that a steady rate looks like nothing; it knows no scale, no mark and
no stretch without figures, and it is a widget where most of ours are cells of a table.
"""

from __future__ import annotations

from collections.abc import Sequence

from dmq_core.presentation import rate, short_count

_BLOCKS = "▁▂▃▄▅▆▇█"
_SCALE = 7


def block(value: float, top: float, row: int, height: int) -> str:
    """What a bar of `value` shows `row` lines above the ground of a chart of `height` lines from 0 to `top`.

    On the ground nothing is a line, and whatever is more than nothing stands out from it.
    """
    eighths = round(min(value, top) / top * height * 8) if value > 0 and top > 0 else 0
    filled = min(8, eighths - 8 * row)
    if row == 0:
        filled = max(filled, 2 if value > 0 else 1)
    return _BLOCKS[filled - 1] if filled > 0 else " "


def bars(values: Sequence[float], width: int, height: int, top: float) -> tuple[str, ...]:
    """The last `width` values as bars of `height` lines from 0 to `top`, top line first, padded on the left."""
    shown = values[-width:] if width > 0 else ()
    return tuple("".join(block(v, top, row, height) for v in shown).rjust(width) for row in reversed(range(height)))


def spark(values: Sequence[float], width: int) -> str:
    """The last `width` values on one line, from 0 to their highest, padded on the left."""
    return bars(values, width, 1, max(values[-width:] if width > 0 else (), default=0.0))[0]


def scaled_bars(values: Sequence[float], width: int, height: int) -> tuple[str, ...]:
    """Bars from 0 to the highest of the values in sight, with that scale at the left; `width` includes it."""
    room = max(1, width - _SCALE - 1)
    top = max(values[-room:], default=0.0)
    highest = rate(top) if top < 10 else short_count(round(top))
    labels = [highest, *[""] * (height - 2), "0"][:height]
    return tuple(
        f"{label:>{_SCALE}} {line}" for label, line in zip(labels, bars(values, room, height, top), strict=True)
    )
