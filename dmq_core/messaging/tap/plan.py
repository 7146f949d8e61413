"""How to look at a source without taking anything from it: what to bind to, and what that cannot see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import NO_HEADERS, MessageProperties, SeenMessage
from dmq_core.messaging.tap.source import TailSource
from dmq_core.messaging.topology.model import PrivateBinding
from dmq_core.text import visible

FIREHOSE = "amq.rabbitmq.trace"
BODY_SHOWN_BYTES = 64 << 10
_OLD = "messages that were in queues before"
_OTHERS = "other exchanges, the default exchange among them"
_PATTERN_TYPES = ("topic", "x-delayed-message")
_PATTERNLESS_TYPES = ("fanout", "x-recent-history")
_SHARING_TYPES = ("x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random")
_TRACED_TEXTS = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "user_id",
    "app_id",
)
_TRACED_NUMBERS = ("delivery_mode", "priority", "timestamp", "expiration")


@dataclass(frozen=True, slots=True)
class TapPlan:
    """What a tap's queue is bound by, in words how it looks, and what it cannot see."""

    method: str
    blind_spots: tuple[str, ...]
    bindings: tuple[PrivateBinding, ...]
    is_firehose: bool = False


def plan_tap(source: TailSource, exchange_type: str = "topic", bindings: tuple[PrivateBinding, ...] = ()) -> TapPlan:
    """How to tap `source`; `InvalidInputError` if it cannot be done without taking messages from its queues.

    `bindings` are those of the queue, for a queue; those of the exchange, for a direct exchange with pattern `#`.
    """
    if source.queue is not None:
        return _queue_plan(source.queue, bindings)
    if source.exchange is None:
        return TapPlan(
            "firehose",
            ("nodes and virtual hosts whose tracing is off", _OLD),
            (PrivateBinding(FIREHOSE, f"deliver.{source.pattern}"),),
            is_firehose=True,
        )
    return _exchange_plan(source.exchange, source.pattern, exchange_type, bindings)


def _queue_plan(queue: str, bindings: tuple[PrivateBinding, ...]) -> TapPlan:
    usable = tuple(b for b in bindings if b.source)
    if not usable:
        nothing = (f"everything: only the default exchange routes to {visible(queue)}, and nothing can be bound to it",)
        return TapPlan("tap", nothing, ())
    blind = ("what comes through the default exchange", _OLD, "whether a message is a redelivery")
    return TapPlan("tap", blind, usable)


def _exchange_plan(name: str, pattern: str, kind: str, bindings: tuple[PrivateBinding, ...]) -> TapPlan:
    if not name:
        raise InvalidInputError(
            "nothing can be bound to the default exchange, so it cannot be tapped",
            "Tail with the firehose, or publish through an exchange of your own.",
        )
    if kind in _SHARING_TYPES:
        raise InvalidInputError(
            f"{visible(name)} shares its messages out ({visible(kind)}): a tap would take some of them away",
            "Tail with the firehose, or an exchange in front of it.",
        )
    if kind in _PATTERN_TYPES:
        return TapPlan("tap", (_OTHERS, _OLD), (PrivateBinding(name, pattern),))
    if kind in _PATTERNLESS_TYPES:
        return TapPlan("tap", (*_ignored(pattern, kind), _OTHERS, _OLD), (PrivateBinding(name),))
    if kind == "headers":
        everything = PrivateBinding(name, "", {"x-match": "all"})
        return TapPlan("tap", (*_ignored(pattern, kind), _OTHERS, _OLD), (everything,))
    if kind == "direct":
        return _direct_plan(name, pattern, bindings)
    raise InvalidInputError(
        f"{visible(name)} is of type {visible(kind)}, which dmq cannot tap", "Tail with the firehose."
    )


def _direct_plan(name: str, pattern: str, bindings: tuple[PrivateBinding, ...]) -> TapPlan:
    if pattern != "#":
        keys = [pattern]
        blind = f"keys other than {visible(pattern)}"
    else:
        keys = sorted({b.routing_key for b in bindings if b.source == name})
        blind = "keys that no queue was bound with when the tap began"
    if not keys:
        raise InvalidInputError(
            f"{visible(name)} is a direct exchange without bindings, so no key is known to tap", "Give the exact key."
        )
    return TapPlan("tap", (blind, _OTHERS, _OLD), tuple(PrivateBinding(name, key) for key in keys))


def _ignored(pattern: str, kind: str) -> tuple[str, ...]:
    return () if pattern in ("", "#") else (f"nothing by key: a {kind} exchange ignores {visible(pattern)}",)


def cut(message: SeenMessage) -> SeenMessage:
    """`message` with at most 64 KiB of its body."""
    return message if message.size <= BODY_SHOWN_BYTES else replace(message, body=message.body[:BODY_SHOWN_BYTES])


def untraced(trace: SeenMessage) -> SeenMessage:
    """The message that a firehose copy is about."""
    headers = trace.properties.headers
    keys = headers.get("routing_keys")
    redelivered = headers.get("redelivered")
    _, _, queue = trace.routing_key.partition(".")
    return replace(
        trace,
        exchange=str(headers.get("exchange_name", "")),
        routing_key=str(keys[0]) if isinstance(keys, list) and keys else "",
        properties=_traced_properties(headers.get("properties")),
        queue=queue if trace.routing_key.startswith("deliver.") else None,
        redelivered=bool(redelivered) if isinstance(redelivered, int) else None,
    )


def _traced_properties(table: object) -> MessageProperties:
    if not isinstance(table, Mapping):
        return MessageProperties(delivery_mode=1)
    texts = {name: str(table[name]) for name in _TRACED_TEXTS if table.get(name) is not None}
    numbers = {name: _whole(table.get(name)) for name in _TRACED_NUMBERS}
    headers = table.get("headers")
    return MessageProperties(
        **texts,
        delivery_mode=numbers["delivery_mode"] or 1,
        priority=numbers["priority"],
        timestamp=numbers["timestamp"],
        expiration=numbers["expiration"],
        headers=headers if isinstance(headers, Mapping) else NO_HEADERS,
    )


def _whole(value: object) -> int | None:
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None
