"""Numbers and states as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dmq_core.observe.events import Severity
from dmq_core.presentation import Tone
from dmq_tui.render import format as f


def test_every_gravity_of_an_event_has_a_mark() -> None:
    assert set(f._EVENT_MARKS) == set(Severity)


@pytest.mark.parametrize(
    ("online", "total", "cell"),
    [
        (3, 3, f.Cell("3/3  ")),
        (2, 3, f.Cell("2/3 !", Tone.WARN)),
        (1, 3, f.Cell("1/3 !", Tone.BAD)),
        (0, 0, f.Cell("–", Tone.QUIET)),
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


def test_a_nameless_exchange_has_a_word_and_hostile_names_are_visible() -> None:
    assert f.name("") == "(default)"
    assert f.name("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
