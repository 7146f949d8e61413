"""The first screen where no cluster runs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from one_screen import Stage, until

from dmq_core.cluster import prerequisites
from dmq_core.cluster.prerequisites import AptAccess, DockerState, Package, Prerequisites
from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.errors import BackendUnavailableError, NodeBootError
from dmq_core.progress import Progress, ProgressListener
from dmq_core.testing import FakeSession
from dmq_tui.screens.start.screen import StartPhase, StartScreen

DOCKER_HERE = Prerequisites(DockerState.ANSWERS, "20.10", None, False, True, AptAccess.ROOT, amqp_port_taken=False)
NOTHING_HERE = Prerequisites(DockerState.ABSENT, "", None, False, False, AptAccess.BY_HAND, amqp_port_taken=False)
FORBIDDEN = Prerequisites(
    DockerState.NOT_PERMITTED, "permission denied", None, False, False, AptAccess.BY_HAND, amqp_port_taken=True
)
INSTALLABLE = Prerequisites(DockerState.ABSENT, "", None, False, False, AptAccess.ROOT, amqp_port_taken=False)


def beginning(
    session: FakeSession,
    found: Prerequisites = DOCKER_HERE,
    *,
    opened: bool = True,
    error: BackendUnavailableError | None = None,
) -> Stage:
    """`opened`: the session is there already; else the screen has to open it."""
    return Stage(StartScreen(lambda: session, session if opened else None, error, inspect=lambda: found))


def phase(stage: Stage) -> StartPhase:
    assert isinstance(stage.screen, StartScreen)
    return stage.screen.phase


async def test_it_says_what_was_looked_for_and_found() -> None:
    stage = beginning(FakeSession(started=False), FORBIDDEN)
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "not permitted (permission denied)" in stage.text("#findings"), "Docker")
        assert "not installed" in stage.text("#findings")
        assert "taken; the cluster takes other ports" in stage.text("#findings")
        assert "usermod -aG docker" in stage.text("#trouble")


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("key", ["s", "enter"])
async def test_one_key_starts_the_cluster_and_hands_the_session_on(key: str, opened: bool) -> None:
    session = FakeSession(started=False)
    stage = beginning(session, opened=opened)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press(key)
        await until(pilot, lambda: stage.results == [session], "the session is handed on")
        assert [n.state for n in session.cluster.nodes()] == [NodeState.RUNNING] * 3


async def test_the_mouse_starts_it_too() -> None:
    session = FakeSession(started=False)
    stage = beginning(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.click("#start")
        await until(pilot, lambda: stage.results == [session], "the session is handed on")


async def test_progress_is_shown_while_it_comes_up_and_keys_start_nothing_twice() -> None:
    session = FakeSession(started=False)
    stage = beginning(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        with session.script.hold("boot rmq2"):
            await pilot.press("s")
            await until(pilot, lambda: "rmq2 boots" in stage.text("#progress"), "the second node boots")
            assert "rmq1 serves" in stage.text("#progress")
            assert "33%" in stage.text("#progress")
            await pilot.press("s", "enter", "i", "r", "a", "s")
            await pilot.pause()
            assert phase(stage) is StartPhase.STARTING
            assert session.script.calls.count("start_cluster") == 1
        await until(pilot, lambda: stage.results == [session], "the session is handed on")


async def test_a_start_that_fails_is_one_line_with_a_way_out_and_can_be_tried_again() -> None:
    session = FakeSession(started=False)
    session.script.fail_next(
        "boot rmq2", NodeBootError("rmq2 stopped: [bold]eaddrinuse[/] \x1b[31m", "Free port 5673.")
    )
    stage = beginning(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("s")
        await until(pilot, lambda: "eaddrinuse" in stage.text("#trouble"), "the reason")
        assert "[bold]eaddrinuse[/] \\x1b[31m" in stage.text("#trouble")
        assert "Free port 5673." in stage.text("#trouble")
        await pilot.press("s")
        await until(pilot, lambda: stage.results == [session], "the second try works")


async def test_a_session_that_cannot_be_opened_says_why_and_opens_later() -> None:
    session = FakeSession(started=False)
    tries: list[int] = []

    def open_session() -> FakeSession:
        tries.append(1)
        if len(tries) == 1:
            raise BackendUnavailableError("the Docker engine does not answer", "Start it.")
        return session

    stage = Stage(StartScreen(open_session, None, BackendUnavailableError("first", "why"), inspect=lambda: DOCKER_HERE))
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "first" in stage.text("#trouble"), "why there is no session")
        await pilot.press("s")
        await until(pilot, lambda: "does not answer" in stage.text("#trouble"), "why it failed again")
        await pilot.press("s")
        await until(pilot, lambda: stage.results == [session], "the third try works")


async def test_with_nothing_to_run_it_on_it_offers_no_start_and_says_what_to_do() -> None:
    session = FakeSession(started=False)
    stage = beginning(session, NOTHING_HERE)
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Install Docker" in stage.text("#trouble"), "the advice")
        await pilot.press("s", "i", "enter")
        await pilot.pause()
        assert phase(stage) is StartPhase.IDLE
        assert "start_cluster" not in session.script.calls


async def test_what_is_missing_is_installed_with_one_key_and_then_the_cluster_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = FakeSession(started=False)
    installed: list[Sequence[Package]] = []

    def install(packages: Sequence[Package], progress: ProgressListener) -> None:
        progress(Progress("installing rabbitmq-server: Unpacking", fraction=0.5))
        installed.append(packages)

    monkeypatch.setattr(prerequisites, "install", install)
    stage = beginning(session, INSTALLABLE, opened=False)
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: stage.screen.query_one("#install").display, "the offer to install")
        await pilot.press("i")
        await until(pilot, lambda: stage.results == [session], "the session is handed on")
        assert installed == [(Package.RABBITMQ_SERVER,)]


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (FakeSession(started=False, read_only=True), "read-only"),
        (FakeSession(started=False, backend=Backend.ATTACHED), "dmq did not make this cluster"),
    ],
)
async def test_what_may_not_be_started_says_so_and_is_not_started(session: FakeSession, reason: str) -> None:
    stage = beginning(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: reason in stage.text("#trouble"), "the reason")
        await pilot.press("s", "enter")
        await pilot.pause()
        assert "start_cluster" not in session.script.calls


async def test_quitting_while_it_comes_up_takes_a_second_key() -> None:
    session = FakeSession(started=False)
    stage = beginning(session)
    async with stage.run_test(size=(80, 24)) as pilot:
        with session.script.hold("boot rmq2"):
            await pilot.press("s")
            await until(pilot, lambda: "rmq2 boots" in stage.text("#progress"), "the second node boots")
            await pilot.press("q")
            await pilot.pause()
            assert "q again leaves now" in stage.text("#trouble")
            assert stage.is_running
            await pilot.press("q")
            await pilot.pause()
            assert stage._exit


async def test_a_explains_how_to_attach_within_the_smallest_screen() -> None:
    stage = beginning(FakeSession(started=False), FORBIDDEN)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("a")
        await until(pilot, lambda: "--url amqp://" in stage.text("#trouble"), "the explanation")
        await pilot.press("a")
        await until(pilot, lambda: "--url amqp://" not in stage.text("#trouble"), "it goes again")
