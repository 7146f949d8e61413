"""Paired rounds: ours and theirs in turn on the same node and queue, so that only their ratio counts."""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dmq_core.bench.pika_peer import PikaPeer
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import MessagingError, OperationTimeoutError
from dmq_core.messaging.connection.topology_commands import declare, delete_queue
from dmq_core.messaging.consuming.consumers import DirectConsumer
from dmq_core.messaging.messages import Outcome
from dmq_core.messaging.publishing.producers import DirectProducer
from dmq_core.messaging.topology.model import Queue
from dmq_core.progress import Progress, ProgressListener, no_progress

LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What is measured: messages in a round, their size in bytes, rounds, the type of the queue, the prefetch.

    Of the slow peer's messages a round has a tenth for publishing and a third for consuming.
    """

    messages: int = 10_000
    size: int = 100
    rounds: int = 3
    queue_type: str = "quorum"
    prefetch: int = 500


@dataclass(frozen=True, slots=True)
class Pair:
    """Messages a second, ours and pika's: medians of the rounds, and the median of the rounds' ratios."""

    dmq: float
    pika_blocking: float
    ratio: float


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was measured on which RabbitMQ."""

    rabbitmq: str
    settings: BenchSettings
    publish_confirmed: Pair
    consume_acked: Pair


def run_bench(
    manager: BrokerConnectionManager, settings: BenchSettings, progress: ProgressListener = no_progress
) -> BenchResult:
    """Measures on a queue of its own, which is deleted at the end, however it ends.

    `MessagingError` if a message is not confirmed; `OperationTimeoutError` if messages do not come within two minutes.
    """
    connection = manager.publishing()
    endpoint = connection.wait_open()
    credentials = next(broker.credentials for broker in manager.brokers if broker.endpoint == endpoint)
    queue = Queue(f"dmq.bench.{secrets.token_hex(4)}", settings.queue_type)
    declare(connection, [queue])
    peer = PikaPeer(endpoint, credentials, settings.prefetch)
    try:
        return _Bench(manager, queue.name, peer, settings, progress).run(connection.status.broker_version)
    finally:
        peer.close()
        delete_queue(connection, queue.name)
        manager.release(connection)


class _Bench:
    def __init__(
        self,
        manager: BrokerConnectionManager,
        queue: str,
        peer: PikaPeer,
        settings: BenchSettings,
        progress: ProgressListener,
    ) -> None:
        self._manager = manager
        self._queue = queue
        self._peer = peer
        self._settings = settings
        self._progress = progress
        self._body = b"x" * settings.size

    def run(self, rabbitmq: str) -> BenchResult:
        """Publishes and consumes in rounds; what one side of a round publishes is what it consumes."""
        publishing: list[tuple[float, float]] = []
        consuming: list[tuple[float, float]] = []
        few, some = max(1, self._settings.messages // 10), max(1, self._settings.messages // 3)
        with DirectProducer(connection_manager=self._manager) as producer:
            # What is done first pays for what both then find warm.
            self._publish(producer, few)
            self._peer.publish(self._queue, self._body, 50)
            self._consume(few + 50)
            for number in range(1, self._settings.rounds + 1):
                self._progress(Progress(f"round {number} of {self._settings.rounds}"))
                # Whoever consumes empties the queue, so nothing is left for the next.
                published = self._rate(self._settings.messages, lambda n: self._publish(producer, n))
                consumed = self._rate(self._settings.messages, self._consume)
                publishing.append(
                    (published, self._rate(few, lambda n: self._peer.publish(self._queue, self._body, n)))
                )
                self._consume(few)
                self._publish(producer, some)
                consuming.append((consumed, self._rate(some, lambda n: self._peer.consume(self._queue, n))))
        return BenchResult(rabbitmq, self._settings, _pair(publishing), _pair(consuming))

    def _rate(self, count: int, work: Callable[[int], None]) -> float:
        began = time.perf_counter()
        work(count)
        return count / (time.perf_counter() - began)

    def _publish(self, producer: DirectProducer, count: int) -> None:
        handles = [producer.publish(self._queue, self._body) for _ in range(count)]
        producer.flush(LIMIT_S)
        failed = next((h.result(0) for h in handles if h.done() and h.result(0).outcome != Outcome.CONFIRMED), None)
        if failed is not None:
            raise MessagingError(f"a message was not confirmed but {failed.outcome}: {failed.reason}")

    def _consume(self, count: int) -> None:
        left = count
        done = threading.Event()

        def handler(_message: object, _headers: object) -> bool:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()
            return True

        consumer = DirectConsumer(
            queue_name=self._queue, connection_manager=self._manager, prefetch=self._settings.prefetch
        )
        with consumer:
            consumer.start_consuming(handler)
            if not done.wait(LIMIT_S):
                raise OperationTimeoutError(
                    f"{left} of {count} messages did not come", "Is somebody else consuming there?"
                )


def _pair(rates: list[tuple[float, float]]) -> Pair:
    return Pair(
        dmq=statistics.median(ours for ours, _ in rates),
        pika_blocking=statistics.median(theirs for _, theirs in rates),
        ratio=statistics.median(ours / theirs for ours, theirs in rates),
    )
