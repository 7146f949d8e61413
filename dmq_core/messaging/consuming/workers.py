"""Which message is handled when and by whom: one after the other within a key, side by side across keys."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

T = TypeVar("T")
IDLE_S: Final = 60.0
RETURN_S: Final = 30.0
NO_KEY: Final = object()


class Lane(Generic[T]):
    """The messages of one key: what is at its head (being handled, or to come again) and what waits behind it."""

    __slots__ = ("came_again", "give_up_at", "head", "key", "ready", "waiting")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.head: T | None = None
        self.ready = False
        self.came_again = False
        self.give_up_at: float | None = None
        self.waiting: deque[T] = deque()


class Lanes(Generic[T]):
    """Hands out items so that those of one key come one at a time and in their order; pure.

    An item that failed and that the broker will deliver again keeps its lane closed until it is there.
    `again(new, old)` tells whether `new` is that very item; `gone(item)` whether the broker has taken it away, to
    deliver it anew with everything behind it.
    """

    def __init__(self, again: Callable[[T, T], bool], gone: Callable[[T], bool]) -> None:
        self._again = again
        self._gone = gone
        self._lanes: dict[Hashable, Lane[T]] = {}
        self._ready: deque[tuple[Lane[T] | None, T]] = deque()
        self._closed: set[Lane[T]] = set()

    @property
    def has_ready(self) -> bool:
        """Whether there may be something to take."""
        return bool(self._ready)

    def add(self, item: T, key: Hashable = NO_KEY) -> None:
        """Takes in an item; without a key it waits for nothing but its turn."""
        if key is NO_KEY:
            self._ready.append((None, item))
            return
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        if lane.head is not None and not self._gone(lane.head) and self._again(item, lane.head):
            lane.came_again = True
            lane.waiting.appendleft(item)
        else:
            lane.waiting.append(item)
        if not lane.ready and self._may_open(lane):
            self._advance(lane)

    def take(self) -> tuple[Lane[T] | None, T] | None:
        """The next item, with the lane that is busy with it until `done`."""
        while self._ready:
            lane, item = self._ready.popleft()
            if not self._gone(item):
                return lane, item
            if lane is not None:
                self._advance(lane)
        return None

    def done(self, lane: Lane[T], comes_again_by: float | None = None) -> None:
        """The item of `lane` is dealt with, or (with the second until when) it will be delivered again."""
        if comes_again_by is None:
            self._advance(lane)
            return
        lane.ready = False
        lane.give_up_at = comes_again_by
        if self._may_open(lane):
            self._advance(lane)
        else:
            self._closed.add(lane)

    def give_up(self, now: float) -> list[T]:
        """Opens the lanes whose item should have come again before `now`; those items."""
        late = [lane for lane in self._closed if lane.give_up_at is not None and lane.give_up_at <= now]
        missed = [lane.head for lane in late if lane.head is not None and not self._gone(lane.head)]
        for lane in late:
            self._advance(lane)
        return missed

    def wake_at(self) -> float | None:
        """When `give_up` should be called next; None: not at all as things stand."""
        return min((lane.give_up_at for lane in self._closed if lane.give_up_at is not None), default=None)

    def clear(self) -> None:
        """Forgets what was not handed out."""
        self._ready.clear()
        self._lanes.clear()
        self._closed.clear()

    def _may_open(self, lane: Lane[T]) -> bool:
        return lane.head is None or (lane.give_up_at is not None and (lane.came_again or self._gone(lane.head)))

    def _advance(self, lane: Lane[T]) -> None:
        self._closed.discard(lane)
        lane.head = lane.give_up_at = None
        lane.came_again = False
        while lane.waiting:
            item = lane.waiting.popleft()
            if not self._gone(item):
                lane.head, lane.ready = item, True
                self._ready.append((lane, item))
                return
        lane.ready = False
        if self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]


class Soloist(Generic[T]):
    """What a crew of one does for items without keys: whoever adds them handles them, at once and in their order.

    `gone(item)` tells whether the broker has taken it away; such an item is left out. `handle` must not raise.
    """

    def __init__(self, gone: Callable[[T], bool], handle: Callable[[T], bool]) -> None:
        self._gone = gone
        self._handle = handle
        self._idle = threading.Condition()
        self._worker: threading.Thread | None = None
        self._dismissed = False

    @property
    def is_busy(self) -> bool:
        """Whether something is being handled."""
        return self._worker is not None

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is being called by the handler."""
        return self._worker is threading.current_thread()

    def add(self, items: Sequence[tuple[T, Hashable]]) -> None:
        """Handles the items, oldest first, and returns when that is done; after `dismiss` begins no more."""
        self._worker = threading.current_thread()
        try:
            for item, _ in items:
                if self._dismissed:
                    break
                if not self._gone(item):
                    self._handle(item)
        finally:
            with self._idle:
                self._worker = None
                self._idle.notify_all()

    def dismiss(self) -> None:
        """Begins nothing more; returns at once."""
        self._dismissed = True

    def wait(self, timeout_s: float) -> bool:
        """Waits until nothing is handled; False if that takes longer. Not for the handler."""
        with self._idle:
            return self._idle.wait_for(lambda: self._worker is None, timeout_s)


class Crew(Generic[T]):
    """`size` daemon threads that handle what is added.

    `handle` gives whether the item is dealt with (False: it will be delivered again), and must not raise. `missed`
    hears of an item that was not delivered again within 30 seconds; what waited behind it goes on.
    """

    def __init__(
        self, name: str, size: int, lanes: Lanes[T], handle: Callable[[T], bool], missed: Callable[[T], None]
    ) -> None:
        self._lanes = lanes
        self._handle = handle
        self._missed = missed
        lock = threading.Lock()
        self._there_is_work = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._at_work = 0
        self._dismissed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"handle {name} {n}", daemon=True) for n in range(1, size + 1)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether something is being handled, or could be."""
        with self._idle:
            return self._at_work > 0 or self._lanes.has_ready

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is being called by the handler."""
        return threading.current_thread() in self._threads

    def add(self, items: Sequence[tuple[T, Hashable]]) -> None:
        """Takes in items with their keys, oldest first; after `dismiss` nothing any more."""
        with self._there_is_work:
            if not self._dismissed:
                for item, key in items:
                    self._lanes.add(item, key)
                self._there_is_work.notify(len(items))

    def dismiss(self) -> None:
        """Hands out nothing more; returns at once."""
        with self._there_is_work:
            self._dismissed = True
            self._lanes.clear()
            self._there_is_work.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits until no thread is at work; False if that takes longer. Not for the handler."""
        with self._idle:
            return self._idle.wait_for(lambda: self._at_work == 0, timeout_s)

    def _work(self) -> None:
        done: Callable[[], None] | None = None
        while True:
            with self._there_is_work:
                if done is not None and not self._dismissed:
                    done()
                taken = self._next(is_working=done is not None)
            if taken is None:
                return
            lane, item = taken
            dealt_with = self._handle(item)
            done = partial(self._done, lane, dealt_with)

    def _done(self, lane: Lane[T] | None, dealt_with: bool) -> None:
        if lane is None:
            return
        if dealt_with:
            self._lanes.done(lane)
        else:
            self._lanes.done(lane, time.monotonic() + RETURN_S)
            self._there_is_work.notify()  # somebody has to watch the time

    def _next(self, *, is_working: bool) -> tuple[Lane[T] | None, T] | None:
        taken = None if self._dismissed else self._lanes.take()
        if taken is None and is_working:
            self._at_work -= 1
            self._idle.notify_all()
        if taken is not None and is_working:
            return taken
        while taken is None and not self._dismissed:
            self._there_is_work.wait(self._patience_s())
            if not self._dismissed:
                for item in self._lanes.give_up(time.monotonic()):
                    self._missed(item)
                taken = self._lanes.take()
        if taken is not None:
            self._at_work += 1
        return taken

    def _patience_s(self) -> float:
        wake_at = self._lanes.wake_at()
        return IDLE_S if wake_at is None else max(0.0, wake_at - time.monotonic())
