"""Random faults: the seed repeats them, they fit the time, and one follows the other."""

from __future__ import annotations

import pytest

from dmq_core.actions.catalog import PROOF_USES
from dmq_core.proof.scenario import checked_scenario
from dmq_core.proof.soak import SOAK_FAULTS, parallel_faults_for, soak_scenario


def test_the_same_seed_chooses_the_same_faults() -> None:
    assert soak_scenario(600, 7, 3) == soak_scenario(600, 7, 3)
    assert soak_scenario(600, 7, 3).steps != soak_scenario(600, 8, 3).steps


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("duration_s", "nodes"), [(10.0, 3), (1800.0, 3), (600.0, 5)])
def test_the_faults_of_a_lane_follow_each_other_within_the_time(seed: int, duration_s: float, nodes: int) -> None:
    scenario = soak_scenario(duration_s, seed, nodes)
    assert checked_scenario(scenario, "soak") == scenario
    assert scenario.steps
    if parallel_faults_for(nodes) == 1:
        for before, after in zip(scenario.steps, scenario.steps[1:], strict=False):
            assert before.undo_s is not None
            assert before.at_s < before.undo_s < after.at_s


def test_a_classic_queue_is_spared_what_is_for_quorum_queues() -> None:
    scenario = soak_scenario(1800, 1, 3, "classic")
    assert {step.fault for step in scenario.steps} == {kind for kind in SOAK_FAULTS if not PROOF_USES[kind].quorum_only}


def test_half_an_hour_sees_every_fault() -> None:
    assert {step.fault for step in soak_scenario(1800, 1, 3).steps} == set(SOAK_FAULTS)
