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
from dmq_core.demo.model import Question, StepResult
from dmq_core.demo.runner import Playing
from dmq_core.demo.text import WIDTH, closing, opening, result_lines, step_lines
from dmq_core.errors import DmqError, InvalidInputError, RefusedError
from dmq_core.testing.simulation.broker import SimBroker
from dmq_core.testing.simulation.demo_environment import PATIENCE_S, MemoryStage

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


class World(MemoryStage):
    """A stage on which demos are found by their names."""

    def play(self, name: str, patience_s: float = PATIENCE_S) -> Playing:  # type: ignore[type-arg]  # of any scene
        return Playing(name, find_demo(name), self.backdrop(patience_s=patience_s))


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.closing(World()) as stage:
        yield stage


@pytest.mark.parametrize("name", demo_names())
def test_every_claim_holds_also_when_its_step_is_repeated_and_nothing_is_left(world: World, name: str) -> None:
    playing = world.play(name)
    for index in range(len(playing.demo.steps)):
        for _ in range(2):
            result = playing.do(index)
            assert result.held, f"{result.title}: {result.seen}"
    assert playing.close().held
    assert not world.remains


@pytest.mark.parametrize(("name", "index"), STEPS)
def test_a_claim_that_is_broken_is_seen_not_to_hold_and_holds_again_when_it_is_played_again(
    world: World, name: str, index: int
) -> None:
    with world.play(name) as playing:
        for earlier in range(index):
            playing.do(earlier)
        assert not playing.do(index, spoil=True).held
        again = playing.do(index)
        assert again.held, f"{again.title}: {again.seen}"
    assert not world.remains


def test_a_demo_whose_last_claim_did_not_hold_did_not_hold(world: World) -> None:
    with world.play("topic_exchange") as playing:
        for index in range(3):
            playing.do(index)
        playing.do(3, spoil=True)
    assert not playing.close().held


@pytest.mark.parametrize("name", [name for name in demo_names() if not find_demo(name).breaks])
def test_it_can_be_played_twice_at_once_and_left_in_the_middle(world: World, name: str) -> None:
    with world.play(name) as first, world.play(name) as second:
        for index in range(2):
            for playing in (first, second):
                assert playing.do(index).held
    assert not first.close().held, "it was not played to its end"
    assert not world.remains


@pytest.mark.parametrize("name", BREAKING)
def test_a_cluster_is_whole_again_after_each_step_at_which_a_demo_is_left(world: World, name: str) -> None:
    for last in range(len(find_demo(name).steps)):
        with world.play(name) as playing:
            for index in range(last + 1):
                playing.do(index, spoil=index == last)
        assert not playing.close().left
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
    with world.play(name) as playing:
        for index, step in enumerate(demo.steps):
            words = playing.words(index)
            compile(words.code, step.title, "exec", ast.PyCF_ONLY_AST)
            assert "self" not in words.code
            assert all(understood(line) for line in words.command.splitlines()), words.command
            lines = [*opening(name, demo), *step_lines(words, len(demo.steps)), *closing(demo, playing.close())]
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
    with world.play("direct_exchange") as playing:
        assert "--cluster" not in playing.words(0).command
    elsewhere = SimBroker("elsewhere", 3, backend=Backend.LOCAL, started=True, realtime=False)
    with contextlib.closing(World(elsewhere)) as other, other.play("direct_exchange") as playing:
        assert all(line.endswith(" --cluster elsewhere") for line in playing.words(0).command.splitlines())


def test_the_commands_shown_do_not_name_a_cluster_that_somebody_else_made() -> None:
    attached = SimBroker("theirs", 3, backend=Backend.ATTACHED, started=True, realtime=False)
    with contextlib.closing(World(attached)) as other, other.play("direct_exchange") as playing:
        assert "--cluster" not in playing.words(0).command


def test_a_step_cannot_be_done_before_those_in_front_of_it(world: World) -> None:
    with world.play("direct_exchange") as playing:
        with pytest.raises(InvalidInputError, match="step 1 was not done yet"):
            playing.do(1)
        with pytest.raises(InvalidInputError, match="there is no step 99"):
            playing.do(98)


def test_an_answer_is_used_and_a_bad_one_is_refused(world: World) -> None:
    with world.play("direct_exchange") as playing:
        for index in range(3):
            playing.do(index)
        with pytest.raises(InvalidInputError, match="Say something"):
            playing.do(3, " ")
        assert "'paid'" in playing.do(3, "paid").seen
        assert "--key 'it is'" in (playing.do(3, "it is") and playing.words(3).command)


def test_a_question_takes_only_its_choices() -> None:
    question = Question("Which?", "a", ("a", "b"))
    assert [question.objection(answer) for answer in ("a", "c")] == ["", "Say a, b."]
    assert Question("Which?", "a", most=3).objection("long") == "At most 3 characters."


def test_what_goes_wrong_on_the_cluster_is_what_was_seen(world: World) -> None:
    with world.play("direct_exchange", patience_s=0.5) as playing:
        assert playing.do(0).held
        for node in ("rmq1", "rmq2", "rmq3"):
            world.broker.kill(node)
        result = playing.do(1)
        assert not result.held
        assert "connection refused" in result.seen
    assert playing.close().left, "with no node there, nothing can be removed"


def test_a_read_only_session_plays_none(world: World) -> None:
    with pytest.raises(RefusedError, match="read-only"):
        Playing("direct_exchange", find_demo("direct_exchange"), world.backdrop(read_only=True))


def test_an_unknown_demo_is_named() -> None:
    with pytest.raises(DmqError, match="no demo 'nothing'"):
        find_demo("nothing")


def test_outside_text_is_told_as_text() -> None:
    lines = list(result_lines(StepResult("t", "c", held=False, seen="\x1b[31mred")))
    assert lines == ["✗ not held \\x1b[31mred"]
