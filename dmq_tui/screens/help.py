"""The keys that work here, and why the others do not."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from dmq_tui.commands import COMMANDS, Category, Command, Situation, key_name, objection
from dmq_tui.format import Cell, Tone, fit
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import Prose, words

_KEYS_WIDTH = 12
_TITLE_WIDTH = 24


class HelpScreen(ModalScreen[None]):
    """Lists every command of the one table, those that work in `situation` first; any of Esc, q and ? closes it."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "close", "Close")]

    def __init__(self, situation: Situation) -> None:
        super().__init__()
        self._situation = situation

    def compose(self) -> ComposeResult:
        """One page that scrolls."""
        with VerticalScroll(id="page"):
            yield Prose(help_lines(self._situation))

    def on_mount(self) -> None:
        """Lets the arrow keys scroll."""
        page = self.query_one("#page")
        page.border_title = f"Help · the keys that work in pane {int(self._situation.pane)}"
        page.border_subtitle = "↑ ↓ scroll · Esc close"
        page.focus()

    def action_close(self) -> None:
        """Back."""
        self.dismiss(None)


def help_lines(situation: Situation) -> list[Line]:
    """The commands that work now by category, then the others with the reason why not."""
    works = [c for c in COMMANDS if not objection(c, situation)]
    lines: list[Line] = []
    for category in Category:
        mine = [c for c in works if c.category is category]
        if mine:
            lines += [words(str(category), Tone.STRONG), *(_entry(c, c.help) for c in mine), ()]
    others = [c for c in COMMANDS if c not in works]
    if others:
        lines.append(words("Not now", Tone.STRONG))
        lines += [_entry(c, objection(c, situation), quiet=True) for c in others]
        lines.append(())
    lines.append(
        words("Every name on the left of its text can also be found with : and the first letters.", Tone.QUIET)
    )
    return lines


def _entry(command: Command, text: str, *, quiet: bool = False) -> Line:
    keys = " ".join(key_name(key) for key in command.keys) or f":{command.id}"
    tone = Tone.QUIET if quiet else Tone.PLAIN
    return (
        Cell(f"  {fit(keys, _KEYS_WIDTH)} ", Tone.QUIET if quiet else Tone.ACCENT),
        Cell(f"{fit(command.title, _TITLE_WIDTH)} ", tone),
        Cell(text, Tone.QUIET),
    )
