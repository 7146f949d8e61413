"""A person breaks and mends the cluster as a whole in the console."""

from __future__ import annotations

import pytest
from console import NARROW, WIDE, Console, console
from one_screen import write

from dmq_core.actions.action import Action
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Backend, NodeAction
from dmq_core.errors import ClusterError
from dmq_core.testing import FakeSession, hostile
from dmq_tui.commands import BY_ID, PaneId
from dmq_tui.panes.tables import QueuesPane
from dmq_tui.screens.confirm.screen import ConfirmScreen
from dmq_tui.screens.faults.screen import FaultsScreen

ALARM = Fault(FaultKind.MEMORY_ALARM, "rmq2")
CUT = Fault(FaultKind.CUT_LINK, "rmq1", peer="rmq3")
SIZES = [WIDE, NARROW]


async def opened(it: Console, node_row: int = 1) -> FaultsScreen:
    """The menu for the node on that row of pane 1, once the nodes have told of the active faults."""
    await it.press("1", "home", *["down"] * node_row, "B")
    screen = it.app.screen
    assert isinstance(screen, FaultsScreen)
    await it.until(lambda: screen._told is not None or bool(screen._trouble), "the active faults")
    return screen


async def chosen(it: Console, kind: str, *keys: str) -> None:
    """Puts the cursor on the fault of that kind, presses `keys` and says yes."""
    screen = it.app.screen
    assert isinstance(screen, FaultsScreen)
    row = next(i for i, item in enumerate(screen.list.entries) if item.id == kind)
    await it.press("home", *["down"] * row, *keys, "enter")
    assert isinstance(it.app.screen, ConfirmScreen)
    await it.press("y")
    await it.until(lambda: any("it took" in t for t in it.story()), "the end of it")


@pytest.mark.parametrize("size", SIZES)
async def test_everything_is_in_sight_with_its_words(size: tuple[int, int]) -> None:
    session = FakeSession()
    session.cluster.inject(ALARM)
    session.cluster.inject(CUT)
    async with console(session, size) as it:
        screen = await opened(it)
        await it.until(lambda: "2 active faults" in it.screen_text(), "the active faults")
        text = it.screen_text()
        for words in (
            "✗ Memory alarm at rmq2",
            "✗ Cut link of rmq1 and rmq3",
            "↵ undo: ",
            "Rolling restart",
            "Remove rmq2",
            "It takes 20 s at most",
            "dmq fault do clear-memory-alarm --node rmq2",
            "u undo all",
        ):
            assert words in text, words
        for selector in ("#box", "#means", "#node", "#peer", "#delay"):
            part = screen.query_one(selector).region
            assert part.height > 0, selector
            assert screen.region.contains_region(part), selector


async def test_an_alarm_is_asked_about_done_and_undone_with_u() -> None:
    async with console() as it:
        await opened(it)
        await it.press("enter")
        assert isinstance(it.app.screen, ConfirmScreen)
        asked = it.screen_text()
        assert "Memory alarm at rmq2?" in asked
        assert "It concerns all 1 connection of the cluster." in asked
        assert "dmq fault do memory-alarm --node rmq2 --yes" in asked
        await it.press("y")
        await it.until(lambda: it.session.broker.alarms == {("rmq2", "memory")}, "the alarm")
        await it.until(lambda: "u undo: Clear memory alarm at rmq2" in it.footer(), "the undo")
        await it.until(lambda: "! memory" in it.screen_text(), "the alarm beside its node")
        await it.press("u")
        await it.until(lambda: not it.session.broker.alarms, "the end of the alarm")
        await it.until(lambda: any("rmq2 relieved of its memory alarm; it took" in t for t in it.story()), "the story")
        assert "rmq2 put under a memory alarm (you)" in it.story()


async def test_saying_no_comes_back_to_the_menu_and_does_nothing() -> None:
    async with console() as it:
        screen = await opened(it)
        await it.press("enter", "enter")
        assert it.app.screen is screen
        await it.press("escape")
        assert it.app.screen is it.main
        assert it.session.cluster.active_faults() == ()
        assert "inject" not in it.session.script.calls


async def test_a_slow_link_takes_its_node_peer_and_delay_from_the_keys() -> None:
    async with console() as it:
        await opened(it)
        await chosen(it, "slow-link", "right", "p", "p", "d")
        assert it.session.cluster.active_faults() == (Fault(FaultKind.SLOW_LINK, "rmq2", peer="rmq3", delay_ms=250),)
        assert "u undo: Mend link of rmq3 and rmq2" in it.footer()


async def test_what_a_fault_has_no_use_for_is_left_alone() -> None:
    async with console() as it:
        screen = await opened(it)
        await it.press("p", "d", "right")
        assert (screen._aim.peer, screen._aim.delay_ms, screen._aim.node) == (None, 100, "rmq3")


async def test_an_active_fault_is_undone_at_once_from_the_menu() -> None:
    session = FakeSession()
    session.cluster.inject(CUT)
    async with console(session) as it:
        await opened(it)
        await it.press("home", "enter")
        await it.until(lambda: not it.session.cluster.active_faults(), "the link")
        await it.until(lambda: any("link of rmq1 and rmq3 mended; it took" in t for t in it.story()), "the story")


async def test_one_key_undoes_all_active_faults() -> None:
    session = FakeSession()
    for fault in (ALARM, CUT, Fault(FaultKind.DISK_ALARM, "rmq1")):
        session.cluster.inject(fault)
    async with console(session) as it:
        await opened(it)
        await it.press("u")
        await it.until(lambda: not it.session.cluster.active_faults(), "the cluster")
        await it.until(lambda: any("3 faults undone; it took" in t for t in it.story()), "the story")
        await opened(it)
        await it.press("u")
        assert it.toasts == ["There are no active faults, and nothing to undo."]


async def test_what_cannot_be_undone_does_not_keep_the_others_active() -> None:
    session = FakeSession()
    for fault in (ALARM, CUT):
        session.cluster.inject(fault)
    session.script.fail_next("inject", ClusterError("rmq2 does not answer", "See its log."))
    async with console(session) as it:
        await opened(it)
        await it.press("u")
        await it.until(lambda: bool(it.toasts), "the error")
        assert it.toasts == ["rmq2 does not answer\nSee its log."]
        assert len(it.session.cluster.active_faults()) == 1


async def test_a_leader_moves_to_the_chosen_node_and_back() -> None:
    async with console() as it:
        await it.press("3", "home", *["down"] * 2)
        queues = it.main.panes[PaneId.QUEUES]
        row = queues.table.cursor_item if isinstance(queues, QueuesPane) else None
        assert row is not None
        before, target = row.view.leader, next(n for n in row.view.members if n != row.view.leader)
        await opened(it, int(target[-1]) - 1)
        await chosen(it, "move-leader")
        queue = it.session.broker.queues[row.key]
        assert queue.leader == target
        await it.press("u")
        await it.until(lambda: queue.leader == before, "the leader before")


async def test_a_node_more_comes_and_goes_again() -> None:
    async with console() as it:
        await opened(it)
        await chosen(it, "add")
        assert list(it.session.broker.nodes) == ["rmq1", "rmq2", "rmq3", "rmq4"]
        assert "u undo: Remove rmq4" in it.footer()
        await it.press("u")
        await it.until(lambda: list(it.session.broker.nodes) == ["rmq1", "rmq2", "rmq3"], "three nodes")
        await it.until(lambda: any("rmq4 removed; it took" in t for t in it.story()), "the story")


async def test_without_a_majority_the_name_has_to_be_typed() -> None:
    session = FakeSession()
    for node in ("rmq2", "rmq3"):
        session.perform(Action(NodeAction.KILL, node))
    async with console(session) as it:
        await opened(it, 0)
        await it.press("enter", "y", "enter")
        assert "no majority" in it.screen_text()
        assert it.session.cluster.active_faults() == ()
        await it.press("backspace")
        await write(it.pilot, "rmq1")
        await it.press("enter")
        await it.until(lambda: it.session.broker.alarms == {("rmq1", "memory")}, "the alarm")


async def test_what_cannot_be_done_now_says_why_and_does_not_ask() -> None:
    session = FakeSession()
    session.perform(Action(NodeAction.KILL, "rmq2"))
    async with console(session) as it:
        screen = await opened(it)
        await it.press("enter")
        assert it.app.screen is screen
        assert it.toasts == ["rmq2 is stopped."]


async def test_a_fault_that_fails_says_what_and_what_to_do() -> None:
    async with console() as it:
        it.session.script.fail_next("inject", ClusterError("rmq2 does not [answer]", "See its log."))
        await opened(it)
        await it.press("enter", "y")
        await it.until(lambda: bool(it.toasts), "the error")
        assert it.toasts == ["rmq2 does not [answer]\nSee its log."]
        assert any(t.startswith("Memory alarm at rmq2 failed after") for t in it.story())
        assert it.main.actions.undo is None


async def test_nodes_that_do_not_tell_leave_the_alarms_of_the_figures() -> None:
    session = FakeSession()
    session.cluster.inject(ALARM)
    session.script.fail_next("active_faults", ClusterError("rmq1 is silent"))
    async with console(session) as it:
        screen = await opened(it)
        await it.until(lambda: "active faults are not known: rmq1 is silent" in it.screen_text(), "the trouble")
        assert screen.list.entries[0].undoes


async def test_the_cursor_stays_with_its_line_when_the_nodes_tell() -> None:
    session = FakeSession()
    session.cluster.inject(CUT)
    async with console(session) as it:
        with session.script.hold("active_faults"):
            await it.press("1", "home", "B", "down")
            screen = it.app.screen
            assert isinstance(screen, FaultsScreen)
            assert "asking the nodes for active faults" in it.screen_text()
            assert not any(item.undoes for item in screen.list.entries)
        await it.until(lambda: screen.list.entries[0].undoes, "the active faults")
        chosen = screen.list.cursor_item
        assert chosen is not None
        assert chosen.id == "disk-alarm"


async def test_another_action_at_the_same_node_is_waited_for() -> None:
    async with console() as it:
        with it.session.script.hold("act"):
            await it.press("1", "home", "down", "K", "y")
            await opened(it)
            await it.press("enter", "y")
            assert it.toasts == ["Kill rmq2 is under way; wait for its end."]
        assert "inject" not in it.session.script.calls


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (FakeSession(read_only=True), "Faults of the cluster: this session is read-only."),
        (FakeSession(backend=Backend.ATTACHED), "Dmq did not make this cluster, so nothing is broken on it."),
    ],
)
async def test_it_is_refused_where_nothing_may_be_broken(session: FakeSession, reason: str) -> None:
    async with console(session) as it:
        await it.press("B")
        assert it.toasts == [reason]
        assert it.app.screen is it.main


async def test_the_palette_and_the_help_know_it() -> None:
    async with console() as it:
        await it.press("question_mark")
        assert BY_ID["faults"].help.split(";")[0] in " ".join(it.screen_text().split())
        await it.press("escape", "colon")
        await write(it.pilot, "faults")
        await it.until(lambda: "faults · Faults of the cluster" in it.screen_text(), "the hit")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, FaultsScreen), "the menu")


@pytest.mark.parametrize("size", SIZES)
async def test_hostile_names_are_shown_safely(size: tuple[int, int]) -> None:
    async with console(FakeSession(hostile, name="[bold red]x[/]"), size) as it:
        await it.press("3", "end")
        await opened(it)
        await it.press("end")
        assert "\x1b" not in it.screen_text()
        assert "Faults of [bold red]x[/]" in it.screen_text()


async def test_a_load_has_an_alarm_by_hand_on_its_curve() -> None:
    async with console() as it:
        await it.press("l")
        await it.until(lambda: it.main.loads.account() is not None, "the load")
        await it.advance(3)
        await opened(it)
        await chosen(it, "memory-alarm")
        await it.advance(3)
        account = it.main.loads.account()
        assert account is not None
        assert account.current_confirm_gap_s > 2
        await it.press("u")
        await it.until(lambda: not it.session.broker.alarms, "the end of the alarm")
        await it.advance(1)
        await it.press("l")
        await it.until(lambda: it.main.loads.report is not None, "the verdict")
        report = it.main.loads.report
        assert report is not None
        assert [m.text for m in report.result.marks if m.kind == "fault"] == ["rmq2 put under a memory alarm"]
        assert [m.text for m in report.result.marks if m.kind == "undo"] == ["rmq2 relieved of its memory alarm"]
