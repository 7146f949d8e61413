"""The command palette, fed by the table of commands: what `:` and Ctrl+P open."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider

from dmq_tui.screens.main.commands import COMMANDS, Command

if TYPE_CHECKING:
    from dmq_tui.screens.main.screen import MainScreen


class CommandProvider(Provider):
    """Finds commands by id or title; an id typed in full comes first."""

    async def discover(self) -> Hits:
        """Every command, before anything is typed."""
        for command in _offered():
            yield DiscoveryHit(_shown(command), self._deed(command), help=_help(command))

    async def search(self, query: str) -> Hits:
        """The commands that resemble `query`."""
        matcher = self.matcher(query)
        for command in _offered():
            shown = _shown(command)
            exact = query.strip().casefold() == command.id
            score = 1.0 if exact else max(matcher.match(command.id), matcher.match(command.title)) * 0.99
            if score > 0:
                yield Hit(score, matcher.highlight(shown), self._deed(command), text=shown, help=_help(command))

    def _deed(self, command: Command) -> Callable[[], None]:
        return partial(cast("MainScreen", self.screen).action_do, command.id)


def palette() -> CommandPalette:
    """The palette over the screen that opens it."""
    return CommandPalette(providers=[CommandProvider], placeholder="Find a command")


def _offered() -> tuple[Command, ...]:
    return tuple(c for c in COMMANDS if c.palette and c.id != "palette")


def _shown(command: Command) -> str:
    return f"{command.id} · {command.title}"


def _help(command: Command) -> str:
    return f"{command.help} ({command.key})" if command.key else command.help
