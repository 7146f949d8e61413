"""Which RabbitMQ this machine has installed, read from the file system without starting anything."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dmq_core.errors import InvalidInputError
from dmq_core.text import visible
from dmq_core.versions import Version, parse_version

_HOME = re.compile(r"rabbitmq_server-(\d+\.\d+\.\d+)")
_ASKED = re.compile(r"\d{1,4}(?:\.\d{1,4}){0,2}")
_ADMIN_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True)
class Installation:
    """An installed RabbitMQ: its version, the folder of its own scripts, and the `epmd` of its Erlang."""

    version: Version
    scripts: Path
    epmd: Path

    @property
    def server(self) -> Path:
        """RabbitMQ's own `rabbitmq-server`: unlike a distribution's wrapper it neither changes user nor folder."""
        return self.scripts / "rabbitmq-server"

    @property
    def ctl(self) -> Path:
        """RabbitMQ's own `rabbitmqctl`."""
        return self.scripts / "rabbitmqctl"

    @property
    def upgrade(self) -> Path:
        """RabbitMQ's own `rabbitmq-upgrade`, which puts a node into maintenance."""
        return self.scripts / "rabbitmq-upgrade"


def checked_version(text: str) -> str:
    """`text` if it is a version or the beginning of one (`3.10`, `4`), else `InvalidInputError`."""
    if not _ASKED.fullmatch(text):
        raise InvalidInputError(f"{visible(text)!r} is no RabbitMQ version", "Give one like 4.3 or 3.10.")
    return text


def matches_version(version: Version, asked: str) -> bool:
    """Whether `version` is the one asked for, which may leave its end open."""
    wanted = [int(part) for part in asked.split(".")]
    return [version.major, version.minor, version.patch][: len(wanted)] == wanted


def search_path() -> str:
    """PATH with the administrator's folders, which an ordinary user's PATH often lacks."""
    own = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p]
    return os.pathsep.join(dict.fromkeys([*own, *_ADMIN_FOLDERS]))


def find_installation(
    path: str | None = None, library_folders: Iterable[Path] = (Path("/usr/lib/rabbitmq/lib"),)
) -> Installation | None:
    """The RabbitMQ that `path` (default: PATH) leads to, else the newest in `library_folders`; None without one."""
    path = search_path() if path is None else path
    epmd = _find_epmd(path)
    if epmd is None or shutil.which("erl", path=path) is None:
        return None
    candidates = [_version_of(scripts) for scripts in _script_folders(path, library_folders)]
    found = [c for c in candidates if c is not None]
    if not found:
        return None
    version, scripts = found[0]
    return Installation(version, scripts, epmd)


def _script_folders(path: str, library_folders: Iterable[Path]) -> list[Path]:
    on_path = shutil.which("rabbitmq-server", path=path)
    first = [Path(on_path).resolve().parent] if on_path else []
    homes = [home for folder in library_folders for home in folder.glob("rabbitmq_server-*") if _HOME.search(home.name)]
    homes.sort(key=lambda home: parse_version(home.name), reverse=True)
    return [*first, *(home / "sbin" for home in homes)]


def _version_of(scripts: Path) -> tuple[Version, Path] | None:
    match = _HOME.search(scripts.parent.name)
    usable = match is not None and os.access(scripts / "rabbitmq-server", os.X_OK)
    return (parse_version(match[1]), scripts) if match is not None and usable else None


def _find_epmd(path: str) -> Path | None:
    found = shutil.which("epmd", path=path)
    if found is not None:
        return Path(found)
    erl = shutil.which("erl", path=path)
    if erl is None:
        return None
    roots = (Path(erl).resolve().parent.parent, Path("/usr/lib/erlang"))
    return next((p for root in roots for p in sorted(root.glob("erts-*/bin/epmd")) if os.access(p, os.X_OK)), None)
