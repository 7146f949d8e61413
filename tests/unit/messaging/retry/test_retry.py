"""Retry paths with a producer and deliveries that do what a test says; tests/cluster/test_retry_paths.py has nodes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.errors import DmqError, InvalidInputError, MessagingError
from dmq_core.messaging.amqp.validation import plain_headers
from dmq_core.messaging.delivery.delivery import Answer
from dmq_core.messaging.messages import MessageProperties, Outcome, PublishResult
from dmq_core.messaging.retry.delayed import Retry
from dmq_core.messaging.retry.forwarding import LONGEST_PAUSE_S, LOOK_S, Forward, Forwarder, pause_s
from dmq_core.messaging.retry.headers import Failure, attempts_before, bounded, properties_of_copy
from dmq_core.messaging.retry.plan import Mode, chosen_mode, policy
from dmq_core.messaging.topology.lint import judge
from dmq_core.messaging.topology.model import Queue
from dmq_core.versions import Version

V310, V40, V43 = Version(3, 10, 8), Version(4, 0, 5), Version(4, 3, 6)
WORK = Queue("work", "quorum")
IN_VAIN = (Outcome.NACKED, Outcome.RETURNED, Outcome.UNKNOWN, Outcome.NOT_SENT)


@dataclass(eq=False)
class FakeDelivery:
    """A delivery that remembers what it was answered."""

    properties: MessageProperties = field(default_factory=MessageProperties)
    body: bytes = b"body"
    queue: str = "work"
    exchange: str = "orders"
    routing_key: str = "order.new"
    attempts: int = 1
    is_current: bool = True
    answer: Answer | None = None
    offset: int | None = None

    def ack(self) -> bool:
        return self._answered(Answer.ACK)

    def reject(self, requeue: bool = False) -> bool:
        return self._answered(Answer.REJECT_REQUEUE if requeue else Answer.REJECT)

    def _answered(self, answer: Answer) -> bool:
        if not self.is_current or self.answer is not None:
            return False
        self.answer = answer
        return True


@dataclass(eq=False)
class FakeFuture:
    target: str
    properties: MessageProperties
    ended: PublishResult | None = None

    def done(self) -> bool:
        return self.ended is not None

    def result(self, _timeout: float = 0.0) -> PublishResult:
        assert self.ended is not None
        return self.ended


class FakeProducer:
    """Takes copies, or fails to, and lets a test say how each ends."""

    def __init__(self) -> None:
        self.handles: list[FakeFuture] = []
        self.error: DmqError | None = None
        self.tell: Any = None
        self.opened = 0

    def open(self, tell: Any) -> Any:
        assert all(handle.done() for handle in self.handles)
        self.tell = tell
        self.opened += 1
        return self

    def close(self, _timeout_s: float) -> None:
        """What is open stays so."""

    def send(
        self, exchange: str, key: str, _body: bytes, properties: MessageProperties, mandatory: bool, _room_s: Any
    ) -> Any:
        assert (exchange, mandatory) == ("", True)
        if self.error is not None:
            raise self.error
        plain_headers(properties.headers)
        self.handles.append(FakeFuture(key, properties))
        return self.handles[-1]

    def result_or_give_up(self, handle: Any, _timeout_s: float) -> PublishResult:
        return self.end(handle, Outcome.NOT_SENT)

    def end(self, handle: FakeFuture, outcome: Outcome) -> PublishResult:
        if not handle.done():
            handle.ended = PublishResult(outcome, reason="as the test says")
            self.tell(handle)
        return handle.result()


class Stage:
    """A forwarder whose time a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.producer = FakeProducer()
        self.forwarder = Forwarder(self.producer.open, lambda: self.now, lambda: None)

    def take(self, delivery: FakeDelivery) -> Forward:
        forward = Forward(delivery, "work.parked", MessageProperties())  # type: ignore[arg-type]
        self.forwarder.take(forward)
        self.forwarder.turn()
        return forward

    def end(self, outcome: Outcome) -> None:
        self.producer.end(self.producer.handles[-1], outcome)
        self.forwarder.turn()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + max(0.001, self.forwarder.turn()))
        self.forwarder.turn()


# Which way, and what it needs at the broker.


@pytest.mark.parametrize(
    ("mode", "delays", "queue", "version", "serves"),
    [
        ("auto", (1, 5, 30), WORK, V43, Mode.LADDER),
        ("auto", (1, 2, 3), WORK, V43, Mode.NATIVE),
        ("auto", (2, 2), WORK, V43, Mode.NATIVE),
        ("auto", (1, 2, 2), WORK, V43, Mode.NATIVE),
        ("auto", (1, 2, 3), WORK, V40, Mode.LADDER),
        ("auto", (1, 2, 3), Queue("work", "classic"), V43, Mode.LADDER),
        ("auto", (1, 2, 3), Queue("work"), V43, Mode.LADDER),
        ("native", (1, 5, 30), WORK, V43, Mode.NATIVE),
        ("native", (1, 5, 30), WORK, V310, Mode.LADDER),
        ("native", (1, 2), Queue("work", "quorum", adopt=True), V43, Mode.LADDER),
        ("ladder", (1, 2, 3), WORK, V43, Mode.LADDER),
        ("in place", (1, 5), WORK, V310, Mode.IN_PLACE),
    ],
)
def test_the_queue_itself_waits_only_where_it_can_keep_the_delays(
    mode: str, delays: tuple[float, ...], queue: Queue, version: Version, serves: Mode
) -> None:
    assert chosen_mode(Mode(mode), policy(delays, None), queue, version) is serves


@pytest.mark.parametrize("version", [V310, V40, V43])
@pytest.mark.parametrize("mode", ["ladder", "native", "in place"])
def test_what_a_retry_declares_is_beyond_reproach(mode: str, version: Version) -> None:
    plan = Retry((0.2, 0.5), mode=mode).prepare(WORK, version)
    assert judge((*plan.entities, Queue("work", "quorum", arguments=plan.arguments)), version) == ()


def test_a_ladder_has_a_queue_for_each_delay_that_is_used_and_one_to_park_in() -> None:
    plan = Retry((1, 5, 1, 30), attempts=3).prepare(WORK, V40)
    names = [e.name for e in plan.entities if isinstance(e, Queue)]
    assert names == ["work.retry.1000", "work.retry.5000", "work.parked"]
    first = plan.entities[0]
    assert isinstance(first, Queue)
    assert first.arguments == {
        "x-message-ttl": 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "work",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert plan.arguments["x-dead-letter-routing-key"] == "work.parked", "never a queue that returns to it"


def test_native_delays_are_arguments_of_the_queue() -> None:
    plan = Retry((0.5, 1, 1.5), mode="native").prepare(WORK, V43)
    delayed = {key: value for key, value in plan.arguments.items() if "delayed" in key}
    assert delayed == {
        "x-delayed-retry-type": "failed", "x-delayed-retry-min": 500, "x-delayed-retry-max": 1500,
    }  # fmt: skip
    assert [e.name for e in plan.entities if isinstance(e, Queue)] == ["work.parked"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Retry(()),
        lambda: Retry((0.0,)),
        lambda: Retry((-1.0,)),
        lambda: Retry((float("nan"),)),
        lambda: Retry((1.0,), attempts=0),
        lambda: Retry(mode="sideways"),
        lambda: Retry(mode="in place").prepare(Queue("work", "classic"), V43),
        lambda: Retry(mode="ladder").prepare(Queue("work", "stream"), V43),
        lambda: Retry(parking=False).prepare(Queue("work", "stream"), V43),
        lambda: Retry().prepare(Queue("w" * 250, "quorum"), V43),
        lambda: Retry(parking=False).prepare(WORK, V43),
    ],
)
def test_what_makes_no_sense_or_would_lose_messages_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(InvalidInputError):
        wrong()


# The copy.


def copy(
    properties: MessageProperties, attempts: int = 1, *, parked: bool = False, why: str = "boom"
) -> MessageProperties:
    return properties_of_copy(
        properties, "orders", "order.new", "work", Failure(attempts, 1.0, 2.5, why), parked=parked
    )


def test_a_copy_keeps_every_property_and_tells_of_the_failure() -> None:
    original = MessageProperties(
        "text/plain", "utf-8", 1, 5, "c", "r", None, "m", 7, "t", None, "a", {"mine": [1, {"x": None}]}
    )
    told = copy(original)
    headers = dict(told.headers)
    assert headers == {
        "mine": [1, {"x": None}],
        "x-dmq-attempts": 1,
        "x-dmq-first-failure": "1970-01-01T00:00:01.000+00:00",
        "x-dmq-last-failure": "1970-01-01T00:00:02.500+00:00",
        "x-dmq-error": "boom",
        "x-dmq-queue": "work",
        "x-dmq-exchange": "orders",
        "x-dmq-routing-key": "order.new",
    }
    assert MessageProperties(**{**_fields(told), "headers": original.headers}) == original


def _fields(properties: MessageProperties) -> dict[str, Any]:
    return {name: getattr(properties, name) for name in MessageProperties.__dataclass_fields__}


def test_a_later_copy_keeps_the_first_failure_and_where_the_message_came_from() -> None:
    first = copy(MessageProperties())
    later = properties_of_copy(first, "", "work", "work", Failure(2, 9.0, 9.0, "again"), parked=True)
    assert later.headers["x-dmq-first-failure"] == "1970-01-01T00:00:01.000+00:00"
    assert (later.headers["x-dmq-exchange"], later.headers["x-dmq-routing-key"]) == ("orders", "order.new")
    assert (later.headers["x-dmq-attempts"], later.headers["x-dmq-parked"]) == (2, True)


def test_what_would_send_a_copy_astray_moves_into_headers_of_ours() -> None:
    told = copy(MessageProperties(expiration=5, user_id="shop", headers={"CC": ["elsewhere"], "x-death": [{}]}))
    assert (told.expiration, told.user_id) == (None, None)
    assert "CC" not in told.headers
    assert "x-death" not in told.headers, "RabbitMQ 3 would take the way back for a circle"
    assert told.headers["x-dmq-cc"] == ["elsewhere"]
    assert (told.headers["x-dmq-expiration"], told.headers["x-dmq-user-id"]) == (5, "shop")


def test_a_parked_message_that_comes_back_starts_anew() -> None:
    parked = copy(MessageProperties(), attempts=4, parked=True)
    assert attempts_before(parked.headers) == 0
    again = properties_of_copy(parked, "", "work", "work", Failure(1, 50.0, 50.0, "boom"), parked=False)
    assert again.headers["x-dmq-first-failure"] == "1970-01-01T00:00:50.000+00:00"
    assert attempts_before(again.headers) == 1


@given(st.text(max_size=2000))
def test_errors_are_visible_and_bounded(text: str) -> None:
    shown = bounded(text)
    assert len(shown.encode()) <= 500
    assert bounded(shown, 10_000) == shown


odd = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(), st.binary(), st.just(object())
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=60), odd, max_size=5))
def test_a_copy_can_be_sent_whatever_the_headers_are(headers: dict[str, object]) -> None:
    plain_headers(copy(MessageProperties(headers=headers)).headers)


@pytest.mark.parametrize("forged", [-1, 0, True, "3", None, 2.0])
def test_a_forged_count_counts_for_nothing(forged: object) -> None:
    assert attempts_before({"x-dmq-attempts": forged}) == 0


# Handing on.


def test_nothing_is_acknowledged_before_its_copy_is_confirmed() -> None:
    stage, delivery = Stage(), FakeDelivery()
    forward = stage.take(delivery)
    stage.pass_time(60)
    assert delivery.answer is None
    stage.end(Outcome.CONFIRMED)
    assert delivery.answer is Answer.ACK
    assert forward.over.is_set()
    assert stage.forwarder.left == 0


@pytest.mark.parametrize("outcome", IN_VAIN)
def test_a_copy_that_is_not_taken_is_tried_again_but_not_hotly(outcome: Outcome) -> None:
    stage, delivery = Stage(), FakeDelivery()
    stage.take(delivery)
    while stage.now < 60:
        if not stage.producer.handles[-1].done():
            stage.end(outcome)
        stage.pass_time(0.05)
    assert 12 <= len(stage.producer.handles) <= 35, "0.1 s doubling up to 5 s, half of it by chance"
    assert delivery.answer is None
    stage.pass_time(LONGEST_PAUSE_S)
    stage.end(Outcome.CONFIRMED)
    assert delivery.answer is Answer.ACK


def test_a_stale_delivery_is_let_go_and_its_copy_held_back() -> None:
    stage, delivery = Stage(), FakeDelivery()
    forward = stage.take(delivery)
    delivery.is_current = False
    stage.pass_time(2 * LOOK_S)
    assert stage.producer.handles[0].result() == PublishResult(Outcome.NOT_SENT, reason="as the test says")
    stage.pass_time(10)
    assert (len(stage.producer.handles), delivery.answer, stage.forwarder.left) == (1, None, 0)
    assert forward.over.is_set()


def test_a_closed_producer_is_asked_again_and_an_unsendable_copy_goes_back_to_its_queue() -> None:
    stage, delivery = Stage(), FakeDelivery()
    stage.producer.error = MessagingError("the connection is closed")
    stage.take(delivery)
    assert (delivery.answer, stage.forwarder.left) == (None, 1)
    stage.producer.error = InvalidInputError("the headers take 1 GB")
    stage.pass_time(1)
    assert (delivery.answer, stage.forwarder.left) == (Answer.REJECT_REQUEUE, 0)


def test_a_channel_that_refuses_stubbornly_is_left_for_a_fresh_one_but_not_at_each_refusal() -> None:
    stage = Stage()
    stage.take(FakeDelivery())
    while stage.now < 60:
        if not stage.producer.handles[-1].done():
            stage.end(Outcome.NACKED)
        stage.pass_time(0.05)
    assert 10 <= stage.producer.opened <= len(stage.producer.handles) - 1
    returned = Stage()
    returned.take(FakeDelivery())
    for _ in range(10):
        returned.end(Outcome.RETURNED)
        returned.pass_time(LONGEST_PAUSE_S)
    assert returned.producer.opened == 1, "another channel would not find the queue either"


def test_pauses_double_up_to_five_seconds() -> None:
    longest = [pause_s(tries, lambda _low, high: high) for tries in range(1, 9)]
    assert longest == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert pause_s(9999, lambda low, _high: low) == 2.5


@given(st.lists(st.lists(st.sampled_from((*IN_VAIN, "stale", "slow")), max_size=6), min_size=1, max_size=5))
def test_whatever_happens_exactly_the_confirmed_are_acknowledged(fates: list[list[Outcome | str]]) -> None:
    stage = Stage()
    deliveries = [FakeDelivery(MessageProperties(message_id=str(n))) for n in range(len(fates))]
    for delivery, fate in zip(deliveries, fates, strict=True):
        handles = len(stage.producer.handles)
        stage.take(delivery)
        for step in fate:
            if step == "stale":
                delivery.is_current = False
            elif step == "slow":
                stage.pass_time(1.0)
            elif handles < len(stage.producer.handles):
                handle = stage.producer.handles[-1]
                stage.producer.end(handle, Outcome(step))
                stage.forwarder.turn()
                assert delivery.answer is None
            stage.pass_time(LONGEST_PAUSE_S)
        if not stage.producer.handles[-1].done() and delivery.is_current:
            stage.end(Outcome.CONFIRMED)
            assert delivery.answer is Answer.ACK
        else:
            assert not delivery.is_current
            assert delivery.answer is None
    stage.pass_time(LONGEST_PAUSE_S)
    assert stage.forwarder.left == 0


# The path itself.


class FakeThread:
    """Stands in for the thread that hands on."""

    def __init__(self) -> None:
        self.forwarder = self
        self.forwards: list[Forward] = []

    def take(self, forward: Forward) -> None:
        self.forwards.append(forward)

    def close(self, _timeout_s: float) -> int:
        return 0


def bound(retry: Retry, queue: Queue = WORK, version: Version = V40) -> tuple[Retry, FakeThread]:
    retry.prepare(queue, version)
    thread = FakeThread()
    retry._thread = thread  # type: ignore[assignment]
    return retry, thread


@given(st.lists(st.sampled_from([0.1, 0.2, 5.0]), min_size=1, max_size=4), st.integers(1, 7) | st.none())
def test_a_message_is_tried_as_often_as_agreed_climbs_the_ladder_and_is_parked(
    delays: list[float], attempts: int | None
) -> None:
    retry, thread = bound(Retry(delays, attempts, mode="ladder"))
    declared = {e.name for e in retry.prepare(WORK, V40).entities if isinstance(e, Queue)}
    delivery = FakeDelivery()
    wanted = len(delays) + 1 if attempts is None else attempts
    for n in range(1, wanted + 1):
        retry.failed(delivery, "boom")  # type: ignore[arg-type]
        forward = thread.forwards[-1]
        assert forward.target in declared
        assert forward.properties.headers["x-dmq-attempts"] == n
        if n < wanted:
            assert forward.target == f"work.retry.{round(delays[min(n, len(delays)) - 1] * 1000)}"
        delivery = FakeDelivery(forward.properties, exchange="", routing_key="work")
    assert thread.forwards[-1].target == "work.parked"
    assert delivery.properties.headers["x-dmq-exchange"] == "orders"


def test_natively_the_queue_counts_and_only_the_last_failure_makes_a_copy() -> None:
    retry, thread = bound(Retry((1, 2), mode="native"), version=V43)
    message = MessageProperties(message_id="m")
    first, second, third = (FakeDelivery(message, attempts=n) for n in (1, 2, 3))
    for delivery in (first, second, third):
        retry.failed(delivery, "boom")  # type: ignore[arg-type]
    assert [first.answer, second.answer, third.answer] == [Answer.REJECT_REQUEUE, Answer.REJECT_REQUEUE, None]
    (forward,) = thread.forwards
    assert (forward.target, forward.properties.headers["x-dmq-attempts"]) == ("work.parked", 3)
    assert forward.properties.headers["x-dmq-first-failure"] <= forward.properties.headers["x-dmq-last-failure"]  # type: ignore[operator]


def test_without_parking_the_last_failure_dead_letters() -> None:
    own = Queue("work", "quorum", arguments={"x-dead-letter-exchange": "dlx"})
    retry, thread = bound(Retry((1,), attempts=1, parking=False), own)
    delivery = FakeDelivery()
    retry.failed(delivery, "boom")  # type: ignore[arg-type]
    assert (delivery.answer, thread.forwards) == (Answer.REJECT, [])


def test_in_place_the_worker_waits_and_then_gives_back_counted() -> None:
    retry, _ = bound(Retry((0.05,), mode="in place"))
    assert retry.keeps_order
    assert not Retry().keeps_order
    delivery = FakeDelivery()
    retry.failed(delivery, "boom")  # type: ignore[arg-type]
    assert delivery.answer is Answer.REJECT_REQUEUE


def test_in_place_a_stale_delivery_or_the_end_of_the_path_ends_the_wait() -> None:
    retry, _ = bound(Retry((30.0,), mode="in place"))
    stale, open_one = FakeDelivery(is_current=False), FakeDelivery()
    retry.failed(stale, "boom")  # type: ignore[arg-type]
    worker = threading.Thread(target=retry.failed, args=(open_one, "boom"))
    worker.start()
    retry.close(1.0)
    worker.join(5)
    assert not worker.is_alive()
    assert (stale.answer, open_one.answer) == (None, None), "the broker delivers them again with their channel"


def test_a_path_without_a_consumer_says_so() -> None:
    with pytest.raises(MessagingError, match="bound to no consumer"):
        Retry().failed(FakeDelivery(), "boom")  # type: ignore[arg-type]
