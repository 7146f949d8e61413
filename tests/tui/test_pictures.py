"""The main screen as pictures, at both sizes and in both themes; `--snapshot-update` takes them anew."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from one_screen import until
from textual.pilot import Pilot

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import NodeAction
from dmq_core.testing import FakeSession, hostile
from dmq_tui.app import DmqApp
from dmq_tui.render.themes import DARK, LIGHT
from dmq_tui.screens.main.screen import MainScreen
from dmq_tui.screens.proof.screen import ProofPhase, ProofScreen

Compare = Callable[..., bool]


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def console_on(session: FakeSession, theme: str) -> DmqApp:
    return DmqApp(lambda: session, theme=theme, clock=lambda: session.broker.now)


async def seeing_now(pilot: Pilot[None], main: MainScreen, session: FakeSession) -> None:
    """Has the console look again, so that the age of what it shows is the same each time."""
    main.refresh_now()
    session.settle()
    now = session.broker.now
    await until(pilot, lambda: main.newest is not None and main.newest.taken_at >= now, "the newest snapshot")
    await pilot.pause()


def playing(session: FakeSession, *keys: str, fault: bool) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Lets the console see, with `fault`, a load and the death of its publisher's node; ends with `keys`."""

    async def play(pilot: Pilot[None]) -> None:
        main = pilot.app.screen_stack[0]
        assert isinstance(main, MainScreen)
        await until(pilot, lambda: main.snapshot is not None, "the first snapshot")
        if fault:
            main.loads.toggle(session)
            await until(pilot, lambda: main.loads.account() is not None, "the load")
            session.advance(10.1)
            session.perform(Action(NodeAction.KILL, "rmq1"))
            session.advance(4)
        await seeing_now(pilot, main, session)
        main._tick()
        await pilot.press(*keys)
        await pilot.pause()

    return play


def test_a_failover_under_load_on_a_wide_dark_screen(snap_compare: Compare) -> None:
    session = FakeSession()
    assert snap_compare(
        console_on(session, DARK.name), terminal_size=(140, 45), run_before=playing(session, "3", "home", fault=True)
    )
    session.close()


def test_the_story_of_a_failover_on_a_narrow_light_screen(snap_compare: Compare) -> None:
    session = FakeSession()
    assert snap_compare(
        console_on(session, LIGHT.name), terminal_size=(80, 24), run_before=playing(session, "5", fault=True)
    )
    session.close()


def test_hostile_names_on_a_wide_light_screen(snap_compare: Compare) -> None:
    session = FakeSession(hostile)
    assert snap_compare(
        console_on(session, LIGHT.name), terminal_size=(140, 45), run_before=playing(session, "2", "end", fault=False)
    )
    session.close()


def test_a_proof_run_that_passed_on_a_wide_dark_screen(snap_compare: Compare) -> None:
    session = FakeSession()

    async def play(pilot: Pilot[None]) -> None:
        await playing(session, "P", fault=False)(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, ProofScreen)
        await pilot.press("r")
        await pilot.pause()
        await pilot.press("y")
        await until(pilot, lambda: screen.phase is ProofPhase.RUNNING and screen._proof is not None, "the run goes on")
        session.advance(18)
        await until(pilot, lambda: screen.phase is ProofPhase.OVER, "the verdict")
        main = pilot.app.screen_stack[0]
        assert isinstance(main, MainScreen)
        await seeing_now(pilot, main, session)
        screen._look()
        await pilot.pause()

    assert snap_compare(console_on(session, DARK.name), terminal_size=(140, 45), run_before=play)
    session.close()
