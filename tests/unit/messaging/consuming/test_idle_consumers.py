"""Idle consumers and the node they wait at: left where it reaches no leader, kept where all is well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dmq_core.connection_manager import BrokerConnectionManager, Role
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.topology_commands import declare
from dmq_core.messaging.consuming.subscription import Subscription
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import OutgoingMessage
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.topology.model import PrivateQueue, Queue
from dmq_core.testing import MemoryBroker


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    with MemoryBroker(nodes=3) as made:
        yield made


class Hand:
    """A consumer that keeps what comes, and answers it if told to."""

    def __init__(self, connection: Connection, queue: str | PrivateQueue, *, ack: bool = True) -> None:
        self.came: list[Delivery] = []
        self.ack = ack
        self.consumer = Subscription(connection, queue, self._note)

    def _note(self, deliveries: tuple[Delivery, ...]) -> None:
        self.came += deliveries
        for delivery in deliveries:
            if self.ack:
                delivery.ack()


def led_elsewhere(broker: MemoryBroker, connection: Connection) -> None:
    """Declares `far`, which rmq2 leads: queues go where the fewest are, and the first stays at rmq1."""
    declare(connection, [Queue("near", "quorum"), Queue("far", "quorum")])
    broker.settle()


def test_an_idle_consumer_leaves_a_node_that_does_not_reach_the_leader_and_says_why(broker: MemoryBroker) -> None:
    problems: list[str] = []
    ends = (broker.endpoints[0], broker.endpoints[2])
    connection = broker.connection("idle", endpoints=ends, on_change=lambda status: problems.append(status.problem))
    led_elsewhere(broker, connection)
    Hand(connection, "far")
    broker.advance(10)
    broker.freeze("rmq2")
    broker.advance(4)
    assert [p for p in problems if p] == ["127.0.0.1:5672: it no longer reaches the queue 'far'"]
    assert connection.status.endpoint == ends[1]


def test_a_leader_that_is_frozen_makes_an_idle_consumer_move_once_and_it_receives_after_the_election(
    broker: MemoryBroker,
) -> None:
    ends = broker.endpoints
    connection = broker.connection("idle", endpoints=(ends[0], ends[2]))
    led_elsewhere(broker, connection)
    hand = Hand(connection, "far")
    broker.advance(10)
    broker.freeze("rmq2")
    broker.advance(9)
    assert connection.status.epoch == 2
    Publisher(broker.connection("shop", endpoints=(ends[2],))).publish(OutgoingMessage("", "far", b"after"))
    broker.advance(2)
    assert [delivery.body for delivery in hand.came] == [b"after"]


def test_a_consumer_that_holds_a_message_keeps_its_node(broker: MemoryBroker) -> None:
    connection = broker.connection("holding")
    led_elsewhere(broker, connection)
    hand = Hand(connection, "far", ack=False)
    Hand(connection, "near")
    Publisher(broker.connection("shop")).publish(OutgoingMessage("", "far", b"held"))
    broker.advance(10)
    broker.freeze("rmq2")
    broker.advance(4)
    assert [delivery.is_current for delivery in hand.came] == [True]
    assert connection.status.epoch == 1


def test_a_queue_that_ends_with_the_connection_keeps_it_where_it_is(broker: MemoryBroker) -> None:
    connection = broker.connection("bound")
    led_elsewhere(broker, connection)
    Hand(connection, "far")
    Hand(connection, PrivateQueue("mine", (), None))
    broker.advance(10)
    broker.freeze("rmq2")
    broker.advance(4)
    assert connection.status.epoch == 1


def test_where_there_is_no_other_node_none_is_left(broker: MemoryBroker) -> None:
    connection = broker.connection("alone", endpoints=broker.endpoints[:1])
    led_elsewhere(broker, connection)
    Hand(connection, "far")
    broker.advance(10)
    broker.freeze("rmq2")
    broker.advance(4)
    assert connection.status.epoch == 1


def test_idle_consumers_of_healthy_queues_stay_for_hours_also_under_an_alarm(broker: MemoryBroker) -> None:
    connection = broker.connection("idle")
    led_elsewhere(broker, connection)
    declare(connection, [Queue("plain", "classic")])
    for queue in ("near", "far", "plain"):
        Hand(connection, queue)
    broker.advance(300)
    broker.alarm(True)
    broker.advance(300)
    assert connection.status.epoch == 1


def test_a_deleted_queue_costs_an_idle_consumer_its_own_channel_at_most(broker: MemoryBroker) -> None:
    connection = broker.connection("idle")
    led_elsewhere(broker, connection)
    hand = Hand(connection, "far")
    Hand(connection, "near")
    broker.advance(10)
    broker.delete_queue("far")
    broker.advance(10)
    assert not hand.consumer.status.consuming
    assert "no queue 'far'" in hand.consumer.status.problem
    assert connection.status.epoch == 1


@pytest.mark.parametrize("ack", [True, False])
def test_idle_consumers_follow_a_publisher_that_gets_no_confirms_and_those_that_hold_something_do_not(
    broker: MemoryBroker, ack: bool
) -> None:
    with BrokerConnectionManager(network=broker.network, name="shop") as manager:
        for number, end in enumerate(broker.endpoints, start=1):
            manager.register_broker(number, end.host, end.amqp_port)
        manager.declare(Queue("orders", "quorum"))
        Hand(manager.consuming(), "orders", ack=ack)
        producer = Publisher(manager.publishing())
        broker.settle()
        broker.drop_confirms(True)
        producer.publish(OutgoingMessage("", "orders", b"x"))
        broker.advance(4)
        broker.drop_confirms(False)
        epochs = {info.role: info.status.epoch for info in manager.connections}
        assert epochs[Role.PUBLISHING] > 1
        assert epochs[Role.CONSUMING] == (2 if ack else 1)
