"""Lines of cells as text that wraps, for pages and dialogs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content
from textual.widgets import Static

from dmq_core.presentation import Tone
from dmq_tui.render.format import Cell
from dmq_tui.widgets.paint import Line

_STYLES = {
    Tone.PLAIN: "",
    Tone.STRONG: "bold",
    Tone.QUIET: "$quiet",
    Tone.FAINT: "$faint",
    Tone.GOOD: "$success",
    Tone.WARN: "$warning",
    Tone.BAD: "bold $error",
    Tone.ACCENT: "$accent",
}


def content_of(lines: Iterable[Line]) -> Content:
    """`lines` as styled content; no text in them is ever read as markup."""
    return Content("\n").join(
        Content.assemble(*(Content.styled(cell.text, _STYLES[cell.tone]) for cell in line)) for line in lines
    )


def text_of(lines: Iterable[Line]) -> str:
    """`lines` as plain text."""
    return "\n".join("".join(cell.text for cell in line) for line in lines)


class Prose(Static):
    """Shows lines of cells and is drawn anew only when they change."""

    def __init__(self, lines: Sequence[Line] = (), *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(content_of(lines), id=id, classes=classes, markup=False)
        self._lines = tuple(lines)

    @property
    def text(self) -> str:
        """What it shows, as plain text."""
        return text_of(self._lines)

    def show(self, lines: Sequence[Line]) -> None:
        """Shows `lines` instead of what was there."""
        fresh = tuple(lines)
        if fresh != self._lines:
            self._lines = fresh
            self.update(content_of(fresh))


def words(text: str, tone: Tone = Tone.PLAIN) -> Line:
    """One line of one tone."""
    return (Cell(text, tone),)
