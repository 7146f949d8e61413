"""A message that cannot be sent is refused before it reaches a connection, by a sentence that names what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.amqp.frames import decode_properties
from dmq_core.messaging.amqp.validation import check_address, check_body, check_properties, plain_headers
from dmq_core.messaging.messages import MessageProperties, OutgoingMessage


def loop() -> dict[str, object]:
    table: dict[str, object] = {}
    table["again"] = table
    return table


SELDOM = {
    "a long key": (OutgoingMessage("", "k" * 256, b""), "the routing key is 256 bytes long"),
    "a key long in bytes only": (OutgoingMessage("", "é" * 128, b""), "the routing key is 256 bytes long"),
    "a long exchange": (OutgoingMessage("x" * 256, "", b""), "the exchange name is 256 bytes long"),
    "half a surrogate": (OutgoingMessage("", "\ud800", b""), "half a surrogate"),
    "a body of text": (OutgoingMessage("", "", "text"), "the body is str, not bytes"),  # type: ignore[arg-type]
    "no body": (OutgoingMessage("", "", None), "the body is NoneType"),  # type: ignore[arg-type]
    "priority 256": (OutgoingMessage("", "", b"", MessageProperties(priority=256)), "priority is 256"),
    "priority true": (OutgoingMessage("", "", b"", MessageProperties(priority=True)), "priority is True"),
    "delivery mode 3": (OutgoingMessage("", "", b"", MessageProperties(delivery_mode=3)), "delivery_mode is 3"),
    "a negative expiration": (OutgoingMessage("", "", b"", MessageProperties(expiration=-1)), "expiration is -1"),
    "a long message id": (OutgoingMessage("", "", b"", MessageProperties(message_id="m" * 256)), "message_id is 256"),
    "a type of bytes": (
        OutgoingMessage("", "", b"", MessageProperties(type=b"t")),  # type: ignore[arg-type]
        "type is bytes, not text",
    ),
}
BAD_HEADERS: dict[str, tuple[Any, str]] = {
    "a float that is no number": ({"ratio": float("nan")}, "headers['ratio'] is nan"),
    "an infinite float": ({"ratio": [float("-inf")]}, "headers['ratio'][0] is -inf"),
    "an object": ({"thing": object()}, "headers['thing'] is object"),
    "a nested set": ({"a": [{"b": {1}}]}, "headers['a'][0]['b'] is set"),
    "a huge number": ({"n": 2**63}, "too large for 64 bits"),
    "a key that is no text": ({5: "x"}, "a key in headers is int"),
    "a long key": ({"k" * 256: 1}, "a key in headers is 256 bytes long"),
    "a table in itself": (loop(), "nests more than 16 levels deep"),
    "before 1970": ({"t": datetime(1960, 1, 1, tzinfo=UTC)}, "before 1970"),
    "a decimal too long": ({"d": Decimal("3.14159265358979")}, "32 bits cannot hold"),
    "a decimal that is none": ({"d": Decimal("NaN")}, "32 bits cannot hold"),
    "too much of all": ({"k": "x" * 100_001}, "the headers take"),
    "half a surrogate": ({"k": "\udfff"}, "half a surrogate"),
}


def judge(message: OutgoingMessage) -> None:
    check_address(message.exchange, message.routing_key)
    check_body(message.body)
    check_properties(message.properties)


@pytest.mark.parametrize("case", SELDOM)
def test_a_message_that_amqp_cannot_carry_is_refused(case: str) -> None:
    message, sentence = SELDOM[case]
    with pytest.raises(InvalidInputError) as caught:
        judge(message)
    assert sentence in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_headers_that_amqp_cannot_carry_are_refused(case: str) -> None:
    headers, sentence = BAD_HEADERS[case]
    with pytest.raises(InvalidInputError) as caught:
        plain_headers(headers)
    assert sentence in caught.value.what
    assert caught.value.hint


def test_control_characters_of_a_header_name_do_not_reach_the_sentence() -> None:
    with pytest.raises(InvalidInputError) as caught:
        plain_headers({"\x1b[2J": object()})
    assert "\x1b" not in caught.value.what


KEYS = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=st.just(UTC)).map(
        lambda t: t.replace(microsecond=0)
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
HEADERS = st.dictionaries(KEYS, VALUES, max_size=5)


@given(HEADERS)
def test_what_is_let_through_is_encoded_and_comes_back_the_same(headers: dict[str, object]) -> None:
    plain = plain_headers(headers)
    raw = b"".join(BasicProperties(headers=plain, delivery_mode=2).encode())
    assert decode_properties(raw).headers == headers


def test_the_copy_of_headers_does_not_change_with_the_original() -> None:
    inner = ["a"]
    plain = plain_headers({"list": inner})
    inner.append("b")
    assert plain == {"list": ["a"]}
