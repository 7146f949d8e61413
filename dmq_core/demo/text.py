"""A demo told as plain text: lines to be read on a terminal, in a file or through a pipe; pure."""

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


def step_lines(words: StepText, steps: int) -> Iterator[str]:
    """A step before it is done."""
    yield ""
    yield f"── {words.number}/{steps}  {words.title} ".ljust(WIDTH, "─")
    yield from _wrapped(words.explanation, "")
    for term, meaning in words.terms:
        yield from _wrapped(f"{term}: {meaning}", "  ")
    yield ""
    yield from (f"    {line}".rstrip() for line in words.code.splitlines())
    if words.command:
        yield ""
        yield from (f"    $ {visible(line)}" for line in words.command.splitlines())
    yield ""
    yield from _wrapped(f"Claim: {words.claim}", "")


def result_lines(result: StepResult) -> Iterator[str]:
    """What came of a step."""
    yield from _wrapped(f"{_PASSED[result.passed]}  {visible(result.seen)}", "")


def closing(demo: AnyDemo, result: DemoResult) -> Iterator[str]:
    """What to take home."""
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
    """What is said to whoever leaves in the middle."""
    yield ""
    removed = "" if result.left else "; everything that it made is removed"
    yield f"left after {len(result.steps)} of {len(demo.steps)} steps{removed}"


def _wrapped(text: str, indent: str) -> list[str]:
    words = " ".join(text.split())
    return textwrap.wrap(words, WIDTH, initial_indent=indent, subsequent_indent=indent + "  " * bool(indent))
