"""AMQP 0-9-1 frames read by their offsets: the four methods that come in numbers, and content that nobody may trust.

Everything else is passed on whole. Pure: bytes in, calls out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from dmq_core.messaging.messages import NO_HEADERS, Headers, MessageProperties

_FRAME_HEAD = struct.Struct(">BHI").unpack_from
_U64 = struct.Struct(">Q").unpack_from
_U32 = struct.Struct(">I").unpack_from
_U16 = struct.Struct(">H").unpack_from
_TAG_AND_BIT = struct.Struct(">QB").unpack_from
_FRAME_END = 0xCE
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_DELIVER, _RETURN, _ACK, _NACK = 0x003C003C, 0x003C0032, 0x003C0050, 0x003C0078
_MAX_DEPTH = 32


class Content(NamedTuple):
    """A message as it came: `tag` and `redelivered` of a delivery, or `code` and `text` of a return."""

    exchange: str
    routing_key: str
    raw_properties: bytes
    body: bytes
    tag: int = 0
    redelivered: bool = False
    code: int = 0
    text: str = ""


class FrameSink(Protocol):
    """Hears what comes in numbers on one channel; called on the I/O thread."""

    def acked(self, tag: int, multiple: bool) -> None:
        """`basic.ack` from the broker."""
        ...

    def nacked(self, tag: int, multiple: bool) -> None:
        """`basic.nack` from the broker."""
        ...

    def delivered(self, content: Content) -> None:
        """A whole delivery."""
        ...

    def returned(self, content: Content) -> None:
        """A whole `basic.return`."""
        ...

    def read_ended(self) -> None:
        """Everything that the socket held has been told."""
        ...


class FrameReader:
    """Cuts a byte stream into frames; sinks hear what concerns them, `passed_on` gets every other frame whole.

    `swallowed` counts the bytes that sinks took.
    """

    def __init__(self, passed_on: Callable[[bytes], None]) -> None:
        self.sinks: dict[int, FrameSink] = {}
        self.swallowed = 0
        self._passed_on = passed_on
        self._chunks: list[bytes] = []
        self._have = 0
        self._want = 0
        self._assembling: dict[int, _Assembly] = {}

    @property
    def rest(self) -> bytes:
        """What has come of a frame that is not whole yet."""
        return b"".join(self._chunks)

    def feed(self, data: bytes) -> None:
        """Takes what a read of the socket gave."""
        if self._chunks:
            # A large frame comes in many reads; joining once keeps that linear.
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._want:
                return
            data = b"".join(self._chunks)
            self._chunks = []
        position = self._frames(data)
        if position < len(data):
            rest = data[position:] if position else data
            self._chunks = [rest]
            self._have = len(rest)
            self._want = 8 + _FRAME_HEAD(rest)[2] if len(rest) >= 7 else 8

    def end_read(self) -> None:
        """Tells every sink that nothing more has come for now."""
        for sink in tuple(self.sinks.values()):
            sink.read_ended()

    def forget(self, channel: int) -> None:
        """Lets go of a channel that was closed; its sink still hears that this was all."""
        sink = self.sinks.pop(channel, None)
        self._assembling.pop(channel, None)
        if sink is not None:
            sink.read_ended()

    def _frames(self, data: bytes) -> int:
        position, end = 0, len(data)
        while end - position >= 8:
            kind, channel, size = _FRAME_HEAD(data, position)
            if kind not in (_METHOD, _HEADER, _BODY, _HEARTBEAT):
                self._passed_on(data[position:])
                return end
            after = position + 8 + size
            if after > end:
                break
            sink = self.sinks.get(channel)
            if sink is not None and data[after - 1] == _FRAME_END:
                whole = self._take_whole(sink, channel, data, position, after)
                if whole:
                    self.swallowed += whole - position
                    position = whole
                    continue
                if self._take(sink, channel, kind, data, position):
                    self.swallowed += 8 + size
                    position = after
                    continue
            self._passed_on(data[position:after])
            position = after
        return position

    def _take_whole(self, sink: FrameSink, channel: int, data: bytes, start: int, header: int) -> int:
        """Takes a delivery whose three frames are all here, which is most of them; gives where it ends, or 0."""
        end = len(data)
        if data[start] != _METHOD or header - start < 12 or end - header < 20 or _U32(data, start + 7)[0] != _DELIVER:
            return 0
        kind, on, size = _FRAME_HEAD(data, header)
        body = header + 8 + size
        if kind != _HEADER or on != channel or end - body < 8 or data[body - 1] != _FRAME_END:
            return 0
        kind, on, length = _FRAME_HEAD(data, body)
        after: int = body + 8 + length
        if kind != _BODY or on != channel or after > end or data[after - 1] != _FRAME_END:
            return 0
        if length != int(_U64(data, header + 11)[0]):
            return 0
        sink.delivered(
            _delivered(data[start + 11 : header - 1], data[header + 19 : body - 1], data[body + 7 : after - 1])
        )
        return after

    def _take(self, sink: FrameSink, channel: int, kind: int, data: bytes, position: int) -> bool:
        size = _U32(data, position + 3)[0]
        start = position + 7
        if kind == _METHOD and size >= 4:
            return self._take_method(sink, channel, data, start, size)
        assembly = self._assembling.get(channel)
        if assembly is None:
            return False
        payload = data[start : start + size]
        content = assembly.header(payload) if kind == _HEADER else assembly.piece(payload)
        if content is not None:
            del self._assembling[channel]
            (sink.delivered if assembly.method == _DELIVER else sink.returned)(content)
        return True

    def _take_method(self, sink: FrameSink, channel: int, data: bytes, start: int, size: int) -> bool:
        method = _U32(data, start)[0]
        if method == _ACK:
            tag, bit = _TAG_AND_BIT(data, start + 4)
            sink.acked(tag, bool(bit & 1))
        elif method == _NACK:
            tag, bit = _TAG_AND_BIT(data, start + 4)
            sink.nacked(tag, bool(bit & 1))
        elif method in (_DELIVER, _RETURN):
            self._assembling[channel] = _Assembly(method, data[start + 4 : start + size])
        else:
            return False
        return True


class _Assembly:
    """A message that is coming in: its method, then its header, then its body in pieces."""

    __slots__ = ("_arguments", "_missing", "_pieces", "_properties", "method")

    def __init__(self, method: int, arguments: bytes) -> None:
        self.method = method
        self._arguments = arguments
        self._properties = b""
        self._missing = 0
        self._pieces: list[bytes] = []

    def header(self, payload: bytes) -> Content | None:
        self._missing = _U64(payload, 4)[0]
        self._properties = payload[12:]
        return None if self._missing else self._whole()

    def piece(self, payload: bytes) -> Content | None:
        self._pieces.append(payload)
        self._missing -= len(payload)
        return None if self._missing > 0 else self._whole()

    def _whole(self) -> Content:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        arguments = self._arguments
        if self.method == _DELIVER:
            return _delivered(arguments, self._properties, body)
        text, at = _short(arguments, 2)
        exchange, at = _short(arguments, at)
        key, _ = _short(arguments, at)
        return Content(exchange, key, self._properties, body, code=_U16(arguments, 0)[0], text=text)


def _delivered(arguments: bytes, properties: bytes, body: bytes) -> Content:
    at = 1 + arguments[0]
    tag, bit = _TAG_AND_BIT(arguments, at)
    exchange, at = _short(arguments, at + 9)
    key, _ = _short(arguments, at)
    return Content(exchange, key, properties, body, tag, bool(bit & 1))


_SHORT_FIELDS = {
    15: "content_type",
    14: "content_encoding",
    10: "correlation_id",
    9: "reply_to",
    7: "message_id",
    5: "type",
    4: "user_id",
    3: "app_id",
}


def decode_properties(raw: bytes) -> MessageProperties:
    """The properties in a content header, after the body size; `ValueError` if they are not well formed."""
    try:
        return _decode_properties(raw)
    except (struct.error, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"malformed properties: {error}") from error


def content_kind(raw: bytes) -> tuple[bytes, bytes]:
    """The content type and encoding in a content header, empty where there is none, without reading the rest."""
    kind = encoding = b""
    if len(raw) < 3:
        return kind, encoding
    flags, at = raw[0], 2
    if flags & 0x80:
        at = 3 + raw[2]
        kind = raw[3:at]
    if flags & 0x40 and at < len(raw):
        encoding = raw[at + 1 : at + 1 + raw[at]]
    return kind, encoding


def has_headers(raw: bytes) -> bool:
    """Whether there is a table of headers in a content header."""
    return raw[:1] > b"\x1f" and bool(raw[0] & 0x20)


def safe_properties(raw: bytes) -> MessageProperties:
    """The properties in a content header, or bare ones whose headers hold the raw bytes where they are malformed."""
    try:
        return decode_properties(raw)
    except ValueError:
        return MessageProperties(delivery_mode=1, headers={"dmq-undecodable-properties": raw})


def _decode_properties(raw: bytes) -> MessageProperties:
    flags = _U16(raw, 0)[0]
    at = 2
    fields: dict[str, object] = {"delivery_mode": 1}
    for bit in range(15, 1, -1):
        if not flags & (1 << bit):
            continue
        if bit in _SHORT_FIELDS:
            fields[_SHORT_FIELDS[bit]], at = _short(raw, at)
        elif bit == 13:
            fields["headers"], at = _table(raw, at, 0)
        elif bit == 12:
            fields["delivery_mode"], at = raw[at], at + 1
        elif bit == 11:
            fields["priority"], at = raw[at], at + 1
        elif bit == 8:
            text, at = _short(raw, at)
            fields["expiration"] = int(text) if text.isascii() and text.isdigit() else None
        elif bit == 6:
            fields["timestamp"], at = _U64(raw, at)[0], at + 8
        elif bit == 2:
            _, at = _short(raw, at)
    return MessageProperties(**fields)  # type: ignore[arg-type]  # the field names above are its own


def _short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end > len(data):
        raise IndexError("a string runs past its end")
    return data[at + 1 : end].decode("utf-8", "backslashreplace"), end


def _table(data: bytes, at: int, depth: int) -> tuple[Headers, int]:
    end = at + 4 + _U32(data, at)[0]
    if end > len(data) or depth > _MAX_DEPTH:
        raise IndexError("a table runs past its end or nests too deep")
    at += 4
    table: dict[str, object] = {}
    while at < end:
        key, at = _short(data, at)
        table[key], at = _value(data, at, depth)
    return (table or NO_HEADERS), end


def _array(data: bytes, at: int, depth: int) -> tuple[list[object], int]:
    end = at + 4 + _U32(data, at)[0]
    if end > len(data) or depth > _MAX_DEPTH:
        raise IndexError("an array runs past its end or nests too deep")
    at += 4
    items: list[object] = []
    while at < end:
        item, at = _value(data, at, depth)
        items.append(item)
    return items, end


_NUMBERS = {kind: struct.Struct(">" + code) for kind, code in zip(b"bBsUuIiLlfd", "bBhhHiIqqfd", strict=True)}


def _value(data: bytes, at: int, depth: int) -> tuple[object, int]:
    kind = data[at]
    at += 1
    number = _NUMBERS.get(kind)
    if number is not None:
        return number.unpack_from(data, at)[0], at + number.size
    match chr(kind):
        case "S" | "x" as string:
            end = at + 4 + _U32(data, at)[0]
            if end > len(data):
                raise IndexError("a string runs past its end")
            content = data[at + 4 : end]
            return (_text_or_bytes(content) if string == "S" else content), end
        case "t":
            return bool(data[at]), at + 1
        case "V":
            return None, at
        case "T":
            return _moment(_U64(data, at)[0]), at + 8
        case "D":
            return Decimal(struct.unpack_from(">i", data, at + 1)[0]).scaleb(-data[at]), at + 5
        case "F":
            return _table(data, at, depth + 1)
        case "A":
            return _array(data, at, depth + 1)
        case unknown:
            raise ValueError(f"unknown field type {unknown!r}")


def _text_or_bytes(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _moment(seconds: int) -> datetime | int:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return seconds
