"""Settings: which cluster, as whom, and how; each value knows where it came from. Flag beats environment beats file."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from dmq_core.endpoints import Credentials, TlsSettings
from dmq_core.errors import InvalidInputError
from dmq_core.settings.file import ConfigFile, Table, config_path, read_config_file
from dmq_core.text import visible

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
DEFAULT_CLUSTER = "dmq"
PASSWORD_COMMAND_TIMEOUT_S = 30.0
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_USER_INFO = re.compile(r"^([a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)


class Source(StrEnum):
    """Where a setting came from, strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting(Generic[T_co]):
    """A value, where it came from, and the very flag, variable or line of the file (`where`, empty for a default)."""

    value: T_co
    source: Source = Source.DEFAULT
    where: str = ""


@dataclass(frozen=True, slots=True)
class Password:
    """Where a password is to be had: here, in an environment variable, or from a command's first line of output."""

    plain: str | None = field(default=None, repr=False)
    variable: str | None = None
    command: tuple[str, ...] = ()

    def reveal(self, environment: Mapping[str, str] | None = None) -> str:
        """The password itself; may run the command, for at most 30 s.

        Raises `InvalidInputError` if there is none to be had.
        """
        if self.plain is not None:
            return self.plain
        if self.variable is not None:
            value = (os.environ if environment is None else environment).get(self.variable, "")
            if not value:
                raise InvalidInputError(f"the variable {self.variable} holds no password", f"Set {self.variable}.")
            return value
        return _output_of(self.command)

    def __str__(self) -> str:
        if self.variable is not None:
            return f"from ${self.variable}"
        return f"from the command {visible(self.command[0])}" if self.command else "set"


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; None or empty where it said nothing."""

    cluster: str | None = None
    urls: tuple[str, ...] = field(default=(), repr=False)
    profile: str | None = None
    read_only: bool | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides which cluster is meant and how it is reached.

    With `urls` the cluster is somebody else's, reached by them; without, it is the one of ours called `cluster`.
    """

    cluster: Setting[str]
    urls: Setting[tuple[str, ...]] = field(repr=False)
    profile: Setting[str | None]
    read_only: Setting[bool]
    user: Setting[str | None]
    password: Setting[Password | None]
    ca_file: Setting[str | None]
    cert_file: Setting[str | None]
    key_file: Setting[str | None]
    verify: Setting[bool]
    file: Path
    file_exists: bool

    def credentials(self) -> Credentials | None:
        """The user to connect as, or None where neither user nor password was given; may run the password command."""
        if self.user.value is None and self.password.value is None:
            return None
        defaults = Credentials()
        password = defaults.password if self.password.value is None else self.password.value.reveal()
        return Credentials(self.user.value or defaults.username, password)

    def tls(self) -> TlsSettings:
        """How TLS endpoints are verified."""
        return TlsSettings(self.ca_file.value, self.cert_file.value, self.key_file.value, self.verify.value)


def load_settings(flags: Flags | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in effect.

    Raises `InvalidInputError` for a broken file (with its line), a bad variable or a contradiction.
    """
    flags = flags or Flags()
    environment = os.environ if environment is None else environment
    file = read_config_file(config_path(environment))
    target = _target(flags, environment, file)
    profile = _profile(target.profile, file)
    return Settings(
        cluster=target.cluster or _from_table(file, profile, "cluster", Setting(DEFAULT_CLUSTER)),
        urls=target.urls or _urls(file, profile),
        profile=target.profile or Setting(None),
        read_only=_read_only(flags, environment, file, profile),
        user=_flag(flags.user, "--user") or _from_table(file, profile, "user", Setting(None)),
        password=_password(environment, file, profile),
        ca_file=_path(file, profile, "ca_file"),
        cert_file=_path(file, profile, "cert_file"),
        key_file=_path(file, profile, "key_file"),
        verify=_from_table(file, profile, "verify", Setting(True)),
        file=file.path,
        file_exists=file.exists,
    )


def without_credentials(url: str) -> str:
    """`url` with all before its last `@` taken out, so that no badly quoted password shows either; safe to show."""
    return visible(_USER_INFO.sub(r"\1", url))


@dataclass(frozen=True, slots=True)
class _Target:
    """What names the cluster on one level: a cluster of ours, or URLs and a profile."""

    cluster: Setting[str] | None = None
    urls: Setting[tuple[str, ...]] | None = None
    profile: Setting[str | None] | None = None

    @property
    def given(self) -> bool:
        return not (self.cluster is None and self.urls is None and self.profile is None)


def _target(flags: Flags, environment: Mapping[str, str], file: ConfigFile) -> _Target:
    """The strongest level that names a cluster decides alone, so that no profile's password meets another URL."""
    levels = (
        _Target(
            cluster=_flag(flags.cluster, "--cluster"),
            urls=Setting(flags.urls, Source.FLAG, "--url") if flags.urls else None,
            profile=_flag(flags.profile, "--profile"),
        ),
        _Target(
            cluster=_variable(environment, "DMQ_CLUSTER"),
            urls=_url_variable(environment),
            profile=_variable(environment, "DMQ_PROFILE"),
        ),
        _Target(
            cluster=_optional(file, file.top, "cluster"),
            profile=_optional(file, file.top, "profile"),
        ),
    )
    target = next((level for level in levels if level.given), _Target())
    other = target.urls or target.profile
    if target.cluster is not None and other is not None:
        raise InvalidInputError(
            f"{target.cluster.where} and {other.where} name two different clusters", "Give only one of the two."
        )
    return target


def _profile(chosen: Setting[str | None] | None, file: ConfigFile) -> Table | None:
    if chosen is None or chosen.value is None:
        return None
    if chosen.value not in file.profiles:
        known = ", ".join(sorted(visible(name) for name in file.profiles)) or "none"
        raise InvalidInputError(
            f"there is no profile '{visible(chosen.value)}' ({chosen.where})",
            f"Profiles in {file.path}: {known}.",
        )
    return file.profiles[chosen.value]


def _flag(value: str | None, flag: str) -> Setting[str] | None:
    return None if value is None else Setting(value, Source.FLAG, flag)


def _variable(environment: Mapping[str, str], name: str) -> Setting[str] | None:
    value = environment.get(name, "")
    return Setting(value, Source.ENVIRONMENT, name) if value else None


def _url_variable(environment: Mapping[str, str]) -> Setting[tuple[str, ...]] | None:
    urls = tuple(re.split(r"[\s,]+", environment.get("DMQ_URL", "").strip(" ,\t\n")))
    return Setting(urls, Source.ENVIRONMENT, "DMQ_URL") if urls != ("",) else None


def _optional(file: ConfigFile, table: Table, key: str) -> Setting[T] | None:
    """The setting `key` of a table, whose type `config_file` has checked; None if it is not there."""
    if key not in table.values:
        return None
    value: T = table.values[key]  # type: ignore[assignment]  # checked against its key when the file was read
    return Setting(value, Source.FILE, f"{file.path}:{table.lines[key]}")


def _from_table(file: ConfigFile, profile: Table | None, key: str, default: Setting[T]) -> Setting[T]:
    found: Setting[T] | None = None if profile is None else _optional(file, profile, key)
    return default if found is None else found


def _urls(file: ConfigFile, profile: Table | None) -> Setting[tuple[str, ...]]:
    given: Setting[str | list[str]] = _from_table(file, profile, "urls", Setting([]))
    return Setting(_strings(given.value), given.source, given.where)


def _strings(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _read_only(flags: Flags, environment: Mapping[str, str], file: ConfigFile, profile: Table | None) -> Setting[bool]:
    if flags.read_only is not None:
        return Setting(flags.read_only, Source.FLAG, "--read-only" if flags.read_only else "--no-read-only")
    variable = _variable(environment, "DMQ_READ_ONLY")
    if variable is not None:
        word = variable.value.lower()
        if word not in _TRUE | _FALSE:
            raise InvalidInputError(f"DMQ_READ_ONLY is '{visible(variable.value)}'", "Set it to 1 or 0.")
        return Setting(word in _TRUE, variable.source, variable.where)
    top: Setting[bool] = _from_table(file, file.top, "read_only", Setting(False))
    return _from_table(file, profile, "read_only", top)


def _password(environment: Mapping[str, str], file: ConfigFile, profile: Table | None) -> Setting[Password | None]:
    if environment.get("DMQ_PASSWORD"):
        return Setting(Password(variable="DMQ_PASSWORD"), Source.ENVIRONMENT, "DMQ_PASSWORD")
    plain: Setting[str | None] = _from_table(file, profile, "password", Setting(None))
    variable: Setting[str | None] = _from_table(file, profile, "password_env", Setting(None))
    command: Setting[str | list[str] | None] = _from_table(file, profile, "password_command", Setting(None))
    if plain.value is not None:
        return Setting(Password(plain=plain.value), plain.source, plain.where)
    if variable.value is not None:
        return Setting(Password(variable=variable.value), variable.source, variable.where)
    if command.value is not None:
        return Setting(Password(command=_words(command.value, command.where)), command.source, command.where)
    return Setting(None)


def _words(command: str | list[str], where: str) -> tuple[str, ...]:
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise InvalidInputError(f"{where}: password_command: {error}", "Close the quotes.") from None
    if not words:
        raise InvalidInputError(f"{where}: password_command is empty", "Give a command that prints the password.")
    return tuple(words)


def _path(file: ConfigFile, profile: Table | None, key: str) -> Setting[str | None]:
    """A path of a profile; a relative one begins at the file's folder."""
    given: Setting[str | None] = _from_table(file, profile, key, Setting(None))
    if given.value is None:
        return given
    return Setting(str(file.path.parent / Path(given.value).expanduser()), given.source, given.where)


def _output_of(command: tuple[str, ...]) -> str:
    shown = visible(command[0])
    hint = "Run it by hand; its first line of output must be the password."
    try:
        done = subprocess.run(  # noqa: S603  # the user's own configured command, run without a shell
            command, stdout=subprocess.PIPE, timeout=PASSWORD_COMMAND_TIMEOUT_S, check=False
        )
    except OSError as error:
        raise InvalidInputError(f"the password command {shown} cannot be run: {error.strerror}", hint) from None
    except subprocess.TimeoutExpired:
        raise InvalidInputError(
            f"the password command {shown} took over {PASSWORD_COMMAND_TIMEOUT_S:.0f} s", hint
        ) from None
    if done.returncode != 0:
        raise InvalidInputError(f"the password command {shown} ended with status {done.returncode}", hint)
    try:
        first = done.stdout.decode().splitlines()[:1]
    except UnicodeDecodeError:
        first = []
    if not first or not first[0]:
        raise InvalidInputError(f"the password command {shown} printed no password", hint)
    return first[0]


def on_cluster(command: str, cluster: str) -> str:
    """A `dmq` command as it has to be typed for that cluster, which is named unless it is the usual one."""
    return command if cluster == DEFAULT_CLUSTER else f"{command} --cluster {cluster}"
