"""Says at the end of a test run how many tests ran on which backend, and fails a run that skipped a required one.

`DMQ_TEST_REQUIRE` names backends, separated by commas, on which at least one test must have run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

BACKENDS = ("docker", "local")
NO_NODES = "no nodes"


class BackendCount:
    """Counts the outcomes of tests by the backend whose nodes they use."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {place: Counter() for place in (*BACKENDS, NO_NODES)}
        self._place: dict[str, str] = {}

    def note(self, item: pytest.Item) -> None:
        """Remembers where `item` runs."""
        self._place[item.nodeid] = next((b for b in BACKENDS if item.get_closest_marker(b)), NO_NODES)

    def count(self, report: pytest.TestReport) -> None:
        """Counts one test, by its call, or by what kept it from being called."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[self._place[report.nodeid]][report.outcome] += 1

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


def pytest_collection_finish(session: pytest.Session) -> None:
    """Learns which test runs where."""
    for item in session.items:
        _COUNT.note(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts."""
    _COUNT.count(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that had to use a backend and did not is a failed run."""
    if exitstatus == pytest.ExitCode.OK and _COUNT.missing() and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes the count."""
    terminalreporter.section("tests by backend")
    for line in _COUNT.lines():
        terminalreporter.write_line(line)
    for name in _COUNT.missing():
        terminalreporter.write_line(f"DMQ_TEST_REQUIRE asks for {name}, and no test ran on it", red=True)
