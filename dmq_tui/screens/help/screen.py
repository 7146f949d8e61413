"""The keys that work here, and why the others do not."""

from __future__ import annotations

import textwrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from dmq_core.presentation import Tone
from dmq_tui.commands import COMMANDS, Category, Command, Situation, key_name, why_disabled
from dmq_tui.render.format import Cell, fit
from dmq_tui.widgets.footer import keys_text
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import Prose, words

_KEYS_WIDTH = 11
_TITLE_WIDTH = 23
_INDENT = 2
_NARROWEST_TEXT = 20
_WIDEST = 132
_FRAME = 5  # border, padding and scroll bar, as the style sheet has them
_ORDER = (Category.NODES, Category.MESSAGES, Category.LOOK, Category.APP, Category.MOVE)


class HelpScreen(ModalScreen[None]):
    """Lists every command of the one table, those that work in `situation` first; any of Esc, q and ? closes it."""

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "close", "close")]

    def __init__(self, situation: Situation) -> None:
        super().__init__()
        self._situation = situation

    def compose(self) -> ComposeResult:
        """One page that scrolls."""
        with VerticalScroll(id="page"):
            yield Prose(self._lines(), id="keys")

    def on_mount(self) -> None:
        """Lets the arrow keys scroll."""
        page = self.query_one("#page")
        page.border_title = f"Help · the keys that work in pane {int(self._situation.pane)}"
        page.border_subtitle = Content(f"↑↓ scroll · {keys_text(self)}")
        page.focus()

    def on_resize(self) -> None:
        """Wraps the texts for the new width, once the new layout stands."""
        self.call_after_refresh(lambda: self.query_one("#keys", Prose).show(self._lines()))

    def _lines(self) -> list[Line]:
        return help_lines(self._situation, min(_WIDEST, self.app.size.width) - _FRAME)

    def action_close(self) -> None:
        """Back."""
        self.dismiss(None)


def help_lines(situation: Situation, width: int) -> list[Line]:
    """The commands that work now by category, then the others with the reason why not, in `width` cells."""
    works = [c for c in COMMANDS if not why_disabled(c, situation)]
    lines: list[Line] = []
    for category in _ORDER:
        mine = [c for c in works if c.category is category]
        if mine:
            lines.append(words(str(category), Tone.STRONG))
            for command in mine:
                lines += _entry(command, command.help, width)
            lines.append(())
    others = [c for c in COMMANDS if c not in works]
    if others:
        lines.append(words("Not now", Tone.STRONG))
        for command in others:
            lines += _entry(command, why_disabled(command, situation), width, quiet=True)
    return lines


def _entry(command: Command, text: str, width: int, *, quiet: bool = False) -> list[Line]:
    keys = " ".join(key_name(key) for key in command.keys) or f":{command.id}"
    left = _INDENT + _KEYS_WIDTH + 1 + _TITLE_WIDTH + 1
    first, *rest = textwrap.wrap(text, max(_NARROWEST_TEXT, width - left)) or [""]
    return [
        (
            Cell(f"{' ' * _INDENT}{fit(keys, _KEYS_WIDTH)} ", Tone.QUIET if quiet else Tone.ACCENT),
            Cell(f"{fit(command.title, _TITLE_WIDTH)} ", Tone.QUIET if quiet else Tone.PLAIN),
            Cell(first, Tone.QUIET),
        ),
        *(words(" " * left + line, Tone.QUIET) for line in rest),
    ]
