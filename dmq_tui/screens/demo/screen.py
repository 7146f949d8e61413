"""A demo: a reading column beside live panes, which show what it does to the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Input

from dmq_core.demo.model import Focus
from dmq_core.demo.runner import DemoRun
from dmq_core.management.models import EntityKey
from dmq_core.messaging.tap.source import TailSource
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.observe.story import StoryLine
from dmq_core.presentation import Tone, count
from dmq_core.session.protocol import Session
from dmq_core.text import visible
from dmq_tui.background.messages import MessagesSeen, TailStarted, WorkFailed
from dmq_tui.background.tail import TAIL, TailRunner
from dmq_tui.background.work import Post
from dmq_tui.commands import PaneId
from dmq_tui.panes.pane import Pane
from dmq_tui.panes.story import StoryPane
from dmq_tui.panes.tables import ExchangesPane, NodesPane, QueuesPane
from dmq_tui.panes.tail import TailPane
from dmq_tui.render.format import Cell
from dmq_tui.render.layout import Layout, layout_for
from dmq_tui.render.lines import lateness
from dmq_tui.screens.demo import lines as demo_lines
from dmq_tui.screens.demo.player import DEMO, DemoBegan, DemoPlayed, DemoPlayer, DemoTurned
from dmq_tui.widgets.bars import HeaderLine
from dmq_tui.widgets.footer import KeysFooter
from dmq_tui.widgets.page import ReadingPage

_TICK_S = 0.25
_MOST_NODES = 9
_WORTH_A_WORD = 5
_NO_TAIL = ("Messages are shown here as they pass an exchange", "of the demo, once it has one.")
_LISTENING = ("Listening; nothing has passed yet.",)


class DemoScreen(Screen[None]):
    """Plays the demo called `name`; whoever leaves it in the middle leaves nothing behind.

    `snapshot` and `story` give the newest of each. `running_demos` holds the demo until its end is reached;
    `post_end` gets a `DemoEnded` once everything is removed, which may be after this screen has gone.
    """

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,r", "play", "play"),
        Binding("enter", "go_on", "go on"),
        Binding("enter", "leave", show=False),
        Binding("r", "play_again", "again"),
        Binding("right,n", "turn(1)", show=False),
        Binding("a", "through", "all"),
        Binding("x", "sabotage", "break the claim"),
        Binding("c", "copy", "copy"),
        Binding("left,b", "turn(-1)", "back", key_display="←"),
        Binding("escape,q", "back", "leave"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown,space", "scroll(10)", show=False),
        Binding("1", "look(1)", "panes", key_display="1-5"),
        *(Binding(str(int(pane)), f"look({int(pane)})", show=False) for pane in PaneId if 1 < pane <= PaneId.STORY),
    ]

    def __init__(
        self,
        session: Session,
        name: str,
        snapshot: Callable[[], ClusterSnapshot | None],
        story: Callable[[], Sequence[StoryLine]],
        running_demos: list[DemoRun[Any]],
        post_end: Post,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._session = session
        self._demo_name = name
        self._snapshot = snapshot
        self._story = story
        self._clock = clock
        self._heard: Sequence[StoryLine] = ()
        self._began_at = clock()
        self.player = DemoPlayer(self.post_message, post_end, running_demos)
        self.tailing = TailRunner(self.post_message)
        self.page = ReadingPage(id="page")
        self.tail = TailPane(_NO_TAIL, _LISTENING)
        self.nodes, self.exchanges, self.queues = NodesPane(), ExchangesPane(), QueuesPane()
        self.story = StoryPane()
        self.panes: tuple[Pane, ...] = (self.nodes, self.exchanges, self.queues, self.tail, self.story)
        self.looking: PaneId | None = None
        self._pointed = Focus()
        self._source: TailSource | None = None
        self._failures, self._failed_at = 0, 0.0

    def compose(self) -> ComposeResult:
        """The page on the left, what it is about on the right."""
        yield HeaderLine()
        with Horizontal(id="body"):
            yield self.page
            with Vertical(id="panes"):
                yield from self.panes
        yield KeysFooter()

    def on_mount(self) -> None:
        """Begins the demo."""
        self.set_interval(_TICK_S, self._look)
        self.player.start(self._session, self._demo_name)
        self.page.scroll.focus()
        self._show()

    def on_unmount(self) -> None:
        """Leaves whatever still runs."""
        self.player.leave()
        self.tailing.end()

    def on_resize(self, event: Resize) -> None:
        """Lays the screen out anew."""
        self._lay_out()

    # -- what the person does -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether an action goes with the page and what is known of its step."""
        if self.page.is_asking:
            return action in ("back", "scroll")
        if action not in ("play", "play_again", "go_on", "leave", "through", "sabotage"):
            return True
        player = self.player
        if player.words is None or player.doing:
            return False
        if player.is_last or action == "leave":
            return player.is_last and action == "leave"
        passed = player.result is not None and player.result.passed
        return {"play": not passed, "play_again": passed, "go_on": passed}.get(action, True)

    def action_play(self) -> None:
        """Plays the step."""
        words = self.player.words
        if words is not None and words.ask is not None:
            self.page.ask(words.ask)
        else:
            self.player.play()
        self._show()

    def action_play_again(self) -> None:
        """Plays the step that was played."""
        self.action_play()

    def action_go_on(self) -> None:
        """Goes from a step that passed to the next page."""
        self.action_turn(1)

    def action_sabotage(self) -> None:
        """Plays the step and breaks its claim, so that the check has something to find."""
        words = self.player.words
        self.player.play(words.ask.usual if words is not None and words.ask is not None else None, sabotage=True)
        self._show()

    def action_through(self) -> None:
        """Plays this step and all that follow, as long as their claims hold."""
        self.player.play(through=True)
        self._show()

    def action_turn(self, by: int) -> None:
        """Turns the page."""
        self.player.turn(by)

    def action_scroll(self, rows: int) -> None:
        """Scrolls the page, or the rows of the pane that is looked at."""
        pane = next((pane for pane in self.panes if pane.pane is self.looking), None)
        if pane is not None and pane.cursor_view is not None:
            pane.cursor_view.move(rows)
        else:
            self.page.scroll.scroll_relative(y=rows, animate=False)

    def action_copy(self) -> None:
        """Copies the code of the last page, or the command of this one."""
        demo, words = self.player.demo, self.player.words
        if demo is None or words is None:
            return
        what, text = ("code", demo.code.lstrip()) if self.player.is_last else ("command", words.command)
        self.app.copy_to_clipboard(text)
        self.notify(f"Copied the {what}: {count(len(text.splitlines()))} lines.", markup=False, timeout=4)

    def action_look(self, number: int) -> None:
        """Looks at one of the panes, or away from it again."""
        self.looking = None if self.looking == number else PaneId(number)
        self._lay_out()

    def action_back(self) -> None:
        """Puts the question away, comes back from a pane, or leaves the demo."""
        if self.page.is_asking:
            self.page.end_asking()
            self._show()
        elif self.looking is not None:
            self.action_look(self.looking)
        else:
            self.action_leave()

    def action_leave(self) -> None:
        """Leaves the demo."""
        demo = self.player.demo
        if demo is not None and demo.breaks:
            what = f"{demo.title} ends: what it did to the cluster is undone."
            self.app.notify(what, markup=False, timeout=8)
        self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Plays the step with the answer, unless it is none."""
        words = self.player.words
        if event.input is not self.page.field or words is None or words.ask is None:
            return
        event.stop()
        objection = words.ask.objection(event.value)
        if objection:
            self.notify(objection, severity="warning", markup=False, timeout=4)
            return
        self.page.end_asking()
        self.player.play(event.value)
        self._show()

    # -- what the threads say -----------------------------------------------------------------------------------------

    def on_demo_began(self, event: DemoBegan) -> None:
        """The first page is there."""
        event.stop()
        self.player.began(event)
        self._show()

    def on_demo_turned(self, event: DemoTurned) -> None:
        """Another page is there."""
        event.stop()
        self.player.turned(event)
        self._show()

    def on_demo_played(self, event: DemoPlayed) -> None:
        """A step was played."""
        event.stop()
        self.player.played(event)
        if event.error is not None:
            self.notify(f"{visible(event.error.what)}\n{visible(event.error.hint)}", severity="error", markup=False)
        self._show()

    def on_work_failed(self, event: WorkFailed) -> None:
        """Says what was not possible; a demo that cannot begin is left."""
        event.stop()
        if event.title == TAIL:
            self._tail_failed()
            if self._failures != _WORTH_A_WORD:
                return
        self.app.notify(f"{visible(event.error.what)}\n{visible(event.error.hint)}", severity="error", markup=False)
        if event.title == DEMO:
            self.dismiss(None)

    def on_tail_started(self, event: TailStarted) -> None:
        """Keeps the tail."""
        event.stop()
        self.tailing.started(event)

    def on_messages_seen(self, event: MessagesSeen) -> None:
        """Shows the messages that wait."""
        event.stop()
        self.tail.add(*self.tailing.take(event))

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        status = self.tailing.status()
        if status is not None:
            self.tail.report(status)
        self._show_panes()

    def _show(self) -> None:
        demo, words = self.player.demo, self.player.words
        if demo is None or words is None:
            self.page.show(visible(self._demo_name), [(Cell(f"◐ {self.player.doing}", Tone.WARN),)])
        elif self.player.is_last:
            results = [self.player.results[index] for index in sorted(self.player.results)]
            self.page.show(f"{demo.title} · what you saw", demo_lines.last_page(demo, results))
        else:
            title = f"{demo.title} · step {words.number} of {len(demo.steps)}"
            self.page.show(title, demo_lines.step_page(words, self.player.result, self.player.doing))
        self.refresh_bindings()
        self._lay_out()

    def _show_panes(self) -> None:
        snapshot = self._snapshot()
        header = self.query_one(HeaderLine)
        header.snapshot, header.now, header.read_only = snapshot, self._clock(), self._session.read_only
        header.waiting = "waiting for figures"
        header.refresh()
        if snapshot is None:
            return
        late = lateness(snapshot, self._clock())
        self.exchanges.only(self.player.prefix)
        self.queues.only(self.player.prefix)
        for pane in self.panes:
            pane.set_class(bool(late), "-late")
            pane.show(snapshot, late)
        self._follow(snapshot)
        self._retell()
        self.nodes.styles.height = "1fr" if self.looking else min(_MOST_NODES, len(snapshot.nodes)) + 3

    def _retell(self) -> None:
        """Tells what happened since the demo began."""
        lines = self._story()
        if lines is not self._heard:
            self._heard = lines
            self.story.add(line.event for line in lines if line.event.at >= self._began_at)

    def _tail_failed(self) -> None:
        """An exchange that one node has just made another may not know: tries again with a later snapshot."""
        self._failures += 1
        self._failed_at = self._clock()
        self._source = None
        self.tailing.failed()
        self.tail.end()

    def _follow(self, snapshot: ClusterSnapshot) -> None:
        """Has the panes point at what the page is about, and the tail show it, once it is there."""
        wanted = self.player.words.focus if self.player.words is not None else Focus()
        if wanted != self._pointed and all(
            [
                self.nodes.table.move_to_key(wanted.node) or not wanted.node,
                self.exchanges.table.move_to_key(EntityKey("/", wanted.exchange)) or not wanted.exchange,
                self.queues.table.move_to_key(EntityKey("/", wanted.queue)) or not wanted.queue,
            ]
        ):
            self._pointed = wanted
        source = TailSource(wanted.tail, wanted.pattern)
        is_there = snapshot.taken_at > self._failed_at and any(e.name == wanted.tail for e in snapshot.exchanges)
        if wanted.tail and source != self._source and is_there:
            self._source = source
            self.tail.begin(source)
            self.tailing.start(self._session, source)

    def _lay_out(self) -> None:
        single = layout_for(self.size.width, self.size.height, maximised=self.looking is not None) is not Layout.WIDE
        self.set_class(single, "-single")
        self.page.display = not single or self.looking is None
        self.query_one("#panes").display = not single or self.looking is not None
        beside = _beside(self.player)
        for pane in self.panes:
            pane.display = pane.pane is self.looking if single else pane.pane in beside
        self._show_panes()


def _beside(player: DemoPlayer) -> frozenset[PaneId]:
    """The panes next to the page: what passes the exchange that it is about, or else what happens to the cluster."""
    tailed = player.words is not None and player.words.focus.tail
    return frozenset({PaneId.NODES, PaneId.QUEUES, *((PaneId.EXCHANGES, PaneId.TAIL) if tailed else (PaneId.STORY,))})
