"""What the messaging library relies on in a broker, held by the in-memory broker and by RabbitMQ itself alike."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import pytest
from clients import await_until
from conftest import ON_DOCKER, ON_LOCAL

from dmq_core.cluster.protocol import Backend, Cluster
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import AccessDeniedError, DmqError, MessagingError
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.topology_commands import declare, delete_exchange, delete_queue, queue_depth
from dmq_core.messaging.consuming.subscription import Subscription, SubscriptionOptions
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.delivery.stream_offset import OFFSET, Offset
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.topology.model import Binding, Entity, Exchange, Queue, QueueDepth
from dmq_core.messaging.transport.amqp import AMQP
from dmq_core.messaging.transport.protocol import Network
from dmq_core.testing import MemoryBroker
from dmq_core.versions import Version, parse_version

V4, V43 = Version(4, 0), Version(4, 3)
KINDS = ("quorum", "classic")
# Long enough for a real broker to have done what it is not to do.
GRACE_S = 0.3


class Place(Protocol):
    """A broker and its time."""

    network: Network

    def endpoints(self) -> list[NodeEndpoint]: ...

    def credentials(self) -> Credentials: ...

    def wait(self, seconds: float) -> None:
        """Lets time go by."""
        ...

    def await_until(self, condition: Callable[[], bool], what: str) -> None:
        """Lets time go by until `condition` holds."""
        ...


class InMemory:
    """The in-memory broker, whose time moves only here."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.network = broker.network

    def endpoints(self) -> list[NodeEndpoint]:
        return list(self.broker.endpoints)

    def credentials(self) -> Credentials:
        return self.broker.credentials

    def wait(self, seconds: float) -> None:
        self.broker.advance(seconds)

    def await_until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(400):
            self.broker.settle()
            if condition():
                return
            self.broker.advance(0.05)
        pytest.fail(f"not within 20 s of virtual time: {what}")


class Real:
    """A cluster of real nodes."""

    network = AMQP

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def endpoints(self) -> list[NodeEndpoint]:
        return [node.endpoint for node in self.cluster.nodes()]

    def credentials(self) -> Credentials:
        return self.cluster.credentials

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def await_until(self, condition: Callable[[], bool], what: str) -> None:
        await_until(condition, 20, what)


class Rig:
    """What a test does with a place: declare, publish, consume, look; everything is taken away at the end."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.prefix = f"contract.{secrets.token_hex(3)}"
        self._connections: list[Connection] = []
        self._queues: set[str] = set()
        self.main = self.connect()
        self.main.wait_open(20)
        self.version = parse_version(self.main.status.broker_version)
        self._producer = Publisher(self.main)

    def connect(self, credentials: Credentials | None = None, virtual_host: str = "/") -> Connection:
        ends = [replace(e, virtual_host=virtual_host) for e in self.place.endpoints()]
        made = Connection(ends, credentials or self.place.credentials(), self.prefix, network=self.place.network)
        self._connections.append(made)
        return made

    def name(self, suffix: str) -> str:
        return f"{self.prefix}.{suffix}"

    def declare(self, *entities: Entity, connection: Connection | None = None) -> None:
        self._queues |= {e.name for e in entities if isinstance(e, Queue)}
        declare(connection or self.main, entities, 20)

    def queue(self, suffix: str, kind: str | None = "quorum", **arguments: object) -> str:
        """Declares a durable queue; `arguments` with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.declare(Queue(self.name(suffix), kind, arguments=named))
        return self.name(suffix)

    def exchange(self, suffix: str, kind: str, **arguments: object) -> str:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        # Auto-deleted, so that it goes with the queues that are bound to it.
        self.declare(Exchange(self.name(suffix), kind, auto_delete=True, arguments=named))
        return self.name(suffix)

    def publish(
        self,
        routing_key: str,
        *bodies: str,
        exchange: str = "",
        properties: MessageProperties | None = None,
        mandatory: bool = True,
    ) -> list[Outcome]:
        """Publishes one after the other, each waited for."""
        return [
            self._producer.publish_and_wait(
                OutgoingMessage(exchange, routing_key, body.encode(), properties or MessageProperties(), mandatory), 20
            ).outcome
            for body in bodies
        ]

    def refused(self, *entities: Entity, connection: Connection | None = None) -> str:
        """The broker's words about a declaration that it refuses."""
        with pytest.raises(DmqError) as caught:
            self.declare(*entities, connection=connection)
        return caught.value.what

    def depth(self, queue: str) -> QueueDepth | None:
        return queue_depth(self.main, queue, 20)

    def ready(self, queue: str) -> int:
        depth = self.depth(queue)
        return -1 if depth is None else depth.ready

    def close(self) -> None:
        for queue in self._queues:
            if self.depth(queue) is not None:
                delete_queue(self.main, queue, timeout_s=20)
        for connection in self._connections:
            connection.close()


class Hand:
    """A consumer that answers when the test says so."""

    def __init__(
        self,
        rig: Rig,
        queue: str,
        prefetch: int = 100,
        connection: Connection | None = None,
        offset: Offset | None = None,
    ) -> None:
        self.rig = rig
        self.came: list[Delivery] = []
        self._taken = 0
        self.consumer = Subscription(
            connection or rig.main, queue, self._note, SubscriptionOptions(prefetch=prefetch, offset=offset)
        )
        self.consumer.wait_consuming(20)

    def _note(self, deliveries: tuple[Delivery, ...]) -> None:
        self.came.extend(deliveries)

    def take(self, count: int) -> list[Delivery]:
        """The next `count` deliveries."""
        until = self._taken + count
        self.rig.place.await_until(lambda: len(self.came) >= until, f"{until} deliveries")
        taken, self._taken = self.came[self._taken : until], until
        return taken

    def one(self) -> Delivery:
        return self.take(1)[0]

    def none_comes(self) -> bool:
        self.rig.place.wait(GRACE_S)
        return len(self.came) == self._taken

    def leave(self) -> None:
        self.consumer.stop(0)


def bodies(deliveries: list[Delivery]) -> str:
    return " ".join(d.body.decode() for d in deliveries)


def counts(delivery: Delivery) -> tuple[object, object]:
    """What the headers tell of how often it was had, and how often it failed."""
    headers = delivery.properties.headers
    return headers.get("x-acquired-count"), headers.get("x-delivery-count")


def death(delivery: Delivery) -> dict[str, object]:
    """The latest death, without its time."""
    deaths = delivery.properties.headers["x-death"]
    assert isinstance(deaths, list)
    return {name: value for name, value in deaths[0].items() if name != "time"}


def _in_memory(version: str) -> Iterator[Rig]:
    with MemoryBroker(version=version) as broker:
        rig = Rig(InMemory(broker))
        yield rig
        rig.close()


# Some minutes; whoever touches the in-memory broker runs them.
ON_REAL = [
    pytest.param(*where.values, marks=(*where.marks, pytest.mark.thorough), id=where.id)
    for where in (ON_DOCKER, ON_LOCAL)
]


@pytest.fixture(params=["4.3.6", "4.0.9", "3.10.8", *ON_REAL])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    where: Backend | str = request.param
    if not isinstance(where, Backend):
        yield from _in_memory(where)
        return
    rig = Rig(Real(request.getfixturevalue("cluster_on")(where)))
    yield rig
    rig.close()


# Publishing and routing.


def test_a_message_arrives_as_it_was_sent(rig: Rig) -> None:
    queue = rig.queue("q")
    sent = MessageProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        user_id="guest",
        app_id="a",
        headers={"n": 7, "t": "text", "nested": {"list": [1, "two"]}},
    )
    assert rig.publish(queue, "body", properties=sent) == [Outcome.CONFIRMED]
    delivery = Hand(rig, queue).one()
    got = delivery.properties
    assert (delivery.body, delivery.exchange, delivery.routing_key) == (b"body", "", queue)
    assert not delivery.redelivered
    assert {**got.headers, "x-dmq-id": ""} == {**sent.headers, "x-dmq-id": ""}
    assert replace(got, headers={}) == replace(sent, headers={})


@pytest.mark.parametrize(
    ("kind", "key", "taken", "refused"),
    [
        ("direct", "a.b", "a.b", "a.c"),
        ("topic", "a.*.#", "a.b", "b.a"),
        ("fanout", "", "whatever", None),
    ],
)
def test_exchanges_route_by_their_type(rig: Rig, kind: str, key: str, taken: str, refused: str | None) -> None:
    queue, exchange = rig.queue("q"), rig.exchange("x", kind)
    rig.declare(Binding(exchange, queue, key))
    assert rig.publish(taken, "in", exchange=exchange) == [Outcome.CONFIRMED]
    if refused is not None:
        assert rig.publish(refused, "out", exchange=exchange) == [Outcome.RETURNED]
        assert rig.publish(refused, "out", exchange=exchange, mandatory=False) == [Outcome.CONFIRMED]
    assert bodies(Hand(rig, queue).take(1)) == "in"
    assert rig.ready(queue) == 0


def test_a_headers_exchange_routes_by_headers(rig: Rig) -> None:
    queue, exchange = rig.queue("q"), rig.exchange("x", "headers")
    rig.declare(Binding(exchange, queue, "", {"x-match": "any", "vip": True, "size": 3}))
    sent = [
        rig.publish("", "x", exchange=exchange, properties=MessageProperties(headers=headers))
        for headers in ({"vip": True}, {"size": 3, "vip": False}, {"size": 4}, {})
    ]
    assert sent == [[Outcome.CONFIRMED]] * 2 + [[Outcome.RETURNED]] * 2


def test_exchanges_are_bound_to_exchanges_and_send_what_nobody_wants_to_their_alternate(rig: Rig) -> None:
    first, second, rest = rig.queue("first"), rig.queue("second"), rig.queue("rest")
    alternate = rig.exchange("alternate", "fanout")
    inner = rig.exchange("inner", "direct")
    outer = rig.exchange("outer", "topic", alternate_exchange=alternate)
    rig.declare(
        Binding(alternate, rest),
        Binding(inner, second, "k.2"),
        Binding(outer, first, "k.1"),
        Binding(outer, inner, "k.2", to_exchange=True),
    )
    assert rig.publish("k.1", "1", exchange=outer) == [Outcome.CONFIRMED]
    assert rig.publish("k.2", "2", exchange=outer) == [Outcome.CONFIRMED]
    assert rig.publish("other", "3", exchange=outer) == [Outcome.CONFIRMED]
    for queue, body in ((first, "1"), (second, "2"), (rest, "3")):
        assert bodies(Hand(rig, queue).take(1)) == body
        assert rig.ready(queue) == 0


def test_copies_go_by_cc_and_bcc_and_only_bcc_is_kept_secret(rig: Rig) -> None:
    main, copy, blind = (rig.queue(suffix, "classic") for suffix in ("main", "copy", "blind"))
    rig.publish(main, "x", properties=MessageProperties(headers={"CC": [copy], "BCC": [blind]}))
    for queue in (main, copy, blind):
        headers = Hand(rig, queue).one().properties.headers
        assert headers.get("CC") == [copy]
        assert "BCC" not in headers


def test_a_message_for_a_missing_exchange_is_refused_alone(rig: Rig) -> None:
    queue = rig.queue("q")
    assert rig.publish("k", "bad", exchange=rig.name("none")) == [Outcome.NACKED]
    assert rig.publish(queue, "good") == [Outcome.CONFIRMED]


# Declaring.


def test_a_queue_that_is_there_is_declared_again_only_as_it_is(rig: Rig) -> None:
    queue = rig.queue("q", "classic", x_max_length=3)
    rig.queue("q", "classic", x_max_length=3)
    where = f"for queue '{queue}' in vhost '/'"
    spec = Queue(queue, "classic", arguments={"x-max-length": 3})
    assert rig.refused(replace(spec, type="quorum")).endswith(
        f"inequivalent arg 'x-queue-type' {where}: received 'quorum' but current is 'classic'"
    )
    assert rig.refused(replace(spec, auto_delete=True)).endswith(
        f"inequivalent arg 'auto_delete' {where}: received 'true' but current is 'false'"
    )
    assert rig.refused(replace(spec, arguments={})).endswith(
        f"inequivalent arg 'x-max-length' {where}: received none but current is the value '3' of type 'signedint'"
    )


def test_an_exchange_that_is_there_is_declared_again_only_as_it_is(rig: Rig) -> None:
    exchange = Exchange(rig.exchange("x", "topic"), "topic", auto_delete=True)
    rig.declare(exchange)
    where = f"for exchange '{exchange.name}' in vhost '/'"
    assert rig.refused(replace(exchange, type="fanout")).endswith(
        f"inequivalent arg 'type' {where}: received 'fanout' but current is 'topic'"
    )
    assert "inequivalent arg 'internal'" in rig.refused(replace(exchange, internal=True))
    assert "inequivalent arg 'alternate-exchange'" in rig.refused(
        replace(exchange, arguments={"alternate-exchange": "amq.fanout"})
    )


def test_what_is_missing_is_not_found(rig: Rig) -> None:
    queue, exchange = rig.queue("q"), rig.exchange("x", "topic")
    assert rig.depth(rig.name("none")) is None
    assert rig.refused(Binding(exchange, rig.name("none"))).startswith("NOT_FOUND - no queue")
    assert rig.refused(Binding(rig.name("none"), queue)).startswith("NOT_FOUND - no exchange")
    delete_queue(rig.main, rig.name("none"), timeout_s=20)


def test_what_belongs_to_the_broker_is_not_to_be_touched(rig: Rig) -> None:
    queue = rig.queue("q")
    assert "operation not permitted on the default exchange" in rig.refused(Binding("", queue, "k"))
    assert "reserved prefix 'amq.*'" in rig.refused(Queue("amq.mine", "classic"))
    assert "reserved prefix 'amq.*'" in rig.refused(Exchange("amq.mine"))
    rig.declare(Exchange("amq.topic", "topic"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Queue("", "quorum", durable=False), "invalid property 'non-durable'"),
        (Queue("", "quorum", exclusive=True), "invalid property 'exclusive-owner'"),
        (Queue("", "quorum", auto_delete=True), "invalid property 'auto-delete'"),
        (Queue("", "quorum", arguments={"x-max-priority": 3}), "invalid arg 'x-max-priority'"),
        (Queue("", "classic", arguments={"x-delivery-limit": 3}), "invalid arg 'x-delivery-limit'"),
        (Queue("", "classic", arguments={"x-message-ttl": -1}), "invalid arg 'x-message-ttl'"),
        (Queue("", "classic", arguments={"x-overflow": "nonsense"}), "invalid arg 'x-overflow'"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(rig: Rig, wanted: Queue, words: str) -> None:
    assert words in rig.refused(replace(wanted, name=rig.name("q")))


def test_arguments_that_nobody_knows_are_taken_in_silence(rig: Rig) -> None:
    assert rig.ready(rig.queue("q", "quorum", x_no_such_thing=1)) == 0


def test_an_exclusive_queue_is_locked_to_its_connection_and_goes_with_it(rig: Rig) -> None:
    owner = rig.connect()
    queue = Queue(rig.name("q"), "classic", durable=False, exclusive=True)
    rig.declare(queue, connection=owner)
    assert "cannot obtain exclusive access to locked queue" in rig.refused(queue)
    rig.declare(queue, connection=owner)
    owner.close()
    rig.place.await_until(lambda: rig.depth(queue.name) is None, "the queue goes with its connection")


def test_an_auto_delete_queue_goes_with_its_last_consumer(rig: Rig) -> None:
    queue = Queue(rig.name("q"), "classic", durable=True, auto_delete=True)
    rig.declare(queue)
    first, second = Hand(rig, queue.name), Hand(rig, queue.name)
    first.leave()
    assert rig.depth(queue.name) is not None
    second.leave()
    rig.place.await_until(lambda: rig.depth(queue.name) is None, "the queue goes")


def test_an_unused_queue_expires(rig: Rig) -> None:
    queue = rig.queue("q", "classic", x_expires=500)
    assert rig.depth(queue) is not None
    rig.place.wait(0.6)
    rig.place.await_until(lambda: rig.depth(queue) is None, "the queue expires")


def test_only_an_empty_classic_queue_can_be_deleted_if_empty(rig: Rig) -> None:
    classic, quorum = rig.queue("c", "classic"), rig.queue("q")
    rig.publish(classic, "x")
    with pytest.raises(MessagingError, match="not empty"):
        delete_queue(rig.main, classic, only_empty=True, timeout_s=20)
    Hand(rig, classic).one().ack()
    rig.place.await_until(lambda: rig.ready(classic) == 0, "it is empty")
    # The broker ends the whole connection over this one.
    epoch = rig.main.status.epoch
    with pytest.raises(MessagingError):
        delete_queue(rig.main, quorum, only_empty=True, timeout_s=20)
    rig.place.await_until(lambda: rig.main.status.epoch > epoch and rig.ready(quorum) == 0, "it came back")


def test_a_deleted_exchange_takes_its_bindings_along_and_may_be_gone_already(rig: Rig) -> None:
    queue, exchange = rig.queue("q"), rig.exchange("x", "fanout")
    rig.declare(Binding(exchange, queue))
    for _ in range(2):
        delete_exchange(rig.main, exchange, 20)
    rig.declare(Exchange(exchange, "fanout"))
    assert rig.publish("", "unbound", exchange=exchange) == [Outcome.RETURNED]
    delete_exchange(rig.main, exchange, 20)
    with pytest.raises(DmqError, match="deletion of system exchange"):
        delete_exchange(rig.main, "amq.direct", 20)


# Consuming.


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_delivered_than_may_be_unanswered(rig: Rig, kind: str) -> None:
    queue = rig.queue("q", kind)
    rig.publish(queue, *"12345")
    hand = Hand(rig, queue, prefetch=2)
    first = hand.take(2)
    assert bodies(first) == "1 2"
    assert hand.none_comes()
    for delivery in first:
        delivery.ack()
    assert bodies(hand.take(2)) == "3 4"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_consumer_leaves_unanswered_comes_back_in_order(rig: Rig, kind: str) -> None:
    queue = rig.queue("q", kind)
    rig.publish(queue, *"1234")
    first = Hand(rig, queue, prefetch=3)
    first.take(3)
    first.leave()
    rig.place.await_until(lambda: rig.ready(queue) == 4, "all are back")
    back = Hand(rig, queue).take(4)
    assert bodies(back) == "1 2 3 4"
    assert [d.redelivered for d in back] == [True, True, True, False]


def test_consumers_take_turns(rig: Rig) -> None:
    queue = rig.queue("q", "classic")
    hands = [Hand(rig, queue), Hand(rig, queue)]
    rig.publish(queue, *"123456")
    assert [len(hand.take(3)) for hand in hands] == [3, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_active_consumer_has_all_until_it_leaves(rig: Rig, kind: str) -> None:
    queue = rig.queue("q", kind, x_single_active_consumer=True)
    active, standby = Hand(rig, queue), Hand(rig, queue)
    rig.publish(queue, *"12")
    assert bodies(active.take(2)) == "1 2"
    active.came[0].ack()
    assert standby.none_comes()
    active.leave()
    assert bodies(standby.take(1)) == "2"


def test_a_classic_queue_tolerates_no_other_consumer_beside_an_exclusive_one(rig: Rig) -> None:
    queue = rig.queue("q", "classic")
    Hand(rig, queue)
    second = Subscription(rig.main, queue, lambda _: None, SubscriptionOptions(exclusive=True))
    rig.place.await_until(lambda: "in exclusive use" in second.status.problem, "the second is refused")
    assert not second.status.consuming
    second.stop()


def test_a_quorum_queue_pays_no_heed_to_a_consumer_that_wants_it_alone(rig: Rig) -> None:
    queue = rig.queue("q")
    Hand(rig, queue)
    second = Subscription(rig.main, queue, lambda _: None, SubscriptionOptions(exclusive=True))
    assert second.wait_consuming(20).consuming
    second.stop()


def test_a_consumer_whose_queue_is_deleted_is_told_and_subscribes_again(rig: Rig) -> None:
    spec = Queue(rig.name("q"), "quorum")
    rig.declare(spec)
    changes: list[bool] = []
    consumer = Subscription(
        rig.main,
        spec.name,
        lambda _: None,
        SubscriptionOptions(declare=(spec,)),
        on_change=lambda s: changes.append(s.consuming),
    )
    consumer.wait_consuming(20)
    delete_queue(rig.main, spec.name, timeout_s=20)
    rig.place.await_until(lambda: changes.count(True) == 2, "it consumes again")
    assert False in changes
    consumer.stop()


# Streams.


@pytest.mark.parametrize(("offset", "read"), [("first", "012"), (1, "12"), ("next", ""), ("1h", "012"), (9, "")])
def test_a_stream_is_read_from_where_one_asks_and_by_anybody(rig: Rig, offset: Offset, read: str) -> None:
    queue = rig.queue("s", "stream", x_max_age="1h", x_max_length_bytes=10_000_000)
    rig.publish(queue, *"012")
    for _ in range(2):
        hand = Hand(rig, queue, offset=offset)
        came = hand.take(len(read))
        assert bodies(came) == " ".join(read)
        assert [d.properties.headers[OFFSET] for d in came] == [d.offset for d in came] == [int(n) for n in read]
        assert hand.none_comes()
        hand.leave()


def test_a_stream_sends_no_more_than_may_be_unanswered_whatever_the_answer(rig: Rig) -> None:
    queue = rig.queue("s", "stream")
    rig.publish(queue, *"01234")
    hand = Hand(rig, queue, prefetch=2, offset="first")
    for delivery in hand.take(2):
        assert delivery.reject()
    assert bodies(hand.take(2)) == "2 3"
    assert hand.none_comes()


def test_on_a_new_channel_a_stream_goes_on_at_the_first_that_was_not_answered(rig: Rig) -> None:
    queue = rig.queue("s", "stream")
    rig.publish(queue, *"0123")
    hand = Hand(rig, queue, offset="first")
    for delivery in hand.take(4)[:2]:
        delivery.ack()
    epoch = rig.main.status.epoch
    rig.main.leave(None, "the test wants it")
    rig.place.await_until(lambda: rig.main.status.epoch > epoch, "it came back")
    rig.publish(queue, "4")
    back = hand.take(3)
    assert [(d.offset, d.redelivered) for d in back] == [(2, True), (3, True), (4, False)]


def test_a_stream_that_was_deleted_and_declared_again_is_read_from_its_beginning(rig: Rig) -> None:
    spec = Queue(rig.name("s"), "stream")
    rig.declare(spec)
    rig.publish(spec.name, *"01")
    hand = Hand(rig, spec.name, offset="first")
    for delivery in hand.take(2):
        delivery.ack()
    delete_queue(rig.main, spec.name, timeout_s=20)
    rig.place.await_until(lambda: not hand.consumer.status.consuming, "it is told")
    rig.declare(spec)
    rig.publish(spec.name, "new")
    delivery = hand.one()
    assert (delivery.body, delivery.offset, delivery.redelivered) == (b"new", 0, False)


def test_only_a_stream_has_places_to_begin_at(rig: Rig) -> None:
    consumer = Subscription(rig.main, rig.queue("q"), lambda _: None, SubscriptionOptions(offset="first"))
    rig.place.await_until(lambda: "invalid arg 'x-stream-offset'" in consumer.status.problem, "it is refused")
    consumer.stop()


# Returns and their counts.


@pytest.mark.parametrize("answer", ["reject", "give back"])
def test_a_quorum_queue_counts_returns_as_its_version_does(rig: Rig, answer: str) -> None:
    """What was given back counts as a failure before 4.3, and since then only as one more acquisition."""
    hand = Hand(rig, rig.queue("q", x_delivery_limit=10), prefetch=1)
    rig.publish(rig.name("q"), "x")
    seen = []
    for _ in range(3):
        delivery = hand.one()
        seen.append((delivery.redelivered, *counts(delivery)))
        assert delivery.reject(requeue=True) if answer == "reject" else delivery.requeue()
    if rig.version < V43:
        assert seen == [(False, None, None), (True, None, 1), (True, None, 2)]
    elif answer == "reject":
        assert seen == [(False, None, None), (True, 1, 1), (True, 2, 2)]
    else:
        assert seen == [(False, None, None), (True, 1, None), (True, 2, None)]


def test_a_classic_queue_counts_nothing(rig: Rig) -> None:
    hand = Hand(rig, rig.queue("q", "classic"), prefetch=1)
    rig.publish(rig.name("q"), "x")
    for redelivered in (False, True, True):
        delivery = hand.one()
        assert (delivery.redelivered, *counts(delivery)) == (redelivered, None, None)
        delivery.reject(requeue=True)


@pytest.mark.parametrize("answer", ["reject", "give back"])
def test_at_the_delivery_limit_a_message_is_dead_lettered(rig: Rig, answer: str) -> None:
    dead = rig.queue("dead", "classic")
    hand = Hand(
        rig,
        rig.queue("q", x_delivery_limit=2, x_dead_letter_exchange="", x_dead_letter_routing_key=dead),
        prefetch=1,
    )
    rig.publish(rig.name("q"), "x")
    for _ in range(3):
        delivery = hand.one()
        assert delivery.reject(requeue=True) if answer == "reject" else delivery.requeue()
    if answer == "give back" and rig.version >= V43:
        assert counts(hand.one()) == (3, None)
        assert rig.ready(dead) == 0
        return
    letter = Hand(rig, dead).one()
    assert hand.none_comes()
    assert death(letter) == {
        "count": 1,
        "reason": "delivery_limit",
        "queue": rig.name("q"),
        "exchange": "",
        "routing-keys": [rig.name("q")],
    }
    told = letter.properties.headers
    assert (told["x-first-death-queue"], told["x-first-death-reason"]) == (rig.name("q"), "delivery_limit")
    assert ("x-last-death-queue" in told) == (rig.version >= V4)


def test_without_a_limit_of_its_own_a_quorum_queue_gives_up_after_twenty_returns_since_4_0(rig: Rig) -> None:
    dead = rig.queue("dead", "classic")
    hand = Hand(rig, rig.queue("q", x_dead_letter_exchange="", x_dead_letter_routing_key=dead), prefetch=1)
    rig.publish(rig.name("q"), "x")
    for _ in range(21):
        hand.one().reject(requeue=True)
    if rig.version < V4:
        assert counts(hand.one()) == (None, 21)
    else:
        assert hand.none_comes()
        assert death(Hand(rig, dead).one())["reason"] == "delivery_limit"


def test_returns_go_ahead_in_the_order_in_which_they_came_where_there_is_a_limit(rig: Rig) -> None:
    hand = Hand(rig, rig.queue("q", x_delivery_limit=9), prefetch=3)
    rig.publish(rig.name("q"), *"12345")
    one, two, three = hand.take(3)
    two.reject(requeue=True)
    assert bodies(hand.take(1)) == "2"
    one.reject(requeue=True)
    assert bodies(hand.take(1)) == "1"
    three.ack()
    assert bodies(hand.take(1)) == "4"


def test_without_a_limit_a_return_goes_to_the_end_before_4_3(rig: Rig) -> None:
    unlimited = {"x_delivery_limit": -1} if rig.version >= V4 else {}
    hand = Hand(rig, rig.queue("q", **unlimited), prefetch=1)
    rig.publish(rig.name("q"), *"123")
    hand.one().reject(requeue=True)
    assert bodies(hand.take(1)) == ("2" if rig.version < V43 else "1")


def test_a_classic_queue_puts_returns_back_in_their_place(rig: Rig) -> None:
    queue = rig.queue("q", "classic")
    hand = Hand(rig, queue, prefetch=4)
    rig.publish(queue, *"1234")
    one, two, three, four = hand.take(4)
    hand.consumer.cancel()
    rig.place.await_until(lambda: (rig.depth(queue) or QueueDepth("", 0, 1)).consumers == 0, "it is cancelled")
    for delivery in (three, one, four, two):
        delivery.reject(requeue=True)
    rig.place.await_until(lambda: rig.ready(queue) == 4, "all are back")
    assert bodies(Hand(rig, queue).take(4)) == "1 2 3 4"


def test_a_delayed_retry_waits_longer_each_time_where_the_broker_knows_it(rig: Rig) -> None:
    queue = rig.queue(
        "q", x_delayed_retry_type="failed", x_delayed_retry_min=600, x_delayed_retry_max=900, x_delivery_limit=9
    )
    hand = Hand(rig, queue, prefetch=1)
    rig.publish(queue, "x")
    waited = []
    for _ in range(3):
        hand.one().reject(requeue=True)
        began = rig.main.now()
        rig.place.await_until(lambda: len(hand.came) > hand._taken, "it comes again")
        waited.append(rig.main.now() - began)
    hand.one().requeue()
    began = rig.main.now()
    hand.one()
    waited.append(rig.main.now() - began)
    if rig.version < V43:
        assert max(waited) < 0.5
    else:
        assert waited[0] >= 0.55
        assert min(waited[1:3]) >= 0.85
        assert waited[3] < 0.5, "what was given back did not fail"


# Dead letters, bounds and times.


@pytest.mark.parametrize("kind", KINDS)
def test_a_rejected_message_is_dead_lettered_with_its_story(rig: Rig, kind: str) -> None:
    exchange, dead = rig.exchange("dlx", "fanout"), rig.queue("dead", "classic")
    rig.declare(Binding(exchange, dead))
    queue = rig.queue("q", kind, x_dead_letter_exchange=exchange)
    rig.publish(queue, "x", properties=MessageProperties(headers={"own": 1}))
    Hand(rig, queue).one().reject()
    letter = Hand(rig, dead).one()
    assert (letter.exchange, letter.routing_key) == (exchange, queue)
    assert letter.properties.headers["own"] == 1
    assert death(letter)["reason"] == "rejected"


@pytest.mark.parametrize("kind", KINDS)
def test_messages_expire_after_the_time_of_their_queue(rig: Rig, kind: str) -> None:
    dead = rig.queue("dead", "classic")
    queue = rig.queue("q", kind, x_message_ttl=300, x_dead_letter_exchange="", x_dead_letter_routing_key=dead)
    rig.publish(queue, "x")
    assert rig.ready(queue) == 1
    letter = Hand(rig, dead).one()
    assert (death(letter)["reason"], letter.redelivered) == ("expired", False)
    assert rig.ready(queue) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_with_its_own_time_expires_only_at_the_head(rig: Rig, kind: str) -> None:
    dead = rig.queue("dead", "classic")
    queue = rig.queue("q", kind, x_dead_letter_exchange="", x_dead_letter_routing_key=dead)
    rig.publish(queue, "long", properties=MessageProperties(expiration=60_000))
    rig.publish(queue, "short", properties=MessageProperties(expiration=200))
    rig.place.wait(0.5)
    assert rig.ready(queue) == 2, "the first one stands in the way"
    Hand(rig, queue, prefetch=1).one().ack()
    letter = Hand(rig, dead).one()
    assert (letter.body, death(letter)["reason"]) == (b"short", "expired")
    assert death(letter)["original-expiration"] == "200"
    assert letter.properties.expiration is None, "else it would expire again"


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_queue_drops_its_oldest(rig: Rig, kind: str) -> None:
    dead = rig.queue("dead", "classic")
    queue = rig.queue("q", kind, x_max_length=2, x_dead_letter_exchange="", x_dead_letter_routing_key=dead)
    assert set(rig.publish(queue, *"123")) == {Outcome.CONFIRMED}
    letter = Hand(rig, dead).one()
    assert (letter.body, death(letter)["reason"]) == (b"1", "maxlen")
    assert bodies(Hand(rig, queue).take(2)) == "2 3"


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_queue_that_rejects_refuses_what_comes(rig: Rig, kind: str) -> None:
    queue = rig.queue("q", kind, x_max_length=2, x_overflow="reject-publish")
    outcomes = Counter(rig.publish(queue, *"123456"))
    # A quorum queue tells its publishers only once it is beyond its bound.
    assert outcomes[Outcome.CONFIRMED] == (2 if kind == "classic" else 3)
    assert outcomes[Outcome.NACKED] == 6 - outcomes[Outcome.CONFIRMED]
    assert rig.ready(queue) == outcomes[Outcome.CONFIRMED]


def test_a_dead_letter_that_goes_in_a_circle_is_dropped_unless_somebody_rejected_it(rig: Rig) -> None:
    wait = rig.queue(
        "wait", "classic", x_message_ttl=100, x_dead_letter_exchange="", x_dead_letter_routing_key=rig.name("work")
    )
    work = rig.queue("work", "classic", x_dead_letter_exchange="", x_dead_letter_routing_key=wait)
    hand = Hand(rig, work)
    rig.publish(work, "x")
    hand.one().reject()
    again = hand.one()
    deaths = again.properties.headers["x-death"]
    assert isinstance(deaths, list)
    assert [(d["queue"], d["reason"], d["count"]) for d in deaths] == [(wait, "expired", 1), (work, "rejected", 1)]
    again.ack()
    hand.leave()
    rig.publish(work, "y", properties=MessageProperties(expiration=100))
    rig.place.wait(0.6)
    assert (rig.ready(work), rig.ready(wait)) == (0, 0)


def test_a_dead_letter_beyond_its_limit_is_beyond_that_of_a_quorum_queue_of_dead_letters_too(rig: Rig) -> None:
    """Since 4.3 the count goes along: whoever gives such a letter back, if only after a look, destroys it."""
    dead = rig.queue("dead", "quorum", x_delivery_limit=1)
    queue = rig.queue("q", x_delivery_limit=2, x_dead_letter_exchange="", x_dead_letter_routing_key=dead)
    hand = Hand(rig, queue, prefetch=1)
    rig.publish(queue, "x")
    for _ in range(3):
        hand.one().reject(requeue=True)
    letters = Hand(rig, dead, prefetch=1)
    letter = letters.one()
    if rig.version >= V43:
        assert counts(letter) == (3, 3)
        letter.requeue()
        assert letters.none_comes()
        assert rig.ready(dead) == 0
    else:
        assert counts(letter) == (None, None)
        letter.requeue()
        assert letters.one().body == b"x"


def test_dead_letters_are_handed_on_at_least_once(rig: Rig) -> None:
    dead = rig.queue("dead")
    queue = rig.queue(
        "q",
        x_dead_letter_exchange="",
        x_dead_letter_routing_key=dead,
        x_dead_letter_strategy="at-least-once",
        x_overflow="reject-publish",
    )
    rig.publish(queue, *"123")
    hand = Hand(rig, queue)
    for delivery in hand.take(3):
        delivery.reject()
    assert bodies(Hand(rig, dead).take(3)) == "1 2 3"


# Getting in.


@pytest.mark.parametrize(
    ("credentials", "virtual_host", "words"),
    [(Credentials("guest", "wrong"), "/", "ACCESS_REFUSED"), (None, "no-such-vhost", "not found")],
)
def test_strangers_are_not_let_in(rig: Rig, credentials: Credentials | None, virtual_host: str, words: str) -> None:
    connection = rig.connect(credentials, virtual_host)
    with pytest.raises(AccessDeniedError, match=words):
        connection.wait_open(20)
