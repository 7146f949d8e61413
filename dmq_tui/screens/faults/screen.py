"""The menu of faults: what stands now and its way back, and what can be done to the cluster, each with its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.session.protocol import Session
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible
from dmq_tui.background.messages import ActiveFaultsRead, WorkFailed
from dmq_tui.background.work import in_background
from dmq_tui.deeds import Deed, mending
from dmq_tui.render.format import Cell, Line
from dmq_tui.screens.confirm.screen import ConfirmScreen, confirmation_of
from dmq_tui.screens.faults.menu import DELAYS_MS, Aim, Offer, alarms_of, line_of, offers, peers
from dmq_tui.widgets.choice import Choice
from dmq_tui.widgets.log import LogView
from dmq_tui.widgets.prose import Prose, words

SnapshotSource = Callable[[], ClusterSnapshot | None]
_LOOK_EVERY_S = 0.5
_READ = "Read the active faults"


class FaultsScreen(ModalScreen[Deed | None]):
    """Asks which fault to do, or which to take back; its answer is that deed, agreed to, or None.

    What stands are the alarms of the figures at first, and what the nodes tell once they have answered.
    """

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Do"),
        Binding("u", "take_back", "Take all back"),
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
        self.list: LogView[Offer] = LogView(line_of, lesson=("The cluster has not been seen yet.",))
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
        """Shows the list, and asks the nodes what stands."""
        self.query_one("#box").border_subtitle = Content("↑↓ choose · ↵ do it · u take back all · Esc back")
        self.list.focus()
        self._look()
        self.list.move_to(0)
        self._show_meaning()
        self.set_interval(_LOOK_EVERY_S, self._look)
        cluster = self._session.cluster
        in_background(self.post_message, _READ, lambda: ActiveFaultsRead(cluster.standing()))

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
        """Takes back what stands, at once; asks before anything else."""
        offer = self.list.cursor_item
        if offer is None or offer.deed is None:
            if offer is not None:
                self.notify(visible(offer.objection), severity="warning", markup=False, timeout=4)
            return
        if offer.stands:
            self.dismiss(offer.deed)
            return
        deed = offer.deed

        def answered(yes: bool | None) -> None:
            if yes:
                self.dismiss(deed)

        self.app.push_screen(ConfirmScreen(confirmation_of(deed, self._session.cluster.name), self._snapshot), answered)

    def action_take_back(self) -> None:
        """Takes back all that stands."""
        deed = mending(self._active)
        if deed is None:
            self.notify("No fault stands; there is nothing to take back.", markup=False, timeout=4)
        else:
            self.dismiss(deed)

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
        found = offers(snapshot, self._aim, self._active)
        self.list.replace(found)
        row = next((i for i, o in enumerate(found) if before is not None and o.id == before.id), 0)
        self.list.move_to(row)
        self._show_meaning()

    def _show_meaning(self) -> None:
        self.query_one("#box").border_title = Content(
            f"Faults of {visible(self._session.cluster.name)} · {self._news()}"
        )
        offer, snapshot = self.list.cursor_item, self._snapshot()
        if offer is None or snapshot is None:
            return
        nobody = "the first other node" if offer.id == FaultKind.CUT_LINK else "all its peers"
        self._peer.offer(_names((None, *peers(snapshot, self._aim.node)), nobody))
        for choice in (self._node, self._peer, self._delay):
            unused = choice.id not in offer.uses
            if choice.disabled is not unused:
                choice.disabled, choice.note = unused, "not for this one"
                choice.refresh()
        self.query_one("#means", Prose).show(self._meaning(offer))

    def _news(self) -> str:
        number = len(self._active)
        stands = "none stands" if not number else "1 stands" if number == 1 else f"{number} stand"
        if self._trouble:
            return f"the nodes do not tell what stands: {visible(self._trouble)}"
        return stands if self._told is not None else "asking the nodes what stands"

    def _meaning(self, offer: Offer) -> list[Line]:
        each = " a node" if offer.id == FaultKind.ROLLING_RESTART else ""
        takes = f"It takes {offer.within_s:g} s{each} at most"
        lines: list[Line] = [words(visible(offer.title), Tone.BAD if offer.stands else Tone.STRONG)]
        if offer.objection:
            return [*lines, words(visible(offer.objection), Tone.WARN), words(visible(offer.expected), Tone.QUIET)]
        back = "↵ takes it back: " if offer.stands else ""
        lines.append((Cell(back, Tone.ACCENT), Cell(visible(offer.expected)), Cell(f" {takes}.", Tone.QUIET)))
        if offer.deed is not None:
            command = on_cluster(offer.deed.command, self._session.cluster.name)
            lines.append((Cell("the same by command: ", Tone.QUIET), Cell(visible(command))))
        return lines


def _names(values: Sequence[str | None], nobody: str = "") -> list[tuple[str | None, str]]:
    return [(value, nobody if value is None else visible(value)) for value in values]
