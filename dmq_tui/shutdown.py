"""How the console ends: what it does to clusters is taken back first."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

from textual.drivers.linux_driver import LinuxDriver

from dmq_core.session.protocol import Proof
from dmq_core.text import visible

if TYPE_CHECKING:
    from textual.app import App

    from dmq_core.demo.runner import DemoRun

ENDS_WITHIN_S = 300.0


def end_proof(proof: Proof | None) -> None:
    """Ends a proof run that still goes on and waits until its faults are undone."""
    if proof is not None and not proof.wait(0.0):
        proof.stop()
        _wait_out(proof.wait, "the proof run")


def end_demos(playings: Sequence[DemoRun[Any]]) -> None:
    """Ends demos that still go on and waits until what they did is taken back and what they made is removed."""
    threads = [threading.Thread(target=playing.close, name="dmq-tui end demo", daemon=True) for playing in playings]
    for thread in threads:
        thread.start()

    def wait(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    _wait_out(wait, "the demo")
    for left in filter(None, (playing.close().left for playing in playings if wait(0.0))):
        _say(f"left behind: {visible(left)}")


def _wait_out(wait: Callable[[float], bool], what: str) -> None:
    if wait(0.5):
        return
    _say(f"{what} ends; what it did to the cluster is taken back first, which may take a minute")
    if not wait(ENDS_WITHIN_S):
        _say("it does not end; 'dmq start' makes the cluster whole again")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"dmq-tui: {line}\n")
        sys.stderr.flush()


class Lasting:
    """A stream to a terminal that may go away: what cannot be written is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text` if it can."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes if it can."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        """All else is the stream's own."""
        return getattr(self._stream, name)


class LastingDriver(LinuxDriver):
    """Draws on a terminal; Textual's own would wait for ever for one that has gone away."""

    def __init__(
        self, app: App[object], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._file = cast(Any, Lasting(cast(TextIO, self._file)))
