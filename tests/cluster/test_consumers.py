"""Consumers on real nodes: honest counts, order through a killed leader, patience with slow handlers, no drops."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clients import await_until, channel

from dmq_core.cluster.protocol import Cluster, NodeAction
from dmq_core.cluster.view import ClusterView
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging.consuming.consumers import DirectConsumer, TopicConsumer
from dmq_core.messaging.consuming.decoding import MessageHeaders
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import Outcome, OutgoingMessage
from dmq_core.messaging.publishing.publisher import Publisher

Make = Callable[[Cluster], BrokerConnectionManager]
# By then an idle consumer has asked its queue whether it still counts.
ASKED_AFTER_S = 4.0


@pytest.fixture
def manager_of() -> Iterator[Make]:
    """Makes managers for clusters, and closes them at the end."""
    made: list[BrokerConnectionManager] = []

    def make(cluster: Cluster) -> BrokerConnectionManager:
        manager = BrokerConnectionManager(name="dmq consumer test")
        for node in cluster.nodes():
            at, user = node.endpoint, cluster.credentials
            manager.register_broker(node.name, at.host, at.amqp_port, username=user.username, password=user.password)
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.close()


@pytest.fixture
def name() -> str:
    """A name for a queue that no test has used."""
    return f"test.consumer.{secrets.token_hex(4)}"


class Hand:
    """A handler that remembers what it got, and fails where it is told to."""

    def __init__(self, fails: Callable[[str, int], bool] = lambda _message, _time: False) -> None:
        self.got: list[str] = []
        self.deliveries: list[Delivery] = []
        self._lock = threading.Lock()
        self._fails = fails

    def __call__(self, message: Any, headers: MessageHeaders) -> bool:
        with self._lock:
            self.got.append(message)
            self.deliveries.append(headers.delivery)
            return not self._fails(message, self.got.count(message))


def silent(_error: BaseException, _delivery: Delivery) -> None:
    """Hears errors and says nothing."""


def send(cluster: Cluster, queue: str, *bodies: bytes) -> None:
    """Publishes to `queue`, each confirmed: what a client hangs up on unconfirmed, the broker may drop."""
    with channel(cluster.nodes()[0].endpoint, cluster.credentials) as ch:
        ch.confirm_delivery()
        for body in bodies:
            ch.basic_publish("", queue, body, mandatory=True)


def ready(cluster: Cluster, queue: str) -> int:
    with channel(cluster.nodes()[0].endpoint, cluster.credentials) as ch:
        return int(ch.queue_declare(queue, passive=True).method.message_count)


def taken(cluster: Cluster, queue: str) -> list[bytes]:
    """What waits in `queue`, taken away."""
    bodies = []
    with channel(cluster.nodes()[0].endpoint, cluster.credentials) as ch:
        while (got := ch.basic_get(queue, auto_ack=True))[0] is not None:
            bodies.append(got[2])
    return bodies


def clean(cluster: Cluster, *queues: str) -> None:
    with channel(cluster.nodes()[0].endpoint, cluster.credentials) as ch:
        for queue in queues:
            ch.queue_delete(queue)


def leader(cluster: Cluster, queue: str) -> str:
    client = ClusterView.of(cluster).management()
    node = next(q.leader for q in client.queues() if q.name == queue)
    return (node or "").partition("@")[2]


def test_twenty_five_failures_end_in_the_dead_letter_queue_with_the_right_count(
    real_cluster: Cluster, manager_of: Make, name: str
) -> None:
    hand = Hand(lambda message, _time: message == "poison")
    consumer = DirectConsumer(manager_of(real_cluster), name)
    consumer.declare_queue(delivery_limit=24)
    consumer.start_consuming(hand)
    send(real_cluster, name, b"poison", b"good")
    await_until(lambda: ready(real_cluster, f"{name}.dead") == 1, 30, "it is given up")
    await_until(lambda: consumer.stats.acked == 1, 10, "the other is done")
    assert [d.attempts for d in hand.deliveries if d.body == b"poison"] == list(range(1, 26))
    assert (consumer.stats.failed, ready(real_cluster, name)) == (25, 0)
    assert taken(real_cluster, f"{name}.dead") == [b"poison"]
    consumer.close()
    clean(real_cluster, name, f"{name}.dead")


def test_an_undecodable_message_is_kept_byte_by_byte(real_cluster: Cluster, manager_of: Make, name: str) -> None:
    hand = Hand()
    consumer = DirectConsumer(manager_of(real_cluster), name, on_error=silent)
    consumer.declare_queue()
    consumer.start_consuming(hand)
    send(real_cluster, name, b"\xff\x00\xfe", b"good")
    await_until(lambda: ready(real_cluster, f"{name}.dead") == 1, 20, "it is kept")
    await_until(lambda: hand.got == ["good"], 20, "the other is handled")
    assert consumer.stats.undecodable == 1
    assert taken(real_cluster, f"{name}.dead") == [b"\xff\x00\xfe"]
    consumer.close()
    clean(real_cluster, name, f"{name}.dead")


def test_stopping_in_the_middle_gives_back_what_was_not_handled(
    real_cluster: Cluster, manager_of: Make, name: str
) -> None:
    begun, opened = threading.Event(), threading.Event()
    handled: list[Any] = []

    def handle(message: Any, _headers: MessageHeaders) -> bool:
        handled.append(message)
        if len(handled) == 10:
            begun.set()
            opened.wait(20)
        return True

    consumer = DirectConsumer(manager_of(real_cluster), name, prefetch=50)
    consumer.declare_queue()
    send(real_cluster, name, *(b"%d" % n for n in range(100)))
    consumer.start_consuming(handle)
    assert begun.wait(20)
    threading.Timer(0.3, opened.set).start()
    began = time.monotonic()
    consumer.stop_consuming(timeout_s=5)
    assert time.monotonic() - began < 5
    assert handled == [str(n) for n in range(10)]
    await_until(lambda: ready(real_cluster, name) == 90, 20, "the rest is there again")
    assert consumer.stats.acked == 10
    assert taken(real_cluster, name) == [b"%d" % n for n in range(10, 100)]
    clean(real_cluster, name, f"{name}.dead")


@pytest.mark.real
@pytest.mark.docker
@pytest.mark.parametrize("order", ["strict", pytest.param("key", marks=pytest.mark.thorough)])
def test_order_holds_while_the_leader_is_killed(
    docker_cluster: Cluster, manager_of: Make, name: str, order: str
) -> None:
    """Duplicates aside: what was handled when the node died comes again."""
    total, keys = 1500, 7
    # A handler that takes a while and sometimes fails, so that the kill finds messages at every stage.
    hand = Hand(lambda message, time: int(message) % 97 == 0 and time == 1)

    def handle(message: Any, headers: MessageHeaders) -> bool:
        time.sleep(0.002)
        return hand(message, headers)

    manager = manager_of(docker_cluster)
    consumer = DirectConsumer(
        manager, name, order=order, concurrency=1 if order == "strict" else 4, key=_key(order, keys)
    )
    consumer.declare_queue()
    consumer.start_consuming(handle)
    producer = Publisher(manager.publishing())
    sent = threading.Thread(target=_publish_in_order, args=(producer, name, total), daemon=True)
    sent.start()
    await_until(lambda: len(hand.got) > 200, 30, "messages flow")
    victim = leader(docker_cluster, name)
    docker_cluster.act(NodeAction.KILL, victim)
    try:
        await_until(lambda: len(set(hand.got)) == total, 120, "everything is handled")
    finally:
        docker_cluster.act(NodeAction.START, victim)
    sent.join(30)
    firsts = [int(message) for message in dict.fromkeys(hand.got)]
    if order == "strict":
        assert firsts == list(range(total))
    for key in range(keys):
        assert [n for n in firsts if n % keys == key] == list(range(key, total, keys))
    consumer.close()
    assert consumer.wait(0)
    clean(docker_cluster, name, f"{name}.dead")


def _key(order: str, keys: int) -> Any:
    return (lambda message, _headers: int(message) % keys) if order == "key" else None


def _publish_in_order(producer: Publisher, queue: str, total: int) -> None:
    """Each is confirmed before the next leaves, so that what is sent again cannot overtake."""
    for n in range(total):
        while producer.publish_and_wait(OutgoingMessage("", queue, b"%d" % n), 10).outcome is not Outcome.CONFIRMED:
            pass


@pytest.mark.real
@pytest.mark.docker
def test_a_deleted_queue_is_declared_bound_and_consumed_again(
    docker_cluster: Cluster, manager_of: Make, name: str
) -> None:
    hand = Hand()
    manager = manager_of(docker_cluster)
    consumer = TopicConsumer(manager, name, "a.#", name)
    consumer.start_consuming(hand)
    await_until(lambda: consumer.status.consuming, 20, "it consumes")
    clean(docker_cluster, name)
    producer = Publisher(manager.publishing())

    def came() -> bool:
        producer.publish_and_wait(OutgoingMessage(name, "a.b", b"again"))
        return bool(hand.got)

    await_until(came, 30, "the queue is there, bound and consumed")
    consumer.close()
    clean(docker_cluster, name, f"{name}.dead")
    with channel(docker_cluster.nodes()[0].endpoint) as ch:
        ch.exchange_delete(name)


@pytest.mark.real
@pytest.mark.docker
@pytest.mark.thorough
def test_a_handler_that_takes_longer_than_two_heartbeats_costs_no_connection(
    docker_cluster: Cluster, manager_of: Make, name: str
) -> None:
    """A heartbeat of 10 s is missed after 20 s; the broker closes a connection that is silent for longer."""
    began = threading.Event()

    def slow(_message: Any, _headers: MessageHeaders) -> bool:
        began.set()
        time.sleep(22)
        return True

    manager = manager_of(docker_cluster)
    consumer = DirectConsumer(manager, name)
    consumer.declare_queue()
    consumer.start_consuming(slow)
    send(docker_cluster, name, b"slow")
    assert began.wait(20)
    await_until(lambda: consumer.stats.acked == 1, 40, "it is acknowledged on the channel that brought it")
    assert (consumer.stats.delivered, consumer.stats.stale) == (1, 0)
    assert [info.status.epoch for info in manager.connections] == [1] * len(manager.connections)
    consumer.close()
    clean(docker_cluster, name, f"{name}.dead")


@pytest.mark.thorough
def test_a_consumer_alone_leaves_a_node_that_was_cut_off_and_receives_elsewhere(
    real_cluster: Cluster, manager_of: Make, name: str
) -> None:
    """Until the others notice the cut, the queue still sends every second message to the consumer that was."""
    here, there = real_cluster.nodes()[:2]
    with channel(there.endpoint, real_cluster.credentials) as ch:
        arguments = {"x-queue-type": "quorum", "x-queue-leader-locator": "client-local"}
        ch.queue_declare(name, durable=True, arguments=arguments)
    hand = Hand()
    manager = manager_of(real_cluster)
    with DirectConsumer(manager, name).start_consuming(hand):
        send(real_cluster, name, b"before")
        await_until(lambda: hand.got == ["before"], 10, "the first message comes")
        time.sleep(ASKED_AFTER_S)
        assert [info.status.epoch for info in manager.connections] == [1], "nobody moves while all is well"
        real_cluster.act(NodeAction.ISOLATE, here.name)
        try:
            await_until(lambda: manager.connections[0].status.epoch > 1, 5, "the consumer has moved")
            with channel(there.endpoint, real_cluster.credentials) as ch:
                for _ in range(4):
                    ch.basic_publish("", name, b"after", mandatory=True)
            await_until(lambda: "after" in hand.got, 5, "it receives")
        finally:
            real_cluster.act(NodeAction.REJOIN, here.name)
    clean(real_cluster, name)
