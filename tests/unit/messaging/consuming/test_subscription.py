"""Deliveries belong to the channel that brought them, handlers run off the I/O thread, and nothing ends in silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fake_connection import FakeChannel, FakeConnection
from hypothesis import given, settings
from hypothesis import strategies as st

from dmq_core.errors import DmqError, MessagingError
from dmq_core.messaging.consuming.subscription import FLUSH_AT, Subscription, SubscriptionOptions
from dmq_core.messaging.delivery.delivery import Answer, Delivery
from dmq_core.messaging.topology.model import Binding, PrivateBinding, PrivateQueue, Queue


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def turn_until(connection: FakeConnection, condition: Callable[[], bool]) -> None:
    """Does the I/O thread's work until `condition` holds."""

    def held() -> bool:
        connection.turn()
        return condition()

    until(held)


class Hand:
    """A handler that keeps what it got, and the threads that it ran on."""

    def __init__(self) -> None:
        self.got: list[Delivery] = []
        self.threads: set[str] = set()
        self.fails = False

    def __call__(self, deliveries: tuple[Delivery, ...]) -> None:
        self.threads.add(threading.current_thread().name)
        self.got += deliveries
        if self.fails:
            raise RuntimeError("the user's code is wrong")


def made(
    queue: str | PrivateQueue = "q", on_change: Any = None, **options: Any
) -> tuple[FakeConnection, Subscription, Hand]:
    connection, hand = FakeConnection(), Hand()
    double: Any = connection
    return connection, Subscription(double, queue, hand, SubscriptionOptions(**options), on_change=on_change), hand


def fire(channel: FakeChannel) -> None:
    """Lets the channel's timers run out."""
    while channel.timers:
        channel.timers.pop(0)()


def delivered(connection: FakeConnection, hand: Hand, count: int) -> FakeChannel:
    channel = connection.open()
    for tag in range(1, count + 1):
        channel.deliver(tag, b"%d" % tag)
    until(lambda: len(hand.got) == count)
    return channel


def test_deliveries_come_in_order_on_a_thread_of_the_consumer() -> None:
    connection, consumer, hand = made()
    delivered(connection, hand, 5)
    assert [d.body for d in hand.got] == [b"1", b"2", b"3", b"4", b"5"]
    assert hand.threads == {"consume q"}
    assert consumer.status.consuming
    consumer.stop(0.1)


def test_acks_are_joined_and_sent_after_a_moment() -> None:
    connection, consumer, hand = made()
    channel = delivered(connection, hand, 5)
    assert all(d.ack() for d in hand.got)
    connection.turn()
    assert [s for s in channel.sent if s[0] == "ack"] == []
    fire(channel)
    assert [s for s in channel.sent if s[0] == "ack"] == [("ack", 5, True)]
    consumer.stop(0.1)


def test_many_acks_do_not_wait_for_the_moment() -> None:
    connection, consumer, hand = made()
    channel = delivered(connection, hand, FLUSH_AT)
    for delivery in hand.got:
        delivery.ack()
    connection.turn()
    assert ("ack", FLUSH_AT, True) in channel.sent
    consumer.stop(0.1)


def test_a_rejection_and_a_return_go_at_once_and_in_their_own_words() -> None:
    connection, consumer, hand = made()
    channel = delivered(connection, hand, 3)
    assert hand.got[0].reject()
    assert hand.got[1].reject(requeue=True)
    assert hand.got[2].requeue()
    connection.turn()
    answers = [s for s in channel.sent if s[0] in ("reject", "give back")]
    assert answers == [("reject", 1, False), ("reject", 2, True), ("give back", 3)]
    consumer.stop(0.1)


def test_a_stale_answer_sends_nothing_and_says_so() -> None:
    connection, consumer, hand = made()
    old = delivered(connection, hand, 2)
    connection.lose()
    new = connection.open()
    new.deliver(1)
    until(lambda: len(hand.got) == 3)
    assert not hand.got[0].is_current
    assert hand.got[0].ack() is False
    assert hand.got[1].reject() is False
    connection.turn()
    assert not any(s[0] in ("ack", "reject") for s in old.sent + new.sent)
    assert hand.got[2].ack() is True
    consumer.stop(0.1)


def test_an_ack_noted_before_the_loss_is_not_sent_on_the_next_channel() -> None:
    connection, consumer, hand = made()
    delivered(connection, hand, 1)
    hand.got[0].ack()
    connection.lose()
    new = connection.open()
    fire(new)
    assert not any(s[0] == "ack" for s in new.sent)
    consumer.stop(0.1)


def test_a_delivery_is_answered_once() -> None:
    connection, consumer, hand = made()
    delivered(connection, hand, 1)
    assert hand.got[0].ack()
    assert not hand.got[0].ack()
    assert not hand.got[0].reject()
    consumer.stop(0.1)


def test_a_handler_that_fails_gives_back_what_it_did_not_answer_and_is_called_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection, consumer, hand = made()
    hand.fails = True
    channel = delivered(connection, hand, 1)
    until(lambda: bool(connection.pending))
    connection.turn()
    assert ("reject", 1, True) in channel.sent
    assert "handler of 'q' failed" in caplog.text
    hand.fails = False
    channel.deliver(2)
    until(lambda: len(hand.got) == 2)
    consumer.stop(0.1)


def test_a_cancel_by_the_broker_is_answered_by_declaring_and_subscribing_again() -> None:
    statuses: list[bool] = []
    connection, consumer, _ = made(declare=(Queue("q"),), on_change=lambda s: statuses.append(s.consuming))
    channel = connection.open()
    assert channel.cancelled is not None
    channel.cancelled()
    assert [s[0] for s in channel.sent] == ["declare", "consume", "declare", "consume"]
    assert statuses == [True, False, True]
    consumer.stop(0.1)


def test_a_private_queue_has_a_new_name_on_each_node() -> None:
    private = PrivateQueue("dmq.feed", (PrivateBinding("amq.rabbitmq.log", "#"),), max_length=50)
    connection, consumer, _ = made(private)
    names = []
    for _ in range(2):
        channel = connection.open()
        queue, binding = (s[1] for s in channel.sent if s[0] == "declare")
        assert isinstance(queue, Queue)
        assert isinstance(binding, Binding)
        assert queue.exclusive
        assert queue.auto_delete
        assert queue.all_arguments == {"x-queue-type": "classic", "x-max-length": 50, "x-overflow": "drop-head"}
        assert (binding.source, binding.destination, binding.routing_key) == ("amq.rabbitmq.log", queue.name, "#")
        names.append(queue.name)
        connection.lose()
    assert len(set(names)) == 2
    consumer.stop(0.1)


def test_what_was_waiting_for_the_handler_is_dropped_with_its_channel() -> None:
    release = threading.Event()
    seen: list[bytes] = []

    def slow(deliveries: tuple[Delivery, ...]) -> None:
        seen.extend(d.body for d in deliveries)
        release.wait(10)

    connection = FakeConnection()
    consumer = Subscription(connection, "q", slow)  # type: ignore[arg-type]  # a double
    channel = connection.open()
    channel.deliver(1, b"first")
    until(lambda: bool(seen))
    channel.deliver(2, b"waits")
    connection.lose()
    release.set()
    connection.open().deliver(1, b"waits, again")
    until(lambda: len(seen) == 2)
    assert seen == [b"first", b"waits, again"]
    consumer.stop(0.1)


ANSWERS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["ack", "reject", "requeue", "give back"]), st.integers(0, 11)),
        st.just(("turn", 0)),
        st.just(("fire", 0)),
    ),
    max_size=60,
)


def answered_at_the_broker(sent: list[tuple[Any, ...]], tags: set[int]) -> dict[int, Answer]:
    """What a broker would take each delivery for; it would close the channel over an answer to nothing."""
    answers: dict[int, Answer] = {}
    for kind, tag, *rest in (s for s in sent if s[0] in ("ack", "reject", "give back")):
        hit = {t for t in tags - set(answers) if t <= tag} if kind == "ack" and rest[0] else {tag}
        assert tag in hit
        assert not hit & set(answers), "answered twice"
        told = {"ack": Answer.ACK, "give back": Answer.REQUEUE}.get(kind)
        answers |= dict.fromkeys(hit, told or (Answer.REJECT_REQUEUE if rest[0] else Answer.REJECT))
    return answers


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), ANSWERS)
def test_in_whatever_order_deliveries_are_answered_the_broker_hears_each_answer_once_and_no_other(
    count: int, moves: list[tuple[str, int]]
) -> None:
    connection, _, hand = made(prefetch=12)
    channel = delivered(connection, hand, count)
    for move, index in moves:
        delivery = hand.got[index % count]
        if move == "turn":
            connection.turn()
        elif move == "fire":
            fire(channel)
        elif move == "ack":
            delivery.ack()
        elif move == "give back":
            delivery.requeue()
        else:
            delivery.reject(requeue=move == "requeue")
    connection.turn()
    fire(channel)
    told = answered_at_the_broker(channel.sent, set(range(1, count + 1)))
    assert told == {n: d.answer for n, d in enumerate(hand.got, 1) if d.answer is not None}
    connection.end()


def test_with_few_allowed_unanswered_an_ack_goes_at_once() -> None:
    connection, consumer, hand = made(prefetch=1)
    channel = delivered(connection, hand, 1)
    hand.got[0].ack()
    connection.turn()
    assert ("ack", 1, True) in channel.sent
    consumer.stop(0.1)


def test_a_second_cancel_by_the_broker_leads_to_one_subscription_more() -> None:
    connection, consumer, _ = made()
    channel = connection.open()
    heard = []
    for _ in range(2):
        # The channel keeps telling every subscription that it ever had.
        assert channel.cancelled is not None
        heard.append(channel.cancelled)
        for cancelled in heard:
            cancelled()
    assert [s[0] for s in channel.sent].count("consume") == 3
    consumer.stop(0.1)


def test_a_handler_that_wants_to_end_gives_back_and_ends_the_consumer() -> None:
    def leaves(_deliveries: tuple[Delivery, ...]) -> None:
        raise SystemExit(3)

    connection = FakeConnection()
    ends: list[DmqError] = []
    consumer = Subscription(connection, "q", leaves, on_end=ends.append)  # type: ignore[arg-type]  # a double
    channel = connection.open()
    channel.deliver(1)
    until(lambda: bool(ends))
    connection.turn()
    assert ("give back", 1) in channel.sent
    with pytest.raises(MessagingError, match="ended: SystemExit"):
        consumer.wait_consuming(0.1)


def test_leaving_tells_how_many_deliveries_had_no_answer() -> None:
    connection, consumer, hand = made()
    channel = delivered(connection, hand, 3)
    hand.got[1].ack()
    consumer.cancel()
    leaver = threading.Thread(target=lambda: left.append(consumer.leave(10)))
    left: list[int] = []
    leaver.start()
    turn_until(connection, lambda: bool(left))
    leaver.join(10)
    assert left == [2]
    assert ("ack", 2, False) in channel.sent


def test_stop_lets_the_handler_finish_and_sends_its_acks() -> None:
    connection = FakeConnection()

    def slow(deliveries: tuple[Delivery, ...]) -> None:
        time.sleep(0.1)
        for delivery in deliveries:
            delivery.ack()

    consumer = Subscription(connection, "q", slow)  # type: ignore[arg-type]  # a double
    channel = connection.open()
    channel.deliver(1)
    stopper = threading.Thread(target=consumer.stop)
    stopper.start()
    turn_until(connection, lambda: not stopper.is_alive())
    assert ("ack", 1, True) in channel.sent
    assert not any(t.name == "consume q" for t in threading.enumerate())


def test_the_end_of_the_connection_ends_the_thread_and_says_why() -> None:
    connection, consumer, _ = made()
    connection.open()
    connection.end(MessagingError("refused"))
    with pytest.raises(MessagingError, match="refused"):
        consumer.wait_consuming(0.1)
    until(lambda: not any(t.name == "consume q" for t in threading.enumerate()))


def test_waiting_for_a_consumer_that_does_not_come_says_what_is_wrong() -> None:
    _, consumer, _ = made()
    with pytest.raises(MessagingError, match="no node answers"):
        consumer.wait_consuming(0.01)
    consumer.stop(0.1)
