"""A connection manager on real nodes: where its connections are by the broker's own figures, and how it ends."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from clients import await_until

from dmq_core.cluster.protocol import Cluster, NodeAction
from dmq_core.cluster.view import ClusterView
from dmq_core.connection_manager import BrokerConnectionManager, ConnectionEvent, Role
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import AccessDeniedError, InvalidInputError, MessagingError, NotReachableError
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.load_balancing import Policy
from dmq_core.messaging.connection.states import ConnectionState
from dmq_core.messaging.connection.topology_commands import delete_queue, queue_depth
from dmq_core.messaging.consuming.consumers import DirectConsumer
from dmq_core.messaging.consuming.subscription import Subscription
from dmq_core.messaging.messages import Outcome
from dmq_core.messaging.publishing.producers import DirectProducer, TopicProducer
from dmq_core.messaging.publishing.publish_future import PublishFuture
from dmq_core.messaging.topology.model import Binding, Exchange, Queue

pytestmark = [pytest.mark.real, pytest.mark.docker]


def manage(cluster: Cluster, policy: Policy = Policy.ORDERED, name: str | None = None) -> BrokerConnectionManager:
    manager = BrokerConnectionManager(policy, name)
    for number, node in enumerate(cluster.nodes(), start=1):
        manager.register_broker(number, node.endpoint.host, node.endpoint.amqp_port)
    return manager


class Broker:
    """What the cluster itself says of the connections of one manager."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.client = ClusterView.of(cluster).management()
        self._name = name

    def connections(self, role: Role) -> Counter[str]:
        """How many there are at each node."""
        named = f"{self._name} {role} "
        return Counter(c.node or "" for c in self.client.connections() if (c.client_name or "").startswith(named))

    def consumers(self, queue: str) -> Counter[str]:
        """How many consumers of `queue` there are at each node."""
        return Counter(c.node or "" for c in self.client.consumers() if c.queue == queue)

    def leaders(self, prefix: str) -> Counter[str]:
        """How many queues each node leads."""
        return Counter(q.leader or "" for q in self.client.queues() if q.name.startswith(prefix))


def is_even(counts: Counter[str], nodes: int, total: int) -> bool:
    return counts.total() == total and len(counts) == nodes and max(counts.values()) - min(counts.values()) <= 1


def are_moved(connections: Iterable[Connection], endpoint: NodeEndpoint) -> bool:
    """Whether all are there; asks the others again, since one whose users are too busy to rest stays where it is."""
    elsewhere = [c for c in connections if getattr(c.status.endpoint, "amqp_port", None) != endpoint.amqp_port]
    for connection in elsewhere:
        connection.move(replace(endpoint, management_port=None))
    return not elsewhere


@pytest.fixture
def name() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def broker(docker_cluster: Cluster, name: str) -> Iterator[Broker]:
    seen = Broker(docker_cluster, name)
    yield seen
    seen.client.close()


@pytest.mark.thorough
def test_connections_consumers_and_leaders_are_spread_and_a_node_that_comes_back_is_used_again(
    docker_cluster: Cluster, broker: Broker, name: str
) -> None:
    with manage(docker_cluster, Policy.LEAST_CONNECTIONS, name) as manager:
        queues = [Queue(f"{name}.{i}", "quorum") for i in range(9)]
        manager.declare(*queues)
        for _ in range(6):
            Subscription(manager.consuming(), queues[0].name, lambda _batch: None).wait_consuming(20)
        producers = [DirectProducer(connection_manager=manager) for _ in range(6)]
        assert {p.publish_and_wait(queues[0].name, "x").outcome for p in producers} == {Outcome.CONFIRMED}

        def is_spread(nodes: int) -> bool:
            return all(is_even(broker.connections(role), nodes, 3) for role in Role)

        await_until(lambda: is_spread(3), 20, "three connections of each role, one at each node")
        await_until(lambda: is_even(broker.consumers(queues[0].name), 3, 6), 20, "two consumers at each node")
        await_until(lambda: is_even(broker.leaders(name), 3, 9), 20, "three leaders at each node")

        docker_cluster.act(NodeAction.KILL, "rmq2")
        await_until(lambda: is_spread(2), 20, "the two nodes that are left share the connections")
        docker_cluster.act(NodeAction.START, "rmq2")
        await_until(lambda: is_spread(3), 60, "the node that came back is used again")
        assert {p.publish_and_wait(queues[0].name, "x").outcome for p in producers} == {Outcome.CONFIRMED}
        for queue in queues:
            delete_queue(manager.publishing(), queue.name)


def test_moving_under_traffic_leaves_no_outcome_unknown_and_has_nothing_handled_twice(
    docker_cluster: Cluster, name: str
) -> None:
    taken: list[str] = []
    handles: list[PublishFuture] = []
    with manage(docker_cluster) as manager:
        consumer = DirectConsumer(manager, name)
        consumer.declare_queue(dead_letter=False)
        consumer.start_consuming(lambda message, _headers: taken.append(str(message)) is None)
        producer = DirectProducer(connection_manager=manager)
        stop = threading.Event()

        def publish() -> None:
            while not stop.wait(0.001):
                handles.append(producer.publish(name, f"{len(handles)}"))

        publishing = threading.Thread(target=publish)
        publishing.start()
        connections = (manager.publishing(), manager.consuming())
        for target in ("rmq2", "rmq3", "rmq1"):
            endpoint = next(n.endpoint for n in docker_cluster.nodes() if n.name == target)
            await_until(partial(are_moved, connections, endpoint), 30, f"both connections are at {target}")
        stop.set()
        publishing.join(10)
        producer.flush(20)
        await_until(lambda: len(taken) >= len(handles), 20, "all are taken")
        assert Counter(h.result(0).outcome for h in handles) == {Outcome.CONFIRMED: len(handles)}
        assert sorted(taken, key=int) == [f"{number}" for number in range(len(handles))]
        consumer.close()
        delete_queue(manager.publishing(), name)


def test_two_hundred_managers_leave_neither_threads_nor_descriptors(docker_cluster: Cluster) -> None:
    def cycle() -> None:
        with manage(docker_cluster) as manager:
            manager.publishing().wait_open(20)

    cycle()
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(200):
        cycle()
    assert threading.active_count() <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_closing_interrupts_the_back_off_at_once_and_is_final() -> None:
    manager = BrokerConnectionManager()
    manager.register_broker(1, "127.0.0.1", 1)
    connection = manager.publishing()
    await_until(lambda: "refused" in connection.status.problem, 10, "nobody listens there")
    began = time.monotonic()
    manager.close()
    manager.close()
    assert time.monotonic() - began < 1.0
    assert manager.state is ConnectionState.CLOSED
    with pytest.raises(MessagingError, match="closed"):
        manager.publishing()


def test_events_come_in_order_without_gaps_and_tell_where_each_connection_is(docker_cluster: Cluster) -> None:
    heard: list[ConnectionEvent] = []
    with manage(docker_cluster) as manager:
        manager.listen(heard.append)
        manager.consuming().wait_open(20)
        assert manager.state is ConnectionState.OPEN
        assert manager.connections[0].broker == 1
    assert [event.number for event in heard] == list(range(1, len(heard) + 1))
    assert [event.status.state for event in heard] == [
        ConnectionState.CONNECTING,
        ConnectionState.OPEN,
        ConnectionState.CLOSING,
        ConnectionState.CLOSED,
    ]
    assert heard[1].broker == 1
    assert manager.events == tuple(heard)


def test_what_was_declared_is_declared_again_and_a_broken_part_does_not_stop_the_rest(
    docker_cluster: Cluster, name: str
) -> None:
    with manage(docker_cluster) as manager:
        exchange, broken = Exchange(name, "topic", auto_delete=True), Queue(f"{name}.broken", "quorum")
        queue = Queue(name, "quorum")
        manager.declare(exchange, broken, queue, Binding(name, name, "#"))
        connection = manager.publishing()
        # Somebody else puts another queue in the place of one of ours.
        delete_queue(connection, queue.name)
        delete_queue(connection, broken.name)
        with manage(docker_cluster) as other:
            other.declare(Queue(broken.name, "classic"))
        epochs = sum(info.status.epoch for info in manager.connections)
        for info in manager.connections:
            (manager.publishing() if info.role is Role.PUBLISHING else manager.consuming()).leave(None, "a test")
        await_until(
            lambda: (
                sum(info.status.epoch for info in manager.connections) > epochs
                and queue_depth(connection, queue.name, 10) is not None
            ),
            20,
            "the connections are back and the queue with them",
        )
        [(refused, why)] = manager.refused()
        assert isinstance(refused, Queue)
        assert refused.name == broken.name
        assert "inequivalent arg" in why
        assert TopicProducer(manager, name).publish_and_wait("any.key", "x").outcome is Outcome.CONFIRMED
        for left in (queue, broken):
            delete_queue(connection, left.name)


def test_a_queue_that_is_there_already_can_be_taken_as_it_is(docker_cluster: Cluster, name: str) -> None:
    with manage(docker_cluster) as manager:
        manager.declare(Queue(name, "classic"))
        manager.declare(Queue(name, "quorum", adopt=True))
        with pytest.raises(MessagingError, match="inequivalent arg 'x-queue-type'"):
            manager.declare(Queue(name, "quorum"))
        delete_queue(manager.publishing(), name)


def test_what_the_broker_would_ignore_in_silence_is_refused_before_it_is_asked(
    docker_cluster: Cluster, name: str
) -> None:
    with manage(docker_cluster) as manager:
        with pytest.raises(InvalidInputError, match="x-dead-leter-exchange"):
            manager.declare(Queue(name, "quorum", arguments={"x-dead-leter-exchange": ""}))
        assert queue_depth(manager.publishing(), name, 10) is None
        [sentence] = [str(e) for e in manager.explain(Queue(name, "quorum"))]
        assert "20" in sentence, "the default delivery limit that nobody wrote"


def test_wrong_credentials_fail_fast_and_say_so(docker_cluster: Cluster) -> None:
    endpoint = docker_cluster.nodes()[0].endpoint
    with BrokerConnectionManager() as manager:
        manager.register_broker(1, endpoint.host, endpoint.amqp_port, username="guest", password="wrong")
        with pytest.raises(AccessDeniedError):
            manager.wait_open(10)
        assert manager.state is ConnectionState.FAILED


def test_each_broker_is_dialled_with_its_own_user(docker_cluster: Cluster) -> None:
    first, second, _ = (node.endpoint for node in docker_cluster.nodes())
    with BrokerConnectionManager() as manager:
        manager.register_broker("bad", url=f"amqp://nobody:wrong@{first.host}:{first.amqp_port}", cluster="bad")
        manager.register_broker("good", url=f"amqp://guest:guest@{second.host}:{second.amqp_port}", cluster="good")
        manager.wait_open(10, cluster="good")
        with pytest.raises((AccessDeniedError, NotReachableError)):
            manager.wait_open(10, cluster="bad")


def test_after_a_fork_the_child_is_told_to_make_its_own(docker_cluster: Cluster) -> None:
    with manage(docker_cluster) as manager:
        manager.wait_open(20)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                manager.publishing()
                os.write(writer, b"nothing was raised")
            except MessagingError as error:
                os.write(writer, error.what.encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        with os.fdopen(reader) as said:
            assert "another process" in said.read()
        assert manager.state is ConnectionState.OPEN
