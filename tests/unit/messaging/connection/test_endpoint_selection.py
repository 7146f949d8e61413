"""Which endpoint comes next, and after what pause."""

from __future__ import annotations

import pytest

from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import InvalidInputError
from dmq_core.messaging.connection.endpoint_selection import LONGEST_PAUSE_S, PENALTY_S, EndpointSelector, describe

A, B, C = (NodeEndpoint("127.0.0.1", port, None) for port in (5672, 5673, 5674))


def longest(_low: float, high: float) -> float:
    return high


def test_the_given_order_holds_while_nothing_fails() -> None:
    assert EndpointSelector([B, A]).next(0.0) == B


def test_an_endpoint_that_failed_is_avoided_until_its_penalty_ends() -> None:
    dialer = EndpointSelector([A, B, C])
    dialer.failed(A, now=100.0)
    assert dialer.next(100.0) == B
    dialer.failed(B, now=101.0)
    assert dialer.next(101.0) == C
    assert dialer.next(100.0 + PENALTY_S) == A


def test_if_all_failed_the_one_whose_penalty_ends_first_is_tried() -> None:
    dialer = EndpointSelector([A, B, C])
    for now, endpoint in ((1.0, B), (2.0, A), (3.0, C)):
        dialer.failed(endpoint, now)
    assert dialer.next(3.0) == B


def test_there_is_a_better_endpoint_only_while_another_did_not_just_fail() -> None:
    dialer = EndpointSelector([A, B])
    assert dialer.has_better(A, 0.0)
    dialer.failed(B, now=100.0)
    assert not dialer.has_better(A, 100.0)
    assert dialer.has_better(B, 100.0)
    assert dialer.has_better(A, 100.0 + PENALTY_S)
    assert not EndpointSelector([A]).has_better(A, 0.0)


def test_one_round_goes_without_pause_and_later_ones_pause_up_to_two_seconds() -> None:
    dialer = EndpointSelector([A, B, C], uniform=longest)
    pauses = [dialer.failed(dialer.next(float(n)), float(n)) for n in range(30)]
    assert pauses[:3] == [0.0, 0.0, 0.1]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


def test_the_jitter_is_full() -> None:
    seen: list[tuple[float, float]] = []

    def note(low: float, high: float) -> float:
        seen.append((low, high))
        return low

    dialer = EndpointSelector([A], uniform=note)
    assert dialer.failed(A, 0.0) == 0.0
    assert seen == [(0.0, 0.1)]


def test_success_forgives_and_makes_pauses_short_again() -> None:
    dialer = EndpointSelector([A, B], uniform=longest)
    for now in range(10):
        dialer.failed(A, float(now))
    dialer.succeeded(A)
    assert dialer.next(10.0) == A
    assert dialer.failed(A, 10.0) == 0.0


def test_a_preference_orders_endpoints_but_does_not_override_a_penalty() -> None:
    dialer = EndpointSelector([A, B, C], prefer=lambda: [C])
    assert dialer.next(0.0) == C
    dialer.penalize(C, 0.0)
    assert dialer.next(0.0) == A


def test_a_preference_for_a_stranger_is_ignored() -> None:
    assert EndpointSelector([A], prefer=lambda: [B]).next(0.0) == A


def test_without_an_amqp_port_there_is_nothing_to_dial() -> None:
    with pytest.raises(InvalidInputError, match="no AMQP endpoint"):
        EndpointSelector([NodeEndpoint("127.0.0.1", None, 15672)])


def test_an_endpoint_is_described_with_its_virtual_host_made_visible() -> None:
    assert describe(A) == "127.0.0.1:5672"
    assert describe(NodeEndpoint("h", 1, None, virtual_host="a\x1b")) == "h:1 (a\\x1b)"
