"""The main screen: six panes on one snapshot, and the commands that work on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import DescendantFocus, Resize, ScreenResume
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Static

from dmq_core.cluster.protocol import Backend
from dmq_core.errors import DmqError
from dmq_core.observe.observation import Observation
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.session.protocol import Observer, Proof, Session
from dmq_core.text import visible
from dmq_tui.background.load import LOAD, Loading
from dmq_tui.background.messages import (
    EventsArrived,
    LoadEnded,
    LoadStarted,
    MessagesSeen,
    ObserverStarted,
    OperationFinished,
    OperationProgressed,
    SnapshotArrived,
    TailStarted,
    WorkFailed,
)
from dmq_tui.background.running_actions import Acts
from dmq_tui.background.tail import TAIL, Tailing
from dmq_tui.background.work import in_background
from dmq_tui.panes.load import LoadPane, ended
from dmq_tui.panes.pane import Pane
from dmq_tui.panes.story import StoryPane
from dmq_tui.panes.tables import ExchangesPane, NodesPane, QueuesPane
from dmq_tui.panes.tail import TailPane
from dmq_tui.render.layout import SMALLEST, Layout, layout_for
from dmq_tui.render.lines import lateness
from dmq_tui.screens.demo.lines import departure
from dmq_tui.screens.demo.player import DemoLeft, DemosListed
from dmq_tui.screens.main.actions import Control
from dmq_tui.screens.main.commands import BY_ID, COMMANDS, PaneId, Situation, objection
from dmq_tui.widgets.bars import CommandClicked, HeaderLine, KeyLine, LoadLine, NodesBrief, TabLine

if TYPE_CHECKING:
    from dmq_core.demo.runner import DemoRun

_TICK_S = 0.5
_MOST_NODES = 9


class MainScreen(Screen[None], inherit_bindings=False):
    """What is known of one cluster; everything that happens to it comes here as a message."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(",".join(c.keys), f"do('{c.id}')", c.title, show=False) for c in COMMANDS if c.keys
    ]
    snapshot: reactive[ClusterSnapshot | None] = reactive(None, init=False)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.clock = clock
        self.session: Session | None = None
        self.newest: ClusterSnapshot | None = None
        self.proof: Proof | None = None
        self.playings: list[DemoRun[Any]] = []
        self.pane = PaneId.QUEUES
        self.maximised = False
        self.tailing = Tailing(self.post_message)
        self.loads = Loading(self.post_message)
        self.acts = Acts(self.post_message, clock)
        self.nodes, self.tail, self.story, self.load = NodesPane(), TailPane(), StoryPane("c copies it"), LoadPane()
        panes = (self.nodes, ExchangesPane(), QueuesPane(), self.tail, self.story, self.load)
        self.panes: dict[PaneId, Pane] = {p.pane: p for p in panes}
        self.header, self.brief, self.tabs = HeaderLine(), NodesBrief(), TabLine()
        self.load_line, self.key_line = LoadLine(), KeyLine()
        self._observer: Observer | None = None
        self._late = ""
        self._control = Control(self)

    # -- building and layout ------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Header, panes, footer."""
        yield self.header
        yield self.brief
        yield self.tabs
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield self.panes[PaneId.NODES]
                yield self.panes[PaneId.EXCHANGES]
                yield self.panes[PaneId.QUEUES]
            with Vertical(id="right"):
                yield self.panes[PaneId.TAIL]
                yield self.panes[PaneId.STORY]
        yield self.panes[PaneId.LOAD]
        yield self.load_line
        yield self.key_line
        yield Static(f"The terminal is too small: dmq needs {SMALLEST[0]}x{SMALLEST[1]}.", id="small", markup=False)

    def on_mount(self) -> None:
        """Begins to tick."""
        self.set_interval(_TICK_S, self._tick)
        self.go(self.pane)

    def on_resize(self, event: Resize) -> None:
        """Lays the panes out anew."""
        self.lay_out()

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """The pane that has the focus is the current one."""
        pane = next((w for w in event.widget.ancestors_with_self if isinstance(w, Pane)), None)
        if pane is not None and pane.pane is not self.pane:
            self.pane = pane.pane
            self.lay_out()
        self.update_keys()

    @property
    def current(self) -> Pane:
        """The pane that keys work on."""
        return self.panes[self.pane]

    def go(self, pane: PaneId) -> None:
        """Makes `pane` the current one."""
        self.pane = pane
        self.lay_out()
        self.set_focus(self.current.body)

    def lay_out(self) -> None:
        """Shows what there is room for."""
        layout = layout_for(self.size.width, self.size.height, maximised=self.maximised)
        single, small = layout is Layout.SINGLE, layout is Layout.SMALL
        self.set_class(single, "-single")
        for pane in self.panes.values():
            pane.display = not small and (not single or pane is self.current)
        for side in ("#left", "#right"):
            box = self.query_one(side)
            box.display = any(child.display for child in box.children)
        self.query_one("#body").display = not small and (not single or self.pane is not PaneId.LOAD)
        self.header.display = self.key_line.display = not small
        self.brief.display = single and not self.maximised and self.pane is not PaneId.NODES
        self.load_line.display = single and self.pane is not PaneId.LOAD
        self.tabs.display, self.tabs.current = single, self.pane
        self.tabs.refresh()
        self.query_one("#small").display = small
        self._show_panes()
        self.update_keys()

    # -- what comes in ------------------------------------------------------------------------------------------------

    def attach(self, session: Session) -> None:
        """Begins to observe the session's cluster."""
        self.session = session
        self.header.read_only = session.read_only
        self.wait_for(f"waiting for figures of {visible(session.cluster.name)}")

        def heard(seen: Observation) -> None:
            self.post_message(SnapshotArrived(seen.snapshot))
            if seen.events:
                self.post_message(EventsArrived(seen.events))

        in_background(self.post_message, "Observe", lambda: ObserverStarted(session.observe(heard)))

    def wait_for(self, what: str) -> None:
        """Says in the header what the screen waits for."""
        self.header.waiting = what
        self.header.refresh()

    def keep_proof(self, proof: Proof | None) -> None:
        """Keeps the proof run under way at hand, so that leaving can end it."""
        self.proof = proof

    def look_again(self) -> None:
        """Asks the cluster now."""
        if self._observer is not None:
            self._observer.poke()

    def on_observer_started(self, message: ObserverStarted) -> None:
        """Keeps the observer at hand."""
        self._observer = message.observer

    def on_snapshot_arrived(self, message: SnapshotArrived) -> None:
        """Shows the newest snapshot; rows wait while another screen is on top."""
        self.newest = message.snapshot
        if self.app.screen is self:
            self.snapshot = message.snapshot
        self._update_bars()

    def on_screen_resume(self, event: ScreenResume) -> None:
        """Shows what came meanwhile."""
        self.snapshot = self.newest

    def watch_snapshot(self) -> None:
        """Hands the snapshot to the panes in sight."""
        self._show_panes()
        self.update_keys()

    def on_events_arrived(self, message: EventsArrived) -> None:
        """Adds to the story."""
        self.story.add(message.events)

    def on_tail_started(self, message: TailStarted) -> None:
        """Keeps the tail."""
        self.tailing.started(message)
        self._tick()

    def on_messages_seen(self, message: MessagesSeen) -> None:
        """Shows the messages that wait."""
        self.tail.add(*self.tailing.take(message))

    def on_load_started(self, message: LoadStarted) -> None:
        """Keeps the load."""
        self.loads.started(message.load)
        self._tick()

    def on_load_ended(self, message: LoadEnded) -> None:
        """Shows the final account and the verdict."""
        self.loads.ended(message)
        self.story.add((ended(message.report, self.clock()),))
        self._tick()

    def on_operation_progressed(self, message: OperationProgressed) -> None:
        """Shows how far an act is."""
        self.acts.progressed(message)
        self.update_keys()

    def on_operation_finished(self, message: OperationFinished) -> None:
        """Tells how an act ended, and looks again."""
        self.story.add((self.acts.finished(message),))
        if message.error is not None:
            self.complain(message.error)
        self.look_again()
        self.update_keys()

    def on_demos_listed(self, message: DemosListed) -> None:
        """Asks which demo to play, unless another screen is open by now."""
        if self.app.screen is self:
            self._control.choose(message.demos)

    def on_demo_left(self, message: DemoLeft) -> None:
        """Tells what came of a demo."""
        severity: Literal["warning", "information"] = "warning" if message.result.left else "information"
        self.notify(departure(message.result), severity=severity, markup=False, timeout=6)

    def on_work_failed(self, message: WorkFailed) -> None:
        """Says what was not possible and what to do."""
        if message.title == TAIL:
            self.tailing.failed()
            self.tail.end()
        if message.title == LOAD:
            self.loads.failed()
        self.complain(message.error)
        self._tick()

    def complain(self, error: DmqError) -> None:
        """Shows an error as two short sentences."""
        text = visible(error.what) + (f"\n{visible(error.hint)}" if error.hint else "")
        self.notify(text, severity="error", markup=False, timeout=10)

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def chosen_node(self) -> NodeView | None:
        """The node under the cursor of pane 1."""
        return self.nodes.table.cursor_item

    @property
    def situation(self) -> Situation:
        """What decides which commands are allowed now."""
        session, node = self.session, self.chosen_node
        return Situation(
            pane=self.pane,
            connected=self.newest is not None and session is not None,
            read_only=session is not None and session.read_only,
            attached=session is not None and session.cluster.backend is Backend.ATTACHED,
            node=node.state if node is not None else None,
            node_name=visible(node.name) if node is not None else "",
            row=self.current.has_row,
            load_running=self.loads.active,
            tailing=self.tailing.active,
            undo=self.acts.undo is not None,
            maximised=self.maximised,
        )

    def update_keys(self) -> None:
        """Shows the keys that work here and what an act is doing."""
        self.key_line.situation, self.key_line.status = self.situation, self.acts.status()
        self.key_line.refresh()

    def _tick(self) -> None:
        self._update_bars()
        self._show_load()
        status = self.tailing.status()
        if status is not None:
            self.tail.report(status)
        if self._lateness() != self._late:
            self._show_panes()
        self.update_keys()

    def _lateness(self) -> str:
        return lateness(self.newest, self.clock()) if self.newest is not None else ""

    def _show_panes(self) -> None:
        if self.snapshot is None:
            return
        self._late = self._lateness()
        for pane in self.panes.values():
            if pane.display or pane.pane is PaneId.NODES:
                pane.set_class(bool(self._late), "-late")
                pane.show(self.snapshot, self._late)
        self.panes[PaneId.NODES].styles.height = (
            "1fr" if self.has_class("-single") else min(_MOST_NODES, len(self.snapshot.nodes)) + 3
        )
        self._update_bars()

    def _show_load(self) -> None:
        account = self.loads.account()
        self.load.report(account, self.story.faults, self.loads.doing, self.loads.report)
        self.load_line.show(account)

    def _update_bars(self) -> None:
        self.header.snapshot, self.header.now = self.newest, self.clock()
        self.header.refresh()
        chosen = self.chosen_node
        self.brief.chosen = chosen.name if chosen is not None else None
        self.brief.show(self.newest)

    # -- what the user does -------------------------------------------------------------------------------------------

    def action_do(self, command_id: str) -> None:
        """Does the command, or says why not."""
        command = BY_ID[command_id]
        reason = objection(command, self.situation)
        if reason:
            self.notify(reason, severity="warning", markup=False, timeout=4)
            return
        self._control.do(command)
        self.update_keys()

    def on_command_clicked(self, event: CommandClicked) -> None:
        """A click in tabs or footer."""
        self.action_do(event.command)

    def on_keyed_table_cursor_moved(self) -> None:
        """The chosen node or row may be another."""
        self._update_bars()
        self.update_keys()

    def on_keyed_table_opened(self) -> None:
        """A double click on a row."""
        self.action_do("details")

    def on_log_view_opened(self) -> None:
        """A double click on a line."""
        if self.pane is PaneId.TAIL:
            self.action_do("details")
