"""What the broker tells by itself, as values: pure readers of its log lines and events."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dmq_core.management.models import Alarm, EntityKey

LOG_EXCHANGE = "amq.rabbitmq.log"
EVENT_EXCHANGE = "amq.rabbitmq.event"
LOG_KEYS = ("notice", "info", "warning")
EVENT_KEYS = (
    "queue.created",
    "queue.deleted",
    "exchange.created",
    "exchange.deleted",
    "binding.created",
    "binding.deleted",
    "consumer.created",
    "consumer.deleted",
    "connection.created",
    "connection.closed",
    "policy.#",
    "alarm.#",
    "maintenance.#",
)
_TOPOLOGY = ("queue.", "exchange.", "binding.", "policy.")
_ELECTED = re.compile(r"queue '(.+)' in vhost '(.+)': \S+ -> leader in term: (\d+)", re.DOTALL)
_WRITES = re.compile(r"osiris_writer:init/1: name: (\S+) .* epoch: (\d+)")
_NO_FILE_SIGN = re.compile(r"[^A-Za-z0-9=-]")
_ALARM = re.compile(r"(memory|disk) resource limit alarm (set|cleared) on node (\S+?)\.?(?:\s|$)")
_PEER = re.compile(r"(?:node \S+ (?:up|down)\b|rabbit on node \S+ (?:up|down)\b)")
_PLAIN_LINE = re.compile(r"^\d{4}-\d\d-\d\d[ T]\S+ \[\w+\] <[^>]*> (.*)", re.DOTALL)
_CLOCKS_AGREE_S = 2.0
_LONGEST_LINE = 20_000


@dataclass(frozen=True, slots=True)
class LeaderElected:
    """A member of `queue` on `node` (Erlang name) became its leader in `term`."""

    at: float
    queue: EntityKey
    node: str
    term: int


@dataclass(frozen=True, slots=True)
class StreamLeaderElected:
    """`node` (Erlang name) writes a stream from `epoch` on; `stream` is its name in the broker's files."""

    at: float
    stream: str
    node: str
    epoch: int

    def is_of(self, queue: EntityKey) -> bool:
        """Whether it is about `queue`: names in files have `_` for most signs, and end with when it was declared."""
        name, _, declared = self.stream.rpartition("_")
        return declared.isdecimal() and name == _NO_FILE_SIGN.sub("_", f"{queue.vhost}_{queue.name}")


@dataclass(frozen=True, slots=True)
class ConsumerChanged:
    """The consumer with that tag joined `queue`, or left it."""

    at: float
    queue: EntityKey
    tag: str
    joined: bool


@dataclass(frozen=True, slots=True)
class QueueDeleted:
    """A queue was deleted."""

    at: float
    queue: EntityKey


@dataclass(frozen=True, slots=True)
class AlarmChanged:
    """`alarm` was set or cleared."""

    at: float
    alarm: Alarm
    is_set: bool


@dataclass(frozen=True, slots=True)
class SomethingChanged:
    """Something changed that is worth a look at once; with `topology`, something was declared, deleted or bound."""

    at: float
    topology: bool = False


BrokerEvent = LeaderElected | StreamLeaderElected | ConsumerChanged | QueueDeleted | AlarmChanged | SomethingChanged


def read_log_line(body: bytes, headers: Mapping[str, object], received_at: float) -> BrokerEvent | None:
    """What a line of the log exchange tells; None for most lines. Lines are JSON or plain text.

    The broker's own clock is believed where it agrees with ours to two seconds.
    """
    text = body[:_LONGEST_LINE].decode("utf-8", "replace")
    message, told_at = _line(text)
    at = told_at if told_at is not None and abs(told_at - received_at) < _CLOCKS_AGREE_S else received_at
    elected = _ELECTED.match(message)
    if elected is not None:
        node = _string(headers.get("node"))
        return None if node is None else LeaderElected(at, EntityKey(elected[2], elected[1]), node, int(elected[3]))
    writes = _WRITES.match(message)
    if writes is not None:
        node = _string(headers.get("node"))
        return None if node is None else StreamLeaderElected(at, writes[1], node, int(writes[2]))
    alarm = _ALARM.match(message)
    if alarm is not None:
        return AlarmChanged(at, Alarm(alarm[3], alarm[1]), alarm[2] == "set")
    return SomethingChanged(at) if _PEER.match(message) else None


def read_event(routing_key: str, headers: Mapping[str, object], received_at: float) -> BrokerEvent | None:
    """What an event of the event exchange tells; its content is in its headers."""
    told_ms = headers.get("timestamp_in_ms")
    at = received_at
    if isinstance(told_ms, int) and abs(told_ms / 1000 - received_at) < _CLOCKS_AGREE_S:
        at = told_ms / 1000
    vhost = _string(headers.get("vhost"))
    if routing_key in ("consumer.created", "consumer.deleted"):
        queue, tag = _string(headers.get("queue")), _string(headers.get("consumer_tag"))
        if vhost is not None and queue is not None and tag is not None:
            return ConsumerChanged(at, EntityKey(vhost, queue), tag, routing_key == "consumer.created")
    if routing_key == "queue.deleted":
        name = _string(headers.get("name"))
        if vhost is not None and name is not None:
            return QueueDeleted(at, EntityKey(vhost, name))
    if routing_key in ("alarm.set", "alarm.cleared"):
        node, resource = _string(headers.get("node")), _string(headers.get("source"))
        if node is not None and resource in ("memory", "disk"):
            return AlarmChanged(at, Alarm(node, resource), routing_key == "alarm.set")
    return SomethingChanged(at, routing_key.startswith(_TOPOLOGY))


def _line(text: str) -> tuple[str, float | None]:
    """The message of a log line and its time in epoch seconds, if it says."""
    if text.startswith("{"):
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            return "", None
        message, at = told.get("msg"), told.get("time")
        return (message if isinstance(message, str) else ""), _epoch(at)
    plain = _PLAIN_LINE.match(text)
    return (plain[1] if plain else text), None


def _epoch(at: object) -> float | None:
    try:
        moment = datetime.fromisoformat(str(at))
    except ValueError:
        return None
    # Without an offset it is the node's local time, whichever that is.
    return moment.timestamp() if moment.tzinfo is not None else None


def _string(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value else None
