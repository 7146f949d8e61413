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

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import Backend
from dmq_core.errors import DmqError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.tap.source import TailSource
from dmq_core.observe.observation import Observation
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.presentation import count
from dmq_core.session.protocol import Observer, Proof, Session
from dmq_core.text import visible
from dmq_tui.background.load import LOAD, LoadRunner
from dmq_tui.background.messages import (
    ActionFinished,
    ActionProgressed,
    EventsArrived,
    LoadEnded,
    LoadStarted,
    MessagesSeen,
    ObserverStarted,
    SnapshotArrived,
    TailStarted,
    WorkFailed,
)
from dmq_tui.background.running_actions import RunningActions
from dmq_tui.background.tail import TAIL, TailRunner
from dmq_tui.background.undo_all import UndoAll
from dmq_tui.background.work import in_background
from dmq_tui.commands import BY_ID, COMMANDS, PaneId, Situation, action_now, why_disabled
from dmq_tui.panes.load import LoadPane, load_ended
from dmq_tui.panes.pane import FilteredPane, Pane
from dmq_tui.panes.story import StoryPane
from dmq_tui.panes.tables import ExchangesPane, NodesPane, QueuesPane, TablePane
from dmq_tui.panes.tail import TailPane
from dmq_tui.render.layout import SMALLEST, Layout, layout_for
from dmq_tui.render.lines import lateness, tail_text
from dmq_tui.render.themes import other_theme
from dmq_tui.screens.demo.lines import ending_text
from dmq_tui.screens.demo.player import DemoEnded, DemosListed
from dmq_tui.screens.faults.menu import Aim
from dmq_tui.screens.main.selection import source_of, subject_of, target_of
from dmq_tui.widgets.bars import CommandClicked, HeaderLine, KeyLine, LoadLine, NodesBrief, TabLine

if TYPE_CHECKING:
    from dmq_core.demo.model import AnyDemo
    from dmq_core.demo.runner import DemoRun

_TICK_S = 0.5
_ALL_ROWS = 1 << 31
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
        self.running_demos: list[DemoRun[Any]] = []
        self.pane = PaneId.QUEUES
        self.maximised = False
        self.tailing = TailRunner(self.post_message)
        self.loads = LoadRunner(self.post_message)
        self.actions = RunningActions(self.post_message, clock)
        self.nodes, self.tail, self.story, self.load = NodesPane(), TailPane(), StoryPane("c copies it"), LoadPane()
        panes = (self.nodes, ExchangesPane(), QueuesPane(), self.tail, self.story, self.load)
        self.panes: dict[PaneId, Pane] = {p.pane: p for p in panes}
        self.header, self.brief, self.tabs = HeaderLine(), NodesBrief(), TabLine()
        self.load_line, self.key_line = LoadLine(), KeyLine()
        self._observer: Observer | None = None
        self._late = ""

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
        self.key_line.styles.height = 2 if single else 1
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

    def refresh_now(self) -> None:
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
        self.story.add((load_ended(message.report, self.clock()),))
        self._tick()

    def on_action_progressed(self, message: ActionProgressed) -> None:
        """Shows how far an act is."""
        self.actions.progressed(message)
        self.update_keys()

    def on_action_finished(self, message: ActionFinished) -> None:
        """Tells how an act ended, and looks again."""
        self.story.add((self.actions.finished(message),))
        if message.error is not None:
            self.complain(message.error)
        self.refresh_now()
        self.update_keys()

    def on_demos_listed(self, message: DemosListed) -> None:
        """Asks which demo to play, unless another screen is open by now."""
        if self.app.screen is self:
            self._choose(message.demos)

    def on_demo_ended(self, message: DemoEnded) -> None:
        """Tells what came of a demo."""
        severity: Literal["warning", "information"] = "warning" if message.result.left else "information"
        self.notify(ending_text(message.result), severity=severity, markup=False, timeout=6)

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
            undo=self.actions.undo is not None,
            maximised=self.maximised,
        )

    def update_keys(self) -> None:
        """Shows the keys that work here and what an act is doing."""
        self.key_line.situation, self.key_line.status = self.situation, self.actions.status()
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

    async def action_do(self, command_id: str) -> None:
        """Does the command, or says why not."""
        command = BY_ID[command_id]
        reason = why_disabled(command, self.situation)
        if reason:
            self.notify(reason, severity="warning", markup=False, timeout=4)
            return
        await self.run_action(command.textual_action)
        self.update_keys()

    async def on_command_clicked(self, event: CommandClicked) -> None:
        """A click in tabs or footer."""
        await self.action_do(event.command)

    def on_keyed_table_cursor_moved(self) -> None:
        """The chosen node or row may be another."""
        self._update_bars()
        self.update_keys()

    async def on_keyed_table_row_opened(self) -> None:
        """A double click on a row."""
        await self.action_do("details")

    async def on_log_view_line_opened(self) -> None:
        """A double click on a line."""
        if self.pane is PaneId.TAIL:
            await self.action_do("details")

    def action_help(self) -> None:
        """Shows the keys that work here."""
        from dmq_tui.screens.help.screen import HelpScreen

        self.app.push_screen(HelpScreen(self.situation))

    def action_palette(self) -> None:
        """Finds a command by its name."""
        from dmq_tui.screens.main.palette import palette

        self.app.push_screen(palette())

    def action_go(self, number: int) -> None:
        """Goes to the pane with that number."""
        self.go(PaneId(number))

    def action_go_on(self, by: int) -> None:
        """Goes on by that many panes."""
        self.go(PaneId((self.pane - 1 + by) % len(PaneId) + 1))

    def action_move(self, rows: int) -> None:
        """Moves the cursor of the pane by rows."""
        view = self.current.cursor_view
        if view is not None:
            view.move(rows)

    def action_move_page(self, pages: int) -> None:
        """Moves the cursor of the pane by screens."""
        view = self.current.cursor_view
        if view is not None:
            view.move_page(pages)

    def action_move_to_first(self) -> None:
        """Goes to the first row."""
        self.action_move(-_ALL_ROWS)

    def action_move_to_last(self) -> None:
        """Goes to the last row."""
        self.action_move(_ALL_ROWS)

    def action_refresh(self) -> None:
        """Asks the cluster now."""
        self.refresh_now()

    def action_quit(self) -> None:
        """Leaves the console."""
        self.app.exit()

    def action_maximise(self) -> None:
        """Gives the pane the whole screen, or gives it back."""
        self.maximised = not self.maximised
        self.go(self.pane)

    def action_back(self) -> None:
        """Ends the filter, then the maximising."""
        pane = self.current
        if isinstance(pane, FilteredPane) and pane.filtering:
            pane.end_filter()
        elif self.maximised:
            self.action_maximise()

    def action_filter(self) -> None:
        """Lets the user type a filter."""
        pane = self.current
        if isinstance(pane, FilteredPane):
            pane.open_filter()

    def action_sort(self) -> None:
        """Sorts by the next column."""
        pane = self.current
        if isinstance(pane, TablePane):
            pane.next_sort()

    def action_order(self) -> None:
        """Reverses the sort order."""
        pane = self.current
        if isinstance(pane, TablePane):
            pane.reverse_sort()

    def action_copy(self) -> None:
        """Copies the tail in its pane, elsewhere the story."""
        tail = self.pane is PaneId.TAIL
        text = tail_text(self.tail.messages) if tail else self.story.text
        lines = len(text.splitlines())
        what = "tail" if tail else "story"
        if not lines:
            self.notify(f"The {what} is empty; there is nothing to copy.", markup=False, timeout=4)
            return
        self.app.copy_to_clipboard(text)
        self.notify(f"Copied the {what}: {count(lines)} lines.", markup=False, timeout=4)

    def action_details(self) -> None:
        """Opens what is under the cursor."""
        from dmq_tui.screens.details.screen import DetailsScreen
        from dmq_tui.screens.message.screen import MessageScreen

        if isinstance(self.current, TailPane):
            message = self.current.log_view.cursor_item
            if message is not None:
                self.app.push_screen(MessageScreen(message))
            return
        subject = subject_of(self.current)
        if subject is not None and self.session is not None:
            self.app.push_screen(DetailsScreen(subject, self.session.cluster, lambda: self.newest))

    def action_publish(self) -> None:
        """Opens the form for a message, to what is under the cursor."""
        from dmq_tui.screens.publish.screen import PublishScreen

        if self.session is not None:
            target = target_of(self.current)
            self.app.push_screen(PublishScreen(self.session, lambda: self.newest, *target))

    def action_tail(self) -> None:
        """Tails what is under the cursor; in pane 4: ends the tail."""
        if self.pane is PaneId.TAIL:
            self.tailing.end()
            self.tail.end()
            return
        source = source_of(self.current)
        if source is not None:
            self._start_tail(source)

    def _start_tail(self, source: TailSource) -> None:
        session = self.session
        if session is not None:
            self.tail.begin(source)
            self.tailing.start(session, source)
            if not self.tail.display:
                self.go(PaneId.TAIL)

    def action_firehose(self) -> None:
        """Tails every publish and delivery."""
        self._start_tail(TailSource())

    def action_load(self) -> None:
        """Begins the load or ends it."""
        session = self.session
        if session is not None:
            self.loads.toggle(session)

    def action_proof(self) -> None:
        """Opens the proof screen."""
        from dmq_tui.screens.proof.screen import ProofScreen

        if self.session is not None:
            page = ProofScreen(self.session, lambda: self.newest, keep=self.keep_proof, clock=self.clock)
            self.app.push_screen(page)

    def action_demos(self) -> None:
        """Lists the demos, then asks which one to play."""
        from dmq_tui.screens.demo.player import list_demos

        list_demos(self.post_message)

    def _choose(self, demos: tuple[tuple[str, AnyDemo], ...]) -> None:
        from dmq_tui.screens.confirm.screen import ConfirmScreen
        from dmq_tui.screens.demo.picker import DemosScreen, demo_confirmation

        def chosen(name: str | None) -> None:
            demo = None if name is None else dict(demos).get(name)
            if name is None or demo is None:
                return

            def answered(yes: bool | None) -> None:
                if yes:
                    self._play(name)

            now = self.situation
            if demo.breaks and not (now.read_only or now.attached):
                cluster = "" if self.newest is None else self.newest.cluster
                screen = ConfirmScreen(demo_confirmation(name, demo, cluster), lambda: self.newest)
                self.app.push_screen(screen, answered)
            else:
                self._play(name)

        self.app.push_screen(DemosScreen(demos), chosen)

    def _play(self, name: str) -> None:
        from dmq_tui.screens.demo.screen import DemoScreen

        if self.session is not None:
            screen = DemoScreen(
                self.session,
                name,
                lambda: self.newest,
                lambda: self.story.entries,
                self.running_demos,
                self.post_message,
                clock=self.clock,
            )
            self.app.push_screen(screen)

    def action_faults(self) -> None:
        """Opens the menu of faults."""
        from dmq_tui.screens.faults.screen import FaultsScreen

        def chosen(wanted: Action | UndoAll | None) -> None:
            if wanted is not None:
                self._perform(wanted)

        node = self.chosen_node
        if self.session is not None:
            aim = Aim(None if node is None else node.name, queue=self._chosen_queue())
            self.app.push_screen(FaultsScreen(self.session, lambda: self.newest, aim), chosen)

    def _chosen_queue(self) -> EntityKey | None:
        queues = self.panes[PaneId.QUEUES]
        row = queues.table.cursor_item if isinstance(queues, QueuesPane) else None
        return None if row is None else row.key

    def action_operate(self, command_id: str) -> None:
        """Asks whether to do to the node under the cursor what the command says, and does it."""
        from dmq_tui.screens.confirm.screen import ConfirmScreen, confirmation_of

        node, session = self.chosen_node, self.session
        action = action_now(BY_ID[command_id], node.state if node is not None else None)
        if node is None or action is None or session is None:
            return
        wanted = Action(action, node.name)
        if self._is_busy(wanted):
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._perform(wanted)

        question = confirmation_of(wanted, session.cluster.name)
        self.app.push_screen(ConfirmScreen(question, lambda: self.newest), answered)

    def action_undo(self) -> None:
        """Undoes the last action."""
        undo = self.actions.undo
        if undo is not None and self._perform(undo):
            self.actions.undo = None

    def _perform(self, wanted: Action | UndoAll) -> bool:
        """Begins it, unless another action is at its nodes; whether it did."""
        session = self.session
        if session is None or self._is_busy(wanted):
            return False
        self.actions.start(session, wanted)
        self.update_keys()
        return True

    def _is_busy(self, wanted: Action | UndoAll) -> bool:
        other = visible(self.actions.busy(wanted.nodes))
        if other:
            self.notify(f"{other} is under way; wait for its end.", markup=False, timeout=4)
        return bool(other)

    def action_theme(self) -> None:
        """Dark or light."""
        self.app.theme = other_theme(self.app.theme)
