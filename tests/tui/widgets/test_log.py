"""The view of a growing list: follows its end, stands still for a reader, never grows beyond its limit."""

from __future__ import annotations

from textual.app import App, ComposeResult

from dmq_tui.render.format import Cell, Line
from dmq_tui.render.themes import DARK
from dmq_tui.widgets.log import LogView

LIMIT = 100


def line_of(entry: int, _width: int) -> Line:
    return (Cell(f"entry {entry}"),)


class OneLog(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.log_view: LogView[int] = LogView(line_of, lesson=("Nothing yet.",), limit=LIMIT)
        self.below: list[int] = []

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict(DARK.variables)

    def compose(self) -> ComposeResult:
        yield self.log_view

    def on_log_view_below(self, event: LogView.Below) -> None:
        self.below.append(event.count)

    def lines(self) -> list[str]:
        view = self.log_view
        return ["".join(s.text for s in view.render_line(y)).strip(" ›") for y in range(view.size.height)]


async def test_it_follows_the_newest_entry() -> None:
    app = OneLog()
    async with app.run_test(size=(30, 10)) as pilot:
        await pilot.pause()
        app.log_view.append(range(50))
        assert app.lines()[-1] == "entry 49"
        app.log_view.append([50])
        assert app.lines()[-1] == "entry 50"


async def test_it_stands_still_while_the_reader_is_further_up_and_counts_what_comes() -> None:
    app = OneLog()
    async with app.run_test(size=(30, 10)) as pilot:
        await pilot.pause()
        app.log_view.append(range(50))
        app.log_view.move(-20)
        before = app.lines()
        app.log_view.append(range(50, 62))
        await pilot.pause()
        assert app.lines() == before
        assert app.below == [12]
        app.log_view.move(10**9)
        await pilot.pause()
        assert app.lines()[-1] == "entry 61"
        assert app.below == [12, 0]
        assert app.log_view.following


async def test_the_oldest_entries_go_and_the_readers_lines_stay_as_long_as_they_exist() -> None:
    app = OneLog()
    async with app.run_test(size=(30, 10)) as pilot:
        await pilot.pause()
        app.log_view.append(range(LIMIT))
        app.log_view.move(-30)
        before = app.lines()
        app.log_view.append(range(LIMIT, LIMIT + 20))
        assert app.lines() == before
        assert len(app.log_view.entries) == LIMIT
        app.log_view.append(range(LIMIT + 20, LIMIT + 500))
        assert len(app.log_view.entries) == LIMIT
        assert app.lines()[0] == f"entry {LIMIT + 400}"


async def test_a_flood_larger_than_the_limit_leaves_the_newest() -> None:
    app = OneLog()
    async with app.run_test(size=(30, 10)) as pilot:
        await pilot.pause()
        app.log_view.append(range(10 * LIMIT))
        assert app.log_view.entries == tuple(range(9 * LIMIT, 10 * LIMIT))
        assert app.lines()[-1] == f"entry {10 * LIMIT - 1}"


async def test_an_empty_view_teaches() -> None:
    app = OneLog()
    async with app.run_test(size=(30, 10)) as pilot:
        await pilot.pause()
        assert app.lines()[0] == "Nothing yet."


async def test_the_wheel_looks_up_and_down_again() -> None:
    app = OneLog()
    async with app.run_test(size=(30, 10)) as pilot:
        await pilot.pause()
        app.log_view.append(range(50))
        app.log_view.scroll_up()
        app.log_view.move(-1)
        assert not app.log_view.following
        app.log_view.follow()
        assert app.lines()[-1] == "entry 49"
