"""Demos in the console: chosen, read, played, answered, broken on purpose and left, on a RabbitMQ in memory."""

from __future__ import annotations

import pytest
from console import NARROW, WIDE, Console, console

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import Backend, NodeAction
from dmq_core.errors import MessagingError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.messages import OutgoingMessage
from dmq_core.messaging.tap.source import TailSource
from dmq_core.observe.event_text import event_text
from dmq_core.testing import FakeSession
from dmq_tui.screens.confirm.screen import ConfirmScreen
from dmq_tui.screens.demo.picker import DemosScreen
from dmq_tui.screens.demo.screen import DemoScreen
from dmq_tui.screens.main.screen import MainScreen


async def choose(it: Console, name: str) -> None:
    """Chooses the demo from the list by the keys."""
    await it.press("D")
    await it.until(lambda: isinstance(it.app.screen, DemosScreen), "the list of demos")
    chooser = it.app.screen
    assert isinstance(chooser, DemosScreen)
    while (item := chooser.list.cursor_item) is not None and item[0] != name:
        await it.press("down")
    await it.press("enter")


async def begin(it: Console, name: str = "direct_exchange") -> DemoScreen:
    """Begins a demo."""
    await choose(it, name)
    await it.until(lambda: isinstance(it.app.screen, DemoScreen), "the demo")
    screen = it.app.screen
    assert isinstance(screen, DemoScreen)
    await it.until(lambda: screen.player.words is not None, "its first page")
    return screen


async def play_pages(it: Console, screen: DemoScreen, pages: int) -> None:
    """Plays so many pages from the first one, and goes to the one behind them."""
    for page in range(1, pages + 1):
        await it.press("enter")
        await settled(it, screen)
        await it.press("enter")
        await it.until(lambda p=page: screen.player.index == p, "the next page")  # type: ignore[misc]


async def settled(it: Console, screen: DemoScreen) -> None:
    await it.until(lambda: not screen.player.doing, "the step to be played")
    await it.pilot.pause()


@pytest.mark.parametrize("size", [pytest.param(WIDE, marks=pytest.mark.thorough), NARROW])
async def test_a_demo_is_played_to_its_end_and_says_what_was_seen(size: tuple[int, int]) -> None:
    async with console(size=size) as it:
        screen = await begin(it)
        steps = len(screen.player.demo.steps) if screen.player.demo is not None else 0
        for number in range(steps):
            await it.until(lambda n=number: screen.player.index == n, f"page {number + 1}")  # type: ignore[misc]
            await it.press("enter")
            if screen.page.is_asking:
                await it.press("enter")
            await settled(it, screen)
            result = screen.player.result
            assert result is not None
            assert result.passed, result.seen
            assert "✓ held" in screen.page.prose.text
            await it.press("enter")
        await it.until(lambda: screen.player.is_last, "the last page")
        assert "What you saw" in screen.page.prose.text
        await it.press("enter")
        await it.until(lambda: any("5 of 5 claims held; everything is removed" in t for t in it.toasts), "the farewell")


async def test_a_page_tells_what_to_know_the_code_the_command_and_the_claim() -> None:
    async with console() as it:
        screen = await begin(it)
        await it.until(lambda: "↵ play" in it.screen_text(), "the footer")
        text = it.screen_text()
        for part in ("step 1 of 5", "exchange", "manager.declare(", "$ dmq queue list", "Claim"):
            assert part in text, part
        assert screen.player.prefix.startswith("dmq.demo.")


async def test_steps_are_not_skipped_and_a_page_can_be_turned_back() -> None:
    async with console() as it:
        screen = await begin(it)
        await it.press("right")
        assert screen.player.index == 0
        await it.press("enter")
        await settled(it, screen)
        await it.press("right")
        await it.until(lambda: screen.player.index == 1, "the second page")
        await it.press("left")
        await it.until(lambda: screen.player.index == 0, "the first page")
        assert "✓ held" in screen.page.prose.text


async def test_a_claim_that_the_reader_breaks_is_seen_not_to_hold_and_holds_again() -> None:
    async with console() as it:
        screen = await begin(it)
        await it.press("x")
        await settled(it, screen)
        assert "✗ not held" in screen.page.prose.text
        await it.press("enter")
        await settled(it, screen)
        assert "✓ held" in screen.page.prose.text


async def test_the_reader_answers_and_a_bad_answer_is_asked_for_again() -> None:
    async with console() as it:
        screen = await begin(it)
        await play_pages(it, screen, 3)
        await it.press("enter")
        assert screen.page.is_asking
        screen.page.field.value = " "
        await it.press("enter")
        assert screen.page.is_asking
        screen.page.field.value = "paid"
        await it.press("enter")
        await settled(it, screen)
        assert "'paid'" in screen.page.prose.text
        await it.press("r")
        await it.press("escape")
        assert not screen.page.is_asking
        assert it.app.screen is screen


async def test_all_steps_are_played_by_one_key() -> None:
    async with console() as it:
        screen = await begin(it, "topic_exchange")
        await it.press("a")
        await it.until(lambda: screen.player.is_last, "the last page")
        assert "4 of 4 claims" in screen.page.prose.text


async def test_a_demo_left_in_the_middle_of_a_step_removes_what_it_made() -> None:
    async with console() as it:
        await begin(it)
        await it.press("enter", "escape")
        await it.until(lambda: any("everything is removed" in t for t in it.toasts), "the farewell")


async def test_the_panes_show_what_the_page_is_about_once_it_is_there() -> None:
    async with console() as it:
        screen = await begin(it)
        assert "of the demo, once it has one." in it.screen_text()
        shop, audit = (f"{screen.player.prefix}{word}" for word in ("shop", "audit"))
        it.session.broker.declare_exchange(shop, "direct")
        for queue in (f"{screen.player.prefix}billing", audit):
            it.session.broker.declare_queue(queue)
        it.session.script.fail_next("tail", MessagingError("there is no such exchange"))
        await it.advance(2)
        await it.until(lambda: screen._failures == 1, "the end of the first try")
        await it.advance(2)
        await it.until(lambda: screen.tailing.status() is not None, "the tail, at the second try")
        assert not it.toasts
        assert screen.tail.source == TailSource(shop)
        await it.until(lambda: screen.queues.table.cursor_key == EntityKey("/", audit), "the cursor on the queue")
        assert screen.queues.table.row_count == 2
        it.session.publish(OutgoingMessage(shop, "paid", b"order 1"))
        await it.advance(1)
        await it.until(lambda: len(screen.tail.messages) == 1, "the message")


async def test_where_nothing_can_be_tailed_the_story_of_the_cluster_since_its_begin_is_beside_the_page() -> None:
    async with console() as it:
        it.session.perform(Action(NodeAction.KILL, "rmq3"))
        await it.advance(2)
        await it.until(lambda: any("rmq3" in line for line in it.story()), "what happened before")
        screen = await begin(it, "streams")
        assert screen.story.display
        assert not screen.tail.display
        it.session.perform(Action(NodeAction.KILL, "rmq2"))
        await it.advance(2)
        await it.until(
            lambda: any("rmq2" in event_text(line.event) for line in screen.story.entries), "what happens now"
        )
        assert not any("rmq3" in event_text(line.event) for line in screen.story.entries)


@pytest.mark.parametrize("size", [WIDE, pytest.param(NARROW, marks=pytest.mark.thorough)])
async def test_a_question_is_shown_to_its_last_word(size: tuple[int, int]) -> None:
    async with console(size=size) as it:
        screen = await begin(it, "load_balancing")
        await play_pages(it, screen, 2)
        await it.press("enter")
        words = screen.player.words
        assert words is not None
        assert words.ask is not None
        shown = it.screen_text()
        assert all(word in shown for word in words.ask.text.split())
        assert "↵ answer" in shown


async def test_the_command_of_a_page_and_the_code_of_the_last_one_can_be_copied() -> None:
    async with console() as it:
        screen = await begin(it, "topic_exchange")
        await it.press("c")
        assert it.app.clipboard == "dmq exchange list\ndmq queue list"
        assert "Copied the command: 2 lines." in it.toasts
        await it.press("a")
        await it.until(lambda: screen.player.is_last, "the last page")
        await it.press("c")
        assert it.app.clipboard.startswith("from dmq_core")
        assert it.app.clipboard.endswith("consumer.wait(10)\n")


async def test_the_list_tells_the_whole_of_the_chosen_demo_and_what_it_does_to_the_cluster() -> None:
    async with console(size=NARROW) as it:
        await it.press("D")
        await it.until(lambda: isinstance(it.app.screen, DemosScreen), "the list of demos")
        chooser = it.app.screen
        assert isinstance(chooser, DemosScreen)
        for _, demo in chooser.list.entries:
            shown = it.screen_text()
            assert all(word in shown for word in f"{demo.summary} {demo.impact}".split())
            await it.press("down")


async def test_a_small_screen_shows_the_page_or_one_pane() -> None:
    async with console(size=NARROW) as it:
        screen = await begin(it)
        assert screen.page.display
        await it.press("3")
        assert not screen.page.display
        assert "3 Queues" in it.screen_text()
        await it.press("escape")
        assert screen.page.display
        assert it.app.screen is screen


async def test_a_read_only_session_plays_none() -> None:
    async with console(FakeSession(read_only=True)) as it:
        await it.press("D")
        assert it.toasts == ["Demos: this session is read-only."]


async def test_a_demo_that_takes_the_majority_wants_the_name_of_the_cluster_typed() -> None:
    async with console() as it:
        await choose(it, "message_persistence")
        await it.until(lambda: isinstance(it.app.screen, ConfirmScreen), "the question")
        text = it.screen_text()
        for part in ("Play Message persistence?", "It stops every node", "no majority", "undone", "--yes"):
            assert part in text, part
        await it.press("y", "enter")
        assert isinstance(it.app.screen, ConfirmScreen)
        await it.press("backspace", *"dmq", "enter")
        await it.until(lambda: isinstance(it.app.screen, DemoScreen), "the demo")


async def test_a_demo_that_takes_nodes_down_is_not_begun_without_a_yes() -> None:
    async with console() as it:
        await choose(it, "message_persistence")
        await it.until(lambda: isinstance(it.app.screen, ConfirmScreen), "the question")
        await it.press("escape")
        await it.until(lambda: isinstance(it.app.screen, MainScreen), "the main screen")


async def test_on_a_cluster_of_somebody_else_it_is_refused_at_once() -> None:
    async with console(FakeSession(backend=Backend.ATTACHED)) as it:
        await choose(it, "message_persistence")
        await it.until(lambda: any("dmq did not make dmq" in toast for toast in it.toasts), "the refusal")
