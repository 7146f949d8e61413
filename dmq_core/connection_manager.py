"""`BrokerConnectionManager`: the brokers that a program talks to, and the connections that it keeps to them."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.base import Credentials, NodeEndpoint, TlsSettings
from dmq_core.cluster.blueprint import Version, parse_version
from dmq_core.cluster.urls import BrokerUrl, parse_url
from dmq_core.errors import BadInput, DmqError, MessagingFailed
from dmq_core.messaging.declaring.registry import TopologyRegistry
from dmq_core.messaging.declaring.topology_rules import Explanation, Severity, explain, in_order, judge
from dmq_core.messaging.linking.balancing import Load, Policy, order, relief
from dmq_core.messaging.linking.connection import Connection
from dmq_core.messaging.linking.states import FINAL_STATES, LIVE_STATES, ConnectionState, ConnectionStatus
from dmq_core.messaging.network import AMQP, Network
from dmq_core.messaging.topology import Entity, Queue, declare
from dmq_core.text import visible

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Broker", "BrokerConnectionManager", "ConnectionEvent", "ConnectionInfo", "Role"]

EVENTS_KEPT: Final = 1000
_LOG = logging.getLogger("dmq.messaging")

BrokerId = int | str


class Role(StrEnum):
    """What a connection is for; a broker that blocks publishers must not keep consumers from working.

    >>> with DirectProducer(manager):
    ...     print([info.role is Role.PUBLISHING for info in manager.connections])
    [True]
    """

    PUBLISHING = "publishing"
    CONSUMING = "consuming"


@dataclass(frozen=True, slots=True)
class Broker:
    """A registered broker; its password never shows in a repr.

    >>> broker = manager.register_broker("backup", "mq9.example.org", 5672, cluster="backup")
    >>> print(broker.id, broker.endpoint.amqp_url, broker.credentials.username)
    backup amqp://mq9.example.org:5672 guest
    """

    id: BrokerId
    endpoint: NodeEndpoint
    credentials: Credentials
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A connection of the manager: its name as operators see it, where it is (None: nowhere), and how many use it.

    >>> with DirectProducer(manager) as producer:
    ...     _ = producer.publish_and_wait("nobody", "Hello World!")
    ...     for info in manager.connections:
    ...         print(info.role, info.status.state, info.broker, info.users)
    publishing open 1 1
    """

    name: str
    cluster: str
    role: Role
    status: ConnectionStatus
    broker: BrokerId | None
    users: int


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """A change of a connection's state. `number` counts the manager's events from 1 without gaps.

    >>> manager.declare(Queue("orders", "quorum"))
    >>> for event in manager.events:
    ...     print(event.number, event.role, event.status.state)
    1 consuming connecting
    2 consuming open
    """

    number: int
    connection: str
    role: Role
    broker: BrokerId | None
    status: ConnectionStatus


@dataclass(slots=True, eq=False)
class _Lease:
    """A connection of a pool with how many use it, and the broker that it is at or heads for."""

    role: Role
    cluster: str
    name: str
    connection: Connection | None = None
    place: NodeEndpoint | None = None
    users: int = 0


@dataclass(slots=True)
class _Cluster:
    """The brokers of one cluster, and what all connections to them share."""

    brokers: list[Broker] = field(default_factory=list)
    registry: TopologyRegistry = field(default_factory=TopologyRegistry)
    punished: dict[NodeEndpoint, float] = field(default_factory=dict)
    leases: list[_Lease] = field(default_factory=list)

    @property
    def endpoints(self) -> list[NodeEndpoint]:
        return [broker.endpoint for broker in self.brokers]


class BrokerConnectionManager:
    """Brokers of one cluster or several, and a pool of recovering connections to each; thread-safe.

    Producers and consumers get their connections here: publishing and consuming ones apart, one of each with
    `Policy.ORDERED`, else up to one of each for every broker, spread by `policy`. A broker that comes back is used
    again: connections move there, once nothing is under way on them, until brokers differ by one at most. `name` is
    what operators see in the broker's list of connections; by default the program, its host and its process id.
    `network` stands in for AMQP over TCP in tests. Once it is closed, and in a forked process, everything that needs a
    connection raises `MessagingFailed`; `BadInput` if no broker is registered for the `cluster` that is named.

    >>> with BrokerConnectionManager(Policy.LEAST_CONNECTIONS, name="shop") as cm:
    ...     for number, port in enumerate((5672, 5673, 5674), start=1):
    ...         print(cm.register_broker(number, "localhost", port).endpoint.amqp_url)
    ...     print(cm.state)
    amqp://localhost:5672
    amqp://localhost:5673
    amqp://localhost:5674
    new
    """

    def __init__(
        self, policy: Policy = Policy.ORDERED, name: str | None = None, *, network: Network | None = None
    ) -> None:
        self.name = name or _own_name()
        self._network = network or AMQP
        self._policy = policy
        self._lock = threading.RLock()
        self._events_lock = threading.RLock()
        self._clusters: dict[str, _Cluster] = {}
        self._turns = itertools.count()
        self._numbers: dict[Role, itertools.count[int]] = {role: itertools.count(1) for role in Role}
        self._events: deque[ConnectionEvent] = deque(maxlen=EVENTS_KEPT)
        self._told = 0
        self._listeners: list[Callable[[ConnectionEvent], None]] = []
        self._closed = False
        self._pid = os.getpid()

    # Brokers.

    def register_broker(
        self,
        broker_id: BrokerId,
        host: str | None = None,
        port: int | None = None,
        *,
        url: str | None = None,
        username: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        tls: TlsSettings | None = None,
        cluster: str = "",
    ) -> Broker:
        """Adds a broker by `host` and `port` (5672, with `tls` 5671), or by an AMQP `url`; nothing is connected yet.

        Without a user it is guest/guest. Brokers with the same `cluster` are nodes of one cluster: each can take the
        other's place. `BadInput` if the address makes no sense, or `broker_id` stands for another broker.

        >>> url = "amqps://shop:secret@mq3.example.org/orders"
        >>> broker = manager.register_broker(4, url=url, cluster="orders")
        >>> print(broker.endpoint.amqp_url, broker.endpoint.virtual_host, broker.credentials.username)
        amqps://mq3.example.org:5671 orders shop
        """
        said = None if url is None else parse_url(url)
        endpoint = _endpoint(host, port, tls) if said is None else _endpoint_of(said, tls)
        if virtual_host is not None:
            endpoint = replace(endpoint, virtual_host=virtual_host)
        broker = Broker(broker_id, endpoint, _credentials(username, password, said), cluster)
        with self._lock:
            self._refuse_if_unusable()
            known = self._find(broker_id)
            if known is not None:
                if known != broker:
                    raise BadInput(f"the broker {broker_id!r} is registered already", "Give the other one another id.")
                return known
            of_cluster = self._clusters.setdefault(cluster, _Cluster())
            of_cluster.brokers.append(broker)
            for lease in of_cluster.leases:
                if lease.connection is not None:
                    lease.connection.learn(broker.endpoint, broker.credentials)
        return broker

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """Every registered broker, cluster by cluster, in the order of registration."""
        with self._lock:
            return tuple(broker for cluster in self._clusters.values() for broker in cluster.brokers)

    def broker_version(self, cluster: str = "", timeout_s: float = 10.0) -> Version:
        """The RabbitMQ version of a cluster; connects if need be. `NotReachable` if nobody answers in `timeout_s`.

        >>> manager.broker_version().major >= 3
        True
        """
        connection = self._any(cluster)
        connection.wait_open(timeout_s)
        return parse_version(connection.status.broker_version)

    # Connections.

    def publishing(self, cluster: str = "") -> Connection:
        """A connection to publish over, perhaps not open yet; give it back with `release`."""
        return self._leased(cluster, Role.PUBLISHING)

    def consuming(self, cluster: str = "") -> Connection:
        """A connection to consume over, perhaps not open yet; give it back with `release`."""
        return self._leased(cluster, Role.CONSUMING)

    def release(self, connection: Connection) -> None:
        """Gives a connection back; it stays open for the next who asks.

        >>> connection = manager.consuming()
        >>> _ = connection.wait_open(timeout_s=10)
        >>> manager.release(connection)
        """
        with self._lock:
            for cluster in self._clusters.values():
                for lease in cluster.leases:
                    if lease.connection is connection:
                        lease.users = max(0, lease.users - 1)

    @property
    def connections(self) -> tuple[ConnectionInfo, ...]:
        """Every connection with its status, without waiting."""
        with self._lock:
            return tuple(
                ConnectionInfo(
                    lease.name,
                    lease.cluster,
                    lease.role,
                    lease.connection.status,
                    self._id_of(lease.cluster, lease.connection.status.endpoint),
                    lease.users,
                )
                for cluster in self._clusters.values()
                for lease in cluster.leases
                if lease.connection is not None
            )

    @property
    def state(self) -> ConnectionState:
        """The state that matters most among the connections: the worst of them, NEW without any."""
        states = {info.status.state for info in self.connections}
        if self._closed:
            return ConnectionState.CLOSED if states <= FINAL_STATES else ConnectionState.CLOSING
        return next((state for state in _WORST_FIRST if state in states), ConnectionState.NEW)

    def wait_open(self, timeout_s: float = 10.0, cluster: str = "") -> None:
        """Waits until a connection to the cluster is open.

        `AccessDenied`, `NotReachable` or `TimedOut` say why none is after `timeout_s` seconds.

        >>> manager.wait_open(timeout_s=10)
        >>> print(manager.state)
        open
        """
        self._any(cluster).wait_open(timeout_s)

    # Events.

    @property
    def events(self) -> tuple[ConnectionEvent, ...]:
        """The last thousand changes of state, oldest first."""
        with self._events_lock:
            return tuple(self._events)

    def listen(self, listener: Callable[[ConnectionEvent], None]) -> Callable[[], None]:
        """Tells `listener` each change of state in order, on an I/O thread, which it must not block.

        Gives what ends it.

        >>> end = manager.listen(lambda event: print(event.role, event.status.state))
        >>> manager.declare(Queue("orders", "quorum"))
        consuming connecting
        consuming open
        >>> end()
        """
        with self._events_lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._events_lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    # Topology.

    def declare(self, *entities: Entity, cluster: str = "", timeout_s: float = 10.0) -> None:
        """Declares exchanges, queues and bindings, and again on each connection that opens later.

        Leaders of quorum queues and streams are spread over the nodes unless the queue says otherwise. `BadInput` for
        what this version of RabbitMQ would refuse or ignore in silence, `MessagingFailed` with the broker's words if
        it refuses one, `NotReachable` or `TimedOut` if nobody answers within `timeout_s` seconds; ways to lose messages
        are logged as warnings.

        >>> manager.declare(Exchange("shop", "topic"), Queue("orders", "quorum"), Binding("shop", "orders", "order.#"))
        >>> print(TopicProducer(manager, "shop").publish_and_wait("order.eu", "a book").outcome)
        confirmed
        """
        balanced = self._checked(entities, cluster, timeout_s)
        declare(self._any(cluster), balanced, timeout_s)
        self._cluster(cluster).registry.add(balanced)

    def require(self, *entities: Entity, cluster: str = "", timeout_s: float = 10.0) -> None:
        """Like `declare` where a connection is open; else returns at once, and the next that opens declares them.

        >>> manager.require(Queue("orders", "quorum"))
        >>> print(manager.state)
        new
        """
        registry = self._cluster(cluster).registry
        # Kept before the look at the connections: one that opens in between finds them.
        kept = tuple(_balanced(entity) for entity in entities)
        registry.add(kept)
        if not any(info.cluster == cluster and info.status.state in LIVE_STATES for info in self.connections):
            return
        try:
            self.declare(*entities, cluster=cluster, timeout_s=timeout_s)
        except DmqError:
            registry.remove(kept)
            raise

    def forget(self, *entities: Entity, cluster: str = "") -> None:
        """Declares `entities` no more; on the broker they stay.

        >>> orders = Queue("orders", "quorum")
        >>> manager.declare(orders)
        >>> manager.forget(orders)
        """
        self._cluster(cluster).registry.remove(_balanced(entity) for entity in entities)

    def explain(self, *entities: Entity, cluster: str = "") -> tuple[Explanation, ...]:
        """What is declared, with `entities` added, in which order and why; asks the broker only for its version.

        >>> archive = Queue("archive", "stream", arguments={"x-max-age": "7D"})
        >>> for explanation in manager.explain(Binding("shop", "archive", "order"), archive, Exchange("shop")):
        ...     print(explanation.text)
        declare the durable direct exchange 'shop'
        declare the durable stream queue 'archive' with x-max-age=7D and x-queue-leader-locator=balanced
        bind queue 'archive' to exchange 'shop' by the key 'order'
        """
        known = self._cluster(cluster).registry.entities()
        balanced = tuple(_balanced(entity) for entity in entities)
        return explain((*known, *(e for e in balanced if e not in known)), self.broker_version(cluster))

    def refused(self, cluster: str = "") -> tuple[tuple[Entity, str], ...]:
        """What the broker refused when it was last declared again, with its words; empty if it took everything."""
        return self._cluster(cluster).registry.refused()

    # The end.

    def close(self) -> None:
        """Closes every connection within four seconds, back-off included; final, and may be called twice."""
        with self._lock:
            self._closed = True
            open_ones = [
                lease.connection for c in self._clusters.values() for lease in c.leases if lease.connection is not None
            ]
        for connection in open_ones:
            connection.begin_closing()
        for connection in open_ones:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Pools and what they share.

    def _checked(self, entities: Sequence[Entity], cluster: str, timeout_s: float) -> tuple[Entity, ...]:
        """`entities` in order and balanced; `BadInput` if the broker would refuse or ignore something of them."""
        balanced = in_order(_balanced(entity) for entity in entities)
        known = self._cluster(cluster).registry.entities()
        beside = tuple(entity for entity in known if entity not in balanced)
        for finding in judge((*beside, *balanced), self.broker_version(cluster, timeout_s)):
            if not any(finding.entity is entity for entity in balanced):
                continue
            if finding.severity in (Severity.REFUSED, Severity.IGNORED):
                raise BadInput(finding.what, finding.hint)
            if finding.severity is Severity.LOSS_TRAP:
                _LOG.warning("%s (%s)", finding.what, finding.hint)
        return balanced

    def _leased(self, cluster: str, role: Role) -> Connection:
        with self._lock:
            self._refuse_if_unusable()
            known = self._cluster(cluster)
            pool = [lease for lease in known.leases if lease.role is role and _is_usable(lease)]
            most = len(known.brokers) if self._policy.spreads else 1
            idle = min(pool, key=lambda lease: lease.users, default=None)
            if idle is None or (idle.users and len(pool) < most):
                idle = self._opened(cluster, known, role)
            idle.users += 1
            return _connection(idle)

    def _any(self, cluster: str) -> Connection:
        """A connection to do errands on: one that is open, or any, or a fresh one."""
        with self._lock:
            self._refuse_if_unusable()
            known = self._cluster(cluster)
            usable = [lease for lease in known.leases if _is_usable(lease)]
            best = next((lease for lease in usable if _connection(lease).status.state in LIVE_STATES), None)
            lease = best or next(iter(usable), None) or self._opened(cluster, known, Role.CONSUMING)
            return _connection(lease)

    def _opened(self, name: str, cluster: _Cluster, role: Role) -> _Lease:
        title = f"{self.name} {role} {next(self._numbers[role])}"
        lease = _Lease(role, name, title)
        lease.connection = Connection(
            cluster.endpoints,
            {broker.endpoint: broker.credentials for broker in cluster.brokers},
            title,
            prefer=lambda: self._places(cluster, lease),
            on_change=lambda status: self._changed(lease, status),
            opening=cluster.registry,
            punished=cluster.punished,
            network=self._network,
            relief=(lambda here: self._relief(cluster, lease, here)) if self._policy.evens_out else None,
        )
        cluster.leases = [other for other in cluster.leases if _is_usable(other)]
        cluster.leases.append(lease)
        lease.connection.start()
        return lease

    def _places(self, cluster: _Cluster, lease: _Lease) -> Sequence[NodeEndpoint]:
        """Where `lease` should try to go, best first; the best is taken as its place at once, so that others see it."""
        now = self._network.now()
        with self._lock:
            lease.place = None
            endpoints = cluster.endpoints
            wanted = order(self._policy, endpoints, _loads(cluster, lease.role), next(self._turns))
            wanted.sort(key=lambda e: cluster.punished.get(e, 0.0) > now)
            lease.place = wanted[0]
            return wanted

    def _relief(self, cluster: _Cluster, lease: _Lease, here: NodeEndpoint) -> NodeEndpoint | None:
        """Where `lease` should move to, so that no broker has two connections of a role more than another."""
        now = self._network.now()
        with self._lock:
            offered = [e for e in cluster.endpoints if e == here or cluster.punished.get(e, 0.0) <= now]
            target = relief(here, offered, _loads(cluster, lease.role))
            if target is not None:
                lease.place = target
            return target

    def _changed(self, lease: _Lease, status: ConnectionStatus) -> None:
        with self._lock:
            if status.endpoint is not None:
                lease.place = status.endpoint
            elif status.state in FINAL_STATES:
                lease.place = None
            broker = self._id_of(lease.cluster, status.endpoint)
        with self._events_lock:
            self._told += 1
            event = ConnectionEvent(self._told, lease.name, lease.role, broker, status)
            self._events.append(event)
            for listener in tuple(self._listeners):
                try:
                    listener(event)
                except Exception:  # the listener is not ours; its failure must not end the connection
                    _LOG.exception("a listener to the connections failed")

    # Looking up.

    def _cluster(self, name: str) -> _Cluster:
        with self._lock:
            known = self._clusters.get(name)
        if known is None:
            which = f"of the cluster {visible(name)!r} " if name else ""
            raise BadInput(f"no broker {which}is registered", "Call register_broker(1, 'localhost', 5672) first.")
        return known

    def _find(self, broker_id: BrokerId) -> Broker | None:
        return next((b for c in self._clusters.values() for b in c.brokers if b.id == broker_id), None)

    def _id_of(self, cluster: str, endpoint: NodeEndpoint | None) -> BrokerId | None:
        return next((b.id for b in self._clusters[cluster].brokers if b.endpoint == endpoint), None)

    def _refuse_if_unusable(self) -> None:
        if self._closed:
            raise MessagingFailed("the connection manager is closed", "Make another one.")
        if os.getpid() != self._pid:
            raise MessagingFailed(
                "the connection manager was made in another process",
                "Make one after the fork, in the process that uses it.",
            )


_WORST_FIRST: Final = (
    ConnectionState.FAILED,
    ConnectionState.RECOVERING,
    ConnectionState.CONNECTING,
    ConnectionState.BLOCKED,
    ConnectionState.OPEN,
)


def _connection(lease: _Lease) -> Connection:
    if lease.connection is None:
        raise MessagingFailed(f"the connection {lease.name!r} was never made")
    return lease.connection


def _is_usable(lease: _Lease) -> bool:
    return lease.connection is not None and lease.connection.status.state not in FINAL_STATES


def _loads(cluster: _Cluster, role: Role) -> dict[NodeEndpoint, Load]:
    places = [(lease.place, lease.role) for lease in cluster.leases if lease.place is not None]
    return {
        endpoint: Load(
            of_role=sum(place == endpoint and of is role for place, of in places),
            in_all=sum(place == endpoint for place, _ in places),
        )
        for endpoint in cluster.endpoints
    }


def _balanced(entity: Entity) -> Entity:
    """`entity`, its leader where the fewest are unless it says where."""
    locator = "x-queue-leader-locator"
    if not isinstance(entity, Queue) or entity.type not in ("quorum", "stream") or locator in entity.arguments:
        return entity
    return replace(entity, arguments={**entity.arguments, locator: "balanced"})


def _endpoint(host: str | None, port: int | None, tls: TlsSettings | None) -> NodeEndpoint:
    if not host or "://" in host or any(c.isspace() for c in host):
        raise BadInput(f"{visible(str(host))!r} is no host", "Give a name or an address; a URL goes into url=.")
    number = port if port is not None else (5671 if tls else 5672)
    if not isinstance(number, int) or not 0 < number < 65536:
        raise BadInput(f"{visible(repr(port))} is no port", "Ports are whole numbers from 1 to 65535; AMQP's is 5672.")
    return NodeEndpoint(host, number, None, tls)


def _endpoint_of(said: BrokerUrl, tls: TlsSettings | None) -> NodeEndpoint:
    if not said.scheme.is_amqp:
        raise BadInput("messages go over AMQP, and the URL is that of a management API", "Give amqp:// or amqps://.")
    secured = tls or (TlsSettings() if said.scheme.secured else None)
    return NodeEndpoint(said.host, said.port, None, secured, said.virtual_host or "/")


def _credentials(username: str | None, password: str | None, said: BrokerUrl | None) -> Credentials:
    if username is None and password is None and said is not None and said.username is not None:
        return Credentials(said.username, said.password or "")
    usual = Credentials()
    return Credentials(username or usual.username, usual.password if password is None else password)


def _own_name() -> str:
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"
    return visible(f"{program}@{socket.gethostname()}:{os.getpid()}")
