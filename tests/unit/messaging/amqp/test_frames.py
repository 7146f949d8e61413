"""Frames are read right however the bytes are cut, and nothing that a peer sends can make the reader stumble."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from dmq_core.messaging.amqp.frames import Content, FrameReader, decode_properties, safe_properties


class Sink:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object, object]] = []
        self.reads = 0

    def acked(self, tag: int, multiple: bool) -> None:
        self.heard.append(("ack", tag, multiple))

    def nacked(self, tag: int, multiple: bool) -> None:
        self.heard.append(("nack", tag, multiple))

    def delivered(self, content: Content) -> None:
        self.heard.append(("deliver", content.tag, content))

    def returned(self, content: Content) -> None:
        self.heard.append(("return", content.code, content))

    def read_ended(self) -> None:
        self.reads += 1


def content(channel: int, method: object, properties: BasicProperties, body: bytes, piece: int = 10) -> bytes:
    frames = [frame.Method(channel, method).marshal(), frame.Header(channel, len(body), properties).marshal()]
    frames += [frame.Body(channel, body[i : i + piece]).marshal() for i in range(0, len(body), piece)]
    return b"".join(frames)


def delivery(body: bytes, tag: int = 7, channel: int = 1) -> bytes:
    method = spec.Basic.Deliver("ctag", tag, True, "exch", "k.é")
    return content(channel, method, BasicProperties(message_id="m", headers={"a": 1}), body)


STREAM = b"".join(
    [
        frame.Method(1, spec.Basic.Ack(3, True)).marshal(),
        delivery(b"x" * 35),
        frame.Heartbeat().marshal(),
        frame.Method(1, spec.Basic.Nack(4, False)).marshal(),
        delivery(b"", tag=8),
        content(1, spec.Basic.Return(312, "NO_ROUTE", "exch", "key"), BasicProperties(), b"back"),
        frame.Method(1, spec.Channel.FlowOk(True)).marshal(),
        frame.Method(2, spec.Basic.Ack(9, False)).marshal(),
    ]
)


def read(stream: bytes, cuts: list[int]) -> tuple[Sink, list[bytes], FrameReader]:
    sink, passed = Sink(), []
    reader = FrameReader(passed.append)
    reader.sinks[1] = sink
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(edges):
        if start != end:
            reader.feed(stream[start:end])
    return sink, passed, reader


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cut_of_the_stream_is_read_the_same(cuts: list[int]) -> None:
    sink, passed, reader = read(STREAM, cuts)
    whole, whole_passed, _ = read(STREAM, [])
    assert sink.heard == whole.heard
    assert b"".join(passed) == b"".join(whole_passed)
    assert reader.swallowed + len(b"".join(passed)) == len(STREAM)


def test_each_frame_goes_to_whom_it_concerns() -> None:
    sink, passed, _ = read(STREAM, [])
    assert [kind for kind, _, _ in sink.heard] == ["ack", "deliver", "nack", "deliver", "return"]
    assert len(passed) == 3, "the heartbeat, the flow-ok and the other channel's ack are pika's"
    first = sink.heard[1][2]
    assert isinstance(first, Content)
    assert (first.exchange, first.routing_key, first.tag, first.redelivered) == ("exch", "k.é", 7, True)
    assert first.body == b"x" * 35
    back = sink.heard[4][2]
    assert isinstance(back, Content)
    assert (back.code, back.text, back.exchange, back.routing_key, back.body) == (
        312,
        "NO_ROUTE",
        "exch",
        "key",
        b"back",
    )


def test_a_forgotten_channel_hears_nothing_more() -> None:
    sink, passed = Sink(), []
    reader = FrameReader(passed.append)
    reader.sinks[1] = sink
    reader.feed(delivery(b"x" * 35)[:-20])
    reader.forget(1)
    reader.feed(delivery(b"x" * 35)[-20:])
    assert sink.heard == []


def test_a_peer_that_does_not_speak_amqp_is_passed_on_whole() -> None:
    passed: list[bytes] = []
    FrameReader(passed.append).feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert b"".join(passed) == b"HTTP/1.1 400 Bad Request\r\n\r\n"


def test_every_property_comes_back_as_pika_encoded_it() -> None:
    properties = BasicProperties(
        content_type="text/plain",
        content_encoding="gzip",
        headers={"s": "é", "b": b"\xff", "n": -5, "big": 2**40, "yes": True, "no": None, "l": [1, "two", {"three": 3}],
                 "t": datetime(2026, 1, 2, tzinfo=UTC), "d": Decimal("-1.25")},
        delivery_mode=2, priority=9, correlation_id="c", reply_to="r", expiration="60000", message_id="m",
        timestamp=1_700_000_000, type="t", user_id="u", app_id="a", cluster_id="old",
    )  # fmt: skip
    decoded = decode_properties(b"".join(properties.encode()))
    assert decoded.headers == {**properties.headers, "l": [1, "two", {"three": 3}]}
    assert decoded.expiration == 60000
    for name in ("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
                 "message_id", "timestamp", "type", "user_id", "app_id"):  # fmt: skip
        assert getattr(decoded, name) == getattr(properties, name), name


def table(*fields: bytes) -> bytes:
    inner = b"".join(fields)
    return struct.pack(">H", 1 << 13) + struct.pack(">I", len(inner)) + inner


NASTY = {
    "a time beyond every calendar": table(b"\x01tT" + b"\xff" * 8),
    "a float that is no number": table(b"\x01nd" + struct.pack(">d", float("nan"))),
    "an infinite float": table(b"\x01nf" + struct.pack(">f", float("inf"))),
    "a string that is no utf-8": table(b"\x01sS" + struct.pack(">I", 2) + b"\xff\xfe"),
    "a key that is no utf-8": table(b"\x02\xff\xfet\x01"),
    "an unknown type": table(b"\x01?Z"),
    "a string that runs past its end": table(b"\x01sS" + struct.pack(">I", 1000) + b"x"),
    "tables in tables": b"\x20\x00" + b"".join(
        struct.pack(">I", 6 * (200 - i)) + b"\x01aF" for i in range(200)) + struct.pack(">I", 0),
    "a short frame": b"\xff",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("case", NASTY)
def test_properties_made_to_harm_do_no_harm(case: str) -> None:
    properties = safe_properties(NASTY[case])
    assert properties.delivery_mode == 1


@given(st.binary(max_size=300))
def test_no_bytes_make_the_decoder_fail(raw: bytes) -> None:
    safe_properties(raw)
    safe_properties(struct.pack(">H", 1 << 13) + raw)


def test_malformed_properties_keep_their_bytes() -> None:
    raw = NASTY["an unknown type"]
    assert safe_properties(raw).headers == {"dmq-undecodable-properties": raw}
