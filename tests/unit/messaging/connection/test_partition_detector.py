"""When a node is left because it no longer reaches the queues that consumers wait for, by the clock a test gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dmq_core.messaging.connection.partition_detector import (
    ASK_EVERY_S,
    CALM_S,
    LONGEST_CALM_S,
    REPLY_LIMIT_S,
    SUSPICION_S,
    PartitionDetector,
)

TICK_S = 0.25
Answers = Callable[[str, float], int | None]


class Watched:
    """Ticks a watch as a connection does; `answers(queue, now)` gives the consumers counted, None for no answer."""

    def __init__(self, queues: list[str], answers: Answers) -> None:
        self.watch = PartitionDetector()
        self.watch.opened(0.0)
        self.queues = queues
        self.answers = answers
        self.now = 0.0
        self.asked: list[tuple[float, str]] = []
        self.left: list[tuple[float, str]] = []

    def run(self, seconds: float) -> Watched:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_S
            self._tick()
        return self

    def _tick(self) -> None:
        if self.watch.is_due(self.now) and (queue := self.watch.question(self.queues, self.now)):
            self.asked.append((self.now, queue))
            consumers = self.answers(queue, self.now)
            if consumers is not None:
                self.watch.answered(queue, consumers, self.now)
        if why := self.watch.why_leave(self.now):
            self.left.append((self.now, why))
            self.watch.left(self.now)
            self.watch.opened(self.now)


@given(cut_at=st.floats(3.0, 20.0), queues=st.integers(1, 40))
def test_a_node_that_reaches_no_leader_is_left_within_four_seconds(cut_at: float, queues: int) -> None:
    names = [f"q{number}" for number in range(queues)]
    # Every queue has been asked before, so that it is known to count its consumers.
    warm_s = ASK_EVERY_S * (queues + 1)
    watched = Watched(names, lambda _queue, now: 0 if now >= warm_s + cut_at else 1).run(warm_s + cut_at + 4.0)
    assert len(watched.left) == 1
    assert watched.left[0][0] >= warm_s + cut_at
    assert "no longer reaches the queue 'q" in watched.left[0][1]


@given(counts=st.lists(st.integers(1, 3), min_size=1, max_size=50))
def test_a_node_whose_queues_count_their_consumers_is_never_left(counts: list[int]) -> None:
    queues = [f"q{number}" for number in range(len(counts))]
    watched = Watched(queues, lambda queue, _now: counts[int(queue[1:])]).run(300.0)
    assert watched.left == []
    assert len(watched.asked) <= 300.0 / ASK_EVERY_S, "however many queues there are"


@given(blinks=st.sets(st.integers(2, 40), max_size=20))
def test_an_election_shorter_than_a_second_costs_nothing(blinks: set[int]) -> None:
    # Each blink lasts for less than two questions in a row.
    watched = Watched(["q"], lambda _queue, now: 0 if any(5 * b <= now < 5 * b + 0.9 for b in blinks) else 1)
    assert watched.run(220.0).left == []


def test_a_queue_that_never_counted_anybody_as_a_stream_does_not_says_nothing() -> None:
    assert Watched(["stream"], lambda _queue, _now: 0).run(120.0).left == []


def test_a_queue_that_answered_and_then_does_not_is_waited_for_three_seconds() -> None:
    watched = Watched(["q"], lambda _queue, now: 0 if now < 10 else None).run(16.0)
    [(at, _why)] = watched.left
    assert 10 + REPLY_LIMIT_S <= at <= 10 + ASK_EVERY_S + REPLY_LIMIT_S + TICK_S


def test_a_queue_that_never_answered_is_no_reason_to_leave() -> None:
    assert Watched(["q"], lambda _queue, _now: None).run(60.0).left == []


def test_a_queue_without_a_leader_anywhere_makes_consumers_move_ever_more_rarely() -> None:
    watched = Watched(["q"], lambda _queue, now: 0 if now >= 5 else 1).run(600.0)
    times = [at for at, _ in watched.left]
    pauses = [later - at for at, later in pairwise(times)]
    assert pauses[0] >= CALM_S
    assert all(later >= pause - TICK_S for pause, later in pairwise(pauses))
    assert max(pauses) <= LONGEST_CALM_S + ASK_EVERY_S + 2.0
    assert len(times) < 12


def test_a_deleted_queue_is_forgotten() -> None:
    watched = Watched(["q"], lambda _queue, _now: 1).run(10.0)
    assert watched.watch.is_due(watched.now + ASK_EVERY_S)
    watched.watch.question(["q"], watched.now + ASK_EVERY_S)
    watched.watch.refused()
    watched.answers = lambda _queue, _now: 0
    assert watched.run(30.0).left == [], "one that took its name may be a stream"


def test_a_doubt_counts_for_three_seconds_and_not_while_paused() -> None:
    watch = PartitionDetector()
    watch.opened(0.0)
    watch.suspect("it does not confirm", 10.0)
    assert watch.why_leave(10.0 + SUSPICION_S) == "it does not confirm"
    assert watch.why_leave(10.1 + SUSPICION_S) == ""
    watch.left(20.0)
    watch.opened(20.0)
    watch.suspect("it does not confirm", 25.0)
    assert watch.why_leave(25.0) == ""
