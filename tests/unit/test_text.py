"""Text from outside is shown as text and never as commands to the terminal."""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from dmq_core.text import path_segment, visible, visible_body


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    assert visible("\x1b[31mred\x07") == "\\x1b[31mred\\x07"


def test_letters_of_any_script_stay_as_they_are() -> None:
    assert visible("Grüße 世界 ✓") == "Grüße 世界 ✓"


def test_characters_that_reorder_text_are_shown() -> None:
    assert visible("abc\u202edef") == "abc\\u202edef"


def test_a_binary_body_is_shown_as_bytes() -> None:
    assert visible_body(b"\xff\x00A") == "\\xff\\x00A"


def test_an_empty_body_is_empty() -> None:
    assert visible_body(b"") == ""


@given(st.text(alphabet=st.characters()) | st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs"])))
def test_nothing_hidden_gets_through(text: str) -> None:
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in visible(text))


@given(st.binary())
def test_every_body_becomes_one_safe_line(body: bytes) -> None:
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in visible_body(body))


@given(st.text())
def test_a_path_segment_survives_the_url(name: str) -> None:
    segment = path_segment(name)
    assert "/" not in segment
    assert unquote(segment) == name
