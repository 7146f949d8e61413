"""`dmq demo`: guided demos that check their own claims on the live cluster."""

from __future__ import annotations

import logging
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from dmq_core.actions.wording import text_of
from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options, yes_option
from dmq_core.cli.output import Output, confirm, painted
from dmq_core.cli.running import signals_ignored
from dmq_core.errors import InvalidInputError, RefusedError
from dmq_core.majority import Margin
from dmq_core.presentation import Tone
from dmq_core.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dmq_core.demo.context import DemoEnvironment
    from dmq_core.demo.model import AnyDemo, DemoQuestion, DemoResult, StepResult
    from dmq_core.demo.runner import DemoRun

ALL = "all"


@click.command(name="list")
@common_options
def list_demos(invocation: Invocation) -> None:
    """List the demos."""
    from dmq_core.demo.discovery import demo_names, find_demo

    demos = [(name, find_demo(name)) for name in demo_names()]
    if invocation.out.json:
        invocation.out.document(
            [
                {"name": name, "title": d.title, "summary": d.summary, "takes_s": d.takes_s, "breaks": d.breaks}
                for name, d in demos
            ]
        )
        return
    rows = [(name, f"{demo.takes_s:.0f} s", demo.summary) for name, demo in demos]
    invocation.out.table(["DEMO", ">TAKES", "WHAT YOU SEE"], rows)
    invocation.out.say("'dmq demo run NAME' runs one; the console has them, too.")


@click.command()
@click.argument("name")
@click.option("--through", is_flag=True, help="Do not wait for Enter between steps.")
@yes_option
@common_options
def run(invocation: Invocation, name: str, through: bool, yes: bool) -> int:
    """Run the demo NAME, or 'all' of them, on the live cluster.

    On a terminal it waits for Enter before each step. A demo that takes nodes down says so, and asks if no majority
    is left for a while; of 'all', those that may not run are left out. Ends with 0 if every claim held, and with 1 if
    not.
    """
    from dmq_core.demo.discovery import demo_names, find_demo

    names = demo_names() if name == ALL else (name,)
    demos = [(each, find_demo(each)) for each in names]
    cluster = connect.find_cluster(invocation.settings)
    out = invocation.out
    # What the library warns of is what is shown here on purpose.
    logging.getLogger().addHandler(logging.NullHandler())
    by_hand = not (through or out.json or name == ALL) and sys.stdin.isatty() and sys.stdout.isatty()
    results = []
    for each, demo in demos:
        with out.progress() as progress:
            environment = connect.environment(invocation.settings, cluster, progress)
            if _may_run(each, demo, environment, out, yes=yes, leave_out=name == ALL):
                results.append(_run_demo(each, demo, environment, out, by_hand))
    if out.json:
        documents = [_document(result) for result in results]
        out.document(documents if name == ALL else documents[0])
    elif name == ALL:
        _summary(out, results)
    return 0 if all(result.passed for result in results) else 1


def _may_run(
    name: str, demo: AnyDemo, environment: DemoEnvironment, out: Output, *, yes: bool, leave_out: bool
) -> bool:
    """Asks before a demo that takes nodes down; one that may not run is refused, or left out with a message."""
    from dmq_core.demo.fault_guard import DemoLock
    from dmq_core.demo.runner import check_may_run, impact_of_demo
    from dmq_core.demo.text import WIDTH

    if not demo.breaks:
        return True
    try:
        check_may_run(demo, environment)
        # Nobody is asked about what would be refused anyway.
        DemoLock(environment.cluster).end()
        impact = impact_of_demo(demo, [node.state for node in environment.cluster.nodes()])
        told = f"{demo.title} on {visible(environment.cluster.name)}: {text_of(impact)}"
        if impact.margin is Margin.NO_MAJORITY:
            confirm(told, yes=yes)
        else:
            out.say(textwrap.fill(told, WIDTH))
    except (InvalidInputError, RefusedError) as error:
        if not leave_out:
            raise
        out.say(f"{name} is left out: {error.what}")
        return False
    return True


def _run_demo(name: str, demo: AnyDemo, environment: DemoEnvironment, out: Output, by_hand: bool) -> DemoResult:
    from dmq_core.demo.runner import DemoRun, usual_answer
    from dmq_core.demo.text import closing, left_early, opening

    demo_run: DemoRun[Any] = DemoRun(name, demo, environment, _asked if by_hand else usual_answer)
    _write(out, opening(name, demo))
    try:
        for index in range(len(demo.steps)):
            if not _step(demo_run, index, out, by_hand):
                break
    finally:
        with signals_ignored():
            result = demo_run.close()
        if result.left:
            out.say(f"left behind: {visible(result.left)}")
    _write(out, closing(demo, result) if len(result.steps) == len(demo.steps) else left_early(demo, result))
    return result


def _step(demo_run: DemoRun[Any], index: int, out: Output, by_hand: bool) -> bool:
    """Runs one step, as often as is asked; whether to go on."""
    from dmq_core.demo.text import result_lines, step_lines

    _write(out, step_lines(demo_run.step_text(index), len(demo_run.demo.steps)))
    key = _key("Enter runs it, q leaves") if by_hand else ""
    while key != "q":
        result = demo_run.do(index)
        _write(out, _painted(result_lines(result), result))
        key = _key("Enter goes on, r repeats, q leaves") if by_hand else ""
        if key != "r":
            return key != "q"
    return False


def _document(result: DemoResult) -> dict[str, object]:
    """The result with the names that the command line's contract fixes."""
    steps = [
        {"title": s.title, "claim": s.claim, "held": s.passed, "seen": s.seen, "took_s": s.took_s} for s in result.steps
    ]
    return {"demo": result.demo, "steps": steps, "held": result.passed, "left": result.left}


def _write(out: Output, lines: Iterable[str]) -> None:
    if not out.json:
        for line in lines:
            out.text(line)


def _painted(lines: Iterable[str], result: StepResult) -> Iterable[str]:
    return (painted(line, Tone.GOOD if result.passed else Tone.BAD, sys.stdout) for line in lines)


def _key(hint: str) -> str:
    print(f"[{hint}] ", end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline()
    return said.strip().lower()[:1] if said else "q"


def _asked(question: DemoQuestion) -> str:
    while True:
        print(f"{question.text} [{question.usual}] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().strip() or question.usual
        objection = question.objection(answer)
        if not objection:
            return answer
        print(objection, file=sys.stderr)


def _summary(out: Output, results: list[DemoResult]) -> None:
    rows = [(r.demo, "held" if r.passed else "NOT HELD", str(len(r.steps))) for r in results]
    out.text("")
    out.table(["DEMO", "CLAIMS", ">STEPS"], rows)


demo = LazyGroup(
    name="demo",
    help="Run guided demos on the cluster; each checks its own claims.",
    entries={},
    commands=[list_demos, run],
)
