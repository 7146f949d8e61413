"""Rates from counters: pure arithmetic over samples, in which a counter that falls begins a new epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Counters = tuple[int, ...]
Rates = tuple[float, ...]

RING = 30
WINDOW_S = 3.0


class Meter:
    """Turns samples of counters that only grow into rates in messages a second over the last three seconds.

    Several counters are read together: if one falls, all begin anew, for their node's statistics did.
    """

    __slots__ = ("_samples", "history", "rates")

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counters]] = deque()
        self.rates: Rates | None = None
        self.history: tuple[float, ...] = ()

    def sample(self, at: float, counters: Counters) -> None:
        """Notes the counters as they were at `at` (seconds); `rates` is None until a second sample of the epoch."""
        if self._samples and self._begins_anew(at, counters):
            self._samples.clear()
        self._samples.append((at, counters))
        while len(self._samples) > 2 and at - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()
        self.rates = self._measured()
        if self.rates is not None:
            self.history = (*self.history[1 - RING :], self.rates[0])

    def _begins_anew(self, at: float, counters: Counters) -> bool:
        last_at, last = self._samples[-1]
        return at < last_at or any(now < then for now, then in zip(counters, last, strict=True))

    def _measured(self) -> Rates | None:
        (then, before), (now, after) = self._samples[0], self._samples[-1]
        if now <= then:
            return None
        return tuple((b - a) / (now - then) for a, b in zip(before, after, strict=True))


class Meters(Generic[K]):
    """A meter for each key; those of keys that are gone are forgotten."""

    def __init__(self) -> None:
        self._meters: dict[K, Meter] = {}

    def sample(self, at: float, counters: Mapping[K, Counters]) -> None:
        """Notes every counter as it was at `at` (seconds)."""
        self._meters = {key: self._meters.get(key) or Meter() for key in counters}
        for key, meter in self._meters.items():
            meter.sample(at, counters[key])

    def rates(self, key: K) -> Rates | None:
        """The rates of `key`, in the order of its counters; None while they are not known."""
        meter = self._meters.get(key)
        return None if meter is None else meter.rates

    def history(self, key: K) -> tuple[float, ...]:
        """The last thirty rates of the first counter of `key`, oldest first."""
        meter = self._meters.get(key)
        return () if meter is None else meter.history


def ring(history: tuple[int, ...], values: Iterable[int]) -> tuple[int, ...]:
    """`history` with `values` at its end, cut to the last thirty."""
    return (*history, *values)[-RING:]
