"""`BrokerConnectionManager`: the brokers that a program talks to, and the connections that it keeps to them."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.protocol import NodeInfo
from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import DmqError, InvalidInputError, MessagingError
from dmq_core.messaging.connection.broker import Broker, BrokerId, credentials_of, endpoint_of
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.load_balancing import Policy
from dmq_core.messaging.connection.pool import Lease, Pool, Role
from dmq_core.messaging.connection.states import (
    FINAL_STATES,
    LIVE_STATES,
    ConnectionHooks,
    ConnectionState,
    ConnectionStatus,
)
from dmq_core.messaging.connection.topology_commands import declare
from dmq_core.messaging.topology.lint import Explanation, LintSeverity, explain, in_order, judge
from dmq_core.messaging.topology.model import Entity, Queue
from dmq_core.messaging.transport.amqp import AMQP
from dmq_core.messaging.transport.protocol import Network
from dmq_core.text import visible
from dmq_core.urls import parse_url
from dmq_core.versions import Version, parse_version

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Broker", "BrokerConnectionManager", "ConnectionEvent", "ConnectionInfo", "Role"]

EVENTS_KEPT: Final = 1000
_LOG = logging.getLogger("dmq.messaging")


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


class BrokerConnectionManager:
    """Brokers of one cluster or several, and a pool of recovering connections to each; thread-safe.

    Producers and consumers get their connections here: publishing and consuming ones apart, one of each with
    `Policy.ORDERED`, else up to one of each for every broker, spread by `policy`. A broker that comes back is used
    again: connections move there, once nothing is under way on them, until brokers differ by one at most. `name` is
    what operators see in the broker's list of connections; by default the program, its host and its process id.
    `network` stands in for AMQP over TCP in tests. Once it is closed, and in a forked process, everything that needs a
    connection raises `MessagingError`; `InvalidInputError` if no broker is registered for the `cluster` that is named.

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
        self._clusters: dict[str, Pool] = {}
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
        other's place. `InvalidInputError` if the address makes no sense, or `broker_id` stands for another broker.

        >>> url = "amqps://shop:secret@mq3.example.org/orders"
        >>> broker = manager.register_broker(4, url=url, cluster="orders")
        >>> print(broker.endpoint.amqp_url, broker.endpoint.virtual_host, broker.credentials.username)
        amqps://mq3.example.org:5671 orders shop
        """
        parsed = None if url is None else parse_url(url)
        endpoint = endpoint_of(host, port, parsed, virtual_host, tls)
        broker = Broker(broker_id, endpoint, credentials_of(username, password, parsed), cluster)
        with self._lock:
            self._refuse_if_unusable()
            known = self._find(broker_id)
            if known is not None:
                if known != broker:
                    raise InvalidInputError(
                        f"the broker {broker_id!r} is registered already", "Give the other one another id."
                    )
                return known
            of_cluster = self._clusters.setdefault(cluster, Pool())
            of_cluster.brokers.append(broker)
            for lease in of_cluster.leases:
                if lease.connection is not None:
                    lease.connection.add_endpoint(broker.endpoint, broker.credentials)
        return broker

    def register_nodes(self, nodes: Iterable[NodeInfo], credentials: Credentials) -> None:
        """Adds every one of `nodes` whose AMQP address is known, under its name, in this order.

        >>> with BrokerConnectionManager() as cm:
        ...     cm.register_nodes(dmq_cluster.cluster.nodes(), dmq_cluster.credentials)
        ...     print([broker.id for broker in cm.brokers])
        ['rmq1', 'rmq2', 'rmq3']
        """
        for node in nodes:
            at = node.endpoint
            if at.amqp_port is not None:
                self.register_broker(
                    node.name,
                    at.host,
                    at.amqp_port,
                    username=credentials.username,
                    password=credentials.password,
                    virtual_host=at.virtual_host,
                    tls=at.tls,
                )

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """Every registered broker, cluster by cluster, in the order of registration."""
        with self._lock:
            return tuple(broker for cluster in self._clusters.values() for broker in cluster.brokers)

    def broker_version(self, cluster: str = "", timeout_s: float = 10.0) -> Version:
        """The RabbitMQ version of a cluster; connects if need be. `NotReachableError` if nobody answers in `timeout_s`.

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

        `AccessDeniedError`, `NotReachableError` or `OperationTimeoutError` say why none is after `timeout_s` seconds.

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

        Leaders of quorum queues and streams are spread over the nodes unless the queue says otherwise.
        `InvalidInputError` for what this version of RabbitMQ would refuse or ignore in silence, `MessagingError` with
        the broker's words if it refuses one, `NotReachableError` or `OperationTimeoutError` if nobody answers within
        `timeout_s` seconds; ways to lose messages are logged as warnings.

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
        """`entities` in order and balanced.

        Raises `InvalidInputError` if the broker would refuse or ignore something of them.
        """
        balanced = in_order(_balanced(entity) for entity in entities)
        known = self._cluster(cluster).registry.entities()
        beside = tuple(entity for entity in known if entity not in balanced)
        for finding in judge((*beside, *balanced), self.broker_version(cluster, timeout_s)):
            if not any(finding.entity is entity for entity in balanced):
                continue
            if finding.severity in (LintSeverity.REFUSED, LintSeverity.IGNORED):
                raise InvalidInputError(finding.what, finding.hint)
            if finding.severity is LintSeverity.LOSS_TRAP:
                _LOG.warning("%s (%s)", finding.what, finding.hint)
        return balanced

    def _leased(self, cluster: str, role: Role) -> Connection:
        with self._lock:
            self._refuse_if_unusable()
            known = self._cluster(cluster)
            usable = known.usable(role)
            most = len(known.brokers) if self._policy.spreads else 1
            idle = min(usable, key=lambda lease: lease.users, default=None)
            if idle is None or (idle.users and len(usable) < most):
                idle = self._opened(cluster, known, role)
            idle.users += 1
            return idle.opened

    def _any(self, cluster: str) -> Connection:
        """A connection to do errands on: one that is open, or on its way, or a fresh one.

        Nothing that goes over one that its broker blocks is read there before the alarm is over.
        """
        with self._lock:
            self._refuse_if_unusable()
            known = self._cluster(cluster)
            usable = [lease for lease in known.usable() if lease.opened.status.state is not ConnectionState.BLOCKED]
            best = next((lease for lease in usable if lease.opened.status.state is ConnectionState.OPEN), None)
            lease = best or next(iter(usable), None) or self._opened(cluster, known, Role.CONSUMING)
            return lease.opened

    def _opened(self, name: str, cluster: Pool, role: Role) -> Lease:
        title = f"{self.name} {role} {next(self._numbers[role])}"
        lease = Lease(role, name, title)
        moves = self._policy.evens_out
        lease.connection = Connection(
            cluster.endpoints,
            {broker.endpoint: broker.credentials for broker in cluster.brokers},
            title,
            ConnectionHooks(
                prefer=lambda: self._places(cluster, lease),
                on_change=lambda status: self._changed(lease, status),
                rebalance_target=(lambda here: self._rebalance_target(cluster, lease, here)) if moves else None,
                on_leave=lambda endpoint, why: self._left(cluster, lease, endpoint, why),
            ),
            setup=cluster.registry,
            penalties=cluster.penalties,
            network=self._network,
        )
        cluster.leases = cluster.usable()
        cluster.leases.append(lease)
        lease.connection.start()
        return lease

    def _places(self, pool: Pool, lease: Lease) -> Sequence[NodeEndpoint]:
        with self._lock:
            return pool.places(lease, self._policy, next(self._turns), self._network.now())

    def _rebalance_target(self, pool: Pool, lease: Lease, here: NodeEndpoint) -> NodeEndpoint | None:
        with self._lock:
            return pool.rebalance_target(lease, here, self._network.now())

    def _left(self, pool: Pool, by: Lease, endpoint: NodeEndpoint, why: str) -> None:
        with self._lock:
            others = [lease.opened for lease in pool.usable() if lease is not by]
        for other in others:
            other.suspect(endpoint, why)

    def _changed(self, lease: Lease, status: ConnectionStatus) -> None:
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

    def _cluster(self, name: str) -> Pool:
        with self._lock:
            known = self._clusters.get(name)
        if known is None:
            which = f"of the cluster {visible(name)!r} " if name else ""
            raise InvalidInputError(
                f"no broker {which}is registered", "Call register_broker(1, 'localhost', 5672) first."
            )
        return known

    def _find(self, broker_id: BrokerId) -> Broker | None:
        return next((b for c in self._clusters.values() for b in c.brokers if b.id == broker_id), None)

    def _id_of(self, cluster: str, endpoint: NodeEndpoint | None) -> BrokerId | None:
        return next((b.id for b in self._clusters[cluster].brokers if b.endpoint == endpoint), None)

    def _refuse_if_unusable(self) -> None:
        if self._closed:
            raise MessagingError("the connection manager is closed", "Make another one.")
        if os.getpid() != self._pid:
            raise MessagingError(
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


def _balanced(entity: Entity) -> Entity:
    """`entity`, its leader where the fewest are unless it says where."""
    locator = "x-queue-leader-locator"
    if not isinstance(entity, Queue) or entity.type not in ("quorum", "stream") or locator in entity.arguments:
        return entity
    return replace(entity, arguments={**entity.arguments, locator: "balanced"})


def _own_name() -> str:
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"
    return visible(f"{program}@{socket.gethostname()}:{os.getpid()}")
