"""Gaps and rates of a load, from the moments at which things happened; pure. Times are monotonic seconds."""

from __future__ import annotations

from collections import deque


class GapMeter:
    """The longest time for which something was expected and nothing arrived."""

    def __init__(self) -> None:
        self._waiting_since: float | None = None
        self.longest_s = 0.0

    def expect(self, now: float) -> None:
        """Something is expected from now on."""
        if self._waiting_since is None:
            self._waiting_since = now

    def arrived(self, now: float, more: bool) -> float:
        """One arrived, `more` are expected; gives the gap that it ended."""
        gap = self.current(now)
        self.longest_s = max(self.longest_s, gap)
        self._waiting_since = now if more else None
        return gap

    def current(self, now: float) -> float:
        """How long nothing has arrived so far."""
        return 0.0 if self._waiting_since is None else max(0.0, now - self._waiting_since)

    def longest_so_far(self, now: float) -> float:
        """The longest gap, the open one included."""
        return max(self.longest_s, self.current(now))


class RateHistory:
    """Events a second in slices of `slice_s` seconds, the last `slices` of them."""

    def __init__(self, started: float, slice_s: float = 0.5, slices: int = 240) -> None:
        self._started = started
        self._slice_s = slice_s
        self._slices = slices
        self._counts: deque[int] = deque([0])
        self._first = 0

    def add(self, now: float, number: int = 1) -> None:
        """Notes `number` events."""
        self._reach(now)
        self._counts[-1] += number

    def rates(self, now: float) -> tuple[float, ...]:
        """The rates of the whole slices, oldest first."""
        self._reach(now)
        return tuple(count / self._slice_s for count in list(self._counts)[:-1])

    def _reach(self, now: float) -> None:
        index = int(max(0.0, now - self._started) / self._slice_s)
        missing = index - (self._first + len(self._counts) - 1)
        for _ in range(min(missing, self._slices + 1)):
            self._counts.append(0)
        self._first = max(self._first, index + 1 - len(self._counts))
        while len(self._counts) > self._slices + 1:
            self._counts.popleft()
            self._first += 1
