"""Curves as bars of eighths of a cell."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dmq_tui.render.chart import bars, scaled_bars, spark


@pytest.mark.parametrize("height", [1, 4])
def test_the_least_of_something_stands_out_from_nothing(height: int) -> None:
    assert bars((0.0, 0.1, 1000.0), 3, height, 1000)[-1] == "▁▂█"


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=50).map(tuple), st.integers(0, 60))
def test_a_history_line_is_as_wide_as_asked_and_shows_the_newest_values(values: tuple[float, ...], width: int) -> None:
    line = spark(values, width)
    assert len(line) == width
    assert len(line.strip()) == min(width, len(values))


@given(
    st.lists(st.floats(min_value=0, max_value=1000), max_size=50).map(tuple),
    st.integers(1, 60),
    st.integers(1, 6),
)
def test_a_chart_never_paints_more_above_than_below(values: tuple[float, ...], width: int, height: int) -> None:
    lines = bars(values, width, height, 1000)
    assert [len(line) for line in lines] == [width] * height
    for upper, lower in itertools.pairwise(lines):
        assert all(high == " " or low == "█" for high, low in zip(upper, lower, strict=True))


@given(
    st.lists(st.floats(min_value=0, max_value=1e9), max_size=300),
    st.integers(min_value=10, max_value=200),
    st.integers(min_value=1, max_value=9),
)
def test_a_chart_fills_exactly_its_room(values: list[float], width: int, height: int) -> None:
    rows = scaled_bars(values, width, height)
    assert len(rows) == height
    assert {cell_len(row) for row in rows} == {width}


def test_a_chart_shows_the_highest_value_full_and_nothing_as_a_line() -> None:
    rows = scaled_bars([0.0, 50.0, 100.0], 12, 2)
    assert rows[0][-3:] == "  █"
    assert rows[1][-3:] == "▁██"
