"""A table of thousands of rows that draws only the visible ones; cursor and scroll belong to a row's key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from dmq_core.presentation import Tone
from dmq_tui.render.format import Cell, fit
from dmq_tui.render.rows import GAP, Column, Sort, plan
from dmq_tui.widgets.paint import TONE_CLASSES, strip_of, tone_style

T = TypeVar("T")
_HEADER = 1
_GUTTER = 1
_WIDEST_WISH = 24


class KeyedTable(ScrollView, Generic[T], can_focus=True, inherit_bindings=False):
    """Rows of items under one header line.

    `show` takes the items in their order; the cursor stays on the same key and, as far as the rows allow, on the same
    line of the screen. If its item is gone, the cursor takes the row that stands in its place.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {*TONE_CLASSES, "table--head", "table--cursor", "table--cursor-idle"}

    @dataclass
    class CursorMoved(Message):
        """The cursor stands on another key (None: no rows)."""

        key: Hashable | None

    class RowOpened(Message):
        """A double click asks for the details of the row under the cursor."""

    @dataclass
    class HeadClicked(Message):
        """A click asks to sort by that column."""

        column: str

    def __init__(self, columns: Sequence[Column[T]], key: Callable[[T], Hashable], *, lesson: Sequence[str]) -> None:
        super().__init__()
        self._columns = tuple(columns)
        self._key = key
        self._lesson = tuple(lesson)
        self._items: Sequence[T] = ()
        self._index: dict[Hashable, int] = {}
        self._cursor = 0
        self._sort: Sort | None = None
        self._old = False
        self._wish = 0
        self._plan: tuple[tuple[Column[T], int], ...] = ()
        self._planned_for = (-1, -1)

    @property
    def cursor_key(self) -> Hashable | None:
        """The key under the cursor; None without rows."""
        item = self.cursor_item
        return None if item is None else self._key(item)

    @property
    def cursor_item(self) -> T | None:
        """The item under the cursor; None without rows."""
        return self._items[self._cursor] if self._items else None

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._items)

    def show(self, items: Sequence[T], *, sort: Sort | None = None, old: bool = False) -> None:
        """Shows `items` in this order; `old` greys every figure."""
        before, line = self.cursor_key, self._cursor
        on_screen = line - self.scroll_offset.y
        self._items, self._sort, self._old = items, sort, old
        self._index = {self._key(item): i for i, item in enumerate(items)}
        flexible = next(c for c in self._columns if c.flex)
        self._wish = min(_WIDEST_WISH, max((cell_len(flexible.cell(i).text) for i in items), default=0))
        last = max(0, len(items) - 1)
        self._cursor = min(self._index.get(before, line), last) if before is not None else 0
        self._resize()
        if self._cursor != line:
            self.scroll_to(y=self._cursor - on_screen, animate=False, force=True)
        self._reveal()
        self.refresh()
        if self.cursor_key != before:
            self.post_message(self.CursorMoved(self.cursor_key))

    def move(self, rows: int) -> None:
        """Moves the cursor by `rows`, as far as there are rows."""
        self.move_to(self._cursor + rows)

    def move_page(self, pages: int) -> None:
        """Moves the cursor by whole screens."""
        self.move(pages * max(1, self.size.height - _HEADER - 1))

    def move_to(self, row: int) -> None:
        """Puts the cursor on the row with that number, or the nearest one."""
        target = max(0, min(row, len(self._items) - 1))
        if target == self._cursor:
            return
        self._cursor = target
        self._reveal()
        self.refresh()
        self.post_message(self.CursorMoved(self.cursor_key))

    def move_to_key(self, key: Hashable) -> bool:
        """Puts the cursor on the row of `key`; False if there is none."""
        if key not in self._index:
            return False
        self.move_to(self._index[key])
        return True

    def render_line(self, y: int) -> Strip:
        """The header, or the row that is scrolled to line `y`."""
        width = self.scrollable_content_region.width
        if not self._items:
            lesson = self._lesson[y - 1] if 0 < y <= len(self._lesson) else ""
            return strip_of(self, (Cell(f" {lesson}", Tone.QUIET),), width, self.rich_style)
        self._replan(width)
        if y < _HEADER:
            return self._head(width)
        row = self.scroll_offset.y + y - _HEADER
        if row >= len(self._items):
            return Strip.blank(width, self.rich_style)
        return self._row(row, width)

    def on_resize(self) -> None:
        """Keeps the cursor in sight."""
        self._resize()
        self._reveal()

    def on_click(self, event: Click) -> None:
        """A click sorts by the header or moves the cursor; a double one opens the row."""
        if event.y < _HEADER:
            column = self._column_at(event.x)
            if column is not None:
                self.post_message(self.HeadClicked(column.id))
            return
        row = self.scroll_offset.y + event.y - _HEADER
        if row < len(self._items):
            self.move_to(row)
            if event.chain == 2:
                self.post_message(self.RowOpened())

    def _on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.move(3)

    def _on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.move(-3)

    def _resize(self) -> None:
        size = Size(self.size.width, len(self._items) + _HEADER)
        if size != self.virtual_size:
            self.virtual_size = size

    def _reveal(self) -> None:
        room = self.size.height - _HEADER
        if room <= 0:
            return
        top = self.scroll_offset.y
        wanted = min(max(top, self._cursor - room + 1), self._cursor)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, force=True)

    def _replan(self, width: int) -> None:
        if self._planned_for != (width, self._wish):
            self._plan = plan(self._columns, width - _GUTTER, self._wish)
            self._planned_for = (width, self._wish)

    def _column_at(self, x: int) -> Column[T] | None:
        left = _GUTTER
        for column, width in self._plan:
            left += width + GAP
            if x < left:
                return column
        return None

    def _head(self, width: int) -> Strip:
        style = self.rich_style + self.get_component_rich_style("table--head", partial=True)
        texts = []
        for column, room in self._plan:
            arrow = self._sort.arrow if self._sort is not None and self._sort.column == column.id else ""
            texts.append(fit(column.title + arrow, room, right=column.right))
        return _joined([Segment(" ", style)], [Segment(t, style) for t in texts], width, style)

    def _row(self, row: int, width: int) -> Strip:
        item = self._items[row]
        base = self.rich_style
        if row == self._cursor:
            name = "table--cursor" if self.has_focus else "table--cursor-idle"
            base += self.get_component_rich_style(name, partial=True)
        mark = Segment("›" if row == self._cursor else " ", base + tone_style(self, Tone.ACCENT))
        segments = []
        for column, room in self._plan:
            cell = column.cell(item)
            tone = Tone.QUIET if self._old else cell.tone
            segments.append(Segment(fit(cell.text, room, right=column.right), base + tone_style(self, tone)))
        return _joined([mark], segments, width, base)


def _joined(first: list[Segment], cells: list[Segment], width: int, base: Style) -> Strip:
    gap = Segment(" " * GAP, base)
    for i, cell in enumerate(cells):
        first.extend((gap, cell) if i else (cell,))
    return Strip(first).adjust_cell_length(width, base)
