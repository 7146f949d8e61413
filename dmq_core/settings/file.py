"""The configuration file `config.toml`: read, checked key by key, each problem told with its line."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dmq_core.errors import InvalidInputError
from dmq_core.text import visible

_STRING = "a string"
_BOOLEAN = "true or false"
_STRINGS = "a string or a list of strings"
_TOP_KEYS = {"cluster": _STRING, "profile": _STRING, "read_only": _BOOLEAN, "profiles": "a table of profiles"}
_PROFILE_KEYS = {
    "cluster": _STRING,
    "urls": _STRINGS,
    "user": _STRING,
    "password": _STRING,
    "password_env": _STRING,
    "password_command": _STRINGS,
    "ca_file": _STRING,
    "cert_file": _STRING,
    "key_file": _STRING,
    "verify": _BOOLEAN,
    "read_only": _BOOLEAN,
}
_PASSWORD_KEYS = ("password", "password_env", "password_command")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_HEADER = re.compile(r"\s*\[+([^\]]+)\]+")


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """One table of the file: its checked values and the line (1-based) on which each key stands."""

    values: Mapping[str, object]
    lines: Mapping[str, int]


@dataclass(frozen=True, slots=True, repr=False)
class ConfigFile:
    """A checked configuration file; an absent one has no values."""

    path: Path
    exists: bool
    top: Table
    profiles: Mapping[str, Table]


def config_path(environment: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/dmq/config.toml`, by default below `~/.config`."""
    base = environment.get("XDG_CONFIG_HOME", "")
    home = Path(environment.get("HOME") or Path.home())
    return (Path(base) if base.startswith("/") else home / ".config") / "dmq" / "config.toml"


def read_config_file(path: Path) -> ConfigFile:
    """The file at `path`; `InvalidInputError` naming the line for whatever is wrong in it."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return ConfigFile(path, exists=False, top=Table({}, {}), profiles={})
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _broken(path, line, "is not UTF-8") from None
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror}", "Make it a file that you may read."
        ) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken(path, *_toml_problem(str(error), text)) from None
    return _checked(path, text, document)


def _checked(path: Path, text: str, document: Mapping[str, object]) -> ConfigFile:
    top = _table(path, text, (), document, _TOP_KEYS)
    given = top.values.get("profiles", {})
    profiles: dict[str, Table] = {}
    for name, values in (given if isinstance(given, dict) else {}).items():
        section = ("profiles", name)
        if not isinstance(values, dict):
            raise _broken(path, _line_of(text, ("profiles",), name), f"profiles.{visible(name)} is no table")
        profiles[name] = _table(path, text, section, values, _PROFILE_KEYS)
        _check_profile(path, name, profiles[name], _section_line(text, section))
    _check_secrecy(path, profiles)
    return ConfigFile(path, exists=True, top=top, profiles=profiles)


def _table(
    path: Path, text: str, section: tuple[str, ...], values: Mapping[str, object], known: Mapping[str, str]
) -> Table:
    lines = {key: _line_of(text, section, key) for key in values}
    for key, value in values.items():
        if key not in known:
            raise _broken(path, lines[key], f"'{visible(key)}' is no setting here; known are {', '.join(known)}")
        if not _fits(value, known[key]):
            raise _broken(path, lines[key], f"{key} must be {known[key]}")
    return Table(dict(values), lines)


def _fits(value: object, expected: str) -> bool:
    if expected == _STRING:
        return isinstance(value, str) and bool(value)
    if expected == _BOOLEAN:
        return isinstance(value, bool)
    if expected == _STRINGS:
        items = value if isinstance(value, list) else [value]
        return bool(items) and all(isinstance(item, str) and item for item in items)
    return isinstance(value, dict)


def _check_profile(path: Path, name: str, table: Table, line: int) -> None:
    shown = f"profile {visible(name)}"
    if ("cluster" in table.values) == ("urls" in table.values):
        raise _broken(path, line, f"{shown} needs one of 'cluster' and 'urls'")
    passwords = [key for key in _PASSWORD_KEYS if key in table.values]
    if len(passwords) > 1:
        raise _broken(path, table.lines[passwords[1]], f"{shown} has both {passwords[0]} and {passwords[1]}")
    if "key_file" in table.values and "cert_file" not in table.values:
        raise _broken(path, table.lines["key_file"], f"{shown} has a key_file without a cert_file")


def _check_secrecy(path: Path, profiles: Mapping[str, Table]) -> None:
    """A file that holds a password itself may be readable by its owner only."""
    holder = next((table for table in profiles.values() if "password" in table.values), None)
    if holder is not None and os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInputError(
            f"{path}: line {holder.lines['password']}: holds a password and others may read the file",
            f"chmod 600 {path}, or better give password_command or password_env instead.",
        )


def _broken(path: Path, line: int, problem: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path}: line {line}: {problem}", "Correct that line; the README shows what the file may hold."
    )


def _toml_problem(message: str, text: str) -> tuple[int, str]:
    match = _AT_LINE.search(message)
    line = int(match[1]) if match else text.count("\n") + 1
    return line, visible(message[: match.start()] if match else message.removesuffix(" (at end of document)"))


def _line_of(text: str, section: tuple[str, ...], key: str) -> int:
    """The line on which `key` of `section` stands; where the file is written in an unusual way, its section's line."""
    current: tuple[str, ...] = ()
    wanted = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*(=|\.)")
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            current = _parts(header[1])
            if current[: len(section) + 1] == (*section, key):
                return number
        elif current == section and wanted.match(line):
            return number
    return _section_line(text, section)


def _section_line(text: str, section: tuple[str, ...]) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header and _parts(header[1]) == section:
            return number
    return 1


def _parts(header: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in header.split("."))
