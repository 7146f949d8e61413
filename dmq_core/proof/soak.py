"""Faults chosen at random, one after another or two at a time, for as long as is asked; the seed repeats the choice."""

from __future__ import annotations

import random
from typing import Final

from dmq_core.actions.catalog import PROOF_USES
from dmq_core.proof.scenario import ROLES, SOAK, Scenario, ScenarioStep

SOAK_FAULTS: Final = tuple(kind for kind, use in PROOF_USES.items() if use.soak)
# With so many nodes two may be gone and a majority is left.
NODES_FOR_TWO: Final = 5
_FIRST_S: Final = 3.0
_LEAST_HELD_S: Final = 2.0
_MOST_HELD_S: Final = 12.0
_LEAST_PAUSE_S: Final = 3.0
_MOST_PAUSE_S: Final = 10.0
# Faults that would begin so late have no time to be seen.
_LAST_S: Final = 5.0


def soak_scenario(duration_s: float, seed: int, nodes: int, queue_type: str = "quorum") -> Scenario:
    """Random steps for `duration_s` seconds on a cluster of so many nodes; they are to be done in turn, in
    `parallel_faults_for`.

    Every step may begin later than planned, since the one before it has to be undone first.
    """
    chance = random.Random(seed)
    faults = [fault for fault in SOAK_FAULTS if queue_type == "quorum" or not PROOF_USES[fault].quorum_only]
    parallel_faults = parallel_faults_for(nodes)
    steps: list[ScenarioStep] = []
    at_s = [_FIRST_S] * parallel_faults
    while min(at_s) < duration_s - _LAST_S:
        for lane in range(parallel_faults):
            held_s = round(chance.uniform(_LEAST_HELD_S, _MOST_HELD_S), 1)
            step = ScenarioStep(at_s[lane], chance.choice(faults), chance.choice(ROLES), at_s[lane] + held_s)
            steps.append(step)
            at_s[lane] += held_s + round(chance.uniform(_LEAST_PAUSE_S, _MOST_PAUSE_S), 1)
    kept = tuple(step for step in steps if step.at_s < duration_s)
    return Scenario(SOAK, "Random faults, one after another", kept, duration_s, seed=seed)


def parallel_faults_for(nodes: int) -> int:
    """How many faults at a time a cluster of so many nodes can bear."""
    return 2 if nodes >= NODES_FOR_TWO else 1
