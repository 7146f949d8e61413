"""What the console does to a cluster: in the background, followed to its end, with its undo at hand."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.message import Message

from dmq_core.actions.action import Action
from dmq_core.errors import DmqError
from dmq_core.observe.events import ActionDetails, Event, Origin, Severity
from dmq_core.presentation import Tone, duration
from dmq_core.progress import Progress, ProgressListener
from dmq_core.session.protocol import Session
from dmq_core.text import visible
from dmq_tui.background.messages import ActionFinished, ActionProgressed
from dmq_tui.background.undo_all import UndoAll
from dmq_tui.background.work import Post, as_dmq_error, in_background
from dmq_tui.render.format import Cell, Line


class RunningActions:
    """The actions under way and the last one that can be undone. For the UI thread only."""

    def __init__(self, post: Post, clock: Callable[[], float]) -> None:
        self._post = post
        self._clock = clock
        self._running: dict[Action | UndoAll, tuple[float, str]] = {}
        self._done: tuple[float, Line] | None = None
        self.undo: Action | None = None

    def busy(self, nodes: frozenset[str]) -> str:
        """The title of an action under way that concerns one of `nodes` (none given: any); empty: there is none."""
        return next((d.title for d in self._running if not nodes or not d.nodes or nodes & d.nodes), "")

    def start(self, session: Session, doing: Action | UndoAll) -> None:
        """Does it in the background."""
        self._running[doing] = (self._clock(), "")
        if self.undo is not None and self.undo.nodes & doing.nodes:
            self.undo = None

        def heard(progress: Progress) -> None:
            self._post(ActionProgressed(doing, progress))

        def work() -> Message:
            began = time.monotonic()
            try:
                undo = _do(session, doing, heard)
            except Exception as error:
                return ActionFinished(doing, time.monotonic() - began, error=as_dmq_error(error))
            return ActionFinished(doing, time.monotonic() - began, undo)

        in_background(self._post, doing.title, work)

    def progressed(self, message: ActionProgressed) -> None:
        """Notes how far an action is."""
        if message.action in self._running:
            began, _ = self._running[message.action]
            self._running[message.action] = (began, visible(message.progress.text))

    def finished(self, message: ActionFinished) -> Event:
        """Notes the end of an action; the story's entry about it."""
        action, took = message.action, duration(message.seconds)
        node = action.node or ""
        self._running.pop(action, None)
        if message.error is not None:
            self._done = None
            details = ActionDetails(node, action.title, message.seconds, message.error.what)
            return Event(self._clock(), Origin.YOU, Severity.BAD, "act_failed", node, details)
        self.undo = message.undo
        text = f"{visible(action.done)}; it took {took}"
        offer = (Cell(" · "), Cell("u", Tone.ACCENT), Cell(f" undo: {visible(self.undo.title)}")) if self.undo else ()
        self._done = (self._clock(), (Cell("✓ ", Tone.GOOD), Cell(text), *offer))
        severity = Severity.PLAIN if action.destructive else Severity.GOOD
        details = ActionDetails(node, action.done, message.seconds)
        return Event(self._clock(), Origin.YOU, severity, "act_done", node, details)

    def status(self) -> Line:
        """What is under way, or for a while what was done, for the footer."""
        if self._running:
            action, (began, text) = next(reversed(self._running.items()))
            more = f" (+{len(self._running) - 1})" if len(self._running) > 1 else ""
            said = f" · {text}" if text else ""
            return (
                Cell("◐ ", Tone.WARN),
                Cell(f"{visible(action.title)}{more}{said} · {duration(max(0.0, self._clock() - began))}"),
            )
        if self._done is not None and self._clock() - self._done[0] < _SHOWN_FOR_S:
            return self._done[1]
        return ()


_SHOWN_FOR_S = 20.0


def _do(session: Session, doing: Action | UndoAll, heard: ProgressListener) -> Action | None:
    """Does it and gives what undoes it; for background threads only."""
    if isinstance(doing, Action):
        return session.perform(doing, heard)
    failures: list[DmqError] = []
    # Each is undone, also where another one cannot be; the first reason is told then.
    for action in doing.actions:
        try:
            session.perform(action, heard)
        except DmqError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return None
