"""Within a key one message after the other, whatever fails, comes again or is lost on the way; keys side by side."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dmq_core.messaging.consuming import workers as queues
from dmq_core.messaging.consuming.workers import KeyedQueues, KeyQueue, WorkerPool

LIMIT = 3
LATE = 1e9


@dataclass(frozen=True)
class Parcel:
    """A delivery as a broker makes it: the same message may come as several."""

    key: str
    number: int
    returns: int = 0
    epoch: int = 0


class Broker:
    """A queue with one consumer: what is returned goes ahead, what is unanswered comes again on a new channel."""

    def __init__(self, keys: list[str], prefetch: int, counts_losses: bool) -> None:
        self.fresh = deque(Parcel(key, number) for number, key in enumerate(keys))
        self.returned: deque[Parcel] = deque()
        self.unanswered: dict[int, Parcel] = {}
        self.rejected: deque[Parcel] = deque()
        self.prefetch = prefetch
        self.counts_losses = counts_losses
        self.epoch = 0

    def deliver(self) -> Parcel | None:
        source = self.returned or self.fresh
        if not source or len(self.unanswered) >= self.prefetch:
            return None
        parcel = replace(source.popleft(), epoch=self.epoch)
        self.unanswered[parcel.number] = parcel
        return parcel

    def is_gone(self, parcel: Parcel) -> bool:
        return parcel.epoch != self.epoch

    def take_a_rejection(self) -> None:
        """What a consumer has rejected reaches the queue later than it was rejected."""
        if self.rejected:
            parcel = self.rejected.popleft()
            del self.unanswered[parcel.number]
            if parcel.returns < LIMIT:
                self.returned.append(replace(parcel, returns=parcel.returns + 1))

    def lose(self) -> None:
        self.rejected.clear()
        more = int(self.counts_losses)
        back = [replace(p, returns=p.returns + more) for _, p in sorted(self.unanswered.items())]
        self.unanswered.clear()
        self.returned = deque(sorted([*self.returned, *back], key=lambda p: p.number))
        self.epoch += 1

    @property
    def is_empty(self) -> bool:
        return not (self.fresh or self.returned or self.unanswered)


class Workers:
    """Takes from the queues and answers the broker, and watches that no key is handled out of its order."""

    def __init__(self, broker: Broker, keys: list[str], most: int) -> None:
        self.broker = broker
        self.keys = keys
        self.most = most
        self.queues: KeyedQueues[Parcel] = KeyedQueues(
            lambda new, old: (new.key, new.number) == (old.key, old.number) and new.returns > old.returns,
            broker.is_gone,
        )
        self.at_work: list[tuple[KeyQueue[Parcel], Parcel]] = []
        self.through: set[int] = set()
        self.answered: set[Parcel] = set()

    def take(self) -> None:
        taken = self.queues.take() if len(self.at_work) < self.most else None
        if taken is None:
            return
        queue, parcel = taken
        assert queue is not None
        assert parcel.key not in {p.key for _, p in self.at_work}, "two of one key at once"
        earlier = {n for n, key in enumerate(self.keys) if key == parcel.key and n < parcel.number}
        assert earlier <= self.through, f"{parcel} came before {earlier - self.through} were through"
        self.at_work.append((queue, parcel))

    def finish(self, which: int, fails: bool) -> None:
        if not self.at_work:
            return
        queue, parcel = self.at_work.pop(which % len(self.at_work))
        stale = self.broker.is_gone(parcel)
        comes_again = fails and not stale and parcel.returns < LIMIT
        if not fails or (not stale and not comes_again):
            self.through.add(parcel.number)
        if not stale:
            assert parcel not in self.answered, "answered twice"
            self.answered.add(parcel)
            if fails:
                self.broker.rejected.append(parcel)
            else:
                del self.broker.unanswered[parcel.number]
        self.queues.done(queue, LATE if comes_again else None)


MOVES = st.lists(
    st.one_of(
        st.just(("deliver", 0)),
        st.just(("take", 0)),
        st.tuples(st.sampled_from(["well", "fail"]), st.integers(0, 7)),
        st.just(("reject", 0)),
        st.just(("lose", 0)),
    ),
    max_size=200,
)


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    st.integers(1, 6),
    st.integers(1, 4),
    st.booleans(),
    MOVES,
)
def test_whatever_happens_each_key_is_handled_in_its_order_and_everything_is_handled(
    keys: list[str], prefetch: int, most: int, counts_losses: bool, moves: list[tuple[str, int]]
) -> None:
    broker = Broker(keys, prefetch, counts_losses)
    workers = Workers(broker, keys, most)

    def deliver() -> None:
        parcel = broker.deliver()
        if parcel is not None:
            workers.queues.add(parcel, parcel.key)

    for move, which in moves:
        event(move)
        acts: dict[str, Callable[[], None]] = {
            "deliver": deliver,
            "take": workers.take,
            "well": lambda w=which: workers.finish(w, fails=False),  # type: ignore[misc]  # a default binds it
            "fail": lambda w=which: workers.finish(w, fails=True),  # type: ignore[misc]
            "reject": broker.take_a_rejection,
            "lose": broker.lose,
        }
        acts[move]()
    for _ in range(10 * len(keys) + 10):
        broker.take_a_rejection()
        deliver()
        workers.take()
        workers.finish(0, fails=False)
    assert broker.is_empty
    assert workers.through == set(range(len(keys)))
    assert workers.queues.wake_at() is None


def held(order: KeyedQueues[Parcel], *parcels: Parcel) -> list[Parcel]:
    for parcel in parcels:
        order.add(parcel, parcel.key)
    taken = []
    while (head := order.take()) is not None:
        taken.append(head[1])
    return taken


def simple() -> KeyedQueues[Parcel]:
    return KeyedQueues(lambda new, old: new.number == old.number and new.returns > old.returns, lambda _item: False)


def test_one_of_each_key_is_handed_out_at_once() -> None:
    assert [p.number for p in held(simple(), *(Parcel(k, n) for n, k in enumerate("aabbca")))] == [0, 2, 4]


def test_without_keys_nothing_waits() -> None:
    order = simple()
    for number in range(3):
        order.add(Parcel("a", number))
    assert [order.take(), order.take(), order.take()] == [(None, Parcel("a", n)) for n in range(3)]
    assert order.take() is None


def test_one_that_comes_again_while_it_is_still_being_answered_goes_first() -> None:
    order = simple()
    order.add(Parcel("a", 1), "a")
    order.add(Parcel("a", 2), "a")
    queue, _ = order.take() or pytest.fail("nothing")
    order.add(Parcel("a", 1, returns=1), "a")
    assert queue is not None
    order.done(queue, LATE)
    assert order.take() == (queue, Parcel("a", 1, returns=1))


def test_a_message_that_never_comes_again_is_given_up_in_time_and_told() -> None:
    order = simple()
    order.add(Parcel("a", 1), "a")
    order.add(Parcel("a", 2), "a")
    queue, _ = order.take() or pytest.fail("nothing")
    assert queue is not None
    order.done(queue, 10.0)
    assert order.take() is None
    assert order.wake_at() == 10.0
    assert order.give_up_late(9.9) == []
    assert order.give_up_late(10.0) == [Parcel("a", 1)]
    assert order.take() == (queue, Parcel("a", 2))


class Bench:
    """Handles numbers, each held until its gate opens, and tells of some that they come again."""

    def __init__(self) -> None:
        self.gates: dict[int, threading.Event] = {}
        self.begun: list[int] = []
        self.missed: list[int] = []
        self.again: set[int] = set()

    def handle(self, number: int) -> bool:
        self.begun.append(number)
        if number in self.gates:
            self.gates[number].wait(10)
        return number not in self.again


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for gate in made.gates.values():
        gate.set()


def crew_of(bench: Bench, size: int) -> WorkerPool[int]:
    order: KeyedQueues[int] = KeyedQueues(lambda new, old: new == old, lambda _number: False)
    return WorkerPool("q", size, order, bench.handle, bench.missed.append)


def test_a_slow_key_does_not_hold_up_another(bench: Bench) -> None:
    bench.gates[1] = threading.Event()
    pool = crew_of(bench, 2)
    pool.add([(1, "slow"), (2, "slow"), (3, "quick"), (4, "quick")])
    until(lambda: bench.begun == [1, 3, 4])
    assert pool.is_busy
    bench.gates[1].set()
    until(lambda: bench.begun == [1, 3, 4, 2])
    until(lambda: not pool.is_busy)
    pool.stop()


def test_as_many_are_handled_at_once_as_there_are_threads(bench: Bench) -> None:
    bench.gates = {n: threading.Event() for n in range(3)}
    pool = crew_of(bench, 2)
    pool.add([(n, queues.NO_KEY) for n in range(3)])
    until(lambda: bench.begun == [0, 1] or bench.begun == [1, 0])
    bench.gates[1].set()
    until(lambda: 2 in bench.begun)
    pool.stop()


def test_a_stopped_pool_finishes_what_it_does_begins_nothing_more_and_leaves_no_thread(bench: Bench) -> None:
    bench.gates[1] = threading.Event()
    pool = crew_of(bench, 1)
    pool.add([(1, None), (2, None)])
    until(lambda: bench.begun == [1])
    pool.stop()
    assert not pool.wait(0.05)
    bench.gates[1].set()
    assert pool.wait(10)
    pool.add([(3, None)])
    until(lambda: not any(t.name.startswith("handle q") for t in threading.enumerate()))
    assert bench.begun == [1]


def test_what_waits_behind_a_message_that_was_lost_goes_on_after_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "RETURN_S", 0.05)
    bench.again.add(1)
    pool = crew_of(bench, 1)
    pool.add([(1, "a"), (2, "a")])
    until(lambda: bench.begun == [1, 2])
    assert bench.missed == [1]
    pool.stop()
