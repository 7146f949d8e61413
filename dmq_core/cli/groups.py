"""Click groups that import a command only when it is used, and take its options before its name as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

_OWN_OPTIONS = frozenset({"--help", "--version"})


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is (`module:attribute` below `dmq_core.cli`) and its one line of help."""

    place: str
    help: str


class LazyGroup(click.Group):
    """A group whose commands are imported when they run, so that `--help` stays quick.

    Options that stand before a command's name are read as if they stood right behind it.
    """

    def __init__(self, name: str, help: str, entries: Mapping[str, Entry], **settings: Any) -> None:  # noqa: A002  # click's word
        super().__init__(name, help=help, **settings)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of their table."""
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.place.partition(":")
        command = getattr(import_module(f"dmq_core.cli.{module}"), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing one."""
        rows = [(name, entry.help) for name, entry in self.entries.items()]
        rows += [(name, command.get_short_help_str(100)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments with all options moved behind the command's name."""
        return super().parse_args(ctx, self._options_behind_name(ctx, args))

    def _options_behind_name(self, ctx: click.Context, args: list[str]) -> list[str]:
        moved: list[str] = []
        rest = iter(args)
        for argument in rest:
            if argument == "--" or argument.partition("=")[0] in _OWN_OPTIONS:
                return [argument, *rest]
            if not argument.startswith("-"):
                return [argument, *moved, *rest]
            moved.append(argument)
            if "=" not in argument and self._takes_value(ctx, argument):
                moved += [value for value in (next(rest, None),) if value is not None]
        if moved and not ctx.resilient_parsing:
            raise click.UsageError("no command given", ctx)
        return args

    def _takes_value(self, ctx: click.Context, option: str) -> bool:
        """Whether `option` is followed by a value; asks this group's own options first, then every command's."""
        own = _value_options(self, ctx)
        if option in own:
            return own[option]
        return any(_value_options(c, ctx).get(option, False) for c in _commands_below(self, ctx))


def _value_options(command: click.Command, ctx: click.Context) -> dict[str, bool]:
    return {
        name: not (parameter.is_flag or parameter.count)
        for parameter in command.get_params(ctx)
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def _commands_below(group: click.Group, ctx: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None:
            yield command
        if isinstance(command, click.Group):
            yield from _commands_below(command, ctx)
