"""What all panes share: a numbered border that says what it shows, and the part of a table or log that moves."""

from __future__ import annotations

from typing import ClassVar, Protocol

from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_tui.commands import PaneId
from dmq_tui.render.lines import PANE_NAMES
from dmq_tui.render.rows import Filter


class CursorView(Protocol):
    """What the keys for up, down, page, first and last act on."""

    def move(self, rows: int) -> None:
        """Moves the cursor by rows."""
        ...

    def move_page(self, pages: int) -> None:
        """Moves the cursor by screens."""
        ...

    def move_to(self, row: int) -> None:
        """Moves the cursor to a row."""
        ...


class Pane(Vertical):
    """One pane of the main screen."""

    pane: ClassVar[PaneId]

    def __init__(self) -> None:
        super().__init__(id=f"pane-{int(self.pane)}")
        self._said = ""

    def set_title(self, *parts: str) -> None:
        """Writes the pane's name and `parts`, safe text, into its border; empty parts are left out."""
        text = " · ".join((f"{int(self.pane)} {PANE_NAMES[self.pane]}", *(p for p in parts if p)))
        if text != self._said:
            self._said = text
            self.border_title = Content(text)

    @property
    def title_text(self) -> str:
        """What the border says, as plain text."""
        return self._said

    @property
    def body(self) -> Widget:
        """The widget inside that takes the focus."""
        raise NotImplementedError

    @property
    def cursor_view(self) -> CursorView | None:
        """What the moving keys act on, if anything."""
        return None

    @property
    def has_row(self) -> bool:
        """Whether something is under the cursor."""
        return False

    def show(self, snapshot: ClusterSnapshot, late: str) -> None:
        """Shows a new snapshot; `late` says why its figures are old (empty: they are fresh)."""


class FilterInput(Input):
    """The one-line field in which a filter is typed."""

    def __init__(self) -> None:
        super().__init__(placeholder="words to keep; ! first keeps the others", compact=True)
        self.display = False


class FilteredPane(Pane):
    """A pane whose rows a filter can thin out."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = Filter()
        self._field = FilterInput()

    @property
    def filtering(self) -> bool:
        """Whether a filter is typed or holds."""
        return self._field.display or bool(self.filter.text)

    def open_filter(self) -> None:
        """Lets the user type a filter."""
        self._field.value = self.filter.text
        self._field.display = True
        self._field.focus()

    def end_filter(self) -> None:
        """Shows everything again."""
        self._close_field()
        self._set_filter("")

    def only(self, text: str) -> None:
        """Shows what this filter keeps."""
        self._set_filter(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters while the user types."""
        event.stop()
        if self._field.display:
            self._set_filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keeps the filter and goes back to the rows."""
        event.stop()
        self._close_field()

    def refilter(self) -> None:
        """Shows the rows that the filter keeps."""
        raise NotImplementedError

    def _close_field(self) -> None:
        if self._field.display:
            self._field.display = False
            self.body.focus()

    def _set_filter(self, text: str) -> None:
        if text != self.filter.text:
            self.filter = Filter(text)
            self.refilter()
