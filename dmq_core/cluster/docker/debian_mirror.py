"""Which Debian mirror apt on this machine uses, read from its own files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

DEFAULT_MIRROR = "http://deb.debian.org/debian"
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)$")
_RELEASES = frozenset(
    {"bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable", "bullseye", "oldoldstable"}
)


def debian_mirror(folder: Path = Path("/etc/apt")) -> str:
    """The mirror of Debian's main archive that apt uses here, else `deb.debian.org`."""
    for path in _source_files(folder):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        mirrors = list(mirrors_in(text, deb822=path.suffix == ".sources"))
        if mirrors:
            return mirrors[0]
    return DEFAULT_MIRROR


def mirrors_in(text: str, *, deb822: bool) -> Iterator[str]:
    """The `http(s)` addresses of Debian's main archive in a sources file, in its order."""
    for address, suites, components in _deb822_entries(text) if deb822 else _one_line_entries(text):
        usable = address.startswith(("http://", "https://")) and "debian-security" not in address
        if usable and "main" in components and _RELEASES.intersection(suites):
            yield address.rstrip("/")


def _source_files(folder: Path) -> Iterable[Path]:
    yield folder / "sources.list"
    listed = folder / "sources.list.d"
    yield from sorted([*listed.glob("*.sources"), *listed.glob("*.list")])


def _one_line_entries(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.partition("#")[0])
        if match is not None:
            yield match[1], [match[2]], match[3].split()


def _deb822_entries(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", []) or fields.get("enabled", ["yes"])[0].lower() in {"no", "false"}:
            continue
        for address in fields.get("uris", []):
            yield address, fields.get("suites", []), fields.get("components", [])


def _fields(stanza: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += line.split()
            continue
        key, colon, value = line.partition(":")
        if colon:
            name = key.strip().lower()
            fields[name] = value.split()
    return fields
