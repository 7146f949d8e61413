"""Headers and properties as people type them: `name=value`, the value's type recognised by its look."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import Headers, MessageProperties
from dmq_core.text import visible

_INTEGER_LIMIT = 1 << 63
_SHORT_STRING_BYTES = 255
_WORDS: Mapping[str, object] = {"true": True, "false": False, "null": None}
_TEXT_PROPERTIES = frozenset(
    {"content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "user_id", "app_id"}
)
PROPERTY_NAMES = (*sorted(_TEXT_PROPERTIES), "delivery_mode", "expiration", "priority", "timestamp")


def typed_value(text: str) -> object:
    """`true` and `false` as booleans, `null` as nothing, numbers as numbers, JSON `"…"`, `[…]`, `{…}` as what they
    say, everything else as the string that it is. `InvalidInputError` for broken JSON and for numbers that AMQP cannot
    carry.
    """
    stripped = text.strip()
    if stripped in _WORDS:
        return _WORDS[stripped]
    if stripped[:1] in ('"', "[", "{"):
        return _json_value(stripped)
    number = _number(stripped)
    return text if number is None else number


def type_name(value: object) -> str:
    """The word for a header value's type: `integer`, `boolean`, `text` and so on."""
    if value is None:
        return "null"
    names: tuple[tuple[type, str], ...] = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "float"),
        (str, "text"),
        (list, "list"),
        (dict, "table"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def parse_headers(lines: Iterable[str]) -> Headers:
    """The headers in `name=value` lines; empty lines count for nothing.

    `InvalidInputError` names the line that is wrong.
    """
    headers: dict[str, object] = {}
    for line in lines:
        if not line.strip():
            continue
        name, value = _split(line, "header", "Write name=value, for example vip=true.")
        if len(name.encode("utf-8", "replace")) > _SHORT_STRING_BYTES:
            raise InvalidInputError(f"the header name {visible(name[:20])!r}… is longer than 255 bytes", "Shorten it.")
        if name in headers:
            raise InvalidInputError(f"the header {visible(name)!r} is given twice", "Take one of them out.")
        headers[name] = typed_value(value)
    return headers


def parse_properties(lines: Iterable[str], headers: Headers) -> MessageProperties:
    """Message properties from `name=value` lines, persistent unless `delivery_mode=1`.

    Raises `InvalidInputError` if one is wrong.
    """
    found: dict[str, Any] = {}
    for line in lines:
        if not line.strip():
            continue
        raw_name, value = _split(line, "property", f"The properties are {', '.join(PROPERTY_NAMES)}.")
        name = raw_name.replace("-", "_").lower()
        if name not in PROPERTY_NAMES:
            raise InvalidInputError(
                f"there is no property {visible(raw_name)!r}", f"The properties are {', '.join(PROPERTY_NAMES)}."
            )
        if name in found:
            raise InvalidInputError(f"the property {name} is given twice", "Take one of them out.")
        found[name] = _property_value(name, value.strip())
    return replace(MessageProperties(headers=headers), **found)


def _split(line: str, what: str, hint: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not equals or not name.strip():
        raise InvalidInputError(f"the {what} {visible(line.strip())!r} has no name=value form", hint)
    return name.strip(), value


def _json_value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{visible(text[:60])} is not JSON: {error}", 'Close the quotes or brackets, or write "…".'
        ) from error
    return value


def _number(text: str) -> int | float | None:
    if not text or text[-1] not in "0123456789." or not text.isascii() or "_" in text:
        return None
    try:
        whole = int(text)
    except ValueError:
        return _fraction(text)
    if not -_INTEGER_LIMIT <= whole < _INTEGER_LIMIT:
        raise InvalidInputError(f"{text} does not fit in the 64 bits of an AMQP integer", f'Send it as text: "{text}".')
    return whole


def _fraction(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _property_value(name: str, text: str) -> object:
    if name == "delivery_mode":
        modes = {"1": 1, "transient": 1, "2": 2, "persistent": 2}
        if text not in modes:
            raise InvalidInputError(
                f"delivery_mode {visible(text)!r} is unknown", "Write 1 (transient) or 2 (persistent)."
            )
        return modes[text]
    if name in _TEXT_PROPERTIES:
        if len(text.encode("utf-8", "replace")) > _SHORT_STRING_BYTES:
            raise InvalidInputError(f"the property {name} is longer than 255 bytes", "Shorten it.")
        return text
    if name == "timestamp" and text == "now":
        return int(time.time())
    top = {"priority": 255, "expiration": (1 << 32) - 1, "timestamp": (1 << 63) - 1}[name]
    if not text.isascii() or not text.isdigit() or int(text) > top:
        raise InvalidInputError(
            f"the property {name} is no number: {visible(text)!r}", f"Write a whole number from 0 to {top}."
        )
    return int(text)
