"""A proof run: a load on a real cluster, faults in the middle of it, and an account of every message at the end.

result = ProofRun(cluster, scenario_of(Fault.KILL, "leader")).run_to_end()
print(result.verdict, result.max_confirm_gap_s)
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dmq_core.actions.action import Action
from dmq_core.actions.gate import guard_change
from dmq_core.cluster.protocol import Cluster, NodeChange, NodeState
from dmq_core.connection_manager import BrokerConnectionManager, ConnectionEvent, Role
from dmq_core.errors import ClusterError, ClusterNotFoundError, DmqError, MessagingError, NotReachableError
from dmq_core.progress import Progress, ProgressListener, no_progress
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import RunPhase, RunSetup
from dmq_core.proof.journal.retention import journals_folder, prune
from dmq_core.proof.judging.judge import judge
from dmq_core.proof.result import ProofResult, Verdict
from dmq_core.proof.run.broker_counters import CounterReader
from dmq_core.proof.run.client_events import ClientEventLog
from dmq_core.proof.run.cluster_recorder import ClusterRecorder
from dmq_core.proof.run.external_faults import ExternalClusterFaults, ExternalNodeFaults
from dmq_core.proof.run.fault_injection import FaultInjector, FaultOptions, FaultSequence, check
from dmq_core.proof.run.queue_checks import WELL_WITHIN_S, DepthProbe, cluster_health, leader_of
from dmq_core.proof.run.stream_end import StreamEnd
from dmq_core.proof.run.workload import (
    SETTLES_WITHIN_S,
    HandlerWrapper,
    Traffic,
    TrafficProgress,
    entities_of,
    unwrapped,
)
from dmq_core.proof.scenario import LOAD, Scenario, ScenarioStep

DECLARES_WITHIN_S: Final = 20.0
# One act on a node takes 60 s at most, an undo three of them; then the clients and the drain.
ENDS_WITHIN_S: Final = 300.0
_LOOK_S: Final = 0.1
_NOT_WELL: Final = "the cluster is not well, and a run on it was not forced"


@dataclass(frozen=True, slots=True)
class ProofOptions:
    """How a run may go: `journal` is the folder for its journal (None: that of dmq's state directory).

    `force` runs on a cluster that is not healthy, `allow_majority_loss` permits faults after which no majority is left.
    `parallel_faults` 0 begins each step at its time; with a number, so many steps at most are done at a time, each once
    the one before it is undone. `wrap_handler` gets each consumer's handler and gives the one that runs. A journal of
    `max_bytes` (None: no bound) ends the run in good order, as its time does; outcomes, and then deliveries, are waited
    for `settle_timeout_s` seconds each.
    """

    read_only: bool = False
    force: bool = False
    allow_majority_loss: bool = False
    journal: Path | None = None
    parallel_faults: int = 0
    wrap_handler: HandlerWrapper = unwrapped
    max_bytes: int | None = None
    settle_timeout_s: float = SETTLES_WITHIN_S


class ProofRun:
    """A run on its own thread, from `begin` to `finish`; nobody else may call it meanwhile.

    `RefusedError` and `InvalidInputError` come from `begin`, before anything is done. `told` hears of each fault as
    it begins, with the node that it is told of, and again (True) of what undoes it.
    """

    def __init__(
        self,
        cluster: Cluster,
        scenario: Scenario,
        options: ProofOptions | None = None,
        progress: ProgressListener = no_progress,
        told: Callable[[Action, str, bool], object] = lambda _action, _node, _is_undo: None,
    ) -> None:
        self._cluster = cluster
        self._scenario = scenario
        self._options = options or ProofOptions()
        self._progress = progress
        self._told = told
        self._run_id = secrets.token_hex(4)
        self._stopped = threading.Event()
        self._aborted = False
        # No join: one that is interrupted takes the thread for ended (Python 3.12 and before).
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proof run", daemon=True)
        self._traffic: Traffic | None = None
        self._node_faults: ExternalNodeFaults | None = None
        self._cluster_faults: ExternalClusterFaults | None = None
        self._journal_path: Path | None = None
        self._result: ProofResult | None = None
        self._error: BaseException | None = None
        self.client_events = ClientEventLog(scenario.workload.rate)
        self.problems: list[str] = []

    @property
    def is_load(self) -> bool:
        """Whether faults are left to others, and what they do is put down."""
        return self._scenario.name == LOAD

    @property
    def queue(self) -> str:
        """The name of its (first) queue."""
        return f"dmq.{LOAD if self.is_load else 'proof'}.{self._run_id}"

    @property
    def journal(self) -> Path | None:
        """Where the journal is; None before there is one."""
        return self._journal_path

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def progress(self) -> TrafficProgress | None:
        """How the traffic does, without waiting; None before there is any."""
        return None if self._traffic is None else self._traffic.progress()

    def begin(self) -> None:
        """Begins in the background, unless it may not be done."""
        guard_change("Proof", read_only=self._options.read_only)
        if not self._cluster.nodes():
            raise ClusterNotFoundError(
                f"there is no cluster called {self._cluster.name} here", "Make it with 'dmq start'."
            )
        if all(node.endpoint.amqp_port is None for node in self._cluster.nodes()):
            raise NotReachableError(f"no AMQP address of {self._cluster.name} is known", "Give an amqp:// URL as well.")
        for step in self._scenario.steps:
            check(self._cluster, step, self._fault_options)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end, `timeout_s` seconds at most; whether it has come."""
        return self._over.wait(timeout_s)

    def stop(self) -> None:
        """Asks it to undo its faults, drain, and end with what it has so far; does not wait."""
        self._stopped.set()

    def announce(self, action: Action) -> None:
        """Others are about to do an action on a node."""
        if self._node_faults is not None:
            self._node_faults.announce(action)

    def announce_failure(self, action: Action, why: str) -> None:
        """An act that was announced failed."""
        if self._node_faults is not None:
            self._node_faults.announce_failure(action, why)

    @property
    def cluster_faults(self) -> ExternalClusterFaults | None:
        """Records faults of the whole cluster that others do; None: this run does not."""
        return self._cluster_faults

    def stop_without_drain(self) -> None:
        """Asks it to undo its faults and to end without a drain; does not wait."""
        self._aborted = True
        self._stopped.set()

    def abort(self) -> None:
        """Ends it early and waits until its faults are undone, however often the wait is interrupted."""
        self.stop_without_drain()
        deadline = time.monotonic() + ENDS_WITHIN_S
        while self._thread.ident is not None and not self.is_over and time.monotonic() < deadline:
            # An impatient second Ctrl-C must not leave a node dead.
            with contextlib.suppress(BaseException):
                self._over.wait(_LOOK_S)

    def finish(self) -> ProofResult:
        """Waits for the end and gives the result; raises what kept the run from one."""
        longest = self._scenario.duration_s + max((s.undo_s or 0.0 for s in self._scenario.steps), default=0.0)
        if self._thread.ident is None:
            raise MessagingError("the run was never begun")
        self._over.wait(longest * 2 + ENDS_WITHIN_S)
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise ClusterError("the run does not end", "See what its nodes do with 'dmq status'.")
        return self._result

    def run_to_end(self, look: Callable[[ProofRun], None] | None = None) -> ProofResult:
        """Does the whole run and gives its result; `look` is called with it some times a second.

        Whatever ends it early, an interrupt included, is raised once every fault is undone and everything removed.
        """
        self.begin()
        try:
            while not self.wait(_LOOK_S):
                if look is not None:
                    look(self)
        except BaseException:
            self.abort()
            raise
        return self.finish()

    # On the run's own thread.

    @property
    def _fault_options(self) -> FaultOptions:
        return FaultOptions(self._options.read_only, self._options.allow_majority_loss, self._scenario.seed)

    def _run(self) -> None:
        try:
            self._result = self._run_and_judge()
        except BaseException as error:  # raised again by `finish`, on the caller's thread
            self._error = error
        finally:
            self._over.set()

    def _run_and_judge(self) -> ProofResult:
        self._progress(Progress("is the cluster well?"))
        snapshot, problems = cluster_health(self._cluster, 0.0 if self._options.force else WELL_WITHIN_S)
        setup = self._setup(snapshot.rabbitmq or "")
        path = self._path()
        with Journal.create(path, setup, on_failure=self._journal_failed) as journal:
            self._journal_path = path
            journal.append_health([n.name for n in snapshot.running], problems)
            if problems and not self._options.force:
                journal.append_phase(RunPhase.INTERRUPTED, _NOT_WELL)
            else:
                self._with_cluster(setup, journal)
        trouble = "" if journal.failure is None else journal.failure.what
        return _with_problems(judge(read_journal(path), trouble), self.problems)

    def _with_cluster(self, setup: RunSetup, journal: Journal) -> None:
        host = self._cluster.nodes()[0].endpoint.virtual_host
        declared = entities_of(setup, len(setup.nodes))
        self._progress(Progress("declaring the queue"))
        with self._manager("") as early:
            early.declare(*declared, timeout_s=DECLARES_WITHIN_S)
        recorder = ClusterRecorder(self._cluster, setup.queues, journal, len(setup.read_by), self._node_changed)
        if self.is_load:
            cluster_faults = self._cluster_faults = ExternalClusterFaults(journal, self._cluster, setup.queues[0], host)
            self._node_faults = ExternalNodeFaults(
                journal, str(self._cluster.backend), recorder.first_loss_at, cluster_faults.node_returned
            )
        try:
            self._ask_for_leader(recorder, setup.queues[0], host)
            recorder.await_feeds()
            leader = recorder.leader(setup.queues[0]) or ""
            with (
                self._manager(leader) as manager,
                # On the leader's node, so that its loss shows in redeliveries.
                self._manager(leader, first=True) if self.is_load else contextlib.nullcontext(manager) as consuming,
                CounterReader(self._cluster, journal) as counters,
            ):
                self._listen(manager, Role.PUBLISHING, recorder)
                self._listen(consuming, Role.CONSUMING, recorder)
                manager.declare(*declared, timeout_s=DECLARES_WITHIN_S)
                traffic = Traffic(
                    manager,
                    setup,
                    journal,
                    self._options.wrap_handler,
                    lambda: recorder.epoch(Role.CONSUMING),
                    consuming,
                    self.client_events,
                )
                self._under_load(setup, journal, recorder, traffic, counters)
        finally:
            recorder.close()
            self._node_faults = None
            if self._cluster_faults is not None:
                self._cluster_faults.stop()
            self._cluster_faults = None
            with DepthProbe(self._cluster, setup.queues, journal) as depth_probe:
                trouble = depth_probe.delete()
            if trouble:
                self.problems.append(trouble)

    def _ask_for_leader(self, recorder: ClusterRecorder, queue: str, virtual_host: str) -> None:
        try:
            recorder.note_leader(queue, leader_of(self._cluster, queue, virtual_host))
        except DmqError:
            # Without a fault nobody needs to know.
            if self._scenario.steps:
                raise

    def _under_load(
        self, setup: RunSetup, journal: Journal, recorder: ClusterRecorder, traffic: Traffic, counters: CounterReader
    ) -> None:
        self._traffic = traffic
        injector = FaultInjector(
            self._cluster,
            setup.queues[0],
            journal,
            recorder,
            self._fault_options,
            self._progress,
            counters.read,
            self._told,
        )
        parallel_faults: list[FaultSequence] = []
        try:
            traffic.open()
            counters.wait_read()
            journal.append_phase(RunPhase.BEGAN)
            traffic.begin()
            parallel_faults = self._start_faults(injector)
            self._await_end(traffic, parallel_faults, journal)
        finally:
            self._stop_faults(parallel_faults, injector)
            if self._aborted:
                journal.append_phase(RunPhase.INTERRUPTED, "by the user")
            traffic.stop_publishing(0.5 if self._aborted else self._options.settle_timeout_s)
            journal.append_phase(RunPhase.PUBLISHED)
            self._drain(setup, journal, traffic)
            counters.wait_read()
        for lane in parallel_faults:
            if lane.error is not None:
                raise lane.error
        # A journal that ends early still tells what is known, and that it is not all.
        if traffic.error is not None and journal.failure is None:
            raise traffic.error

    def _start_faults(self, injector: FaultInjector) -> list[FaultSequence]:
        steps, options, now = self._scenario.steps, self._options, time.monotonic()
        if options.parallel_faults:
            parts: list[tuple[ScenarioStep, ...]] = [
                steps[n :: options.parallel_faults] for n in range(options.parallel_faults)
            ]
        else:
            parts = [(step,) for step in steps]
        parallel_faults = [
            FaultSequence(injector, part, now, skips=options.parallel_faults > 0) for part in parts if part
        ]
        for lane in parallel_faults:
            lane.start()
        return parallel_faults

    def _await_end(self, traffic: Traffic, parallel_faults: list[FaultSequence], journal: Journal) -> None:
        """Waits until the time is up and every fault is undone, `stop` was called, or an error occurred."""
        began_at, most = time.monotonic(), self._options.max_bytes
        while not self._stopped.wait(_LOOK_S):
            is_full = most is not None and journal.size >= most
            is_late = is_full or time.monotonic() - began_at >= self._scenario.duration_s
            if traffic.error is not None or any(lane.error for lane in parallel_faults):
                return
            if is_late and self._options.parallel_faults:
                return
            if is_late and not any(lane.is_alive() for lane in parallel_faults):
                return

    def _stop_faults(self, parallel_faults: list[FaultSequence], injector: FaultInjector) -> None:
        for lane in parallel_faults:
            lane.stopped.set()
        deadline = time.monotonic() + ENDS_WITHIN_S
        for lane in parallel_faults:
            lane.join(max(0.1, deadline - time.monotonic()))
        self.problems += injector.problems

    def _drain(self, setup: RunSetup, journal: Journal, traffic: Traffic) -> None:
        """Lets the consumers take what is there, and reads on every node that nothing is left."""
        if self._aborted:
            traffic.stop_consuming()
            return
        self._progress(Progress("draining the queue"))
        is_drained = (self._read_streams if setup.reads_streams else self._empty_queues)(setup, journal, traffic)
        snapshot, problems = cluster_health(self._cluster, patience_s=0.0)
        journal.append_health([n.name for n in snapshot.running], problems)
        if is_drained:
            journal.append_phase(RunPhase.DRAINED)

    def _empty_queues(self, setup: RunSetup, journal: Journal, traffic: Traffic) -> bool:
        with DepthProbe(self._cluster, setup.queues, journal) as depth_probe:
            is_quiet = self._await_quiet(depth_probe, traffic)
            traffic.stop_consuming()
            return depth_probe.is_stably_empty() and is_quiet

    def _read_streams(self, setup: RunSetup, journal: Journal, traffic: Traffic) -> bool:
        def readers(stream: str) -> list[int]:
            return [number for number, queue in enumerate(setup.read_by) if queue == stream]

        with StreamEnd(self._cluster, setup, journal, traffic.end_marks, readers, traffic.publish_end_mark) as end:
            is_read = end.is_stably_empty(self._options.settle_timeout_s)
        traffic.stop_consuming()
        return is_read

    def _await_quiet(self, depth_probe: DepthProbe, traffic: Traffic) -> bool:
        """Whether everything came, or the queues read as empty three times a second apart with nothing coming."""
        deadline = time.monotonic() + self._options.settle_timeout_s
        zeros, before = 0, -1
        while time.monotonic() < deadline:
            if traffic.undelivered == 0 and zeros:
                return True
            counts = traffic.progress().counts
            seen = counts.delivered + counts.duplicates
            zeros = zeros + 1 if depth_probe.ready() == 0 and seen == before else 0
            before = seen
            if zeros >= 3:
                return True
            time.sleep(1.0 if zeros or traffic.undelivered else _LOOK_S)
        return False

    def _listen(self, manager: BrokerConnectionManager, role: Role, recorder: ClusterRecorder) -> None:
        def heard(event: ConnectionEvent) -> None:
            if event.role is role:
                recorder.connection_changed(event)
                self.client_events.connection_changed(event)

        manager.listen(heard)

    def _node_changed(self, change: NodeChange) -> None:
        node_faults, cluster_faults = self._node_faults, self._cluster_faults
        if node_faults is not None and cluster_faults is not None and not cluster_faults.is_leaving(change.node):
            node_faults.node_changed(change)

    def _manager(self, leader: str, *, first: bool = False) -> BrokerConnectionManager:
        """A manager that knows every node, the leader last: clients that keep away from it show its loss alone."""
        manager = BrokerConnectionManager(name="dmq proof")
        nodes = sorted(
            self._cluster.nodes(), key=lambda n: (n.state is not NodeState.RUNNING, (n.name == leader) is not first)
        )
        manager.register_nodes(nodes, self._cluster.credentials)
        return manager

    def _setup(self, rabbitmq: str) -> RunSetup:
        workload = self._scenario.workload
        workload = replace(workload, keys=max(workload.keys, workload.publishers))
        several = workload.exchange_type == "fanout"
        name = self.queue
        return RunSetup(
            run=self._run_id,
            backend=str(self._cluster.backend),
            rabbitmq=rabbitmq,
            fault=self._scenario.fault,
            target=self._scenario.target,
            nodes=tuple(node.name for node in self._cluster.nodes()),
            queues=(name, f"{name}.2") if several else (name,),
            keys=tuple(f"proof.{number}" for number in range(workload.keys)),
            workload=workload,
            seed=self._scenario.seed,
            every_queue=several,
            cluster=self._cluster.name,
        )

    def _path(self) -> Path:
        folder = (self._options.journal or journals_folder()).absolute()
        if self._options.journal is None:
            prune()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(f"{folder} cannot be made: {error.strerror}", "Name another with --journal.") from error
        return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{self._run_id}.journal"

    def _journal_failed(self, error: DmqError) -> None:
        if self._traffic is not None:
            self._traffic.fail(error)


def _with_problems(result: ProofResult, problems: Sequence[str]) -> ProofResult:
    """With something not undone or not removed there is no PASS, whatever became of the messages."""
    if not problems:
        return result
    verdict = Verdict.INCONCLUSIVE if result.verdict is Verdict.PASS else result.verdict
    return replace(result, verdict=verdict, reasons=(*problems, *result.reasons))
