"""The `dmq-tui` command; what is heavy is imported once the options are understood."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from dmq_core.cli.options import cluster_options
from dmq_core.cli.running import run
from dmq_core.session.protocol import Session
from dmq_core.settings.settings import Settings


@click.command(name="dmq-tui", context_settings={"help_option_names": ["-h", "--help"]})
@cluster_options
@click.option(
    "--theme",
    type=click.Choice(["dark", "light"]),
    default="dark",
    envvar="DMQ_THEME",
    show_default=True,
    help="Colours; T changes them.",
)
def console(settings: Settings, theme: str) -> int:
    """Opens the console: nodes, exchanges, queues and messages of a RabbitMQ cluster, live.

    Without a running cluster it offers to start one.
    """
    from dmq_tui.app import DmqApp, run_console
    from dmq_tui.render.themes import theme_name

    return run_console(DmqApp(lambda: open_session(settings), theme=theme_name(theme)))


def open_session(settings: Settings) -> Session:
    """A session with the cluster that the settings name, whether it exists yet or not; blocks for some seconds."""
    from dmq_core.cli.connect import open_for_start
    from dmq_core.session.live import LiveSession

    cluster = open_for_start(settings, backend="auto", nodes=None, rabbitmq=None)
    return LiveSession(cluster, read_only=settings.read_only.value)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `dmq-tui` with `arguments` (by default those of the process) and exits with the contract's status."""
    sys.exit(run(console, "dmq-tui", sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()
