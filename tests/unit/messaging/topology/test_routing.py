"""Routing as RabbitMQ does it, computed without asking it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.management.models import Arguments, BindingFigures, EntityKey, ExchangeFigures
from dmq_core.messaging.topology.routing import Topology, headers_match, route, topic_matches

WORDS = st.sampled_from(["a", "b", "", "order"])
KEYS = st.lists(WORDS, max_size=6).map(".".join)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("pattern", "key", "taken"),
    [
        ("order.*.new", "order.eu.new", True),
        ("order.*.new", "order.eu.west.new", False),
        ("order.#", "order", True),
        ("order.#", "order.eu.new", True),
        ("#", "", True),
        ("*", "", False),
        ("", "", True),
        ("", "a", False),
        ("#.new", "new", True),
        ("*.*", "a.", True),
        ("a.#.b.#.c", "a.b.x.b.c", True),
        ("order.eu", "Order.eu", False),
    ],
)
def test_a_topic_pattern_takes_what_rabbitmq_says_it_takes(pattern: str, key: str, taken: bool) -> None:
    assert topic_matches(pattern, key) is taken


def by_backtracking(pattern: list[str], words: list[str]) -> bool:
    """The textbook definition, slow and plain."""
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return by_backtracking(rest, words) or (bool(words) and by_backtracking(pattern, words[1:]))
    return bool(words) and head in ("*", words[0]) and by_backtracking(rest, words[1:])


@given(PATTERNS, KEYS)
def test_topic_matching_agrees_with_the_textbook_definition(pattern: str, key: str) -> None:
    plain = by_backtracking(pattern.split(".") if pattern else [], key.split(".") if key else [])
    assert topic_matches(pattern, key) == plain


@given(KEYS)
def test_a_lone_hash_takes_every_key_and_a_key_without_wildcards_takes_itself(key: str) -> None:
    assert topic_matches("#", key)
    assert topic_matches(key, key)


def test_a_pattern_made_to_explode_is_answered_at_once() -> None:
    assert not topic_matches("#.a." * 60 + "b", ".".join("a" * 400))


@pytest.mark.parametrize(
    ("arguments", "headers", "taken"),
    [
        ({"eu": True, "vip": 1}, {"eu": True, "vip": 1, "more": "x"}, True),
        ({"eu": True, "vip": 1}, {"eu": True}, False),
        ({"x-match": "any", "eu": True, "vip": 1}, {"vip": 1}, True),
        ({"x-match": "any"}, {"vip": 1}, False),
        ({}, {}, True),
        ({"vip": True}, {"vip": 1}, False),
        ({"vip": 1}, {"vip": 1.0}, False),
        ({"vip": None}, {"vip": "anything"}, True),
        ({"x-kind": "a"}, {}, True),
        ({"x-match": "all-with-x", "x-kind": "a"}, {}, False),
        ({"x-match": "any-with-x", "x-kind": "a", "eu": True}, {"x-kind": "a"}, True),
    ],
)
def test_a_headers_binding_takes_what_rabbitmq_says_it_takes(
    arguments: Arguments, headers: dict[str, object], taken: bool
) -> None:
    assert headers_match(arguments, headers) is taken


def topology(
    exchanges: Iterable[ExchangeFigures] = (),
    bindings: Iterable[tuple[str, str, str]] = (),
    queues: Iterable[str] = (),
    *,
    complete: bool = True,
) -> Topology:
    """Bindings as (source, key, destination); a destination `>x` is the exchange x."""
    made = [
        BindingFigures(
            "/", source, destination.removeprefix(">"), "exchange" if destination[0] == ">" else "queue", key
        )
        for source, key, destination in bindings
    ]
    return Topology.made_of(exchanges, made, (EntityKey("/", q) for q in queues), complete=complete)


def names(found: tuple[EntityKey, ...]) -> list[str]:
    return [key.name for key in found]


def test_the_default_exchange_routes_by_queue_name_only() -> None:
    known = topology(queues=["orders"])
    assert names(route(known, "", "orders").queues) == ["orders"]
    assert route(known, "", "order").queues == ()
    assert route(known, "", "orders", virtual_host="other").queues == ()


def test_a_queue_bound_twice_gets_one_copy() -> None:
    known = topology(
        [ExchangeFigures("/", "t", "topic")], [("t", "a.#", "q"), ("t", "#.b", "q"), ("t", "c", "r")], "qr"
    )
    assert names(route(known, "t", "a.b").queues) == ["q"]


def test_routing_follows_exchange_bindings_and_survives_their_cycles() -> None:
    known = topology(
        [ExchangeFigures("/", "one", "fanout"), ExchangeFigures("/", "two", "direct")],
        [("one", "", ">two"), ("two", "k", ">one"), ("two", "k", "q")],
        "q",
    )
    assert names(route(known, "one", "k").queues) == ["q"]
    assert route(known, "one", "other").queues == ()


def test_an_unrouted_message_takes_the_alternate_exchange() -> None:
    main = ExchangeFigures("/", "main", "direct", arguments={"alternate-exchange": "rest"})
    known = topology(
        [main, ExchangeFigures("/", "rest", "fanout")],
        [("main", "k", "q"), ("rest", "", "unrouted")],
        ["q", "unrouted"],
    )
    assert names(route(known, "main", "k").queues) == ["q"]
    assert names(route(known, "main", "else").queues) == ["unrouted"]


def test_sender_selected_keys_route_as_well() -> None:
    known = topology([ExchangeFigures("/", "d", "direct")], [("d", "a", "qa"), ("d", "b", "qb")], ["qa", "qb"])
    assert names(route(known, "d", "a", {"CC": ["b"]}).queues) == ["qa", "qb"]


def test_what_cannot_be_known_is_said() -> None:
    plugin = ExchangeFigures("/", "hash", "x-consistent-hash")
    assert re.search("plugin", route(topology([plugin]), "hash", "k").doubts[0])
    assert re.search("not known", route(topology(), "gone", "k").doubts[0])
    assert re.search("not every queue", route(topology(complete=False), "", "k").doubts[0])
    with_policy = ExchangeFigures("/", "d", "direct", policy="p")
    assert re.search("alternate", route(topology([with_policy]), "d", "k").doubts[0])
