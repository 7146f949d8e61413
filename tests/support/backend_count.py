"""Says at the end of a test run how many tests ran on which backend, and fails a run that skipped a required one.

`DMQ_TEST_REQUIRE` names backends, separated by commas, on which at least one test must have run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator

import pytest

BACKENDS = ("docker", "local")
NO_NODES = "no nodes"


class BackendCount:
    """Counts the outcomes of tests by the backend whose nodes they use."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {place: Counter() for place in (*BACKENDS, NO_NODES)}

    def count(self, report: pytest.TestReport) -> None:
        """Counts one test, by its call, or by what kept it from being called."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[getattr(report, "place", NO_NODES)][report.outcome] += 1

    def missing(self) -> list[str]:
        """The required backends on which nothing ran."""
        required = [name.strip() for name in os.environ.get("DMQ_TEST_REQUIRE", "").split(",") if name.strip()]
        return [name for name in required if not self.ran(name)]

    def ran(self, place: str) -> int:
        """How many tests really ran there."""
        outcomes = self.outcomes.get(place, Counter())
        return outcomes["passed"] + outcomes["failed"]

    def lines(self) -> Iterator[str]:
        """The summary, a line for each backend."""
        for place, outcomes in self.outcomes.items():
            skipped = f", {outcomes['skipped']} skipped" if outcomes["skipped"] else ""
            failed = f", {outcomes['failed']} failed" if outcomes["failed"] else ""
            yield f"{place}: {self.ran(place)} tests ran{failed}{skipped}"


_COUNT = BackendCount()


def place_of(item: pytest.Item) -> str:
    """Where `item` runs."""
    return next((backend for backend in BACKENDS if item.get_closest_marker(backend)), NO_NODES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Writes into the report where its test ran: the process that counts may be another."""
    report = yield
    report.place = place_of(item)  # type: ignore[attr-defined]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts."""
    _COUNT.count(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that had to use a backend and did not is a failed run."""
    if hasattr(session.config, "workerinput"):
        return
    if exitstatus == pytest.ExitCode.OK and _COUNT.missing() and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes the count."""
    terminalreporter.section("tests by backend")
    for line in _COUNT.lines():
        terminalreporter.write_line(line)
    for name in _COUNT.missing():
        terminalreporter.write_line(f"DMQ_TEST_REQUIRE asks for {name}, and no test ran on it", red=True)
