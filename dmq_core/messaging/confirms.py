"""Outstanding publishes of one channel by delivery tag; pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ConfirmWindow(Generic[T]):
    """What was published on one channel and has no answer yet, in order; the first tag is 1.

    Each item comes out exactly once: by `settle`, or by `abandon` when the channel is gone.
    """

    def __init__(self) -> None:
        self._items: deque[T | None] = deque()
        self._base = 1
        self._open = 0

    def __len__(self) -> int:
        return self._open

    @property
    def oldest(self) -> T | None:
        """The item that has waited longest."""
        return self._items[0] if self._items else None

    def add(self, item: T) -> int:
        """Notes that `item` was sent; its tag."""
        self._items.append(item)
        self._open += 1
        return self._base + len(self._items) - 1

    def settle(self, tag: int, multiple: bool) -> list[T]:
        """The items that an answer for `tag` (`multiple`: all up to it, 0: all) settles, oldest first."""
        last = self._base + len(self._items) - 1
        if multiple:
            return self._take_up_to(last if tag == 0 else min(tag, last))
        if not self._base <= tag <= last:
            return []
        index = tag - self._base
        item = self._items[index]
        if item is None:
            return []
        self._items[index] = None
        self._open -= 1
        self._drop_settled()
        return [item]

    def abandon(self) -> list[T]:
        """Everything that has no answer, oldest first; the window is over and answers nothing any more."""
        left = [item for item in self._items if item is not None]
        self._base += len(self._items)
        self._items.clear()
        self._open = 0
        return left

    def _take_up_to(self, tag: int) -> list[T]:
        taken: list[T] = []
        while self._items and self._base <= tag:
            item = self._items.popleft()
            self._base += 1
            if item is not None:
                taken.append(item)
        self._open -= len(taken)
        self._drop_settled()
        return taken

    def _drop_settled(self) -> None:
        while self._items and self._items[0] is None:
            self._items.popleft()
            self._base += 1
