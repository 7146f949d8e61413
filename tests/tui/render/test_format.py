"""Numbers and states as text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dmq_core.cluster.protocol import NodeState
from dmq_core.observe.events import Severity
from dmq_tui.render import format as f


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (182_000_000, "182 MB"), (1_234_000_000, "1.2 GB")],
)
def test_sizes_have_three_figures_and_a_unit(number: int | None, text: str) -> None:
    assert f.size(number) == text


@given(st.integers(min_value=0, max_value=10**17))
def test_a_size_never_needs_more_than_seven_cells(number: int) -> None:
    assert len(f.size(number)) <= 7


@given(st.integers(min_value=0, max_value=10**11))
def test_a_short_count_never_needs_more_than_seven_cells(number: int) -> None:
    assert len(f.short_count(number)) <= 7


@pytest.mark.parametrize(
    ("number", "text"), [(None, "–"), (0.0, "0"), (0.04, "0.0"), (0.4, "0.4"), (9.96, "10"), (498.2, "498")]
)
def test_rates_are_whole_from_ten_on(number: float | None, text: str) -> None:
    assert f.rate(number) == text


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    assert {f.count(None), f.short_count(None), f.rate(None), f.size(None), f.seconds(None)} == {"–"}
    assert f.age(None) == "never"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.4, "0.4 s"), (9.96, "10 s"), (119.0, "119 s"), (180.0, "3 min"), (7200.0, "2 h")],
)
def test_ages_are_short(number: float, text: str) -> None:
    assert f.age(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, ""), (0.0, "0.00"), (0.41, "+0.41"), (59.999, "+1:00"), (185.2, "+3:05")]
)
def test_the_distance_from_a_fault_is_signed(number: float | None, text: str) -> None:
    assert f.distance(number) == text


def test_every_state_of_a_node_has_its_own_glyph_and_its_word() -> None:
    marks = [f.node_mark(s) for s in NodeState]
    assert len({m.glyph for m in marks}) == len(marks)
    assert [m.word for m in marks] == [s.value for s in NodeState]


def test_only_what_is_broken_now_is_red() -> None:
    red = {s for s in NodeState if f.node_mark(s).tone is f.Tone.BAD}
    assert red == {NodeState.STOPPED, NodeState.PAUSED, NodeState.ISOLATED, NodeState.UNREACHABLE}


def test_every_gravity_of_an_event_has_a_mark() -> None:
    assert set(f._EVENT_MARKS) == set(Severity)


@pytest.mark.parametrize(
    ("online", "total", "cell"),
    [
        (3, 3, f.Cell("3/3  ")),
        (2, 3, f.Cell("2/3 !", f.Tone.WARN)),
        (1, 3, f.Cell("1/3 !", f.Tone.BAD)),
        (0, 0, f.Cell("–", f.Tone.QUIET)),
    ],
)
def test_members_warn_without_margin_and_alarm_without_majority(online: int, total: int, cell: f.Cell) -> None:
    assert f.members(online, total) == cell


@given(st.text(max_size=60), st.integers(min_value=0, max_value=40), st.booleans())
def test_fitted_text_is_exactly_as_wide_as_asked(text: str, width: int, right: bool) -> None:
    fitted = f.fit(f.name(text), width, right=right)
    assert cell_len(fitted) == width


@given(st.text(min_size=1, max_size=40).map(f.name).filter(lambda t: cell_len(t) > 1), st.data())
def test_text_is_only_ever_cut_at_its_end(text: str, data: st.DataObject) -> None:
    width = data.draw(st.integers(min_value=1, max_value=cell_len(text) - 1))
    kept = f.fit(text, width).rstrip().removesuffix("…").rstrip()
    assert text.startswith(kept)


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=50).map(tuple), st.integers(0, 60))
def test_a_history_line_is_as_wide_as_asked_and_shows_the_newest_values(values: tuple[float, ...], width: int) -> None:
    line = f.spark(values, width)
    assert len(line) == width
    assert len(line.strip()) == min(width, len(values))


@given(
    st.lists(st.floats(min_value=0, max_value=1000), max_size=50).map(tuple),
    st.integers(1, 60),
    st.integers(1, 6),
)
def test_a_chart_never_paints_more_above_than_below(values: tuple[float, ...], width: int, height: int) -> None:
    lines = f.bars(values, width, height, 1000)
    assert [len(line) for line in lines] == [width] * height
    for upper, lower in itertools.pairwise(lines):
        assert all(high == " " or low == "█" for high, low in zip(upper, lower, strict=True))


def test_a_nameless_exchange_has_a_word_and_hostile_names_are_visible() -> None:
    assert f.name("") == "(default)"
    assert f.name("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
