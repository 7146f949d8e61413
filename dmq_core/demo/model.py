"""What a demo is: steps that explain, act, and check their claim on a live cluster; pure values.

A file in `demos` makes one `DEMO` of them; its context is a class of its own with the steps and checks as methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class Closeable(Protocol):
    """What the steps of a demo share while it runs."""

    def close(self) -> str:
        """Removes what the demo made; what stays and why (empty: nothing)."""
        ...


S = TypeVar("S", bound=Closeable)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a claim holds by what its check found on the live cluster, and that in words."""

    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class Focus:
    """What the console selects during a step; empty: no change. `tail` is an exchange, `pattern` its binding."""

    exchange: str = ""
    queue: str = ""
    node: str = ""
    tail: str = ""
    pattern: str = "#"


@dataclass(frozen=True, slots=True)
class DemoQuestion:
    """What a person is asked before the step; `usual` is the answer where there is no person.

    `choices` are the only answers, if there are any; `most` is how many characters one may have.
    """

    text: str
    usual: str
    choices: tuple[str, ...] = ()
    most: int = 60

    def objection(self, answer: str) -> str:
        """Why `answer` is not accepted, as a sentence; empty: it is."""
        if self.choices and answer not in self.choices:
            return f"Say {', '.join(self.choices)}."
        if not answer.strip():
            return "Say something."
        return f"At most {self.most} characters." if len(answer) > self.most else ""


@dataclass(frozen=True, slots=True)
class DemoStep(Generic[S]):
    """One step: what it explains, what it does, and what it claims.

    The source of `run` is shown as the code of the step, and `command` does the same in a shell; attributes of the
    context stand in its braces. `terms` are explained where they appear first. `check` asks the live cluster;
    `sabotage` breaks the claim after `run`, which proves that the check looks. A step can be repeated: `prepare`
    removes what is in its way, before `run` and without being shown. The answer to `ask` is `context.answer`.
    """

    title: str
    explanation: str
    run: Callable[[S], object]
    claim: str
    check: Callable[[S], CheckResult]
    sabotage: Callable[[S], object]
    command: str = ""
    terms: tuple[str, ...] = ()
    focus: Callable[[S], Focus] | None = None
    prepare: Callable[[S], object] | None = None
    ask: DemoQuestion | None = None


@dataclass(frozen=True, slots=True)
class Demo(Generic[S]):
    """A whole demo, named like its file; `takes_s` is about how long it runs without pauses for reading.

    `summary` is one line for lists. At its end: what was `seen`, `when` to use it, `code` that does it with `dmq_core`
    and runs as it stands against the cluster of `dmq start`, and something `to_try` oneself. `repair` undoes what
    the `sabotage` of a step did, before the next step. `focus` holds for every step that has none of its own.
    `breaks`: it takes nodes down, so the cluster has to be one that dmq made, of three nodes at least. `impact` says
    in a sentence what that does to clients of the cluster; `loses_majority`: for a while no majority is left;
    `keeps_nodes`: every node stays up, though clients notice what is done to the cluster.
    """

    title: str
    summary: str
    context: Callable[..., S]
    steps: tuple[DemoStep[S], ...]
    seen: str
    when: str
    code: str
    to_try: str
    takes_s: float
    repair: Callable[[S], object]
    focus: Callable[[S], Focus] | None = None
    breaks: bool = False
    loses_majority: bool = False
    keeps_nodes: bool = False
    impact: str = ""


AnyDemo = Demo[Any]


@dataclass(frozen=True, slots=True)
class StepText:
    """A step as it is shown before it is done; `terms` are pairs of a word and what it means."""

    number: int
    title: str
    explanation: str
    code: str
    command: str
    claim: str
    terms: tuple[tuple[str, str], ...] = ()
    ask: DemoQuestion | None = None
    focus: Focus = Focus()


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step: whether its claim held, what was seen, and the seconds that it took."""

    title: str
    claim: str
    passed: bool
    seen: str
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of a demo; `passed` only if every step was done and its claim held, and nothing was left behind."""

    demo: str
    steps: tuple[StepResult, ...]
    passed: bool
    left: str = ""
