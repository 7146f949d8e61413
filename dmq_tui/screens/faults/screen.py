"""The menu of faults: the active ones and their undo, and what can be done to the cluster, each with its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from dmq_core.actions.action import Action
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.session.protocol import Session
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible
from dmq_tui.background.messages import ActiveFaultsRead, WorkFailed
from dmq_tui.background.undo_all import UndoAll, undo_all
from dmq_tui.background.work import in_background
from dmq_tui.render.format import Cell, Line
from dmq_tui.screens.confirm.screen import ConfirmScreen, confirmation_of
from dmq_tui.screens.faults.menu import DELAYS_MS, Aim, FaultMenuItem, alarms_of, line_of, menu_items, peers
from dmq_tui.widgets.choice import Choice
from dmq_tui.widgets.log import LogView
from dmq_tui.widgets.prose import Prose, words

SnapshotSource = Callable[[], ClusterSnapshot | None]
_LOOK_EVERY_S = 0.5
_READ = "Active faults"


class FaultsScreen(ModalScreen[Action | UndoAll | None]):
    """Asks which fault to do, or which to undo; its answer is that action, agreed to, or None.

    The active faults are the alarms of the figures at first, and what the nodes tell once they have answered.
    """

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Do"),
        Binding("u", "undo_all", "Undo all"),
        Binding("escape,q", "leave", "Back"),
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("home,g", "move(-1000)", show=False),
        Binding("end,G", "move(1000)", show=False),
        Binding("left", "step('node', -1)", show=False),
        Binding("right", "step('node', 1)", show=False),
        Binding("p", "step('peer', 1)", show=False),
        Binding("d", "step('delay', 1)", show=False),
    ]

    def __init__(self, session: Session, snapshot: SnapshotSource, aim: Aim) -> None:
        super().__init__()
        self._session = session
        self._snapshot = snapshot
        self._aim = aim
        self._told: tuple[Fault, ...] | None = None
        self._trouble = ""
        self._seen: ClusterSnapshot | None = None
        self.list: LogView[FaultMenuItem] = LogView(line_of, lesson=("The cluster has not been seen yet.",))
        self._node: Choice[str | None] = Choice("← → node", _names((aim.node,)), aim.node, id="node")
        self._peer: Choice[str | None] = Choice("p  peer", _names((None,)), None, id="peer")
        delays = [(ms, f"up to {ms:,} ms at each end") for ms in DELAYS_MS]
        self._delay: Choice[int] = Choice("d  delay", delays, aim.delay_ms, id="delay")

    def compose(self) -> ComposeResult:
        """The list, what the line under its cursor means, and whom it would hit."""
        with Vertical(id="box"):
            yield self.list
            yield Prose(id="means")
            for choice in (self._node, self._peer, self._delay):
                # The arrow keys belong to the list.
                choice.can_focus = False
                yield choice

    def on_mount(self) -> None:
        """Shows the list, and asks the nodes for the active faults."""
        self.query_one("#box").border_subtitle = Content("↑↓ choose · ↵ do it · u undo all · Esc back")
        self.list.focus()
        self._look()
        self.list.move_to(0)
        self._show_meaning()
        self.set_interval(_LOOK_EVERY_S, self._look)
        cluster = self._session.cluster
        in_background(self.post_message, _READ, lambda: ActiveFaultsRead(cluster.active_faults()))

    def on_active_faults_read(self, message: ActiveFaultsRead) -> None:
        """Shows what the nodes tell."""
        message.stop()
        self._told = message.faults
        self._show()

    def on_work_failed(self, message: WorkFailed) -> None:
        """Says that the nodes do not tell; the alarms of the figures stay."""
        message.stop()
        self._trouble = message.error.what
        self._show()

    def on_choice_changed(self, event: Choice.Changed) -> None:
        """Aims elsewhere."""
        event.stop()
        self._aim = replace(self._aim, node=self._node.value, peer=self._peer.value, delay_ms=self._delay.value)
        self._show()

    def on_log_view_line_opened(self) -> None:
        """A double click does it."""
        self.action_choose()

    def on_click(self) -> None:
        """A click may have moved the cursor."""
        self._show_meaning()

    def action_move(self, rows: int) -> None:
        """Moves the cursor."""
        self.list.move(rows)
        self._show_meaning()

    def action_step(self, choice: str, by: int) -> None:
        """Chooses the next node, peer or delay, where the line under the cursor has a use for it."""
        chosen = self.query_one(f"#{choice}", Choice)
        if not chosen.disabled:
            chosen.action_step(by)

    def action_choose(self) -> None:
        """Undoes an active fault at once; asks before anything else."""
        item = self.list.cursor_item
        if item is None or item.action is None:
            if item is not None:
                self.notify(visible(item.objection), severity="warning", markup=False, timeout=4)
            return
        if item.undoes:
            self.dismiss(item.action)
            return
        action = item.action

        def answered(yes: bool | None) -> None:
            if yes:
                self.dismiss(action)

        confirmation = confirmation_of(action, self._session.cluster.name)
        self.app.push_screen(ConfirmScreen(confirmation, self._snapshot), answered)

    def action_undo_all(self) -> None:
        """Undoes all active faults."""
        undo = undo_all(self._active)
        if undo is None:
            self.notify("There are no active faults, and nothing to undo.", markup=False, timeout=4)
        else:
            self.dismiss(undo)

    def action_leave(self) -> None:
        """Back without anything."""
        self.dismiss(None)

    @property
    def _active(self) -> tuple[Fault, ...]:
        return alarms_of(self._snapshot()) if self._told is None else self._told

    def _look(self) -> None:
        snapshot = self._snapshot()
        if snapshot is not self._seen:
            self._seen = snapshot
            self._show()

    def _show(self) -> None:
        """Shows the lines for what is known now; the cursor stays with its line, wherever that goes."""
        snapshot = self._snapshot()
        if snapshot is None:
            return
        names = tuple(n.name for n in snapshot.nodes)
        if names:
            self._node.offer(_names(names))
        before = self.list.cursor_item
        found = menu_items(snapshot, self._aim, self._active)
        self.list.replace(found)
        row = next((i for i, o in enumerate(found) if before is not None and o.id == before.id), 0)
        self.list.move_to(row)
        self._show_meaning()

    def _show_meaning(self) -> None:
        self.query_one("#box").border_title = Content(
            f"Faults of {visible(self._session.cluster.name)} · {self._news()}"
        )
        item, snapshot = self.list.cursor_item, self._snapshot()
        if item is None or snapshot is None:
            return
        nobody = "the first other node" if item.id == FaultKind.CUT_LINK else "all its peers"
        self._peer.offer(_names((None, *peers(snapshot, self._aim.node)), nobody))
        for choice in (self._node, self._peer, self._delay):
            unused = choice.id not in item.uses
            if choice.disabled is not unused:
                choice.disabled, choice.note = unused, "not for this one"
                choice.refresh()
        self.query_one("#means", Prose).show(self._meaning(item))

    def _news(self) -> str:
        number = len(self._active)
        active = f"{number or 'no'} active fault{'' if number == 1 else 's'}"
        if self._trouble:
            return f"active faults are not known: {visible(self._trouble)}"
        return active if self._told is not None else "asking the nodes for active faults"

    def _meaning(self, item: FaultMenuItem) -> list[Line]:
        each = " a node" if item.id == FaultKind.ROLLING_RESTART else ""
        takes = f"It takes {item.within_s:g} s{each} at most"
        lines: list[Line] = [words(visible(item.title), Tone.BAD if item.undoes else Tone.STRONG)]
        if item.objection:
            return [*lines, words(visible(item.objection), Tone.WARN), words(visible(item.expected), Tone.QUIET)]
        undo = "↵ undo: " if item.undoes else ""
        lines.append((Cell(undo, Tone.ACCENT), Cell(visible(item.expected)), Cell(f" {takes}.", Tone.QUIET)))
        if item.action is not None:
            command = on_cluster(item.action.command, self._session.cluster.name)
            lines.append((Cell("CLI equivalent: ", Tone.QUIET), Cell(visible(command))))
        return lines


def _names(values: Sequence[str | None], nobody: str = "") -> list[tuple[str | None, str]]:
    return [(value, nobody if value is None else visible(value)) for value in values]
