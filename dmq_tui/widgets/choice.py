"""A line with a name and one of several values, chosen with the arrow keys or the mouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message

from dmq_core.presentation import Tone
from dmq_tui.render.format import Cell, fit
from dmq_tui.widgets.paint import Line, Painted

T = TypeVar("T")


class Choice(Painted, Generic[T], can_focus=True):
    """Shows `name ‹ value ›`; options are values with the safe text for each."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "change", key_display="←→"),
        Binding("right,space", "step(1)", show=False),
    ]

    @dataclass
    class Changed(Message):
        """Another value was chosen."""

        choice: str

    def __init__(self, name: str, options: Sequence[tuple[T, str]], value: T, *, id: str) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self._title = name
        self._options = tuple(options)
        self._value = value
        self.note = ""

    @property
    def value(self) -> T:
        """What is chosen."""
        return self._value

    def offer(self, options: Sequence[tuple[T, str]]) -> None:
        """Offers other values; what was chosen stays, and is the first one where it is gone."""
        if tuple(options) != self._options:
            self._options = tuple(options)
            if self._value not in [value for value, _ in options]:
                self._choose(options[0][0])
            self.refresh()

    def lines(self, width: int) -> Sequence[Line]:
        """The name, and the value between its arrows."""
        text = next((text for value, text in self._options if value == self._value), "")
        mark = "›" if self.has_focus else " "
        if self.disabled:
            return ((Cell(fit(f"  {self._title}", 12), Tone.FAINT), Cell(f"  {self.note}", Tone.FAINT)),)
        return (
            (
                Cell(f"{mark} ", Tone.ACCENT),
                Cell(fit(self._title, 10), Tone.QUIET),
                Cell("‹ ", Tone.ACCENT if self.has_focus else Tone.FAINT),
                Cell(fit(text, min(cell_len(text), max(4, width - 17))), Tone.STRONG),
                Cell(" ›", Tone.ACCENT if self.has_focus else Tone.FAINT),
            ),
        )

    def action_step(self, by: int) -> None:
        """Goes to the next value, or the one before; after the last comes the first."""
        values = [value for value, _ in self._options]
        self._choose(values[(values.index(self._value) + by) % len(values)])

    def on_click(self, event: Click) -> None:
        """A click goes on, at the left arrow back."""
        self.action_step(-1 if event.x < 14 else 1)

    def _choose(self, value: T) -> None:
        self._value = value
        self.refresh()
        self.post_message(self.Changed(self.id or ""))
