"""Which Debian mirror apt uses, in both of its formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.docker.debian_mirror import DEFAULT_MIRROR, debian_mirror, mirrors_in

DEB822 = """\
# the image's own
Types: deb
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
"""


def test_a_deb822_file_gives_its_main_archive() -> None:
    assert list(mirrors_in(DEB822, deb822=True)) == ["http://mirror.example/debian"]


def test_a_field_may_go_on_in_the_next_line() -> None:
    text = "Types: deb deb-src\nURIs: http://a.example/debian\n https://b.example/debian\nSuites: trixie\n"
    text += "Components: main\n"
    assert list(mirrors_in(text, deb822=True)) == ["http://a.example/debian", "https://b.example/debian"]


def test_a_disabled_stanza_does_not_count() -> None:
    assert list(mirrors_in("Enabled: no\n" + DEB822, deb822=True)) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deb http://m.example/debian trixie main contrib", ["http://m.example/debian"]),
        ("deb [arch=amd64 signed-by=/k.gpg] https://m.example/debian/ forky main # ours", ["https://m.example/debian"]),
        ("deb-src http://m.example/debian trixie main", []),
        ("# deb http://m.example/debian trixie main", []),
        ("deb http://security.debian.org/debian-security trixie-security main", []),
        ("deb https://deb.nodesource.com/node_20.x nodistro main", []),
        ("deb cdrom:[Debian] trixie main", []),
        ("deb http://m.example/debian trixie contrib", []),
    ],
)
def test_one_line_sources(line: str, expected: list[str]) -> None:
    assert list(mirrors_in(line, deb822=False)) == expected


def test_the_first_mirror_of_the_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("# moved\n")
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "old.list").write_text("deb http://old.example/debian bookworm main\n")
    assert debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_a_machine_without_apt_gets_the_default(tmp_path: Path) -> None:
    assert debian_mirror(tmp_path / "none") == DEFAULT_MIRROR


@given(st.text(), st.booleans())
def test_any_text_gives_only_web_addresses(text: str, deb822: bool) -> None:
    assert all(m.startswith(("http://", "https://")) for m in mirrors_in(text, deb822=deb822))
