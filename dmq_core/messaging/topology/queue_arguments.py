"""What each RabbitMQ version makes of an argument of a queue: takes it, refuses it, or ignores it in silence; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from dmq_core.messaging.topology.model import Queue
from dmq_core.text import visible
from dmq_core.versions import Version

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
STREAM: Final = "stream"
QUEUE_TYPES: Final = (CLASSIC, QUORUM, STREAM)
QUEUES_THAT_FORGET: Final = (CLASSIC, QUORUM)
OLDEST: Final = Version(3, 10)
WITH_STREAM_FILTERS: Final = Version(3, 13)
WITHOUT_LAZY_MODE: Final = Version(3, 12)
WITH_DELIVERY_LIMIT: Final = Version(4, 0)
WITH_DELAYED_RETRY: Final = Version(4, 3)
DEFAULT_DELIVERY_LIMIT: Final = 20
_FOR_EVER: Final = Version(99, 0)
_TEN_YEARS_MS: Final = 315_360_000_000
_UNBOUNDED: Final = 2**63 - 1
_MAX_AGE = re.compile(r"0*[1-9][0-9]*[YMDhms]")


@dataclass(frozen=True, slots=True)
class ArgumentVerdict:
    """Why an argument does not do what it says; `refused` if the declaration fails over it, else it is ignored."""

    refused: bool
    what: str
    hint: str


def judge_argument(name: str, value: object, kind: str, version: Version) -> ArgumentVerdict | None:
    """What is wrong with the argument `name` of a queue of type `kind` (of `QUEUE_TYPES`); None if nothing is."""
    known = [rule for rule in _RULES if rule.name == name and rule.since <= version < rule.until]
    mine = next((rule for rule in known if kind in rule.kinds), None)
    if mine is not None:
        wanted = mine.wants(value)
        if wanted:
            return ArgumentVerdict(mine.checked and value not in mine.tolerated, f"{name} is {_shown(value)}", wanted)
        return ArgumentVerdict(False, f"{name} has no effect", mine.idle) if mine.idle else None
    if known:
        kinds = " and ".join(known[0].kinds)
        return ArgumentVerdict(True, f"a {kind} queue has no {name}", f"Only {kinds} queues have it; take it out.")
    return ArgumentVerdict(False, f"{_shown(name)} means nothing to RabbitMQ {version}", _why_unknown(name, kind))


def queue_kind(queue: Queue) -> str | None:
    """The type that `queue` will have; None if the virtual host's default decides."""
    kind = queue.all_arguments.get("x-queue-type")
    if kind is not None:
        return str(kind)
    # A default type that does not fit is passed over.
    return None if queue.durable and not queue.exclusive and not queue.auto_delete else CLASSIC


def delivery_limit(arguments: Mapping[str, object], version: Version) -> int | None:
    """After how many returns a quorum queue with `arguments` gives a message up; None: never."""
    limit = arguments.get("x-delivery-limit")
    if not _is_whole(limit):
        return DEFAULT_DELIVERY_LIMIT if version >= WITH_DELIVERY_LIMIT else None
    if limit < 0:
        return None if version >= WITH_DELIVERY_LIMIT else 0
    return limit


Wants = Callable[[object], str]
"""What the value ought to be, as a sentence; empty if it is that."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """`checked`: the broker refuses a wrong value that it does not tolerate; else it goes on as if there were none.

    `idle` says why even a right value does nothing; empty if it does something.
    """

    name: str
    kinds: tuple[str, ...]
    wants: Wants
    checked: bool = True
    since: Version = OLDEST
    until: Version = _FOR_EVER
    tolerated: tuple[str, ...] = ()
    idle: str = ""


def _whole(low: int, high: int = _UNBOUNDED) -> Wants:
    sentence = f"It must be a whole number from {low}" + (f" to {high}." if high < _UNBOUNDED else ".")
    return lambda value: "" if _is_whole(value) and low <= value <= high else sentence


def _one_of(*choices: object) -> Wants:
    sentence = f"It must be one of {', '.join(str(c) for c in choices)}."
    return lambda value: "" if any(type(value) is type(c) and value == c for c in choices) else sentence


def _text(value: object) -> str:
    return "" if isinstance(value, str) else "It must be text."


def _boolean(value: object) -> str:
    return "" if isinstance(value, bool) else "It must be true or false."


def _max_age(value: object) -> str:
    fits = isinstance(value, str) and _MAX_AGE.fullmatch(value)
    return "" if fits else "It must be a number and a unit of Y, M, D, h, m, s, such as 7D."


def _delivery_limit(value: object) -> str:
    return "" if _is_whole(value) else "It must be a whole number."


def _anything(_value: object) -> str:
    return ""


def _never(sentence: str) -> Wants:
    return lambda _value: sentence


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


_LOCATORS: Final = ("client-local", "balanced", "random", "least-leaders")
_V4: Final = WITH_DELIVERY_LIMIT
_V43: Final = WITH_DELAYED_RETRY

# The first rule that fits the name, the type and the version decides.
_RULES: Final = (
    _Rule("x-queue-type", QUEUE_TYPES, _one_of(*QUEUE_TYPES)),
    _Rule("x-message-ttl", QUEUES_THAT_FORGET, _whole(0, _TEN_YEARS_MS)),
    _Rule("x-expires", QUEUES_THAT_FORGET, _whole(1, _TEN_YEARS_MS)),
    _Rule("x-max-length", QUEUES_THAT_FORGET, _whole(0)),
    _Rule("x-max-length-bytes", QUEUE_TYPES, _whole(0)),
    _Rule("x-overflow", (CLASSIC,), _one_of("drop-head", "reject-publish", "reject-publish-dlx")),
    _Rule("x-overflow", (QUORUM,), _one_of("drop-head", "reject-publish"), tolerated=("reject-publish-dlx",)),
    _Rule("x-single-active-consumer", QUEUES_THAT_FORGET, _boolean),
    _Rule("x-dead-letter-exchange", QUEUES_THAT_FORGET, _text),
    _Rule("x-dead-letter-routing-key", QUEUES_THAT_FORGET, _text),
    _Rule("x-dead-letter-strategy", (QUORUM,), _one_of("at-most-once", "at-least-once")),
    _Rule("x-delivery-limit", (QUORUM,), _delivery_limit, checked=False),
    _Rule("x-quorum-initial-group-size", (QUORUM,), _whole(1)),
    _Rule("x-max-in-memory-length", (QUORUM,), _whole(0), idle="No message is kept in memory since 3.10; take it out."),
    _Rule("x-max-in-memory-bytes", (QUORUM,), _whole(0), idle="No message is kept in memory since 3.10; take it out."),
    _Rule("x-delayed-retry-type", (QUORUM,), _one_of("disabled", "all", "failed", "returned"), False, _V43),
    _Rule("x-delayed-retry-min", (QUORUM,), _whole(1), False, _V43),
    _Rule("x-delayed-retry-max", (QUORUM,), _whole(1), False, _V43),
    _Rule("x-consumer-disconnected-timeout", (QUORUM,), _whole(0), since=_V43),
    _Rule("x-consumer-timeout", (QUORUM,), _whole(0), since=_V43),
    _Rule("x-consumer-timeout", QUEUE_TYPES, _whole(0), False, WITHOUT_LAZY_MODE, _V43),
    _Rule("x-max-priority", (CLASSIC,), _whole(0, 255)),
    _Rule("x-queue-mode", (CLASSIC,), _one_of("default", "lazy"), until=WITHOUT_LAZY_MODE),
    _Rule("x-queue-mode", (CLASSIC,), _anything, idle="Each classic queue is lazy since 3.12; take it out."),
    _Rule("x-queue-version", (CLASSIC,), _one_of(1, 2), until=_V43),
    _Rule("x-queue-version", (CLASSIC,), _one_of(2)),
    _Rule("x-queue-leader-locator", (QUORUM, STREAM), _one_of(*_LOCATORS), until=_V4),
    _Rule("x-queue-leader-locator", QUEUE_TYPES, _one_of(*_LOCATORS, "min-masters"), since=_V4),
    _Rule("x-queue-master-locator", (CLASSIC,), _one_of("client-local", "random", "min-masters"), until=_V43),
    _Rule("x-queue-master-locator", (CLASSIC,), _never("Write x-queue-leader-locator."), since=_V43),
    _Rule("x-max-age", (STREAM,), _max_age),
    _Rule("x-stream-max-segment-size-bytes", (STREAM,), _whole(0)),
    _Rule("x-stream-filter-size-bytes", (STREAM,), _whole(16, 255), since=WITH_STREAM_FILTERS),
    _Rule(
        "x-stream-filter-size-bytes",
        QUEUES_THAT_FORGET,
        _anything,
        since=WITH_STREAM_FILTERS,
        until=_V43,
        idle="Only streams filter; take it out.",
    ),
    _Rule("x-initial-cluster-size", (STREAM,), _whole(1)),
)


def _why_unknown(name: str, kind: str) -> str:
    later = next((r for r in _RULES if r.name == name and kind in r.kinds), None)
    if later is not None and later.since > OLDEST:
        return f"It needs {later.since.major}.{later.since.minor}; take it out."
    if name.startswith("x-ha-"):
        return "Mirrored classic queues are gone; take a quorum queue."
    return "It is ignored in silence; is it a slip of the pen?"


def _shown(value: object) -> str:
    return visible(value if isinstance(value, str) else repr(value))[:60]
