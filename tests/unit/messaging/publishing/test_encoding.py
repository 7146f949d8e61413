"""What a message becomes on the wire."""

from __future__ import annotations

import json

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import MessageProperties
from dmq_core.messaging.publishing.encoding import BINARY, JSON, TEXT, described, encode, with_headers

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abcß€", max_size=5), inner),
    max_leaves=10,
)


def test_text_goes_as_utf_8_and_bytes_go_as_they_are() -> None:
    assert encode("Grüße") == ("Grüße".encode(), TEXT)
    assert encode(b"\x00\xff") == (b"\x00\xff", BINARY)
    assert encode(bytearray(b"x")) == encode(memoryview(b"x")) == (b"x", BINARY)


@given(PLAIN)
def test_plain_values_go_as_json_and_can_be_read_again(value: object) -> None:
    body, content_type = encode(value)
    assert content_type == JSON
    assert json.loads(body) == value


@pytest.mark.parametrize("message", [object(), {"a": {1, 2}}, float("nan"), "\ud800"])
def test_what_cannot_be_written_is_refused_in_one_line(message: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        encode(message)
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_without_properties_a_message_is_persistent_and_says_what_it_is() -> None:
    properties = described(None, TEXT)
    assert (properties.content_type, properties.content_encoding, properties.delivery_mode) == (TEXT, "utf-8", 2)
    assert described(None, TEXT) is properties, "shared, so that its bytes can be cached"


def test_properties_come_as_a_dict_with_the_names_of_rabbitmq() -> None:
    given_ = {"headers": {"k": 1}, "delivery_mode": 1, "expiration": "60000", "correlation_id": None}
    properties = described(given_, BINARY)
    assert (properties.headers, properties.delivery_mode, properties.expiration) == ({"k": 1}, 1, 60000)
    assert properties.content_type == BINARY


def test_properties_of_pika_will_do() -> None:
    properties = described(pika.BasicProperties(content_type=JSON, headers={"a": "b"}, message_id="7"), TEXT)
    assert (properties.content_type, dict(properties.headers), properties.message_id) == (JSON, {"a": "b"}, "7")
    assert properties.delivery_mode == 2


def test_a_content_type_that_is_given_stays() -> None:
    mine = MessageProperties(content_type="text/csv")
    assert described(mine, TEXT) is mine


@pytest.mark.parametrize("properties", [{"colour": "red"}, 7, {"headers": [1]}])
def test_properties_that_make_no_sense_are_named(properties: object) -> None:
    with pytest.raises(InvalidInputError):
        described(properties, TEXT)


def test_headers_that_are_added_win() -> None:
    assert with_headers(MessageProperties(headers={"a": 1, "b": 1}), {"b": 2}).headers == {"a": 1, "b": 2}


def test_half_a_surrogate_is_named_as_such_in_text_and_inside_json() -> None:
    """The refusal is a `ValueError` itself, and must not be taken for one of the JSON encoder."""
    reasons = []
    for message in ("\ud800", {"name": "\ud800"}):
        with pytest.raises(InvalidInputError) as caught:
            encode(message)
        reasons.append(caught.value.what)
    assert reasons[0] == reasons[1]
