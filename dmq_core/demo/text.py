"""A demo as plain text, for a terminal, a file or a pipe; pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from dmq_core.demo.model import AnyDemo, DemoResult, StepResult, StepText
from dmq_core.text import visible

WIDTH = 96
_PASSED = {True: "✓ held", False: "✗ not held"}


def opening(name: str, demo: AnyDemo) -> Iterator[str]:
    """What the demo is about."""
    yield f"{demo.title}  ({name}, {len(demo.steps)} steps, about {demo.takes_s:.0f} s)"
    yield from _wrapped(demo.summary, "")


def step_lines(step: StepText, steps: int) -> Iterator[str]:
    """A step before it runs."""
    yield ""
    yield f"── {step.number}/{steps}  {step.title} ".ljust(WIDTH, "─")
    yield from _wrapped(step.explanation, "")
    for term, meaning in step.terms:
        yield from _wrapped(f"{term}: {meaning}", "  ")
    yield ""
    yield from (f"    {line}".rstrip() for line in step.code.splitlines())
    if step.command:
        yield ""
        yield from (f"    $ {visible(line)}" for line in step.command.splitlines())
    yield ""
    yield from _wrapped(f"Claim: {step.claim}", "")


def result_lines(result: StepResult) -> Iterator[str]:
    """The result of a step."""
    yield from _wrapped(f"{_PASSED[result.passed]}  {visible(result.seen)}", "")


def closing(demo: AnyDemo, result: DemoResult) -> Iterator[str]:
    """What is shown after the last step: what was seen, when to use it, and how."""
    yield ""
    yield f"── {_PASSED[result.passed]}  {demo.title} ".ljust(WIDTH, "─")
    for heading, text in (("What you saw", demo.seen), ("When to use it", demo.when)):
        yield from _wrapped(f"{heading}: {text}", "")
    yield "How to do it with dmq_core:"
    yield ""
    yield from (f"    {line}".rstrip() for line in demo.code.strip().splitlines())
    yield ""
    yield from _wrapped(f"Try it yourself: {demo.to_try}", "")


def left_early(demo: AnyDemo, result: DemoResult) -> Iterator[str]:
    """What is shown to a person who leaves before the last step."""
    yield ""
    removed = "" if result.left else "; everything that it made is removed"
    yield f"left after {len(result.steps)} of {len(demo.steps)} steps{removed}"


def _wrapped(text: str, indent: str) -> list[str]:
    step = " ".join(text.split())
    return textwrap.wrap(step, WIDTH, initial_indent=indent, subsequent_indent=indent + "  " * bool(indent))
