"""Messaging beside its peers on a running cluster: `python -m tests.perf.messaging [--rounds 5] [--only ROW]`.

Each row compares us with one peer in paired rounds: both work on the same queue of the same node one right after the
other, in turns who is first, so that only their ratio counts. A row's figure is the median of its rounds; the exit
status is 1 if one misses its limit. The peers are installed if they are missing. The row about memory starts a node of
its own in Docker.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.topology_commands import declare, delete_queue
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.topology.model import Queue
from tests.perf.blocked_memory import growth_mib
from tests.perf.peers.contestants import install, run
from tests.perf.peers.task import LIMIT_S, Sample, Task

SIZE = 100
RATE = 2000.0
COUNTS = {
    ("dmq", "publish"): 40_000,
    ("rabbitmq_c", "publish"): 40_000,
    ("aio_pika_tuned", "publish"): 8_000,
    ("pika_blocking", "publish"): 800,
    ("kombu_confirm", "publish"): 800,
    ("dmq", "consume"): 30_000,
    ("aio_pika_tuned", "consume"): 6_000,
    ("pika_blocking", "consume"): 10_000,
}
LATENCY_COUNT = 10_000
GROWTH_MIB = 8.0


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison; `limits` is what is allowed for each type of queue: at least, or for latency at most."""

    name: str
    role: str
    peer: str
    limits: dict[str, float]

    def figure(self, ours: Sample, theirs: Sample) -> float:
        """The ratio that counts: of the rates, or of the p99s."""
        return ours.p99_ms / theirs.p99_ms if self.role == "latency" else ours.rate / theirs.rate

    def holds(self, queue_type: str, figure: float) -> bool:
        """Whether that is allowed."""
        limit = self.limits[queue_type]
        return figure <= limit if self.role == "latency" else figure >= limit


ROWS = (
    Row("publish-pika", "publish", "pika_blocking", {"quorum": 15.0, "classic": 20.0}),
    Row("publish-kombu", "publish", "kombu_confirm", {"quorum": 15.0, "classic": 20.0}),
    Row("publish-aio-pika", "publish", "aio_pika_tuned", {"quorum": 4.0, "classic": 4.0}),
    Row("publish-rabbitmq-c", "publish", "rabbitmq_c", {"quorum": 0.9, "classic": 1.0}),
    Row("latency-rabbitmq-c", "latency", "rabbitmq_c", {"quorum": 1.2, "classic": 1.2}),
    Row("consume-pika", "consume", "pika_blocking", {"quorum": 4.0, "classic": 3.0}),
    Row("consume-aio-pika", "consume", "aio_pika_tuned", {"quorum": 6.0, "classic": 5.0}),
)
CPU_ROW = "publish-cpu"
CPU_LIMIT_US = 9.0
MEMORY_ROW = "blocked-memory"


@dataclass(slots=True)
class Results:
    """What was found: CPU per published message by type of queue, and the rows that missed their limits."""

    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def judge(self, name: str, said: str, holds: bool) -> None:
        """Prints a row's last line."""
        if not holds:
            self.missed.append(name)
        print(f"  {said}  {'holds' if holds else 'MISSED'}", flush=True)


class Bench:
    """Runs rows on one node."""

    def __init__(self, endpoint: NodeEndpoint, rounds: int) -> None:
        self._endpoint = endpoint
        self._rounds = rounds
        self._connection = Connection([endpoint], Credentials(), "dmq perf queues")
        self._connection.wait_open()
        self._producer = Publisher(self._connection)
        self.results = Results()

    def close(self) -> None:
        """Leaves the node as it was."""
        self._producer.close()
        self._connection.close()

    def compare(self, row: Row, queue_type: str) -> None:
        """One row on one type of queue: prints each round and the median."""
        print(f"{row.name} {queue_type}")
        figures: list[float] = []
        for turn in range(self._rounds):
            queue = f"dmq.perf.{secrets.token_hex(4)}"
            declare(self._connection, [Queue(queue, queue_type)], LIMIT_S)
            try:
                samples = {who: self._sample(row, who, queue) for who in _in_turn(("dmq", row.peer), turn)}
            finally:
                delete_queue(self._connection, queue, timeout_s=LIMIT_S)
            figures.append(row.figure(samples["dmq"], samples[row.peer]))
            print(f"  {_line('dmq', samples['dmq'])}   {_line(row.peer, samples[row.peer])}   {figures[-1]:.2f}")
            if row.role == "publish":
                self.results.cpu_us.setdefault(queue_type, []).append(samples["dmq"].cpu_us)
        median, sign = statistics.median(figures), "<=" if row.role == "latency" else ">="
        self.results.judge(
            f"{row.name} {queue_type}",
            f"{median:.2f} [{min(figures):.2f}..{max(figures):.2f}]  allowed {sign} {row.limits[queue_type]:g}",
            row.holds(queue_type, median),
        )

    def judge_cpu(self) -> None:
        """The client's CPU in all the publishing that was done."""
        for queue_type, spent in self.results.cpu_us.items():
            print(f"{CPU_ROW} {queue_type}")
            median = statistics.median(spent)
            self.results.judge(
                f"{CPU_ROW} {queue_type}",
                f"{median:.1f} us [{min(spent):.1f}..{max(spent):.1f}]  allowed <= {CPU_LIMIT_US:g}",
                median <= CPU_LIMIT_US,
            )

    def judge_memory(self) -> None:
        """How much a process grows while the broker blocks it and it offers all it can."""
        print(MEMORY_ROW)
        grown = growth_mib()
        self.results.judge(
            MEMORY_ROW, f"{grown:.1f} MiB more after a minute  allowed <= {GROWTH_MIB:g}", grown <= GROWTH_MIB
        )

    def _sample(self, row: Row, who: str, queue: str) -> Sample:
        count = LATENCY_COUNT if row.role == "latency" else COUNTS[who, row.role]
        if row.role == "consume":
            for _ in range(count):
                self._producer.send("", queue, b"x" * SIZE)
            self._producer.flush(LIMIT_S)
        host, port = self._endpoint.host, self._endpoint.amqp_port
        return run(who, Task(row.role, host, port, queue, count, SIZE, RATE))


def _in_turn(pair: tuple[str, str], turn: int) -> tuple[str, ...]:
    return pair if turn % 2 == 0 else pair[::-1]


def _line(who: str, sample: Sample) -> str:
    wait = f" p50 {sample.p50_ms:5.1f} p99 {sample.p99_ms:5.1f} ms" if sample.p99_ms else ""
    return f"{who} {sample.rate:7.0f}/s {sample.cpu_us:5.1f} us{wait}"


def _wanted(only: list[str] | None) -> Callable[[str], bool]:
    return lambda name: not only or any(part in name for part in only)


def main() -> int:
    """Measures the rows asked for; 1 if one misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint", nargs="?", default="127.0.0.1:5672", help="HOST:PORT of a node")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", help="a row, or part of its name with the type of the queue")
    asked = parser.parse_args()
    host, _, port = asked.endpoint.rpartition(":")
    wanted = _wanted(asked.only)
    install()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, messages of {SIZE} bytes")
    bench = Bench(NodeEndpoint(host, int(port), None), asked.rounds)
    for queue_type in ("quorum", "classic"):
        for row in ROWS:
            needed_for_cpu = wanted(CPU_ROW) and row.peer == "rabbitmq_c" and row.role == "publish"
            if needed_for_cpu or wanted(f"{row.name} {queue_type}"):
                bench.compare(row, queue_type)
    if wanted(CPU_ROW):
        bench.judge_cpu()
    bench.close()
    if wanted(MEMORY_ROW):
        bench.judge_memory()
    print("\n".join(["missed:", *bench.results.missed]) if bench.results.missed else "every limit holds")
    return int(bool(bench.results.missed))


if __name__ == "__main__":
    sys.exit(main())
