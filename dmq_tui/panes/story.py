"""Pane 5: one time line of what we did, what the broker did and what clients felt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content

from dmq_core.observe.events import Event, Gravity
from dmq_tui.commands import PaneId
from dmq_tui.format import count
from dmq_tui.lines import StoryEntry, story_line
from dmq_tui.panes.pane import FilteredPane
from dmq_tui.widgets.log import LogView

_KEPT = 2000
_TELLS_FOR_S = 600.0
_LESSON = (
    "Nothing has happened yet.",
    "l starts a load; then K kills a node: what follows",
    "is told here, with its distance from the fault.",
)


class StoryPane(FilteredPane):
    """The story: events in time order with their distance from the last fault."""

    pane: ClassVar[PaneId] = PaneId.STORY

    def __init__(self) -> None:
        super().__init__()
        self.log_view: LogView[StoryEntry] = LogView(story_line, lesson=_LESSON, limit=_KEPT)
        self._events: list[Event] = []
        self._entries: list[StoryEntry] = []

    def compose(self) -> ComposeResult:
        """The lines over the filter field."""
        yield self.log_view
        yield self._field

    def on_mount(self) -> None:
        """Names the pane."""
        self._describe()

    @property
    def body(self) -> LogView[StoryEntry]:
        """The lines."""
        return self.log_view

    @property
    def mover(self) -> LogView[StoryEntry]:
        """The lines."""
        return self.log_view

    @property
    def entries(self) -> Sequence[StoryEntry]:
        """The whole story, oldest first."""
        return tuple(self._entries)

    @property
    def faults(self) -> tuple[float, ...]:
        """When faults were injected, in epoch seconds."""
        return tuple(e.at for e in self._events if e.gravity is Gravity.FAULT)

    def add(self, events: Iterable[Event]) -> None:
        """Adds events, which may come a little late and out of order."""
        new = sorted(events, key=attrgetter("at"))
        if not new:
            return
        in_order = not self._events or new[0].at >= self._events[-1].at
        self._events.extend(new)
        self._events.sort(key=attrgetter("at"))
        del self._events[:-_KEPT]
        self._entries = fold(self._events)
        if in_order:
            self.log_view.append(e for e in self._entries[-len(new) :] if self.filter.matches(e.event.text))
        else:
            self.refilter()
        self._describe()

    def refilter(self) -> None:
        """Shows the entries that the filter keeps."""
        self.log_view.replace([e for e in self._entries if self.filter.matches(e.event.text)])
        self._describe()

    def on_log_view_below(self, event: LogView.Below) -> None:
        """Tells how many entries wait below."""
        event.stop()
        self.border_subtitle = Content(f"{count(event.count)} new below · End") if event.count else None

    def _describe(self) -> None:
        total = len(self._entries)
        self.say(count(total) if total else "", self.filter.title, "c copies it" if total else "")


def fold(events: Sequence[Event]) -> list[StoryEntry]:
    """Events in time order with their distance in seconds from the last fault, for ten minutes after it."""
    entries = []
    fault: float | None = None
    for event in events:
        if event.gravity is Gravity.FAULT:
            fault = event.at
        near = fault is not None and event.at - fault <= _TELLS_FOR_S
        entries.append(StoryEntry(event, event.at - fault if near and fault is not None else None))
    return entries
