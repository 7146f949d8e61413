"""A bounded list of lines that follows its end until the reader looks further up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from dmq_core.presentation import Tone
from dmq_tui.render.format import Cell
from dmq_tui.widgets.paint import TONE_CLASSES, Line, strip_of

T = TypeVar("T")


class LogView(ScrollView, Generic[T], can_focus=True, inherit_bindings=False):
    """The newest `limit` entries, drawn only where visible.

    It follows the newest one until the reader moves up; then it stands still, counts what comes, and follows again
    from the last line on.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {*TONE_CLASSES, "table--cursor", "table--cursor-idle"}

    @dataclass
    class Below(Message):
        """How many new entries wait below the part in view changed."""

        count: int

    class LineOpened(Message):
        """A double click asks for the details of the entry under the cursor."""

    def __init__(self, line_of: Callable[[T, int], Line], *, lesson: Sequence[str], limit: int = 5000) -> None:
        super().__init__()
        self._line_of = line_of
        self._lesson = tuple(lesson)
        self._entries: deque[T] = deque(maxlen=limit)
        self._limit = limit
        self._cursor = 0
        self._below = 0
        self._following = True

    @property
    def following(self) -> bool:
        """Whether it keeps to its end."""
        return self._following

    @property
    def below(self) -> int:
        """How many entries came since it stopped to follow."""
        return self._below

    @property
    def entries(self) -> Sequence[T]:
        """What it holds, oldest first."""
        return tuple(self._entries)

    @property
    def cursor_item(self) -> T | None:
        """The entry under the cursor; None without entries."""
        return self._entries[self._cursor] if self._entries else None

    def teach(self, lesson: Sequence[str]) -> None:
        """Changes what it says while it is empty."""
        self._lesson = tuple(lesson)
        self.refresh()

    def replace(self, entries: Sequence[T]) -> None:
        """Shows other entries: from their end if it follows, else with the cursor on the line where it was."""
        self._entries.clear()
        self._entries.extend(entries[-self._limit :])
        self._resize()
        if self._following:
            self.follow()
        else:
            self.move_to(self._cursor)

    def append(self, entries: Iterable[T]) -> None:
        """Adds entries at the end; the oldest beyond the limit go."""
        new = tuple(entries)
        if not new:
            return
        gone = max(0, len(self._entries) + len(new) - self._limit)
        self._entries.extend(new)
        self._resize()
        if self._following:
            self.follow()
            return
        self._cursor = max(0, self._cursor - gone)
        self.scroll_to(y=self.scroll_offset.y - gone, animate=False, force=True)
        self._set_below(self._below + len(new))
        self.refresh()

    def follow(self) -> None:
        """Goes to the newest entry and stays with it."""
        self._following = True
        self._cursor = max(0, len(self._entries) - 1)
        self.scroll_to(y=self._bottom, animate=False, force=True)
        self._set_below(0)
        self.refresh()

    def move(self, rows: int) -> None:
        """Moves the cursor by `rows`; at the last entry it follows again."""
        self.move_to(self._cursor + rows)

    def move_page(self, pages: int) -> None:
        """Moves the cursor by whole screens."""
        self.move(pages * max(1, self.size.height - 1))

    def move_to(self, row: int) -> None:
        """Puts the cursor on that entry, or the nearest one."""
        if row >= len(self._entries) - 1:
            self.follow()
            return
        self._following = False
        self._cursor = max(0, row)
        top, room = self.scroll_offset.y, max(1, self.size.height)
        self.scroll_to(y=min(max(top, self._cursor - room + 1), self._cursor), animate=False, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The entry that is scrolled to line `y`."""
        width = self.scrollable_content_region.width
        base = self.rich_style
        if not self._entries:
            lesson = self._lesson[y] if y < len(self._lesson) else ""
            return strip_of(self, (Cell(f" {lesson}", Tone.QUIET),), width, base)
        row = self.scroll_offset.y + y
        if row >= len(self._entries):
            return Strip.blank(width, base)
        chosen = row == self._cursor and self.has_focus
        if chosen:
            base += self.get_component_rich_style("table--cursor", partial=True)
        mark = Cell("›" if chosen else " ", Tone.ACCENT)
        return strip_of(self, (mark, *self._line_of(self._entries[row], width - 1)), width, base)

    def on_resize(self) -> None:
        """Keeps to the end if it follows."""
        self._resize()
        if self._following:
            self.follow()

    def on_click(self, event: Click) -> None:
        """A click moves the cursor; a double one opens the entry."""
        row = self.scroll_offset.y + event.y
        if row < len(self._entries):
            self.move_to(row)
            if event.chain == 2:
                self.post_message(self.LineOpened())

    def _on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.move(3)

    def _on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.move_to(min(self._cursor, self.scroll_offset.y) - 3)

    @property
    def _bottom(self) -> int:
        return max(0, len(self._entries) - self.size.height)

    def _resize(self) -> None:
        size = Size(self.size.width, len(self._entries))
        if size != self.virtual_size:
            self.virtual_size = size

    def _set_below(self, count: int) -> None:
        if count != self._below:
            self._below = count
            self.post_message(self.Below(count))
