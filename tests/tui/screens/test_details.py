"""The details of a node, an exchange or a queue."""

from __future__ import annotations

import pytest
from one_screen import Stage, until

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import NodeAction
from dmq_core.errors import ClusterError
from dmq_core.testing import HOSTILE_NAMES, FakeSession, hostile, thousand_queues
from dmq_core.text import visible
from dmq_tui.screens.details.pages import PAGES, Subject, SubjectKind
from dmq_tui.screens.details.screen import DetailsScreen

ORDERS = Subject(SubjectKind.QUEUE, "orders")
RMQ2 = Subject(SubjectKind.NODE, "rmq2")


def details(session: FakeSession, subject: Subject) -> Stage:
    return Stage(DetailsScreen(subject, session.cluster, session.snapshot))


def title(stage: Stage) -> str:
    assert isinstance(stage.screen, DetailsScreen)
    return stage.screen.page_title


async def test_a_queue_shows_its_leader_and_members_and_how_many_it_can_lose() -> None:
    session = FakeSession()
    stage = details(session, ORDERS)
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "3/3" in stage.text("#page"), "the members")
        assert "survives the loss of 1 member" in stage.text("#page")
        session.perform(Action(NodeAction.KILL, "rmq2"))
        session.advance(1.0)
        await until(pilot, lambda: "2/3 !" in stage.text("#page"), "the member that is gone")
        assert "offline, node stopped" in stage.text("#page")
        assert "does not survive the loss of another member" in stage.text("#page")
        assert "leader            rmq2" not in stage.text("#page")
        session.perform(Action(NodeAction.KILL, "rmq3"))
        session.advance(1.0)
        await until(pilot, lambda: "no majority" in stage.text("#page"), "the lost majority")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["2"], "Rates"),
        (["right"], "Rates"),
        (["left"], "Settings"),
        (["tab", "tab"], "Bindings"),
        (["shift+tab", "right_square_bracket"], "State"),
        (["4", "1"], "State"),
        (["9", "5", "r", "x", "enter", "space"], "State"),
    ],
)
async def test_pages_turn_with_arrows_tab_brackets_and_numbers(keys: list[str], expected: str) -> None:
    stage = details(FakeSession(), ORDERS)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()
        assert title(stage) == expected


@pytest.mark.parametrize("key", ["escape", "q", "backspace"])
async def test_escape_goes_back(key: str) -> None:
    stage = details(FakeSession(), ORDERS)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("3", key)
        await pilot.pause()
        assert stage.results == [None]


async def test_rates_are_drawn_and_grow_while_the_page_is_open() -> None:
    session = FakeSession()
    load = session.load(100)
    session.advance(3.0)
    stage = details(session, Subject(SubjectKind.QUEUE, "dmq.load"))
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        session.advance(1.0)
        await until(pilot, lambda: "█" in stage.text("#page"), "a curve")
        assert "in/s 100" in stage.text("#page")
    load.stop()


async def test_bindings_settings_and_commands_of_a_queue() -> None:
    stage = details(FakeSession(), Subject(SubjectKind.QUEUE, "small"))
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "from payments" in stage.text("#page"), "the binding")
        await pilot.press("4")
        await until(pilot, lambda: "reject-publish" in stage.text("#page"), "the arguments")
        assert "dmq queue show small" in stage.text("#page")


async def test_an_exchange_shows_where_it_goes_and_what_feeds_it() -> None:
    stage = details(FakeSession(), Subject(SubjectKind.EXCHANGE, "orders"))
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "→ queue orders.eu" in stage.text("#page"), "where it goes")
        assert "← exchange news" in stage.text("#page")
        assert "order.eu.*" in stage.text("#page")


async def test_the_default_exchange_explains_itself() -> None:
    stage = details(FakeSession(), Subject(SubjectKind.EXCHANGE, ""))
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "bound to it by its own name" in stage.text("#page"), "the explanation")
        assert "(default)" in stage.text("#head")


async def test_a_node_shows_figures_queues_connections_and_its_log() -> None:
    session = FakeSession()
    session.load(50)
    session.advance(1.0)
    stage = details(session, Subject(SubjectKind.NODE, "rmq1"))
    async with stage.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: "amqp://127.0.0.1:5672" in stage.text("#page"), "the figures")
        await pilot.press("2")
        await until(pilot, lambda: "unrouted" in stage.text("#page"), "the queues that it leads")
        await pilot.press("3")
        await until(pilot, lambda: "dmq consumer" in stage.text("#page"), "the connections")
        await pilot.press("4")
        await until(pilot, lambda: "line 240 of rmq1" in stage.text("#page"), "the log")
        assert "\\x1b[31mred?\\x1b[0m [bold]markup?[/bold]" in stage.text("#page")
        assert "log read at" in stage.text("#head")


async def test_figures_of_a_node_that_is_down_are_unknown_and_never_zero() -> None:
    session = FakeSession()
    session.perform(Action(NodeAction.KILL, "rmq2"))
    stage = details(session, RMQ2)
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "does not answer on this node" in stage.text("#page"), "the word on the node")
        assert "memory            –" in stage.text("#page")
        assert "dmq node start rmq2" in stage.text("#page")


async def test_a_log_that_cannot_be_read_is_one_line_and_r_tries_again() -> None:
    session = FakeSession()
    session.script.fail_next("logs", ClusterError("the log of rmq2 is gone", "Look into its volume."))
    stage = details(session, RMQ2)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "the log of rmq2 is gone" in stage.text("#page"), "the error")
        assert "Look into its volume." in stage.text("#page")
        await pilot.press("r")
        await until(pilot, lambda: "line 240 of rmq2" in stage.text("#page"), "the log")


async def test_a_log_that_never_comes_does_not_keep_the_page_and_is_asked_for_once() -> None:
    session = FakeSession()
    stage = details(session, RMQ2)
    async with stage.run_test(size=(80, 24)) as pilot:
        with session.script.hold("logs"):
            await pilot.press("4", "r", "r", "1", "4")
            await until(pilot, lambda: "logs" in session.script.calls, "the log is asked for")
            await pilot.press("escape")
            await pilot.pause()
            assert stage.results == [None]
            assert session.script.calls.count("logs") == 1


async def test_a_queue_that_is_deleted_while_open_is_called_gone_and_keeps_its_last_figures() -> None:
    session = FakeSession()
    stage = details(session, ORDERS)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        session.broker.delete_queue("orders")
        await until(pilot, lambda: "gone" in stage.text("#head"), "the word that it is gone")
        assert "3/3" in stage.text("#page")
        await pilot.press("2", "3", "4")
        await pilot.pause()
        assert "gone" in stage.text("#head")


async def test_a_cluster_that_goes_while_open_leaves_a_warning_and_the_page() -> None:
    session = FakeSession()
    stage = details(session, ORDERS)
    async with stage.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        session.cluster.stop()
        await until(pilot, lambda: "no node answers" in stage.text("#head"), "the warning")
        await pilot.press("2", "3", "4", "1")
        await pilot.pause()
        assert "quorum" in stage.text("#page")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_hostile_names_are_text_on_every_page(name: str) -> None:
    session = FakeSession(hostile)
    for kind in (SubjectKind.QUEUE, SubjectKind.EXCHANGE):
        stage = details(session, Subject(kind, name))
        async with stage.run_test(size=(300, 24)) as pilot:
            await pilot.pause()
            assert visible(name) in stage.text("#head")
            for number in range(1, len(PAGES[kind]) + 1):
                await pilot.press(str(number))
                await pilot.pause()
                shown = stage.everything()
                assert not {"\x1b", "\x07", "\u202e", "\u200b"} & set(shown)
                assert "gone" not in stage.text("#head")


async def test_a_thousand_bindings_are_listed_as_far_as_one_reads() -> None:
    stage = details(FakeSession(thousand_queues), Subject(SubjectKind.EXCHANGE, "orders"))
    async with stage.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "and 503 more" in stage.text("#page"), "how many are left out")
