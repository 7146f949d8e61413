"""The broker's own news over AMQP: its log exchange and event exchange, from whichever node lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.observe.broker_events import (
    EVENT_EXCHANGE,
    EVENT_KEYS,
    LOG_EXCHANGE,
    LOG_KEYS,
    BrokerEvent,
    read_event,
    read_log_line,
)
from dmq_core.observe.snapshot import SourceStatus
from dmq_core.observe.state import EVENT_SOURCE, LOG_SOURCE

if TYPE_CHECKING:
    from dmq_core.messaging.connection.connection import Connection
    from dmq_core.messaging.consuming.subscription import Subscription
    from dmq_core.messaging.delivery.delivery import Delivery

CONNECTION_NAME = "dmq observe"
GIVE_UP_S = 60.0
CLOSE_LIMIT_S = 4.5
LISTENERS = 2
_REMEMBERED = 5_000
_PREFETCH = 500
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class _Feed:
    source: str
    exchange: str
    keys: tuple[str, ...]
    queue_prefix: str
    advice: str


_FEEDS = (
    _Feed(LOG_SOURCE, LOG_EXCHANGE, LOG_KEYS, "dmq.observe.log", "log.exchange is not switched on"),
    _Feed(
        EVENT_SOURCE,
        EVENT_EXCHANGE,
        EVENT_KEYS,
        "dmq.observe.event",
        "the plugin rabbitmq_event_exchange is not enabled",
    ),
)


class Feeds:
    """Listens to a cluster's log and event exchange, at two nodes where there are two, so that one death is no gap.

    `on_event` is called on threads of the consumers, hears each thing once, and must not block.
    """

    def __init__(self, credentials: Credentials, on_event: Callable[[BrokerEvent], None]) -> None:
        self._on_event = on_event
        self._lock = threading.Lock()
        self._recent: dict[int, None] = {}
        self._listeners = tuple(_Listener(credentials, self._tell) for _ in range(LISTENERS))

    def use(self, endpoints: Sequence[NodeEndpoint], preferred: Sequence[NodeEndpoint]) -> None:
        """Listens at `endpoints`, at those of `preferred` as long as there are any; returns without waiting.

        Where it listens at one that is not preferred any more, or twice at the same, it moves.
        """
        reachable, living = _offered(endpoints), _offered(preferred)
        taken: list[NodeEndpoint] = []
        for listener in self._listeners[: max(1, len(reachable))]:
            taken += listener.use(reachable, tuple(e for e in living if e not in taken) or living)

    def statuses(self) -> tuple[SourceStatus, ...]:
        """How each feed does now, without waiting; one that listens is heard, though nothing may be said.

        A feed that the broker does not offer is given up for a minute, to spare its log.
        """
        told = [listener.statuses() for listener in self._listeners]
        return tuple(min(some, key=lambda status: bool(status.problem)) for some in zip(*told, strict=True))

    def close(self) -> None:
        """Stops listening; may be called twice."""
        closers = [
            threading.Thread(target=listener.close, name="close feeds", daemon=True) for listener in self._listeners
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(CLOSE_LIMIT_S)

    def _tell(self, message: int, event: BrokerEvent) -> None:
        """Hands on what the other listener has not told."""
        with self._lock:
            if message in self._recent:
                return
            self._recent[message] = None
            while len(self._recent) > _REMEMBERED:
                del self._recent[next(iter(self._recent))]
        self._on_event(event)


class _Listener:
    """One connection that listens to both exchanges, at one node at a time."""

    def __init__(self, credentials: Credentials, on_event: Callable[[int, BrokerEvent], None]) -> None:
        self._credentials = credentials
        self._on_event = on_event
        self._lock = threading.Lock()
        self._endpoints: tuple[NodeEndpoint, ...] = ()
        self._preferred: tuple[NodeEndpoint, ...] = ()
        self._connection: Connection | None = None
        self._consumers: dict[str, Subscription] = {}
        self._heard_at: dict[str, float] = {}
        self._given_up: dict[str, float] = {}
        self._closed = False

    def use(self, endpoints: tuple[NodeEndpoint, ...], preferred: tuple[NodeEndpoint, ...]) -> tuple[NodeEndpoint, ...]:
        """Listens at the first of `preferred`, or where it is among them; the endpoint that it takes, if any."""
        with self._lock:
            self._preferred = preferred
            if self._closed:
                return ()
            if endpoints != self._endpoints:
                self._endpoints = endpoints
                self._drop()
            if self._connection is None:
                # Nobody is dialled before there is a node that may answer.
                if preferred:
                    self._connect()
                return preferred[:1]
            connection, at = self._connection, self._connection.status.endpoint
        if at is not None and preferred and at not in preferred:
            connection.leave(at, "another node is better")
            return preferred[:1]
        return preferred[:1] if at is None else (at,)

    def statuses(self) -> tuple[SourceStatus, ...]:
        with self._lock:
            return tuple(self._status(feed) for feed in _FEEDS)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connection, self._connection, self._consumers = self._connection, None, {}
        if connection is not None:
            connection.close()

    def _drop(self) -> None:
        old, self._connection, self._consumers = self._connection, None, {}
        if old is not None:
            threading.Thread(target=old.close, name="close feeds", daemon=True).start()

    def _connect(self) -> None:
        from dmq_core.messaging.connection.connection import Connection
        from dmq_core.messaging.connection.states import ConnectionHooks

        hooks = ConnectionHooks(prefer=self._prefer)
        self._connection = Connection(self._endpoints, self._credentials, CONNECTION_NAME, hooks)
        for feed in _FEEDS:
            self._listen(self._connection, feed)

    def _listen(self, connection: Connection, feed: _Feed) -> None:
        from dmq_core.messaging.consuming.subscription import Subscription, SubscriptionOptions
        from dmq_core.messaging.topology.model import PrivateBinding, PrivateQueue

        queue = PrivateQueue(feed.queue_prefix, tuple(PrivateBinding(feed.exchange, key) for key in feed.keys))
        handler = self._hear_log if feed.source == LOG_SOURCE else self._hear_event
        self._consumers[feed.source] = Subscription(connection, queue, handler, SubscriptionOptions(prefetch=_PREFETCH))

    def _prefer(self) -> tuple[NodeEndpoint, ...]:
        return self._preferred

    def _hear_log(self, deliveries: tuple[Delivery, ...]) -> None:
        for delivery in deliveries:
            self._tell(delivery, read_log_line(delivery.body, delivery.properties.headers, delivery.at))

    def _hear_event(self, deliveries: tuple[Delivery, ...]) -> None:
        for delivery in deliveries:
            self._tell(delivery, read_event(delivery.routing_key, delivery.properties.headers, delivery.at))

    def _tell(self, delivery: Delivery, event: BrokerEvent | None) -> None:
        delivery.ack()
        if event is not None and not self._closed:
            # Both listeners get the same bytes, with the broker's time in them.
            message = hash((delivery.routing_key, delivery.body, repr(delivery.properties.headers)))
            self._on_event(message, event)

    def _status(self, feed: _Feed) -> SourceStatus:
        connection, consumer = self._connection, self._consumers.get(feed.source)
        heard_at = self._heard_at.get(feed.source)
        if connection is None:
            return SourceStatus(feed.source, None, heard_at, "no node to listen at")
        if consumer is None:
            if time.monotonic() < self._given_up.get(feed.source, 0.0):
                return SourceStatus(feed.source, None, heard_at, feed.advice)
            self._listen(connection, feed)
            return SourceStatus(feed.source, None, heard_at, "connecting")
        status = consumer.status
        if status.consuming:
            self._heard_at[feed.source] = heard_at = time.time()
            url = None if status.endpoint is None else status.endpoint.amqp_url
            return SourceStatus(feed.source, url, heard_at)
        # Its own queue was just declared, so that only the exchange can be missing.
        if status.code == _NOT_FOUND:
            self._given_up[feed.source] = time.monotonic() + GIVE_UP_S
            del self._consumers[feed.source]
            threading.Thread(target=consumer.stop, args=(1.0,), name="close feed", daemon=True).start()
            return SourceStatus(feed.source, None, heard_at, feed.advice)
        problem = status.problem or connection.status.problem or "connecting"
        return SourceStatus(feed.source, None, heard_at, problem)


def _offered(endpoints: Sequence[NodeEndpoint]) -> tuple[NodeEndpoint, ...]:
    """Those with an AMQP port; both exchanges stand in the default virtual host."""
    return tuple(replace(e, virtual_host="/") for e in endpoints if e.amqp_port is not None)
