"""Runs the steps of a demo on a live cluster, and removes everything that it made."""

from __future__ import annotations

import inspect
import re
import shlex
import textwrap
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from dmq_core.actions.gate import guard, guard_change
from dmq_core.actions.impact import Count, Impact
from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.fault_guard import DemoLock
from dmq_core.demo.glossary import meaning
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoResult, DemoStep, Focus, StepResult, StepText
from dmq_core.errors import DmqError, InvalidInputError
from dmq_core.majority import margin_left
from dmq_core.settings.settings import on_cluster

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from dmq_core.demo.model import AnyDemo


def impact_of_demo(demo: AnyDemo, states: Iterable[NodeState]) -> Impact:
    """What running `demo` does to a cluster whose nodes are in these states."""
    known = tuple(states)
    voting = sum(state.votes for state in known)
    left = 0 if demo.loses_majority else voting if demo.keeps_nodes else voting - 1
    counted = Count.RUN if demo.keeps_nodes else Count.REMAIN_AT_WORST
    ending = "Whatever it does to the cluster is undone when the demo ends or is left."
    margin = margin_left(left, len(known))
    return Impact(margin, left, len(known), counted, summary=demo.impact, ending=ending)


S = TypeVar("S", bound=DemoContext)
Ask = Callable[[DemoQuestion], str]
LEAST_NODES = 3
_DOCSTRING = re.compile(r'^\s*""".*?"""\n', re.DOTALL)


def usual_answer(question: DemoQuestion) -> str:
    """The answer where there is no person to ask."""
    return question.usual


class DemoRun(Generic[S]):
    """One run of `demo`, called `name`, in `environment`; `close` removes all that it made.

    Of its methods only `close` may be called while another runs: it ends the waits of a step, and then the run.
    `RefusedError` if it may not run: the session is read-only, or the demo takes nodes down on a cluster that dmq did
    not make, or while another demo does.
    """

    def __init__(self, name: str, demo: Demo[S], environment: DemoEnvironment, ask: Ask = usual_answer) -> None:
        check_may_run(demo, environment)
        self.name = name
        self.demo = demo
        self._ask = ask
        self._context = demo.context(environment)
        self._nodes_turn = DemoLock(environment.cluster) if demo.breaks else None
        if demo.breaks:
            self._context.allow_faults(may_lose_majority=demo.loses_majority)
        self._results: dict[int, StepResult] = {}
        self._left: str | None = None
        self._running = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def prefix(self) -> str:
        """What the names of all exchanges and queues of this run begin with."""
        return self._context.prefix

    def step_text(self, index: int) -> StepText:
        """What is shown of a step before it runs."""
        step = self.demo.steps[index]
        if step.ask is not None and index not in self._results:
            self._context.answer = step.ask.usual
        focus = step.focus or self.demo.focus
        earlier = {term for before in self.demo.steps[:index] for term in before.terms}
        return StepText(
            number=index + 1,
            title=step.title,
            explanation=step.explanation,
            code=source_of(step.run),
            command=self._for_this_cluster(step.command.format_map(_Attributes(self._context))),
            claim=step.claim,
            terms=tuple((term, meaning(term)) for term in step.terms if term not in earlier),
            ask=step.ask,
            focus=Focus() if focus is None else focus(self._context),
        )

    def do(self, index: int, answer: str | None = None, *, sabotage: bool = False) -> StepResult:
        """Runs a step, or repeats it, and checks its claim; `InvalidInputError` if a step before it was not run yet.

        An error of the cluster is what was seen, and the claim does not hold. `answer` None: the person is asked.
        With `sabotage` the claim is broken before it is checked, which proves that the check looks.
        """
        if not 0 <= index < len(self.demo.steps):
            raise InvalidInputError(f"there is no step {index + 1}", f"The demo has {len(self.demo.steps)}.")
        if index > len(self._results):
            raise InvalidInputError(f"step {len(self._results) + 1} was not done yet", "Do the steps in their order.")
        step = self.demo.steps[index]
        if step.ask is not None:
            self._context.answer = self._ask(step.ask) if answer is None else answer
            if objection := step.ask.objection(self._context.answer):
                raise InvalidInputError(f"{step.ask.text} {objection}", "Answer again.")
        began_at = time.monotonic()
        with self._running:
            if self._left is not None:
                raise InvalidInputError(f"{self.demo.title} is over", "Begin it again.")
            seen = self._run_step(step, sabotage)
        result = StepResult(step.title, step.claim, seen.passed, seen.text, time.monotonic() - began_at)
        self._results[index] = result
        return result

    def close(self) -> DemoResult:
        """Ends the run and gives its result; may be called twice."""
        self._context.cancel_waits()
        with self._running:
            if self._left is None:
                self._left = self._closed()
        results = tuple(self._results[index] for index in sorted(self._results))
        whole = len(results) == len(self.demo.steps) and all(result.passed for result in results)
        return DemoResult(self.name, results, whole and not self._left, self._left)

    def _for_this_cluster(self, commands: str) -> str:
        """Commands, a line each, with the option for the cluster of the demo, unless it is an attached one."""
        cluster = self._context.cluster
        if cluster.backend is Backend.ATTACHED:
            return commands
        return "\n".join(on_cluster(line, cluster.name) for line in commands.splitlines())

    def _closed(self) -> str:
        try:
            return self._context.close()
        finally:
            if self._nodes_turn is not None:
                self._nodes_turn.end()

    def _run_step(self, step: DemoStep[S], sabotage: bool) -> CheckResult:
        try:
            if self._context.is_sabotaged:
                self._context.is_sabotaged = False
                self.demo.repair(self._context)
            if step.prepare is not None:
                step.prepare(self._context)
            self._context.before_step()
            step.run(self._context)
            if sabotage:
                step.sabotage(self._context)
                self._context.is_sabotaged = True
            return step.check(self._context)
        except DmqError as error:
            return CheckResult(False, f"{error.what}. {error.hint}".strip())


def check_may_run(demo: Demo[S], environment: DemoEnvironment) -> None:
    """Raises what keeps `demo` from running in `environment`: `RefusedError` or `InvalidInputError`."""
    guard_change(demo.title, read_only=environment.read_only)
    if demo.breaks:
        guard(environment.cluster, demo.title, read_only=environment.read_only)
        nodes = environment.cluster.nodes()
        running = sum(node.state is NodeState.RUNNING for node in nodes)
        if running < LEAST_NODES:
            raise InvalidInputError(
                f"{demo.title}: it takes nodes down, and {running} of {len(nodes)} run",
                f"Start a cluster of {LEAST_NODES} nodes or more with 'dmq start'.",
            )


def source_of(act: Callable[..., object]) -> str:
    """The body of a step's method as it is in its file, without `self.`, which a reader does not need."""
    lines, _ = inspect.getsourcelines(act)
    source = textwrap.dedent("".join(lines))
    body = source[source.index(":\n") + 2 :]
    return re.sub(r"\bself\.", "", textwrap.dedent(_DOCSTRING.sub("", body, count=1))).strip()


class _Attributes(dict[str, object]):
    """Attributes of a context by name, quoted for the commands of its steps."""

    def __init__(self, context: DemoContext) -> None:
        super().__init__()
        self._context = context

    def __missing__(self, name: str) -> object:
        return shlex.quote(str(getattr(self._context, name)))
