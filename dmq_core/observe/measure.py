"""What figures tell only one after the other: rates from counters, and histories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dmq_core.management.models import EntityKey, ExchangeFigures, QueueFigures
from dmq_core.observe.figures import Figures
from dmq_core.observe.rates import Meters, ring

History = dict[EntityKey, tuple[float, ...]]


class Measuring:
    """Gives each reading the rates that its counters show since the readings before it.

    The broker's own rates are means of five seconds or more; they stand in until a counter was read twice.
    """

    def __init__(self) -> None:
        self._queues: Meters[EntityKey] = Meters()
        self._exchanges: Meters[EntityKey] = Meters()
        self._counted_at = 0.0
        self._exchanges_seen: tuple[ExchangeFigures, ...] = ()
        self.memory_history: dict[str, tuple[int, ...]] = {}

    def measured(self, figures: Figures) -> Figures:
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

    def _remember_memory(self, figures: Figures) -> None:
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
