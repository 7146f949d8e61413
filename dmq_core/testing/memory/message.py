"""Messages as the in-memory broker keeps them, and what they tell of their deaths; pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from dmq_core.messaging.amqp.frames import decode_properties, safe_properties
from dmq_core.messaging.messages import NO_HEADERS, Headers

_HAS_TYPE, _HAS_ENCODING, _HAS_HEADERS, _HAS_EXPIRATION = 1 << 15, 1 << 14, 1 << 13, 1 << 8
# What may stand between the headers and the expiration, and whether it is one byte or a short string.
_BEFORE_EXPIRATION = ((1 << 12, True), (1 << 11, True), (1 << 10, False), (1 << 9, False))
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")


class Reason(StrEnum):
    """Why a message left its queue for the dead-letter exchange."""

    REJECTED = "rejected"
    EXPIRED = "expired"
    MAXLEN = "maxlen"
    DELIVERY_LIMIT = "delivery_limit"


@dataclass(frozen=True, slots=True)
class Death:
    """How often a message died in `queue` for `reason`, and the circumstances of the first time."""

    queue: str
    reason: str
    exchange: str
    routing_keys: tuple[str, ...]
    at: float
    count: int = 1
    expiration: str | None = None

    def table(self) -> dict[str, object]:
        """The entry of the `x-death` header."""
        told: dict[str, object] = {
            "count": self.count,
            "reason": self.reason,
            "queue": self.queue,
            "time": datetime.fromtimestamp(int(self.at), UTC),
            "exchange": self.exchange,
            "routing-keys": list(self.routing_keys),
        }
        return told if self.expiration is None else {**told, "original-expiration": self.expiration}


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way: where it was published, its properties as they came, and its deaths, the latest first.

    `first_death` is the earliest of them. `delivered` tells that some consumer has had it, `acquired` and `failed` how
    often a quorum queue counted that.
    """

    exchange: str
    routing_key: str
    raw_properties: bytes
    body: bytes
    deaths: tuple[Death, ...] = ()
    first_death: Death | None = None
    delivered: bool = False
    acquired: int = 0
    failed: int = 0
    headers: Headers = field(default_factory=lambda: NO_HEADERS)

    @classmethod
    def published(cls, exchange: str, routing_key: str, raw_properties: bytes, body: bytes) -> Message:
        """A message as it came from a publisher."""
        headers = safe_properties(raw_properties).headers
        return cls(exchange, routing_key, raw_properties, body, headers=headers)

    @property
    def routing_keys(self) -> tuple[str, ...]:
        """Its routing key and the keys of its `CC` header, as dead letters tell them."""
        copies = self.headers.get("CC")
        listed = copies if isinstance(copies, list | tuple) else ()
        return (self.routing_key, *(str(key) for key in listed))

    @property
    def expiration_s(self) -> float | None:
        """After how many seconds in a queue its publisher wants it to expire."""
        expiration = safe_properties(self.raw_properties).expiration
        return None if expiration is None else expiration / 1000

    @property
    def is_persistent(self) -> bool:
        """Whether it survives its node."""
        return safe_properties(self.raw_properties).delivery_mode == 2

    def died(self, queue: str, reason: Reason, at: float) -> Message:
        """The message after its death in `queue` at `at` (epoch seconds); the expiration is gone."""
        expiration = decode_properties(self.raw_properties).expiration if self.raw_properties else None
        known = next((d for d in self.deaths if (d.queue, d.reason) == (queue, reason)), None)
        if known is None:
            told = None if expiration is None else str(expiration)
            death = Death(queue, reason, self.exchange, self.routing_keys, at, 1, told)
        else:
            death = replace(known, count=known.count + 1)
        deaths = (death, *(d for d in self.deaths if d is not known))
        raw = respliced(self.raw_properties, None, keep_expiration=False)
        first = self.first_death if self.deaths else death
        return replace(self, deaths=deaths, first_death=first, raw_properties=raw)

    def forwarded(self, exchange: str, routing_key: str | None) -> Message:
        """The dead letter on its way to `exchange`, by a key of its queue's own where that names one."""
        if routing_key is None:
            return replace(self, exchange=exchange, headers=_without(self.headers, "BCC"))
        return replace(self, exchange=exchange, routing_key=routing_key, headers=_without(self.headers, "BCC", "CC"))

    def is_cycle(self, queue: str) -> bool:
        """Whether it was in `queue` before and came back without ever being rejected on the way."""
        names = [death.queue for death in self.deaths]
        if queue not in names:
            return False
        return all(death.reason != Reason.REJECTED for death in self.deaths[: names.index(queue) + 1])

    def told_headers(self, last_death: bool, counts: Mapping[str, int]) -> Headers:
        """The headers as a consumer gets them, with what its queue `counts`."""
        told = _without(self.headers, "BCC")
        if self.deaths:
            told["x-death"] = [death.table() for death in self.deaths]
        if self.first_death is not None:
            told |= _circumstances("first", self.first_death)
            if last_death:
                told |= _circumstances("last", self.deaths[0])
        return {**told, **{name: count for name, count in counts.items() if count}}


def _without(headers: Headers, *names: str) -> dict[str, object]:
    return {name: value for name, value in headers.items() if name not in names}


def _circumstances(which: str, death: Death) -> dict[str, object]:
    return {
        f"x-{which}-death-exchange": death.exchange,
        f"x-{which}-death-queue": death.queue,
        f"x-{which}-death-reason": death.reason,
    }


def deaths_told(headers: Headers) -> tuple[Death, ...]:
    """The deaths that the `x-death` header of a client tells, which brokers before 4.0 believe."""
    told = headers.get("x-death")
    tables = [t for t in told if isinstance(t, Mapping)] if isinstance(told, list) else []
    return tuple(_death_told(table) for table in tables)


def _death_told(table: Mapping[str, object]) -> Death:
    keys, at, count = table.get("routing-keys"), table.get("time"), table.get("count")
    return Death(
        str(table.get("queue", "")),
        str(table.get("reason", "")),
        str(table.get("exchange", "")),
        tuple(str(key) for key in keys) if isinstance(keys, list) else (),
        at.timestamp() if isinstance(at, datetime) else 0.0,
        count if isinstance(count, int) else 1,
    )


def respliced(raw: bytes, table: bytes | None, keep_expiration: bool = True) -> bytes:
    """Encoded properties with the encoded headers `table` in the place of their own (None: left as they are)."""
    flags = _U16.unpack_from(raw)[0] if raw else 0
    start = 2
    for bit in (_HAS_TYPE, _HAS_ENCODING):
        start += 1 + raw[start] if flags & bit else 0
    end = start + 4 + _U32.unpack_from(raw, start)[0] if flags & _HAS_HEADERS else start
    at = end
    for bit, is_byte in _BEFORE_EXPIRATION:
        if flags & bit:
            at += 1 if is_byte else 1 + raw[at]
    rest = raw[end:]
    if not keep_expiration and flags & _HAS_EXPIRATION:
        rest = raw[end:at] + raw[at + 1 + raw[at] :]
        flags &= ~_HAS_EXPIRATION
    headers = raw[start:end] if table is None else table
    flags = flags | _HAS_HEADERS if headers else flags & ~_HAS_HEADERS
    return _U16.pack(flags) + raw[2:start] + headers + rest
