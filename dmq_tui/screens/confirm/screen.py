"""The question before an action that breaks something: what it will cause, kept true while the question is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.actions.impact import Impact, impact_of
from dmq_core.actions.wording import sentences_of
from dmq_core.majority import Margin
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible
from dmq_tui.render.format import Cell
from dmq_tui.widgets.entry import LineEntry
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import Prose, words

SnapshotSource = Callable[[], ClusterSnapshot | None]
_LOOK_EVERY_S = 0.25
_TONES = {Margin.SAFE: Tone.PLAIN, Margin.NO_MARGIN: Tone.WARN, Margin.NO_MAJORITY: Tone.BAD}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What is asked about: `title` names the action, `command` does the same (empty: none does), `impact` judges it.

    `name` is what has to be typed where the majority goes, and `noun` says whose name that is.
    """

    title: str
    command: str
    name: str
    noun: str
    destructive: bool
    impact: Callable[[ClusterSnapshot], Impact]


def confirmation_of(action: Action, cluster: str) -> Confirmation:
    """The confirmation before `action` on the cluster of that name."""
    name, noun = (next(iter(action.nodes)), "node") if len(action.nodes) == 1 else (cluster, "cluster")
    command = visible(action.command) if action.kind is Scaling.ADD else f"{visible(action.command)} --yes"
    return Confirmation(
        action.title, on_cluster(command, cluster), name, noun, action.destructive, partial(impact_of, action)
    )


class ConfirmScreen(ModalScreen[bool]):
    """Asks whether to do an act; dismissed with True for yes.

    It starts on Cancel, so Enter and Esc change nothing, and `y` does the act. An act that takes the majority (or whose
    impact is not known) needs a name typed, since one key is a habit of the hand; once asked for, the name stays asked
    for, so that a key typed for the name can never be taken for a yes.
    """

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", priority=True),
        Binding("y", "agree", "Yes", show=False),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]

    def __init__(self, question: Confirmation, snapshot: SnapshotSource) -> None:
        super().__init__()
        self._question = question
        self._snapshot = snapshot
        self._seen: ClusterSnapshot | None = None
        self._impact: Impact | None = None
        self._strict = False

    @property
    def strict(self) -> bool:
        """Whether the name has to be typed."""
        return self._strict

    def compose(self) -> ComposeResult:
        """The dialog."""
        with Vertical(id="dialog"):
            yield Prose(id="impact")
            yield Prose(id="command")
            yield LineEntry(placeholder=f"the {self._question.noun}'s name", id="typed", classes="hidden")
            with Horizontal(id="answers"):
                yield Button(" Cancel (Esc) ", id="cancel", compact=True)
                yield Button(
                    Content(f" {visible(self._question.title)} (y) "), id="agree", variant="error", compact=True
                )

    def on_mount(self) -> None:
        """Starts on Cancel and keeps the impact true from now on."""
        self.query_one("#dialog").border_title = Content(f"{visible(self._question.title)}?")
        same = (Cell("CLI equivalent: ", Tone.QUIET), Cell(self._question.command))
        self.query_one("#command", Prose).show([same] if self._question.command else [])
        self.query_one("#cancel", Button).focus()
        self._look()
        self.set_interval(_LOOK_EVERY_S, self._look)

    def action_cancel(self) -> None:
        """Does nothing."""
        self.dismiss(False)

    def action_agree(self) -> None:
        """Agrees, unless the newest figures ask for the name."""
        self._look()
        if not self._strict:
            self.dismiss(True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Cancel, or the act."""
        event.stop()
        if event.button.id == "cancel":
            self.action_cancel()
        elif not self._strict:
            self.action_agree()
        else:
            self._agree_by_name()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter after the name."""
        event.stop()
        self._agree_by_name()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Lets the act be pressed once the name is right."""
        event.stop()
        self.query_one("#agree", Button).disabled = not self._name_typed()

    def _agree_by_name(self) -> None:
        if self._name_typed():
            self.dismiss(True)

    def _name_typed(self) -> bool:
        return self.query_one("#typed", LineEntry).value.strip() == self._question.name

    def _look(self) -> None:
        snapshot = self._snapshot()
        if snapshot is not None and snapshot is self._seen:
            return
        self._seen = snapshot
        self._impact = None if snapshot is None else self._question.impact(snapshot)
        if self._question.destructive and (self._impact is None or self._impact.margin is Margin.NO_MAJORITY):
            self._demand_the_name()
        self.query_one("#impact", Prose).show(self._lines())

    def _demand_the_name(self) -> None:
        if self._strict:
            return
        self._strict = True
        self.query_one("#typed", LineEntry).remove_class("hidden")
        act = self.query_one("#agree", Button)
        act.label = Content(f" {visible(self._question.title)} ")
        act.disabled = True
        self.query_one("#typed", LineEntry).focus()

    def _lines(self) -> list[Line]:
        if self._impact is None:
            lines = [words("The impact is not known: the cluster has not been seen yet.", Tone.WARN)]
        else:
            tone = _TONES[self._impact.margin] if self._question.destructive else Tone.PLAIN
            glyph = "▲ " if tone is not Tone.PLAIN else ""
            lines = [
                (
                    Cell("" if sentence.margin is None else glyph, tone),
                    Cell(sentence.text, Tone.PLAIN if sentence.margin is None else tone),
                )
                for sentence in sentences_of(self._impact)
            ]
        if self._strict:
            lines += [
                (),
                words(
                    f"Type {visible(self._question.name)} and press Enter to do it. Esc leaves everything as it is.",
                    Tone.STRONG,
                ),
            ]
        return lines
