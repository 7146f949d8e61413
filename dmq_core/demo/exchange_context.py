"""What demos of exchanges have in common: they show which queues got a copy, and which got none."""

from __future__ import annotations

from typing import ClassVar

from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.model import CheckResult


class ExchangeContext(DemoContext):
    """An exchange and some queues, whose short names are `queues`; counts what waits in each before and after a step.

    `outcome` is what became of the message that the step published.
    """

    queues: ClassVar[tuple[str, ...]]

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.outcome = ""
        self.before: dict[str, int] = {}

    @property
    def waiting(self) -> dict[str, int]:
        """How many messages wait, by the queue's short name; -1 where there is no such queue."""
        return {name: self.ready(self.unique_name(name)) for name in self.queues}

    def before_step(self) -> None:
        """Notes how many messages wait."""
        self.before = self.waiting

    def queues_are_there(self) -> CheckResult:
        """Whether all queues are there."""
        waiting = self.waiting
        return CheckResult(
            min(waiting.values()) >= 0, ", ".join(f"{name} holds {count}" for name, count in waiting.items())
        )

    def got(self, *names: str) -> CheckResult:
        """Whether exactly these queues got one message since the step began."""
        wanted = {name: count + (name in names) for name, count in self.before.items()}
        passed = self.wait_until(lambda: self.waiting == wanted)
        now = self.waiting
        more = [f"{name} {now[name] - self.before[name]}" for name in self.queues if now[name] > self.before[name]]
        return CheckResult(passed, f"{self.outcome}; copies: {', '.join(more) or 'none'}")
