"""The keys that work on a screen, read from its bindings: as the screen's last line, or in the border of a dialog."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen
from textual.widgets import Footer


class KeysFooter(Footer):
    """Textual's footer as all our screens show it."""

    def __init__(self) -> None:
        super().__init__(compact=True, show_command_palette=False)


def keys_text(screen: Screen[Any]) -> str:
    """The keys of `screen` that its bindings show, one for each action: `↵ begin · Esc back`."""
    shown = {
        active.binding.action: f"{screen.app.get_key_display(active.binding)} {active.binding.description}"
        for active in reversed(screen.active_bindings.values())
        if active.binding.show
    }
    return " · ".join(reversed(shown.values()))
