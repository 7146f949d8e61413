"""An app that shows one screen on its own, for tests of that screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import idle_console
from textual.app import App
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import Screen

from dmq_tui.app import DmqApp
from dmq_tui.render.themes import DARK
from dmq_tui.widgets.prose import Prose

idle_console.use()

PATIENCE_S = 5.0
KEYS = {
    " ": "space",
    "=": "equals_sign",
    ".": "full_stop",
    "{": "left_curly_bracket",
    "}": "right_curly_bracket",
    '"': "quotation_mark",
    ":": "colon",
    "[": "left_square_bracket",
    "]": "right_square_bracket",
    "\n": "enter",
}


class Stage(App[None]):
    """Pushes `screen`; `results` holds what it was dismissed with."""

    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self._first = screen
        self.results: list[object] = []

    def get_key_display(self, binding: Binding) -> str:
        return DmqApp.get_key_display(self, binding)  # type: ignore[arg-type]

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict(DARK.variables)

    def on_mount(self) -> None:
        self.register_theme(DARK)
        self.theme = DARK.name
        self.push_screen(self._first, self.results.append)

    def text(self, selector: str) -> str:
        """What the `Prose` at `selector` shows."""
        return self.screen.query_one(selector, Prose).text

    def everything(self) -> str:
        """Every cell of the screen as plain text."""
        return "\n".join(
            "".join(segment.text for segment in strip) for strip in self.screen._compositor.render_strips()
        )


async def until(pilot: Pilot[None], condition: Callable[[], bool], what: str) -> None:
    """Lets the app go on until `condition` holds; fails after 5 s, naming `what` was awaited."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        await pilot.pause(0.02)


async def write(pilot: Pilot[None], text: str) -> None:
    """Types `text` key by key."""
    await pilot.press(*(KEYS.get(char, char) for char in text))
