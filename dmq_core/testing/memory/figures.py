"""What a management API would tell of an in-memory broker, without its delay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmq_core.management.models import ConnectionFigures, ConsumerFigures, EntityKey, QueueFigures

if TYPE_CHECKING:
    from dmq_core.testing.memory.broker import MemoryBroker
    from dmq_core.testing.memory.queue import MemoryQueue
    from dmq_core.testing.memory.server_connection import ServerConnection


class MemoryFigures:
    """Answers as `ManagementClient` does."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def queue(self, key: EntityKey) -> QueueFigures | None:
        """One queue; None if there is none of that name."""
        with self._broker.clock.turn():
            queue = self._broker.queue(key.name, key.vhost)
            return None if queue is None else _queue(key, queue, self._broker)

    def queues(self) -> tuple[QueueFigures, ...]:
        """Every queue."""
        with self._broker.clock.turn():
            return tuple(_queue(key, queue, self._broker) for key, queue in self._broker.queues())

    def connections(self) -> tuple[ConnectionFigures, ...]:
        """Every client connection."""
        with self._broker.clock.turn():
            return tuple(
                ConnectionFigures(
                    _name(client), _erlang(client.node.name), client.host.name, client_name=client.link.name
                )
                for client in self._broker.clients()
            )

    def consumers(self) -> tuple[ConsumerFigures, ...]:
        """Every consumer."""
        with self._broker.clock.turn():
            return tuple(
                ConsumerFigures(
                    client.host.name,
                    subscription.queue.name,
                    subscription.tag,
                    _name(client),
                    _erlang(client.node.name),
                    prefetch=subscription.prefetch,
                    active=subscription.queue.is_active(subscription),
                )
                for client in self._broker.clients()
                for subscription in client.subscriptions()
            )

    def close(self) -> None:
        """There is nothing to close."""


def _queue(key: EntityKey, queue: MemoryQueue, broker: MemoryBroker) -> QueueFigures:
    return QueueFigures(
        key.vhost,
        key.name,
        str(queue.spec.all_arguments.get("x-queue-type", "classic")),
        leader=None if queue.leader is None else _erlang(queue.leader),
        members=tuple(_erlang(name) for name in queue.members),
        online=tuple(_erlang(name) for name in queue.members if broker.serves(name)),
        ready=queue.ready,
        unacked=sum(subscription.held for subscription in queue.subscriptions),
        consumers=len(queue.subscriptions),
        durable=queue.spec.durable,
    )


def _connection(client: ServerConnection) -> ConnectionFigures:
    return ConnectionFigures(_name(client), _erlang(client.node.name), client.host.name, client_name=client.link.name)


def _name(client: ServerConnection) -> str:
    return f"client {id(client):x} -> {client.node.name}"


def _erlang(name: str) -> str:
    return f"rabbit@{name}"
