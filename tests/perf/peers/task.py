"""What every contestant is asked, and what it answers: one task by command line, one line of JSON.

`python -m tests.perf.peers.NAME ROLE HOST PORT QUEUE COUNT SIZE RATE`, the C program alike.

Roles: `publish` COUNT persistent mandatory messages of SIZE bytes with confirms, as fast as it goes; `latency`: the
same at RATE a second, timed from when each was due; `consume` COUNT messages with manual acks and a prefetch of 500.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PREFETCH = 500
LIMIT_S = 120.0
WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked; `size` in bytes, `rate` in messages a second."""

    role: str
    host: str
    port: int
    queue: str
    count: int
    size: int
    rate: float

    @property
    def body(self) -> bytes:
        """A body of the size asked for."""
        return b"x" * self.size

    def arguments(self) -> list[str]:
        """The task as a command line."""
        return [str(value) for value in asdict(self).values()]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured: messages a second, CPU microseconds a message in all threads, milliseconds to the confirm."""

    rate: float
    cpu_us: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def asked() -> Task:
    """The task on our command line."""
    parser = argparse.ArgumentParser()
    for name in ("role", "host", "port", "queue", "count", "size", "rate"):
        parser.add_argument(name)
    given = vars(parser.parse_args())
    return Task(
        given["role"],
        given["host"],
        int(given["port"]),
        given["queue"],
        int(given["count"]),
        int(given["size"]),
        float(given["rate"]),
    )


class Meter:
    """Measures what happens between `start` and `tell`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.start()

    def start(self) -> None:
        """Begins, again if need be."""
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def tell(self, latencies_s: Sequence[float] = ()) -> None:
        """Prints the sample."""
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        waits = sorted(latencies_s) or [0.0]
        sample = Sample(
            self._count / seconds,
            cpu / self._count * 1e6,
            waits[len(waits) // 2] * 1e3,
            waits[int(len(waits) * 0.99)] * 1e3,
        )
        print(json.dumps(asdict(sample)), flush=True)
