"""The list of demos: one line each with the time that it takes, the chosen one told below; Enter begins one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from dmq_core.demo.model import AnyDemo
from dmq_core.demo.runner import impact_of_demo
from dmq_core.presentation import Tone
from dmq_core.settings.settings import DEFAULT_CLUSTER, on_cluster
from dmq_tui.render.format import Cell, Line, fit
from dmq_tui.screens.confirm.screen import Confirmation
from dmq_tui.widgets.footer import keys_text
from dmq_tui.widgets.log import LogView
from dmq_tui.widgets.prose import Prose, words

_NAME = 24
_TAKES = 6
NamedDemo = tuple[str, AnyDemo]


class DemosScreen(ModalScreen[str | None]):
    """Asks which of `demos` to play; its answer is the name of one, or None."""

    CSS_PATH = "picker.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "begin"),
        Binding("escape,q", "leave", "back"),
        Binding("up,k", "move(-1)", "choose", key_display="↑↓"),
        Binding("down,j", "move(1)", show=False),
        Binding("home,g", "move(-1000)", show=False),
        Binding("end,G", "move(1000)", show=False),
    ]

    def __init__(self, demos: Sequence[NamedDemo]) -> None:
        super().__init__()
        self._demos = tuple(demos)
        self.list: LogView[NamedDemo] = LogView(_line, lesson=("There are no demos here.",))
        self.about = Prose(id="about")

    def compose(self) -> ComposeResult:
        """The list over what the chosen one is about."""
        with Vertical(id="box"):
            yield self.list
            yield self.about

    def on_mount(self) -> None:
        """Shows them, with the cursor on the first."""
        box = self.query_one("#box")
        box.border_title = "Demos · each checks its claims on this cluster, and removes what it made"
        box.border_subtitle = Content(keys_text(self))
        self.list.replace(self._demos)
        self.list.move_to(0)
        self.list.focus()
        self._tell()

    def on_log_view_line_opened(self) -> None:
        """A double click begins it."""
        self.action_choose()

    def action_move(self, rows: int) -> None:
        """Moves the cursor."""
        self.list.move(rows)
        self._tell()

    def on_click(self) -> None:
        """A click moves the cursor as well."""
        self._tell()

    def action_choose(self) -> None:
        """Begins the demo under the cursor."""
        chosen = self.list.cursor_item
        self.dismiss(None if chosen is None else chosen[0])

    def action_leave(self) -> None:
        """Back without one."""
        self.dismiss(None)

    def _tell(self) -> None:
        chosen = self.list.cursor_item
        if chosen is not None:
            demo = chosen[1]
            impact = [words(f"▲ {demo.impact}", Tone.WARN)] if demo.impact else []
            self.about.show([words(demo.summary), *impact])


def _line(listed: NamedDemo, width: int) -> Line:
    _, demo = listed
    takes = f"{demo.takes_s:.0f} s".rjust(_TAKES)
    mark = Cell(" ▲ ", Tone.WARN) if demo.breaks else Cell("   ")
    room = max(10, width - _NAME - _TAKES - 4)
    return (
        Cell(fit(demo.title, _NAME), Tone.STRONG),
        Cell(takes, Tone.QUIET),
        mark,
        Cell(fit(demo.summary, room), Tone.QUIET),
    )


def demo_confirmation(name: str, demo: AnyDemo, cluster: str) -> Confirmation:
    """What to ask before a demo that takes nodes down."""
    return Confirmation(
        f"Play {demo.title}",
        on_cluster(f"dmq demo run {name} --yes", cluster or DEFAULT_CLUSTER),
        cluster,
        "cluster",
        True,
        lambda snapshot: impact_of_demo(demo, [node.state for node in snapshot.nodes]),
    )
