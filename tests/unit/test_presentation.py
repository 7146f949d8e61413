"""Numbers and states as text, on the command line and in the console."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.protocol import NodeState
from dmq_core.presentation import Tone, age, count, distance, duration, node_look, rate, short_count, size


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (182_000_000, "182 MB"), (1_234_000_000, "1.2 GB")],
)
def test_sizes_have_three_figures_and_a_unit(number: int | None, text: str) -> None:
    assert size(number) == text


@given(st.integers(min_value=0, max_value=10**17))
def test_a_size_never_needs_more_than_seven_cells(number: int) -> None:
    assert len(size(number)) <= 7


@given(st.integers(min_value=0, max_value=10**11))
def test_a_short_count_never_needs_more_than_seven_cells(number: int) -> None:
    assert len(short_count(number)) <= 7


@pytest.mark.parametrize(
    ("number", "text"), [(None, "–"), (0.0, "0"), (0.04, "0.0"), (0.4, "0.4"), (9.96, "10"), (498.2, "498")]
)
def test_rates_are_whole_from_ten_on(number: float | None, text: str) -> None:
    assert rate(number) == text


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    assert {count(None), short_count(None), rate(None), size(None), duration(None)} == {"–"}
    assert age(None) == "never"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.4, "0.4 s"), (9.96, "10 s"), (119.0, "119 s"), (180.0, "3 min"), (7200.0, "2 h")],
)
def test_ages_are_short(number: float, text: str) -> None:
    assert age(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, ""), (0.0, "0.00"), (0.41, "+0.41"), (59.999, "+1:00"), (185.2, "+3:05")]
)
def test_the_distance_from_a_fault_is_signed(number: float | None, text: str) -> None:
    assert distance(number) == text


def test_every_state_of_a_node_has_its_own_glyph() -> None:
    assert len({node_look(s).glyph for s in NodeState}) == len(NodeState)


def test_only_what_is_broken_now_is_red() -> None:
    red = {s for s in NodeState if node_look(s).tone is Tone.BAD}
    assert red == {NodeState.STOPPED, NodeState.PAUSED, NodeState.ISOLATED, NodeState.UNREACHABLE}
