"""The copy of a failed message that is handed on: what it keeps, and what it tells of its failures; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.amqp.validation import plain_headers
from dmq_core.messaging.messages import Headers, MessageProperties
from dmq_core.text import visible

ATTEMPTS: Final = "x-dmq-attempts"
FIRST_FAILURE: Final = "x-dmq-first-failure"
LAST_FAILURE: Final = "x-dmq-last-failure"
ERROR: Final = "x-dmq-error"
QUEUE: Final = "x-dmq-queue"
EXCHANGE: Final = "x-dmq-exchange"
ROUTING_KEY: Final = "x-dmq-routing-key"
PARKED: Final = "x-dmq-parked"
CC: Final = "x-dmq-cc"
EXPIRATION: Final = "x-dmq-expiration"
USER_ID: Final = "x-dmq-user-id"
ERROR_BYTES: Final = 500
# Deaths from before would make RabbitMQ 3 take the way back for a circle, and counts of another queue mean nothing.
_BROKERS_OWN: Final = frozenset(
    {"x-death", "x-delivery-count", "x-acquired-count"}
    | {f"x-{which}-death-{what}" for which in ("first", "last") for what in ("queue", "reason", "exchange")}
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How the handling of a message failed: how often by now, the epoch seconds of the first (None: not known) and
    the last time, and the last error."""

    attempts: int
    first_at: float | None
    last_at: float
    why: str


def attempts_before(headers: Headers) -> int:
    """How often a message failed before it was handed on to its queue; a parked one that came back starts anew."""
    told = headers.get(ATTEMPTS)
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 and PARKED not in headers else 0


def properties_of_copy(
    properties: MessageProperties, exchange: str, routing_key: str, queue: str, failure: Failure, *, parked: bool
) -> MessageProperties:
    """The properties of the copy of a message that failed in `queue`, to which it was published through `exchange`.

    Everything is kept but what would send the copy astray: further routing keys (CC), an expiry that would end its
    wait or drop it, and a user id that the broker accepts from that user alone. These move into headers of ours.
    """
    headers = {name: value for name, value in properties.headers.items() if name not in _BROKERS_OWN}
    if headers.pop(PARKED, None):
        headers.pop(FIRST_FAILURE, None)
    moved = {
        CC: headers.pop("CC", None),
        EXPIRATION: properties.expiration,
        USER_ID: properties.user_id,
        PARKED: True if parked else None,
    }
    headers |= {name: value for name, value in moved.items() if value is not None}
    headers |= {ATTEMPTS: failure.attempts, LAST_FAILURE: _moment(failure.last_at), ERROR: bounded(failure.why)}
    if failure.first_at is not None:
        headers.setdefault(FIRST_FAILURE, _moment(failure.first_at))
    for name, value in ((QUEUE, queue), (EXCHANGE, exchange), (ROUTING_KEY, routing_key)):
        headers.setdefault(name, value)
    return replace(properties, headers=_sendable(headers), expiration=None, user_id=None)


def bounded(text: str, limit: int = ERROR_BYTES) -> str:
    """`text` made visible, in at most `limit` bytes of UTF-8."""
    shown = visible(text)
    data = shown.encode()
    return shown if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "…"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _sendable(headers: Mapping[str, object]) -> dict[str, object]:
    """The headers, with values that we can read but not write (floating point, for one) as text."""
    return {name: value if _can_be_sent(name, value) else bounded(repr(value)) for name, value in headers.items()}


def _can_be_sent(name: str, value: object) -> bool:
    try:
        plain_headers({name: value})
    except InvalidInputError:
        return False
    return True
