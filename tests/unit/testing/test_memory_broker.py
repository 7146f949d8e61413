"""The in-memory broker: its time moves only when told to, and its faults do to clients what real ones do."""

from __future__ import annotations

import doctest
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import InvalidInputError, MessagingError, OperationTimeoutError
from dmq_core.messaging.amqp.frames import decode_properties
from dmq_core.messaging.amqp.tables import encoded_table
from dmq_core.messaging.amqp.wire import MessageEncoder, own_id
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.states import ConnectionState
from dmq_core.messaging.connection.topology_commands import declare, queue_depth
from dmq_core.messaging.consuming.subscription import Subscription, SubscriptionOptions
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, SeenMessage
from dmq_core.messaging.publishing.producers import DirectProducer
from dmq_core.messaging.publishing.publish_future import PublishFuture
from dmq_core.messaging.publishing.publisher import ProducerLimits, Publisher
from dmq_core.messaging.tap.source import TailSource
from dmq_core.messaging.tap.tap import Tap
from dmq_core.messaging.topology.model import Queue
from dmq_core.testing import MemoryBroker
from dmq_core.testing.memory import broker as broker_module
from dmq_core.testing.memory.clock import MemoryClock, MemoryLoop
from dmq_core.testing.memory.message import respliced
from dmq_core.testing.memory.wire import read_publish

NOTHING = MessageProperties()


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    with MemoryBroker(nodes=3) as made:
        yield made


class Hand:
    """A consumer that keeps what comes, and answers it if told to."""

    def __init__(
        self, connection: Connection, queue: str, *, ack: bool = False, declare: tuple[Queue, ...] = ()
    ) -> None:
        self.came: list[Delivery] = []
        self.ack = ack
        self.changes: list[bool] = []
        self.consumer = Subscription(
            connection,
            queue,
            self._note,
            SubscriptionOptions(declare=declare),
            on_change=lambda s: self.changes.append(s.consuming),
        )

    def _note(self, deliveries: tuple[Delivery, ...]) -> None:
        for delivery in deliveries:
            self.came.append(delivery)
            if self.ack:
                delivery.ack()

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.came]


def at(broker: MemoryBroker, node: int, name: str) -> Connection:
    """A connection that goes to the node of that number first."""
    ends = broker.endpoints
    return broker.connection(name, endpoints=(*ends[node - 1 :], *ends[: node - 1]))


def publish(
    producer: Publisher, queue: str, body: bytes = b"x", properties: MessageProperties = NOTHING
) -> PublishFuture:
    return producer.publish(OutgoingMessage("", queue, body, properties))


def outcome(handle: PublishFuture) -> Outcome | None:
    return None if not handle.done() else handle.result().outcome


# Time.


def test_the_example_of_its_docstring_runs() -> None:
    results = doctest.testmod(broker_module)
    assert (results.failed, results.attempted > 0) == (0, True)


def test_nothing_happens_by_itself(broker: MemoryBroker) -> None:
    connection = broker.connection("c")
    declare(connection, [Queue("q", "quorum", arguments={"x-message-ttl": 1})])
    publish(Publisher(connection), "q")
    assert broker.depth("q").ready == 1
    broker.advance(0.0005)
    assert broker.depth("q").ready == 1
    broker.advance(0.001)
    assert broker.depth("q").ready == 0


class _Owner:
    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.at_work = False

    def crashed(self, error: Exception) -> None:
        self.errors.append(error)

    def busy(self) -> bool:
        return self.at_work


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(0, 35))
def test_timers_go_off_in_their_order_each_at_its_time(delays: list[int], until: int) -> None:
    clock = MemoryClock()
    loop: MemoryLoop = clock.loop(_Owner())
    thread = threading.Thread(target=loop.run)
    thread.start()
    began, fired = clock.now, []
    for number, delay in enumerate(delays):
        loop.call_later(delay, lambda n=number, d=delay: fired.append((d, n, clock.now - began)))
    clock.advance(until)
    loop.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert [(d, n) for d, n, _ in fired] == sorted((d, n) for n, d in enumerate(delays) if d <= until)
    assert all(d == moment for d, _, moment in fired)
    assert clock.now == began + until


def test_a_callback_that_fails_is_told_and_harms_no_other() -> None:
    clock, owner, called = MemoryClock(), _Owner(), []
    loop = clock.loop(owner)
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.call_soon(lambda: 1 / 0)  # type: ignore[arg-type,return-value]  # it never returns
    loop.call_soon(lambda: called.append(1))
    cancel = loop.call_later(0, lambda: called.append(2))
    cancel()
    clock.settle()
    loop.stop()
    thread.join(10)
    assert [type(error) for error in owner.errors] == [ZeroDivisionError]
    assert 1 in called
    assert not loop.call_soon(lambda: None)


def test_settling_waits_for_handlers_and_not_for_ever() -> None:
    clock, owner = MemoryClock(), _Owner()
    clock.loop(owner)
    owner.at_work = True
    with pytest.raises(OperationTimeoutError, match="still something to do"):
        clock.settle(0.05)
    threading.Timer(0.1, lambda: setattr(owner, "at_work", False)).start()
    clock.settle(10)
    with clock.turn(), pytest.raises(MessagingError, match="cannot wait"):
        clock.settle()


def test_settling_lets_a_slow_handler_finish(broker: MemoryBroker) -> None:
    connection, done = broker.connection("c"), []

    def handle(deliveries: tuple[Delivery, ...]) -> None:
        threading.Event().wait(0.05)
        done.extend(deliveries)

    declare(connection, [Queue("q", "quorum")])
    Subscription(connection, "q", handle).wait_consuming()
    publish(Publisher(connection), "q")
    broker.settle()
    assert len(done) == 1


def story() -> list[tuple[str, str]]:
    """What three connections live through when a node dies, in order."""
    told: list[tuple[str, str]] = []
    with MemoryBroker(nodes=3) as broker:
        for name in ("a", "b", "c"):
            connection = broker.connection(name, on_change=lambda s, name=name: told.append((name, s.state)))
            declare(connection, [Queue(name, "quorum")])
        broker.kill("rmq1")
        broker.advance(5)
        for name in ("a", "b", "c"):
            broker.close_connection(name)
        broker.advance(5)
    return told


def test_the_same_story_is_told_every_time() -> None:
    first = story()
    assert ("b", ConnectionState.RECOVERING) in first
    assert all(story() == first for _ in range(5))


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    for _ in range(20):
        with MemoryBroker() as broker:
            connection = broker.connection("c")
            declare(connection, [Queue("q", "quorum")])
            hand = Hand(connection, "q", ack=True)
            Publisher(connection).publish_and_wait(OutgoingMessage("", "q", b"x"))
            broker.settle()
            hand.consumer.stop()
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]


def test_closing_at_a_frozen_node_does_not_wait_for_it(broker: MemoryBroker) -> None:
    connection = broker.connection("c")
    connection.wait_open()
    broker.freeze("rmq1")
    began = time.monotonic()
    connection.close()
    assert time.monotonic() - began < 2
    assert connection.status.state is ConnectionState.CLOSED


# Nodes that die.


def test_a_killed_node_takes_its_connections_and_what_they_held_comes_again(broker: MemoryBroker) -> None:
    connection = broker.connection("c")
    declare(connection, [Queue("q", "quorum")])
    hand = Hand(connection, "q")
    producer = Publisher(connection)
    assert producer.publish_and_wait(OutgoingMessage("", "q", b"x")).outcome is Outcome.CONFIRMED
    broker.settle()
    broker.kill("rmq1")
    broker.advance(0.1)
    assert connection.status.endpoint == broker.endpoints[1]
    assert (connection.status.state, connection.status.epoch) == (ConnectionState.OPEN, 2)
    assert hand.bodies == [b"x"], "the queue waits for the consumer of a node that is gone"
    assert not hand.came[0].ack(), "the channel that brought it is gone"
    broker.advance(2)
    assert hand.bodies == [b"x", b"x"]
    assert [d.redelivered for d in hand.came] == [False, True]


def test_what_is_published_during_an_election_is_confirmed_after_it(broker: MemoryBroker) -> None:
    connection = at(broker, 2, "c")
    declare(at(broker, 1, "other"), [Queue("q", "quorum")])
    producer = Publisher(connection)
    assert producer.publish_and_wait(OutgoingMessage("", "q", b"0")).outcome is Outcome.CONFIRMED
    broker.kill("rmq1")
    handle = publish(producer, "q")
    broker.settle()
    assert outcome(handle) is None
    assert queue_depth(connection, "q") is not None
    broker.advance(0.6)
    assert outcome(handle) is Outcome.CONFIRMED
    assert broker.depth("q").ready == 2


def test_without_a_majority_nothing_is_confirmed_or_declared_until_it_is_back(broker: MemoryBroker) -> None:
    connection = at(broker, 3, "c")
    declare(connection, [Queue("q", "quorum")])
    producer = Publisher(connection, ProducerLimits(confirm_s=60))
    broker.kill("rmq1")
    broker.kill("rmq2")
    broker.advance(1)
    handle = publish(producer, "q")
    with pytest.raises(OperationTimeoutError):
        declare(connection, [Queue("new", "quorum")], timeout_s=0.1)
    broker.advance(1)
    assert outcome(handle) is None
    broker.start("rmq1")
    broker.advance(1)
    assert outcome(handle) is Outcome.CONFIRMED
    declare(connection, [Queue("new", "quorum")])


def test_a_classic_queue_goes_down_with_its_node_and_comes_back_with_what_was_persistent(broker: MemoryBroker) -> None:
    home, away = at(broker, 1, "home"), at(broker, 2, "away")
    declare(home, [Queue("q", "classic")])
    producer = Publisher(away)
    for mode in (1, 2):
        publish(producer, "q", b"%d" % mode, MessageProperties(delivery_mode=mode))
    hand = Hand(away, "q", ack=False)
    broker.settle()
    broker.kill("rmq1")
    broker.settle()
    with pytest.raises(OperationTimeoutError):
        declare(away, [Queue("q", "classic")], timeout_s=0.1)
    assert "home node 'rabbit@rmq1' of durable queue 'q' in vhost '/' is down or inaccessible" in (
        hand.consumer.status.problem
    )
    assert producer.publish_and_wait(OutgoingMessage("", "q", b"3")).outcome is Outcome.NACKED
    broker.start("rmq1")
    broker.advance(10)
    assert hand.bodies == [b"1", b"2", b"2"]
    assert hand.came[-1].redelivered


# Nodes that freeze.


def test_a_frozen_node_is_left_and_what_was_sent_to_it_may_still_arrive(broker: MemoryBroker) -> None:
    connection = at(broker, 1, "c")
    declare(at(broker, 2, "other"), [Queue("q", "quorum"), Queue("r", "quorum")])
    producer = Publisher(connection)
    assert producer.publish_and_wait(OutgoingMessage("", "r", b"0")).outcome is Outcome.CONFIRMED
    broker.freeze("rmq1")
    handle = publish(producer, "r")
    broker.settle()
    assert outcome(handle) is None
    broker.advance(4)
    assert outcome(handle) is Outcome.UNKNOWN
    assert connection.status.endpoint == broker.endpoints[1]
    assert broker.depth("r").ready == 1
    broker.thaw("rmq1")
    assert broker.depth("r").ready == 2


def test_an_idle_connection_leaves_a_frozen_node_too(broker: MemoryBroker) -> None:
    connection = broker.connection("c")
    connection.wait_open()
    broker.advance(30)
    assert connection.status.epoch == 1, "a quiet node that answers is not left"
    broker.freeze("rmq1")
    broker.advance(4)
    assert connection.status.endpoint == broker.endpoints[1]


def test_what_the_consumers_of_a_frozen_node_held_goes_to_others_once_it_is_given_up(broker: MemoryBroker) -> None:
    declare(at(broker, 2, "maker"), [Queue("q", "quorum")])
    frozen = Hand(broker.connection("only", endpoints=broker.endpoints[:1]), "q")
    frozen.consumer.wait_consuming()
    publish(Publisher(at(broker, 2, "p")), "q")
    broker.settle()
    broker.freeze("rmq1")
    other = Hand(at(broker, 3, "other"), "q")
    broker.advance(4)
    assert other.bodies == []
    broker.advance(2)
    assert other.bodies == [b"x"]
    assert not frozen.came[0].is_current


def test_a_frozen_node_lets_nobody_in_and_one_that_thaws_does(broker: MemoryBroker) -> None:
    broker.freeze("rmq1")
    connection = broker.connection("c", endpoints=broker.endpoints[:1])
    connection.start()
    broker.advance(2)
    assert connection.status.state is ConnectionState.CONNECTING
    broker.thaw("rmq1")
    broker.settle()
    assert connection.status.state is ConnectionState.OPEN


# Faults of other kinds.


def test_an_alarm_blocks_who_publishes_and_nobody_else(broker: MemoryBroker) -> None:
    out, back = broker.connection("out"), broker.connection("back")
    declare(out, [Queue("q", "quorum")])
    producer, hand = Publisher(out), Hand(back, "q", ack=True)
    broker.alarm(True)
    first = publish(producer, "q", b"1")
    broker.settle()
    assert out.status.state is ConnectionState.BLOCKED
    assert "low on memory" in out.status.problem
    second = publish(producer, "q", b"2")
    broker.advance(60)
    assert (outcome(first), outcome(second)) == (None, None)
    assert back.status.state is ConnectionState.OPEN
    assert hand.bodies == []
    broker.alarm(False)
    broker.settle()
    assert (outcome(first), outcome(second)) == (Outcome.CONFIRMED, Outcome.CONFIRMED)
    assert hand.bodies == [b"1", b"2"]
    assert out.status.epoch == 1


def test_a_program_that_an_alarm_blocks_can_still_declare(broker: MemoryBroker) -> None:
    declare(broker.connection("another program"), [Queue("q", "quorum")])
    with BrokerConnectionManager(network=broker.network) as manager:
        at = broker.endpoints[0]
        manager.register_broker(1, at.host, at.amqp_port)
        producer = DirectProducer(manager)
        broker.alarm(True)
        producer.publish("q", "a letter")
        broker.settle()
        out = manager.publishing()
        assert out.status.state is ConnectionState.BLOCKED
        manager.declare(Queue("r", "quorum"))
        assert "r" in broker.names()
        broker.alarm(False)
        producer.close()


def test_a_connection_that_the_broker_closes_comes_back(broker: MemoryBroker) -> None:
    connection = broker.connection("c")
    connection.wait_open()
    broker.close_connection("c")
    broker.advance(1)
    assert (connection.status.state, connection.status.epoch) == (ConnectionState.OPEN, 2)
    with pytest.raises(InvalidInputError, match="no connection is called 'd'"):
        broker.close_connection("d")


def test_lost_confirms_leave_the_outcome_unknown_though_the_message_is_there(broker: MemoryBroker) -> None:
    connection = broker.connection("c")
    declare(connection, [Queue("q", "quorum")])
    producer = Publisher(connection)
    broker.drop_confirms(True)
    handle = publish(producer, "q")
    broker.advance(5)
    assert outcome(handle) is Outcome.UNKNOWN
    assert broker.depth("q").ready == 1
    broker.drop_confirms(False)
    later = publish(producer, "q")
    broker.advance(5)
    assert outcome(later) is Outcome.CONFIRMED


def test_a_deleted_queue_is_told_and_declared_again_by_its_consumer(broker: MemoryBroker) -> None:
    spec = Queue("q", "quorum")
    hand = Hand(broker.connection("c"), "q", ack=True, declare=(spec,))
    hand.consumer.wait_consuming()
    broker.delete_queue("q")
    broker.settle()
    assert hand.changes == [True, False, True]
    assert broker.depth("q").consumers == 1
    with pytest.raises(InvalidInputError, match="no queue 'other'"):
        broker.delete_queue("other")


def test_a_dead_letter_that_nobody_takes_stays_and_is_handed_on_later(broker: MemoryBroker) -> None:
    connection = broker.connection("c")
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-message-ttl": 1000,
    }
    declare(connection, [Queue("q", "quorum", arguments=arguments)])
    publish(Publisher(connection), "q")
    broker.advance(2)
    declare(connection, [Queue("dead", "quorum")])
    assert (broker.depth("q").ready, broker.depth("dead").ready) == (0, 0)
    broker.advance(200)
    seen = broker.messages("dead")
    assert [m.body for m in seen] == [b"x"]
    assert seen[0].properties.headers["x-first-death-reason"] == "expired"


def test_a_node_that_is_not_there_is_no_riddle(broker: MemoryBroker) -> None:
    with pytest.raises(InvalidInputError, match="no node 'rmq9'"):
        broker.kill("rmq9")


# What is built on it.


def test_a_connection_manager_runs_on_it_and_finds_another_broker(broker: MemoryBroker) -> None:
    with BrokerConnectionManager(network=broker.network) as manager:
        for number, endpoint in enumerate(broker.endpoints, 1):
            manager.register_broker(number, endpoint.host, endpoint.amqp_port)
        manager.declare(Queue("q", "quorum"))
        assert str(manager.broker_version()) == "4.3.6"
        producer = Publisher(manager.publishing())
        hand = Hand(manager.consuming(), "q", ack=True)
        assert producer.publish_and_wait(OutgoingMessage("", "q", b"1")).outcome is Outcome.CONFIRMED
        broker.kill("rmq1")
        broker.advance(2)
        assert producer.publish_and_wait(OutgoingMessage("", "q", b"2")).outcome is Outcome.CONFIRMED
        broker.advance(2)
        assert b"2" in hand.bodies
        assert broker.depth("q").ready == 0
        hand.consumer.stop()


def test_a_tap_sees_what_goes_by(broker: MemoryBroker) -> None:
    connection, seen = broker.connection("c"), threading.Event()
    batches: list[SeenMessage] = []

    def note(batch: tuple[SeenMessage, ...]) -> None:
        batches.extend(batch)
        seen.set()

    declare(connection, [Queue("q", "quorum")])
    tap = Tap(connection, TailSource("amq.fanout"), note, exchange_type="fanout")
    tap.wait_ready()
    Publisher(connection).publish(OutgoingMessage("amq.fanout", "k", b"x"))
    assert seen.wait(10)
    assert [(m.exchange, m.routing_key, m.body) for m in batches] == [("amq.fanout", "k", b"x")]
    tap.close()
    broker.settle()


# Bytes.


@given(
    st.sampled_from([None, "text/plain"]),
    st.sampled_from([None, "utf-8"]),
    st.sampled_from([None, 7]),
    st.sampled_from([None, 1500]),
    st.sampled_from([None, "r"]),
    st.sampled_from([{}, {"a": 1}]),
    st.sampled_from([None, {}, {"b": ["x", 2]}]),
    st.booleans(),
)
def test_headers_and_expiration_are_exchanged_and_nothing_else(
    content_type: str | None,
    encoding: str | None,
    priority: int | None,
    expiration: int | None,
    reply_to: str | None,
    headers: dict[str, object],
    others: dict[str, object] | None,
    keep: bool,
) -> None:
    given_properties = MessageProperties(
        content_type=content_type,
        content_encoding=encoding,
        priority=priority,
        expiration=expiration,
        reply_to=reply_to,
        message_id="m",
        app_id="app",
        headers=headers,
    )
    frames = MessageEncoder(1, 300).encode("x", "k", b"body" * 200, given_properties, True, own_id(b"0123456789ab", 1))
    published = read_publish(frames)
    assert (published.exchange, published.routing_key, published.body, published.mandatory) == (
        "x",
        "k",
        b"body" * 200,
        True,
    )
    before = decode_properties(published.raw_properties)
    table = None if others is None else encoded_table(others) if others else b""
    after = decode_properties(respliced(published.raw_properties, table, keep_expiration=keep))
    assert dict(after.headers) == (dict(before.headers) if others is None else others)
    assert after.expiration == (expiration if keep else None)
    same = ("content_type", "content_encoding", "priority", "reply_to", "message_id", "app_id", "delivery_mode")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
