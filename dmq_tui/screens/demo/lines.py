"""A demo as lines of cells for its reading column: pure, and safe to show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dmq_core.demo.model import AnyDemo, DemoResult, StepResult, StepText
from dmq_core.presentation import Tone
from dmq_core.text import visible
from dmq_tui.render.format import Cell, Line

_HELD = {True: Cell("✓ held", Tone.GOOD), False: Cell("✗ not held", Tone.BAD)}


def step_page(words: StepText, result: StepResult | None, doing: str) -> list[Line]:
    """What is to be known of a step, what will be done, its claim, and what came of it."""
    return [
        (Cell(words.title, Tone.STRONG),),
        (),
        (Cell(words.explanation),),
        *_terms(words),
        (),
        *((Cell(f"  {line}", Tone.ACCENT),) for line in words.code.splitlines()),
        *_command(words.command),
        (),
        (Cell("Claim  ", Tone.QUIET), Cell(words.claim, Tone.STRONG)),
        *_outcome(result, doing),
    ]


def last_page(demo: AnyDemo, results: Sequence[StepResult]) -> list[Line]:
    """What to take home, once every step was done."""
    passed = all(result.passed for result in results)
    return [
        (
            _HELD[passed],
            Cell(f"  {demo.title}: {sum(r.passed for r in results)} of {len(results)} claims", Tone.STRONG),
        ),
        (),
        (Cell("What you saw  ", Tone.QUIET), Cell(demo.seen)),
        (),
        (Cell("When to use it  ", Tone.QUIET), Cell(demo.when)),
        (),
        (Cell("With dmq_core", Tone.QUIET),),
        *((Cell(f"  {line}", Tone.ACCENT),) for line in demo.code.strip().splitlines()),
        (),
        (Cell("Try it yourself  ", Tone.QUIET), Cell(demo.to_try)),
    ]


def ending_text(result: DemoResult) -> str:
    """What is said once a demo is over."""
    done = sum(step.passed for step in result.steps)
    what = f"Demo {result.demo}: {done} of {len(result.steps)} claims held"
    return f"{what}; left behind: {visible(result.left)}" if result.left else f"{what}; everything is removed."


def _terms(words: StepText) -> Iterator[Line]:
    if words.terms:
        yield ()
    for term, meaning in words.terms:
        yield (Cell(f"{term}  ", Tone.STRONG), Cell(meaning, Tone.QUIET))


def _command(command: str) -> Iterator[Line]:
    if command:
        yield ()
    for line in command.splitlines():
        yield (Cell(f"  $ {visible(line)}", Tone.QUIET),)


def _outcome(result: StepResult | None, doing: str) -> Iterator[Line]:
    if doing:
        yield (Cell(f"◐ {visible(doing)}", Tone.WARN),)
    elif result is not None:
        yield (_HELD[result.passed], Cell(f"  {visible(result.seen)}"), Cell(f"  {result.took_s:.1f} s", Tone.FAINT))
