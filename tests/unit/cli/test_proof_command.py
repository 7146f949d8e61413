"""`dmq proof`: its options, exit statuses, reports and words, without a broker."""

from __future__ import annotations

import _thread
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from proof_samples import failed, passed

from dmq_core.cli import connect
from dmq_core.cli.app import dmq
from dmq_core.cli.running import run
from dmq_core.cluster.protocol import Backend, Cluster, NodeAction
from dmq_core.progress import ProgressListener
from dmq_core.proof.journal.file import Journal
from dmq_core.proof.journal.records import RunSetup
from dmq_core.proof.result import ProofResult, Verdict
from dmq_core.proof.run.run import ProofOptions, ProofRun
from dmq_core.proof.scenario import Scenario
from dmq_core.testing import FakeCluster, SimBroker

Prove = Callable[..., int]


class Runs:
    """Takes the place of real runs: what was to be run, and what comes of it."""

    def __init__(self) -> None:
        self.result: ProofResult | BaseException = passed()
        self.scenarios: list[Scenario] = []
        self.options: list[ProofOptions] = []

    def make(self, _cluster: Cluster, scenario: Scenario, options: ProofOptions, _hear: ProgressListener) -> Runs:
        self.scenarios.append(scenario)
        self.options.append(options)
        return self

    journal = Path("the.journal")
    problems = ("rmq2 is not back: no luck; 'dmq node start rmq2' tries again",)

    def run_to_end(self, _look: object) -> ProofResult:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(SimBroker("dmq", 3, backend=Backend.DOCKER, started=True, realtime=False))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr("dmq_core.proof.run.run.ProofRun", runs.make)
    return runs


@pytest.fixture
def proof(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prove:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("DMQ_CLUSTER", "DMQ_URL", "DMQ_PROFILE", "DMQ_READ_ONLY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connect, "find_cluster", lambda _settings: cluster)
    return lambda *arguments: run(dmq, "dmq", ("proof", *arguments))


@pytest.mark.parametrize(
    ("verdict", "status"), [(Verdict.PASS, 0), (Verdict.FAIL, 4), (Verdict.INCONCLUSIVE, 5)], ids=str
)
def test_the_verdict_is_the_exit_status(proof: Prove, runs: Runs, verdict: Verdict, status: int) -> None:
    runs.result = replace(passed(), verdict=verdict)
    assert proof("run") == status


def test_the_document_is_the_only_thing_on_stdout(proof: Prove, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert proof("run", "--json") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["verdict"], document["lost"], document["unknown"]) == ("PASS", [], 12)
    assert document["duplicates"] == {"redelivery": 58, "republish": 0, "retry_handoff": 0, "unexplained": 0}
    assert "rmq2 is not back" in err


def test_people_read_the_verdict_the_reasons_and_the_ids(
    proof: Prove, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.result = failed()
    assert proof("run") == 4
    out = capsys.readouterr().out
    assert out.startswith("FAIL: ")
    assert "lost: k3-000412, k5-000007" in out
    assert "longest gap: 0.51 s between confirms, 0.66 s between deliveries" in out


def test_every_kind_of_report_is_written(proof: Prove, runs: Runs, tmp_path: Path) -> None:
    kinds = [tmp_path / f"report.{kind}" for kind in ("json", "html", "md")]
    arguments = [word for path in kinds for word in ("--report", str(path))]
    assert proof("run", "--cluster", "shop", "--duration", "20", *arguments) == 0
    document, page, text = (path.read_text() for path in kinds)
    assert json.loads(document)["confirmed"] == 9874
    for written in (page, text):
        assert "dmq proof run --cluster shop --fault kill --target leader --duration 20 --seed 7" in written


def test_what_was_asked_for_is_what_is_run(proof: Prove, runs: Runs) -> None:
    options = ("--fault", "pause", "--target", "rmq2", "--duration", "1m", "--rate", "50", "--seed", "9", "--force")
    assert proof("run", *options, "--queue-type", "classic", "--allow-majority-loss") == 0
    (scenario,), (chosen,) = runs.scenarios, runs.options
    (step,) = scenario.steps
    assert (step.fault, step.target, scenario.duration_s, scenario.seed) == (NodeAction.PAUSE, "rmq2", 60.0, 9)
    assert (scenario.workload.rate, scenario.workload.queue_type) == (50.0, "classic")
    assert chosen.force
    assert chosen.allow_majority_loss


def test_a_soak_goes_one_fault_after_another(proof: Prove, runs: Runs) -> None:
    assert proof("soak", "--duration", "10m", "--seed", "3") == 0
    (scenario,), (options,) = runs.scenarios, runs.options
    assert (scenario.duration_s, scenario.seed, options.parallel_faults) == (600.0, 3, 1)
    assert len(scenario.steps) > 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--report", "x.pdf"), "no kind of report"),
        (("run", "--report", "no/such/folder/x.html"), "no folder"),
        (("run", "--scenario", "kill-leader", "--fault", "stop"), "a scenario names its own faults"),
        (("run", "--scenario", "melt"), "no scenario 'melt'"),
        (("run", "--duration", "soon"), "no duration"),
        (("run", "--rate", "0"), "--rate"),
        (("run", "--fault", "melt"), "--fault"),
        (("judge", __file__), "no journal of a proof run"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_run(
    proof: Prove, runs: Runs, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert proof(*arguments) == 2
    assert said in capsys.readouterr().err
    assert runs.scenarios == []


def test_an_interrupt_ends_with_its_status_and_names_the_journal(
    proof: Prove, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.result = KeyboardInterrupt()
    assert proof("run") == 130
    assert "dmq proof judge the.journal" in capsys.readouterr().err


def test_read_only_forbids_it(proof: Prove, cluster: FakeCluster) -> None:
    assert proof("run", "--read-only") == 6
    assert proof("run", "--read-only", "--fault", "none") == 6


def test_somebody_elses_nodes_are_left_alone(monkeypatch: pytest.MonkeyPatch, proof: Prove) -> None:
    attached = FakeCluster(SimBroker("far", 3, backend=Backend.ATTACHED, started=True, realtime=False))
    monkeypatch.setattr(connect, "find_cluster", lambda _settings: attached)
    assert proof("run") == 6


def test_without_a_majority_to_lose_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, proof: Prove, capsys: pytest.CaptureFixture[str]
) -> None:
    single = FakeCluster(SimBroker("one", 1, backend=Backend.DOCKER, started=True, realtime=False))
    monkeypatch.setattr(connect, "find_cluster", lambda _settings: single)
    assert proof("run") == 6
    assert "--allow-majority-loss" in capsys.readouterr().err


def test_the_journal_of_a_killed_run_is_judged(
    proof: Prove, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "left.journal"
    with Journal.create(path, RunSetup(run="r", fault="kill", nodes=("rmq1",), queues=("q",), keys=("k",))) as journal:
        journal.append_attempts(0, [1, 2], [0, 0])
    assert proof("judge", str(path)) == 5
    assert capsys.readouterr().out.startswith("INCONCLUSIVE")


def test_the_scenarios_are_listed(proof: Prove, capsys: pytest.CaptureFixture[str]) -> None:
    assert proof("list") == 0
    out, err = capsys.readouterr()
    assert "kill-leader" in out
    assert "[[step]]" in err
    assert proof("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "kill-leader"


def test_a_run_that_cannot_begin_has_no_result(cluster: FakeCluster) -> None:
    proof_run = ProofRun(cluster, Scenario("none", "nothing", (), 1.0))
    assert not proof_run.is_over
    assert proof_run.progress() is None


def test_an_impatient_interrupt_does_not_end_the_wait_for_the_undoing(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone: list[bool] = []

    def slow_to_undo(proof_run: ProofRun) -> ProofResult:
        proof_run._stopped.wait(20)
        time.sleep(0.6)
        undone.append(True)
        return passed()

    monkeypatch.setattr(ProofRun, "_run_and_judge", slow_to_undo)
    timers = [threading.Timer(delay_s, _thread.interrupt_main) for delay_s in (0.2, 0.35, 0.5)]
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        ProofRun(cluster, Scenario("none", "nothing", (), 60.0)).run_to_end()
    assert undone == [True]
