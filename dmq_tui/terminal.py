"""A terminal that may go away while the console runs on it, as over SSH."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TextIO, cast

from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from textual.app import App


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
