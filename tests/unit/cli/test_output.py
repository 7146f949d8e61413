"""How `dmq` writes messages, tables, figures and progress, and how it asks."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cli.messages import MessageFilter, message_document, message_line
from dmq_core.cli.output import Output, painted, table_lines
from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import MessageProperties, SeenMessage
from dmq_core.presentation import Tone
from dmq_core.progress import Progress


def seen(body: bytes = b"hello", *, key: str = "order.eu.new", **others: object) -> SeenMessage:
    headers = others.pop("headers", {})
    return SeenMessage(
        at=1_790_000_000.25,
        exchange=str(others.pop("exchange", "orders")),
        routing_key=key,
        body=body,
        size=int(str(others.pop("size", len(body)))),
        properties=MessageProperties(headers=headers, content_type="text/plain"),  # type: ignore[arg-type]
        queue=None,
        redelivered=None,
    )


def test_a_message_has_the_fields_of_the_contract() -> None:
    assert list(message_document(seen())) == [
        "at", "exchange", "routing_key", "queue", "redelivered", "headers", "properties", "body", "body_encoding",
        "size",
    ]  # fmt: skip


def test_a_body_that_is_no_text_stands_in_base64() -> None:
    document = message_document(seen(b"\xff\x00"))
    assert (document["body"], document["body_encoding"], document["size"]) == ("/wA=", "base64", 2)


headers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(datetime.now(UTC)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.binary(max_size=40), st.text(max_size=20), st.dictionaries(st.text(max_size=9), headers, max_size=3))
def test_any_message_is_one_line_of_json_and_one_safe_line_of_text(
    body: bytes, key: str, values: dict[str, object]
) -> None:
    message = seen(body, key=key, headers=values)
    written = json.dumps(message_document(message), allow_nan=False)
    assert written.isascii()
    assert "\n" not in written
    line = message_line(message)
    assert len(line.splitlines()) == 1
    assert not [char for char in line if unicodedata.category(char) in ("Cc", "Cf", "Cs")]


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("eu", True),
        ("!eu", False),
        ("hello", True),
        ("key=order.*.new", True),
        ("key=order", False),
        ("!key=order", True),
        ("exchange=orders", True),
        ("body=hel*", True),
        ("header.tenant=e?", True),
        ("header.other=*", False),
        ("tenant", True),
        ("a=b", False),
    ],
)
def test_a_filter_looks_where_it_says(expression: str, holds: bool) -> None:
    message = seen(headers={"tenant": "eu"})
    assert MessageFilter([expression]).matches(message) is holds


def test_every_filter_must_hold() -> None:
    assert MessageFilter([]).matches(seen())
    assert not MessageFilter(["hello", "!hello"]).matches(seen())


@pytest.mark.parametrize("expression", ["", "!"])
def test_an_empty_filter_is_refused(expression: str) -> None:
    with pytest.raises(InvalidInputError):
        MessageFilter([expression])


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    lines = table_lines(("NAME", ">N"), [("日本", "1"), ("a", "10")])
    assert lines == ["NAME   N", "日本   1", "a     10"]


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert painted("x", Tone.BAD, Terminal()) == "\x1b[31mx\x1b[0m"
    assert painted("x", Tone.BAD, io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("x", Tone.BAD, Terminal()) == "x"


def test_progress_without_a_terminal_says_each_thing_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(json=True).progress() as progress:
        for text in ("boots", "boots", "serves\x1b[2J"):
            progress(Progress(text, "rmq1", 0.5))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "rmq1: boots\nrmq1: serves\\x1b[2J\n"


def on_a_terminal(program: str, typed: bytes = b"") -> tuple[int, bytes]:
    """Runs a program with a terminal of its own; its exit status and all that it wrote."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        os.write(leader, typed)
        written = b""
        while True:
            try:
                chunk = os.read(leader, 4096)
            except OSError:
                break
            if not chunk:
                break
            written += chunk
        status = process.wait(30)
    os.close(leader)
    return status, written


CONFIRM = (
    "import click\n"
    "from dmq_core.cli.output import confirm\n"
    "from dmq_core.cli.running import run\n"
    "@click.command()\n"
    "def act():\n"
    "    confirm('Do it?', yes=False)\n"
    "    print('carried out')\n"
    "raise SystemExit(run(act, 'dmq', []))\n"
)


@pytest.mark.parametrize(("typed", "status"), [(b"y\n", 0), (b"yes\n", 0), (b"\n", 6), (b"no\n", 6), (b"\x04", 6)])
def test_on_a_terminal_a_destructive_act_asks_and_no_is_the_default(typed: bytes, status: int) -> None:
    ended, written = on_a_terminal(CONFIRM, typed)
    assert ended == status
    assert b"Do it? [y/N]" in written
    assert (b"carried out" in written) is (status == 0)


def test_on_a_terminal_progress_is_one_line_that_leaves_no_trace() -> None:
    program = (
        "from dmq_core.cli.output import Output\n"
        "from dmq_core.progress import Progress\n"
        "out = Output(json=False)\n"
        "with out.progress() as progress:\n"
        "    progress(Progress('boots', 'rmq1', 0.25))\n"
        "    out.say('a message')\n"
        "    progress(Progress('serves', 'rmq1'))\n"
    )
    status, written = on_a_terminal(program)
    assert status == 0
    assert b"25%  rmq1: boots" in written
    assert written.count(b"\n") == 1
    assert written.endswith(b"\r\x1b[2K")


@pytest.mark.parametrize("live", [True, False])
def test_progress_goes_on_where_nobody_can_be_told_of_it_any_more(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return live

        def write(self, _text: str) -> int:
            raise OSError(errno.EIO, "the terminal is gone")

    monkeypatch.setattr("sys.stderr", Gone())
    out = Output(json=False)
    with out.progress() as progress:
        progress(Progress("boots", "rmq1"))
        out.say("a message")
        progress(Progress("serves", "rmq1"))
