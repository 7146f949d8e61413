"""The console on a real terminal ends whole: left by Ctrl-C or with its terminal gone, it takes back what it did."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from dmq_core.testing import FakeSession
from dmq_tui.app import DmqApp
from dmq_tui.shutdown import Lasting, LastingDriver

PATIENCE_S = 60.0
PROGRAM = """
import fcntl, json, sys, termios
from dmq_core.testing import FakeSession
from dmq_tui.app import DmqApp, run_console

fcntl.ioctl(0, termios.TIOCSCTTY, 0)

class Watched(FakeSession):
    def close(self):
        told["remains"] = [name for stage in self._stages for name in stage.remains]
        told["nodes"] = sorted(str(node.state) for node in self.cluster.nodes())
        super().close()

told = {}
session = Watched(realtime=True)
told["status"] = run_console(DmqApp(lambda: session))
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
"""


class Terminal:
    """A console in a terminal of its own, of 140 by 45 cells."""

    def __init__(self, report: Path) -> None:
        self._report = report
        self._leader, follower = os.openpty()
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 140, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(report)],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(follower)
        self._seen = b""
        self._is_open = True

    def await_text(self, text: str) -> None:
        """Reads until `text` is drawn, after all that was awaited before."""
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self._seen:
            assert time.monotonic() < deadline, f"{text!r} is not drawn"
            if select.select([self._leader], [], [], 0.1)[0]:
                self._seen += os.read(self._leader, 65536)
        self._seen = b""

    def press(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def hang_up(self) -> None:
        """The terminal goes away."""
        os.close(self._leader)
        self._is_open = False

    def told(self) -> dict[str, object]:
        """What the program reports once it has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "the console does not end"
            if self._is_open and select.select([self._leader], [], [], 0.1)[0]:
                try:
                    os.read(self._leader, 65536)
                except OSError:  # nobody writes to it any more
                    self.process.wait(PATIENCE_S)
            elif not self._is_open:
                self.process.wait(PATIENCE_S)
        told: dict[str, object] = json.loads(self._report.read_text())
        return told

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._is_open:
            os.close(self._leader)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    it = Terminal(tmp_path / "told.json")
    yield it
    it.close()


def kill_a_node_in_a_demo(terminal: Terminal) -> None:
    """Plays the demo of a failover until a node is down."""
    terminal.await_text("rmq3")
    terminal.press("D")
    terminal.await_text("Node failover")
    terminal.press("j" * 9 + "\r")
    terminal.await_text("Play Node failover?")
    terminal.press("y")
    terminal.await_text("step 1 of 5")
    terminal.press("\r")
    terminal.await_text("✓ held")
    terminal.press("\r")
    terminal.await_text("step 2 of 5")
    terminal.press("\r")
    terminal.await_text("Which node shall be killed")
    terminal.press("\r")
    terminal.await_text("2/3 nodes")


@pytest.mark.parametrize(("how", "status"), [pytest.param("Ctrl-C", 130, marks=pytest.mark.thorough), ("hang-up", 129)])
def test_whoever_goes_in_the_middle_of_a_demo_leaves_every_node_up_and_nothing_on_the_broker(
    terminal: Terminal, how: str, status: int
) -> None:
    kill_a_node_in_a_demo(terminal)
    if how == "hang-up":
        terminal.hang_up()
    else:
        terminal.press("\x03")
    assert terminal.told() == {"remains": [], "nodes": ["running"] * 3, "status": status}


class Gone(io.StringIO):
    """A stream whose terminal has gone away."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EIO, "the terminal is gone")

    def flush(self) -> None:
        raise OSError(errno.EIO, "the terminal is gone")


def test_what_cannot_be_written_to_a_terminal_that_is_gone_is_dropped() -> None:
    lasting = Lasting(Gone())
    assert lasting.write("nobody reads this") == 17
    lasting.flush()


@pytest.mark.timeout(30)
def test_what_draws_does_not_wait_for_a_terminal_that_is_gone() -> None:
    drawing = WriterThread(Lasting(Gone()))  # type: ignore[arg-type]  # all of a stream that it uses
    drawing.start()
    for _ in range(10 * MAX_QUEUED_WRITES):
        drawing.write("nobody reads this")
    drawing.stop()
    assert not drawing.is_alive()


def test_the_console_draws_by_what_outlasts_its_terminal() -> None:
    assert issubclass(DmqApp(FakeSession).get_driver_class(), LastingDriver)
