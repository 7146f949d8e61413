"""Scenarios: the built-in ones make sense, and a file that makes none is told what is wrong, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmq_core.actions.catalog import PROOF_NAMES, PROOF_USES
from dmq_core.cluster.protocol import NodeAction
from dmq_core.errors import InvalidInputError
from dmq_core.proof.scenario import (
    EXAMPLE,
    ROLES,
    ScenarioStep,
    built_in_scenarios,
    checked_scenario,
    find_scenario,
    parse_scenario,
    scenario_of,
)


@pytest.mark.parametrize("name", built_in_scenarios())
def test_every_built_in_scenario_makes_sense(name: str) -> None:
    scenario = built_in_scenarios()[name]
    assert checked_scenario(scenario, name) == scenario
    assert scenario.title
    for step in scenario.steps:
        assert step.undo_s is None or step.at_s < step.undo_s < scenario.duration_s


def test_every_fault_has_a_scenario_for_every_role() -> None:
    names = set(built_in_scenarios())
    for kind, name in PROOF_NAMES.items():
        assert ({f"{name}-{role}" for role in ROLES} if PROOF_USES[kind].targeted else {name}) < names


@pytest.mark.parametrize("duration_s", [1.0, 5.0, 20.0, 600.0])
@pytest.mark.parametrize("name", [PROOF_NAMES[kind] for kind, use in PROOF_USES.items() if use.undo_s is not None])
def test_the_times_of_a_fault_fit_any_duration(name: str, duration_s: float) -> None:
    (step,) = scenario_of(name, "leader", duration_s).steps
    assert step.undo_s is not None
    assert 0 < step.at_s < step.undo_s < duration_s


def test_the_example_is_read_as_it_stands() -> None:
    scenario = parse_scenario(EXAMPLE, "example.toml")
    assert scenario.steps == (
        ScenarioStep(4.0, NodeAction.PAUSE, "leader", 12.0),
        ScenarioStep(20.0, NodeAction.KILL, "connected", 26.0),
    )
    assert scenario.workload.rate == 200
    assert (scenario.fault, scenario.target) == ("pause+kill", "leader+connected")


def test_steps_are_taken_in_the_order_of_their_times(tmp_path: Path) -> None:
    step = '[[step]]\nat = {}\nfault = "kill"\ntarget = "rmq{}"\nundo = 29\n'
    file = tmp_path / "two.toml"
    file.write_text(step.format(9, 1) + step.format(2, 2))
    assert [s.target for s in find_scenario(str(file)).steps] == ["rmq2", "rmq1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "Expected"),
        ("durations = 3", "no setting 'durations'"),
        ("duration = 0", "duration is '0'"),
        ("duration = true", "duration is 'True'"),
        ("seed = 1.5", "seed is '1.5'"),
        ("step = 3", "step is '3'"),
        ("workload = 3", "workload is '3'"),
        ("[workload]\nrat = 3", "workload: there is no setting 'rat'"),
        ("[workload]\nrate = 0", "rate is 0"),
        ("[workload]\nkeys = 0", "keys is 0"),
        ('[workload]\nqueue_type = "heap"', "queue_type is 'heap'"),
        ('[[step]]\nat = 1\nfault = "melt"', "step 1: fault is 'melt'"),
        ('[[step]]\nfault = "kill"', "step 1: at is missing"),
        ('[[step]]\nat = 1\nfault = "kill"', "step 1: undo is missing"),
        ('[[step]]\nat = 1\nfault = "scale"', "step 1: undo is missing"),
        ('[[step]]\nat = 1\nfault = "rebalance"\ntarget = "rmq1"', "step 1: there is no setting 'target'"),
        ('[[step]]\nat = 5\nfault = "kill"\nundo = 3', "step 1: undo is '3'"),
        ('[[step]]\nat = 1\nfault = "kill"\nundo = 3\nwho = "x"', "step 1: there is no setting 'who'"),
        ('[[step]]\nat = 99\nfault = "kill"\nundo = 100', "step 1: it begins at 99 s, and the load ends at 30 s"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_scenario(text, "mine.toml")
    assert raised.value.what.startswith("mine.toml: ")
    assert said in raised.value.what
    assert "\n" not in raised.value.what
    assert raised.value.hint


def test_a_fault_of_quorum_queues_is_not_for_others() -> None:
    text = '[workload]\nqueue_type = "classic"\n[[step]]\nat = 1\nfault = "move-leader"\nundo = 3'
    with pytest.raises(InvalidInputError, match="step 1: move-leader is for quorum queues"):
        parse_scenario(text, "mine.toml")


def test_a_name_that_nobody_knows_and_a_file_that_is_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no scenario 'melt-leader'"):
        find_scenario("melt-leader")
    with pytest.raises(InvalidInputError, match="No such file"):
        find_scenario(str(tmp_path / "none.toml"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        find_scenario(str(binary))
