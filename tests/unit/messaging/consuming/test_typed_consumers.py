"""Consumers as users script them, on an in-memory RabbitMQ of each version: handled, failed, given back, never lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import DmqError, InvalidInputError, MessagingError
from dmq_core.messaging import DirectConsumer, DirectProducer, FanoutConsumer, HeadersConsumer, TopicConsumer
from dmq_core.messaging.consuming.consumer import Consumer
from dmq_core.messaging.consuming.decoding import MessageHeaders, bytes_only
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import MessageProperties, OutgoingMessage
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.retry.failure_policy import FailurePlan
from dmq_core.messaging.retry.requeue import Requeue
from dmq_core.messaging.topology.model import Queue
from dmq_core.testing import MemoryBroker
from dmq_core.testing.memory.refusal import refuse
from dmq_core.testing.memory.virtual_host import VirtualHost

Kind = TypeVar("Kind", bound=Consumer)
VERSIONS = ["4.3.6", "4.0.5", "3.10.8"]


@pytest.fixture(params=VERSIONS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(MemoryBroker(3, request.param))
    yield made
    made.close()


@pytest.fixture
def newest() -> Iterator[Rig]:
    made = Rig(MemoryBroker(3))
    yield made
    made.close()


class Rig:
    """A broker, a manager for it, and consumers that are stopped at the end."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.manager = BrokerConnectionManager(name="unit", network=broker.network)
        for number, at in enumerate(broker.endpoints):
            self.manager.register_broker(number, at.host, at.amqp_port)
        self._consumers: list[Consumer] = []
        self._producer: Publisher | None = None

    def direct(self, queue: str = "q", **options: Any) -> DirectConsumer:
        return self.kept(DirectConsumer(queue_name=queue, connection_manager=self.manager, **options))

    def topic(self, exchange: str, pattern: str | list[str], queue: str | None = None) -> TopicConsumer:
        return self.kept(TopicConsumer(self.manager, exchange, pattern, queue))

    def kept(self, consumer: Kind) -> Kind:
        self._consumers.append(consumer)
        return consumer

    def publish(self, *bodies: bytes, to: str = "q", exchange: str = "", **properties: Any) -> None:
        if self._producer is None:
            self._producer = Publisher(self.manager.publishing())
        for body in bodies:
            message = OutgoingMessage(exchange, to, body, MessageProperties(**properties))
            settlement = self._producer.publish_and_wait(message, 10)
            assert settlement.outcome == "confirmed", settlement

    def until(self, condition: Callable[[], bool]) -> None:
        """Lets time go by until `condition` holds."""
        for _ in range(200):
            self.broker.settle()
            if condition():
                return
            self.broker.advance(0.05)
        pytest.fail("it did not come to pass")

    def bodies(self, queue: str) -> list[bytes]:
        return [message.body for message in self.broker.messages(queue)]

    def declared(self) -> dict[str, Queue]:
        """The queues that the manager declares again after each reconnect."""
        told = (explanation.entity for explanation in self.manager.explain())
        return {entity.name: entity for entity in told if isinstance(entity, Queue)}

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()
        self.manager.close()
        self.broker.close()


class Hand:
    """A handler that remembers what it got, and fails where it is told to."""

    def __init__(self, fails: Callable[[object, int], bool] = lambda _message, _time: False) -> None:
        self.got: list[object] = []
        self.deliveries: list[Delivery] = []
        self.headers: list[MessageHeaders] = []
        self._fails = fails

    def __call__(self, message: object, headers: MessageHeaders) -> bool:
        self.got.append(message)
        self.headers.append(headers)
        self.deliveries.append(headers.delivery)
        return not self._fails(message, self.got.count(message))


class Gate:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[object] = []
        self.opened = threading.Event()

    def __call__(self, message: object, _headers: MessageHeaders) -> bool:
        self.begun.append(message)
        return self.opened.wait(10)


def really(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def silent(_error: BaseException, _delivery: Delivery) -> None:
    """Hears errors and says nothing."""


# Handling.


def test_the_contract_of_the_command_line_holds_for_the_library(rig: Rig) -> None:
    consumer = rig.kept(DirectConsumer(queue_name="q", connection_manager=rig.manager, auto_ack=False))
    consumer.declare_queue(durable=True)
    hand = Hand()
    assert consumer.start_consuming(hand) is consumer
    DirectProducer(connection_manager=rig.manager).publish(routing_key="q", message="Hello World!", properties=None)
    rig.until(lambda: consumer.stats.acked == 1)
    assert hand.got == ["Hello World!"]
    assert rig.broker.depth("q").ready == 0
    assert consumer.status.consuming


def test_a_handler_is_told_everything_through_two_arguments(newest: Rig) -> None:
    hand = Hand()
    consumer = newest.direct()
    consumer.declare_queue()
    consumer.start_consuming(hand)
    newest.publish(b'{"n": 1}', content_type="application/json", message_id="m", headers={"shop": 7})
    newest.publish(b"bare")
    newest.until(lambda: consumer.stats.acked == 2)
    assert hand.got == [{"n": 1}, "bare"]
    assert hand.headers[0]["shop"] == 7
    assert hand.headers[1] == {}
    first = hand.deliveries[0]
    assert (first.routing_key, first.exchange, first.queue, first.attempts) == ("q", "", "q", 1)
    assert (first.redelivered, first.properties.message_id) == (False, "m")


@pytest.mark.parametrize("order", ["none", "strict", "key"])
def test_a_message_that_always_fails_is_tried_as_often_as_agreed_and_kept_as_a_dead_letter(
    rig: Rig, order: str
) -> None:
    hand = Hand(lambda message, _time: message == "poison")
    consumer = rig.direct(order=order)
    consumer.declare_queue(delivery_limit=24)
    consumer.start_consuming(hand)
    rig.publish(b"poison", b"good")
    rig.until(lambda: rig.broker.depth("q.dead").ready == 1)
    rig.until(lambda: consumer.stats.acked == 1)
    assert hand.got.count("poison") == 25
    assert [d.attempts for d in hand.deliveries if d.body == b"poison"] == list(range(1, 26))
    assert rig.bodies("q.dead") == [b"poison"]
    assert (consumer.stats.failed, consumer.stats.delivered, consumer.stats.redelivered) == (25, 26, 24)


@pytest.mark.parametrize("result", [None, 1, "yes"])
def test_a_handler_that_forgets_what_to_return_fails_its_message_and_is_told_once(
    newest: Rig, caplog: pytest.LogCaptureFixture, result: Any
) -> None:
    consumer = newest.direct()
    consumer.declare_queue(delivery_limit=1)
    consumer.start_consuming(lambda _message, _headers: result)
    newest.publish(b"a", b"b")
    newest.until(lambda: newest.broker.depth("q.dead").ready == 2)
    assert caplog.text.count("return True or False") == 1
    assert consumer.stats.failed == 4


def test_what_a_handler_raises_is_heard_with_its_delivery(newest: Rig) -> None:
    heard: list[tuple[BaseException, bytes]] = []

    def breaks(_message: object, _headers: MessageHeaders) -> bool:
        raise KeyError("order")

    consumer = newest.direct(on_error=lambda error, delivery: heard.append((error, delivery.body)))
    consumer.declare_queue(delivery_limit=1)
    consumer.start_consuming(breaks)
    newest.publish(b"a")
    newest.until(lambda: newest.broker.depth("q.dead").ready == 1)
    assert [(type(error), body) for error, body in heard] == [(KeyError, b"a")] * 2


def test_an_on_error_that_fails_itself_stops_nothing(newest: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_error: BaseException, _delivery: Delivery) -> None:
        raise RuntimeError("no listener")

    consumer = newest.direct(on_error=fails)
    consumer.declare_queue()
    consumer.start_consuming(Hand())
    newest.publish(b"\xff", b"good")
    newest.until(lambda: consumer.stats.acked == 1)
    assert "on_error" in caplog.text


def test_a_handler_that_exits_gives_its_message_back_and_ends_the_consumer(newest: Rig) -> None:
    def leaves(_message: object, _headers: MessageHeaders) -> bool:
        raise SystemExit(3)

    consumer = newest.direct()
    consumer.declare_queue()
    consumer.start_consuming(leaves)
    newest.publish(b"a", b"b")
    with pytest.raises(MessagingError, match="SystemExit") as caught:
        consumer.wait(10)
    assert isinstance(caught.value.__cause__, SystemExit)
    assert newest.bodies("q") == [b"a", b"b"]
    assert not any(t.name.startswith("handle q") for t in threading.enumerate() if t.is_alive())


def test_automatic_acknowledgement_comes_before_the_handler_and_never_tries_again(newest: Rig) -> None:
    hand = Hand(lambda message, _time: message == "bad")
    consumer = newest.direct(auto_ack=True, prefetch=1)
    consumer.declare_queue()
    consumer.start_consuming(hand)
    newest.publish(b"bad", b"good")
    newest.until(lambda: len(hand.got) == 2)
    newest.until(lambda: newest.broker.depth("q").ready == 0)
    assert hand.got == ["bad", "good"]
    assert (consumer.stats.acked, consumer.stats.failed) == (2, 1)


def test_prefetch_holds_back_what_the_handler_is_not_ready_for_even_with_automatic_acknowledgement(newest: Rig) -> None:
    gate = Gate()
    consumer = newest.direct(auto_ack=True, prefetch=2)
    consumer.declare_queue()
    consumer.start_consuming(gate)
    newest.publish(*(b"%d" % n for n in range(10)))
    really(lambda: bool(gate.begun))
    assert consumer.stats.delivered <= 4
    gate.opened.set()
    newest.until(lambda: consumer.stats.acked == 10)


# Undecodable and duplicate messages.


def test_an_undecodable_message_is_kept_byte_by_byte_and_never_handled(rig: Rig) -> None:
    hand = Hand()
    consumer = rig.direct(on_error=silent)
    consumer.declare_queue()
    consumer.start_consuming(hand)
    rig.publish(b"\xff\x00\xfe", content_type="text/plain")
    rig.publish(b"good")
    rig.until(lambda: consumer.stats.acked == 1)
    assert hand.got == ["good"]
    assert rig.bodies("q.dead") == [b"\xff\x00\xfe"]
    assert (consumer.stats.undecodable, consumer.stats.failed) == (1, 0)


def test_where_no_dead_letter_is_known_the_failure_path_decides_on_what_is_undecodable(newest: Rig) -> None:
    class Noted(Requeue):
        def __init__(self) -> None:
            super().__init__(dead_letter=False)
            self.why: list[str] = []

        def failed(self, delivery: Delivery, why: str) -> None:
            self.why.append(why)
            delivery.ack()

    path = Noted()
    consumer = newest.direct(retry=path, on_error=silent)
    consumer.declare_queue()
    consumer.start_consuming(Hand())
    newest.publish(b"\xff")
    newest.until(lambda: bool(path.why))
    assert "not utf-8" in path.why[0]


def test_a_decoder_of_ones_own_gets_body_and_properties_and_may_fail(newest: Rig) -> None:
    def pairs(body: bytes, properties: MessageProperties) -> object:
        return properties.type, int(body)

    hand = Hand()
    consumer = newest.direct(decode=pairs, on_error=silent)
    consumer.declare_queue()
    consumer.start_consuming(hand)
    newest.publish(b"7", b"x", type="order")
    newest.until(lambda: consumer.stats.undecodable == 1)
    assert hand.got == [("order", 7)]


def test_bytes_stay_bytes_where_asked(newest: Rig) -> None:
    hand = Hand()
    consumer = newest.direct(decode=bytes_only)
    consumer.declare_queue()
    consumer.start_consuming(hand)
    newest.publish(b"[1]", content_type="application/json")
    newest.until(lambda: hand.got == [b"[1]"])


def test_a_duplicate_is_acknowledged_unseen_as_long_as_its_id_is_remembered(newest: Rig) -> None:
    hand = Hand(lambda message, time: message == "once more" and time == 1)
    consumer = newest.direct(deduplicate=2)
    consumer.declare_queue()
    consumer.start_consuming(hand)
    newest.publish(b"a", b"a", message_id="1")
    newest.publish(b"once more", message_id="2")
    newest.until(lambda: consumer.stats.acked == 2)
    newest.publish(b"b", message_id="3")
    newest.publish(b"a", message_id="1")
    newest.until(lambda: consumer.stats.acked == 4)
    assert sorted(map(str, hand.got)) == ["a", "a", "b", "once more", "once more"]
    assert consumer.stats.duplicates == 1


# Order.


def test_in_strict_order_a_failed_message_comes_again_before_any_later_one(rig: Rig) -> None:
    hand = Hand(lambda message, time: (message == "3" and time < 4) or message == "6")
    consumer = rig.direct(order="strict")
    consumer.declare_queue(delivery_limit=5)
    rig.publish(*(b"%d" % n for n in range(10)))
    consumer.start_consuming(hand)
    rig.until(lambda: consumer.stats.acked == 9)
    assert hand.got == [*"012", *"3333", *"45", *"666666", *"789"]
    assert rig.bodies("q.dead") == [b"6"]


def test_a_key_keeps_its_order_while_others_pass(newest: Rig) -> None:
    hand = Hand(lambda message, time: message == "a1" and time < 3)
    consumer = newest.direct(order="key", key="key", concurrency=3)
    consumer.declare_queue()
    for n in range(5):
        for key in "abc":
            newest.publish(f"{key}{n}".encode(), headers={"key": key})
    consumer.start_consuming(hand)
    newest.until(lambda: consumer.stats.acked == 15)
    for key in "bc":
        assert [m for m in hand.got if str(m)[0] == key] == [f"{key}{n}" for n in range(5)]
    assert [m for m in hand.got if str(m)[0] == "a"] == ["a0", "a1", "a1", "a1", "a2", "a3", "a4"]


def test_a_slow_key_does_not_keep_another_from_being_handled(newest: Rig) -> None:
    opened, done = threading.Event(), []

    def handle(message: Any, _headers: MessageHeaders) -> bool:
        if message["key"] == "slow":
            opened.wait(10)
        done.append(message["n"])
        return True

    consumer = newest.direct(order="key", key=lambda message, _headers: message["key"], concurrency=2)
    consumer.declare_queue()
    consumer.start_consuming(handle)
    for n, key in enumerate(["slow", "slow", "quick", "quick"]):
        newest.publish(b'{"key": "%s", "n": %d}' % (key.encode(), n), content_type="application/json")
    really(lambda: done == [2, 3])
    opened.set()
    really(lambda: done == [2, 3, 0, 1])


def test_a_message_whose_key_cannot_be_told_fails(newest: Rig) -> None:
    consumer = newest.direct(order="key", key=lambda message, _headers: message["key"], on_error=silent)
    consumer.declare_queue(delivery_limit=1)
    consumer.start_consuming(Hand())
    newest.publish(b"{}", content_type="application/json")
    newest.publish(b"not json", content_type="application/json")
    newest.until(lambda: newest.broker.depth("q.dead").ready == 2)
    assert (consumer.stats.failed, consumer.stats.undecodable) == (2, 1)


@pytest.mark.parametrize("order", ["strict", "key"])
def test_order_outlives_a_consumer_that_stops_while_another_waits(rig: Rig, order: str) -> None:
    book: list[str] = []
    leaving, may_go = threading.Event(), threading.Event()

    def leaves(message: object, _headers: MessageHeaders) -> bool:
        book.append(str(message))
        if len(book) == 3:
            leaver.start()
            leaving.set()
            may_go.wait(10)
        return True

    def stays(message: object, _headers: MessageHeaders) -> bool:
        book.append(str(message))
        return True

    first, second = rig.direct(order=order), rig.direct(order=order)
    leaver = threading.Thread(target=first.stop_consuming, args=(60.0,), daemon=True)
    first.declare_queue()
    second.declare_queue()
    first.start_consuming(leaves)
    rig.until(lambda: first.status.consuming)
    second.start_consuming(stays)
    rig.until(lambda: second.status.consuming)
    rig.publish(*(b"%d" % n for n in range(10)))
    assert leaving.wait(10)
    rig.publish(*(b"%d" % n for n in range(10, 20)))
    may_go.set()
    leaver.join(60)
    rig.until(lambda: len(book) == 20)
    assert book == [str(n) for n in range(20)]


@pytest.mark.parametrize(("order", "consumers"), [("none", 1), ("strict", 2), ("key", 2)])
def test_before_a_move_to_another_node_whoever_keeps_an_order_does_not_let_the_next_consumer_in(
    newest: Rig, order: str, consumers: int
) -> None:
    first, second = newest.direct(order=order), newest.direct(order=order)
    for consumer in (first, second):
        consumer.declare_queue()
        consumer.start_consuming(lambda _message, _headers: True)
    newest.until(lambda: newest.broker.depth("q").consumers == 2)
    subscription = first._subscription
    assert subscription is not None
    first._connection.call(lambda: subscription.pause())
    newest.until(subscription.is_idle)
    assert newest.broker.depth("q").consumers == consumers


@pytest.mark.parametrize("order", ["strict", "key"])
def test_order_outlives_the_loss_of_the_node(rig: Rig, order: str) -> None:
    hand = Hand(lambda message, time: message in ("5", "25") and time == 1)
    consumer = rig.direct(order=order)
    consumer.declare_queue()
    rig.publish(*(b"%d" % n for n in range(20)))
    consumer.start_consuming(hand)
    rig.until(lambda: len(hand.got) > 10)
    rig.broker.kill("rmq1")
    rig.broker.advance(2)
    rig.publish(*(b"%d" % n for n in range(20, 40)))
    # From 4.3 on the broker keeps what a killed node's client held for a minute.
    rig.broker.advance(90)
    rig.until(lambda: len(set(hand.got)) == 40)
    firsts = list(dict.fromkeys(hand.got))
    assert firsts == [str(n) for n in range(40)]


@pytest.mark.parametrize(
    "options",
    [
        {"order": "sorted"},
        {"order": "strict", "concurrency": 2},
        {"concurrency": 0},
        {"prefetch": 0},
        {"prefetch": 70_000},
        {"key": "k"},
        {"queue": "", "exchange_name": "x", "routing_keys": "k", "order": "strict"},
        {"queue": ""},
        {"routing_keys": "k"},
    ],
)
def test_what_makes_no_sense_is_refused_at_once(newest: Rig, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        newest.direct(**options)


def test_a_way_of_trying_again_that_lets_others_pass_is_refused_where_order_is_promised(newest: Rig) -> None:
    class Later(Requeue):
        keeps_order = False

    with pytest.raises(InvalidInputError, match="pass"):
        newest.direct(order="strict", retry=Later())


def test_a_queue_that_cannot_keep_the_order_is_refused(newest: Rig) -> None:
    with pytest.raises(InvalidInputError, match="classic"):
        newest.direct(order="strict").declare_queue(queue_type="classic")
    with pytest.raises(InvalidInputError, match="limit"):
        newest.direct(order="strict").declare_queue(delivery_limit=-1)
    plain = newest.direct("plain")
    plain.declare_queue()
    with pytest.raises(MessagingError, match="single-active"):
        newest.direct("plain", order="strict").declare_queue()


# Declaring.


def test_topic_fanout_and_headers_consumers_declare_what_they_need(rig: Rig) -> None:
    hands = {name: Hand() for name in ("topic", "private", "fanout", "headers")}
    rig.topic("t", ["order.*", "bill.#"], "tq").start_consuming(hands["topic"])
    rig.topic("t", "order.new").start_consuming(hands["private"])
    rig.kept(FanoutConsumer(rig.manager, "f")).start_consuming(hands["fanout"])
    rig.kept(HeadersConsumer(rig.manager, "h", {"kind": "book", "new": True}, "any", "hq")).start_consuming(
        hands["headers"]
    )
    rig.broker.settle()
    rig.publish(b"1", exchange="t", to="order.new")
    rig.publish(b"2", exchange="t", to="bill.a.b")
    rig.publish(b"3", exchange="f", to="")
    rig.publish(b"4", exchange="h", to="", headers={"kind": "book"})
    rig.until(lambda: sum(len(hand.got) for hand in hands.values()) == 5)
    assert {name: hand.got for name, hand in hands.items()} == {
        "topic": ["1", "2"],
        "private": ["1"],
        "fanout": ["3"],
        "headers": ["4"],
    }
    assert rig.broker.depth("tq").consumers == 1


def test_a_direct_consumer_with_an_exchange_is_bound_by_its_keys(newest: Rig) -> None:
    hand = Hand()
    newest.direct("work", exchange_name="d", routing_keys=["red", "blue"]).start_consuming(hand)
    newest.publish(b"r", exchange="d", to="red")
    newest.publish(b"b", exchange="d", to="blue")
    newest.until(lambda: sorted(map(str, hand.got)) == ["b", "r"])


def test_the_queue_is_durable_counted_and_dead_lettered_without_loss_unless_asked_otherwise(newest: Rig) -> None:
    newest.direct().declare_queue()
    newest.direct("c").declare_queue(queue_type="classic", dead_letter=False)
    queues = newest.declared()
    assert (
        queues["q"].all_arguments.items()
        >= {
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "q.dead",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }.items()
    )
    assert queues["q.dead"].type == "quorum"
    assert queues["c"].all_arguments == {"x-queue-type": "classic"}


def test_a_queue_that_is_there_is_taken_as_it_is_unless_something_was_asked_for(newest: Rig) -> None:
    newest.direct("old").declare_queue(queue_type="classic", dead_letter=False)
    hand = Hand()
    consumer = newest.direct("old")
    consumer.declare_queue(durable=True)
    consumer.start_consuming(hand)
    newest.publish(b"a", to="old")
    newest.until(lambda: hand.got == ["a"])
    with pytest.raises(MessagingError, match="inequivalent"):
        newest.direct("old").declare_queue(delivery_limit=5)


def test_on_the_default_exchange_nothing_is_declared_unasked(newest: Rig) -> None:
    consumer = newest.direct("later")
    consumer.start_consuming(Hand())
    newest.broker.advance(1)
    assert not consumer.status.consuming
    assert "NOT_FOUND" in consumer.status.problem
    newest.direct("later").declare_queue()
    newest.until(lambda: consumer.status.consuming)


def test_an_exclusive_queue_is_declared_where_it_is_consumed(newest: Rig) -> None:
    hand = Hand()
    consumer = newest.direct("mine", exchange_name="d", routing_keys="k")
    consumer.declare_queue(exclusive=True, dead_letter=False)
    consumer.start_consuming(hand)
    newest.until(lambda: consumer.status.consuming)
    newest.publish(b"a", exchange="d", to="k")
    newest.until(lambda: hand.got == ["a"])


@pytest.mark.parametrize("named", [True, False])
def test_a_queue_that_was_deleted_is_declared_bound_and_consumed_again(
    newest: Rig, caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    hand = Hand()
    consumer = newest.topic("t", "a.#", "q" if named else None)
    consumer.start_consuming(hand)
    newest.until(lambda: consumer.status.consuming)
    newest.broker.delete_queue(consumer.status.queue)
    newest.until(lambda: "the broker cancelled the consumer" in caplog.text)
    newest.until(lambda: consumer.status.consuming)
    newest.publish(b"again", exchange="t", to="a.b")
    newest.until(lambda: hand.got == ["again"])


def test_a_plan_of_the_failure_path_is_declared_and_the_queues_own_arguments_win(newest: Rig) -> None:
    class Planned(Requeue):
        def prepare(self, queue: Queue, version: object) -> FailurePlan:
            return FailurePlan({"x-delivery-limit": 3, "x-max-length": 9}, (Queue("beside", "quorum"),))

    newest.direct(retry=Planned()).declare_queue(arguments={"x-max-length": 5})
    newest.direct("undeclared", retry=Planned()).start_consuming(Hand())
    queues = newest.declared()
    assert queues["q"].arguments.items() >= {"x-delivery-limit": 3, "x-max-length": 5}.items()
    assert "beside" in queues
    assert "undeclared" not in queues


# Stopping, and losing the connection.


def test_stopping_lets_the_running_handler_finish_and_gives_the_rest_back_in_order(rig: Rig) -> None:
    gate = Gate()
    consumer = rig.direct()
    consumer.declare_queue()
    rig.publish(*(b"%d" % n for n in range(8)))
    consumer.start_consuming(gate)
    really(lambda: gate.begun == ["0"] and consumer.stats.delivered == 8)
    stopper = threading.Thread(target=consumer.stop_consuming)
    stopper.start()
    really(lambda: not consumer._workers or consumer._workers._stopped)
    gate.opened.set()
    stopper.join(10)
    assert consumer.wait(0)
    assert gate.begun == ["0"]
    assert rig.bodies("q") == [b"%d" % n for n in range(1, 8)]
    assert (consumer.stats.acked, consumer.stats.requeued) == (1, 7)


def test_stopping_is_bounded_whatever_the_handler_does(newest: Rig) -> None:
    gate = Gate()
    consumer = newest.direct()
    consumer.declare_queue()
    consumer.start_consuming(gate)
    newest.publish(b"stuck")
    really(lambda: bool(gate.begun))
    began = time.monotonic()
    consumer.stop_consuming(timeout_s=0.2)
    assert time.monotonic() - began < 2
    consumer.stop_consuming()
    gate.opened.set()
    really(lambda: newest.bodies("q") == [b"stuck"])
    really(lambda: consumer.stats.stale == 1)


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"order": "strict"}], ids=str)
def test_a_handler_may_stop_its_own_consumer_and_its_message_is_done(newest: Rig, options: dict[str, Any]) -> None:
    consumer = newest.direct(**options)
    consumer.declare_queue()
    begun: list[object] = []

    def last(message: object, _headers: MessageHeaders) -> bool:
        begun.append(message)
        consumer.stop_consuming()
        consumer.stop_consuming()
        time.sleep(0.05)  # what it still does is part of handling the message
        return True

    newest.publish(*(b"%d" % n for n in range(6)))
    consumer.start_consuming(last)
    assert consumer.wait(10)
    assert len(begun) <= options.get("concurrency", 1)
    assert consumer.stats.acked == len(begun)
    assert newest.bodies("q") == [b"%d" % n for n in range(len(begun), 6)]


def test_waiting_ends_when_the_time_is_up_and_when_the_connection_is_closed(newest: Rig) -> None:
    consumer = newest.direct()
    consumer.declare_queue()
    consumer.start_consuming(Hand())
    assert consumer.wait(0.01) is False
    newest.manager.close()
    with pytest.raises(DmqError, match="closed"):
        consumer.wait(10)


def test_a_consumer_is_started_once_and_ends_with_its_context(newest: Rig) -> None:
    with newest.direct() as consumer:
        consumer.declare_queue()
        consumer.start_consuming(Hand())
        with pytest.raises(MessagingError, match="started before"):
            consumer.start_consuming(Hand())
    assert consumer.wait(0)
    assert not consumer.status.consuming


def test_what_is_handled_when_its_node_dies_is_stale_and_comes_again(
    newest: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    consumer = newest.direct()
    consumer.declare_queue()
    consumer.start_consuming(gate)
    newest.publish(b"a")
    really(lambda: bool(gate.begun))
    newest.broker.close_connection("unit consuming 1")
    really(lambda: "CONNECTION_FORCED" in caplog.text)
    gate.opened.set()
    newest.until(lambda: consumer.stats.acked == 1)
    assert gate.begun == ["a", "a"]
    assert consumer.stats.stale == 1


def test_a_classic_queue_does_not_count_so_the_consumer_does(newest: Rig) -> None:
    hand = Hand(lambda _message, _time: True)
    consumer = newest.direct()
    consumer.declare_queue(queue_type="classic", delivery_limit=3)
    consumer.start_consuming(hand)
    newest.publish(b"poison")
    newest.until(lambda: newest.broker.depth("q.dead").ready == 1)
    assert len(hand.got) == 4


def test_what_a_broker_ends_the_connection_over_is_not_declared_for_ever(
    newest: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_streams(wanted: Queue, checked: Callable[[VirtualHost, Queue], Queue], host: VirtualHost) -> Queue:
        return refuse(540, "no streams here") if wanted.type == "stream" else checked(host, wanted)

    checked = VirtualHost.checked_queue
    monkeypatch.setattr(VirtualHost, "checked_queue", lambda host, wanted: without_streams(wanted, checked, host))
    newest.manager.require(Queue("a.stream", "stream"), Queue("orders", "quorum"))
    connection = newest.manager.consuming()
    newest.until(lambda: connection.status.endpoint is not None and newest.broker.depth("orders").ready == 0)
    assert [(entity, "NOT_IMPLEMENTED" in words) for entity, words in newest.manager.refused()] == [
        (Queue("a.stream", "stream", arguments={"x-queue-leader-locator": "balanced"}), True)
    ]
    epoch = connection.status.epoch
    newest.broker.advance(30)
    assert connection.status.epoch == epoch


@pytest.mark.parametrize("make", [lambda: Requeue(-1), lambda: Requeue(limit=-7)])
def test_a_negative_limit_of_returns_is_refused(make: Callable[[], Requeue]) -> None:
    with pytest.raises(InvalidInputError, match="returns makes no sense"):
        make()


async def too_modern(_message: object, _headers: MessageHeaders) -> bool:
    return True


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (lambda _message: True, "cannot be called with a message and its headers"),
        (too_modern, "coroutine function"),
        ("handler", "is a str"),
    ],
    ids=["one argument", "async", "text"],
)
def test_a_handler_that_would_fail_with_every_message_is_refused_before_it_costs_one(
    newest: Rig, handler: Any, why: str
) -> None:
    consumer = newest.direct()
    consumer.declare_queue()
    newest.publish(b"kept")
    with pytest.raises(InvalidInputError, match=why):
        consumer.start_consuming(handler)
    assert newest.bodies("q") == [b"kept"]
    consumer.start_consuming(lambda *_: True)
    newest.until(lambda: consumer.stats.acked == 1)


def test_a_queue_name_where_the_connection_manager_belongs_is_refused_at_once(newest: Rig) -> None:
    with pytest.raises(InvalidInputError, match="first argument is its connection manager"):
        DirectConsumer("orders", newest.manager)  # type: ignore[arg-type]
