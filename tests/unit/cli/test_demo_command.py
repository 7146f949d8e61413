"""`dmq demo` on a RabbitMQ in memory: lists, plays through a pipe and by hand, and says what it leaves."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator

import pytest

from dmq_core.cli import connect
from dmq_core.cli import demo as command
from dmq_core.cli.app import dmq
from dmq_core.cli.output import Output
from dmq_core.cli.running import run
from dmq_core.cluster.protocol import Backend
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.discovery import demo_names, find_demo
from dmq_core.demo.fault_guard import DemoLock
from dmq_core.testing import SimBroker
from dmq_core.testing.simulation.demo_environment import MemoryDemoEnvironment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[DemoEnvironment]:
    with contextlib.closing(MemoryDemoEnvironment()) as stage:
        made = stage.environment()
        monkeypatch.setattr(connect, "find_cluster", lambda _settings: stage.cluster)
        monkeypatch.setattr(connect, "environment", lambda *_: made)
        yield made
        assert not stage.remains


def by_hand(
    environment: DemoEnvironment, monkeypatch: pytest.MonkeyPatch, said: str, name: str = "topic_exchange"
) -> bool:
    """Plays a demo with these lines typed; whether it held."""
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    return command._run_demo(name, find_demo(name), environment, Output(json=False), by_hand=True).passed


def test_every_demo_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dmq, "dmq", ("demo", "list", "--json")) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(demo_names())


@pytest.mark.usefixtures("environment")
def test_a_demo_is_played_through_and_told_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dmq, "dmq", ("demo", "run", "topic_exchange", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["demo"], told["held"]) == ("topic_exchange", True)
    assert {"title", "claim", "held", "seen"} <= set(told["steps"][0])


@pytest.mark.usefixtures("environment")
def test_all_demos_are_a_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmq_core.demo.discovery.demo_names", lambda: ("direct_exchange", "topic_exchange"))
    assert run(dmq, "dmq", ("demo", "run", "all", "--json")) == 0
    assert [one["held"] for one in json.loads(capsys.readouterr().out)] == [True, True]


@pytest.mark.usefixtures("environment")
def test_an_unknown_demo_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dmq, "dmq", ("demo", "run", "nothing")) == 2
    assert "there is no demo 'nothing'" in capsys.readouterr().err


def test_by_hand_it_waits_asks_and_repeats(
    environment: DemoEnvironment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_hand(environment, monkeypatch, "\n\n" * 2 + "\nr\n\n" + "\na.eu.alarm\n\n")
    told = capsys.readouterr().out
    assert told.count("One message that matches all three") == 1
    assert told.count("✓ held") == 6
    assert "key 'a.eu.alarm'" in told


def test_whoever_leaves_in_the_middle_is_not_told_what_was_not_seen(
    environment: DemoEnvironment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not by_hand(environment, monkeypatch, "\n\n\nq\n")
    told = capsys.readouterr().out
    assert "left after 2 of 4 steps; everything that it made is removed" in told
    assert "What you saw" not in told


def test_the_end_of_the_input_leaves(environment: DemoEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not by_hand(environment, monkeypatch, "")


@pytest.mark.usefixtures("environment")
def test_a_demo_that_takes_the_majority_says_so_and_wants_a_yes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dmq, "dmq", ("demo", "run", "message_persistence")) == 6
    told = capsys.readouterr().err
    assert "Message persistence on dmq: It stops every node" in told
    assert "no majority" in told
    assert "Use --yes" in told


@pytest.mark.usefixtures("environment")
def test_with_a_yes_it_is_played(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dmq, "dmq", ("demo", "run", "message_persistence", "--yes", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["held"]


@pytest.mark.usefixtures("environment")
def test_of_all_demos_those_that_may_not_be_played_are_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmq_core.demo.discovery.demo_names", lambda: ("direct_exchange", "message_persistence"))
    assert run(dmq, "dmq", ("demo", "run", "all", "--json")) == 0
    told = capsys.readouterr()
    assert [one["demo"] for one in json.loads(told.out)] == ["direct_exchange"]
    assert "message_persistence is left out" in told.err


def test_a_cluster_of_somebody_else_keeps_its_nodes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sim = SimBroker("mq.example.org", 3, backend=Backend.ATTACHED, started=True, realtime=False)
    with contextlib.closing(MemoryDemoEnvironment(sim)) as stage:
        monkeypatch.setattr(connect, "find_cluster", lambda _settings: stage.cluster)
        monkeypatch.setattr(connect, "environment", lambda *_: stage.environment())
        assert run(dmq, "dmq", ("demo", "run", "message_persistence", "--yes")) == 6
    assert "Message persistence: refused, dmq did not make mq.example.org" in capsys.readouterr().err


def test_beside_another_demo_that_takes_nodes_down_it_is_refused_before_it_asks(
    environment: DemoEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = DemoLock(environment.cluster)
    assert run(dmq, "dmq", ("demo", "run", "message_persistence", "--yes")) == 6
    turn.end()
    assert "another demo is taking nodes of dmq down" in capsys.readouterr().err
