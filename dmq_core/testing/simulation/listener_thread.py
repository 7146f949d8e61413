"""A daemon thread that hands what it is given, in batches and in order, to one listener."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ListenerThread(Generic[T]):
    """Calls `deliver` from one thread of its own, never two at once, with all that came since its last call."""

    def __init__(self, name: str, deliver: Callable[[tuple[T, ...]], None]) -> None:
        self._deliver = deliver
        self._changed = threading.Condition()
        self._pending: list[T] = []
        self._busy = False
        self._closed = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queues `item`; does not wait."""
        with self._changed:
            if not self._closed:
                self._pending.append(item)
                self._changed.notify_all()

    def settle(self, timeout_s: float = 5.0) -> None:
        """Returns once the listener has been told everything; raises what the listener raised.

        Returns at once on the pump's own thread, and when the listener takes longer than `timeout_s`.
        """
        if threading.current_thread() is self._thread:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (self._pending or self._busy), timeout_s)
            if self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """Ends the thread within 2 s; what is pending is dropped; may be called twice."""
        with self._changed:
            self._closed = True
            self._pending.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(2.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._pending))
                if self._closed:
                    return
                batch, self._pending = tuple(self._pending), []
                self._busy = True
            try:
                self._deliver(batch)
            except Exception as error:
                self._failure = error
            with self._changed:
                self._busy = False
                self._changed.notify_all()
