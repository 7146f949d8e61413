"""Every demo: its claims hold, its checks fail when they are broken, it reads well, and it leaves nothing behind."""

from __future__ import annotations

import ast
import contextlib
import shlex
from collections.abc import Iterator

import click
import pytest

from dmq_core.cli.app import dmq
from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.demo.discovery import demo_names, find_demo
from dmq_core.demo.glossary import TERMS
from dmq_core.demo.model import DemoQuestion, StepResult
from dmq_core.demo.runner import DemoRun
from dmq_core.demo.text import WIDTH, closing, opening, result_lines, step_lines
from dmq_core.errors import DmqError, InvalidInputError, RefusedError
from dmq_core.testing.simulation.broker import SimBroker
from dmq_core.testing.simulation.demo_environment import PATIENCE_S, MemoryDemoEnvironment

# Their clients wait for seconds at nodes that are silent or down.
LONG = {"message_persistence", "network_partition", "node_failover", "rolling_upgrade"}
STEPS = [
    pytest.param(name, index, marks=pytest.mark.thorough if name in LONG else ())
    for name in demo_names()
    for index in range(len(find_demo(name).steps))
]
BREAKING = [
    pytest.param(name, marks=pytest.mark.thorough if name in LONG else ())
    for name in demo_names()
    if find_demo(name).breaks
]


class World(MemoryDemoEnvironment):
    """A stage on which demos are found by their names."""

    def run(self, name: str, patience_s: float = PATIENCE_S) -> DemoRun:  # type: ignore[type-arg]  # of any scene
        return DemoRun(name, find_demo(name), self.environment(patience_s=patience_s))


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.closing(World()) as stage:
        yield stage


@pytest.mark.parametrize("name", demo_names())
def test_every_claim_holds_also_when_its_step_is_repeated_and_nothing_is_left(world: World, name: str) -> None:
    demo_run = world.run(name)
    for index in range(len(demo_run.demo.steps)):
        for _ in range(2):
            result = demo_run.do(index)
            assert result.passed, f"{result.title}: {result.seen}"
    assert demo_run.close().passed
    assert not world.remains


@pytest.mark.parametrize(("name", "index"), STEPS)
def test_a_claim_that_is_broken_is_seen_not_to_hold_and_holds_again_when_it_is_played_again(
    world: World, name: str, index: int
) -> None:
    with world.run(name) as demo_run:
        for earlier in range(index):
            demo_run.do(earlier)
        assert not demo_run.do(index, sabotage=True).passed
        again = demo_run.do(index)
        assert again.passed, f"{again.title}: {again.seen}"
    assert not world.remains


def test_a_demo_whose_last_claim_did_not_hold_did_not_hold(world: World) -> None:
    with world.run("topic_exchange") as demo_run:
        for index in range(3):
            demo_run.do(index)
        demo_run.do(3, sabotage=True)
    assert not demo_run.close().passed


@pytest.mark.parametrize("name", [name for name in demo_names() if not find_demo(name).breaks])
def test_it_can_be_played_twice_at_once_and_left_in_the_middle(world: World, name: str) -> None:
    with world.run(name) as first, world.run(name) as second:
        for index in range(2):
            for demo_run in (first, second):
                assert demo_run.do(index).passed
    assert not first.close().passed, "it was not played to its end"
    assert not world.remains


@pytest.mark.parametrize("name", BREAKING)
def test_a_cluster_is_whole_again_after_each_step_at_which_a_demo_is_left(world: World, name: str) -> None:
    for last in range(len(find_demo(name).steps)):
        with world.run(name) as demo_run:
            for index in range(last + 1):
                demo_run.do(index, sabotage=index == last)
        assert not demo_run.close().left
        assert {node.state for node in world.cluster.nodes()} == {NodeState.RUNNING}
        assert not world.remains


@pytest.mark.parametrize("name", demo_names())
def test_its_words_are_there_and_fit(world: World, name: str) -> None:
    demo = find_demo(name)
    assert len(demo.summary) <= 120
    assert all((demo.title, demo.seen, demo.when, demo.to_try, demo.takes_s))
    assert bool(demo.impact) == demo.breaks >= demo.loses_majority
    compile(demo.code, name, "exec", ast.PyCF_ONLY_AST)
    assert {term for step in demo.steps for term in step.terms} <= set(TERMS)
    with world.run(name) as demo_run:
        for index, step in enumerate(demo.steps):
            words = demo_run.step_text(index)
            compile(words.code, step.title, "exec", ast.PyCF_ONLY_AST)
            assert "self" not in words.code
            assert all(understood(line) for line in words.command.splitlines()), words.command
            lines = [*opening(name, demo), *step_lines(words, len(demo.steps)), *closing(demo, demo_run.close())]
            assert max(len(line) for line in lines if not line.startswith("    ")) <= WIDTH


def understood(line: str) -> bool:
    """Whether `dmq` takes it, with all its options; `click.UsageError` says what it does not."""
    program, *words = shlex.split(line)
    command: click.Command = dmq
    context = click.Context(dmq)
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, line
        command, context = found, click.Context(found, context, name)
    command.make_context(context.info_name, words, context.parent)
    return program == "dmq"


def test_the_commands_shown_go_to_the_cluster_that_it_is_played_on(world: World) -> None:
    with world.run("direct_exchange") as demo_run:
        assert "--cluster" not in demo_run.step_text(0).command
    elsewhere = SimBroker("elsewhere", 3, backend=Backend.LOCAL, started=True, realtime=False)
    with contextlib.closing(World(elsewhere)) as other, other.run("direct_exchange") as demo_run:
        assert all(line.endswith(" --cluster elsewhere") for line in demo_run.step_text(0).command.splitlines())


def test_the_commands_shown_do_not_name_a_cluster_that_somebody_else_made() -> None:
    attached = SimBroker("theirs", 3, backend=Backend.ATTACHED, started=True, realtime=False)
    with contextlib.closing(World(attached)) as other, other.run("direct_exchange") as demo_run:
        assert "--cluster" not in demo_run.step_text(0).command


def test_a_step_cannot_be_done_before_those_in_front_of_it(world: World) -> None:
    with world.run("direct_exchange") as demo_run:
        with pytest.raises(InvalidInputError, match="step 1 was not done yet"):
            demo_run.do(1)
        with pytest.raises(InvalidInputError, match="there is no step 99"):
            demo_run.do(98)


def test_an_answer_is_used_and_a_bad_one_is_refused(world: World) -> None:
    with world.run("direct_exchange") as demo_run:
        for index in range(3):
            demo_run.do(index)
        with pytest.raises(InvalidInputError, match="Say something"):
            demo_run.do(3, " ")
        assert "'paid'" in demo_run.do(3, "paid").seen
        assert "--key 'it is'" in (demo_run.do(3, "it is") and demo_run.step_text(3).command)


def test_a_question_takes_only_its_choices() -> None:
    question = DemoQuestion("Which?", "a", ("a", "b"))
    assert [question.objection(answer) for answer in ("a", "c")] == ["", "Say a, b."]
    assert DemoQuestion("Which?", "a", most=3).objection("long") == "At most 3 characters."


def test_what_goes_wrong_on_the_cluster_is_what_was_seen(world: World) -> None:
    with world.run("direct_exchange", patience_s=0.5) as demo_run:
        assert demo_run.do(0).passed
        for node in ("rmq1", "rmq2", "rmq3"):
            world.broker.kill(node)
        result = demo_run.do(1)
        assert not result.passed
        assert "connection refused" in result.seen
    assert demo_run.close().left, "with no node there, nothing can be removed"


def test_a_read_only_session_plays_none(world: World) -> None:
    with pytest.raises(RefusedError, match="read-only"):
        DemoRun("direct_exchange", find_demo("direct_exchange"), world.environment(read_only=True))


def test_an_unknown_demo_is_named() -> None:
    with pytest.raises(DmqError, match="no demo 'nothing'"):
        find_demo("nothing")


def test_outside_text_is_told_as_text() -> None:
    lines = list(result_lines(StepResult("t", "c", passed=False, seen="\x1b[31mred")))
    assert lines == ["✗ not held \\x1b[31mred"]
