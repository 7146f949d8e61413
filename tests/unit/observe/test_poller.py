"""The poller: never two polls at once, bounded in all it does."""

from __future__ import annotations

import threading
import time

import pytest

from dmq_core.errors import DmqError, NotReachableError
from dmq_core.observe.poller import Poller


class Source:
    """Something to read that counts its readers."""

    def __init__(self) -> None:
        self.calls = 0
        self.inside = 0
        self.most_inside = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def read(self) -> int:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.calls += 1
        self.gate.wait(5.0)
        self.inside -= 1
        if self.error is not None:
            raise self.error
        return self.calls


class Ears:
    def __init__(self) -> None:
        self.values: list[int] = []
        self.errors: list[DmqError] = []


def wait_for(condition: object, within: float = 3.0) -> None:
    deadline = time.monotonic() + within
    while not condition():  # type: ignore[operator]  # a callable
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(source: Source, ears: Ears, tick_s: float) -> Poller[int]:
    poller = Poller("test", source.read, ears.values.append, ears.errors.append, tick_s=tick_s)
    poller.start()
    return poller


def test_it_polls_at_once_and_every_tick() -> None:
    source, ears = Source(), Ears()
    poller = running(source, ears, 0.15)
    wait_for(lambda: len(ears.values) >= 3)
    poller.close()
    assert ears.values[:3] == [1, 2, 3]


def test_a_poke_ends_the_pause() -> None:
    source, ears = Source(), Ears()
    poller = running(source, ears, 60.0)
    wait_for(lambda: ears.values == [1])
    poller.poke()
    wait_for(lambda: ears.values == [1, 2])
    poller.close()


def test_polls_never_overlap_and_pokes_meanwhile_become_one_poll() -> None:
    source, ears = Source(), Ears()
    source.gate.clear()
    poller = running(source, ears, 60.0)
    wait_for(lambda: source.calls == 1)
    for _ in range(20):
        poller.poke()
    source.gate.set()
    wait_for(lambda: len(ears.values) == 2)
    poller.close()
    assert (source.most_inside, source.calls) == (1, 2)


@pytest.mark.parametrize("error", [NotReachableError("nobody answers"), ZeroDivisionError("a mistake of ours")])
def test_a_failing_source_is_told_and_asked_again_less_often(error: Exception) -> None:
    source, ears = Source(), Ears()
    source.error = error
    poller = running(source, ears, 0.1)
    wait_for(lambda: len(ears.errors) >= 3)
    calls, since = source.calls, time.monotonic()
    wait_for(lambda: source.calls >= calls + 1, 4.0)
    assert time.monotonic() - since > 0.2
    source.error = None
    poller.poke()
    wait_for(lambda: len(ears.values) >= 1)
    poller.close()
    assert all(isinstance(e, DmqError) for e in ears.errors)


def test_closing_does_not_wait_for_ever_and_nothing_is_told_afterwards() -> None:
    source, ears = Source(), Ears()
    source.gate.clear()
    poller = running(source, ears, 0.1)
    wait_for(lambda: source.calls == 1)
    started = time.monotonic()
    poller.close(0.3)
    assert time.monotonic() - started < 1.0
    source.gate.set()
    wait_for(lambda: source.inside == 0)
    assert ears.values == []
    poller.start()
    assert source.calls == 1
