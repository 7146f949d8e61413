"""Cells to strips: the only place where a tone meets a colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from dmq_core.presentation import Tone
from dmq_tui.render.format import Cell, fit
from dmq_tui.render.format import Line as Line

TONE_CLASSES = frozenset(f"tone--{tone}" for tone in Tone)


def tone_style(widget: Widget, tone: Tone) -> Style:
    """The theme's text style for `tone`, without a background."""
    return widget.get_component_rich_style(f"tone--{tone}", partial=True)


def strip_of(widget: Widget, cells: Iterable[Cell], width: int, base: Style) -> Strip:
    """`cells` one after the other on one line of exactly `width` cells, the last one cut with `…` if need be."""
    segments: list[Segment] = []
    room = width
    for cell in cells:
        if room <= 0:
            break
        length = cell_len(cell.text)
        text = cell.text if length <= room else fit(cell.text, room)
        segments.append(Segment(text, base + tone_style(widget, cell.tone)))
        room -= min(length, room)
    if room > 0:
        segments.append(Segment(" " * room, base))
    return Strip(segments, width)


class Painted(Widget):
    """A widget of a few lines, each a tuple of cells that `lines` computes for the width at hand."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONE_CLASSES)

    _drawn: Sequence[Line] = ()

    def lines(self, width: int) -> Sequence[Line]:
        """The lines to show in `width` cells."""
        raise NotImplementedError

    def render_lines(self, crop: Region) -> list[Strip]:
        """The strips of the region, from lines computed once."""
        self._drawn = self.lines(self.size.width)
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """The strip at line `y`."""
        cells = self._drawn[y] if y < len(self._drawn) else ()
        return strip_of(self, cells, self.size.width, self.rich_style)
