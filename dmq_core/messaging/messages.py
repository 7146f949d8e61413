"""Messages and their fates as frozen values; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Headers = Mapping[str, object]
NO_HEADERS: Headers = MappingProxyType({})


class Outcome(StrEnum):
    """The one fate of a publish.

    CONFIRMED the broker took responsibility; NACKED it refused; RETURNED no queue wanted it; UNKNOWN bytes may have
    left and no answer came; NOT_SENT provably nothing left.

    >>> result = DirectProducer(manager).publish_and_wait("nobody-listens-here", "Hello World!")
    >>> result.outcome is Outcome.RETURNED
    True
    """

    CONFIRMED = "confirmed"
    NACKED = "nacked"
    RETURNED = "returned"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True)
class MessageProperties:
    """AMQP 0-9-1 basic properties. `delivery_mode` 2 is persistent, 1 is not; `expiration` in ms, `timestamp` epoch s.

    `priority` is 0 to 255, texts take 255 bytes at most and `headers` 100,000 in all; `publish` raises
    `InvalidInputError` for more. Without a `message_id` the producer gives one.

    >>> properties = MessageProperties(message_id="4711", expiration=60_000, headers={"region": "eu"})
    >>> handle = DirectProducer(manager).publish("orders", {"title": "a book"}, properties)
    >>> handle.sent_properties.message_id, handle.sent_properties.content_type
    ('4711', 'application/json')
    """

    content_type: str | None = None
    content_encoding: str | None = None
    delivery_mode: int = 2
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: int | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    headers: Headers = field(default_factory=lambda: NO_HEADERS)


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to publish; an empty `exchange` is the default one, which routes by queue name.

    >>> message = DirectProducer(manager).publish("orders", "a book").message
    >>> message.routing_key, message.body, message.properties.content_type
    ('orders', b'a book', 'text/plain')
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: MessageProperties = field(default_factory=MessageProperties)
    mandatory: bool = True


@dataclass(frozen=True, slots=True)
class PublishResult:
    """How a publish ended: its outcome, the endpoint (`host:port`) that was asked, seconds it took, and why.

    `sends` counts how often it was put on the wire.

    >>> result = DirectProducer(manager).publish_and_wait("nobody-listens-here", "Hello World!")
    >>> print(result.outcome, result.reason, result.sends)
    returned NO_ROUTE (312) 1
    """

    outcome: Outcome
    endpoint: str | None = None
    seconds: float | None = None
    reason: str = ""
    sends: int = 0


@dataclass(frozen=True, slots=True)
class SeenMessage:
    """A message that somebody looked at or received.

    `at` is the epoch second at which we saw it, `queue` where it was seen (None: on its way through an exchange),
    `redelivered` None where the way of looking cannot tell. `body` may be cut; `size` is the whole in bytes.

    >>> message = SeenMessage(at=0.0, exchange="shop", routing_key="order.eu", body=b"a bo", size=6)
    >>> len(message.body) < message.size
    True
    """

    at: float
    exchange: str
    routing_key: str
    body: bytes
    size: int
    properties: MessageProperties = field(default_factory=MessageProperties)
    queue: str | None = None
    redelivered: bool | None = None
