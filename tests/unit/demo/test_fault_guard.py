"""Demos that take nodes down: who may, one at a time, never the majority unsaid, and everything is brought back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from dmq_core.actions.action import Action
from dmq_core.actions.gate import ClusterActions, actions_on, perform
from dmq_core.actions.wording import sentences_of
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Backend, NodeAction, NodeState
from dmq_core.demo.context import DemoContext
from dmq_core.demo.model import AnyDemo, CheckResult, Demo, DemoStep
from dmq_core.demo.runner import DemoRun, check_may_run, impact_of_demo
from dmq_core.errors import ClusterError, DmqError, InvalidInputError, RefusedError
from dmq_core.majority import Margin
from dmq_core.progress import no_progress
from dmq_core.testing import FakeCluster, SimBroker
from dmq_core.testing.simulation.demo_environment import MemoryDemoEnvironment

RUN, DOWN = NodeState.RUNNING, NodeState.STOPPED
ALARM = Fault(FaultKind.MEMORY_ALARM, "rmq1")


def demo_that(act: Callable[[DemoContext], object], *, loses_majority: bool = False, breaks: bool = True) -> AnyDemo:
    """A demo of one step, whose play is `act`."""
    step: DemoStep[DemoContext] = DemoStep("s", "k", act, "c", lambda _: CheckResult(True, "seen"), lambda _: None)
    return Demo(
        "Nodes go",
        "s",
        DemoContext,
        (step,),
        "s",
        "w",
        "",
        "t",
        1.0,
        lambda _: None,
        breaks=breaks,
        loses_majority=loses_majority,
        impact="It takes nodes down.",
    )


@pytest.fixture
def stage() -> Iterator[MemoryDemoEnvironment]:
    with contextlib.closing(MemoryDemoEnvironment()) as made:
        yield made


@pytest.fixture
def run(stage: MemoryDemoEnvironment) -> Iterator[Callable[[AnyDemo], DemoRun[DemoContext]]]:
    with contextlib.ExitStack() as playings:
        yield lambda demo: playings.enter_context(DemoRun("it", demo, stage.environment()))


Play = Callable[[AnyDemo], DemoRun[DemoContext]]


def states(stage: MemoryDemoEnvironment) -> tuple[NodeState, ...]:
    return tuple(node.state for node in stage.cluster.nodes())


@pytest.mark.parametrize("action", [NodeAction.KILL, NodeAction.STOP, NodeAction.PAUSE, NodeAction.DRAIN])
def test_a_node_that_was_taken_down_is_brought_back_when_the_demo_is_left(
    stage: MemoryDemoEnvironment, run: Play, action: NodeAction
) -> None:
    demo_run = run(demo_that(lambda context: context.perform(action, "rmq2")))
    assert demo_run.do(0).passed
    assert states(stage) != (RUN, RUN, RUN)
    assert not demo_run.close().left
    assert states(stage) == (RUN, RUN, RUN)


def test_a_node_that_was_frozen_while_it_was_cut_off_is_brought_back(stage: MemoryDemoEnvironment, run: Play) -> None:
    def act(context: DemoContext) -> None:
        context.perform(NodeAction.ISOLATE, "rmq3")
        context.perform(NodeAction.PAUSE, "rmq3")

    with run(demo_that(act)) as demo_run:
        assert demo_run.do(0).passed
    assert states(stage) == (RUN, RUN, RUN)


def test_whoever_interrupts_it_gets_a_whole_cluster_back(stage: MemoryDemoEnvironment, run: Play) -> None:
    def act(context: DemoContext) -> None:
        context.perform(NodeAction.KILL, "rmq2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), run(demo_that(act)) as demo_run:
        demo_run.do(0)
    assert states(stage) == (RUN, RUN, RUN)


def test_a_whole_cluster_that_was_stopped_is_started_together(stage: MemoryDemoEnvironment, run: Play) -> None:
    with run(demo_that(lambda context: context.stop_cluster(), loses_majority=True)) as demo_run:
        assert demo_run.do(0).passed
        assert states(stage) == (DOWN, DOWN, DOWN)
    assert states(stage) == (RUN, RUN, RUN)


def test_what_was_down_before_the_demo_stays_down() -> None:
    sim = SimBroker("dmq", 5, backend=Backend.LOCAL, started=True, realtime=False)
    with contextlib.closing(MemoryDemoEnvironment(sim)) as stage:
        stage.cluster.act(NodeAction.STOP, "rmq5")
        with DemoRun(
            "it", demo_that(lambda context: context.perform(NodeAction.KILL, "rmq1")), stage.environment()
        ) as one:
            assert one.do(0).passed
        assert states(stage) == (RUN, RUN, RUN, RUN, DOWN)


def test_a_fault_is_undone_at_the_end_and_not_twice(stage: MemoryDemoEnvironment, run: Play) -> None:
    assert isinstance(stage.cluster, FakeCluster)
    with run(demo_that(lambda context: context.perform(FaultKind.MEMORY_ALARM, "rmq1"))) as demo_run:
        assert demo_run.do(0).passed
        assert stage.cluster.active_faults() == (ALARM,)
    assert stage.cluster.active_faults() == ()

    def there_and_back(context: DemoContext) -> None:
        undo = context.perform(FaultKind.MEMORY_ALARM, "rmq1")
        assert undo == Action(FaultKind.CLEAR_MEMORY_ALARM, "rmq1")
        context.perform(undo.kind, "rmq1")

    with run(demo_that(there_and_back)) as demo_run:
        assert demo_run.do(0).passed
        before = stage.cluster.script.calls.count("inject")
    assert stage.cluster.script.calls.count("inject") == before


def test_a_fault_that_was_interrupted_is_undone_too(stage: MemoryDemoEnvironment) -> None:
    told: list[Action] = []

    def interrupted(action: Action) -> Action | None:
        told.append(action)
        if len(told) == 1:
            raise KeyboardInterrupt
        return None

    actions = replace(actions_on(stage.cluster, no_progress, read_only=False), perform=interrupted)
    demo = demo_that(lambda context: context.perform(FaultKind.MEMORY_ALARM, "rmq1"))
    with (
        pytest.raises(KeyboardInterrupt),
        DemoRun("it", demo, replace(stage.environment(), actions=actions)) as demo_run,
    ):
        demo_run.do(0)
    assert told == [Action(FaultKind.MEMORY_ALARM, "rmq1"), Action(FaultKind.CLEAR_MEMORY_ALARM, "rmq1")]


def test_an_act_that_was_interrupted_is_done_to_its_end_and_then_undone(stage: MemoryDemoEnvironment) -> None:
    """A drain goes on in its node when whoever asked for it is gone, and takes the node away later."""
    told: list[str] = []

    def interrupted(action: Action) -> Action | None:
        told.append(action.title)
        if len(told) == 1:
            raise KeyboardInterrupt
        return perform(stage.cluster, action, read_only=False)

    actions = replace(actions_on(stage.cluster, no_progress, read_only=False), perform=interrupted)
    demo = demo_that(lambda context: context.perform(NodeAction.DRAIN, "rmq2"))
    with (
        pytest.raises(KeyboardInterrupt),
        DemoRun("it", demo, replace(stage.environment(), actions=actions)) as demo_run,
    ):
        demo_run.do(0)
    assert told == ["Drain rmq2", "Drain rmq2", "Revive rmq2"]
    assert states(stage) == (RUN, RUN, RUN)


def test_a_cluster_that_cannot_be_made_whole_is_told(stage: MemoryDemoEnvironment, run: Play) -> None:
    assert isinstance(stage.cluster, FakeCluster)
    demo_run = run(demo_that(lambda context: context.perform(NodeAction.KILL, "rmq2")))
    demo_run.do(0)
    for _ in range(2):
        stage.cluster.script.fail_next("act", ClusterError("rmq2 does not boot"))
    assert "dmq is not whole: rmq2 does not boot" in demo_run.close().left


def test_a_majority_is_not_taken_by_a_demo_that_did_not_say_so(stage: MemoryDemoEnvironment, run: Play) -> None:
    with run(demo_that(lambda context: context.perform(NodeAction.KILL, "rmq1"))) as demo_run:
        assert demo_run.do(0).passed
        stage.cluster.act(NodeAction.STOP, "rmq2")
        assert "no majority" in demo_run.do(0).seen
        stage.cluster.act(NodeAction.START, "rmq2")
    with run(demo_that(lambda context: context.stop_cluster())) as demo_run:
        assert "no majority" in demo_run.do(0).seen
    assert states(stage) == (RUN, RUN, RUN)


def test_a_node_that_somebody_else_stopped_meanwhile_stays_down(stage: MemoryDemoEnvironment, run: Play) -> None:
    with run(demo_that(lambda context: context.perform(NodeAction.KILL, "rmq1"))) as demo_run:
        assert demo_run.do(0).passed
        stage.cluster.act(NodeAction.START, "rmq1")
        stage.cluster.act(NodeAction.STOP, "rmq2")
    assert states(stage) == (RUN, DOWN, RUN)


def test_two_demos_do_not_take_nodes_down_at_once(stage: MemoryDemoEnvironment, run: Play) -> None:
    demo = demo_that(lambda context: context.perform(NodeAction.KILL, "rmq1"))
    first = run(demo)
    with pytest.raises(RefusedError, match="another demo is taking nodes of dmq down"):
        run(demo)
    first.close()
    assert run(demo).do(0).passed


def test_clusters_have_turns_of_their_own(stage: MemoryDemoEnvironment, run: Play) -> None:
    demo = demo_that(lambda context: context.perform(NodeAction.KILL, "rmq1"))
    run(demo)
    sim = SimBroker("shop", 3, backend=Backend.LOCAL, started=True, realtime=False)
    with contextlib.closing(MemoryDemoEnvironment(sim)) as other, DemoRun("it", demo, other.environment()) as demo_run:
        assert demo_run.do(0).passed


def test_a_demo_that_does_not_say_that_it_takes_nodes_down_takes_none(stage: MemoryDemoEnvironment, run: Play) -> None:
    with run(demo_that(lambda context: context.perform(NodeAction.KILL, "rmq1"), breaks=False)) as demo_run:
        assert "does not declare that it takes nodes down" in demo_run.do(0).seen
    assert states(stage) == (RUN, RUN, RUN)


def test_the_acts_of_a_session_are_used_where_there_are_some(stage: MemoryDemoEnvironment) -> None:
    told: list[str] = []

    def refuse() -> None:
        raise InvalidInputError("not asked for")

    actions = ClusterActions(lambda action: told.append(action.title), refuse, refuse)
    demo = demo_that(lambda context: context.perform(NodeAction.KILL, "rmq1"))
    with DemoRun("it", demo, replace(stage.environment(), actions=actions)) as demo_run:
        assert demo_run.do(0).passed
    assert told == ["Kill rmq1"]


@pytest.mark.parametrize(
    ("backend", "nodes", "read_only", "error", "why"),
    [
        (Backend.ATTACHED, 3, False, RefusedError, "Nodes go: refused, dmq did not make dmq"),
        (Backend.LOCAL, 3, True, RefusedError, "read-only"),
        (Backend.LOCAL, 2, False, InvalidInputError, "it takes nodes down, and 2 of 2 run"),
    ],
)
def test_it_is_refused_where_nodes_may_not_or_must_not_go(
    backend: Backend, nodes: int, read_only: bool, error: type[DmqError], why: str
) -> None:
    sim = SimBroker("dmq", nodes, backend=backend, started=True, realtime=False)
    with contextlib.closing(MemoryDemoEnvironment(sim)) as stage, pytest.raises(error, match=why):
        check_may_run(demo_that(lambda _: None), stage.environment(read_only=read_only))


@pytest.mark.parametrize(
    ("nodes", "loses_majority", "margin", "word"),
    [
        (3, False, Margin.NO_MARGIN, "2 of 3 nodes remain at worst: quorum OK, cannot lose another."),
        (5, False, Margin.SAFE, "4 of 5 nodes remain at worst: quorum OK, can lose 1 node."),
        (5, True, Margin.NO_MAJORITY, "0 of 5 nodes remain at worst: no majority"),
    ],
)
def test_its_impact_says_what_goes_and_what_is_left(
    nodes: int, loses_majority: bool, margin: Margin, word: str
) -> None:
    impact = impact_of_demo(demo_that(lambda _: None, loses_majority=loses_majority), [RUN] * nodes)
    assert impact.margin is margin
    assert sentences_of(impact)[0].text == "It takes nodes down."
    assert sentences_of(impact)[1].text.startswith(word)


def test_the_impact_of_a_demo_that_keeps_every_node_takes_none_away() -> None:
    impact = impact_of_demo(replace(demo_that(lambda _: None), keeps_nodes=True), [RUN, RUN, RUN])
    assert impact.margin is Margin.SAFE
    assert sentences_of(impact)[1].text == "3 of 3 nodes run: quorum OK, can lose 1 node."
