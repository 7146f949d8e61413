"""What the console does to a cluster: in the background, followed to its end, with the way back at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from textual.message import Message

from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault
from dmq_core.errors import DmqError
from dmq_core.observe.events import ActionDetails, Event, Origin, Severity
from dmq_core.presentation import Tone, duration
from dmq_core.progress import Progress, ProgressListener
from dmq_core.session.protocol import Session
from dmq_core.text import visible
from dmq_tui.background.messages import OperationFinished, OperationProgressed
from dmq_tui.background.work import Post, as_dmq_error, in_background
from dmq_tui.deeds import Addition, Deed, Mending, Removal, of_fault, of_node, removal
from dmq_tui.render.format import Cell, Line


class RunningActions:
    """The deeds under way and the last one that can be taken back. For the UI thread only."""

    def __init__(self, post: Post, clock: Callable[[], float]) -> None:
        self._post = post
        self._clock = clock
        self._running: dict[Deed, tuple[float, str]] = {}
        self._done: tuple[float, Line] | None = None
        self.undo: Deed | None = None

    def busy(self, nodes: frozenset[str]) -> str:
        """The title of a deed under way that concerns one of `nodes` (none given: any); empty: there is none."""
        return next((d.title for d in self._running if not nodes or not d.nodes or nodes & d.nodes), "")

    def start(self, session: Session, deed: Deed) -> None:
        """Does `deed` in the background."""
        self._running[deed] = (self._clock(), "")
        if self.undo is not None and self.undo.nodes & deed.nodes:
            self.undo = None

        def heard(progress: Progress) -> None:
            self._post(OperationProgressed(deed, progress))

        def work() -> Message:
            began = time.monotonic()
            try:
                back = _do(session, deed, heard)
            except Exception as error:
                return OperationFinished(deed, time.monotonic() - began, error=as_dmq_error(error))
            return OperationFinished(deed, time.monotonic() - began, back)

        in_background(self._post, deed.title, work)

    def progressed(self, message: OperationProgressed) -> None:
        """Notes how far a deed is."""
        if message.deed in self._running:
            began, _ = self._running[message.deed]
            self._running[message.deed] = (began, visible(message.progress.text))

    def finished(self, message: OperationFinished) -> Event:
        """Notes the end of a deed; the story's entry about it."""
        deed, took = message.deed, duration(message.seconds)
        self._running.pop(deed, None)
        if message.error is not None:
            self._done = None
            details = ActionDetails(deed.node, deed.title, message.seconds, message.error.what)
            return Event(self._clock(), Origin.YOU, Severity.BAD, "act_failed", deed.node, details)
        self.undo = message.back
        text = f"{visible(deed.result)}; it took {took}"
        offer = (Cell(" · "), Cell("u", Tone.ACCENT), Cell(f" {self.undo.undoes}")) if self.undo else ()
        self._done = (self._clock(), (Cell("✓ ", Tone.GOOD), Cell(text), *offer))
        severity = Severity.PLAIN if deed.destructive else Severity.GOOD
        details = ActionDetails(deed.node, deed.result, message.seconds)
        return Event(self._clock(), Origin.YOU, severity, "act_done", deed.node, details)

    def status(self) -> Line:
        """What is under way, or for a while what was done, for the footer."""
        if self._running:
            deed, (began, text) = next(reversed(self._running.items()))
            more = f" (+{len(self._running) - 1})" if len(self._running) > 1 else ""
            said = f" · {text}" if text else ""
            return (
                Cell("◐ ", Tone.WARN),
                Cell(f"{visible(deed.title)}{more}{said} · {duration(max(0.0, self._clock() - began))}"),
            )
        if self._done is not None and self._clock() - self._done[0] < _SHOWN_FOR_S:
            return self._done[1]
        return ()


_SHOWN_FOR_S = 20.0


def _do(session: Session, deed: Deed, heard: ProgressListener) -> Deed | None:
    """Does `deed` and gives its way back; for background threads only."""
    match deed.act:
        case NodeOperation() as operation:
            session.perform(operation, heard)
            return None if operation.undo is None else of_node(operation.undo)
        case Fault() as fault:
            back = session.cause(fault, heard)
            return None if back is None else of_fault(back)
        case Addition():
            return removal(session.add_node(heard))
        case Removal(node):
            session.remove_node(node, heard)
        case Mending(faults):
            _take_back(session, faults, heard)
    return None


def _take_back(session: Session, faults: Iterable[Fault], heard: ProgressListener) -> None:
    """Takes back each of `faults`, also where another one cannot be; raises the first reason then."""
    failures: list[DmqError] = []
    for fault in faults:
        try:
            session.cause(fault, heard)
        except DmqError as error:
            failures.append(error)
    if failures:
        raise failures[0]
