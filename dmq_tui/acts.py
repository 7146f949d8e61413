"""Acts on nodes as the console does them: in the background, followed to their end, with the way back at hand."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.message import Message

from dmq_core.cluster.base import NodeAction, Progress
from dmq_core.observe.events import Event, Gravity, Origin
from dmq_core.operations import NodeOperation
from dmq_core.session import Session
from dmq_core.text import visible
from dmq_tui.format import Cell, Line, Tone, seconds
from dmq_tui.messages import OperationFinished, OperationProgressed
from dmq_tui.work import Post, as_dmq_error, in_background

_RESULT = {
    NodeAction.KILL: "killed",
    NodeAction.STOP: "stopped",
    NodeAction.START: "serves again",
    NodeAction.RESTART: "restarted and serves",
    NodeAction.PAUSE: "frozen",
    NodeAction.UNPAUSE: "goes on",
    NodeAction.ISOLATE: "cut off from its peers",
    NodeAction.REJOIN: "is with its peers again",
    NodeAction.DRAIN: "in maintenance",
    NodeAction.REVIVE: "serves again",
}


class Acts:
    """The acts under way and the last one that can be taken back. For the UI thread only."""

    def __init__(self, post: Post, clock: Callable[[], float]) -> None:
        self._post = post
        self._clock = clock
        self._running: dict[NodeOperation, tuple[float, str]] = {}
        self._done: tuple[float, Line] | None = None
        self.undo: NodeOperation | None = None

    def busy(self, node: str) -> bool:
        """Whether an act on that node is under way."""
        return any(o.node == node for o in self._running)

    def start(self, session: Session, operation: NodeOperation) -> None:
        """Does `operation` in the background."""
        self._running[operation] = (self._clock(), "")
        self.undo = None if self.undo is not None and self.undo.node == operation.node else self.undo

        def heard(progress: Progress) -> None:
            self._post(OperationProgressed(operation, progress))

        def work() -> Message:
            began = time.monotonic()
            try:
                session.perform(operation, heard)
            except Exception as error:
                return OperationFinished(operation, time.monotonic() - began, as_dmq_error(error))
            return OperationFinished(operation, time.monotonic() - began)

        in_background(self._post, operation.title, work)

    def progressed(self, message: OperationProgressed) -> None:
        """Notes how far an act is."""
        if message.operation in self._running:
            began, _ = self._running[message.operation]
            self._running[message.operation] = (began, visible(message.progress.text))

    def finished(self, message: OperationFinished) -> Event:
        """Notes the end of an act; the story's entry about it."""
        self._running.pop(message.operation, None)
        node, took = visible(message.operation.node), seconds(message.seconds)
        if message.error is not None:
            text = f"{message.operation.title} failed after {took}: {visible(message.error.what)}"
            self._done = None
            return Event(self._clock(), Origin.YOU, Gravity.BAD, "act_failed", node, text)
        self.undo = message.operation.undo
        text = f"{node} {_RESULT[message.operation.action]}; it took {took}"
        offer = (Cell(" · "), Cell("u", Tone.ACCENT), Cell(f" {self.undo.action}s it")) if self.undo else ()
        self._done = (self._clock(), (Cell("✓ ", Tone.GOOD), Cell(text), *offer))
        gravity = Gravity.PLAIN if message.operation.destructive else Gravity.GOOD
        return Event(self._clock(), Origin.YOU, gravity, "act_done", node, text)

    def status(self) -> Line:
        """What is under way, or for a while what was done, for the footer."""
        if self._running:
            operation, (began, text) = next(reversed(self._running.items()))
            more = f" (+{len(self._running) - 1})" if len(self._running) > 1 else ""
            said = f" · {text}" if text else ""
            return (
                Cell("◐ ", Tone.WARN),
                Cell(f"{operation.title}{more}{said} · {seconds(max(0.0, self._clock() - began))}"),
            )
        if self._done is not None and self._clock() - self._done[0] < _SHOWN_FOR_S:
            return self._done[1]
        return ()


_SHOWN_FOR_S = 20.0
