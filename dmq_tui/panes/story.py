"""Pane 5: one time line of what we did, what the broker did and what clients felt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content

from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Event
from dmq_core.observe.story import Story, StoryLine, as_text
from dmq_core.presentation import count
from dmq_tui.commands import PaneId
from dmq_tui.panes.pane import FilteredPane
from dmq_tui.render.lines import story_line
from dmq_tui.widgets.log import LogView

_LESSON = (
    "Nothing has happened yet.",
    "l starts a load; then K kills a node: what follows",
    "is told here, with its distance from the fault.",
)


class StoryPane(FilteredPane):
    """The story: events in time order with their distance from the last fault; `hint` tells of a key that it has."""

    pane: ClassVar[PaneId] = PaneId.STORY

    def __init__(self, hint: str = "") -> None:
        super().__init__()
        self._hint = hint
        self.log_view: LogView[StoryLine] = LogView(story_line, lesson=_LESSON)
        self._story = Story()

    def compose(self) -> ComposeResult:
        """The lines over the filter field."""
        yield self.log_view
        yield self._field

    def on_mount(self) -> None:
        """Names the pane."""
        self._describe()

    @property
    def body(self) -> LogView[StoryLine]:
        """The lines."""
        return self.log_view

    @property
    def cursor_view(self) -> LogView[StoryLine]:
        """The lines."""
        return self.log_view

    @property
    def entries(self) -> Sequence[StoryLine]:
        """The whole story, oldest first."""
        return self._story.lines

    @property
    def text(self) -> str:
        """The whole story for an incident report; empty before anything happened."""
        return as_text(self._story)

    @property
    def faults(self) -> tuple[float, ...]:
        """When faults began, in epoch seconds."""
        return tuple(at for at, _ in self._story.faults)

    def add(self, events: Iterable[Event]) -> None:
        """Adds events, which may come a little late, out of order, or from two sources."""
        before, self._story = self._story.lines, self._story.told(events)
        lines = self._story.lines
        if lines[: len(before)] == before:
            self.log_view.append(e for e in lines[len(before) :] if self.filter.matches(event_text(e.event)))
            self._describe()
        else:
            self.refilter()

    def refilter(self) -> None:
        """Shows the entries that the filter keeps."""
        self.log_view.replace([e for e in self._story.lines if self.filter.matches(event_text(e.event))])
        self._describe()

    def on_log_view_below(self, event: LogView.Below) -> None:
        """Tells how many entries wait below."""
        event.stop()
        self.border_subtitle = Content(f"{count(event.count)} new below · End") if event.count else None

    def _describe(self) -> None:
        total = len(self._story.lines)
        self.set_title(count(total) if total else "", self.filter.title, self._hint if total else "")
