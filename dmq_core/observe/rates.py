"""Rates from counters: pure arithmetic over samples, in which a counter that falls begins a new epoch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Counters = tuple[int, ...]
Rates = tuple[float, ...]

RING = 30
WINDOW_S = 3.0
# A counter that stood still for this many of its own steps has stopped.
PATIENCE = 2.0
SHORTEST_STEP_S = 1.0
LONGEST_STEP_S = 7.5


class _Steps:
    """One counter as the moments at which it was seen to move.

    Brokers move their counters in steps of up to five seconds, whatever flows meanwhile, so a rate is measured from
    step to step and not over a window of our own, in which there may be none or two.
    """

    __slots__ = ("_points", "_seen")

    def __init__(self, at: float, value: int) -> None:
        self._points = [(at, value)]
        self._seen = at

    def fell(self, at: float, value: int) -> bool:
        return at < self._seen or value < self._points[-1][1]

    def see(self, at: float, value: int) -> None:
        if value != self._points[-1][1]:
            if at - self._points[-1][0] > LONGEST_STEP_S:
                self._points = [(self._seen, self._points[-1][1])]
            self._points.append((at, value))
            while len(self._points) > 2 and at - self._points[1][0] >= WINDOW_S:
                del self._points[0]
        self._seen = at

    def rate(self) -> float:
        (then, before), (now, after) = self._points[0], self._points[-1]
        return 0.0 if now <= then or self._stands_still(self._seen) else (after - before) / (now - then)

    def _stands_still(self, at: float) -> bool:
        last = self._points[-1][0]
        step = last - self._points[-2][0] if len(self._points) > 1 else 0.0
        return at - last > PATIENCE * max(step, SHORTEST_STEP_S)


class Meter:
    """Turns samples of counters that only grow into rates in messages a second over the last three seconds or steps.

    Several counters are read together: if one falls, all begin anew, for their node's statistics did.
    """

    __slots__ = ("_steps", "history", "rates")

    def __init__(self) -> None:
        self._steps: tuple[_Steps, ...] = ()
        self.rates: Rates | None = None
        self.history: tuple[float, ...] = ()

    def sample(self, at: float, counters: Counters) -> None:
        """Notes the counters as they were at `at` (seconds); `rates` is None until a second sample of the epoch."""
        if not self._steps or any(step.fell(at, count) for step, count in zip(self._steps, counters, strict=True)):
            self._steps = tuple(_Steps(at, count) for count in counters)
            self.rates = None
            return
        for step, count in zip(self._steps, counters, strict=True):
            step.see(at, count)
        self.rates = tuple(step.rate() for step in self._steps)
        self.history = (*self.history[1 - RING :], self.rates[0])


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
