"""The chart of a proof run as SVG: confirms and deliveries a second, with what happened and the longest gaps; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from dmq_core.proof.result import ProofResult, TimelineMark
from dmq_core.text import visible

WIDTH: Final = 960
HEIGHT: Final = 320
MOST_POINTS: Final = 600
MOST_MARKS: Final = 40
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 44, 36
_BADGE: Final = 17
_MARGIN_S: Final = 0.5
_DRAWN: Final = ("fault", "undo", "leader")


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where seconds and rates are on the paper."""

    seconds: float
    top: float

    def x(self, at_s: float) -> float:
        share = min(1.0, max(0.0, at_s / self.seconds))
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, rate: float) -> float:
        return HEIGHT - _BOTTOM - min(1.0, rate / self.top) * (HEIGHT - _BOTTOM - _TOP)


def chart(result: ProofResult) -> str:
    """The whole `<svg>` element; its colours are CSS classes of the page, the marks carry the numbers of `numbered`."""
    curves = result.curves
    # The drain, in which nothing is left to come, is of no interest, beyond its beginning.
    busy = max(busy_length(curves.confirms), busy_length(curves.deliveries)) * curves.slice_s
    seconds = max(busy, *(mark.at_s for mark in result.marks), curves.slice_s) + _MARGIN_S
    plot = _Plot(seconds, _round_up(max((*curves.confirms, *curves.deliveries, 1.0))))
    parts = [
        *_gap_shades(result, plot),
        *_axes(plot),
        _curve(curves.deliveries, curves.slice_s, plot, "deliveries"),
        _curve(curves.confirms, curves.slice_s, plot, "confirms"),
        *_marks(numbered(result.marks), plot),
    ]
    title = "Confirms and deliveries a second over the run"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{title}</title>{"".join(parts)}</svg>'
    )


def numbered(marks: Sequence[TimelineMark]) -> tuple[tuple[int, TimelineMark], ...]:
    """The marks that the chart shows, in order, each with its number: faults, undos and elections."""
    shown = sorted((m for m in marks if m.kind in _DRAWN), key=lambda mark: mark.at_s)
    return tuple(enumerate(shown[:MOST_MARKS], start=1))


def longest_gap(
    curve: Sequence[float], slice_s: float, gap_s: float, after_s: float = 0.0
) -> tuple[float, float] | None:
    """Where in `curve` a gap of `gap_s` seconds lies (seconds from the beginning); None if it is too short to see.

    It is the quietest stretch of that length that begins no earlier than `after_s`.
    """
    width = math.floor(gap_s / slice_s)
    first = max(0, math.floor(after_s / slice_s))
    # What follows the last message is no gap, but the end.
    length = busy_length(curve)
    if width < 1 or first + width > length:
        return None
    sums = [sum(curve[i : i + width]) for i in range(first, length - width + 1)]
    begin = first + sums.index(min(sums))
    return begin * slice_s, begin * slice_s + gap_s


def busy_length(curve: Sequence[float]) -> int:
    """How many slices there are up to the last in which something came."""
    return next((i + 1 for i in range(len(curve) - 1, -1, -1) if curve[i]), 0)


def _gap_shades(result: ProofResult, plot: _Plot) -> Iterable[str]:
    curves, after = result.curves, result.timeline.fault_s or 0.0
    for name, curve, gap_s in (
        ("confirms", curves.confirms, result.max_confirm_gap_s),
        ("deliveries", curves.deliveries, result.max_delivery_gap_s),
    ):
        # Where the fault is comes from another clock than the slices: the gap may begin in the one before.
        found = longest_gap(curve, curves.slice_s, gap_s, max(0.0, after - curves.slice_s))
        if found is not None:
            begin, end = plot.x(found[0]), plot.x(found[1])
            yield (
                f'<rect class="gap {name}" x="{begin:.1f}" y="{_TOP}" width="{max(1.0, end - begin):.1f}" '
                f'height="{HEIGHT - _TOP - _BOTTOM}"><title>longest gap of {name}: {gap_s:.2f} s</title></rect>'
            )


def _axes(plot: _Plot) -> Iterable[str]:
    for step in range(5):
        rate = plot.top * step / 4
        y = plot.y(rate)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="label" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{rate:,.0f}</text>'
    yield f'<text class="label" x="{_LEFT - 8}" y="{_TOP - 14}" text-anchor="end">per s</text>'
    every = _tick(plot.seconds)
    for number in range(int(plot.seconds / every) + 1):
        x = plot.x(number * every)
        yield f'<text class="label" x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{number * every:g} s</text>'
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - _BOTTOM}" y2="{HEIGHT - _BOTTOM + 4}"/>'


def _curve(rates: Sequence[float], slice_s: float, plot: _Plot, name: str) -> str:
    """Steps, since a rate holds for a whole slice: a slope would invent rates that nobody measured."""
    width = max(1, math.ceil(len(rates) / MOST_POINTS))
    points = []
    for begin in range(0, len(rates), width):
        some = rates[begin : begin + width]
        y = plot.y(sum(some) / len(some))
        points += [f"{plot.x(begin * slice_s):.1f},{y:.1f}", f"{plot.x((begin + len(some)) * slice_s):.1f},{y:.1f}"]
    return f'<polyline class="curve {name}" points="{" ".join(points)}"/>'


def _marks(marks: Iterable[tuple[int, TimelineMark]], plot: _Plot) -> Iterable[str]:
    badge_x = -math.inf
    for number, mark in marks:
        x = plot.x(mark.at_s)
        # Badges that would lie on each other move to the right; their lines stay where they belong.
        badge_x = min(max(x, badge_x + _BADGE), WIDTH - _BADGE / 2)
        yield (
            f'<g class="mark {mark.kind}"><title>{escape(visible(mark.text))}</title>'
            f'<polyline points="{badge_x:.1f},{_TOP - 16} {x:.1f},{_TOP} {x:.1f},{HEIGHT - _BOTTOM}"/>'
            f'<circle cx="{badge_x:.1f}" cy="{_TOP - 22}" r="8"/>'
            f'<text x="{badge_x:.1f}" y="{_TOP - 18.5}" text-anchor="middle">{number}</text></g>'
        )


def _round_up(rate: float) -> float:
    """The next number that divides by four into readable ones."""
    unit = 10.0 ** math.floor(math.log10(rate))
    return next((unit * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8) if unit * step >= rate), unit * 10)


def _tick(seconds: float) -> float:
    return next((tick for tick in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if seconds / tick <= 16), seconds / 10)
