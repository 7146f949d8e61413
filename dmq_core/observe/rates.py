"""Rates from counters, where a counter that falls begins a new epoch, and figures that carry them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from dmq_core.management.models import EntityKey, ExchangeFigures, QueueFigures
from dmq_core.observe.management_poll import ManagementFigures

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


History = dict[EntityKey, tuple[float, ...]]


class RateCalculator:
    """Gives each reading the rates that its counters show since the readings before it.

    The broker's own rates are means of five seconds or more; they stand in until a counter was read twice.
    """

    def __init__(self) -> None:
        self._queues: Meters[EntityKey] = Meters()
        self._exchanges: Meters[EntityKey] = Meters()
        self._counted_at = 0.0
        self._exchanges_seen: tuple[ExchangeFigures, ...] = ()
        self.memory_history: dict[str, tuple[int, ...]] = {}

    def measured(self, figures: ManagementFigures) -> ManagementFigures:
        """`figures` with rates, sorted by name."""
        if figures.counted_at > self._counted_at:
            self._counted_at = figures.counted_at
            self._queues.sample(figures.counted_at, {q.key: _counters(q) for q in figures.queues})
        if figures.exchanges is not self._exchanges_seen:
            self._exchanges_seen = figures.exchanges
            counters = {e.key: (e.published_in or 0, e.published_out or 0) for e in figures.exchanges}
            self._exchanges.sample(figures.taken_at, counters)
        self._remember_memory(figures)
        return replace(
            figures,
            queues=tuple(self._queue(q) for q in sorted(figures.queues, key=lambda q: q.key)),
            exchanges=tuple(self._exchange(e) for e in sorted(figures.exchanges, key=lambda e: e.key)),
        )

    def queue_history(self, queues: Iterable[QueueFigures]) -> History:
        """The last publish rates of each queue, oldest first."""
        return {q.key: self._queues.history(q.key) for q in queues}

    def _remember_memory(self, figures: ManagementFigures) -> None:
        for node in figures.nodes:
            if node.running and node.memory_bytes is not None:
                self.memory_history[node.name] = ring(self.memory_history.get(node.name, ()), [node.memory_bytes])

    def _queue(self, queue: QueueFigures) -> QueueFigures:
        rates = self._queues.rates(queue.key)
        if rates is None:
            return queue
        published, delivered, acked, redelivered = rates
        return replace(
            queue, publish_rate=published, deliver_rate=delivered, ack_rate=acked, redeliver_rate=redelivered
        )

    def _exchange(self, exchange: ExchangeFigures) -> ExchangeFigures:
        rates = self._exchanges.rates(exchange.key)
        if rates is None:
            return exchange
        return replace(exchange, publish_in_rate=rates[0], publish_out_rate=rates[1])


def _counters(queue: QueueFigures) -> tuple[int, int, int, int]:
    """What was counted; a queue through which nothing went yet has no counters, which is none of each."""
    return (queue.published or 0, queue.delivered or 0, queue.acked or 0, queue.redelivered or 0)
