"""Producers for the four types of exchange, over one core; made with a `BrokerConnectionManager`.

`publish` returns at once, and many messages are under way together: that is what makes it fast. Look at the futures
later, or wait for all of them with `flush`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import MessageProperties, PublishResult
from dmq_core.messaging.publishing.encoding import Message, Properties, described, encode, with_headers
from dmq_core.messaging.publishing.publish_future import PublishFuture
from dmq_core.messaging.publishing.publisher import ProducerLimits, Publisher
from dmq_core.messaging.topology.model import NO_ARGUMENTS, Arguments, Exchange

if TYPE_CHECKING:
    from typing import Self

    from dmq_core.connection_manager import BrokerConnectionManager


class Producer:
    """Publishes to one exchange; thread-safe. What the four types have in common.

    Messages are text, bytes, or plain values that go as JSON; mandatory and persistent unless the call says otherwise.
    Each gets exactly one outcome. While no node is there they wait, within `limits`; `on_done` hears each outcome,
    on a thread that it must not block. `InvalidInputError` without an `exchange_name`, unless the type has a default
    exchange.

    >>> def hear(future):
    ...     assert future.result().outcome == "returned"
    >>> producer = FanoutProducer(manager, "news", on_done=hear)
    >>> isinstance(producer, Producer), producer.exchange_name
    (True, 'news')
    """

    exchange_type: ClassVar[str]
    has_default: ClassVar[bool] = False

    def __init__(
        self,
        connection_manager: BrokerConnectionManager,
        exchange_name: str = "",
        *,
        limits: ProducerLimits | None = None,
        on_done: Callable[[PublishFuture], None] | None = None,
        cluster: str = "",
    ) -> None:
        if not exchange_name and not self.has_default:
            raise InvalidInputError(
                f"a {self.exchange_type} producer needs an exchange_name", "Only direct has a default one."
            )
        self.exchange_name = exchange_name
        self._manager = connection_manager
        self._cluster = cluster
        self._connection = connection_manager.publishing(cluster)
        self._closed = False
        self._publisher = Publisher(self._connection, limits, on_done)
        if exchange_name and not exchange_name.startswith("amq."):
            self._declare_once = self._declare_exchange
        else:
            self._declare_once = _nothing

    def declare_exchange(
        self,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments = NO_ARGUMENTS,
    ) -> None:
        """Declares the exchange, and again after each reconnect; `MessagingError` if it is there in another form.

        Without a call the first publish declares it, durable, or takes the one that is there. `InvalidInputError` for
        the default exchange.

        >>> producer = TopicProducer(manager, "shop")
        >>> producer.declare_exchange(arguments={"alternate-exchange": "amq.fanout"})
        """
        if not self.exchange_name:
            raise InvalidInputError("the default exchange is there already", "Give the producer an exchange_name.")
        self._require(Exchange(self.exchange_name, self.exchange_type, durable, auto_delete, internal, arguments))

    @property
    def has_capacity(self) -> bool:
        """Whether `publish` would not wait."""
        return self._declare_once is _nothing and self._publisher.has_capacity

    @property
    def outstanding(self) -> int:
        """Messages without an outcome."""
        return self._publisher.outstanding

    def flush(self, timeout_s: float = 30.0) -> None:
        """Waits until every message has its outcome; `OperationTimeoutError` if some have none after `timeout_s`
        seconds.

        >>> manager.declare(Queue("orders", "quorum"))
        >>> with DirectProducer(manager) as producer:
        ...     futures = [producer.publish("orders", f"book {number}") for number in range(100)]
        ...     producer.flush(timeout_s=10)
        >>> {str(future.result().outcome) for future in futures}
        {'confirmed'}
        """
        self._publisher.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Waits up to `timeout_s` seconds for what is under way, settles the rest, and ends; may be called twice."""
        self._publisher.close(timeout_s)
        if not self._closed:
            self._closed = True
            self._manager.release(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self, routing_key: str, message: object, properties: Properties, mandatory: bool, timeout_s: float | None
    ) -> PublishFuture:
        body, content_type = encode(message)
        return self._send_encoded(routing_key, body, described(properties, content_type), mandatory, timeout_s)

    def _send_encoded(
        self, routing_key: str, body: bytes, properties: MessageProperties, mandatory: bool, timeout_s: float | None
    ) -> PublishFuture:
        self._declare_once()
        return self._publisher.send(self.exchange_name, routing_key, body, properties, mandatory, timeout_s)

    def _result(self, future: PublishFuture, timeout_s: float) -> PublishResult:
        return self._publisher.result_or_give_up(future, timeout_s)

    def _declare_exchange(self) -> None:
        self._require(Exchange(self.exchange_name, self.exchange_type, adopt=True))

    def _require(self, exchange: Exchange) -> None:
        self._manager.require(exchange, cluster=self._cluster)
        self._declare_once = _nothing


class _KeyedProducer(Producer):
    """A producer whose exchange looks at the routing key."""

    def publish(
        self,
        routing_key: str,
        message: Message,
        properties: Properties = None,
        *,
        mandatory: bool = True,
        timeout_s: float | None = None,
    ) -> PublishFuture:
        """Publishes one message; waits only where there is no room, up to `timeout_s` (None: the limits'
        `capacity_timeout_s`).

        Without room by then its outcome is NOT_SENT. `InvalidInputError` if the message cannot be sent as it is,
        `MessagingError` if the producer is closed.

        >>> producer = DirectProducer(manager)
        >>> future = producer.publish("orders", {"title": "a book"}, {"message_id": "4711", "priority": 3})
        >>> future.body, future.properties.content_type
        (b'{"title":"a book"}', 'application/json')
        """
        return self._send(routing_key, message, properties, mandatory, timeout_s)

    def publish_many(
        self, routing_key: str, messages: Iterable[Message], properties: Properties = None, *, mandatory: bool = True
    ) -> list[PublishFuture]:
        """Publishes `messages` in order; a bad one raises, with those before it under way."""
        return [self._send(routing_key, message, properties, mandatory, None) for message in messages]

    def publish_and_wait(
        self, routing_key: str, message: Message, properties: Properties = None, *, timeout_s: float = 5.0
    ) -> PublishResult:
        """Publishes and waits for the outcome; without one in time it is NOT_SENT if nothing left, else UNKNOWN.

        One round trip per message: some hundred a second, where `publish` does tens of thousands.
        """
        return self._result(self.publish(routing_key, message, properties, timeout_s=timeout_s), timeout_s)


class DirectProducer(_KeyedProducer):
    """Publishes to a direct exchange; without an `exchange_name` to the default one, which routes by queue name.

    >>> manager.declare(Queue("orders", "quorum"))
    >>> with DirectProducer(connection_manager=manager) as producer:
    ...     future = producer.publish(routing_key="orders", message="Hello World!")
    ...     print(future.result().outcome)
    confirmed
    """

    exchange_type = "direct"
    has_default = True


class TopicProducer(_KeyedProducer):
    """Publishes to a topic exchange, whose bindings match routing keys word by word.

    >>> manager.declare(Exchange("shop", "topic"), Queue("orders", "quorum"), Binding("shop", "orders", "order.*"))
    >>> with TopicProducer(manager, "shop") as producer:
    ...     for key in ("order.eu", "order.eu.rush"):
    ...         print(producer.publish_and_wait(key, "a book").outcome)
    confirmed
    returned
    """

    exchange_type = "topic"


class FanoutProducer(Producer):
    """Publishes to a fanout exchange: every queue that is bound to it gets a copy.

    >>> manager.declare(Exchange("news", "fanout"), Queue("mail", "quorum"), Binding("news", "mail"))
    >>> with FanoutProducer(manager, "news") as producer:
    ...     print(producer.publish("It rains.").result().outcome)
    confirmed
    """

    exchange_type = "fanout"

    def publish(
        self,
        message: Message,
        properties: Properties = None,
        *,
        mandatory: bool = True,
        timeout_s: float | None = None,
    ) -> PublishFuture:
        """Publishes one message; waits only where there is no room, up to `timeout_s` (None: the limits'
        `capacity_timeout_s`).

        Without room by then its outcome is NOT_SENT. `InvalidInputError` if the message cannot be sent as it is,
        `MessagingError` if the producer is closed.
        """
        return self._send("", message, properties, mandatory, timeout_s)

    def publish_many(
        self, messages: Iterable[Message], properties: Properties = None, *, mandatory: bool = True
    ) -> list[PublishFuture]:
        """Publishes `messages` in order; a bad one raises, with those before it under way."""
        return [self._send("", message, properties, mandatory, None) for message in messages]

    def publish_and_wait(
        self, message: Message, properties: Properties = None, *, timeout_s: float = 5.0
    ) -> PublishResult:
        """Publishes and waits for the outcome; without one in time it is NOT_SENT if nothing left, else UNKNOWN."""
        return self._result(self.publish(message, properties, timeout_s=timeout_s), timeout_s)


class HeadersProducer(Producer):
    """Publishes to a headers exchange, whose bindings look at the message's headers.

    >>> daily = Binding("reports", "archive", arguments={"x-match": "all", "kind": "daily"})
    >>> manager.declare(Exchange("reports", "headers"), Queue("archive", "quorum"), daily)
    >>> with HeadersProducer(manager, "reports") as producer:
    ...     print(producer.publish({"kind": "daily"}, b"%PDF").result().outcome)
    confirmed
    """

    exchange_type = "headers"

    def publish(
        self,
        headers: Mapping[str, object],
        message: Message,
        properties: Properties = None,
        *,
        mandatory: bool = True,
        timeout_s: float | None = None,
    ) -> PublishFuture:
        """Publishes one message with `headers`, which win over those of `properties`.

        It waits only where there is no room, up to `timeout_s` (None: the limits' `capacity_timeout_s`); without room
        by then its outcome is NOT_SENT. `InvalidInputError` if the message cannot be sent as it is, `MessagingError`
        if the producer is closed.
        """
        return self._send_with(headers, message, properties, mandatory, timeout_s)

    def publish_many(
        self,
        headers: Mapping[str, object],
        messages: Iterable[Message],
        properties: Properties = None,
        *,
        mandatory: bool = True,
    ) -> list[PublishFuture]:
        """Publishes `messages` in order, each with `headers`; a bad one raises, with those before it under way."""
        return [self._send_with(headers, message, properties, mandatory, None) for message in messages]

    def publish_and_wait(
        self, headers: Mapping[str, object], message: Message, properties: Properties = None, *, timeout_s: float = 5.0
    ) -> PublishResult:
        """Publishes and waits for the outcome; without one in time it is NOT_SENT if nothing left, else UNKNOWN."""
        return self._result(self.publish(headers, message, properties, timeout_s=timeout_s), timeout_s)

    def _send_with(
        self,
        headers: Mapping[str, object],
        message: object,
        properties: Properties,
        mandatory: bool,
        timeout_s: float | None,
    ) -> PublishFuture:
        body, content_type = encode(message)
        sent = with_headers(described(properties, content_type), headers)
        return self._send_encoded("", body, sent, mandatory, timeout_s)


def _nothing() -> None:
    """Nothing has to be declared."""
