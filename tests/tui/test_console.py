"""What a person does in the console, on a simulated cluster."""

from __future__ import annotations

import threading

import pytest
from console import NARROW, WIDE, Console, console
from one_screen import write
from textual.actions import parse

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import Backend, NodeAction, NodeState
from dmq_core.errors import ClusterError, DmqError, MessagingError, NotReachableError
from dmq_core.messaging.messages import OutgoingMessage
from dmq_core.observe.event_text import event_text
from dmq_core.testing import FakeSession, hostile, nothing, thousand_queues
from dmq_tui.app import DmqApp
from dmq_tui.commands import COMMANDS, PaneId
from dmq_tui.screens.confirm.screen import ConfirmScreen
from dmq_tui.screens.details.screen import DetailsScreen
from dmq_tui.screens.help.screen import HelpScreen
from dmq_tui.screens.main.screen import MainScreen
from dmq_tui.screens.message.screen import MessageScreen
from dmq_tui.screens.publish.screen import PublishScreen
from dmq_tui.screens.start.screen import StartScreen


def order(number: int = 1) -> OutgoingMessage:
    return OutgoingMessage("orders", f"order.eu.{number}", b'{"id": 4711}')


async def kill(it: Console, node_row: int) -> None:
    """Kills the node on that row of pane 1 and waits for the end of the act."""
    await it.press("1", "home", *["down"] * node_row, "K")
    assert isinstance(it.app.screen, ConfirmScreen)
    await it.press("y")
    await it.until(lambda: any("it took" in t for t in it.story()), "the end of the kill")


# -- the three questions -----------------------------------------------------------------------------------------------


async def test_the_first_screen_tells_whether_the_cluster_is_whole() -> None:
    async with console() as it:
        assert "3/3 nodes" in it.header()
        assert "quorum OK, can lose 1 node" in it.header()
        assert "via rmq1" in it.header()
        assert it.shown() == list(PaneId)


async def test_a_kill_under_load_is_told_from_fault_to_recovery() -> None:
    async with console() as it:
        await it.press("l")
        await it.until(lambda: it.main.loads.account() is not None, "the load")
        await it.advance(5)
        await kill(it, 0)
        await it.advance(5)
        story = it.story()
        assert "rmq1 killed (you)" in story
        assert any(t.startswith("rmq1 killed; it took") for t in story)
        assert any(t.startswith("dmq.load: leader rmq1 →") for t in story)
        assert any(t.startswith("first confirm") for t in story)
        fault = next(e for e in it.main.story.entries if event_text(e.event) == "rmq1 killed (you)")
        confirm = next(e for e in it.main.story.entries if event_text(e.event).startswith("first confirm"))
        assert fault.since_fault_s == 0
        assert confirm.since_fault_s is not None
        assert confirm.since_fault_s > 0
        assert "2/3 nodes" in it.header()
        assert "quorum OK, cannot lose another" in it.header()
        account = it.main.loads.account()
        assert account is not None
        assert account.lost == 0
        assert account.longest_confirm_gap_s > 0.3
        await it.until(lambda: "longest gap" in it.screen_text(), "the account")
        await it.until(lambda: "▲" in it.screen_text().split("deliveries/s")[1], "the fault's mark on the curve")


async def test_the_footer_offers_to_undo_a_kill_and_u_does_it() -> None:
    async with console() as it:
        await kill(it, 1)
        assert "u undo: Start rmq2" in it.footer()
        await it.press("u")
        await it.until(lambda: it.session.broker.nodes["rmq2"].state is NodeState.RUNNING, "rmq2 to run")
        await it.until(lambda: any("rmq2 started" in t for t in it.story()), "the end of the start")
        assert it.main.actions.undo is None


async def test_an_act_goes_to_the_node_that_was_chosen_whatever_the_list_does_meanwhile() -> None:
    async with console() as it:
        await it.press("1", "home", "down", "K")
        it.main.nodes.sort_by("node")
        it.main.nodes.table.move_to(0)
        await it.press("y")
        await it.until(lambda: it.session.broker.nodes["rmq2"].state is NodeState.STOPPED, "rmq2 to stop")
        assert it.session.broker.nodes["rmq3"].state is NodeState.RUNNING


async def test_freezing_and_unfreezing_is_one_key() -> None:
    async with console() as it:
        await it.press("1", "end", "F", "y")
        await it.until(lambda: it.session.broker.nodes["rmq3"].state is NodeState.PAUSED, "rmq3 to pause")
        await it.advance(1)
        assert "u undo: Unpause rmq3" in it.footer()
        await it.press("F", "y")
        await it.until(lambda: it.session.broker.nodes["rmq3"].state is NodeState.RUNNING, "rmq3 to go on")


async def test_saying_no_does_nothing() -> None:
    async with console() as it:
        await it.press("1", "K", "escape", "S", "enter")
        assert "perform" not in it.session.script.calls


async def test_an_act_that_fails_says_what_and_what_to_do() -> None:
    async with console() as it:
        it.session.script.fail_next("perform", ClusterError("rmq1 does not [boot]", "See its log."))
        await it.press("1", "home", "R", "y")
        await it.until(lambda: bool(it.toasts), "the error")
        assert it.toasts == ["rmq1 does not [boot]\nSee its log."]
        assert any("failed after" in t for t in it.story())


async def test_one_act_at_a_time_on_a_node() -> None:
    async with console() as it:
        with it.session.script.hold("perform"):
            await it.press("1", "home", "R", "y")
            await it.until(lambda: "Restart rmq1" in it.footer(), "the act in the footer")
            await it.press("K")
            assert not isinstance(it.app.screen, ConfirmScreen)
            assert any("under way" in t for t in it.toasts)


# -- looking -----------------------------------------------------------------------------------------------------------


async def test_a_filter_thins_out_the_rows_as_it_is_typed_and_escape_ends_it() -> None:
    async with console() as it:
        await it.press("3", "slash")
        await write(it.pilot, "orders")
        await it.press("enter")
        pane = it.main.panes[PaneId.QUEUES]
        assert pane.title_text == "3 Queues · 2 of 7 · /orders"
        await it.press("escape")
        assert pane.title_text == "3 Queues · 7"


async def test_an_inverse_filter_keeps_the_others() -> None:
    async with console() as it:
        await it.press("3", "slash")
        await write(it.pilot, "!orders")
        assert it.main.panes[PaneId.QUEUES].title_text == "3 Queues · 5 of 7 · /!orders"


async def test_letters_typed_into_a_filter_are_no_commands() -> None:
    async with console() as it:
        await it.press("3", "slash", "q", "l", "K", "1")
        assert it.main.pane is PaneId.QUEUES
        assert it.app.screen is it.main
        assert not it.main.loads.active


async def test_sorting_steps_through_the_columns_and_turns_round() -> None:
    async with console() as it:
        await it.press("3", "s")
        assert "by UNACK ↓" in it.main.panes[PaneId.QUEUES].title_text
        await it.press("o")
        assert "by UNACK ↑" in it.main.panes[PaneId.QUEUES].title_text


async def test_the_cursor_stays_on_its_queue_when_figures_reorder_the_rows() -> None:
    async with console() as it:
        await it.press("3", "home", "down", "down")
        table = it.main.panes[PaneId.QUEUES].cursor_view
        chosen = table.cursor_key  # type: ignore[union-attr]  # pane 3 has a table
        for _ in range(3):
            it.session.publish(OutgoingMessage("", "unrouted", b"x"))
        await it.advance(1)
        assert table.cursor_key == chosen  # type: ignore[union-attr]
        assert table.cursor_item is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(("pane", "title"), [("1", "node rmq1"), ("2", "exchange"), ("3", "queue")])
async def test_enter_opens_details_of_what_is_under_the_cursor(pane: str, title: str) -> None:
    async with console() as it:
        await it.press(pane, "enter")
        assert isinstance(it.app.screen, DetailsScreen)
        assert title in it.screen_text()
        await it.press("escape")
        assert it.app.screen is it.main


async def test_rows_wait_while_another_screen_is_open_and_come_after() -> None:
    async with console() as it:
        await it.press("3", "question_mark")
        before = it.main.snapshot
        await it.advance(2)
        assert it.main.snapshot is before
        await it.press("escape")
        assert it.main.snapshot is it.main.newest


async def test_help_lists_the_keys_that_work_here() -> None:
    async with console() as it:
        await it.press("question_mark")
        assert isinstance(it.app.screen, HelpScreen)


def test_every_command_of_the_table_is_an_action_of_the_main_screen() -> None:
    names = {c.id: parse(c.textual_action)[1] for c in COMMANDS}
    assert {c for c, name in names.items() if not callable(getattr(MainScreen, f"action_{name}", None))} == set()


async def test_no_key_has_two_commands() -> None:
    keys = [key for command in COMMANDS for key in command.keys]
    assert len(keys) == len(set(keys))


async def test_the_palette_finds_a_command_by_its_name() -> None:
    async with console() as it:
        await it.press("colon")
        await write(it.pilot, "load")
        await it.until(lambda: "load · Load on or off" in it.screen_text(), "the command in the palette")
        await it.press("down", "enter")
        await it.until(lambda: it.main.loads.active, "the load to begin")


# -- messages ----------------------------------------------------------------------------------------------------------


async def test_a_tail_of_the_chosen_exchange_shows_what_passes_and_names_its_blind_spots() -> None:
    async with console() as it:
        it.main.panes[PaneId.EXCHANGES].cursor_view.move(10**9)  # type: ignore[union-attr]  # pane 2 has a table
        await it.press("2", "slash")
        await write(it.pilot, "orders")
        await it.press("enter", "t")
        await it.until(lambda: it.main.tailing.status() is not None, "the tail to run")
        it.session.publish(order())
        it.session.settle()
        await it.until(lambda: len(it.main.tail.messages) == 1, "the message")
        await it.until(lambda: "cannot see here: default exchange" in it.main.tail.title_text, "the blind spots")
        assert it.main.tail.title_text.startswith("4 Tail · orders # · tap")
        assert "order.eu.1" in it.screen_text()
        await it.press("4", "enter")
        assert isinstance(it.app.screen, MessageScreen)
        assert "4711" in it.screen_text()


async def test_ending_a_tail_keeps_what_was_seen() -> None:
    async with console() as it:
        await it.press("3", "t")
        await it.until(lambda: it.main.tailing.status() is not None, "the tail to run")
        await it.press("4", "t")
        assert not it.main.tailing.active
        assert "ended" in it.main.tail.title_text


async def test_words_of_a_tail_that_was_replaced_are_ignored() -> None:
    async with console() as it:
        await it.press("3", "t")
        await it.until(lambda: it.main.tailing.status() is not None, "the first tail")
        it.session.publish(OutgoingMessage("orders", "order.eu.old", b"old"))
        await it.press("2", "end", "t")
        await it.until(lambda: it.main.tailing.status() is not None, "the second tail")
        it.session.settle()
        await it.pilot.pause()
        assert all(m.body != b"old" for m in it.main.tail.messages)


async def test_a_tail_that_cannot_begin_says_why() -> None:
    async with console() as it:
        it.session.script.fail_next("tail", MessagingError("no [channel]", "Try again."))
        await it.press("3", "t")
        await it.until(lambda: bool(it.toasts), "the error")
        assert it.toasts == ["no [channel]\nTry again."]
        assert not it.main.tailing.active


async def test_publishing_starts_from_what_is_under_the_cursor() -> None:
    async with console() as it:
        await it.press("3", "home", "p")
        assert isinstance(it.app.screen, PublishScreen)
        chosen = it.main.panes[PaneId.QUEUES].cursor_view.cursor_item  # type: ignore[union-attr]  # pane 3 has a table
        assert it.app.screen.form.routing_key == chosen.key.name


async def test_the_load_goes_on_and_off_and_leaves_its_account() -> None:
    async with console() as it:
        await it.press("l")
        await it.until(lambda: it.main.loads.account() is not None, "the load")
        await it.advance(2)
        assert "end load" in it.footer()
        await it.press("l")
        await it.until(lambda: not it.main.loads.active, "the load to end")
        account = it.main.loads.account()
        assert account is not None
        assert (account.running, account.lost, account.confirmed > 0) == (False, 0, True)
        assert "6 Load · ended · PASS" in it.main.load.title_text
        assert any(event_text(e.event).startswith("load ended, PASS") for e in it.main.story.entries)


async def test_a_node_is_cut_off_and_connected_again_with_one_key() -> None:
    async with console() as it:
        await it.press("1", "I", "y")
        await it.until(lambda: "rmq1 isolated" in it.footer(), "the cut")
        assert "u undo: Rejoin rmq1" in it.footer()
        await it.press("I", "y")
        await it.until(lambda: "rmq1 back with its peers" in it.footer(), "the end of the cut")
        assert {n.state for n in it.session.cluster.nodes()} == {NodeState.RUNNING}


async def test_the_story_is_copied_as_text() -> None:
    async with console() as it:
        await kill(it, 1)
        await it.press("5", "c")
        assert "+0.00  ✗  you     rmq2 killed (you)" in it.app.clipboard


# -- read-only, attached, trouble --------------------------------------------------------------------------------------


async def test_a_read_only_session_shows_it_and_refuses_every_change() -> None:
    async with console(FakeSession(read_only=True)) as it:
        assert "read-only" in it.header()
        await it.press("1", "K", "p", "l")
        assert it.app.screen is it.main
        assert all("read-only" in t for t in it.toasts)
        assert len(it.toasts) == 3
        assert "K kill" not in it.footer()


async def test_nodes_of_an_attached_cluster_are_only_watched() -> None:
    async with console(FakeSession(backend=Backend.ATTACHED)) as it:
        await it.press("1", "K")
        assert it.app.screen is it.main
        assert it.toasts == ["Dmq did not make this cluster, so its nodes are only watched."]


async def test_late_figures_turn_grey_and_their_panes_say_so_while_the_rest_goes_on() -> None:
    async with console() as it:
        it.session.broker.management_problem = "no answer within 2 s"
        await it.advance(6)
        for pane in (PaneId.NODES, PaneId.EXCHANGES, PaneId.QUEUES):
            assert "old: no answer within 2 s" in it.main.panes[pane].title_text
        assert it.main.panes[PaneId.QUEUES].has_class("-late")
        it.session.broker.management_problem = ""
        await it.advance(1)
        assert "old" not in it.main.panes[PaneId.QUEUES].title_text


async def test_ages_go_on_while_no_snapshot_comes() -> None:
    async with console() as it:
        assert "0.0 s old" in it.header()
        it.session.broker.now += 3
        await it.until(lambda: "3.0 s old" in it.header(), "the age to go on")


async def test_the_end_of_the_node_that_is_asked_is_survived() -> None:
    async with console() as it:
        assert "via rmq1" in it.header()
        it.session.perform(Action(NodeAction.KILL, "rmq1"))
        await it.advance(2)
        assert "via rmq2" in it.header()


async def test_hostile_names_are_shown_as_they_are_and_do_no_harm() -> None:
    async with console(FakeSession(hostile)) as it:
        await it.press("3", "end", "t", "2", "end", "t", "3", "slash")
        await write(it.pilot, "[")
        await it.press("enter", "enter")
        text = it.screen_text()
        assert "\x1b" not in text
        assert "[" in text


async def test_an_empty_broker_is_taught() -> None:
    async with console(FakeSession(nothing)) as it:
        assert "No queues yet." in it.screen_text()
        assert "No tail is set." in it.screen_text()


async def test_a_session_that_cannot_be_opened_leads_to_the_ways_on() -> None:
    def fail() -> FakeSession:
        raise NotReachableError("nothing answers", "Start it.")

    app = DmqApp(fail)
    async with app.run_test(size=WIDE) as pilot:
        for _ in range(100):
            if isinstance(app.screen, StartScreen):
                break
            await pilot.pause(0.05)
        assert isinstance(app.screen, StartScreen)


async def test_without_a_running_cluster_the_first_screen_starts_one_and_then_shows_it() -> None:
    session = FakeSession(started=False)
    app = DmqApp(lambda: session, clock=lambda: session.broker.now)
    async with app.run_test(size=WIDE) as pilot:
        it = Console(pilot, app, session)
        await it.until(lambda: isinstance(app.screen, StartScreen), "the start screen")
        await it.press("s")
        await it.until(lambda: app.screen is it.main, "the cluster to be there")
        await it.until(lambda: "3/3 nodes" in it.header(), "its nodes")
    session.close()


async def test_an_observation_that_cannot_begin_is_told() -> None:
    session = FakeSession()
    session.script.fail_next("observe", NotReachableError("no node answers", "Look at its logs."))
    app = DmqApp(lambda: session)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        it = Console(pilot, app, session)
        await it.until(lambda: bool(it.toasts), "the error")
        assert it.toasts == ["no node answers\nLook at its logs."]
    session.close()


async def test_a_fault_of_our_own_in_the_background_is_told_without_a_traceback() -> None:
    session = FakeSession()
    session.script.fail_next("observe", DmqError("boom", ""))
    app = DmqApp(lambda: session)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        it = Console(pilot, app, session)
        await it.until(lambda: it.toasts == ["boom"], "the error")
    session.close()


# -- sizes -------------------------------------------------------------------------------------------------------------


async def test_a_narrow_screen_shows_nodes_one_pane_and_the_load() -> None:
    async with console(size=NARROW) as it:
        assert it.shown() == [PaneId.QUEUES]
        text = it.screen_text()
        assert "●" in text
        assert "1 Nodes  2 Exchanges  3 Queues" in text
        assert "no load; l starts one" in text
        await it.press("5")
        assert it.shown() == [PaneId.STORY]
        assert all(len(line) <= NARROW[0] for line in it.screen_text().splitlines())


@pytest.mark.parametrize("key", ["1", "2", "3", "4", "5", "6"])
async def test_each_pane_can_have_the_whole_screen_and_give_it_back(key: str) -> None:
    async with console() as it:
        await it.press(key, "m")
        assert it.shown() == [PaneId(int(key))]
        await it.press("escape")
        assert it.shown() == list(PaneId)


async def test_a_terminal_that_is_too_small_says_so_and_lives_again_when_it_grows() -> None:
    async with console(size=NARROW) as it:
        await it.pilot.resize_terminal(50, 10)
        await it.until(lambda: "too small: dmq needs 60x16" in it.screen_text(), "the word that it is too small")
        assert it.shown() == []
        await it.pilot.resize_terminal(*WIDE)
        await it.until(lambda: it.shown() == list(PaneId), "every pane")


async def test_tab_and_arrows_go_round_the_panes() -> None:
    async with console() as it:
        seen = []
        for _ in range(6):
            await it.press("tab")
            seen.append(it.main.pane)
        assert seen == [PaneId(n) for n in (4, 5, 6, 1, 2, 3)]
        await it.press("left")
        assert it.main.pane is PaneId.EXCHANGES
        await it.press("shift+tab")
        assert it.main.pane is PaneId.NODES


async def test_tabs_and_footer_obey_the_mouse() -> None:
    async with console(size=NARROW) as it:
        await it.pilot.click(it.main.tabs, offset=(2, 0))
        assert it.main.pane is PaneId.NODES
        await it.pilot.click(it.main.key_line, offset=(it.footer().index("l load"), 0))
        await it.until(lambda: it.main.loads.active, "the load")


async def test_t_on_a_narrow_screen_goes_to_the_tail() -> None:
    async with console(size=NARROW) as it:
        await it.press("3", "t")
        assert it.shown() == [PaneId.TAIL]


async def test_a_thousand_queues_are_listed_and_found() -> None:
    async with console(FakeSession(thousand_queues)) as it:
        await it.press("3", "slash")
        await write(it.pilot, "bulk.0777")
        assert it.main.panes[PaneId.QUEUES].title_text == "3 Queues · 1 of 1,007 · /bulk.0777"


async def test_the_other_theme_is_one_key_away() -> None:
    async with console() as it:
        await it.press("T")
        assert it.app.theme == "dmq-light"
        await it.press("T")
        assert it.app.theme == "dmq-dark"


async def test_nothing_blocks_the_ui_thread_while_the_session_is_slow() -> None:
    async with console() as it:
        with it.session.script.hold("load"), it.session.script.hold("tail"), it.session.script.hold("perform"):
            await it.press("3", "t", "l", "1", "home", "R", "y")
            assert "starting" in it.main.load.title_text or it.main.loads.doing == "starting"
            await it.press("2")
            assert it.main.pane is PaneId.EXCHANGES
        assert threading.current_thread() is threading.main_thread()
