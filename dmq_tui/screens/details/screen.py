"""One node, exchange or queue as pages that stay true while they are open."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Tab, Tabs

from dmq_core.cluster.protocol import Cluster
from dmq_core.errors import DmqError
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone, age, clock
from dmq_core.text import visible
from dmq_tui.background.work import as_dmq_error, in_background
from dmq_tui.render.format import Cell
from dmq_tui.screens.details import pages
from dmq_tui.screens.details.pages import PAGES, QueueSample, Subject, SubjectKind
from dmq_tui.widgets.footer import KeysFooter
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import Prose, words

__all__ = ["DetailsScreen", "Subject", "SubjectKind"]
SnapshotSource = Callable[[], ClusterSnapshot | None]
_LOOK_EVERY_S = 0.25
_LOG_EVERY_S = 3.0
_LOG_LINES = 400
_MOMENTS = 600


@dataclass
class LogRead(Message):
    """The node's log, or why it cannot be read."""

    text: str
    error: DmqError | None = None


class DetailsScreen(Screen[None]):
    """Shows `subject` until Esc; when the thing is gone it says so and keeps the last figures."""

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,backspace", "close", "back"),
        Binding("right,tab,right_square_bracket", "turn(1)", "pages", key_display="← → 1-4", priority=True),
        Binding("left,shift+tab,left_square_bracket", "turn(-1)", show=False, priority=True),
        Binding("r", "read_log", "read the log again"),
        *(Binding(str(number), f"show({number})", show=False) for number in range(1, 6)),
    ]

    def __init__(self, subject: Subject, cluster: Cluster, snapshot: SnapshotSource) -> None:
        super().__init__()
        self._subject = subject
        self._cluster = cluster
        self._snapshot = snapshot
        self._seen: ClusterSnapshot | None = None
        self._last_good: ClusterSnapshot | None = None
        self._samples: deque[QueueSample] = deque(maxlen=_MOMENTS)
        self._titles = PAGES[subject.kind]
        self._log: list[Line] = [words("Reading the log …", Tone.QUIET)]
        self._log_asked_at: float | None = None
        self._log_read_at: float | None = None
        self._reading = False

    @property
    def page_title(self) -> str:
        """The page that is shown."""
        active = self.query_one(Tabs).active
        return self._titles[int(active.removeprefix("page-"))] if active else self._titles[0]

    def compose(self) -> ComposeResult:
        """Head, tabs, one page, keys."""
        yield Prose(id="head")
        yield Tabs(*(Tab(f"{i + 1} {title}", id=f"page-{i}") for i, title in enumerate(self._titles)))
        with VerticalScroll(id="scroll"):
            yield Prose(id="page")
        yield KeysFooter()

    def on_mount(self) -> None:
        """Keeps the page true from now on."""
        self.query_one("#scroll").focus()
        self._look()
        self.set_interval(_LOOK_EVERY_S, self._look)

    # -- what the person does -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The log can be read again where it is shown."""
        return action != "read_log" or (self.is_mounted and self.page_title == "Log")

    def action_close(self) -> None:
        """Back to where one came from."""
        self.dismiss(None)

    def action_turn(self, pages_on: int) -> None:
        """Goes some pages on, round the end."""
        current = self._titles.index(self.page_title)
        self.action_show((current + pages_on) % len(self._titles) + 1)

    def action_show(self, number: int) -> None:
        """Goes to the page with that number."""
        if number <= len(self._titles):
            self.query_one(Tabs).active = f"page-{number - 1}"

    def action_read_log(self) -> None:
        """Reads the log now, if it is shown and not being read."""
        if self.page_title != "Log" or self._reading:
            return
        self._reading = True
        self._log_asked_at = time.monotonic()
        in_background(self.post_message, "Read the log", self._read_log)

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """Shows the other page from its top."""
        event.stop()
        self.refresh_bindings()
        self._show()
        self.query_one("#scroll", VerticalScroll).scroll_home(animate=False)
        self.action_read_log()

    def on_resize(self) -> None:
        """Draws charts for the new width."""
        self._show()

    # -- what the thread says -----------------------------------------------------------------------------------------

    def _read_log(self) -> Message:
        try:
            return LogRead(self._cluster.logs(self._subject.name, _LOG_LINES))
        except Exception as error:
            return LogRead("", as_dmq_error(error))

    def on_log_read(self, event: LogRead) -> None:
        """Shows the log and stays at its end if one was there."""
        event.stop()
        self._reading = False
        if event.error is not None:
            hint = visible(event.error.hint)
            self._log = [words(visible(event.error.what), Tone.BAD), *([words(hint)] if hint else [])]
        else:
            self._log = pages.log_lines(event.text)
            self._log_read_at = time.time()
        if self.page_title != "Log":
            return
        scroll = self.query_one("#scroll", VerticalScroll)
        at_end = scroll.scroll_offset.y >= scroll.max_scroll_y - 1
        self._show()
        if at_end:
            scroll.scroll_end(animate=False)

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        snapshot = self._snapshot()
        if snapshot is not None and snapshot is not self._seen:
            self._seen = snapshot
            moment = pages.sample_of(self._subject, snapshot)
            if moment is not None:
                self._samples.append(moment)
            if pages.exists(self._subject, snapshot):
                self._last_good = snapshot
            self._show()
        else:
            self._show_head()
        asked = self._log_asked_at
        if asked is not None and time.monotonic() - asked > _LOG_EVERY_S:
            self.action_read_log()

    def _show(self) -> None:
        self._show_head()
        if self.page_title == "Log":
            lines = self._log
        elif self._last_good is None:
            lines = [words("No details here yet.", Tone.QUIET)]
        else:
            width = max(20, self.query_one("#scroll").size.width - 2)
            lines = pages.page(self.page_title, self._subject, self._last_good, self._samples, width)
        self.query_one("#page", Prose).show(lines)

    def _show_head(self) -> None:
        cells = [Cell(self._subject.title, Tone.STRONG)]
        snapshot = self._seen
        if snapshot is not None and self._last_good is not snapshot:
            cells.append(Cell("   ✗ gone; these are its last figures", Tone.BAD))
        if snapshot is not None:
            late = snapshot.age_s("management", time.time())
            problem = next((s.problem for s in snapshot.sources if s.name == "management"), "")
            if problem:
                cells.append(Cell(f"   ▲ {visible(problem)}; figures {age(late)} old", Tone.WARN))
        if self.page_title == "Log" and self._log_read_at is not None:
            cells.append(Cell(f"   log read at {clock(self._log_read_at, 0)}, r reads it again", Tone.QUIET))
        self.query_one("#head", Prose).show([tuple(cells)])
