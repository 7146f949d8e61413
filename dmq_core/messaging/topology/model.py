"""Exchanges, queues and bindings as values, and what is done with them over a connection."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

T = TypeVar("T")
Arguments = Mapping[str, object]
NO_ARGUMENTS: Arguments = MappingProxyType({})
NOT_FOUND = 404
INEQUIVALENT = 406
NOT_IMPLEMENTED = 540
_LOG = logging.getLogger("dmq.messaging")


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange to declare; `type` is `direct`, `topic`, `fanout`, `headers` or what a plugin adds.

    With `adopt`, an exchange of that name and type that is there already is taken as it is.

    >>> manager.declare(Exchange("shop", "topic", arguments={"alternate-exchange": "amq.fanout"}))
    """

    name: str
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue to declare; `type` is `quorum`, `classic` or `stream`, None leaves it to the virtual host's default.

    With `adopt`, a queue of that name that is there already is taken as it is, whatever its type and arguments.
    Times in `arguments` are RabbitMQ's, in milliseconds.

    >>> manager.declare(Queue("orders", "quorum", arguments={"x-message-ttl": 60_000, "x-delivery-limit": 5}))
    """

    name: str
    type: str | None = None
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    adopt: bool = False

    @property
    def all_arguments(self) -> dict[str, object]:
        """The arguments as the broker gets them, `x-queue-type` included."""
        typed = {} if self.type is None else {"x-queue-type": self.type}
        return {**typed, **self.arguments}


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding from the exchange `source` to a queue, or to an exchange if `to_exchange`.

    >>> manager.declare(Exchange("shop", "topic"), Queue("orders", "quorum"), Binding("shop", "orders", "order.#"))
    >>> manager.declare(Exchange("audit", "fanout"), Binding("shop", "audit", "#", to_exchange=True))
    """

    source: str
    destination: str
    routing_key: str = ""
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    to_exchange: bool = False


Entity = Exchange | Queue | Binding


@dataclass(frozen=True, slots=True)
class PrivateBinding:
    """A binding of a private queue, whose name is not known before it is declared.

    >>> PrivateBinding("shop", "order.#").routing_key
    'order.#'
    """

    source: str
    routing_key: str = ""
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)


@dataclass(frozen=True, slots=True)
class PrivateQueue:
    """A queue of one connection's own: exclusive, auto-deleted, declared anew under a fresh name at each connection.

    `max_length` bounds it in messages; beyond it the oldest are dropped (None: no bound).
    """

    prefix: str
    bindings: tuple[PrivateBinding, ...]
    max_length: int | None = 10_000

    def entities(self) -> tuple[Queue, tuple[Binding, ...]]:
        """The queue under a name that was never used before, with its bindings."""
        name = f"{self.prefix}.{secrets.token_hex(6)}"
        bound = {} if self.max_length is None else {"x-max-length": self.max_length, "x-overflow": "drop-head"}
        queue = Queue(name, "classic", durable=False, exclusive=True, auto_delete=True, arguments=bound)
        return queue, tuple(Binding(b.source, name, b.routing_key, b.arguments) for b in self.bindings)


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What a declaration tells of a queue: messages ready and consumers."""

    name: str
    ready: int
    consumers: int
