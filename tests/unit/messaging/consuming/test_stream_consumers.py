"""Streams read by the public consumers, over the in-memory broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from clients import await_until

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import InvalidInputError
from dmq_core.messaging import (
    Delivery,
    DirectConsumer,
    DirectProducer,
    MessageHeaders,
    Outcome,
    Queue,
    Requeue,
    Retry,
    TopicConsumer,
    TopicProducer,
)
from dmq_core.testing import MemoryBroker

Seen = list[tuple[object, int | None, bool, int]]


@dataclass
class Shop:
    """A broker with a manager, a stream that is filled as the test says, and what handlers saw."""

    broker: MemoryBroker
    manager: BrokerConnectionManager
    seen: Seen = field(default_factory=list)
    fails: Callable[[Delivery], bool] = lambda _delivery: False

    def consumer(self, **options: object) -> DirectConsumer:
        made = DirectConsumer(self.manager, "s", **options)  # type: ignore[arg-type]  # the tests give what fits
        made.declare_queue(queue_type="stream", delivery_limit=2)
        return made

    def publish(self, *messages: str) -> None:
        producer = DirectProducer(self.manager)
        assert [producer.publish_and_wait("s", m).outcome for m in messages] == [Outcome.CONFIRMED] * len(messages)

    def handle(self, message: object, headers: MessageHeaders) -> bool:
        delivery = headers.delivery
        self.seen.append((message, delivery.offset, delivery.redelivered, delivery.attempts))
        return not self.fails(delivery)

    def moved(self, seconds: float = 0.2) -> bool:
        """Whether time went by, which it does."""
        self.broker.advance(seconds)
        return True

    def cut(self, consumer: DirectConsumer) -> None:
        """The connection that is consumed over breaks, and comes back."""
        [lost] = [c for c in self.manager.connections if "consuming" in c.name]
        self.broker.close_connection(lost.name)

        def is_back() -> bool:
            [now] = [c for c in self.manager.connections if "consuming" in c.name]
            return now.status.epoch > lost.status.epoch and consumer.status.consuming

        await_until(is_back, 10, "it is back")

    def messages(self, count: int) -> list[object]:
        """The messages of the first `count` calls of a handler, awaited."""
        await_until(lambda: self.moved(0) and len(self.seen) >= count, 10, f"{count} handled")
        return [seen[0] for seen in self.seen]


@pytest.fixture(params=["4.3.6", "3.10.8"])
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with MemoryBroker(3, request.param) as broker, BrokerConnectionManager(network=broker.network) as manager:
        for at in broker.endpoints:
            manager.register_broker(at.amqp_port or 0, at.host, at.amqp_port or 0)
        yield Shop(broker, manager)


@pytest.mark.parametrize(
    ("offset", "read"),
    [("first", "012345"), ("last", "345"), ("next", "45"), (None, "45"), (1, "12345"), ("1h", "012345")],
)
def test_reading_begins_where_it_is_asked_to(shop: Shop, offset: str | int | None, read: str) -> None:
    consumer = shop.consumer()
    shop.publish(*"0123")
    with consumer.start_consuming(shop.handle, offset):
        shop.broker.settle()
        shop.publish(*"45")
        assert shop.messages(len(read)) == list(read)
    assert shop.seen[0][1] == int(read[0])


def test_a_moment_is_a_place_to_begin_at(shop: Shop) -> None:
    consumer = shop.consumer()
    shop.publish("early")
    shop.broker.advance(10)
    moment = datetime.fromtimestamp(shop.broker.network.wall(), UTC)
    shop.publish("late")
    with consumer.start_consuming(shop.handle, moment):
        assert shop.messages(1) == ["late"]


def test_it_can_be_read_twice(shop: Shop) -> None:
    consumers = [shop.consumer(), shop.consumer()]
    shop.publish(*"01")
    for consumer in consumers:
        with consumer.start_consuming(shop.handle, "first"):
            shop.messages(2)
    shop.messages(4)
    assert shop.seen == [("0", 0, False, 1), ("1", 1, False, 1)] * 2


def test_after_its_node_died_it_goes_on_behind_what_was_handled(shop: Shop) -> None:
    consumer = shop.consumer()
    shop.publish(*"01")
    with consumer.start_consuming(shop.handle, "first"):
        shop.messages(2)
        shop.broker.kill("rmq1")
        shop.broker.advance(3)
        shop.publish(*"23")
        shop.messages(4)
    assert shop.seen == [(str(n), n, False, 1) for n in range(4)]


def test_what_was_in_hand_when_its_channel_died_is_done_once(shop: Shop) -> None:
    """A stream's answer is the consumer's own affair: it counts without the channel."""
    begun, may_end = threading.Event(), threading.Event()

    def hold(delivery: Delivery) -> bool:
        begun.set()
        may_end.wait(10)
        return False

    shop.fails = hold
    consumer = shop.consumer(order="strict")
    with consumer.start_consuming(shop.handle, "first"):
        shop.publish(*"01")
        assert begun.wait(10)
        shop.cut(consumer)
        may_end.set()
        shop.messages(2)
    assert [(message, redelivered) for message, _, redelivered, _ in shop.seen] == [("0", False), ("1", True)]
    assert (consumer.stats.acked, consumer.stats.stale) == (2, 0)


def test_next_goes_on_from_its_beginning_though_nothing_had_come(shop: Shop) -> None:
    consumer = shop.consumer()
    shop.publish("before")
    shop.broker.advance(5)
    with consumer.start_consuming(shop.handle):
        shop.broker.settle()
        shop.broker.kill("rmq1")
        shop.publish("while it was away")
        shop.broker.advance(3)
        assert shop.messages(1) == ["while it was away"]


def test_a_stream_that_was_deleted_and_came_back_is_read_from_its_beginning(shop: Shop) -> None:
    consumer = shop.consumer()
    shop.publish(*"012")
    with consumer.start_consuming(shop.handle, "first"):
        shop.messages(3)
        shop.broker.delete_queue("s")
        await_until(lambda: shop.moved() and consumer.status.consuming, 10, "it is declared again")
        shop.publish("new")
        shop.messages(4)
    assert shop.seen[3] == ("new", 0, False, 1)


def test_a_failed_message_is_tried_again_in_its_place_and_then_goes_to_the_dead(shop: Shop) -> None:
    shop.fails = lambda delivery: delivery.body == b"bad"
    consumer = shop.consumer()
    with consumer.start_consuming(shop.handle):
        shop.broker.settle()
        shop.publish("bad", "good")
        shop.messages(4)
    assert shop.seen == [("bad", 0, False, 1), ("bad", 0, True, 2), ("bad", 0, True, 3), ("good", 1, False, 1)]
    [dead] = shop.broker.messages("s.dead")
    assert (dead.body, dead.properties.headers["x-dmq-attempts"]) == (b"bad", 3)
    assert dead.properties.headers["x-stream-offset"] == 0
    assert consumer.stats.failed == 3
    assert shop.broker.depth("s").ready == 2, "a stream keeps it all the same"


def test_what_its_handler_returns_by_itself_is_bounded_too(shop: Shop) -> None:
    shop.fails = lambda delivery: not delivery.reject(requeue=True)
    with shop.consumer().start_consuming(shop.handle, 0):
        shop.publish("bad")
        shop.messages(3)
        await_until(lambda: len(shop.broker.messages("s.dead")) == 1, 10, "it is dead")
    assert [attempts for *_, attempts in shop.seen] == [1, 2, 3]


def test_without_a_queue_for_the_dead_it_is_passed_over_and_told(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.fails = lambda delivery: delivery.body == b"bad"
    consumer = DirectConsumer(shop.manager, "s")
    consumer.declare_queue(queue_type="stream", delivery_limit=1, dead_letter=False)
    with consumer.start_consuming(shop.handle):
        shop.broker.settle()
        shop.publish("bad", "good")
        assert shop.messages(3) == ["bad", "bad", "good"]
    assert "the message at offset 0 of the stream 's' is passed over, it failed 2 times" in caplog.text


def test_a_retry_tries_in_place_and_parks(shop: Shop) -> None:
    shop.fails = lambda delivery: delivery.body == b"bad"
    consumer = shop.consumer(retry=Retry(delays=(0.01, 0.02)))
    with consumer.start_consuming(shop.handle):
        shop.broker.settle()
        shop.publish("bad", "good")
        assert shop.messages(4) == ["bad", "bad", "bad", "good"]
        await_until(lambda: len(shop.broker.messages("s.parked")) == 1, 10, "it is parked")


@pytest.mark.parametrize("options", [{"order": "strict"}, {"order": "key", "key": "k", "concurrency": 4}, {}])
def test_a_failure_does_not_change_the_order(shop: Shop, options: dict[str, object]) -> None:
    failed: set[bytes] = set()

    def once(delivery: Delivery) -> bool:
        first = delivery.body not in failed
        failed.add(delivery.body)
        return first

    shop.fails = once
    with shop.consumer(**options).start_consuming(shop.handle):
        shop.broker.settle()
        shop.publish(*"0123")
        assert shop.messages(8) == list("00112233")


def test_with_several_at_work_it_resumes_at_the_lowest_that_is_not_done(shop: Shop) -> None:
    may_end = threading.Event()

    def hold(delivery: Delivery) -> bool:
        if delivery.body == b"1" and not delivery.redelivered:
            may_end.wait(10)
            delivery.reject(requeue=True)
        return False

    shop.fails = hold
    consumer = shop.consumer(concurrency=3)
    with consumer.start_consuming(shop.handle):
        shop.broker.settle()
        shop.publish(*"0123")
        await_until(lambda: consumer.stats.acked == 3, 10, "all but one are done")
        shop.cut(consumer)
        may_end.set()
        await_until(lambda: consumer.stats.acked == 4, 10, "it is done")
    assert sorted(str(message) for message, *_ in shop.seen) == ["0", "1", "1", "2", "3"]
    assert shop.seen[-1][:3] == ("1", 1, True)
    assert consumer.stats.duplicates == 2, "what was done above it is not handled again"


def test_auto_ack_passes_over_what_fails(shop: Shop) -> None:
    shop.fails = lambda delivery: delivery.body == b"bad"
    with shop.consumer(auto_ack=True).start_consuming(shop.handle):
        shop.broker.settle()
        shop.publish("bad", "good")
        assert shop.messages(2) == ["bad", "good"]


def test_an_exchange_fills_a_stream_as_any_queue(shop: Shop) -> None:
    consumer = TopicConsumer(shop.manager, "shop", "order.#", "orders")
    with consumer.start_consuming(shop.handle, "first"):
        TopicProducer(shop.manager, "shop").publish_and_wait("order.eu", "a book")
        assert shop.messages(1) == ["a book"]
    assert shop.seen[0][1] == 0, "an offset says that it is a stream"


def test_a_stream_that_somebody_else_declared_is_read_by_its_offset(shop: Shop) -> None:
    shop.manager.declare(Queue("s", "stream"))
    shop.publish(*"01")
    with DirectConsumer(shop.manager, "s", retry=Requeue(limit=0)).start_consuming(shop.handle, "first"):
        assert shop.messages(2) == ["0", "1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"exclusive": True},
        {"auto_delete": True},
        {"durable": False},
        {"arguments": {"x-message-ttl": 1000}},
        {"arguments": {"x-max-priority": 5}},
        {"arguments": {"x-dead-letter-exchange": "x"}},
        {"arguments": {"x-single-active-consumer": True}},
        {"arguments": {"x-max-length": 5}},
        {"arguments": {"x-delivery-limit": 5}},
        {"arguments": {"x-max-age": "1 week"}},
        {"arguments": {"x-max-length-bytes": -1}},
        {"arguments": {"x-stream-max-segment-size-bytes": "big"}},
    ],
)
def test_what_a_stream_does_not_take_is_refused_before(shop: Shop, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        DirectConsumer(shop.manager, "s").declare_queue(queue_type="stream", **wrong)  # type: ignore[arg-type]


def test_an_offset_is_for_a_stream(shop: Shop) -> None:
    quorum = DirectConsumer(shop.manager, "q")
    quorum.declare_queue()
    with pytest.raises(InvalidInputError, match="an offset is for a stream, and 'q' is a quorum queue"):
        quorum.start_consuming(shop.handle, "first")
    private = TopicConsumer(shop.manager, "shop", "#")
    with pytest.raises(InvalidInputError, match="a private queue is none"):
        private.start_consuming(shop.handle, "first")
    with pytest.raises(InvalidInputError, match="cannot be read from 'begin'"):
        shop.consumer().start_consuming(shop.handle, "begin")
