"""What `dmq` writes: results on stdout as text or JSON, messages and progress on stderr."""

from __future__ import annotations

import json as json_module
import os
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from dmq_core.cluster.protocol import NodeState
from dmq_core.errors import RefusedError
from dmq_core.presentation import Tone, node_look
from dmq_core.progress import Progress, ProgressListener
from dmq_core.text import visible

_COLOURS = {Tone.BAD: 31, Tone.GOOD: 32, Tone.WARN: 33}


class Output:
    """Writes one command's results; with `json` stdout carries JSON and nothing else."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._moving: _LiveLine | None = None

    @property
    def live(self) -> bool:
        """Whether progress may move: stderr is a terminal."""
        return sys.stderr.isatty()

    def document(self, value: object) -> None:
        """Writes the command's one JSON document."""
        print(json_module.dumps(value, indent=2, allow_nan=False))

    def json_line(self, value: object) -> None:
        """Writes one JSON line of a stream, at once."""
        print(json_module.dumps(value, allow_nan=False), flush=True)

    def text(self, line: str) -> None:
        """Writes one line of text, at once; whatever comes from outside must be visible() already."""
        print(line, flush=True)

    def say(self, line: str) -> None:
        """Tells people something on stderr, above a progress line that moves there."""
        if self._moving is not None:
            self._moving.above(line)
        else:
            with suppress(OSError):
                print(line, file=sys.stderr, flush=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Writes aligned columns; a header that begins with `>` names a column of figures, aligned right."""
        for line in table_lines(headers, list(rows)):
            print(line)

    def state(self, state: NodeState) -> str:
        """A node's state as glyph, word and, on a terminal, colour."""
        look = node_look(state)
        return painted(f"{look.glyph} {state}", look.tone, sys.stdout)

    @contextmanager
    def progress(self) -> Iterator[ProgressListener]:
        """A listener that shows progress: one live line on a terminal, else a line for each change of words."""
        if not self.live:
            yield _Lines(sys.stderr).show
            return
        self._moving = moving = _LiveLine(sys.stderr)
        try:
            yield moving.show
        finally:
            self._moving = None
            moving.close()


def painted(text: str, tone: Tone, stream: TextIO) -> str:
    """`text` in the colour of `tone` if `stream` is a terminal that wants colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m"


def confirm(question: str, *, yes: bool) -> None:
    """Returns if `yes` or if the person at the terminal agrees; raises `RefusedError` otherwise."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RefusedError(f"{question} This needs confirmation.", "Use --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
    if answer.strip().lower() not in ("y", "yes"):
        raise RefusedError("not confirmed, nothing was done")


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, two spaces between columns."""
    right = [header.startswith(">") for header in headers]
    grid = [[header.removeprefix(">") for header in headers], *rows]
    widths = [max(_width(row[i]) for row in grid) for i in range(len(headers))]
    return ["  ".join(_aligned(c, w, r) for c, w, r in zip(row, widths, right, strict=True)).rstrip() for row in grid]


def _aligned(cell: str, width: int, right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal; colour codes of ours take none."""
    width, in_colour = 0, False
    for char in text:
        if in_colour:
            in_colour = char != "m"
        elif char == "\x1b":
            in_colour = True
        elif not unicodedata.combining(char):
            width += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return width


def _words(progress: Progress) -> str:
    text = visible(progress.text)
    named = progress.node is None or progress.node in progress.text
    return text if named else f"{visible(progress.node or '')}: {text}"


class _Lines:
    """Progress as plain lines, each said once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""
        self._lock = threading.Lock()

    def show(self, progress: Progress) -> None:
        words = _words(progress)
        with self._lock:
            if words != self._last:
                self._last = words
                # Where nobody can be told any more, the work goes on.
                with suppress(OSError):
                    print(words, file=self._stream, flush=True)


class _LiveLine:
    """Progress as one line of a terminal that rewrites itself and is gone at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began = time.monotonic()
        self._line = ""
        self._lock = threading.Lock()

    def show(self, progress: Progress) -> None:
        share = "" if progress.fraction is None else f" {progress.fraction:4.0%}"
        line = f"{time.monotonic() - self._began:4.0f} s{share}  {_words(progress)}"
        with self._lock:
            self._line = line[: shutil.get_terminal_size().columns - 1]
            self._write(self._line)

    def above(self, line: str) -> None:
        with self._lock:
            self._write(f"{line}\n{self._line}")

    def close(self) -> None:
        with self._lock:
            self._line = ""
            self._write("")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write("\r\x1b[2K" + text)
            self._stream.flush()
