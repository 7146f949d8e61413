"""The screen that breaks something under load and shows the verdict."""

from __future__ import annotations

import pytest
from console import NARROW, WIDE, console
from one_screen import Stage, until, write
from textual.pilot import Pilot

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import PROOF_USES, ActionKind
from dmq_core.actions.wording import sentences_of
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import Backend, NodeAction, NodeState
from dmq_core.errors import ClusterError
from dmq_core.proof.result import Curves, TimelineMark, Verdict
from dmq_core.proof.scenario import checked_scenario
from dmq_core.session.protocol import Proof
from dmq_core.testing import HOSTILE_NAMES, FakeSession, hostile
from dmq_tui.app import end_proof
from dmq_tui.screens.proof.form import TARGET_WORDS, ProofForm
from dmq_tui.screens.proof.lines import chart
from dmq_tui.screens.proof.screen import ProofPhase, ProofScreen
from dmq_tui.widgets.prose import text_of

SIZES = [WIDE, NARROW]


def proving(session: FakeSession, kept: list[Proof | None] | None = None) -> Stage:
    keep = (lambda _proof: None) if kept is None else kept.append
    return Stage(ProofScreen(session, session.snapshot, keep=keep, clock=lambda: session.broker.now))


def the_screen(stage: Stage) -> ProofScreen:
    screen = stage.screen_stack[1]
    assert isinstance(screen, ProofScreen)
    return screen


async def begun(stage: Stage, pilot: Pilot[None]) -> None:
    await pilot.pause()
    await pilot.press("r")
    await pilot.pause()
    await pilot.press("y")
    await until(pilot, lambda: the_screen(stage)._proof is not None, "the run goes on")


async def advance(session: FakeSession, pilot: Pilot[None], seconds: float) -> None:
    for _ in range(int(seconds)):
        session.advance(1.0)
        await pilot.pause(0.01)


async def shown(stage: Stage, pilot: Pilot[None], words: str) -> str:
    await until(pilot, lambda: words in stage.everything(), words)
    return stage.everything()


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_goes_from_the_form_over_the_live_view_to_pass(size: tuple[int, int]) -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=size) as pilot:
        await begun(stage, pilot)
        await advance(session, pilot, 5)
        live = await shown(stage, pilot, "leader rmq1 →")
        for words in ("▲ 3.", "rmq1 killed", "+0.5", "leader rmq1 →", "confirmed", "in flight", "longest gap"):
            assert words in live, words
        assert "✗ stopped" in live
        await advance(session, pilot, 15)
        over = await shown(stage, pilot, "PASS: every message is accounted for")
        assert "confirmed messages were delivered, and every queue was empty on" in over
        assert "leader elected +0.5" in over
        assert "/state/dmq/proofs/kill-leader.html and .json" in over
        assert {n.state for n in session.cluster.nodes()} == {NodeState.RUNNING}


async def test_it_asks_first_names_the_impact_and_starts_on_cancel() -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await pilot.pause()
        await pilot.press("enter")
        asked = await shown(stage, pilot, "Prove kill leader?")
        assert "2 of 3 nodes remain: quorum OK, cannot lose another." in asked
        assert "dmq proof run --fault kill --target leader" in asked
        await pilot.press("enter")
        await pilot.pause()
        assert the_screen(stage).phase is ProofPhase.IDLE
        assert "prove" not in session.script.calls


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (FakeSession(read_only=True), "this session is read-only"),
        (FakeSession(backend=Backend.ATTACHED), "dmq did not make dmq"),
    ],
)
async def test_what_may_not_be_broken_is_refused_with_the_reason(session: FakeSession, reason: str) -> None:
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await pilot.pause()
        await pilot.press("r")
        await shown(stage, pilot, reason)
        assert stage.screen is the_screen(stage)
        assert "prove" not in session.script.calls


async def test_the_key_is_refused_where_nothing_may_be_broken() -> None:
    async with console(FakeSession(read_only=True)) as it:
        await it.press("P")
        assert it.toasts == ["Proof: this session is read-only."]
    async with console(FakeSession(backend=Backend.ATTACHED)) as it:
        await it.press("P")
        assert "Dmq did not make this cluster" in it.toasts[0]


async def test_the_console_opens_it_with_one_key_and_comes_back_with_esc() -> None:
    async with console() as it:
        await it.press("P")
        assert isinstance(it.app.screen, ProofScreen)
        await it.press("escape")
        assert it.app.screen_stack == [it.main]


async def test_lost_messages_are_a_fail_in_one_line_with_the_reason() -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await begun(stage, pilot)
        session.broker.lose_confirmed = 3
        await advance(session, pilot, 20)
        over = await shown(stage, pilot, "FAIL: not every message is accounted for")
        assert "3 messages were confirmed and not delivered, and every queue was empty on" in over


async def test_leaving_in_the_middle_asks_and_undoes_the_fault_first() -> None:
    session = FakeSession()
    kept: list[Proof | None] = []
    stage = proving(session, kept)
    async with stage.run_test(size=WIDE) as pilot:
        await begun(stage, pilot)
        await advance(session, pilot, 4)
        assert session.broker.nodes["rmq1"].state is NodeState.STOPPED
        await pilot.press("escape")
        assert "Every fault is undone first" in await shown(stage, pilot, "End the run?")
        await pilot.press("escape")
        await pilot.pause()
        assert the_screen(stage).phase is ProofPhase.RUNNING
        await pilot.press("escape")
        await pilot.pause()
        await pilot.press("y")
        await shown(stage, pilot, "ending: faults are undone first")
        await advance(session, pilot, 5)
        await until(pilot, lambda: the_screen(stage).phase is ProofPhase.OVER, "the verdict")
        assert {n.state for n in session.cluster.nodes()} == {NodeState.RUNNING}
        await pilot.press("escape")
        await pilot.pause()
        assert stage.results == [None]
        assert len(kept) == 2
        assert kept[-1] is None


async def test_a_run_that_is_ended_before_its_fault_is_inconclusive() -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await begun(stage, pilot)
        await advance(session, pilot, 1)
        await pilot.press("escape")
        await pilot.pause()
        await pilot.press("y")
        await advance(session, pilot, 1)
        over = await shown(stage, pilot, "INCONCLUSIVE: this run cannot tell")
        assert "A kill was to happen, and the journal holds no fault." in over


async def test_losing_the_majority_needs_the_clusters_name_typed() -> None:
    session = FakeSession()
    session.perform(Action(NodeAction.KILL, "rmq3"))
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await pilot.pause()
        await pilot.press("r")
        await pilot.pause()
        assert "no majority" in stage.everything()
        assert "--allow-majority-loss --force" in stage.everything()
        await pilot.press("y", "enter")
        await pilot.pause()
        assert "prove" not in session.script.calls
        await pilot.press("backspace")
        await write(pilot, "dmq")
        await pilot.press("enter")
        await until(pilot, lambda: the_screen(stage)._proof is not None, "the run goes on")


async def test_what_goes_wrong_is_told_and_it_can_be_tried_again() -> None:
    session = FakeSession()
    session.script.fail_next("prove", ClusterError("the disk [bold]is full[/] \x1b[31m", "Make room."))
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await pilot.pause()
        await pilot.press("r")
        await pilot.pause()
        await pilot.press("y")
        # The second line shows once the box has grown for it.
        said = await shown(stage, pilot, "Make room.")
        assert "the disk [bold]is full[/] \\x1b[31m" in said
        await begun(stage, pilot)


async def test_the_arrow_keys_choose_what_to_break() -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await pilot.pause()
        await pilot.press("right", "right", "down", "right", "right", "right", "down", "right")
        await pilot.press("down", "right", "down", "right")
        await pilot.pause()
        assert the_screen(stage).form == ProofForm(NodeAction.PAUSE, "rmq1", 1000, 20.0, "classic")
        await pilot.press("up", "up", "up", "up", "right", "right", "right")
        await pilot.pause()
        assert the_screen(stage).form.fault is FaultKind.ROLLING_RESTART
        assert "every node, in turn" in stage.everything()


def test_every_fault_of_a_run_is_offered_with_its_words() -> None:
    assert max(len(use.hint) for use in PROOF_USES.values()) <= 52
    assert all(bool(use.victims) is not use.targeted for use in PROOF_USES.values())


@pytest.mark.parametrize("fault", PROOF_USES)
@pytest.mark.parametrize("target", [*TARGET_WORDS, "rmq2"])
def test_each_fault_says_what_it_will_cause_and_its_command(fault: ActionKind, target: str) -> None:
    session = FakeSession()
    form = ProofForm(fault, target)
    impact, command = form.impact(session.snapshot()), form.command(session.snapshot())
    assert any(s.text.startswith("Expected: ") for s in sentences_of(impact))
    assert ("--target" in command, target in form.title) == (form.targeted, form.targeted)
    assert checked_scenario(form.scenario, "recipe").steps[0].fault is fault
    session.close()


async def test_what_a_fault_has_no_use_for_cannot_be_chosen() -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=NARROW) as pilot:
        await pilot.pause()
        await pilot.press(*["down"] * 4, "right", *["up"] * 4, *["left"] * 6)
        await pilot.pause()
        assert the_screen(stage).form == ProofForm(FaultKind.MOVE_LEADER, "leader", queue_type="quorum")
        assert "away from the node that leads it" in stage.everything()
        await pilot.press("right")
        await pilot.pause()
        assert "the leaders of all queues" in stage.everything()
        assert the_screen(stage).query_one("#target").disabled


@pytest.mark.parametrize("size", SIZES)
async def test_an_alarm_is_on_the_chart_and_is_over_in_the_end(size: tuple[int, int]) -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press(*["right"] * 6)
        await begun(stage, pilot)
        await advance(session, pilot, 5)
        await shown(stage, pilot, "rmq1 put under a memory alarm")
        assert session.broker.alarms == {("rmq1", "memory")}
        proof = the_screen(stage)._proof
        assert proof is not None
        assert proof.progress().account.current_confirm_gap_s > 1.5
        await advance(session, pilot, 15)
        await shown(stage, pilot, "PASS: every message is accounted for")
        assert session.broker.alarms == set()


@pytest.mark.parametrize("fault", PROOF_USES)
def test_the_simulation_can_run_every_fault_that_is_offered(fault: ActionKind) -> None:
    session = FakeSession()
    before = session.cluster.nodes()
    form = ProofForm(fault)
    proof = session.prove(form.scenario)
    session.advance(form.scenario.duration_s)
    assert proof.finish().result.verdict is Verdict.PASS
    assert next(m.kind for m in proof.progress().marks) == "fault"
    assert (session.cluster.nodes(), session.cluster.active_faults()) == (before, ())
    session.close()


@pytest.mark.parametrize("size", SIZES)
async def test_hostile_names_are_shown_safely(size: tuple[int, int]) -> None:
    session = FakeSession(hostile, name="[bold red]x[/]")
    stage = proving(session)
    async with stage.run_test(size=size) as pilot:
        await begun(stage, pilot)
        await advance(session, pilot, 20)
        screen = await shown(stage, pilot, "PASS")
        assert "\x1b" not in screen


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_mark_is_escaped_in_the_chart(name: str) -> None:
    lines = chart(Curves(1.0, (1.0,), (1.0,)), (TimelineMark(0.5, "leader", name),), 1.0, 4.0, 400, 9)
    text = text_of(lines)
    assert len(text.splitlines()) == len(lines)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_a_gap_is_red_ground_and_the_future_is_empty() -> None:
    lines = chart(Curves(1.0, (10.0, 0.0, 10.0), (10.0, 0.0, 10.0)), (), 3.0, 6.0, 76, 6)
    ground = lines[1]
    tones = [(cell.text.strip(), str(cell.tone)) for cell in ground[1:] if cell.text.strip()]
    assert tones == [("█" * 10, "accent"), ("▁" * 10, "bad"), ("█" * 10, "accent")]


@pytest.mark.parametrize("size", SIZES)
async def test_everything_that_matters_is_in_sight(size: tuple[int, int]) -> None:
    session = FakeSession()
    stage = proving(session)
    async with stage.run_test(size=size) as pilot:
        await begun(stage, pilot)
        await advance(session, pilot, 20)
        await shown(stage, pilot, "PASS")
        for selector in ("#verdict", "#why", "#chart", "#account", "KeysFooter"):
            region = the_screen(stage).query_one(selector).region
            assert region.height > 0, selector
            assert the_screen(stage).region.contains_region(region), selector


async def test_leaving_the_console_ends_the_run_and_undoes_its_fault() -> None:
    session = FakeSession(realtime=True)
    proof = session.prove(ProofForm().scenario)
    end_proof(proof)
    assert proof.wait(0.0)
    session.close()
