"""Our frames are pika's own, byte for byte, whatever the message; what cannot be sent is refused before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pika
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import frame, spec

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.amqp.frames import decode_properties
from dmq_core.messaging.amqp.wire import FRAME_OVERHEAD, ID_HEADER, OWN_ID_BYTES, MessageEncoder, own_id, with_id
from dmq_core.messaging.messages import MessageProperties, OutgoingMessage
from dmq_core.testing.memory.wire import read_publish

OWN = own_id(b"0123456789ab", 7)
SHORT = st.text(st.characters(codec="utf-8"), max_size=60)
MAYBE = st.none() | SHORT
HEADERS = st.dictionaries(
    SHORT | st.just(ID_HEADER),
    st.integers(-(2**63), 2**63 - 1)
    | SHORT
    | st.booleans()
    | st.none()
    | st.binary(max_size=9)
    | st.lists(SHORT)
    | st.dictionaries(SHORT, st.integers(-(2**31), 2**31 - 1), max_size=2)
    | st.decimals(-1000, 1000, places=3)
    | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    max_size=3,
)
PROPERTIES = st.builds(
    MessageProperties,
    content_type=MAYBE,
    content_encoding=MAYBE,
    delivery_mode=st.integers(1, 2),
    priority=st.none() | st.integers(0, 255),
    correlation_id=MAYBE,
    reply_to=MAYBE,
    expiration=st.none() | st.integers(0, 2**32 - 1),
    message_id=MAYBE,
    timestamp=st.none() | st.integers(0, 2**63 - 1),
    type=MAYBE,
    user_id=MAYBE,
    app_id=MAYBE,
    headers=HEADERS,
)
LIMIT = 4096 - FRAME_OVERHEAD
SIZES = st.sampled_from([0, 1, 100, LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT - 1, 2 * LIMIT, 2 * LIMIT + 1, 10 * LIMIT])


def as_pika_has_it(channel: int, message: OutgoingMessage, own: str) -> bytes:
    """The frames as pika's `basic_publish` makes them, from pika's own classes."""
    sent = with_id(message.properties, own)
    properties = pika.BasicProperties(
        content_type=sent.content_type,
        content_encoding=sent.content_encoding,
        headers=dict(sent.headers) or None,
        delivery_mode=sent.delivery_mode,
        priority=sent.priority,
        correlation_id=sent.correlation_id,
        reply_to=sent.reply_to,
        expiration=None if sent.expiration is None else str(sent.expiration),
        message_id=sent.message_id,
        timestamp=sent.timestamp,
        type=sent.type,
        user_id=sent.user_id,
        app_id=sent.app_id,
    )
    method = spec.Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=message.mandatory)
    body = message.body
    frames = [frame.Method(channel, method), frame.Header(channel, len(body), properties)]
    frames += [frame.Body(channel, body[i : i + LIMIT]) for i in range(0, len(body), LIMIT)]
    return b"".join(each.marshal() for each in frames)


def encode(wire: MessageEncoder, message: OutgoingMessage, own: bytes = OWN) -> bytes:
    return wire.encode(message.exchange, message.routing_key, message.body, message.properties, message.mandatory, own)


@given(
    exchange=SHORT,
    key=SHORT,
    size=SIZES,
    properties=PROPERTIES,
    mandatory=st.booleans(),
    channel=st.integers(1, 2047),
)
@example("", "k" * 255, 1, MessageProperties(message_id="m" * 255), True, 1)
@example("", "k", 1, MessageProperties(headers={ID_HEADER: "stale", "kept": "é"}), True, 256)
@example("", "k", 1, MessageProperties(message_id="m", headers={ID_HEADER: "stale"}), True, 1)
@example("", "k", 1, MessageProperties(headers={"t": datetime(2026, 1, 2, tzinfo=UTC), "n": {"m": [1, None]}}), True, 1)
def test_every_message_has_the_bytes_that_pika_gives_it(
    exchange: str, key: str, size: int, properties: MessageProperties, mandatory: bool, channel: int
) -> None:
    message = OutgoingMessage(exchange, key, b"\xce" * size, properties, mandatory)
    wire = MessageEncoder(channel, LIMIT)
    assert encode(wire, message) == as_pika_has_it(channel, message, OWN.decode())
    # The second time it comes from what is remembered, but for its id.
    other = own_id(b"fedcba987654", 2**40)
    assert encode(wire, message, other) == as_pika_has_it(channel, message, other.decode())


@given(st.dictionaries(SHORT.filter(lambda key: key != ID_HEADER), st.floats(allow_nan=False, allow_infinity=False)))
def test_floats_for_which_pika_has_no_bytes_arrive_as_they_are(headers: dict[str, float]) -> None:
    message = OutgoingMessage("", "k", b"", MessageProperties(headers=headers))
    assert (
        dict(decode_properties(read_publish(encode(MessageEncoder(1, LIMIT), message)).raw_properties).headers)
        == headers
    )


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), PROPERTIES, st.booleans()), min_size=2, max_size=6))
def test_messages_that_share_a_wire_keep_what_is_their_own(several: list[tuple[str, MessageProperties, bool]]) -> None:
    wire = MessageEncoder(1, LIMIT)
    for key, properties, mandatory in [*several, *several]:
        message = OutgoingMessage("x", key, b"body", properties, mandatory)
        assert encode(wire, message) == as_pika_has_it(1, message, OWN.decode())


def test_headers_that_change_between_two_messages_are_sent_as_they_are_then() -> None:
    wire, headers = MessageEncoder(1, LIMIT), {"step": 1}
    properties = MessageProperties(headers=headers)
    first = encode(wire, OutgoingMessage("", "q", b"", properties))
    headers["step"] = 2
    second = encode(wire, OutgoingMessage("", "q", b"", properties))
    headers.clear()
    third = encode(wire, OutgoingMessage("", "q", b"", properties))
    assert b"step" in first
    assert first != second
    assert b"step" not in third


def test_many_values_of_properties_and_keys_do_not_fill_the_memory() -> None:
    wire = MessageEncoder(1, LIMIT)
    kept = [MessageProperties(message_id=str(n)) for n in range(3000)]
    for n, properties in enumerate(kept):
        message = OutgoingMessage("", f"key.{n}", b"x", properties)
        assert encode(wire, message) == as_pika_has_it(1, message, OWN.decode())
    assert len(wire._methods) <= 1024
    assert len(wire._templates) <= 1024


def test_a_value_made_where_a_forgotten_one_lay_is_not_taken_for_it() -> None:
    wire = MessageEncoder(1, LIMIT)
    for n in range(5000):
        message = OutgoingMessage("", "q", b"x", MessageProperties(message_id=str(n)))
        assert str(n).encode() in encode(wire, message)


def test_a_wire_fits_its_own_channel_number_and_frame_size_only() -> None:
    wire = MessageEncoder(3, LIMIT)
    assert wire.fits(3, LIMIT)
    assert not wire.fits(2, LIMIT)
    assert not wire.fits(3, LIMIT + 1)


def test_ids_have_one_length_and_never_repeat() -> None:
    ids = {own_id(b"0123456789ab", n) for n in (0, 1, 15, 16, 2**47)}
    assert {len(each) for each in ids} == {OWN_ID_BYTES}
    assert len(ids) == 5


BAD: dict[str, tuple[Any, ...]] = {
    "an exchange that is no text": (5, "k", b"", MessageProperties(), "exchange name is int"),
    "an exchange that cannot be looked up": ([], "k", b"", MessageProperties(), "exchange name is list"),
    "a long key": ("", "k" * 256, b"", MessageProperties(), "routing key is 256 bytes"),
    "a body that is text": ("", "k", "text", MessageProperties(), "body is str"),
    "a body that may change": ("", "k", bytearray(b"x"), MessageProperties(), "body is bytearray"),
    "no properties": ("", "k", b"", None, "properties are NoneType"),
    "a long message id": ("", "k", b"", MessageProperties(message_id="é" * 128), "message_id is 256 bytes"),
    "a priority out of range": ("", "k", b"", MessageProperties(priority=256), "priority is 256"),
    "headers of no known type": ("", "k", b"", MessageProperties(headers={"x": {1}}), "headers['x'] is set"),
    "headers beyond a frame": ("", "k", b"", MessageProperties(headers={"x": "y" * LIMIT}), "take 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_sent_is_refused_each_time(case: str) -> None:
    exchange, key, body, properties, sentence = BAD[case]
    wire = MessageEncoder(1, LIMIT)
    for _ in range(2):
        with pytest.raises(InvalidInputError) as caught:
            wire.encode(exchange, key, body, properties, True, OWN)
        assert sentence in caught.value.what
        assert caught.value.hint


def test_properties_as_sent_carry_our_id_once() -> None:
    bare = MessageProperties(app_id="a")
    assert with_id(bare, "own") == replace(bare, message_id="own", headers={})
    named = MessageProperties(message_id="theirs", headers={"kept": 1, ID_HEADER: "stale"})
    assert with_id(named, "own") == replace(named, headers={"kept": 1, ID_HEADER: "own"})
