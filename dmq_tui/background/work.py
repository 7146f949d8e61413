"""One-shot work off the UI thread: each on a daemon thread of its own, whose result comes back as a message."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from textual.message import Message

from dmq_core.errors import DmqError
from dmq_tui.background.messages import WorkFailed

T = TypeVar("T")
Post = Callable[[Message], bool]


def in_background(post: Post, title: str, work: Callable[[], Message | None]) -> threading.Thread:
    """Runs `work` on a daemon thread and posts what it returns, or a `WorkFailed` with `title` if it raises."""

    def run() -> None:
        try:
            answer = work()
        except Exception as error:
            answer = WorkFailed(title, as_dmq_error(error))
        if answer is not None:
            post(answer)

    thread = threading.Thread(target=run, name=f"dmq-tui {title}", daemon=True)
    thread.start()
    return thread


def as_dmq_error(error: Exception) -> DmqError:
    """`error` itself if it has its two sentences, else a `DmqError` that names it."""
    if isinstance(error, DmqError):
        return error
    return DmqError(f"{type(error).__name__}: {error}", "This is a fault of dmq; please report it.")


class Mailbox(Generic[T]):
    """Where one thread leaves batches that another takes: bounded, the oldest go first and are counted."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[T] = deque(maxlen=limit)
        self._overflow = 0

    def put(self, batch: tuple[T, ...]) -> bool:
        """Adds `batch`; True if the box was empty, so that its owner has to be told."""
        with self._lock:
            first = not self._waiting
            room = (self._waiting.maxlen or 0) - len(self._waiting)
            self._overflow += max(0, len(batch) - room)
            self._waiting.extend(batch)
            return first

    def take(self) -> tuple[tuple[T, ...], int]:
        """Everything that waits, and how many went since the last call because nobody took them."""
        with self._lock:
            batch, overflow = tuple(self._waiting), self._overflow
            self._waiting.clear()
            self._overflow = 0
            return batch, overflow
