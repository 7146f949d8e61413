"""Headers and properties as people type them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.typed_fields import parse_headers, parse_properties, type_name, typed_value


@pytest.mark.parametrize(
    ("text", "value", "name"),
    [
        ("true", True, "boolean"),
        ("false", False, "boolean"),
        ("True", "True", "text"),
        ("null", None, "null"),
        ("12", 12, "integer"),
        ("-3", -3, "integer"),
        ("12.5", 12.5, "float"),
        ("1_000", "1_000", "text"),
        ("٣", "٣", "text"),
        ("nan", "nan", "text"),
        ("inf", "inf", "text"),
        ("1.2.3", "1.2.3", "text"),
        ('"12"', "12", "text"),
        ('["a","b"]', ["a", "b"], "list"),
        ('{"a": 1}', {"a": 1}, "table"),
        ("", "", "text"),
        (" padded ", " padded ", "text"),
        ("a=b", "a=b", "text"),
    ],
)
def test_the_look_of_a_value_decides_its_type(text: str, value: object, name: str) -> None:
    found = typed_value(text)
    assert (found, type(found), type_name(found)) == (value, type(value), name)


@given(st.text())
def test_any_text_is_a_value_or_one_clear_error(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        typed_value(text)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "9" * 10_000 + "."], ids=["deep list", "deep table", "huge"]
)
def test_a_value_made_to_break_the_parser_is_text_or_one_clear_error(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        assert typed_value(text) == text


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_an_integer_survives(number: int) -> None:
    assert typed_value(str(number)) == number


def test_headers_come_from_lines_and_empty_lines_count_for_nothing() -> None:
    assert parse_headers(["vip=true", "", "  ", "n = 3", "note=a=b"]) == {"vip": True, "n": 3, "note": "a=b"}


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (["vip"], "no name=value form"),
        (["=x"], "no name=value form"),
        (["a=1", "a=2"], "given twice"),
        (["a=[1"], "not JSON"),
        ([f"a={2**63}"], "64 bits"),
        (["x" * 300 + "=1"], "longer than 255"),
    ],
)
def test_a_wrong_header_is_named(lines: list[str], what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        parse_headers(lines)


def test_a_wrong_header_is_shown_without_its_control_characters() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_headers(["\x1b[31mred"])
    assert "\x1b" not in caught.value.what


def test_properties_are_persistent_unless_told_otherwise() -> None:
    assert parse_properties([], {}).delivery_mode == 2
    assert parse_properties(["delivery-mode=transient"], {}).delivery_mode == 1


def test_properties_take_their_own_types() -> None:
    found = parse_properties(
        ["content-type = application/json", "priority=9", "expiration=60000", "app_id=12", "timestamp=now"], {"a": 1}
    )
    assert (found.content_type, found.priority, found.expiration, found.app_id) == ("application/json", 9, 60000, "12")
    assert found.headers == {"a": 1}
    assert isinstance(found.timestamp, int)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("color=red", "no property"),
        ("headers=x", "no property"),
        ("priority=256", "no number"),
        ("priority=-1", "no number"),
        ("delivery_mode=3", "delivery_mode"),
        ("message_id=" + "é" * 200, "longer than 255"),
        ("just words", "no name=value form"),
    ],
)
def test_a_wrong_property_is_named(line: str, what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        parse_properties([line], {})
