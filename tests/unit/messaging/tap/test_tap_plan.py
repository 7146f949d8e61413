"""A tap binds to what it can without taking anything, and says what it cannot see."""

from __future__ import annotations

import pytest

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import MessageProperties, SeenMessage
from dmq_core.messaging.tap.plan import BODY_SHOWN_BYTES, cut, plan_tap, untraced
from dmq_core.messaging.tap.source import TailSource
from dmq_core.messaging.topology.model import PrivateBinding


def test_a_topic_exchange_is_tapped_by_its_pattern() -> None:
    plan = plan_tap(TailSource("orders", "order.#"))
    assert plan.bindings == (PrivateBinding("orders", "order.#"),)
    assert plan.method == "tap"
    assert any("default exchange" in spot for spot in plan.blind_spots)


def test_a_fanout_exchange_ignores_the_pattern_and_says_so() -> None:
    plan = plan_tap(TailSource("events", "a.b"), "fanout")
    assert plan.bindings == (PrivateBinding("events"),)
    assert any("ignores a.b" in spot for spot in plan.blind_spots)


def test_a_headers_exchange_is_tapped_whole() -> None:
    (binding,) = plan_tap(TailSource("heads"), "headers").bindings
    assert binding.arguments == {"x-match": "all"}


def test_a_direct_exchange_needs_a_key_or_those_that_its_queues_are_bound_with() -> None:
    assert plan_tap(TailSource("work", "eu"), "direct").bindings == (PrivateBinding("work", "eu"),)
    bound = (
        PrivateBinding("work", "b"),
        PrivateBinding("other", "x"),
        PrivateBinding("work", "a"),
        PrivateBinding("work", "b"),
    )
    plan = plan_tap(TailSource("work"), "direct", bound)
    assert [b.routing_key for b in plan.bindings] == ["a", "b"]
    assert any("no queue was bound with" in spot for spot in plan.blind_spots)
    with pytest.raises(InvalidInputError, match="no key is known"):
        plan_tap(TailSource("work"), "direct")


def test_a_queue_is_tapped_as_it_is_bound() -> None:
    bound = (PrivateBinding("", "q"), PrivateBinding("orders", "order.*", {"x": 1}))
    plan = plan_tap(TailSource(queue="q"), bindings=bound)
    assert plan.bindings == bound[1:]
    assert any("default exchange" in spot for spot in plan.blind_spots)


def test_a_queue_that_only_the_default_exchange_feeds_cannot_be_seen_and_that_is_said() -> None:
    plan = plan_tap(TailSource(queue="q\x1b"), bindings=(PrivateBinding("", "q"),))
    assert plan.bindings == ()
    assert plan.blind_spots[0].startswith("everything")
    assert "\x1b" not in plan.blind_spots[0]


def test_the_default_exchange_cannot_be_tapped() -> None:
    with pytest.raises(InvalidInputError, match="default exchange"):
        plan_tap(TailSource(""))


@pytest.mark.parametrize("kind", ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"])
def test_an_exchange_that_shares_messages_out_is_left_alone(kind: str) -> None:
    with pytest.raises(InvalidInputError, match="take some of them away"):
        plan_tap(TailSource("shares"), kind)


def test_an_unknown_kind_of_exchange_is_left_alone() -> None:
    with pytest.raises(InvalidInputError, match="x-new"):
        plan_tap(TailSource("new"), "x-new")


def test_the_firehose_is_bound_to_deliveries_and_needs_tracing() -> None:
    plan = plan_tap(TailSource(None))
    assert plan.is_firehose
    assert plan.bindings == (PrivateBinding("amq.rabbitmq.trace", "deliver.#"),)
    assert any("tracing is off" in spot for spot in plan.blind_spots)


def trace(key: str, headers: dict[str, object]) -> SeenMessage:
    return SeenMessage(1.0, "amq.rabbitmq.trace", key, b"body", 4, MessageProperties(headers=headers))


def test_a_firehose_copy_is_told_as_the_message_that_it_is_about() -> None:
    seen = untraced(
        trace(
            "deliver.a.b",
            {
                "exchange_name": "orders",
                "routing_keys": ["order.new", "cc"],
                "redelivered": 1,
                "properties": {
                    "content_type": "text/plain",
                    "delivery_mode": 2,
                    "expiration": "10",
                    "headers": {"k": 1},
                },
            },
        )
    )
    assert (seen.exchange, seen.routing_key, seen.queue, seen.redelivered) == ("orders", "order.new", "a.b", True)
    assert (seen.properties.content_type, seen.properties.delivery_mode, seen.properties.expiration) == (
        "text/plain",
        2,
        10,
    )
    assert seen.properties.headers == {"k": 1}


def test_a_forged_firehose_copy_does_no_harm() -> None:
    seen = untraced(trace("publish.x", {"routing_keys": "no list", "redelivered": "maybe", "properties": 5}))
    assert (seen.exchange, seen.routing_key, seen.queue, seen.redelivered) == ("", "", None, None)


def test_a_long_body_is_cut_and_its_size_told() -> None:
    long = SeenMessage(1.0, "x", "k", b"x" * (BODY_SHOWN_BYTES + 1), BODY_SHOWN_BYTES + 1)
    assert (len(cut(long).body), cut(long).size) == (BODY_SHOWN_BYTES, BODY_SHOWN_BYTES + 1)
