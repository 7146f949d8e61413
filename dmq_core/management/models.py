"""What the management API says, as typed frozen values. None means that the broker did not say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

Arguments = Mapping[str, object]
NO_ARGUMENTS: Arguments = MappingProxyType({})


class EntityKey(NamedTuple):
    """What identifies a queue or an exchange within a cluster."""

    vhost: str
    name: str


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """`/api/nodes`: one node. `name` is the Erlang name; sizes in bytes."""

    name: str
    running: bool
    version: str | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    disk_free_bytes: int | None = None
    disk_limit_bytes: int | None = None
    memory_alarm: bool | None = None
    disk_alarm: bool | None = None
    files_used: int | None = None
    files_total: int | None = None
    sockets_used: int | None = None
    processes_used: int | None = None
    uptime_ms: int | None = None
    being_drained: bool | None = None
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExchangeFigures:
    """`/api/exchanges`: one exchange; rates in messages a second. The default exchange's name is empty.

    `published_in` and `published_out` count messages since the statistics of the node began.
    """

    vhost: str
    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    policy: str | None = None
    publish_in_rate: float | None = None
    publish_out_rate: float | None = None
    published_in: int | None = None
    published_out: int | None = None

    @property
    def key(self) -> EntityKey:
        """What identifies the exchange."""
        return EntityKey(self.vhost, self.name)


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """`/api/queues`: one queue; depths in messages, rates in messages a second.

    `leader`, `members` and `online` are Erlang node names; a classic queue is led by the node that it lives on.
    `published`, `delivered`, `acked` and `redelivered` count messages since the statistics of its node began.
    """

    vhost: str
    name: str
    type: str
    state: str | None = None
    leader: str | None = None
    members: tuple[str, ...] = ()
    online: tuple[str, ...] = ()
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    policy: str | None = None
    memory_bytes: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None
    ack_rate: float | None = None
    redeliver_rate: float | None = None
    published: int | None = None
    delivered: int | None = None
    acked: int | None = None
    redelivered: int | None = None

    @property
    def key(self) -> EntityKey:
        """What identifies the queue."""
        return EntityKey(self.vhost, self.name)

    def online_without(self, away: Collection[str]) -> tuple[str, ...]:
        """The members online; where the list is an old one, those whose nodes are not `away`."""
        if not self.online or self.leader is None or self.leader in self.online:
            return self.online
        # A leader is online, so that one who led before told this list; it stays until the queue changes.
        return tuple(member for member in self.members if member not in away)


@dataclass(frozen=True, slots=True)
class BindingFigures:
    """`/api/bindings`: one binding; `destination_type` is `queue` or `exchange`."""

    vhost: str
    source: str
    destination: str
    destination_type: str
    routing_key: str
    arguments: Arguments = field(default_factory=lambda: NO_ARGUMENTS)
    properties_key: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionFigures:
    """`/api/connections`: one client connection; `node` is an Erlang name, byte rates in bytes a second."""

    name: str
    node: str | None = None
    vhost: str | None = None
    user: str | None = None
    client_name: str | None = None
    protocol: str | None = None
    state: str | None = None
    channels: int | None = None
    peer_host: str | None = None
    peer_port: int | None = None
    connected_at_ms: int | None = None
    receive_rate: float | None = None
    send_rate: float | None = None


@dataclass(frozen=True, slots=True)
class ConsumerFigures:
    """`/api/consumers`: one consumer; `node` is the Erlang name of the node that its channel is on."""

    vhost: str
    queue: str
    tag: str
    connection: str | None = None
    node: str | None = None
    user: str | None = None
    prefetch: int | None = None
    acknowledges: bool | None = None
    exclusive: bool | None = None
    active: bool | None = None


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """`/api/channels`: one channel; `node` is an Erlang name, rates in messages a second."""

    name: str
    connection: str | None = None
    node: str | None = None
    vhost: str | None = None
    user: str | None = None
    number: int | None = None
    state: str | None = None
    consumers: int | None = None
    prefetch: int | None = None
    unacked: int | None = None
    unconfirmed: int | None = None
    confirms: bool | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A resource alarm (`memory` or `disk`) that a node holds; it blocks every publisher of the cluster."""

    node: str
    resource: str


@dataclass(frozen=True, slots=True)
class Overview:
    """`/api/overview`: the cluster as a whole, seen by the node (Erlang name) that answered.

    `published` and `delivered` count messages since the statistics of the nodes began.
    """

    cluster_name: str
    node: str
    rabbitmq_version: str
    erlang_version: str | None = None
    queues: int | None = None
    exchanges: int | None = None
    connections: int | None = None
    channels: int | None = None
    consumers: int | None = None
    ready: int | None = None
    unacked: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None
    published: int | None = None
    delivered: int | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a longer list: `total` of all, `filtered` that match the filter."""

    items: tuple[T, ...] = ()
    page: int = 1
    page_count: int = 1
    total: int = 0
    filtered: int = 0
