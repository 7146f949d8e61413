"""Whether a message can be sent at all, judged before it reaches a connection; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import MessageProperties
from dmq_core.text import visible

SHORT_STRING_BYTES: Final = 255
HEADERS_BYTES: Final = 100_000
_MAX_DEPTH: Final = 16
_SHORT_FIELDS: Final = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "user_id",
    "app_id",
)
_RANGES: Final = {
    "delivery_mode": (1, 2),
    "priority": (0, 255),
    "expiration": (0, 2**32 - 1),
    "timestamp": (0, 2**63 - 1),
}
_KEEP_IT_SHORT: Final = f"AMQP allows {SHORT_STRING_BYTES} bytes of UTF-8 there; put the rest into the body."


def check_address(exchange: str, routing_key: str) -> None:
    """Raises `InvalidInputError` if a message cannot be sent to that exchange with that routing key."""
    _short_string("the exchange name", exchange)
    _short_string("the routing key", routing_key)


def check_body(body: bytes) -> None:
    """Raises `InvalidInputError` if `body` is no bytes."""
    if not isinstance(body, bytes):
        raise InvalidInputError(f"the body is {_kind(body)}, not bytes", "Encode it, for example with .encode().")


def check_properties(properties: MessageProperties) -> None:
    """Raises `InvalidInputError` if one of the properties, headers aside, cannot be written to the wire as it is."""
    if not isinstance(properties, MessageProperties):
        raise InvalidInputError(f"the properties are {_kind(properties)}", "Give MessageProperties.")
    for name in _SHORT_FIELDS:
        value = getattr(properties, name)
        if value is not None:
            _short_string(name, value)
    for name, (low, high) in _RANGES.items():
        value = getattr(properties, name)
        if value is None and name != "delivery_mode":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidInputError(
                f"{name} is {visible(repr(value))}", f"It must be a whole number from {low} to {high}."
            )


def plain_headers(headers: Mapping[str, object]) -> dict[str, object]:
    """A deep copy of `headers` in types that AMQP knows; `InvalidInputError` names what it cannot carry."""
    table, size = _table(headers, "headers", 0)
    if size > HEADERS_BYTES:
        raise InvalidInputError(
            f"the headers take {size} bytes", f"Keep them below {HEADERS_BYTES}; they must fit one frame."
        )
    return table


def _short_string(what: str, value: object) -> int:
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} is {_kind(value)}, not text", "Give a string.")
    size = len(_utf8(what, value))
    if size > SHORT_STRING_BYTES:
        raise InvalidInputError(f"{what} is {size} bytes long", _KEEP_IT_SHORT)
    return size + 1


def _utf8(what: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} holds half a surrogate pair, which UTF-8 has no bytes for", "Send it as bytes."
        ) from error


def _table(table: object, where: str, depth: int) -> tuple[dict[str, object], int]:
    if not isinstance(table, Mapping):
        raise InvalidInputError(f"{where} is {_kind(table)}, not a mapping", "Give a dict of strings to values.")
    if depth > _MAX_DEPTH:
        raise InvalidInputError(
            f"{visible(where)[:60]} nests more than {_MAX_DEPTH} levels deep", "Flatten it, or use the body."
        )
    plain: dict[str, object] = {}
    size = 4
    for key, value in table.items():
        size += _short_string(f"a key in {visible(where)[:60]}", key)
        plain[key], taken = _value(value, f"{where}[{key!r}]", depth)
        size += taken
    return plain, size


def _value(value: object, where: str, depth: int) -> tuple[object, int]:
    match value:
        case None | bool():
            return value, 2
        case str():
            return value, 5 + len(_utf8(_shown(where), value))
        case bytes():
            return value, 5 + len(value)
        case Mapping():
            plain, size = _table(value, where, depth + 1)
            return plain, size + 1
        case list() | tuple():
            return _array(value, where, depth + 1)
        case int() | float() | Decimal() | datetime():
            _check_quantity(value, where)
            return value, 9
    raise InvalidInputError(
        f"{_shown(where)} is {_kind(value)}, which an AMQP header cannot carry here",
        "Send it as text.",
    )


def _array(values: list[object] | tuple[object, ...], where: str, depth: int) -> tuple[object, int]:
    if depth > _MAX_DEPTH:
        raise InvalidInputError(
            f"{_shown(where)} nests more than {_MAX_DEPTH} levels deep", "Flatten it, or use the body."
        )
    items = [_value(item, f"{where}[{i}]", depth) for i, item in enumerate(values)]
    return [item for item, _ in items], 5 + sum(size for _, size in items)


def _check_quantity(value: float | Decimal | datetime, where: str) -> None:
    if isinstance(value, float):
        # RabbitMQ closes the connection over a float that Erlang does not have.
        if not math.isfinite(value):
            raise InvalidInputError(f"{_shown(where)} is {value}, which RabbitMQ does not take", "Send it as text.")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidInputError(f"{_shown(where)} is too large for 64 bits", "Send it as text.")
    elif isinstance(value, datetime):
        # Pika takes a time without a zone for UTC.
        if value.replace(tzinfo=value.tzinfo or UTC).timestamp() < 0:
            raise InvalidInputError(
                f"{_shown(where)} lies before 1970", "AMQP times count seconds from 1970; send it as text."
            )
    else:
        exponent = value.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -9 or abs(value.scaleb(max(0, -exponent))) >= 2**31:
            raise InvalidInputError(f"{_shown(where)} is a decimal that 32 bits cannot hold", "Send it as text.")


def _shown(where: str) -> str:
    return visible(where)[:80]


def _kind(value: object) -> str:
    return type(value).__name__
