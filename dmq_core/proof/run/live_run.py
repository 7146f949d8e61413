"""A proof run or a load as a front end follows it: its counts as curves, what happens on them, and its reports."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.cluster.protocol import Cluster, NodeAction
from dmq_core.cluster.scaling.checks import lowest_free_name
from dmq_core.connection_manager import Role
from dmq_core.errors import DmqError
from dmq_core.observe.event_text import leader_text
from dmq_core.observe.events import ActionDetails, Event, LeaderDetails, Origin, Severity
from dmq_core.progress import Progress
from dmq_core.proof.progress import LoadAccount, ProofProgress, ProofReport
from dmq_core.proof.report.html_page import html
from dmq_core.proof.report.json_document import contract_json
from dmq_core.proof.report.wording import repeat_command
from dmq_core.proof.result import ProofResult, TimelineMark
from dmq_core.proof.run.live_curves import LiveCurves, with_result
from dmq_core.proof.run.run import ProofOptions, ProofRun
from dmq_core.proof.scenario import Scenario
from dmq_core.text import visible

_LOOK_S: Final = 0.05
# An hour in slices; a front end's runs are minutes. Of a load the last two minutes are shown.
_SLICES: Final = 14_400
_SLICES_OF_LOAD: Final = 480
_NODE_LEFT_SERVICE: Final = ("node_down", "node_paused", "node_isolated", "node_draining")
_CLOSES_WITHIN_S: Final = 4.0
_Recording = contextlib.AbstractContextManager[None]


class LiveProofRun:
    """A `ProofRun` that is looked at 20 times a second; satisfies `dmq_core.session.protocol.Proof`.

    `hear` gets an event for each fault as it begins and as it is undone, and for what its clients notice.
    """

    def __init__(
        self,
        cluster: Cluster,
        scenario: Scenario,
        options: ProofOptions,
        hear: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self._cluster = cluster
        self._scenario = scenario
        self._hear = hear
        self._run = ProofRun(cluster, scenario, options, self._note_activity, self._action_begun)
        self._lock = threading.Lock()
        self._curves: LiveCurves | None = None
        self._marks: list[TimelineMark] = []
        self._last_fault_mark: tuple[TimelineMark, str] | None = None
        self._activity = "is the cluster well?"
        self._is_stopping = False
        self._result: ProofResult | None = None
        self._run.begin()
        threading.Thread(target=self._follow, name="proof follower", daemon=True).start()

    def progress(self) -> ProofProgress:
        """How it does, without I/O."""
        with self._lock:
            planned_s, marks = self._scenario.duration_s, tuple(self._marks)
            running, queue, rate = not self._run.is_over, self._run.queue, self._scenario.workload.rate
            if self._curves is None:
                account, elapsed_s = LoadAccount(running, queue, rate, time.time()), 0.0
            else:
                account, elapsed_s = self._curves.account(queue, rate, running=running), self._curves.elapsed_s
            account = with_result(
                account,
                self._result,
                self._run.client_events.node_of(Role.PUBLISHING),
                self._run.client_events.node_of(Role.CONSUMING),
            )
            return ProofProgress(account, elapsed_s, planned_s, marks, self._activity, self._is_stopping)

    def recording(self, action: Action) -> _Recording:
        """An action that others do inside; a load has it in its account."""
        if isinstance(action.kind, NodeAction):
            return self._announced(action)
        if action.kind is Scaling.ADD and action.node is None:
            action = Action(Scaling.ADD, lowest_free_name([node.name for node in self._cluster.nodes()]))
        return self._recording_external(action)

    def heard(self, events: Iterable[Event]) -> None:
        """Notes the elections of its queue among what the session's observer tells."""
        for event in events:
            details = event.details
            if isinstance(details, LeaderDetails) and event.subject == self._run.queue:
                self._mark(event.at, "leader", leader_text(details))
            elif event.kind in _NODE_LEFT_SERVICE and event.origin is Origin.BROKER:
                self._move_fault_mark(event)

    def stop(self) -> None:
        """Asks it to undo its faults, drain, and end with what it has so far; does not wait."""
        with self._lock:
            self._is_stopping = True
        self._run.stop()

    def wait(self, timeout_s: float) -> bool:
        """Waits for its end, `timeout_s` seconds at most; whether it has come."""
        return self._run.wait(timeout_s)

    def finish(self) -> ProofReport:
        """Waits for its end, and writes its reports beside its journal."""
        result = self._run.finish()
        with self._lock:
            self._result = result
        files, trouble = self._written(result)
        return ProofReport(result, files, (*self._run.problems, *((trouble,) if trouble else ())))

    def close(self) -> None:
        """Asks it to end, a load without a drain, and waits for that a little; may be called twice."""
        if self._run.is_load:
            self._run.stop_without_drain()
        self.stop()
        self.wait(_CLOSES_WITHIN_S)

    def _note_activity(self, progress: Progress) -> None:
        with self._lock:
            self._activity = progress.text

    def _action_begun(self, action: Action, node: str, is_undo: bool) -> None:
        mark = self._mark(time.time(), "undo" if is_undo else "fault", visible(action.done))
        if not is_undo and mark is not None:
            self._last_fault_mark = (mark, node)
        severity = Severity.PLAIN if is_undo else Severity.FAULT
        details = ActionDetails(node, action.done)
        self._hear(Event(time.time(), Origin.YOU, severity, action.event_kind, node, details))

    @contextlib.contextmanager
    def _announced(self, action: Action) -> Iterator[None]:
        """An action on a node shows in its state; what it was is told before."""
        if self._run.is_load:
            self._run.announce(action)
            self._mark(time.time(), "fault" if action.destructive else "undo", visible(action.done))
        try:
            yield
        except DmqError as error:
            self._run.announce_failure(action, error.what)
            raise

    @contextlib.contextmanager
    def _recording_external(self, action: Action) -> Iterator[None]:
        cluster_faults = self._run.cluster_faults
        if cluster_faults is None:
            yield
            return
        if not action.ends_another:
            self._mark(time.time(), "fault", visible(action.done))
        with cluster_faults.recording_fault(action):
            yield
        if action.ends_another:
            self._mark(time.time(), "undo", visible(action.done))

    def _mark(self, at: float, kind: str, text: str) -> TimelineMark | None:
        with self._lock:
            if self._curves is None:
                return None
            mark = TimelineMark(max(0.0, at - self._curves.began_at), kind, text)
            self._marks.append(mark)
            self._marks.sort(key=lambda mark: mark.at_s)
            return mark

    def _move_fault_mark(self, event: Event) -> None:
        """Moves the mark of a fault from when it was asked for to where the cluster says that it held."""
        with self._lock:
            curves, fault_mark, self._last_fault_mark = self._curves, self._last_fault_mark, None
            if curves is None or fault_mark is None or fault_mark[1] != event.subject:
                self._last_fault_mark = fault_mark
                return
            index = self._marks.index(fault_mark[0])
            self._marks[index] = replace(fault_mark[0], at_s=max(fault_mark[0].at_s, event.at - curves.began_at))

    def _follow(self) -> None:
        while not self._run.wait(_LOOK_S):
            self._look()
        self._look()

    def _look(self) -> None:
        progress = self._run.progress()
        if progress is not None and progress.counts.attempted:
            with self._lock:
                if self._curves is None:
                    self._curves = LiveCurves(_SLICES_OF_LOAD if self._run.is_load else _SLICES)
                self._curves.look(progress)
        for event in self._run.client_events.take():
            self._hear(event)

    def _written(self, result: ProofResult) -> tuple[tuple[str, ...], str]:
        """The reports, and why there are none where the disk takes none: a verdict must not be lost over that."""
        journal = self._run.journal
        if journal is None:
            return (), ""
        command = repeat_command(result, self._scenario)
        texts = {".html": html(result, command), ".json": json.dumps(contract_json(result), indent=2) + "\n"}
        paths = {journal.with_suffix(end): text for end, text in texts.items()}
        try:
            for path, text in paths.items():
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            return (), f"no report was written beside {journal}: {error.strerror}"
        return tuple(str(path) for path in paths), ""
