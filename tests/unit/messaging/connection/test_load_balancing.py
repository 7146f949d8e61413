"""Where connections go, by policy."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dmq_core.endpoints import NodeEndpoint
from dmq_core.messaging.connection.load_balancing import Load, Policy, order, rebalance_target

A, B, C = ENDPOINTS = [NodeEndpoint("127.0.0.1", port, None) for port in (5672, 5673, 5674)]


def loads(places: list[NodeEndpoint]) -> dict[NodeEndpoint, Load]:
    return {endpoint: Load(count, count) for endpoint, count in Counter(places).items()}


def test_ordered_keeps_the_order_of_registration() -> None:
    assert order(Policy.ORDERED, ENDPOINTS, loads([A, A]), 5) == ENDPOINTS


def test_round_robin_begins_one_further_each_time_and_still_tries_all() -> None:
    firsts = [order(Policy.ROUND_ROBIN, ENDPOINTS, {}, turn)[0] for turn in range(4)]
    assert firsts == [A, B, C, A]
    assert order(Policy.ROUND_ROBIN, ENDPOINTS, {}, 2) == [C, A, B]


def test_random_shuffles() -> None:
    assert order(Policy.RANDOM, ENDPOINTS, {}, 0, shuffled=lambda items: list(reversed(items))) == [C, B, A]
    assert sorted(order(Policy.RANDOM, ENDPOINTS, {}, 0), key=str) == sorted(ENDPOINTS, key=str)


def test_least_connections_looks_at_its_own_role_first_and_then_at_all() -> None:
    there = {A: Load(of_role=1, in_all=1), B: Load(of_role=0, in_all=3), C: Load(of_role=0, in_all=2)}
    assert order(Policy.LEAST_CONNECTIONS, ENDPOINTS, there, 0) == [C, B, A]


@given(st.integers(0, 40))
def test_least_connections_never_lets_two_brokers_differ_by_more_than_one(connections: int) -> None:
    places: list[NodeEndpoint] = []
    for _ in range(connections):
        places.append(order(Policy.LEAST_CONNECTIONS, ENDPOINTS, loads(places), 0)[0])
    counts = [places.count(endpoint) for endpoint in ENDPOINTS]
    assert max(counts) - min(counts) <= 1


@given(st.lists(st.sampled_from(ENDPOINTS), max_size=20))
def test_moves_to_relief_end_and_leave_brokers_that_differ_by_one_at_most(places: list[NodeEndpoint]) -> None:
    for _ in range(100):
        moves = [(i, rebalance_target(place, ENDPOINTS, loads(places))) for i, place in enumerate(places)]
        move = next(((i, target) for i, target in moves if target is not None), None)
        if move is None:
            break
        places[move[0]] = move[1]
    counts = [places.count(endpoint) for endpoint in ENDPOINTS]
    assert max(counts) - min(counts) <= 1


def test_a_connection_to_a_broker_that_is_not_offered_any_more_is_left_alone() -> None:
    assert rebalance_target(A, [B, C], {}) is None
