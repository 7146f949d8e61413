"""The keys that work here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len
from stage import Stage

from dmq_core.cluster.base import NodeState
from dmq_tui.commands import COMMANDS, PaneId, Situation, objection
from dmq_tui.screens.help import HelpScreen, help_lines
from dmq_tui.widgets.prose import text_of

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
        why_not = objection(command, situation)
        assert (command.help in works) is not bool(why_not), command.id
        assert why_not in others, command.id


@pytest.mark.parametrize("width", [60, 74, 128])
def test_no_line_is_wider_than_the_page(width: int) -> None:
    for line in text_of(help_lines(NODES, width)).splitlines():
        assert cell_len(line) <= width


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
