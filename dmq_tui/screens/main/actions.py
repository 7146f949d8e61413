"""What each command of the table does to the main screen; the other screens are imported when they are wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dmq_core.actions.node_operation import NodeOperation
from dmq_core.management.models import EntityKey
from dmq_core.messaging.tap.source import TailSource
from dmq_core.settings.settings import DEFAULT_CLUSTER, on_cluster
from dmq_core.text import visible
from dmq_tui.deeds import Deed, of_node
from dmq_tui.panes.pane import FilteredPane, Pane
from dmq_tui.panes.tables import ExchangesPane, NodesPane, QueuesPane, TablePane
from dmq_tui.panes.tail import TailPane
from dmq_tui.render.format import count
from dmq_tui.render.lines import tail_text
from dmq_tui.render.themes import other_theme
from dmq_tui.screens.faults.menu import Aim
from dmq_tui.screens.main.commands import Command, PaneId, action_now

if TYPE_CHECKING:
    from dmq_core.demo.model import AnyDemo
    from dmq_tui.screens.details.pages import Subject
    from dmq_tui.screens.main.screen import MainScreen

_ALL_ROWS = 1 << 31


class Control:
    """Does commands on one main screen; whether they are allowed was asked before. For the UI thread only."""

    def __init__(self, screen: MainScreen) -> None:
        self._screen = screen
        self._deeds: dict[str, Callable[[], None]] = {
            "nodes": lambda: screen.go(PaneId.NODES),
            "exchanges": lambda: screen.go(PaneId.EXCHANGES),
            "queues": lambda: screen.go(PaneId.QUEUES),
            "messages": lambda: screen.go(PaneId.TAIL),
            "story": lambda: screen.go(PaneId.STORY),
            "account": lambda: screen.go(PaneId.LOAD),
            "next": lambda: self._step(1),
            "right": lambda: self._step(1),
            "previous": lambda: self._step(-1),
            "left": lambda: self._step(-1),
            "up": lambda: self._move(-1),
            "down": lambda: self._move(1),
            "page-up": lambda: self._page(-1),
            "page-down": lambda: self._page(1),
            "first": lambda: self._move(-_ALL_ROWS),
            "last": lambda: self._move(_ALL_ROWS),
            "maximise": self._maximise,
            "filter": self._filter,
            "sort": self._sort,
            "order": self._order,
            "copy": self._copy,
            "refresh": screen.look_again,
            "details": self._details,
            "publish": self._publish,
            "tail": self._tail,
            "firehose": lambda: self._start_tail(TailSource()),
            "load": self._load,
            "faults": self._faults,
            "proof": self._proof,
            "demos": self._demos,
            "undo": self._undo,
            "palette": self._palette,
            "help": self._help,
            "theme": self._theme,
            "back": self._back,
            "quit": lambda: screen.app.exit(),
        }

    def do(self, command: Command) -> None:
        """Does `command`."""
        if command.action is not None:
            self._ask(command)
        else:
            self._deeds[command.id]()

    def _help(self) -> None:
        from dmq_tui.screens.help.screen import HelpScreen

        self._screen.app.push_screen(HelpScreen(self._screen.situation))

    def _palette(self) -> None:
        from dmq_tui.screens.main.palette import palette

        self._screen.app.push_screen(palette())

    def _step(self, by: int) -> None:
        self._screen.go(PaneId((self._screen.pane - 1 + by) % len(PaneId) + 1))

    def _move(self, rows: int) -> None:
        mover = self._screen.current.mover
        if mover is not None:
            mover.move(rows)

    def _page(self, pages: int) -> None:
        mover = self._screen.current.mover
        if mover is not None:
            mover.move_page(pages)

    def _maximise(self) -> None:
        self._screen.maximised = not self._screen.maximised
        self._screen.go(self._screen.pane)

    def _back(self) -> None:
        pane = self._screen.current
        if isinstance(pane, FilteredPane) and pane.filtering:
            pane.end_filter()
        elif self._screen.maximised:
            self._maximise()

    def _filter(self) -> None:
        pane = self._screen.current
        if isinstance(pane, FilteredPane):
            pane.open_filter()

    def _sort(self) -> None:
        pane = self._screen.current
        if isinstance(pane, TablePane):
            pane.next_sort()

    def _order(self) -> None:
        pane = self._screen.current
        if isinstance(pane, TablePane):
            pane.turn_sort()

    def _copy(self) -> None:
        tail = self._screen.pane is PaneId.TAIL
        text = tail_text(self._screen.tail.messages) if tail else self._screen.story.text
        lines = len(text.splitlines())
        what = "tail" if tail else "story"
        if not lines:
            self._screen.notify(f"The {what} is empty; there is nothing to copy.", markup=False, timeout=4)
            return
        self._screen.app.copy_to_clipboard(text)
        self._screen.notify(f"Copied the {what}: {count(lines)} lines.", markup=False, timeout=4)

    def _details(self) -> None:
        from dmq_tui.screens.details.screen import DetailsScreen
        from dmq_tui.screens.message.screen import MessageScreen

        screen = self._screen
        if isinstance(screen.current, TailPane):
            message = screen.current.log_view.cursor_item
            if message is not None:
                screen.app.push_screen(MessageScreen(message))
            return
        subject = subject_of(screen.current)
        if subject is not None and screen.session is not None:
            screen.app.push_screen(DetailsScreen(subject, screen.session.cluster, lambda: screen.newest))

    def _publish(self) -> None:
        from dmq_tui.screens.publish.screen import PublishScreen

        screen, pane = self._screen, self._screen.current
        if screen.session is None:
            return
        screen.app.push_screen(PublishScreen(screen.session, lambda: screen.newest, *target_of(pane)))

    def _tail(self) -> None:
        if self._screen.pane is PaneId.TAIL:
            self._screen.tailing.end()
            self._screen.tail.end()
            return
        source = source_of(self._screen.current)
        if source is not None:
            self._start_tail(source)

    def _start_tail(self, source: TailSource) -> None:
        session = self._screen.session
        if session is not None:
            self._screen.tail.begin(source)
            self._screen.tailing.start(session, source)
            if not self._screen.tail.display:
                self._screen.go(PaneId.TAIL)

    def _load(self) -> None:
        session = self._screen.session
        if session is not None:
            self._screen.loads.toggle(session)

    def _proof(self) -> None:
        from dmq_tui.screens.proof.screen import ProofScreen

        screen = self._screen
        if screen.session is not None:
            page = ProofScreen(screen.session, lambda: screen.newest, keep=screen.keep_proof, clock=screen.clock)
            screen.app.push_screen(page)

    def _demos(self) -> None:
        from dmq_tui.screens.demo.player import list_demos

        list_demos(self._screen.post_message)

    def choose(self, demos: tuple[tuple[str, AnyDemo], ...]) -> None:
        """Asks which of `demos` to play."""
        from dmq_tui.screens.demo.picker import DemosScreen

        def chosen(name: str | None) -> None:
            demo = None if name is None else dict(demos).get(name)
            if name is None or demo is None:
                return
            now = self._screen.situation
            if demo.breaks and not (now.read_only or now.attached):
                self._ask_about(name, demo)
            else:
                self._play(name)

        self._screen.app.push_screen(DemosScreen(demos), chosen)

    def _ask_about(self, name: str, demo: AnyDemo) -> None:
        """Asks before a demo that takes nodes down."""
        from dmq_core.demo.runner import impact_of_demo
        from dmq_tui.screens.confirm.screen import ConfirmScreen, Question

        screen = self._screen
        cluster = "" if screen.newest is None else screen.newest.cluster
        question = Question(
            f"Play {demo.title}",
            on_cluster(f"dmq demo run {name} --yes", cluster or DEFAULT_CLUSTER),
            cluster,
            "cluster",
            True,
            lambda snapshot: impact_of_demo(demo, [node.state for node in snapshot.nodes]),
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._play(name)

        screen.app.push_screen(ConfirmScreen(question, lambda: screen.newest), answered)

    def _play(self, name: str) -> None:
        from dmq_tui.screens.demo.screen import DemoScreen

        screen = self._screen
        if screen.session is not None:
            screen.app.push_screen(DemoScreen(screen.session, name, screen))

    def _faults(self) -> None:
        from dmq_tui.screens.faults.screen import FaultsScreen

        def chosen(deed: Deed | None) -> None:
            if deed is not None:
                self._perform(deed)

        screen, node = self._screen, self._screen.chosen_node
        if screen.session is not None:
            aim = Aim(None if node is None else node.name, queue=self._chosen_queue())
            screen.app.push_screen(FaultsScreen(screen.session, lambda: screen.newest, aim), chosen)

    def _chosen_queue(self) -> EntityKey | None:
        queues = self._screen.panes[PaneId.QUEUES]
        row = queues.table.cursor_item if isinstance(queues, QueuesPane) else None
        return None if row is None else row.key

    def _ask(self, command: Command) -> None:
        from dmq_tui.screens.confirm.screen import ConfirmScreen, about

        node, session = self._screen.chosen_node, self._screen.session
        action = action_now(command, node.state if node is not None else None)
        if node is None or action is None or session is None:
            return
        deed = of_node(NodeOperation(action, node.name))
        if self._is_busy(deed):
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._perform(deed)

        question = about(deed, session.cluster.name)
        self._screen.app.push_screen(ConfirmScreen(question, lambda: self._screen.newest), answered)

    def _undo(self) -> None:
        deed = self._screen.acts.undo
        if deed is not None and self._perform(deed):
            self._screen.acts.undo = None

    def _perform(self, deed: Deed) -> bool:
        """Begins `deed`, unless another one is at its nodes; whether it did."""
        session = self._screen.session
        if session is None or self._is_busy(deed):
            return False
        self._screen.acts.start(session, deed)
        self._screen.update_keys()
        return True

    def _is_busy(self, deed: Deed) -> bool:
        other = visible(self._screen.acts.busy(deed.nodes))
        if other:
            self._screen.notify(f"{other} is under way; wait for its end.", markup=False, timeout=4)
        return bool(other)

    def _theme(self) -> None:
        self._screen.app.theme = other_theme(self._screen.app.theme)


def subject_of(pane: Pane) -> Subject | None:
    """What is under the pane's cursor, by its key."""
    from dmq_tui.screens.details.pages import Subject, SubjectKind

    if isinstance(pane, NodesPane) and (node := pane.table.cursor_item) is not None:
        return Subject(SubjectKind.NODE, node.name)
    if isinstance(pane, ExchangesPane) and (exchange := pane.table.cursor_item) is not None:
        return Subject(SubjectKind.EXCHANGE, exchange.figures.name, exchange.figures.vhost)
    if isinstance(pane, QueuesPane) and (queue := pane.table.cursor_item) is not None:
        return Subject(SubjectKind.QUEUE, queue.view.figures.name, queue.view.figures.vhost)
    return None


def target_of(pane: Pane) -> tuple[str, str, str]:
    """Exchange, routing key and virtual host that a message from this pane would go to at first."""
    if isinstance(pane, ExchangesPane) and (exchange := pane.table.cursor_item) is not None:
        return exchange.figures.name, "", exchange.figures.vhost
    if isinstance(pane, QueuesPane) and (queue := pane.table.cursor_item) is not None:
        return "", queue.view.figures.name, queue.view.figures.vhost
    if isinstance(pane, TailPane) and pane.source is not None:
        return pane.source.exchange or "", pane.source.queue or "", pane.source.virtual_host
    return "", "", "/"


def source_of(pane: Pane) -> TailSource | None:
    """What a tail of the row under the pane's cursor would look at; the default exchange only by the firehose."""
    if isinstance(pane, ExchangesPane):
        exchange = pane.table.cursor_item
        if exchange is None:
            return None
        name = exchange.figures.name or None
        return TailSource(exchange=name, virtual_host=exchange.figures.vhost)
    if isinstance(pane, QueuesPane):
        queue = pane.table.cursor_item
        return (
            None if queue is None else TailSource(queue=queue.view.figures.name, virtual_host=queue.view.figures.vhost)
        )
    return None
