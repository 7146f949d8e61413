"""Where a stream is read on from: never behind what is done, never before what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.delivery.stream_offset import Offset, StreamPosition, checked_offset

MOMENT = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize("offset", ["first", "last", "next", 0, 2**62, MOMENT, "1h", "30s", "07D"])
def test_what_brokers_take_is_an_offset(offset: Offset) -> None:
    assert checked_offset(offset) == offset


@pytest.mark.parametrize(
    "offset", ["", "begin", "1x", "0s", "h", "1h30m", -1, 2**63, True, 1.5, None, datetime(2026, 1, 1), "9" * 30 + "s"]
)
def test_what_brokers_refuse_or_stumble_over_is_none(offset: Offset) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read from"):
        checked_offset(offset)


@pytest.mark.parametrize(
    ("offset", "later"),
    [
        ("first", "first"),
        (7, 7),
        (MOMENT, MOMENT),
        ("next", MOMENT),
        ("last", MOMENT),
        ("1h", MOMENT - timedelta(hours=1)),
        ("99999Y", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_place_that_moves_is_held_to_the_second_of_the_first_subscription(offset: Offset, later: Offset) -> None:
    position = StreamPosition(offset)
    assert position.start == offset
    position.subscribed(MOMENT.timestamp() + 0.9)
    position.subscribed(MOMENT.timestamp() + 60)
    assert position.start == later


def test_what_retention_took_before_it_was_handled_is_told_once() -> None:
    position = StreamPosition("first")
    position.subscribed(0)
    assert not position.missed(3), "a stream may begin anywhere"
    for offset in (3, 4, 5):
        position.delivered(offset)
    position.settle(3)
    position.subscribed(0)
    assert position.missed(9) == range(4, 9)
    position.delivered(9)
    assert not position.missed(20)
    assert position.start == 9


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
def test_it_is_read_on_from_the_lowest_offset_that_is_not_done(acts: list[tuple[bool, int]]) -> None:
    """However deliveries, answers and lost channels follow each other."""
    position = StreamPosition(0)
    following, highest, done = 0, -1, set[int]()
    for delivers, number in acts:
        if delivers:
            assert position.delivered(following) == (following <= highest)
            highest = max(highest, following)
            following += 1
        elif number <= highest:
            assert position.settle(number) == (number not in done)
            done.add(number)
        else:
            position.subscribed(0)
            start = position.start
            assert isinstance(start, int)
            following = start
        lowest = min((o for o in range(highest + 1) if o not in done), default=highest + 1)
        assert position.start == lowest
        assert all(position.is_settled(o) == (o in done) for o in range(highest + 3))
