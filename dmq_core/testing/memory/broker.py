"""An in-memory RabbitMQ: nodes, queues and faults on a clock that only its user moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from dmq_core.cluster.node_config import node_names
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import InvalidInputError
from dmq_core.majority import is_majority
from dmq_core.management.models import EntityKey
from dmq_core.messaging.amqp.frames import safe_properties
from dmq_core.messaging.amqp.tables import encoded_table
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.states import ConnectionHooks
from dmq_core.messaging.messages import SeenMessage
from dmq_core.messaging.topology.model import Queue, QueueDepth
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.testing.memory.clock import MemoryClock
from dmq_core.testing.memory.message import Message, Reason, respliced
from dmq_core.testing.memory.node import MemoryNode
from dmq_core.testing.memory.queue import Confirm, MemoryQueue, Verdicts
from dmq_core.testing.memory.refusal import Refusal, refuse
from dmq_core.testing.memory.rules import VersionRules
from dmq_core.testing.memory.server_connection import ServerConnection
from dmq_core.testing.memory.stream import MemoryStream
from dmq_core.testing.memory.transport import MemoryLink, MemoryNetwork
from dmq_core.testing.memory.virtual_host import VirtualHost
from dmq_core.versions import parse_version

if TYPE_CHECKING:
    from typing import Self

    from dmq_core.messaging.connection.states import ConnectionStatus

FIRST_PORT = 5672
ELECTION_S = 0.5
NOTICED_S = 5.0
REFUSED = CloseReason(RecoveryAction.RECOVER, "connection refused")


class MemoryBroker:
    """A RabbitMQ of 1 to 9 `nodes` in this process, for tests; its methods may be called from any thread.

    Connections to it run the whole of dmq's messaging: only sockets and time are not real. Nothing happens by itself
    but what follows at once from what was done; timers, whether the broker's or the clients', go off in `advance`.
    `version` is the RabbitMQ that it plays, from 3.10 on. Users are `credentials` alone, virtual hosts those named.
    Nodes are called `rmq1`, `rmq2` and so on; an unknown one raises `InvalidInputError`.

    >>> from dmq_core.connection_manager import BrokerConnectionManager
    >>> from dmq_core.messaging import DirectProducer, Queue
    >>> with MemoryBroker(nodes=3) as broker, BrokerConnectionManager(network=broker.network) as manager:
    ...     for at in broker.endpoints:
    ...         _ = manager.register_broker(at.amqp_port, at.host, at.amqp_port)
    ...     manager.declare(Queue("orders", "quorum", arguments={"x-message-ttl": 60_000}))
    ...     print(DirectProducer(manager).publish_and_wait("orders", "a book").outcome)
    ...     broker.kill("rmq1")
    ...     broker.advance(1)
    ...     print(manager.state, broker.depth("orders").ready)
    ...     broker.advance(60)
    ...     print(broker.depth("orders").ready)
    confirmed
    open 1
    0
    """

    def __init__(
        self,
        nodes: int = 1,
        version: str = "4.3.6",
        *,
        credentials: Credentials | None = None,
        virtual_hosts: Sequence[str] = ("/",),
    ) -> None:
        self.rules = VersionRules.of(parse_version(version))
        self.clock = MemoryClock()
        self.network = MemoryNetwork(self)
        self.credentials = credentials or Credentials()
        self.alarmed = False
        self.loses_confirms = False
        self.lost_confirms = 0
        self._nodes = {
            name: MemoryNode(name, NodeEndpoint("127.0.0.1", FIRST_PORT + number, None))
            for number, name in enumerate(node_names(nodes))
        }
        self._hosts = {name: VirtualHost(name, self.rules.version) for name in virtual_hosts}
        self._connections: list[Connection] = []
        self._postponed: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What tests use.

    @property
    def endpoints(self) -> tuple[NodeEndpoint, ...]:
        """Where the nodes are, in the order of their names `rmq1`, `rmq2`, ..."""
        return tuple(node.endpoint for node in self._nodes.values())

    def connection(
        self,
        name: str,
        *,
        endpoints: Sequence[NodeEndpoint] | None = None,
        on_change: Callable[[ConnectionStatus], None] | None = None,
    ) -> Connection:
        """A connection called `name`, to the first of `endpoints` (None: all) that answers; `close` closes it.

        >>> with MemoryBroker() as broker:
        ...     print(broker.connection("shop").wait_open().amqp_url)
        amqp://127.0.0.1:5672
        """
        connection = Connection(
            endpoints or self.endpoints,
            self.credentials,
            name,
            ConnectionHooks(on_change=on_change),
            network=self.network,
        )
        self._connections.append(connection)
        return connection

    def advance(self, seconds: float) -> None:
        """Lets `seconds` go by; whatever is due goes off in order, with all that follows from it at once.

        `OperationTimeoutError` if a handler hangs for ten real seconds.
        """
        self.clock.advance(seconds)

    def settle(self, timeout_s: float = 10.0) -> None:
        """Waits until neither broker nor connections nor handlers have anything to do before time moves on.

        `OperationTimeoutError` if they still have after `timeout_s` real seconds.
        """
        self.clock.settle(timeout_s)

    def depth(self, queue: str, virtual_host: str = "/") -> QueueDepth:
        """How deep a queue is, all who wait for it settled; `InvalidInputError` if there is none."""
        self.settle()
        with self.clock.turn():
            found = self._found(queue, virtual_host)
            return QueueDepth(found.name, found.ready, len(found.subscriptions))

    def messages(self, queue: str, virtual_host: str = "/") -> tuple[SeenMessage, ...]:
        """What waits in a queue, in the order of delivery; looking changes nothing.

        Raises `InvalidInputError` if there is none.
        """
        self.settle()
        with self.clock.turn():
            found = self._found(queue, virtual_host)
            return tuple(self._seen(found, message) for message in found.messages())

    def names(self, virtual_host: str = "/") -> tuple[str, ...]:
        """The exchanges and the queues that clients declared, by name.

        >>> from dmq_core.connection_manager import BrokerConnectionManager
        >>> from dmq_core.messaging import Exchange, Queue
        >>> with MemoryBroker() as broker, BrokerConnectionManager(network=broker.network) as cm:
        ...     _ = cm.register_broker(1, "127.0.0.1", broker.endpoints[0].amqp_port)
        ...     cm.declare(Exchange("orders", "topic"), Queue("desk", "quorum"))
        ...     broker.names()
        ('desk', 'orders')
        """
        with self.clock.turn():
            host = self._hosts[virtual_host]
            exchanges = [name for name in host.exchanges if name and not name.startswith("amq.")]
            return tuple(sorted((*exchanges, *host.queues)))

    def close(self) -> None:
        """Closes every connection that `connection` made."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    # Faults.

    def kill(self, name: str) -> None:
        """A node dies: its connections break, and what its consumers held is delivered again."""
        with self.clock.turn():
            node = self._node(name)
            if not node.up:
                return
            node.up = node.frozen = False
            for client in tuple(node.clients):
                client.killed()
            for host in self._hosts.values():
                self._lose_queues(host, node)
            self._elect_later(node)

    def start(self, name: str) -> None:
        """A node that was killed comes back; what it kept on disk is there again."""
        with self.clock.turn():
            node = self._node(name)
            node.up = True
            self._elect_later(node)
            self._carry_on()

    def freeze(self, name: str) -> None:
        """A node neither reads nor answers, until `thaw`; the others notice after five seconds."""
        with self.clock.turn():
            node = self._node(name)
            if node.serves:
                node.frozen = True
                self.clock.later(NOTICED_S, lambda: self._give_up(node))

    def thaw(self, name: str) -> None:
        """A frozen node goes on where it was."""
        with self.clock.turn():
            node = self._node(name)
            node.frozen = False
            self._elect()
            for client in tuple(node.clients):
                client.catch_up()
            self._carry_on()

    def alarm(self, on: bool) -> None:
        """Memory runs short: whoever publishes is blocked until the alarm is off."""
        with self.clock.turn():
            self.alarmed = on
            if not on:
                for client in self.clients():
                    client.unblock()

    def drop_confirms(self, on: bool) -> None:
        """Messages are taken but their confirms get lost, for good."""
        with self.clock.turn():
            self.loses_confirms = on

    def close_connection(self, name: str) -> None:
        """The broker closes the connections called `name`, as an operator can; `InvalidInputError` if there is none."""
        with self.clock.turn():
            clients = [client for client in self.clients() if client.link.name == name]
            if not clients:
                raise InvalidInputError(f"no connection is called {name!r}")
            for client in clients:
                client.close(Refusal(320, "Closed via management plugin"))

    def delete_queue(self, queue: str, virtual_host: str = "/") -> None:
        """An operator deletes a queue; its consumers are cancelled. `InvalidInputError` if there is none."""
        with self.clock.turn():
            found = self._found(queue, virtual_host)
            self._hosts[virtual_host].drop(found)

    # What links, sessions and queues ask of the broker, in its turn.

    def clients(self) -> list[ServerConnection]:
        """Every connection of a client."""
        return [client for node in self._nodes.values() for client in node.clients]

    def queue(self, name: str, virtual_host: str) -> MemoryQueue | None:
        """The queue called `name`, if there is one."""
        host = self._hosts.get(virtual_host)
        return None if host is None else host.queues.get(name)

    def queues(self) -> list[tuple[EntityKey, MemoryQueue]]:
        """Every queue of every virtual host."""
        return [(EntityKey(host.name, name), q) for host in self._hosts.values() for name, q in host.queues.items()]

    def serves(self, node: str) -> bool:
        """Whether a node answers clients and other nodes."""
        return self._nodes[node].serves

    def admit(self, link: MemoryLink) -> None:
        """Lets a client in, refuses it, or leaves it waiting at a frozen node."""
        node = next((n for n in self._nodes.values() if n.endpoint.amqp_port == link.endpoint.amqp_port), None)
        if node is None or not node.up:
            link.ended(REFUSED)
            return
        host = self._hosts.get(link.endpoint.virtual_host)
        if link.credentials != self.credentials:
            why = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."
            link.ended(CloseReason(RecoveryAction.GIVE_UP, why, 403, denied=True))
        elif host is None:
            why = f"NOT_ALLOWED - vhost {link.endpoint.virtual_host} not found"
            link.ended(CloseReason(RecoveryAction.GIVE_UP, why, 530, denied=True))
        else:
            client = ServerConnection(self, node, host, link, link.credentials.username)
            node.clients.append(client)
            link.let_in(client)

    def reached(self, client: ServerConnection, name: str) -> MemoryQueue:
        """The queue called `name`, if this client may use it and its node is there."""
        queue = client.host.queue(name)
        what = f"queue '{name}' in vhost '{client.host.name}'"
        if queue.spec.exclusive and queue not in client.exclusive:
            refuse(
                405,
                f"cannot obtain exclusive access to locked {what}. It could be originally declared on another "
                "connection or the exclusive property value does not match that of the original declaration.",
            )
        if self.is_lost(queue):
            refuse(404, f"home node 'rabbit@{queue.members[0]}' of durable {what} is down or inaccessible")
        return queue

    def declare_queue(self, client: ServerConnection, wanted: Queue) -> MemoryQueue:
        """Declares a queue, or finds it as wanted."""
        if wanted.name in client.host.queues:
            queue = self.reached(client, wanted.name)
            client.host.check_again(queue, wanted)
            queue.touch()
            return queue
        spec = client.host.checked_queue(wanted)
        kind = MemoryStream if spec.type == "stream" else MemoryQueue
        queue = kind(spec, self._members(spec, client.node), self.rules, self)
        client.host.add(queue)
        if spec.exclusive:
            client.exclusive.append(queue)
        return queue

    def when_quorate(self, action: Callable[[], None]) -> None:
        """Does `action` now, or once most nodes serve."""
        if is_majority(len(self._serving()), len(self._nodes)):
            action()
        else:
            self._postponed.append(action)

    def is_available(self, queue: MemoryQueue) -> bool:
        """Whether the queue takes and gives messages."""
        if queue.leader is None or not self._nodes[queue.leader].serves:
            return False
        serving = sum(self._nodes[member].serves for member in queue.members)
        return is_majority(serving, len(queue.members))

    def is_lost(self, queue: MemoryQueue) -> bool:
        """Whether the one node that holds the queue is down."""
        return not queue.is_replicated and not self._nodes[queue.members[0]].up

    def is_elsewhere(self, client: ServerConnection, queue: MemoryQueue) -> bool:
        """Whether the queue lives on without the client's node."""
        return queue.leader is not None and queue.leader != client.node.name

    def dead_letter(self, queue: MemoryQueue, message: Message, reason: Reason, done: Confirm | None) -> None:
        """Sends a dead letter on; `done` hears whether there were targets and every one took it."""
        host = next(host for host in self._hosts.values() if host.queues.get(queue.name) is queue)
        exchange = queue.settings.dead_letter_exchange or ""
        letter = message.forwarded(exchange, queue.settings.dead_letter_key)
        found = host.targets(exchange, letter.routing_key, letter.headers) if exchange in host.exchanges else ()
        targets = [t for t in found if reason is Reason.REJECTED or not letter.is_cycle(t.name)]
        verdicts = Verdicts(len(targets), done or _ignore)
        for target in targets:
            target.publish(letter, verdicts)
        if not targets and done is not None:
            done(False)

    def vanish(self, queue: MemoryQueue) -> None:
        """The queue is to be deleted, for nobody uses it any more."""
        for host in self._hosts.values():
            if host.queues.get(queue.name) is queue:
                host.drop(queue)

    def told_properties(self, queue: MemoryQueue, message: Message) -> bytes:
        """The encoded properties of `message` as a consumer of `queue` gets them."""
        counts: dict[str, int] = {}
        if queue.is_quorum:
            counts["x-delivery-count"] = message.failed
            counts |= {"x-acquired-count": message.acquired} if self.rules.counts_tries else {}
        headers = message.told_headers(self.rules.last_death, counts)
        if headers == safe_properties(message.raw_properties).headers:
            return message.raw_properties
        return respliced(message.raw_properties, encoded_table(headers) if headers else b"")

    # Nodes.

    def _node(self, name: str) -> MemoryNode:
        node = self._nodes.get(name)
        if node is None:
            raise InvalidInputError(f"there is no node {name!r}", f"There are {', '.join(self._nodes)}.")
        return node

    def _serving(self) -> list[MemoryNode]:
        return [node for node in self._nodes.values() if node.serves]

    def _queues(self) -> list[MemoryQueue]:
        return [queue for _, queue in self.queues()]

    def _found(self, name: str, virtual_host: str) -> MemoryQueue:
        queue = self.queue(name, virtual_host)
        if queue is None:
            raise InvalidInputError(f"there is no queue {name!r} in the virtual host {virtual_host!r}")
        return queue

    def _seen(self, queue: MemoryQueue, message: Message) -> SeenMessage:
        return SeenMessage(
            at=self.clock.wall,
            exchange=message.exchange,
            routing_key=message.routing_key,
            body=message.body,
            size=len(message.body),
            properties=safe_properties(self.told_properties(queue, message)),
            queue=queue.name,
        )

    def _members(self, spec: Queue, here: MemoryNode) -> tuple[str, ...]:
        """Where a queue lives, its leader first: on the node that leads fewest, the client's own if that is one."""
        leading = {name: 0 for name, node in self._nodes.items() if node.serves}
        for queue in self._queues():
            if queue.leader in leading:
                leading[queue.leader] += 1
        first = here.name if spec.exclusive else min(leading, key=lambda name: (leading[name], name != here.name))
        others = [name for name in self._nodes if name != first]
        return (first, *others) if spec.type in ("quorum", "stream") else (first,)

    def _lose_queues(self, host: VirtualHost, node: MemoryNode) -> None:
        """What a dead node takes with it: its transient queues, and the transient messages of its durable ones."""
        for queue in [q for q in host.queues.values() if not q.is_replicated and q.members[0] == node.name]:
            if queue.spec.durable:
                queue.lose_node()
            else:
                host.drop(queue)

    def _give_up(self, node: MemoryNode) -> None:
        if not node.frozen or len(self._nodes) == 1:
            return
        self._elect_later(node)
        for client in tuple(node.clients):
            client.detach()

    def _elect_later(self, node: MemoryNode) -> None:
        for queue in self._queues():
            if queue.is_replicated and queue.leader == node.name and not node.serves:
                queue.leader = None
        self.clock.later(ELECTION_S, self._elect)

    def _elect(self) -> None:
        """Gives every queue of several nodes that lacks a leader one of its members, if most of them serve."""
        for queue in self._queues():
            if queue.is_replicated and queue.leader is None:
                candidates = [member for member in queue.members if self._nodes[member].serves]
                if is_majority(len(candidates), len(queue.members)):
                    queue.leader = candidates[0]
        self._carry_on()

    def _carry_on(self) -> None:
        """What waited for a node or a majority goes on."""
        for queue in self._queues():
            if self.is_available(queue):
                queue.resume()
        postponed, self._postponed = self._postponed, []
        for action in postponed:
            self.when_quorate(action)


def _ignore(_taken: bool) -> None:
    """Nobody waits for the answer."""
