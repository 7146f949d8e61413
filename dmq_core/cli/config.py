"""`dmq config`: the settings in effect."""

from __future__ import annotations

from typing import Any

import click

from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options
from dmq_core.presentation import UNKNOWN
from dmq_core.settings.settings import Setting, Settings, without_credentials
from dmq_core.text import visible


@click.command()
@common_options
def show(invocation: Invocation) -> None:
    """Show each setting in effect and where it comes from; passwords are hidden."""
    shown = _shown(invocation.settings)
    if invocation.out.json:
        invocation.out.document(_document(invocation.settings, shown))
        return
    invocation.out.table(
        ("SETTING", "VALUE", "FROM"),
        [(name, _value_text(value), _origin(setting)) for name, (value, setting) in shown.items()],
    )
    file = invocation.settings
    invocation.out.say(f"{visible(str(file.file))}: {'read' if file.file_exists else 'does not exist'}")


def _shown(settings: Settings) -> dict[str, tuple[Any, Setting[Any]]]:
    """Every setting with the value that may be shown."""
    password = settings.password.value
    return {
        "cluster": (settings.cluster.value, settings.cluster),
        "urls": ([without_credentials(url) for url in settings.urls.value], settings.urls),
        "profile": (settings.profile.value, settings.profile),
        "read_only": (settings.read_only.value, settings.read_only),
        "user": (settings.user.value, settings.user),
        "password": (None if password is None else str(password), settings.password),
        "ca_file": (settings.ca_file.value, settings.ca_file),
        "cert_file": (settings.cert_file.value, settings.cert_file),
        "key_file": (settings.key_file.value, settings.key_file),
        "verify": (settings.verify.value, settings.verify),
    }


def _document(settings: Settings, shown: dict[str, tuple[Any, Setting[Any]]]) -> dict[str, Any]:
    return {
        "file": str(settings.file),
        "file_exists": settings.file_exists,
        "settings": {
            name: {"value": value, "source": str(setting.source), "where": setting.where}
            for name, (value, setting) in shown.items()
        },
    }


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(visible(item) for item in value) or UNKNOWN
    if isinstance(value, bool):
        return str(value).lower()
    return UNKNOWN if value is None else visible(str(value))


def _origin(setting: Setting[Any]) -> str:
    return f"{setting.source} {visible(setting.where)}" if setting.where else str(setting.source)


config = LazyGroup(
    name="config", help="Show the settings in effect and where each comes from.", entries={}, commands=[show]
)
