"""Producers of the four types on a broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import InvalidInputError, MessagingError
from dmq_core.messaging.messages import Outcome
from dmq_core.messaging.publishing.aio import AsyncProducer
from dmq_core.messaging.publishing.producers import DirectProducer, FanoutProducer, HeadersProducer, TopicProducer
from dmq_core.messaging.topology.model import Binding, Exchange, Queue
from dmq_core.testing import MemoryBroker


@pytest.fixture
def manager() -> Iterator[BrokerConnectionManager]:
    with MemoryBroker() as broker, BrokerConnectionManager(network=broker.network) as made:
        for number, endpoint in enumerate(broker.endpoints, start=1):
            made.register_broker(number, endpoint.host, endpoint.amqp_port)
        made.declare(Queue("q", "quorum"))
        yield made


def test_each_type_routes_by_its_own_rule(manager: BrokerConnectionManager) -> None:
    manager.declare(
        Exchange("topic", "topic"),
        Exchange("fanout", "fanout"),
        Exchange("headers", "headers"),
        Binding("topic", "q", "log.#"),
        Binding("fanout", "q"),
        Binding("headers", "q", arguments={"x-match": "all", "colour": "red"}),
    )
    settled = [
        DirectProducer(connection_manager=manager).publish_and_wait("q", "x"),
        DirectProducer(connection_manager=manager).publish_and_wait("nobody", "x"),
        TopicProducer(manager, "topic").publish_and_wait("log.error", "x"),
        TopicProducer(manager, "topic").publish_and_wait("error", "x"),
        FanoutProducer(manager, "fanout").publish_and_wait("x"),
        HeadersProducer(manager, "headers").publish_and_wait({"colour": "red"}, "x"),
        HeadersProducer(manager, "headers").publish_and_wait({"colour": "blue"}, "x"),
    ]
    taken, returned = Outcome.CONFIRMED, Outcome.RETURNED
    assert [s.outcome for s in settled] == [taken, returned, taken, returned, taken, taken, returned]


def test_many_go_in_order_and_a_bad_one_fails_alone(manager: BrokerConnectionManager) -> None:
    with DirectProducer(connection_manager=manager) as producer:
        handles = producer.publish_many("q", ["a", b"b", {"c": 1}])
        with pytest.raises(InvalidInputError):
            producer.publish("q", object())  # type: ignore[arg-type]  # what no type checker lets through
        producer.flush(10)
    assert [h.result(0).outcome for h in handles] == [Outcome.CONFIRMED] * 3
    with pytest.raises(MessagingError, match="closed"):
        producer.publish("q", "late")


def test_closing_twice_gives_the_connection_back_once(manager: BrokerConnectionManager) -> None:
    first, second = DirectProducer(connection_manager=manager), DirectProducer(connection_manager=manager)
    first.close()
    first.close()
    assert [info.users for info in manager.connections if "publishing" in info.name] == [1]
    second.close()


def test_the_exchange_that_the_program_declared_is_not_declared_otherwise(manager: BrokerConnectionManager) -> None:
    manager.declare(Exchange("mine", "topic", auto_delete=True), Binding("mine", "q", "#"))
    assert TopicProducer(manager, "mine").publish_and_wait("k", "x").outcome is Outcome.CONFIRMED
    with pytest.raises(InvalidInputError, match="exchange_name"):
        TopicProducer(manager)


def test_asyncio_awaits_each_outcome_and_hears_what_is_wrong(manager: BrokerConnectionManager) -> None:
    async def main() -> list[Outcome]:
        async with AsyncProducer(DirectProducer(connection_manager=manager)) as producer:
            with pytest.raises(InvalidInputError):
                await producer.publish("k" * 300, "x")
            keys = ["q", "nobody"] * 50
            return [s.outcome for s in await asyncio.gather(*(producer.publish(key, "x") for key in keys))]

    assert asyncio.run(main()) == [Outcome.CONFIRMED, Outcome.RETURNED] * 50
