"""Acknowledgements are joined, but never past a delivery that is still running."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmq_core.messaging.delivery.ack_tracker import Ack, AckTracker

MOVES = st.lists(
    st.one_of(
        st.just(("deliver", 0)),
        st.tuples(st.sampled_from(["ack", "reject"]), st.integers(1, 30)),
        st.just(("flush", 0)),
    ),
    max_size=120,
)


def acknowledged(sent: list[Ack], open_tags: set[int]) -> set[int]:
    """What a broker would take for acknowledged, and a protocol error for an ack of nothing."""
    covered: set[int] = set()
    for ack in sent:
        hit = {t for t in open_tags if t <= ack.tag} if ack.multiple else {ack.tag} & open_tags
        assert ack.tag in hit, f"{ack} acknowledges nothing: the broker would close the channel"
        covered |= hit
        open_tags -= hit
    return covered


@given(MOVES)
def test_what_is_sent_acknowledges_exactly_what_was_acknowledged(moves: list[tuple[str, int]]) -> None:
    book = AckTracker()
    delivered = 0
    at_broker: set[int] = set()
    wanted: set[int] = set()
    for move, tag in moves:
        if move == "deliver":
            delivered += 1
            book.delivered(delivered)
            at_broker.add(delivered)
        elif move == "ack":
            if book.ack(tag):
                wanted.add(tag)
        elif move == "reject":
            if book.settle(tag):
                at_broker.discard(tag)
        else:
            assert acknowledged(book.due(), at_broker) == wanted
            wanted.clear()
    assert acknowledged(book.due(), at_broker) == wanted
    assert book.running == len(at_broker)


def test_a_running_sibling_holds_the_joined_ack_back_and_the_others_go_alone() -> None:
    book = AckTracker()
    for tag in range(1, 7):
        book.delivered(tag)
    for tag in (1, 2, 4, 6):
        book.ack(tag)
    assert book.due() == [Ack(2, True), Ack(4, False), Ack(6, False)]
    book.ack(3)
    assert book.due() == [Ack(3, True)]
    book.ack(5)
    assert book.due() == [Ack(5, True)]


def test_a_prefix_of_rejections_alone_sends_nothing() -> None:
    book = AckTracker()
    book.delivered(1)
    assert book.settle(1)
    assert book.due() == []


def test_nothing_is_answered_twice_or_before_it_came() -> None:
    book = AckTracker()
    assert not book.ack(1)
    book.delivered(1)
    assert book.ack(1)
    assert not book.ack(1)
    assert not book.settle(1)
    assert book.due() == [Ack(1, True)]
    assert not book.ack(1)
