"""Pika used as its tutorials do: a blocking connection, a confirm or an acknowledgement for each message."""

from __future__ import annotations

import itertools
from typing import Any

import pika

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.tls import tls_context

LIMIT_S = 30.0


class PikaPeer:
    """A `BlockingConnection` to one node; close it at the end."""

    def __init__(self, endpoint: NodeEndpoint, credentials: Credentials, prefetch: int) -> None:
        self._prefetch = prefetch
        self._connection: Any = pika.BlockingConnection(
            pika.ConnectionParameters(
                endpoint.host,
                endpoint.amqp_port,
                endpoint.virtual_host,
                pika.PlainCredentials(credentials.username, credentials.password),
                ssl_options=None if endpoint.tls is None else pika.SSLOptions(tls_context(endpoint.tls), endpoint.host),
                socket_timeout=LIMIT_S,
                blocked_connection_timeout=LIMIT_S,
                client_properties={"connection_name": "dmq bench pika"},
            )
        )

    def publish(self, queue: str, body: bytes, count: int) -> None:
        """Publishes `count` persistent mandatory messages; each waits for its confirm."""
        channel = self._connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=2)
        for _ in range(count):
            channel.basic_publish("", queue, body, properties, mandatory=True)
        channel.close()

    def consume(self, queue: str, count: int) -> None:
        """Takes `count` messages and acknowledges each; `TimeoutError` if they do not come."""
        channel = self._connection.channel()
        channel.basic_qos(prefetch_count=self._prefetch)
        deliveries = channel.consume(queue, inactivity_timeout=LIMIT_S)
        for method, _properties, _body in itertools.islice(deliveries, count):
            if method is None:
                raise TimeoutError(queue)
            channel.basic_ack(method.delivery_tag)
        channel.cancel()
        channel.close()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()
