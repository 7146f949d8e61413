"""A proof run in the hands of a test: it goes on while the test's own code runs, and fails with words that help."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from dmq_core.errors import MessagingError
from dmq_core.text import visible

if TYPE_CHECKING:
    from typing import Self

    from dmq_core.proof.result import ProofResult, Verdict
    from dmq_core.proof.run.run import ProofRun


class ProofBlock:
    """A run that begins with the `with` block and ends, faults undone, with it; `ClusterUnderTest.proof` makes it.

    Leaving the block waits for the end of the run; an error in the block ends it early. A failed
    `assert proof.verdict == "PASS"` shows the reasons, since they are in the repr.
    """

    def __init__(self, run: ProofRun) -> None:
        self._run = run
        self._result: ProofResult | None = None

    def __repr__(self) -> str:
        if self._result is None:
            return "<Proof, not ended>"
        reasons = " ".join(visible(reason) for reason in self._result.reasons)
        return f"<Proof {self._result.verdict}: {reasons} Journal: {visible(self._result.journal)}>"

    def __enter__(self) -> Self:
        self._run.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._run.abort()
            return
        try:
            self._result = self._run.finish()
        except BaseException:
            self._run.abort()
            raise

    @property
    def result(self) -> ProofResult:
        """Everything that the run found; `MessagingError` before its end."""
        if self._result is None:
            raise MessagingError("the proof has not ended", "Ask after the with block.")
        return self._result

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE, which are equal to texts of those letters."""
        return self.result.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in whole sentences."""
        return self.result.reasons

    def report(self, path: Path | str) -> None:
        """Writes the report that people read: HTML, or Markdown where the name ends in `.md`."""
        from dmq_core.proof.report.html_page import html
        from dmq_core.proof.report.markdown import markdown

        target = Path(path)
        render = markdown if target.suffix == ".md" else html
        target.write_text(render(self.result), encoding="utf-8")
