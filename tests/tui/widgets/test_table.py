"""The table: cursor and scroll belong to the key, and no line is wider than the screen."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_screen import until
from textual.app import App, ComposeResult

from dmq_tui.render.format import Cell
from dmq_tui.render.rows import Column, Sort
from dmq_tui.render.themes import DARK
from dmq_tui.widgets.table import KeyedTable

COLUMNS: tuple[Column[tuple[str, int]], ...] = (
    Column("name", "NAME", 8, 0, lambda i: Cell(i[0]), lambda i: i[0], flex=True),
    Column("number", "NUMBER", 8, 1, lambda i: Cell(str(i[1])), lambda i: i[1], right=True),
)


class OneTable(App[None]):
    CSS_PATH = None

    def __init__(self) -> None:
        super().__init__()
        self.table: KeyedTable[tuple[str, int]] = KeyedTable(COLUMNS, lambda i: i[0], lesson=("Nothing yet.",))
        self.moves: list[object] = []
        self.heads: list[str] = []
        self.opened = 0

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict(DARK.variables)

    def compose(self) -> ComposeResult:
        yield self.table

    def on_keyed_table_cursor_moved(self, event: KeyedTable.CursorMoved) -> None:
        self.moves.append(event.key)

    def on_keyed_table_head_clicked(self, event: KeyedTable.HeadClicked) -> None:
        self.heads.append(event.column)

    def on_keyed_table_row_opened(self) -> None:
        self.opened += 1

    def lines(self) -> list[str]:
        return ["".join(s.text for s in self.table.render_line(y)) for y in range(self.table.size.height)]


def items(count: int) -> list[tuple[str, int]]:
    return [(f"row{i:04}", i) for i in range(count)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(40)), start=st.integers(0, 39))
async def test_the_cursor_follows_its_key_under_any_permutation_of_the_rows(order: list[int], start: int) -> None:
    app = OneTable()
    async with app.run_test(size=(40, 12)) as pilot:
        await pilot.pause()
        app.table.show(items(40))
        app.table.move_to(start)
        key = app.table.cursor_key
        app.table.show([items(40)[i] for i in order])
        assert app.table.cursor_key == key
        assert any(f"›{key}" in line for line in app.lines())


async def test_the_row_under_the_cursor_stays_on_its_line_of_the_screen() -> None:
    app = OneTable()
    async with app.run_test(size=(40, 12)) as pilot:
        await pilot.pause()
        app.table.show(items(200))
        app.table.move_to(100)
        app.table.move(-3)
        line = next(y for y, text in enumerate(app.lines()) if "›" in text)
        app.table.show([("new", 0), *items(200)])
        assert "›row0097" in app.lines()[line]
        app.table.show(items(200)[20:])
        assert "›row0097" in app.lines()[line]


async def test_a_row_that_is_gone_leaves_the_cursor_to_the_one_in_its_place() -> None:
    app = OneTable()
    async with app.run_test(size=(40, 12)) as pilot:
        await pilot.pause()
        app.table.show(items(5))
        app.table.move_to(2)
        app.table.show([i for i in items(5) if i[0] != "row0002"])
        assert app.table.cursor_key == "row0003"
        app.table.show(items(1))
        assert app.table.cursor_key == "row0000"
        app.table.show([])
        assert app.table.cursor_key is None
        await until(pilot, lambda: app.moves[-1:] == [None], "the word that the cursor has no row")


async def test_an_empty_table_teaches() -> None:
    app = OneTable()
    async with app.run_test(size=(40, 12)) as pilot:
        await pilot.pause()
        assert any("Nothing yet." in line for line in app.lines())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(min_size=1, max_size=80).map(str.strip).filter(str.isprintable), unique=True, max_size=12),
    width=st.integers(12, 60),
)
async def test_no_line_is_wider_or_narrower_than_the_table(names: list[str], width: int) -> None:
    app = OneTable()
    async with app.run_test(size=(width, 12)) as pilot:
        await pilot.pause()
        app.table.show([(n, i) for i, n in enumerate(names)])
        await pilot.pause()
        room = app.table.scrollable_content_region.width
        assert {app.table.render_line(y).cell_length for y in range(12)} == {room}


@pytest.mark.parametrize("count", [1, 11, 500])
async def test_keys_of_moving_reach_the_first_and_the_last_row(count: int) -> None:
    app = OneTable()
    async with app.run_test(size=(40, 12)) as pilot:
        await pilot.pause()
        app.table.show(items(count))
        app.table.move(10**9)
        assert app.table.cursor_key == f"row{count - 1:04}"
        assert any(f"›row{count - 1:04}" in line for line in app.lines())
        app.table.move_page(-1)
        app.table.move(-(10**9))
        assert app.table.cursor_key == "row0000"


async def test_the_mouse_chooses_sorts_opens_and_scrolls() -> None:
    app = OneTable()
    async with app.run_test(size=(40, 12)) as pilot:
        await pilot.pause()
        app.table.show(items(100), sort=Sort("number"))
        await pilot.click(app.table, offset=(3, 4))
        assert app.table.cursor_key == "row0003"
        await pilot.click(app.table, offset=(34, 0))
        assert app.heads == ["number"]
        await pilot.double_click(app.table, offset=(3, 5))
        assert (app.table.cursor_key, app.opened) == ("row0004", 1)


async def test_the_sorted_column_carries_the_mark_of_its_direction() -> None:
    app = OneTable()
    async with app.run_test(size=(40, 12)) as pilot:
        await pilot.pause()
        app.table.show(items(2), sort=Sort("number", descending=True))
        assert "NUMBER↓" in app.lines()[0]
