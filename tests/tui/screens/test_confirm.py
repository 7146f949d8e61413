"""The question before an act on a node."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from one_screen import Stage, until, write

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import NodeAction
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.testing import FakeSession
from dmq_tui.screens.confirm.screen import ConfirmScreen, confirmation_of

KILL_RMQ2 = Action(NodeAction.KILL, "rmq2")


def asking(session: FakeSession, operation: Action = KILL_RMQ2) -> Stage:
    return Stage(ConfirmScreen(confirmation_of(operation, "dmq"), session.snapshot))


def the_screen(stage: Stage) -> ConfirmScreen:
    assert isinstance(stage.screen, ConfirmScreen)
    return stage.screen


async def test_it_names_the_impact_and_the_command_that_does_the_same() -> None:
    stage = asking(FakeSession())
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "rmq2 leads 3 queues" in stage.text("#impact")
        assert "quorum OK, cannot lose another" in stage.text("#impact")
        assert "dmq node kill rmq2 --yes" in stage.text("#command")


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (["y"], True),
        (["enter"], False),
        (["escape"], False),
        (["right", "enter"], True),
        (["right", "left", "enter"], False),
        (["tab", "tab", "enter"], False),
        (["K", "k", "n", "Y", "space", "delete", "y"], True),
    ],
)
async def test_it_starts_on_cancel_and_is_answered_with_one_key(keys: list[str], answer: bool) -> None:
    stage = asking(FakeSession())
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        assert stage.results == [answer]


async def test_the_mouse_answers_too() -> None:
    stage = asking(FakeSession())
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.click("#agree")
        await pilot.pause()
        assert stage.results == [True]


async def test_a_lost_majority_needs_the_name_typed() -> None:
    session = FakeSession()
    session.perform(Action(NodeAction.KILL, "rmq3"))
    stage = asking(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("y", "enter")
        assert "no majority" in stage.text("#impact")
        await write(pilot, "rmq3")
        await pilot.press("enter")
        await pilot.click("#agree")
        await pilot.pause()
        assert stage.results == []
        await pilot.press(*["backspace"] * 5)
        await write(pilot, "rmq2")
        await pilot.press("enter")
        await pilot.pause()
        assert stage.results == [True]


async def test_a_majority_that_goes_while_the_question_is_open_asks_for_the_name_at_once() -> None:
    session = FakeSession()
    stage = asking(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert not the_screen(stage).strict
        session.perform(Action(NodeAction.KILL, "rmq3"))
        await pilot.press("y")
        await pilot.pause()
        assert stage.results == []
        assert the_screen(stage).strict


async def test_once_asked_for_the_name_stays_asked_for_when_the_majority_returns() -> None:
    session = FakeSession()
    session.perform(Action(NodeAction.KILL, "rmq3"))
    stage = asking(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        session.perform(Action(NodeAction.START, "rmq3"))
        await until(pilot, lambda: "cannot lose another" in stage.text("#impact"), "the impact follows the cluster")
        await pilot.press("y", "enter")
        await pilot.pause()
        assert stage.results == []


async def test_an_unknown_impact_needs_the_name_typed() -> None:
    nothing: Callable[[], ClusterSnapshot | None] = lambda: None  # noqa: E731 - named for its type
    stage = Stage(ConfirmScreen(confirmation_of(KILL_RMQ2, "dmq"), nothing))
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("y")
        await pilot.pause()
        assert stage.results == []
        assert "not known" in stage.text("#impact")


async def test_bringing_a_node_back_takes_one_key_even_without_a_majority() -> None:
    session = FakeSession()
    session.perform(Action(NodeAction.KILL, "rmq2"))
    session.perform(Action(NodeAction.KILL, "rmq3"))
    stage = asking(session, Action(NodeAction.START, "rmq2"))
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("y")
        await pilot.pause()
        assert stage.results == [True]


async def test_the_target_stays_the_one_that_was_asked_about() -> None:
    session = FakeSession()
    stage = asking(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        session.perform(KILL_RMQ2)
        await until(pilot, lambda: "rmq2 is stopped now" in stage.text("#impact"), "the dialog tells the new state")
