"""AMQP tables as bytes, in the types that RabbitMQ and its clients agree on; pure."""

from __future__ import annotations

import struct
from calendar import timegm
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

_BOOL: Final = struct.Struct(">cB").pack
_INT: Final = struct.Struct(">ci").pack
_LONG: Final = struct.Struct(">cq").pack
_FLOAT: Final = struct.Struct(">cd").pack
_TIME: Final = struct.Struct(">cQ").pack
_DECIMAL: Final = struct.Struct(">cBi").pack
_SIZED: Final = struct.Struct(">cI").pack
_U32: Final = struct.Struct(">I").pack


def encoded_table(table: Mapping[str, object]) -> bytes:
    """`table` with its size in front; `TypeError`, `ValueError` or `struct.error` for what AMQP cannot carry.

    Text becomes a long string, bytes a byte array, whole numbers 32 bits or 64, floats 64; a time without a zone is
    taken for UTC.
    """
    entries = b"".join([_short(key) + _value(value) for key, value in table.items()])
    return _U32(len(entries)) + entries


def _short(key: str) -> bytes:
    data = key.encode()
    return struct.pack(">B", len(data)) + data


def _value(value: object) -> bytes:
    match value:
        case str():
            return _sized(b"S", value.encode())
        case bytes():
            return _sized(b"x", value)
        case None:
            return b"V"
        case datetime():
            return _TIME(b"T", timegm(value.utctimetuple()))
        case Mapping():
            return b"F" + encoded_table(value)
        case Sequence():
            return _sized(b"A", b"".join([_value(item) for item in value]))
    return _number(value)


def _number(value: object) -> bytes:
    match value:
        case bool():
            return _BOOL(b"t", value)
        case int():
            return _INT(b"I", value) if -(2**31) <= value < 2**31 else _LONG(b"l", value)
        case float():
            return _FLOAT(b"d", value)
        case Decimal():
            return _decimal(value)
    raise TypeError(f"AMQP has no type for {type(value).__name__}")


def _sized(kind: bytes, data: bytes) -> bytes:
    return _SIZED(kind, len(data)) + data


def _decimal(value: Decimal) -> bytes:
    value = value.normalize()
    places = max(0, -int(value.as_tuple().exponent))
    return _DECIMAL(b"D", places, int(value.scaleb(places)))
