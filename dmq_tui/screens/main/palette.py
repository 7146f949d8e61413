"""The command palette, fed by the table of commands: what `:` and Ctrl+P open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider

from dmq_tui.commands import COMMANDS, Command


class CommandProvider(Provider):
    """Finds commands by id or title; an id typed in full comes first."""

    async def discover(self) -> Hits:
        """Every command, before anything is typed."""
        for command in _offered():
            yield DiscoveryHit(_shown(command), self._run(command), help=_help(command))

    async def search(self, query: str) -> Hits:
        """The commands that resemble `query`."""
        matcher = self.matcher(query)
        for command in _offered():
            shown = _shown(command)
            exact = query.strip().casefold() == command.id
            score = 1.0 if exact else max(matcher.match(command.id), matcher.match(command.title)) * 0.99
            if score > 0:
                yield Hit(score, matcher.highlight(shown), self._run(command), text=shown, help=_help(command))

    def _run(self, command: Command) -> Callable[[], Awaitable[None]]:
        return partial(self.screen.run_action, f"do('{command.id}')")


def palette() -> CommandPalette:
    """The palette over the screen that opens it."""
    return CommandPalette(providers=[CommandProvider], placeholder="Find a command")


def _offered() -> tuple[Command, ...]:
    return tuple(c for c in COMMANDS if c.palette and c.id != "palette")


def _shown(command: Command) -> str:
    return f"{command.id} · {command.title}"


def _help(command: Command) -> str:
    return f"{command.help} ({command.key})" if command.key else command.help
