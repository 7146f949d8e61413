"""Pane 4: messages as they pass, copied without taking one from a consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content

from dmq_core.messaging.messages import SeenMessage
from dmq_core.messaging.tap.source import TailSource, TailStatus
from dmq_core.presentation import count
from dmq_core.text import visible, visible_body
from dmq_tui.commands import PaneId
from dmq_tui.panes.pane import FilteredPane
from dmq_tui.render.format import Line, name
from dmq_tui.render.lines import tail_line
from dmq_tui.widgets.log import LogView

_KEPT = 5000
_IDLE = (
    "No tail is set. t on an exchange or a queue copies",
    "what passes there; it takes nothing from a consumer.",
    ":firehose copies every delivery.",
)
_LISTENING = ("Listening; nothing has passed yet.", "p publishes a message.")


class TailPane(FilteredPane):
    """The tail: its border names the source, the method, the blind spots and what was dropped."""

    pane: ClassVar[PaneId] = PaneId.TAIL

    def __init__(self, idle: Sequence[str] = _IDLE, listening: Sequence[str] = _LISTENING) -> None:
        super().__init__()
        self._idle, self._listening = tuple(idle), tuple(listening)
        self.log_view: LogView[SeenMessage] = LogView(self._line, lesson=self._idle, limit=_KEPT)
        self._all: deque[SeenMessage] = deque(maxlen=_KEPT)
        self._source: TailSource | None = None
        self._status: TailStatus | None = None
        self._overflow = 0
        self._ended = False

    def compose(self) -> ComposeResult:
        """The lines over the filter field."""
        yield self.log_view
        yield self._field

    def on_mount(self) -> None:
        """Names the pane."""
        self.set_title()

    @property
    def body(self) -> LogView[SeenMessage]:
        """The lines."""
        return self.log_view

    @property
    def cursor_view(self) -> LogView[SeenMessage]:
        """The lines."""
        return self.log_view

    @property
    def has_row(self) -> bool:
        """Whether a message is under the cursor."""
        return self.log_view.cursor_item is not None

    @property
    def source(self) -> TailSource | None:
        """What the tail looks at; None before the first one."""
        return self._source

    @property
    def messages(self) -> Sequence[SeenMessage]:
        """The messages in sight of the filter, oldest first."""
        return self.log_view.entries

    def begin(self, source: TailSource) -> None:
        """Empties the pane for a new source."""
        self._source, self._status, self._overflow, self._ended = source, None, 0, False
        self._all.clear()
        self.log_view.teach(self._listening)
        self.log_view.replace(())
        self._describe()

    def end(self) -> None:
        """Keeps what was seen and says that no more comes."""
        self._ended = True
        self.log_view.teach(self._idle)
        self._describe()

    def add(self, messages: Sequence[SeenMessage], overflow: int) -> None:
        """Adds messages; `overflow` passed too quickly to be shown."""
        self._overflow += overflow
        self._all.extend(messages)
        self.log_view.append(m for m in messages if self.filter.matches(_text(m)))
        if overflow:
            self._describe()

    def report(self, status: TailStatus) -> None:
        """Shows how the tail is doing."""
        if status != self._status:
            self._status = status
            self._describe()

    def refilter(self) -> None:
        """Shows the messages that the filter keeps."""
        self.log_view.replace([m for m in self._all if self.filter.matches(_text(m))])
        self._describe()

    def on_log_view_below(self, event: LogView.Below) -> None:
        """Tells how many messages wait below."""
        event.stop()
        self.border_subtitle = Content(f"{count(event.count)} new below · End") if event.count else None

    def _line(self, message: SeenMessage, width: int) -> Line:
        known = self._source is not None and self._source.exchange == message.exchange
        return tail_line(message, width, exchange=not known)

    def _describe(self) -> None:
        if self._source is None:
            self.set_title(self.filter.title)
            return
        status = self._status
        unseen = ", ".join(visible(b) for b in status.blind_spots) if status else ""
        dropped = self._overflow + (status.dropped if status else 0)
        self.set_title(
            describe_source(self._source),
            "ended" if self._ended else visible(status.problem) if status and status.problem else "",
            visible(status.method) if status else "",
            f"{count(dropped)} dropped" if dropped else "",
            self.filter.title,
            f"cannot see here: {unseen}" if unseen else "",
        )


def describe_source(source: TailSource) -> str:
    """What a tail looks at, in words."""
    if source.queue is not None:
        return f"queue {visible(source.queue)}"
    if source.exchange is not None:
        return f"{name(source.exchange)} {visible(source.pattern)}"
    return "every delivery"


def _text(message: SeenMessage) -> str:
    return f"{name(message.exchange)} {visible(message.routing_key)} {visible_body(message.body)}"
