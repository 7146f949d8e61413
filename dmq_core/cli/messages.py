"""Messages as lines: for people, and as the contract's JSON."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from dmq_core.cli.output import Output
from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import MessageProperties, SeenMessage
from dmq_core.presentation import clock
from dmq_core.text import visible, visible_body

_SHOWN_BODY = 400
_FIELDS = ("exchange", "key", "queue", "body")


def write_message(out: Output, message: SeenMessage) -> None:
    """Writes one message as a line, at once."""
    if out.json:
        out.json_line(message_document(message))
    else:
        out.text(message_line(message))


def message_document(message: SeenMessage) -> dict[str, Any]:
    """The contract's object of one message; a body that is not UTF-8 stands in base64."""
    body, encoding = _encoded(message.body)
    return {
        "at": round(message.at, 6),
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "queue": message.queue,
        "redelivered": message.redelivered,
        "headers": {str(name): plain(value) for name, value in message.properties.headers.items()},
        "properties": _properties(message.properties),
        "body": body,
        "body_encoding": encoding,
        "size": message.size,
    }


def message_line(message: SeenMessage) -> str:
    """One line for people; long bodies are cut and say so."""
    body = visible_body(message.body)
    cut = message.size > len(message.body) or len(body) > _SHOWN_BODY
    shown = body[:_SHOWN_BODY] + (f"… ({message.size} bytes)" if cut else "")
    again = "↻ redelivered  " if message.redelivered else ""
    queue = f" [{visible(message.queue)}]" if message.queue else ""
    way = f"{visible(message.exchange) or '(default)'} → {visible(message.routing_key)}{queue}"
    headers = " ".join(f"{visible(str(k))}={visible(str(v))}" for k, v in message.properties.headers.items())
    return "  ".join(part for part in (clock(message.at), again + way, headers, shown) if part)


def plain(value: object) -> object:
    """A header's value as JSON can hold it; bytes that are no UTF-8 become `base64:...`, dates ISO 8601."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        text, encoding = _encoded(value)
        return text if encoding == "utf-8" else f"base64:{text}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)


class MessageFilter:
    """What `--filter` says: each expression must hold.

    `FIELD=GLOB` looks at `exchange`, `key`, `queue`, `body` or `header.NAME`; any other text must stand somewhere in
    the key, the headers or the body; a leading `!` turns either round. `InvalidInputError` for an empty expression.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        self._tests = [_parsed(expression) for expression in expressions]

    def matches(self, message: SeenMessage) -> bool:
        """Whether every expression holds for `message`."""
        return all(_holds(field, pattern, message) != negated for negated, field, pattern in self._tests)


def _parsed(expression: str) -> tuple[bool, str, str]:
    negated = expression.startswith("!")
    text = expression.removeprefix("!")
    if not text:
        raise InvalidInputError("the filter is empty", "Give a text, or FIELD=GLOB such as key=order.*.")
    field, equals, pattern = text.partition("=")
    if equals and (field in _FIELDS or field.startswith("header.")):
        return negated, field, pattern
    return negated, "", text


def _holds(field: str, pattern: str, message: SeenMessage) -> bool:
    body = message.body.decode(errors="replace")
    headers = {str(name): str(plain(value)) for name, value in message.properties.headers.items()}
    if not field:
        return any(pattern in text for text in (message.routing_key, body, *headers, *headers.values()))
    if field.startswith("header."):
        value = headers.get(field.removeprefix("header."))
        return value is not None and fnmatchcase(value, pattern)
    values = {"exchange": message.exchange, "key": message.routing_key, "queue": message.queue or "", "body": body}
    return fnmatchcase(values[field], pattern)


def _encoded(data: bytes) -> tuple[str, str]:
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii"), "base64"


def _properties(properties: MessageProperties) -> dict[str, object]:
    values = {field.name: getattr(properties, field.name) for field in dataclasses.fields(properties)}
    return {name: plain(value) for name, value in values.items() if name != "headers" and value is not None}
