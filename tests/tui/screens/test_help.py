"""The keys that work here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_screen import Stage, until
from rich.cells import cell_len

from dmq_core.cluster.protocol import NodeState
from dmq_core.testing import FakeSession
from dmq_tui.app import DmqApp
from dmq_tui.commands import COMMANDS, PaneId, Situation, label_of, why_disabled
from dmq_tui.screens.help.screen import HelpScreen, help_lines
from dmq_tui.widgets.prose import Prose, text_of

NODES = Situation(
    pane=PaneId.NODES,
    connected=True,
    read_only=False,
    attached=False,
    node=NodeState.RUNNING,
    node_name="rmq1",
    row=True,
    load_running=False,
    tailing=False,
    undo=False,
    maximised=False,
)
SITUATIONS = [
    NODES,
    replace(NODES, pane=PaneId.TAIL, row=False),
    replace(NODES, read_only=True),
    replace(NODES, attached=True),
    replace(NODES, connected=False, node=None),
]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_command_is_listed_once_with_its_help_or_the_reason_why_not(situation: Situation) -> None:
    works, _, others = text_of(help_lines(situation, 400)).partition("Not now")
    for command in COMMANDS:
        why_not = why_disabled(command, situation)
        assert (command.help in works) is not bool(why_not), command.id
        assert why_not in others, command.id


@pytest.mark.parametrize("width", [60, 74, 128])
def test_no_line_is_wider_than_the_page(width: int) -> None:
    for line in text_of(help_lines(NODES, width)).splitlines():
        assert cell_len(line) <= width


@pytest.mark.parametrize("size", [(80, 24), (140, 45)])
async def test_it_fills_the_screen_over_the_whole_console_and_follows_its_size(size: tuple[int, int]) -> None:
    session = FakeSession()
    app = DmqApp(lambda: session)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.session is not None, "the session")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "the help")
        page = app.screen.query_one("#page")
        await until(pilot, lambda: page.region.height > size[1] - 3, "a page as high as the screen")
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: page.region.size == (100, 30), "a page of the new size")
        text = app.screen.query_one("#keys", Prose).text
        assert 75 < max(map(cell_len, text.splitlines())) <= 95
    session.close()


@pytest.mark.parametrize("key", ["escape", "q", "question_mark", "enter"])
async def test_it_scrolls_and_closes(key: str) -> None:
    stage = Stage(HelpScreen(NODES))
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("pagedown", "down", "K", "y", "1")
        await pilot.pause()
        assert stage.screen.query_one("#page").scroll_offset.y > 0
        await pilot.press(key)
        await pilot.pause()
        assert stage.results == [None]


@pytest.mark.parametrize(
    ("key", "state", "word"),
    [
        ("F", NodeState.RUNNING, "freeze"),
        ("F", NodeState.PAUSED, "unpause"),
        ("I", NodeState.RUNNING, "isolate"),
        ("I", NodeState.ISOLATED, "rejoin"),
        ("M", NodeState.RUNNING, "drain"),
        ("M", NodeState.DRAINING, "revive"),
    ],
)
def test_a_switch_says_what_it_would_do_now(key: str, state: NodeState, word: str) -> None:
    situation = replace(NODES, node=state)
    command = next(c for c in COMMANDS if key in c.keys)
    assert not why_disabled(command, situation)
    assert label_of(command, situation) == word


@pytest.mark.parametrize(
    ("key", "state", "why_not"),
    [
        ("I", NodeState.STOPPED, "stopped"),
        ("I", NodeState.PAUSED, "paused"),
        ("M", NodeState.PAUSED, "paused"),
        ("M", NodeState.ISOLATED, "cut off"),
    ],
)
def test_what_cannot_be_done_to_a_node_now_says_why(key: str, state: NodeState, why_not: str) -> None:
    command = next(c for c in COMMANDS if key in c.keys)
    assert why_not in why_disabled(command, replace(NODES, node=state))
