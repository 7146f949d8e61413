"""Outstanding publishes of one channel by delivery tag; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ConfirmWindow(Generic[T]):
    """What was published on one channel and has no answer yet, in order; the first tag is 1.

    Each item comes out exactly once: by `settle`, or by `abandon` when the channel is gone. Confirms come mostly in
    order and for many at once, so a deque that is cut from its left serves them faster than a dict by number; one that
    comes out of order leaves a hole (None) until everything before it is settled.
    """

    def __init__(self) -> None:
        self._items: deque[T | None] = deque()
        self._base = 1
        self._open = 0
        self._sent: deque[tuple[int, float]] = deque()

    def __len__(self) -> int:
        return self._open

    def __iter__(self) -> Iterator[T]:
        return (item for item in self._items if item is not None)

    @property
    def oldest_at(self) -> float | None:
        """When the item that has waited longest was sent."""
        while self._sent and self._sent[0][0] < self._base:
            self._sent.popleft()
        return self._sent[0][1] if self._sent else None

    def add(self, items: Collection[T], at: float) -> None:
        """Notes that `items` were sent in that order at the second `at`."""
        if items:
            self._items.extend(items)
            self._open += len(items)
            self._sent.append((self._base + len(self._items) - 1, at))

    def restart(self, at: float) -> None:
        """Counts every item's waiting from `at`."""
        self._sent = deque([(self._base + len(self._items) - 1, at)] if self._items else ())

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
        left = list(self)
        self._base += len(self._items)
        self._items.clear()
        self._open = 0
        return left

    def _take_up_to(self, tag: int) -> list[T]:
        count = max(0, tag - self._base + 1)
        pop = self._items.popleft
        taken = [item for item in [pop() for _ in range(count)] if item is not None]
        self._base += count
        self._open -= len(taken)
        self._drop_settled()
        return taken

    def _drop_settled(self) -> None:
        while self._items and self._items[0] is None:
            self._items.popleft()
            self._base += 1
