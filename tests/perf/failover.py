"""How long clients wait at each fault: `python -m tests.perf.failover --cluster NAME [--runs 5] [--only FAULT]`.

Each row is `dmq proof run --fault F --target T --json` so many times on a running cluster, and shows the median (and
the worst) of its longest gaps in seconds. The table is Markdown; the exit status is 1 if a run does not PASS or a
median misses its limit, which holds for RabbitMQ 4.3 in Docker on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

RUN_WITHIN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Row:
    """A fault at a target, and the seconds that confirms and deliveries may pause (None: only measured)."""

    fault: str
    target: str = ""
    limit_s: float | None = None

    @property
    def name(self) -> str:
        """`kill leader`."""
        return f"{self.fault} {self.target}".rstrip()


@dataclass(frozen=True, slots=True)
class Run:
    """What one proof run found; gaps in seconds."""

    verdict: str
    lost: int
    confirm_gap_s: float
    delivery_gap_s: float
    elected_s: float | None
    redelivered: int
    where: str


ROWS: Final = (
    Row("kill", "leader", 0.8),
    Row("kill", "connected", 0.8),
    Row("kill", "follower"),
    Row("stop", "leader", 0.5),
    Row("stop", "connected", 0.5),
    Row("drain", "leader", 0.5),
    Row("drain", "connected", 0.5),
    Row("pause", "leader", 2.0),
    Row("pause", "connected", 3.0),
    Row("isolate", "leader", 2.5),
    Row("isolate", "connected"),
    Row("rolling", "", 1.0),
    Row("move-leader", "leader"),
    Row("rebalance"),
    Row("cut-link", "leader"),
    Row("slow-link", "leader"),
    Row("memory-alarm", "leader"),
    Row("disk-alarm", "leader"),
    Row("scale"),
)
HEAD: Final = (
    "fault",
    "verdict",
    "longest gap of confirms",
    "longest gap of deliveries",
    "new leader after",
    "redelivered",
)


def prove(row: Row, cluster: str) -> Run:
    """Does one run in a process of its own."""
    command = [sys.executable, "-c", "import sys; from dmq_core.cli import main; sys.exit(main())"]
    command += ["proof", "run", "--cluster", cluster, "--json", "--fault", row.fault]
    command += ["--target", row.target] if row.target else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False)
    if done.returncode not in (0, 4, 5):
        raise SystemExit(f"{row.name}: {done.stderr.strip()}")
    said: dict[str, Any] = json.loads(done.stdout)
    return Run(
        said["verdict"],
        len(said["lost"]),
        said["max_confirm_gap_s"],
        said["max_delivery_gap_s"],
        said["timeline"]["leader_elected_s"],
        said["redelivered"],
        f"{said['backend']}, RabbitMQ {said['rabbitmq']}",
    )


def misses(row: Row, runs: Sequence[Run], limited: bool) -> list[str]:
    """What of a row is not as it should be."""
    found = [f"{row.name}: {run.verdict}" for run in runs if run.verdict != "PASS"]
    for what, gaps in (("confirms", [r.confirm_gap_s for r in runs]), ("deliveries", [r.delivery_gap_s for r in runs])):
        median = statistics.median(gaps)
        if limited and row.limit_s is not None and median > row.limit_s:
            found.append(f"{row.name}: {what} paused for {median:.2f} s, and {row.limit_s} s are allowed")
    return found


def cells(row: Row, runs: Sequence[Run]) -> tuple[str, ...]:
    """A row of the table."""
    verdicts = sorted({run.verdict for run in runs})
    elected = [run.elected_s for run in runs if run.elected_s is not None]
    return (
        row.name,
        ", ".join(verdicts),
        _seconds([run.confirm_gap_s for run in runs]),
        _seconds([run.delivery_gap_s for run in runs]),
        _seconds(elected) if elected else "–",
        f"{statistics.median(run.redelivered for run in runs):.0f}",
    )


def _seconds(values: Iterable[float]) -> str:
    known = sorted(values)
    return f"{statistics.median(known):.2f} s ({known[-1]:.2f})"


def main() -> int:
    """Runs the rows and tells what misses."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--cluster", default="dmq")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="a fault, or 'fault target'")
    options = parser.parse_args()
    wrong: list[str] = []
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    where = ""
    for row in ROWS:
        if options.only and not {row.fault, row.name} & set(options.only):
            continue
        runs = [prove(row, options.cluster) for _ in range(options.runs)]
        where = runs[0].where
        lines.append(f"| {' | '.join(cells(row, runs))} |")
        sys.stderr.write(f"{lines[-1]}\n")
        wrong += misses(row, runs, where.startswith("docker, RabbitMQ 4.3"))
    sys.stdout.write(f"{where}, median (worst) of {options.runs}\n\n" + "\n".join(lines) + "\n")
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
