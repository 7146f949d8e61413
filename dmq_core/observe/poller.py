"""A daemon thread that reads something again and again, never twice at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from dmq_core.errors import DmqError

T = TypeVar("T")

TICK_S = 1.0
SHORTEST_BREATH_S = 0.1
LONGEST_BREATH_S = 1.0
LONGEST_PAUSE_S = 3.0
CLOSE_LIMIT_S = 2.0


class Poller(Generic[T]):
    """Calls `read` every `tick_s` seconds on its own thread and hands on what it gives, or the error that it raises.

    Polls never overlap: a slow one delays the next. After failures the pause doubles up to three seconds; `poke` ends
    any pause. `read` must have a bound of its own.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], T],
        on_value: Callable[[T], None],
        on_failure: Callable[[DmqError], None],
        *,
        tick_s: float = TICK_S,
    ) -> None:
        self._read = read
        self._on_value = on_value
        self._on_failure = on_failure
        self._tick_s = tick_s
        self._poked = threading.Event()
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._started = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins, with a first poll at once; does nothing the second time."""
        with self._starting:
            if not self._started and not self._closed.is_set():
                self._started = True
                self._thread.start()

    def poke(self) -> None:
        """Polls again at once, or as soon as the poll that runs is over; does not wait."""
        self._poked.set()

    def close(self, timeout_s: float = CLOSE_LIMIT_S) -> None:
        """Ends it; waits at most `timeout_s` for the poll that runs. Nothing is handed on after that."""
        self._closed.set()
        self._poked.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            # Before the poll: a poke that comes during it may tell of what was read too early, and asks for another.
            self._poked.clear()
            began = time.monotonic()
            failures = 0 if self._poll() else failures + 1
            took = time.monotonic() - began
            pause = self._tick_s - took
            if failures:
                pause = min(LONGEST_PAUSE_S, self._tick_s * 2.0 ** min(failures - 1, 8))
            # However often it is poked, the cluster gets a breath between, a longer one where asking costs it more.
            breath = min(LONGEST_BREATH_S, max(SHORTEST_BREATH_S, took))
            self._closed.wait(breath)
            self._poked.wait(max(0.0, pause - breath))

    def _poll(self) -> bool:
        try:
            value = self._read()
        except DmqError as error:
            self._hand(self._on_failure, error)
            return False
        except Exception as error:  # one bad poll must not end the watch; the error is shown as the source's problem
            self._hand(self._on_failure, DmqError(f"reading stumbled: {error!r}"))
            return False
        self._hand(self._on_value, value)
        return True

    def _hand(self, listener: Callable[[T], None] | Callable[[DmqError], None], value: object) -> None:
        if not self._closed.is_set():
            listener(value)  # type: ignore[arg-type]  # each listener is handed what it is for, two lines above
