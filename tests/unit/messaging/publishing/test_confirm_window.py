"""The confirm window: each publish comes out exactly once, whatever the broker answers and whenever it dies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dmq_core.messaging.publishing.confirm_window import ConfirmWindow


class AnyInterleaving(RuleBasedStateMachine):
    """Publishes, answers (true, repeated, forged, multiple) and loss in any order, against a plain set."""

    def __init__(self) -> None:
        super().__init__()
        self.window: ConfirmWindow[int] = ConfirmWindow()
        self.open: set[int] = set()
        self.came_out: list[int] = []
        self.published = 0
        self.sent_at: dict[int, float] = {}

    @rule(many=st.integers(0, 5))
    def publish(self, many: int) -> None:
        fresh = [self.published + n + 1 for n in range(many)]
        self.window.add(fresh, float(self.published))
        self.published += many
        self.sent_at.update(dict.fromkeys(fresh, float(self.published - many)))
        self.open.update(fresh)

    @rule(tag=st.integers(0, 40), multiple=st.booleans())
    def answer(self, tag: int, multiple: bool) -> None:
        expected = {n for n in self.open if tag in (0, n) or n < tag} if multiple else {tag} & self.open
        settled = self.window.settle(tag, multiple)
        assert settled == sorted(expected)
        self.open -= expected
        self.came_out += settled

    @rule(at=st.floats(100, 200))
    def start_the_clock_again(self, at: float) -> None:
        self.window.restart(at)
        self.sent_at.update(dict.fromkeys(self.open, at))

    @rule()
    def lose_the_channel(self) -> None:
        left = self.window.abandon()
        assert left == sorted(self.open)
        self.came_out += left
        # Whoever comes late finds nothing; the next channel has a window, and tags, of its own.
        assert self.window.settle(self.published, multiple=True) == []
        self.window, self.open, self.published = ConfirmWindow(), set(), 0
        self.came_out = []

    @invariant()
    def nothing_came_out_twice(self) -> None:
        assert len(self.came_out) == len(set(self.came_out))
        assert len(self.window) == len(self.open)
        assert list(self.window) == sorted(self.open)

    @invariant()
    def the_one_that_waited_longest_is_known(self) -> None:
        assert self.window.oldest_at == (self.sent_at[min(self.open)] if self.open else None)


TestAnyInterleaving = AnyInterleaving.TestCase


@given(st.lists(st.integers(1, 50), max_size=100))
def test_single_answers_in_any_order_leave_no_tombstones_at_the_front(tags: list[int]) -> None:
    window: ConfirmWindow[int] = ConfirmWindow()
    window.add(range(1, 51), 0.0)
    for tag in tags:
        window.settle(tag, multiple=False)
    remaining = sorted(set(range(1, 51)) - set(tags))
    assert next(iter(window), None) == (remaining[0] if remaining else None)
    assert window.abandon() == remaining
