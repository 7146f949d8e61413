"""What the management API tells of a queue's leader, its consumers and the connections of clients, for checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from dmq_core.cluster.protocol import NodeState
from dmq_core.cluster.view import ClusterView, NodeNames

if TYPE_CHECKING:
    from dmq_core.cluster.protocol import Cluster, NodeInfo
    from dmq_core.management.models import ConnectionFigures, ConsumerFigures, EntityKey, QueueFigures


class BrokerFigures(Protocol):
    """The part of a management API that demos ask; each call answers within seconds or raises a `DmqError`."""

    def queue(self, key: EntityKey) -> QueueFigures | None:
        """One queue; None if there is none of that name."""
        ...

    def queues(self) -> tuple[QueueFigures, ...]:
        """Every queue."""
        ...

    def connections(self) -> tuple[ConnectionFigures, ...]:
        """Every client connection."""
        ...

    def consumers(self) -> tuple[ConsumerFigures, ...]:
        """Every consumer."""
        ...

    def close(self) -> None:
        """Asks no more."""
        ...


def figures_of(cluster: Cluster) -> BrokerFigures:
    """The management API of the nodes of `cluster` that are fit to be asked now."""
    return ClusterView.of(cluster).management()


def activity(
    consumers: Iterable[ConsumerFigures], connections: Iterable[ConnectionFigures], key: EntityKey
) -> dict[str, bool]:
    """Which client connections consume from a queue, by the name that each gave itself, and whether it is active."""
    names = {connection.name: connection.client_name for connection in connections}
    own = [consumer for consumer in consumers if (consumer.vhost, consumer.queue) == key]
    return {names.get(one.connection or "") or "?": one.active is not False for one in own}


def spread(connections: Iterable[ConnectionFigures], name: str, nodes: Iterable[NodeInfo]) -> dict[str, int]:
    """How many connections of the client that is called `name` each node has."""
    at = Counter(one.node for one in connections if (one.client_name or "").startswith(f"{name} "))
    return {node.name: at[node.erlang_name] for node in nodes}


def leader(queue: QueueFigures | None, nodes: Iterable[NodeInfo]) -> str:
    """The node that leads a queue; empty while none is known."""
    return "" if queue is None or queue.leader is None else NodeNames(nodes).short(queue.leader)


def online(queue: QueueFigures | None, nodes: Iterable[NodeInfo]) -> set[str]:
    """The nodes, by their Erlang names, whose members of a queue are online."""
    away = {node.erlang_name for node in nodes if node.state is not NodeState.RUNNING}
    return set() if queue is None else set(queue.online_without(away))
