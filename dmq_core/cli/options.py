"""The options that every command shares, and the `Invocation` that carries them; `dmq-tui` uses the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, TypeVar

import click

from dmq_core.cli.output import Output
from dmq_core.settings.settings import Flags, Settings, load_settings

R = TypeVar("R")
Decorated = Callable[..., Any]

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of a command: its settings and where its results go."""

    settings: Settings
    out: Output


def cluster_options(function: Callable[Concatenate[Settings, ...], R]) -> Decorated:
    """Gives a click command the options that say which cluster, and `function` their `Settings` as first argument."""

    @functools.wraps(function)
    def with_settings(
        *,
        cluster: str | None,
        urls: tuple[str, ...],
        profile: str | None,
        user: str | None,
        read_only: bool | None,
        **others: Any,
    ) -> R:
        flags = Flags(cluster=cluster, urls=urls, profile=profile, read_only=read_only, user=user)
        return function(load_settings(flags), **others)

    return _with(with_settings, target_parameters())


def common_options(function: Callable[Concatenate[Invocation, ...], R]) -> Decorated:
    """Gives a click command all shared options, and `function` an `Invocation` as first argument."""

    @functools.wraps(function)
    def with_invocation(settings: Settings, /, *, as_json: bool, **others: Any) -> R:
        return function(Invocation(settings, Output(json=as_json)), **others)

    return _with(cluster_options(with_invocation), [json_parameter()])


def target_parameters() -> list[click.Parameter]:
    """The options that say which cluster is meant and how far one may go."""
    return [
        click.Option(["--cluster"], metavar="NAME", help="Name of a cluster that dmq created (default: dmq)."),
        click.Option(
            ["--url", "urls"],
            metavar="URL",
            multiple=True,
            help="Attach to a running cluster by AMQP or HTTP URL; repeatable.",
        ),
        click.Option(["--profile"], metavar="NAME", help="Profile from the configuration file."),
        click.Option(["--user"], metavar="NAME", help="Broker user; its password comes from DMQ_PASSWORD."),
        click.Option(
            ["--read-only/--no-read-only"], default=None, help="Refuse everything that would change something."
        ),
    ]


def json_parameter() -> click.Parameter:
    """The option that asks for JSON."""
    return click.Option(["--json", "as_json"], is_flag=True, help="Write JSON, and nothing else, to stdout.")


def _with(function: Decorated, parameters: list[click.Parameter]) -> Decorated:
    """What click's own decorators do: `click.command` collects the parameters from this attribute, last one first."""
    collected: list[click.Parameter] = getattr(function, "__click_params__", [])
    function.__click_params__ = [*collected, *reversed(parameters)]  # type: ignore[attr-defined]  # click's protocol
    return function
