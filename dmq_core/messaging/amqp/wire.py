"""A message as the bytes of its frames, made on the caller's thread; no I/O.

What repeats is encoded once: the method frame of an exchange, routing key and mandatory flag, and the properties of
one value around the place of the message's own id.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.amqp.tables import encoded_table
from dmq_core.messaging.amqp.validation import check_address, check_body, check_properties, plain_headers
from dmq_core.messaging.messages import MessageProperties

ID_HEADER: Final = "x-dmq-id"
OWN_ID_BYTES: Final = 25
FRAME_OVERHEAD: Final = 8
# The bits that announce each property, in the order in which they are sent; the headers are of their own kind.
_BEFORE_HEADERS: Final = (("content_type", 15), ("content_encoding", 14))
_BEFORE_ID: Final = (
    ("delivery_mode", 12),
    ("priority", 11),
    ("correlation_id", 10),
    ("reply_to", 9),
    ("expiration", 8),
)
_AFTER_ID: Final = (("timestamp", 6), ("type", 5), ("user_id", 4), ("app_id", 3))
_HEADERS_FLAG: Final = 1 << 13
_MESSAGE_ID_FLAG: Final = 1 << 7
_OCTETS: Final = ("delivery_mode", "priority")
_REMEMBERED: Final = 1024
_BASIC, _PUBLISH = 60, 40
_END: Final = b"\xce"
_BYTE = struct.Struct(">B").pack
_U16 = struct.Struct(">H").pack
_U32 = struct.Struct(">I").pack
_U64 = struct.Struct(">Q").pack
_FRAME_HEAD = struct.Struct(">BHI").pack
_METHOD = struct.Struct(">HHH").pack
_HEADER_HEAD = struct.Struct(">BHIHH").pack
_END_AND_BODY_HEAD = struct.Struct(">BBHI").pack
_ID_ENTRY: Final = _BYTE(len(ID_HEADER)) + ID_HEADER.encode() + b"S" + _U32(OWN_ID_BYTES)


def own_id(prefix: bytes, number: int) -> bytes:
    """The id by which we know a message again, of `OWN_ID_BYTES`; `prefix` has 12 bytes."""
    return b"%b-%012x" % (prefix, number)


def with_id(properties: MessageProperties, own: str) -> MessageProperties:
    """The properties as they are sent: our id as message id where there is none, else in a header."""
    headers = {key: value for key, value in properties.headers.items() if key != ID_HEADER}
    if properties.message_id is None:
        return replace(properties, message_id=own, headers=headers)
    return replace(properties, headers={**headers, ID_HEADER: own})


class _Template:
    """The content header of messages with the same properties, but for the body's size and the message's own id."""

    __slots__ = ("after_id", "before_id", "before_size", "properties")

    def __init__(self, channel: int, properties: MessageProperties, before_id: bytes, after_id: bytes) -> None:
        # Held so that no other value can come to have its identity.
        self.properties = properties
        size = 12 + len(before_id) + OWN_ID_BYTES + len(after_id)
        self.before_size = _HEADER_HEAD(2, channel, size, _BASIC, 0)
        self.before_id = before_id
        self.after_id = after_id


class MessageEncoder:
    """Encodes messages for a channel of that number on a connection whose frames carry up to `frame_limit` bytes.

    From any thread.
    """

    def __init__(self, channel: int, frame_limit: int) -> None:
        self.channel = channel
        self.frame_limit = frame_limit
        self._methods: dict[tuple[str, str, bool], bytes] = {}
        self._templates: dict[int, _Template] = {}

    def fits(self, channel: int, frame_limit: int) -> bool:
        """Whether what this encodes may be sent there."""
        return (channel, frame_limit) == (self.channel, self.frame_limit)

    def encode(
        self, exchange: str, routing_key: str, body: bytes, properties: MessageProperties, mandatory: bool, own: bytes
    ) -> bytes:
        """The frames of one message that carries the id `own`; `InvalidInputError` if it cannot be sent as it is."""
        try:
            method = self._methods[exchange, routing_key, mandatory]
        except (KeyError, TypeError):
            method = self._method(exchange, routing_key, mandatory)
        template = self._templates.get(id(properties)) or self._template(properties)
        if type(body) is not bytes:
            check_body(body)
        size = len(body)
        if 0 < size <= self.frame_limit:
            return b"".join(
                (
                    method,
                    template.before_size,
                    _U64(size),
                    template.before_id,
                    own,
                    template.after_id,
                    _END_AND_BODY_HEAD(0xCE, 3, self.channel, size),
                    body,
                    _END,
                )
            )
        header = (method, template.before_size, _U64(size), template.before_id, own, template.after_id, _END)
        return b"".join((*header, *self._pieces(body)))

    def _method(self, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        check_address(exchange, routing_key)
        payload = b"".join(
            (_METHOD(_BASIC, _PUBLISH, 0), _short(exchange), _short(routing_key), _BYTE(bool(mandatory)))
        )
        frame = _FRAME_HEAD(1, self.channel, len(payload)) + payload + _END
        _remember(self._methods, (exchange, routing_key, mandatory), frame)
        return frame

    def _template(self, properties: MessageProperties) -> _Template:
        check_properties(properties)
        # A mapping of headers may change between two messages, so only properties without any are remembered.
        entries = _entries(properties.headers) if properties.headers else b""
        template = _Template(self.channel, properties, *_around_id(properties, entries))
        size = 12 + len(template.before_id) + OWN_ID_BYTES + len(template.after_id)
        if size > self.frame_limit:
            raise InvalidInputError(
                f"the properties and headers take {size} bytes", f"They must fit one frame of {self.frame_limit} bytes."
            )
        if not properties.headers:
            _remember(self._templates, id(properties), template)
        return template

    def _pieces(self, body: bytes) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = []
        view = memoryview(body)
        for start in range(0, len(body), self.frame_limit):
            piece = view[start : start + self.frame_limit]
            pieces += (_FRAME_HEAD(3, self.channel, len(piece)), piece, _END)
        return pieces


def _around_id(properties: MessageProperties, entries: bytes) -> tuple[bytes, bytes]:
    """The encoded properties before and after our id; `entries` is the encoded headers' own."""
    flags, first = _fields(properties, _BEFORE_HEADERS)
    more_flags, before = _fields(properties, _BEFORE_ID)
    last_flags, after = _fields(properties, _AFTER_ID)
    flags |= more_flags | last_flags | _MESSAGE_ID_FLAG
    if properties.message_id is None:
        table = b""
        if entries:
            flags |= _HEADERS_FLAG
            table = _U32(len(entries)) + entries
        return b"".join((_U16(flags), first, table, before, _BYTE(OWN_ID_BYTES))), after
    size = len(entries) + len(_ID_ENTRY) + OWN_ID_BYTES
    head = b"".join((_U16(flags | _HEADERS_FLAG), first, _U32(size), entries, _ID_ENTRY))
    return head, before + _short(properties.message_id) + after


def _fields(properties: MessageProperties, fields: tuple[tuple[str, int], ...]) -> tuple[int, bytes]:
    flags, encoded = 0, b""
    for name, bit in fields:
        value = getattr(properties, name)
        if value is not None:
            flags |= 1 << bit
            encoded += _field(name, value)
    return flags, encoded


def _field(name: str, value: Any) -> bytes:
    if name in _OCTETS:
        return _BYTE(value)
    if name == "timestamp":
        return _U64(value)
    return _short(str(value) if name == "expiration" else value)


def _short(text: str) -> bytes:
    data = text.encode()
    return _BYTE(len(data)) + data


def _entries(headers: Mapping[str, object]) -> bytes:
    plain = plain_headers(headers)
    plain.pop(ID_HEADER, None)
    return encoded_table(plain)[4:]


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= _REMEMBERED:
        cache.clear()
    cache[key] = value
