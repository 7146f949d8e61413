"""What a message is on the wire: a body of bytes, and the content type that tells what they are; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import MessageProperties
from dmq_core.messaging.typed_fields import PROPERTY_NAMES
from dmq_core.text import visible

TEXT: Final = "text/plain"
JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
_UTF8: Final = "utf-8"
_FIELDS: Final = (*PROPERTY_NAMES, "headers")
# Shared values, so that an encoder that caches by identity finds them again.
_BARE: Final[Mapping[str, MessageProperties]] = {
    TEXT: MessageProperties(content_type=TEXT, content_encoding=_UTF8),
    JSON: MessageProperties(content_type=JSON, content_encoding=_UTF8),
    BINARY: MessageProperties(content_type=BINARY),
}

Message = str | bytes | bytearray | memoryview | Mapping[str, object] | list[object] | int | float | bool | None
Properties = MessageProperties | Mapping[str, object] | None


def encode(message: object) -> tuple[bytes, str]:
    """The body of `message` and its content type: text as UTF-8, bytes as they are, everything else as JSON.

    `InvalidInputError` if JSON has no words for it.
    """
    if isinstance(message, str):
        return _utf8(message), TEXT
    if isinstance(message, bytes):
        return message, BINARY
    if isinstance(message, bytearray | memoryview):
        return bytes(message), BINARY
    try:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(message).__name__
        raise InvalidInputError(
            f"a message of type {kind} is no JSON: {error}", "Send text, bytes, or plain values."
        ) from error
    return _utf8(text), JSON


def described(properties: Properties | object, content_type: str) -> MessageProperties:
    """`properties` in our own form, with `content_type` where they name none.

    A mapping has RabbitMQ's names (`delivery_mode`, `headers`, ...); pika's `BasicProperties` will do as well.
    `InvalidInputError` names what it does not know.
    """
    if properties is None:
        return _BARE[content_type]
    given = properties if isinstance(properties, MessageProperties) else _from_fields(_fields(properties))
    if given.content_type is not None:
        return given
    bare = _BARE[content_type]
    return replace(given, content_type=content_type, content_encoding=given.content_encoding or bare.content_encoding)


def with_headers(properties: MessageProperties, headers: Mapping[str, object]) -> MessageProperties:
    """`properties` with `headers` added, which win."""
    return replace(properties, headers={**properties.headers, **headers})


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            "the text holds half a surrogate pair, which UTF-8 has no bytes for", "Send it as bytes."
        ) from error


def _fields(properties: object) -> Mapping[str, object]:
    if isinstance(properties, Mapping):
        return properties
    if hasattr(properties, "delivery_mode") and hasattr(properties, "headers"):
        return {name: getattr(properties, name, None) for name in _FIELDS}
    kind = type(properties).__name__
    raise InvalidInputError(f"properties are {kind}", "Give MessageProperties, or a dict such as {'headers': {...}}.")


def _from_fields(fields: Mapping[str, object]) -> MessageProperties:
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        raise InvalidInputError(f"there is no property {visible(str(unknown[0]))!r}", f"They are {', '.join(_FIELDS)}.")
    given = {name: value for name, value in fields.items() if value is not None}
    expiration = given.get("expiration")
    if isinstance(expiration, str) and expiration.isascii() and expiration.isdigit():
        given["expiration"] = int(expiration)
    headers = given.get("headers", {})
    if not isinstance(headers, Mapping):
        raise InvalidInputError(f"headers are {type(headers).__name__}", "Give a dict of strings to values.")
    return MessageProperties(**given)  # type: ignore[arg-type]  # check_message looks at each value
