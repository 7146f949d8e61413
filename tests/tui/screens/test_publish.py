"""The form that publishes a message."""

from __future__ import annotations

import pytest
from one_screen import Stage, until, write
from textual.events import Paste
from textual.pilot import Pilot
from textual.widgets import TextArea

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import NodeAction
from dmq_core.errors import MessagingError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.messages import SeenMessage
from dmq_core.messaging.tap.source import TailSource
from dmq_core.testing import HOSTILE_NAMES, FakeSession, hostile
from dmq_core.text import visible
from dmq_tui.screens.publish.screen import PublishScreen
from dmq_tui.widgets.entry import LineEntry

SMALL = (80, 24)


def form(session: FakeSession, exchange: str = "", routing_key: str = "") -> Stage:
    return Stage(PublishScreen(session, session.snapshot, exchange, routing_key))


async def sent(stage: Stage, pilot: Pilot[None], outcome: str) -> str:
    """Sends, waits for `outcome` in the topmost line, and gives all lines."""
    await pilot.press("ctrl+s")
    await until(pilot, lambda: outcome in stage.text("#outcomes").partition("\n")[0], outcome)
    return stage.text("#outcomes")


def ready(session: FakeSession, queue: str) -> int:
    return len(session.broker.queues[EntityKey("/", queue)].messages)


async def test_a_confirmed_message_says_by_whom_and_how_fast_and_the_form_stays() -> None:
    session = FakeSession()
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        await write(pilot, '{"id": 1}')
        assert "JSON ✓" in stage.text("#body-note")
        assert "confirmed by rmq1 (127.0.0.1:5672) in 4 ms" in await sent(stage, pilot, "1  ✓ confirmed")
        await sent(stage, pilot, "2  ✓ confirmed")
        assert stage.screen.query_one("#body", TextArea).text == '{"id": 1}'
        assert ready(session, "orders.eu") == 2


@pytest.mark.parametrize(
    ("exchange", "key", "outcome", "reason"),
    [
        ("reports", "any", "↩ returned", "no queue wanted it (NO_ROUTE (312))"),
        ("nowhere", "any", "✗ refused", "no exchange 'nowhere' (404)"),
        ("amq.rabbitmq.trace", "any", "✗ refused", "internal"),
    ],
)
async def test_what_is_not_taken_says_why(exchange: str, key: str, outcome: str, reason: str) -> None:
    stage = form(FakeSession(), exchange, key)
    async with stage.run_test(size=SMALL) as pilot:
        assert reason in await sent(stage, pilot, f"1  {outcome}")


async def test_a_full_queue_refuses_and_the_form_tells_which() -> None:
    stage = form(FakeSession(), "payments", "small")
    async with stage.run_test(size=SMALL) as pilot:
        for number in (1, 2, 3):
            await sent(stage, pilot, f"{number}  ✓ confirmed")
        assert "queue small is full" in await sent(stage, pilot, "4  ✗ refused")


async def test_without_a_majority_the_fate_is_unknown_and_the_form_says_what_that_means() -> None:
    session = FakeSession()
    for node in ("rmq2", "rmq3"):
        session.perform(Action(NodeAction.KILL, node))
    session.advance(5.0)  # so long the last leader is shown, for another may be elected
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        await pilot.pause()
        assert "(no leader now)" in stage.text("#destination")
        assert "may double it" in await sent(stage, pilot, "1  ? unknown")


async def test_with_every_node_down_nothing_is_sent_and_sending_again_is_called_safe() -> None:
    session = FakeSession()
    session.cluster.stop()
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        assert "sending again is safe" in await sent(stage, pilot, "1  ✗ not sent")


async def test_a_second_send_waits_for_the_first_one() -> None:
    session = FakeSession()
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        with session.script.hold("publish"):
            await pilot.press("ctrl+s", "ctrl+s", "ctrl+enter")
            await pilot.click("#send")
            await until(
                pilot, lambda: "not sent a second time" in stage.text("#outcomes"), "the second send is refused"
            )
        await until(pilot, lambda: "1  ✓ confirmed" in stage.text("#outcomes"), "the first one is confirmed")
        assert session.script.calls.count("publish") == 1
        assert ready(session, "orders.eu") == 1


async def test_an_error_is_one_line_and_the_next_message_goes() -> None:
    session = FakeSession()
    session.script.fail_next("publish", MessagingError("the channel [bold]broke[/] \x1b[31m", "Try again."))
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        text = await sent(stage, pilot, "1  ✗ not possible")
        assert "the channel [bold]broke[/] \\x1b[31m. Try again." in text
        await sent(stage, pilot, "2  ✓ confirmed")


async def test_a_read_only_session_refuses_in_one_line() -> None:
    stage = form(FakeSession(read_only=True), "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        assert "read-only" in await sent(stage, pilot, "1  ✗ not possible")


async def test_the_form_can_be_closed_while_a_message_is_on_its_way() -> None:
    session = FakeSession()
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        with session.script.hold("publish"):
            await pilot.press("ctrl+s", "escape")
            await pilot.pause()
            assert stage.results == [None]
        await until(pilot, lambda: ready(session, "orders.eu") == 1, "the message still arrives")


async def test_the_destination_follows_every_key() -> None:
    stage = form(FakeSession(), "orders")
    async with stage.run_test(size=SMALL) as pilot:
        await pilot.pause()
        assert "1 queue: audit" in stage.text("#destination")
        await write(pilot, "order.eu.new")
        await pilot.pause()
        assert "3 queues: audit, orders, orders.eu" in stage.text("#destination")


async def test_the_destination_follows_the_cluster() -> None:
    session = FakeSession()
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        await pilot.pause()
        session.broker.delete_queue("orders.eu")
        await until(pilot, lambda: "2 queues" in stage.text("#destination"), "the deleted queue is no destination")


async def test_before_the_first_figures_it_says_that_the_destination_is_not_known() -> None:
    session = FakeSession()
    stage = Stage(PublishScreen(session, lambda: None, "orders", "order.eu.new"))
    async with stage.run_test(size=SMALL) as pilot:
        await pilot.pause()
        assert "not known" in stage.text("#destination")
        await sent(stage, pilot, "1  ✓ confirmed")


async def test_headers_show_the_types_that_were_recognised_and_are_sent_with_them() -> None:
    session = FakeSession()
    seen: list[SeenMessage] = []
    session.tail(TailSource(exchange="reports"), seen.extend)
    stage = form(session, "reports", "k")
    async with stage.run_test(size=SMALL) as pilot:
        stage.screen.query_one("#headers", TextArea).focus()
        await write(pilot, 'urgent=true\nn=3\nnote="3"')
        await pilot.pause()
        assert stage.text("#headers-note") == "urgent boolean · n integer · note text"
        assert "1 queue: mail" in stage.text("#destination")
        await sent(stage, pilot, "1  ✓ confirmed")
        session.settle()
        assert dict(seen[0].properties.headers) == {"urgent": True, "n": 3, "note": "3"}


@pytest.mark.parametrize(("field", "typed"), [("#headers", "just words"), ("#properties", "priority=high")])
async def test_a_wrong_line_is_named_and_nothing_is_sent(field: str, typed: str) -> None:
    session = FakeSession()
    stage = form(session, "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        stage.screen.query_one(field, TextArea).focus()
        await write(pilot, typed)
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert "not sent" in stage.text("#outcomes")
        assert "Not ready" in stage.text("#destination")
        assert "publish" not in session.script.calls


async def test_enter_in_a_line_goes_on_and_never_sends() -> None:
    session = FakeSession()
    stage = form(session, "orders")
    async with stage.run_test(size=SMALL) as pilot:
        await pilot.press("enter", "enter", "tab", "tab")
        await pilot.pause()
        assert "publish" not in session.script.calls


async def test_the_exchange_is_completed_from_what_the_cluster_has() -> None:
    stage = form(FakeSession())
    async with stage.run_test(size=SMALL) as pilot:
        await write(pilot, "pay")
        entry = stage.screen.query_one("#exchange", LineEntry)
        await until(pilot, lambda: entry._suggestion == "payments", "a suggestion")
        await pilot.press("right")
        await pilot.pause()
        assert entry.value == "payments"
        assert "direct" in stage.text("#exchange-note")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_a_hostile_exchange_is_shown_safely_and_still_gets_the_message(name: str) -> None:
    session = FakeSession(hostile)
    stage = form(session, name, "")
    async with stage.run_test(size=SMALL) as pilot:
        await pilot.pause()
        assert stage.screen.query_one("#exchange", LineEntry).value == visible(name)
        assert f"1 queue: {visible(name)}" in stage.text("#destination")
        screen = stage.everything()
        assert "\x1b" not in screen
        assert "\x07" not in screen
        await sent(stage, pilot, "1  ✓ confirmed")
        assert ready(session, name) == 1


async def test_control_characters_in_a_paste_never_reach_a_field() -> None:
    stage = form(FakeSession(), "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        await pilot.pause()
        body = stage.screen.query_one("#body", TextArea)
        stage.post_message(Paste("one\r\ntwo \x1b[31mred\x07\u202e"))
        await until(pilot, lambda: body.text == "one\ntwo [31mred", "the body without its control characters")
        entry = stage.screen.query_one("#key", LineEntry)
        entry.focus()
        stage.post_message(Paste("\x1b]0;title\x07x\nsecond line"))
        await until(pilot, lambda: entry.value == "]0;titlex", "the key without its control characters")


async def test_a_body_that_is_meant_to_be_json_says_where_it_breaks() -> None:
    stage = form(FakeSession(), "orders", "order.eu.new")
    async with stage.run_test(size=SMALL) as pilot:
        await write(pilot, '{"id": ')
        await pilot.pause()
        assert "not JSON: Expecting value, line 1 column 8" in stage.text("#body-note")
        body = stage.screen.query_one("#body", TextArea)
        body.text = "[" * 100_000
        await until(pilot, lambda: "too deep" in stage.text("#body-note"), "a word on the depth")
        body.text = "x" * 300_000
        await until(pilot, lambda: "too long for the JSON check" in stage.text("#body-note"), "a word on the size")


@pytest.mark.parametrize("size", [(80, 24), (140, 45)])
async def test_every_field_and_the_outcome_are_in_sight(size: tuple[int, int]) -> None:
    stage = form(FakeSession(), "orders", "order.eu.new")
    async with stage.run_test(size=size) as pilot:
        await sent(stage, pilot, "1  ✓ confirmed")
        for selector in ("#exchange", "#key", "#headers", "#properties", "#body", "#destination", "#outcomes", "#send"):
            region = stage.screen.query_one(selector).region
            assert region.height > 0, selector
            assert stage.screen.region.contains_region(region), selector
