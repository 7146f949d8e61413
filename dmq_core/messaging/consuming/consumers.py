"""Consumers for the four types of exchange, over one core; made with a `BrokerConnectionManager`.

Handlers run on threads of the consumer. A message is acknowledged after its handler returned True, so whatever dies in
between, it is delivered again: handlers may see a message twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.consuming.consumer import Consumer, ConsumerOptions
from dmq_core.messaging.topology.model import PrivateBinding
from dmq_core.text import visible

if TYPE_CHECKING:
    from typing import Unpack

    from dmq_core.connection_manager import BrokerConnectionManager


class DirectConsumer(Consumer):
    """Receives from a queue, or with `exchange_name` from what a direct exchange routes to it by `routing_keys`.

    On the default exchange nothing is declared unless `declare_queue` is called or an order asked for. With an exchange
    and no keys, the queue is bound by its own name; without a `queue_name` it is a private queue.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message, headers):
    ...     print(message)
    ...     done.set()
    ...     return True
    >>> consumer = DirectConsumer(queue_name="orders", connection_manager=manager)
    >>> consumer.declare_queue(durable=True)
    >>> with consumer.start_consuming(handle), DirectProducer(manager) as producer:
    ...     _ = producer.publish("orders", "Hello World!")
    ...     done.wait(timeout=10)
    Hello World!
    True
    """

    exchange_type = "direct"

    def __init__(
        self,
        connection_manager: BrokerConnectionManager,
        queue_name: str | None = None,
        *,
        exchange_name: str = "",
        routing_keys: str | Iterable[str] = (),
        **options: Unpack[ConsumerOptions],
    ) -> None:
        keys = _several(routing_keys)
        if not exchange_name and keys:
            raise InvalidInputError(
                "the default exchange routes by queue names alone", "Give an exchange_name with the keys."
            )
        if exchange_name and not keys:
            keys = (queue_name,) if queue_name else ()
        if not queue_name and not keys:
            raise InvalidInputError("a direct consumer needs a queue_name", "Or an exchange_name with routing_keys.")
        bindings = [PrivateBinding(exchange_name, key) for key in keys] if exchange_name else []
        super().__init__(connection_manager, queue_name, exchange_name, bindings, **options)


class TopicConsumer(Consumer):
    """Receives what a topic exchange routes by `binding_pattern` (or several), to `queue_name` or a private queue.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message, headers):
    ...     print(headers.delivery.routing_key, message)
    ...     done.set()
    ...     return True
    >>> consumer = TopicConsumer(manager, "shop", ["order.#", "return.#"], "desk")
    >>> with consumer.start_consuming(handle), TopicProducer(manager, "shop") as producer:
    ...     _ = producer.publish("order.eu", "a book")
    ...     done.wait(timeout=10)
    order.eu a book
    True
    """

    exchange_type = "topic"

    def __init__(
        self,
        connection_manager: BrokerConnectionManager,
        exchange_name: str,
        binding_pattern: str | Iterable[str],
        queue_name: str | None = None,
        **options: Unpack[ConsumerOptions],
    ) -> None:
        bindings = [PrivateBinding(exchange_name, pattern) for pattern in _several(binding_pattern)]
        _check_exchange(exchange_name, bindings)
        super().__init__(connection_manager, queue_name, exchange_name, bindings, **options)


class FanoutConsumer(Consumer):
    """Receives everything that is published to a fanout exchange, to `queue_name` or a private queue.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message, headers):
    ...     print(message)
    ...     done.set()
    ...     return True
    >>> consumer = FanoutConsumer(manager, "news", "mail")
    >>> with consumer.start_consuming(handle), FanoutProducer(manager, "news") as producer:
    ...     _ = producer.publish("It rains.")
    ...     done.wait(timeout=10)
    It rains.
    True
    """

    exchange_type = "fanout"

    def __init__(
        self,
        connection_manager: BrokerConnectionManager,
        exchange_name: str,
        queue_name: str | None = None,
        **options: Unpack[ConsumerOptions],
    ) -> None:
        bindings = [PrivateBinding(exchange_name)]
        _check_exchange(exchange_name, bindings)
        super().__init__(connection_manager, queue_name, exchange_name, bindings, **options)


class HeadersConsumer(Consumer):
    """Receives what a headers exchange routes by `binding_headers`, to `queue_name` or a private queue.

    `match` is `all` or `any` of them; `all-with-x` and `any-with-x` look at headers that begin with `x-`, too.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message, headers):
    ...     print(headers["kind"], message)
    ...     done.set()
    ...     return True
    >>> consumer = HeadersConsumer(manager, "reports", {"kind": "daily"}, "all", "archive")
    >>> with consumer.start_consuming(handle), HeadersProducer(manager, "reports") as producer:
    ...     _ = producer.publish({"kind": "daily"}, "All is well.")
    ...     done.wait(timeout=10)
    daily All is well.
    True
    """

    exchange_type = "headers"

    def __init__(
        self,
        connection_manager: BrokerConnectionManager,
        exchange_name: str,
        binding_headers: Mapping[str, object],
        match: str = "all",
        queue_name: str | None = None,
        **options: Unpack[ConsumerOptions],
    ) -> None:
        if match not in ("all", "any", "all-with-x", "any-with-x"):
            raise InvalidInputError(f"match is {visible(match)!r}", "Say all, any, all-with-x or any-with-x.")
        bindings = [PrivateBinding(exchange_name, arguments={"x-match": match, **binding_headers})]
        _check_exchange(exchange_name, bindings)
        super().__init__(connection_manager, queue_name, exchange_name, bindings, **options)


def _several(words: str | Iterable[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)


def _check_exchange(exchange_name: str, bindings: Sequence[PrivateBinding]) -> None:
    if not exchange_name or not bindings:
        raise InvalidInputError(
            "an exchange_name and what to bind by are needed", "Only direct has a default exchange."
        )
