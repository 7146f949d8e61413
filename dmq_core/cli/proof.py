"""`dmq proof`: a load, a fault in the middle of it, and what became of every message."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dmq_core.actions.catalog import PROOF_FAULTS
from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Decorated, Invocation, common_options
from dmq_core.cli.output import Output, painted
from dmq_core.cli.running import Terminated
from dmq_core.errors import ClusterError, InvalidInputError
from dmq_core.presentation import Tone, duration
from dmq_core.progress import Progress, ProgressListener
from dmq_core.proof.report.json_document import contract_json
from dmq_core.proof.report.wording import account_rows, headline, repeat_command, timeline_rows
from dmq_core.proof.result import ProofResult, Verdict
from dmq_core.settings.settings import DEFAULT_CLUSTER
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.proof.run.run import ProofRun
    from dmq_core.proof.run.workload import TrafficProgress
    from dmq_core.proof.scenario import Scenario

# The contract's exit statuses of verdicts.
_STATUS = {Verdict.PASS: 0, Verdict.FAIL: 4, Verdict.INCONCLUSIVE: 5}
_TONE = {Verdict.PASS: Tone.GOOD, Verdict.FAIL: Tone.BAD, Verdict.INCONCLUSIVE: Tone.WARN}
_KINDS = (".json", ".html", ".md")
_FAULTS = (*PROOF_FAULTS, "none")
_IDS_SHOWN = 10
_SUFFIXES = {"s": 1.0, "m": 60.0, "h": 3600.0}


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # generic for type checkers only
    """Seconds, or with a unit: 90, 90s, 30m, 2h."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        unit = _SUFFIXES.get(text[-1:], 0.0)
        try:
            seconds = float(text[:-1]) * unit if unit else float(text)
        except ValueError:
            seconds = 0.0
        if not 1 <= seconds <= 86_400:
            self.fail(f"{text!r} is no duration; give seconds, or 30m, or 2h (1 s to 24 h).", param, ctx)
        return seconds


def _shared(function: Decorated) -> Decorated:
    """The options of everything that runs a load."""
    options = (
        click.option(
            "--rate", type=click.FloatRange(0, 20_000, min_open=True), metavar="R", help="Messages per second."
        ),
        click.option("--size", type=click.IntRange(0, 1 << 20), metavar="BYTES", help="Size of each message."),
        click.option("--keys", type=click.IntRange(1, 1000), metavar="N", help="Number of routing keys."),
        click.option("--publishers", type=click.IntRange(1, 64), metavar="N", help="Number of publishers."),
        click.option("--consumers", type=click.IntRange(1, 64), metavar="N", help="Number of consumers."),
        click.option(
            "--handler-time", "handler_s", type=click.FloatRange(0, 1), metavar="S", help="Seconds per message."
        ),
        click.option(
            "--queue-type", type=click.Choice(["quorum", "classic", "stream"]), help="Queue type (default: quorum)."
        ),
        click.option(
            "--exchange-type", type=click.Choice(["direct", "topic", "fanout", "headers"]), help="Exchange type."
        ),
        click.option(
            "--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", help="Makes the random choices repeatable."
        ),
        click.option(
            "--report",
            "reports",
            type=click.Path(dir_okay=False, path_type=Path),
            multiple=True,
            metavar="FILE",
            help="Write a report (.json, .html or .md); repeatable.",
        ),
        click.option(
            "--journal",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Directory for the journal of all messages.",
        ),
        click.option("--force", is_flag=True, help="Run on an unhealthy cluster too; never a PASS."),
        click.option("--allow-majority-loss", is_flag=True, help="Allow faults that leave no majority of nodes."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@click.option("--fault", type=click.Choice(_FAULTS), help="Fault to cause (default: kill).")
@click.option("--target", metavar="WHO", help="Node to hit: leader (default), follower, connected, or a name.")
@click.option("--duration", type=_Seconds(), metavar="S", help="How long to publish: seconds, or 5m.")
@click.option(
    "--scenario", "scenario_name", metavar="NAME|FILE.toml", help="A scenario from 'dmq proof list', or a file."
)
@_shared
@common_options
def run(
    invocation: Invocation,
    fault: str | None,
    target: str | None,
    duration: float | None,
    scenario_name: str | None,
    **said: Any,
) -> int:
    """Cause a fault under load and account for every message.

    Publishers and consumers use a queue of their own while the fault is caused and undone. Exit status: 0 if every
    message is accounted for (PASS), 4 if not (FAIL), 5 if the run cannot tell (INCONCLUSIVE).
    """
    from dmq_core.proof.scenario import find_scenario, scenario_of

    if scenario_name is not None:
        if fault is not None or target is not None:
            raise InvalidInputError("a scenario names its own faults", "Leave out --fault and --target, or --scenario.")
        scenario = find_scenario(scenario_name)
        scenario = scenario if duration is None else dataclasses.replace(scenario, duration_s=duration)
    elif fault == "none":
        scenario = _nothing(duration or 10.0)
    else:
        scenario = scenario_of(fault or "kill", target or "leader", duration)
    return _prove(invocation, scenario, said)


@click.command()
@click.option(
    "--duration", type=_Seconds(), default=1800.0, metavar="S", help="How long: seconds, or 30m (default: 30m)."
)
@_shared
@common_options
def soak(invocation: Invocation, duration: float, **said: Any) -> int:
    """Cause one random fault after another and give one verdict at the end.

    A majority of nodes always stays up unless --allow-majority-loss is given. The same seed repeats the same faults.
    """
    from dmq_core.proof.soak import parallel_faults_for, soak_scenario

    cluster = connect.find_cluster(invocation.settings)
    seed = said["seed"] if said["seed"] is not None else int(time.time()) % 100_000
    nodes = len(cluster.nodes())
    scenario = soak_scenario(duration, seed, nodes, said["queue_type"] or "quorum")
    return _prove(invocation, scenario, {**said, "seed": seed}, parallel_faults=parallel_faults_for(nodes))


@click.command(name="list")
@common_options
def list_scenarios(invocation: Invocation) -> None:
    """List the built-in scenarios."""
    from dmq_core.proof.scenario import EXAMPLE, built_in_scenarios

    scenarios = built_in_scenarios().values()
    if invocation.out.json:
        invocation.out.document([dataclasses.asdict(scenario) for scenario in scenarios])
        return
    rows = [(s.name, f"{s.duration_s:g} s", s.title) for s in scenarios]
    invocation.out.table(["SCENARIO", ">TAKES", "WHAT"], rows)
    invocation.out.say("Run one with 'dmq proof run --scenario NAME', or write a file such as:\n")
    invocation.out.say(EXAMPLE)


@click.command(name="judge")
@click.argument("journal", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--report",
    "reports",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Write a report (.json, .html or .md); repeatable.",
)
@common_options
def judge_journal(invocation: Invocation, journal: Path, reports: tuple[Path, ...]) -> int:
    """Judge the JOURNAL of an earlier run, even of one that was killed."""
    from dmq_core.proof.journal.file import read_journal
    from dmq_core.proof.judging.judge import judge

    _check_reports(reports)
    return _tell(invocation.out, judge(read_journal(journal)), reports, "")


def _prove(invocation: Invocation, scenario: Scenario, said: dict[str, Any], *, parallel_faults: int = 0) -> int:
    from dmq_core.proof.run.run import ProofOptions, ProofRun
    from dmq_core.proof.scenario import checked_scenario

    reports: tuple[Path, ...] = said.pop("reports")
    _check_reports(reports)
    seed, journal, force, allowed = (said.pop(n) for n in ("seed", "journal", "force", "allow_majority_loss"))
    asked = {name: value for name, value in said.items() if value is not None}
    workload = dataclasses.replace(scenario.workload, **asked)
    scenario = dataclasses.replace(scenario, workload=workload, seed=scenario.seed if seed is None else seed)
    scenario = checked_scenario(scenario, scenario.name)
    options = ProofOptions(
        read_only=invocation.settings.read_only.value,
        force=force,
        allow_majority_loss=allowed,
        journal=journal,
        parallel_faults=parallel_faults,
    )
    cluster = connect.find_cluster(invocation.settings)
    # What the library warns of while nodes fail is what is asked for here, and told by the timeline.
    logging.getLogger().addHandler(logging.NullHandler())
    with invocation.out.progress() as progress:
        stage = _Stage(invocation.out, progress, scenario)
        proof = ProofRun(cluster, scenario, options, stage.hear)
        try:
            result = proof.run_to_end(stage.look)
        except (KeyboardInterrupt, Terminated):
            if proof.journal is not None:
                invocation.out.say(f"Its journal is kept: dmq proof judge {visible(str(proof.journal))}")
            raise
        finally:
            for trouble in proof.problems:
                invocation.out.say(visible(trouble))
    if not (force or result.account.attempted):
        invocation.out.say("See what is wrong with 'dmq doctor'; --force runs anyway.")
    name = invocation.settings.cluster.value
    command = repeat_command(result, scenario, "" if name == DEFAULT_CLUSTER else name, soak=parallel_faults > 0)
    return _tell(invocation.out, result, reports, command)


class _Stage:
    """Shows what a run is at: a line that moves on a terminal, and its steps as lines above it."""

    def __init__(self, out: Output, progress: ProgressListener, scenario: Scenario) -> None:
        self._out = out
        self._progress = progress
        self._scenario = scenario
        self._began = time.monotonic()
        self._now = ""

    def hear(self, progress: Progress) -> None:
        """A step has begun."""
        self._now = progress.text
        if self._out.live:
            self._out.say(f"{time.monotonic() - self._began:6.1f} s  {visible(progress.text)}")
        else:
            self._progress(progress)

    def look(self, proof: ProofRun) -> None:
        """Some time has passed."""
        progress = proof.progress()
        if self._out.live:
            words = self._now if progress is None else _standing_words(progress)
            self._progress(Progress(words))


def _standing_words(progress: TrafficProgress) -> str:
    counts = progress.counts
    return (
        f"confirmed {counts.confirmed:,}  delivered {counts.delivered:,}  redelivered {counts.redelivered:,}  "
        f"unknown {counts.unknown:,}  longest gaps {duration(progress.longest_confirm_gap_s)}, "
        f"{duration(progress.longest_delivery_gap_s)}"
    )


def _nothing(duration_s: float) -> Scenario:
    from dmq_core.proof.scenario import Scenario

    return Scenario("none", "A load, and nothing broken", (), duration_s)


def _check_reports(reports: tuple[Path, ...]) -> None:
    """A run of minutes must not end with a report that nobody can write."""
    for report in reports:
        if report.suffix not in _KINDS:
            raise InvalidInputError(
                f"{visible(str(report))} is no kind of report", f"Use the ending {', '.join(_KINDS)}."
            )
        if not report.absolute().parent.is_dir():
            raise InvalidInputError(f"there is no folder for {visible(str(report))}", "Create it first.")


def _write(report: Path, result: ProofResult, command: str) -> None:
    if report.suffix == ".html":
        from dmq_core.proof.report.html_page import html

        text = html(result, command)
    elif report.suffix == ".md":
        from dmq_core.proof.report.markdown import markdown

        text = markdown(result, command)
    else:
        text = json.dumps(contract_json(result), indent=2, allow_nan=False) + "\n"
    try:
        report.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ClusterError(
            f"{visible(str(report))} cannot be written: {error.strerror}", "Choose another file."
        ) from error


def _tell(out: Output, result: ProofResult, reports: tuple[Path, ...], command: str) -> int:
    for report in reports:
        _write(report, result, command)
    if out.json:
        out.document(contract_json(result))
    else:
        _summary(out, result)
    for report in reports:
        out.say(f"report: {visible(str(report))}")
    return _STATUS[result.verdict]


def _summary(out: Output, result: ProofResult) -> None:
    account, timeline = result.account, result.timeline
    out.text(painted(headline(result), _TONE[result.verdict], sys.stdout))
    for reason in result.reasons:
        out.text(f"  {visible(reason)}")
    out.text(
        f"attempted {account.attempted:,}  confirmed {account.confirmed:,}  delivered {account.delivered:,}  "
        f"redelivered {account.redelivered:,}  unknown {account.unknown:,}  lost {len(account.lost):,}"
    )
    for term in account_rows(result):
        if term.ids:
            more = len(term.ids) - _IDS_SHOWN
            shown = ", ".join(visible(i) for i in term.ids[:_IDS_SHOWN])
            out.text(f"{term.name}: {shown}{f' and {more:,} more' if more > 0 else ''}")
    out.text(
        f"longest gap: {duration(result.max_confirm_gap_s)} between confirms, "
        f"{duration(result.max_delivery_gap_s)} between deliveries"
    )
    said = [f"{m.name} {duration(m.after_s)}" for m in timeline_rows(timeline) if m.after_s is not None]
    if said:
        out.text(f"after the fault: {', '.join(said)}")
    if result.journal:
        out.text(f"journal: {visible(result.journal)}")


proof = LazyGroup(
    name="proof",
    help="Cause a fault under load and account for every message.",
    entries={},
    commands=[run, soak, list_scenarios, judge_journal],
)
