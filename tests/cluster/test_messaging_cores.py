"""Producers, consumers and taps on real nodes: what they promise holds while nodes are killed, frozen and stopped."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pika
import pytest
from clients import await_until, connect

from dmq_core.cluster.protocol import Cluster, NodeAction
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import AccessDeniedError, MessagingError, NotReachableError
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.states import ConnectionHooks, ConnectionState, ConnectionStatus
from dmq_core.messaging.connection.topology_commands import declare, delete_queue, queue_depth
from dmq_core.messaging.consuming.subscription import Subscription, SubscriptionOptions
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, SeenMessage
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.tap.source import TailSource
from dmq_core.messaging.tap.tap import Tap
from dmq_core.messaging.topology.model import Binding, Exchange, PrivateBinding, PrivateQueue, Queue

pytestmark = [pytest.mark.real, pytest.mark.docker]

Open = Callable[..., Connection]


def endpoints(cluster: Cluster, first: str = "rmq1") -> list[NodeEndpoint]:
    """The cluster's endpoints, that of `first` in front."""
    return [n.endpoint for n in sorted(cluster.nodes(), key=lambda n: n.name != first)]


@pytest.fixture
def opened(docker_cluster: Cluster) -> Iterator[Open]:
    """Opens connections, preferring a node, and closes them at the end."""
    made: list[Connection] = []

    def make(
        first: str = "rmq1", on_change: Callable[[ConnectionStatus], None] | None = None, name: str = "dmq test"
    ) -> Connection:
        made.append(
            Connection(
                endpoints(docker_cluster, first),
                docker_cluster.credentials,
                name,
                ConnectionHooks(on_change=on_change),
            )
        )
        made[-1].wait_open(20)
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def queue(opened: Open) -> Iterator[str]:
    """A quorum queue bound to a topic exchange of its own name by `work.#`."""
    name = f"test.{secrets.token_hex(4)}"
    connection = opened()
    declare(
        connection,
        [Exchange(name, "topic", auto_delete=True), Queue(name, "quorum"), Binding(name, name, "work.#")],
        30,
    )
    # A binding that one node has made may not route on another for a moment.
    probe = Publisher(connection)
    await_until(lambda: confirmed(probe, OutgoingMessage(name, "work.probe", b"probe")), 20, "the binding routes")
    probe.close()
    drain_probes(connection, name)
    yield name
    delete_queue(opened(), name, timeout_s=20)


def confirmed(producer: Publisher, message: OutgoingMessage) -> bool:
    return producer.publish_and_wait(message).outcome is Outcome.CONFIRMED


def drain_probes(connection: Connection, queue: str) -> None:
    taken: list[Delivery] = []

    def take(deliveries: tuple[Delivery, ...]) -> None:
        for delivery in deliveries:
            delivery.ack()
            taken.append(delivery)

    consumer = Subscription(connection, queue, take)
    await_until(lambda: bool(taken), 20, "the probe comes back")
    consumer.stop()


def ready(connection: Connection, queue: str) -> int | None:
    depth = queue_depth(connection, queue)
    return None if depth is None else depth.ready


class Collector:
    """A handler that acknowledges and remembers what it got."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.bodies: Counter[bytes] = Counter()
        self.redelivered = 0

    def __call__(self, deliveries: tuple[Delivery, ...]) -> None:
        for delivery in deliveries:
            self.deliveries.append(delivery)
            self.bodies[delivery.body] += 1
            self.redelivered += delivery.redelivered
            delivery.ack()


def test_a_thousand_messages_are_confirmed_and_come_once_each(opened: Open, queue: str) -> None:
    collector = Collector()
    consumer = Subscription(opened("rmq2"), queue, collector)
    producer = Publisher(opened())
    handles = [producer.publish(OutgoingMessage(queue, "work.x", b"%d" % n)) for n in range(1000)]
    producer.flush(60)
    assert Counter(h.result(0).outcome for h in handles) == {Outcome.CONFIRMED: 1000}
    await_until(lambda: len(collector.bodies) == 1000, 30, "all have come")
    assert [d.body for d in collector.deliveries] == [b"%d" % n for n in range(1000)]
    consumer.stop()
    assert ready(opened(), queue) == 0, "every ack arrived before the consumer left"


def test_routable_and_unroutable_messages_are_told_apart_though_interleaved(opened: Open, queue: str) -> None:
    producer = Publisher(opened())
    handles = [
        producer.publish(
            OutgoingMessage(queue, "work.x" if n % 3 else "nobody.x", b"", MessageProperties(message_id="same"))
        )
        for n in range(600)
    ]
    producer.flush(60)
    expected = [Outcome.CONFIRMED if n % 3 else Outcome.RETURNED for n in range(600)]
    assert [h.result(0).outcome for h in handles] == expected


def test_a_message_for_a_missing_exchange_fails_alone(opened: Open, queue: str) -> None:
    producer = Publisher(opened())
    good = [producer.publish(OutgoingMessage(queue, "work.x", b"")) for _ in range(20)]
    producer.flush(30)
    bad = producer.publish(OutgoingMessage("no.such", "work.x", b""))
    later = [producer.publish(OutgoingMessage(queue, "work.x", b"")) for _ in range(20)]
    producer.flush(30)
    assert bad.result(0).outcome is Outcome.NACKED
    assert "no exchange 'no.such'" in bad.result(0).reason
    assert {h.result(0).outcome for h in good + later} == {Outcome.CONFIRMED}


def test_a_body_of_eight_megabytes_comes_back_whole(opened: Open, queue: str) -> None:
    body = os.urandom(8 << 20)
    collector = Collector()
    Subscription(opened("rmq3"), queue, collector)
    producer = Publisher(opened())
    assert producer.publish_and_wait(OutgoingMessage(queue, "work.x", body), 60).outcome is Outcome.CONFIRMED
    await_until(lambda: bool(collector.bodies), 60, "the body comes")
    assert list(collector.bodies) == [body]


class RawProperties(pika.BasicProperties):
    """Properties whose bytes a test chooses."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw

    def encode(self) -> list[bytes]:
        return [self.raw]


def test_headers_made_to_harm_stop_neither_consumer_nor_tap(docker_cluster: Cluster, opened: Open, queue: str) -> None:
    field = b"\x01nd" + struct.pack(">d", 1e300) + b"\x01tT" + b"\x7f" * 8 + b"\x02\xff\xfeS\x00\x00\x00\x01\xff"
    raw = struct.pack(">H", 1 << 13) + struct.pack(">I", len(field)) + field
    collector, seen = Collector(), []
    consumer = Subscription(opened(), queue, collector)
    tap = Tap(opened(), TailSource(queue), seen.extend)
    tap.wait_ready()
    raw_client = connect(endpoints(docker_cluster)[0], docker_cluster.credentials)
    raw_client.channel().basic_publish(queue, "work.x", b"bad", RawProperties(raw))
    raw_client.close()
    assert confirmed(Publisher(opened()), OutgoingMessage(queue, "work.x", b"good"))
    await_until(lambda: set(collector.bodies) == {b"bad", b"good"}, 20, "both come to the consumer")
    await_until(lambda: {m.body for m in seen} == {b"bad", b"good"}, 20, "both come to the tap")
    assert consumer.status.consuming
    assert collector.bodies == {b"bad": 1, b"good": 1}, "the connection was not lost over it"
    headers = next(d for d in collector.deliveries if d.body == b"bad").properties.headers
    assert set(headers) == {"n", "t", "\\xff\\xfe"}
    tap.close()


@pytest.mark.parametrize(
    ("action", "undo"), [(NodeAction.KILL, NodeAction.START), (NodeAction.PAUSE, NodeAction.UNPAUSE)]
)
def test_publisher_and_consumer_leave_a_node_that_is_gone_and_lose_nothing(
    docker_cluster: Cluster, opened: Open, queue: str, action: NodeAction, undo: NodeAction
) -> None:
    collector = Collector()
    states: list[ConnectionStatus] = []
    consumer = Subscription(opened("rmq2"), queue, collector)
    out = opened("rmq2", states.append)
    producer = Publisher(out)
    home = out.status.endpoint
    stop = threading.Event()
    handles = []

    def publish() -> None:
        while not stop.wait(0.005):
            handles.append(producer.publish(OutgoingMessage(queue, "work.x", b"%d" % len(handles))))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        await_until(lambda: len(collector.bodies) > 50, 30, "the load runs")
        docker_cluster.act(action, "rmq2")
        await_until(lambda: out.status.endpoint not in (None, home), 30, "the publisher is elsewhere")
        await_until(lambda: consumer.status.endpoint not in (None, home), 30, "the consumer is elsewhere")
        reached = len(collector.bodies)
        await_until(lambda: len(collector.bodies) > reached + 50, 60, "messages flow again")
    finally:
        stop.set()
        publisher.join(40)
        docker_cluster.act(undo, "rmq2")
    producer.flush(60)
    acknowledged = {h.message.body for h in handles if h.result(0).outcome is Outcome.CONFIRMED}
    assert {h.result(0).outcome for h in handles} <= {Outcome.CONFIRMED, Outcome.UNKNOWN}
    await_until(lambda: acknowledged <= set(collector.bodies), 60, "everything that was confirmed is delivered")
    assert ConnectionState.RECOVERING in [s.state for s in states]
    assert out.status.epoch >= 2


def test_a_tap_takes_nothing_from_the_queue_and_sees_everything(opened: Open, queue: str) -> None:
    seen: list[SeenMessage] = []
    tap = Tap(opened("rmq2"), TailSource(queue, "work.#"), seen.extend)
    bound_alike = Tap(
        opened(),
        TailSource(queue=queue),
        seen.extend,
        bindings=[PrivateBinding(queue, "work.#"), PrivateBinding("", queue)],
    )
    tap.wait_ready()
    bound_alike.wait_ready()
    producer = Publisher(opened())
    for n in range(200):
        producer.publish(OutgoingMessage(queue, "work.x", b"%d" % n, MessageProperties(headers={"n": n})))
    producer.flush(30)
    await_until(lambda: len(seen) >= 400, 30, "both taps have seen all")
    assert Counter(m.body for m in seen) == {b"%d" % n: 2 for n in range(200)}
    assert {(m.exchange, m.routing_key, m.queue) for m in seen} == {(queue, "work.x", None)}
    await_until(
        lambda: (queue_depth(opened(), queue) or pytest.fail("gone")).ready == 200, 20, "the queue has them all"
    )
    assert tap.status().seen == 200
    assert tap.status().dropped == 0
    began = time.monotonic()
    tap.close()
    bound_alike.close()
    bound_alike.close()
    assert time.monotonic() - began < 4
    collector = Collector()
    Subscription(opened(), queue, collector)
    await_until(lambda: len(collector.bodies) == 200, 30, "a consumer gets them")
    assert collector.redelivered == 0


def test_a_slow_listener_costs_messages_of_the_tap_only_and_they_are_counted(opened: Open, queue: str) -> None:
    release = threading.Event()
    seen: list[SeenMessage] = []

    def slow(batch: tuple[SeenMessage, ...]) -> None:
        seen.extend(batch)
        release.wait(60)

    tap = Tap(opened(), TailSource(queue), slow)
    tap.wait_ready()
    producer = Publisher(opened())
    for _ in range(7000):
        producer.publish(OutgoingMessage(queue, "work.x", b""))
    producer.flush(120)
    await_until(lambda: tap.status().dropped > 0, 60, "the tap drops")
    release.set()
    await_until(lambda: tap.status().seen + tap.status().dropped == 7000, 60, "seen and dropped make all")
    tap.close()


def test_a_tap_moves_to_another_node_when_its_own_is_killed(docker_cluster: Cluster, opened: Open, queue: str) -> None:
    seen: list[SeenMessage] = []
    connection = opened("rmq3")
    tap = Tap(connection, TailSource(queue), seen.extend)
    tap.wait_ready()
    home = connection.status.endpoint
    docker_cluster.act(NodeAction.KILL, "rmq3")
    await_until(lambda: connection.status.endpoint not in (None, home), 30, "the tap is elsewhere")
    tap.wait_ready(30)
    producer = Publisher(opened())

    def told() -> bool:
        producer.publish_and_wait(OutgoingMessage(queue, "work.x", b"after"))
        return any(m.body == b"after" for m in seen)

    await_until(told, 30, "the tap sees messages again")
    assert tap.status().problem == ""
    tap.close()


def test_a_queue_that_is_deleted_is_declared_and_consumed_again(opened: Open) -> None:
    name = f"test.{secrets.token_hex(4)}"
    collector, changes = Collector(), []
    consumer = Subscription(
        opened(),
        name,
        collector,
        SubscriptionOptions(declare=(Queue(name, "quorum"),)),
        on_change=lambda s: changes.append(s.consuming),
    )
    consumer.wait_consuming(20)
    delete_queue(opened("rmq2"), name)
    await_until(lambda: changes.count(True) == 2, 20, "it consumes again")
    assert False in changes
    producer = Publisher(opened())
    await_until(lambda: confirmed(producer, OutgoingMessage("", name, b"again")), 20, "the queue is there again")
    await_until(lambda: collector.bodies[b"again"] >= 1, 20, "and is consumed")
    consumer.stop()
    delete_queue(opened(), name)


def test_the_log_of_every_node_can_be_followed_from_a_private_queue(docker_cluster: Cluster, opened: Open) -> None:
    lines = Collector()
    feed = PrivateQueue("test.feed", (PrivateBinding("amq.rabbitmq.log", "#"),), max_length=1000)
    consumer = Subscription(opened("rmq1"), feed, lines)
    first = consumer.wait_consuming(20).queue
    connect(endpoints(docker_cluster, "rmq2")[0], docker_cluster.credentials).close()
    await_until(lambda: any(b"authenticated" in b for b in lines.bodies), 20, "the login is logged")
    docker_cluster.act(NodeAction.KILL, "rmq1")
    await_until(lambda: consumer.status.consuming and consumer.status.queue != first, 30, "the feed is elsewhere")
    consumer.stop()


@pytest.mark.parametrize(
    ("credentials", "vhost", "word"),
    [(Credentials("guest", "wrong"), "/", "refused"), (Credentials(), "no-such-vhost", "not found")],
)
def test_wrong_credentials_and_hosts_fail_at_once(
    docker_cluster: Cluster, credentials: Credentials, vhost: str, word: str
) -> None:
    one = endpoints(docker_cluster)[0]
    connection = Connection([NodeEndpoint(one.host, one.amqp_port, None, virtual_host=vhost)], credentials, "dmq test")
    with pytest.raises(AccessDeniedError, match=word) as caught:
        connection.wait_open(20)
    assert "wrong" not in str(caught.value).replace("wrong password", "")
    assert connection.status.state is ConnectionState.FAILED
    connection.close()
    with pytest.raises(MessagingError):
        connection.start()


def test_a_port_that_is_not_amqp_is_no_riddle(docker_cluster: Cluster) -> None:
    one = endpoints(docker_cluster)[0]
    connection = Connection([NodeEndpoint(one.host, one.management_port, None)], Credentials(), "dmq test")
    with pytest.raises(NotReachableError, match=r"did not answer|closed the connection") as caught:
        connection.wait_open(4)
    assert "AMQP port" in caught.value.hint
    connection.close()


def test_a_declaration_that_the_broker_refuses_gives_its_words(opened: Open, queue: str) -> None:
    with pytest.raises(MessagingError, match="inequivalent arg 'x-queue-type'"):
        declare(opened(), [Queue(queue, "classic")])
    assert queue_depth(opened(), "no.such.queue") is None


# Counted in a process of its own, where nothing else opens and closes sockets meanwhile.
COUNT = """
import os, sys, threading, time
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.consuming.subscription import Subscription
from dmq_core.messaging.messages import OutgoingMessage
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.topology.model import PrivateBinding, PrivateQueue

def open_things():
    # A consumer's thread learns of the close of its connection a moment later than the one who closed it.
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(os.listdir("/proc/self/fd")), threading.active_count()

def cycle(port):
    connection = Connection([NodeEndpoint("127.0.0.1", port, None)], Credentials(), "dmq test")
    producer = Publisher(connection)
    feed = PrivateQueue("test.leak", (PrivateBinding("amq.topic", "#"),))
    consumer = Subscription(connection, feed, lambda deliveries: [d.ack() for d in deliveries])
    consumer.wait_consuming(20)
    assert producer.publish_and_wait(OutgoingMessage("amq.topic", "k", b""), 20).outcome == "confirmed"
    close(connection)

def abandon(port, pause):
    connection = Connection([NodeEndpoint("127.0.0.1", port, None)], Credentials(), "dmq test")
    connection.start()
    time.sleep(pause)
    began = time.monotonic()
    close(connection)
    assert time.monotonic() - began < 2, "the close had to wait"

def close(connection):
    connection.close()
    connection.close()
    assert connection.status.state == "closed"

"""


def counted(script: str, *ports: int) -> tuple[str, str]:
    """What `open_things` says before and after `script`, which sees the ports as `ports`."""
    text = f"{COUNT}ports = [int(p) for p in sys.argv[1:]]\n{script}"
    run = subprocess.run(
        [sys.executable, "-c", text, *map(str, ports)], capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stderr
    before, after = run.stdout.splitlines()
    return before, after


def test_fifty_connections_leave_no_thread_and_no_descriptor(docker_cluster: Cluster) -> None:
    script = """
cycle(ports[0])
print(open_things())
for n in range(50):
    cycle(ports[n % 3])
print(open_things())
"""
    before, after = counted(script, *(e.amqp_port or 0 for e in endpoints(docker_cluster)))
    assert before == after


def test_closing_while_nobody_answers_is_quick_and_leaves_nothing() -> None:
    script = """
abandon(ports[1], 0.1)
print(open_things())
for port in ports:
    for pause in (0.0, 0.01, 0.2, 0.5):
        abandon(port, pause)
print(open_things())
"""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before, after = counted(script, silent.getsockname()[1], refusing)
    assert before == after
