"""When a node that says nothing is asked and left, by the clock that a test gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmq_core.messaging.connection.liveness import (
    QUIET_S,
    REPLY_LIMIT_S,
    REPLY_LONGEST_S,
    SETTLED_S,
    LivenessAction,
    LivenessMonitor,
)

TICK_S = 0.25


def freeze(watch: LivenessMonitor, heard_at: float, phase: float = 0.0, limit_s: float = 60.0) -> float:
    """How long after the last word the node is left, looked at every quarter second."""
    now = heard_at + phase
    while watch.judge(heard_at, now) is not LivenessAction.LEAVE:
        now += TICK_S
        assert now < heard_at + limit_s
    return now - heard_at


@given(phase=st.floats(0, TICK_S))
def test_a_frozen_node_is_left_two_to_two_and_a_half_seconds_after_its_last_word(phase: float) -> None:
    watch = LivenessMonitor()
    watch.opened(100.0)
    assert QUIET_S + REPLY_LIMIT_S <= freeze(watch, 100.0, phase) <= QUIET_S + REPLY_LIMIT_S + 2 * TICK_S


@given(replies=st.lists(st.floats(0.0, REPLY_LIMIT_S - TICK_S), min_size=1, max_size=40))
def test_an_idle_node_that_answers_within_the_limit_is_asked_for_ever_and_never_left(replies: list[float]) -> None:
    watch = LivenessMonitor()
    watch.opened(0.0)
    now = heard_at = 0.0
    for reply in replies:
        while (verdict := watch.judge(heard_at, now)) is LivenessAction.WAIT:
            now += TICK_S
        assert verdict is LivenessAction.ASK
        heard_at = now + reply
        while now < heard_at:
            assert watch.judge(min(heard_at, now), now) is not LivenessAction.LEAVE
            now += TICK_S


def test_a_node_that_talks_is_not_even_asked() -> None:
    watch = LivenessMonitor()
    watch.opened(0.0)
    assert {watch.judge(t / 4, t / 4 + 0.2) for t in range(100)} == {LivenessAction.WAIT}


def test_each_flight_in_a_row_waits_longer_and_a_calm_time_ends_that() -> None:
    watch = LivenessMonitor()
    waits = []
    for number in range(6):
        watch.opened(100.0 * number)
        waits.append(freeze(watch, 100.0 * number))
    assert waits == sorted(waits)
    assert waits[0] < 2.6 < waits[1]
    assert waits[-1] <= QUIET_S + REPLY_LONGEST_S + 2 * TICK_S
    watch.opened(1000.0)
    watch.judge(1000.0 + SETTLED_S + 1, 1000.0 + SETTLED_S + 1)
    assert freeze(watch, 2000.0) < 2.6


def test_our_own_sleep_is_not_held_against_the_node() -> None:
    watch = LivenessMonitor()
    watch.opened(0.0)
    assert watch.judge(0.0, 0.6) is LivenessAction.ASK
    watch.slept()
    assert watch.judge(0.0, 60.0) is LivenessAction.ASK, "it is asked again rather than left"
    assert watch.judge(0.0, 60.0 + REPLY_LIMIT_S) is LivenessAction.LEAVE
