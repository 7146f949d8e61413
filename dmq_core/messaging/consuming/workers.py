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


class KeyQueue(Generic[T]):
    """The messages of one key: what is at its head (being handled, or to come again) and what waits behind it."""

    __slots__ = ("give_up_at", "head", "is_redelivered", "key", "ready", "waiting")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.head: T | None = None
        self.ready = False
        self.is_redelivered = False
        self.give_up_at: float | None = None
        self.waiting: deque[T] = deque()


class KeyedQueues(Generic[T]):
    """Hands out items so that those of one key come one at a time and in their order; pure.

    An item that failed and that the broker will deliver again keeps its queue closed until it is there.
    `again(new, old)` tells whether `new` is that very item; `gone(item)` whether the broker has taken it away, to
    deliver it anew with everything behind it.

    Why a key stays closed: a failed message goes back to the broker, which delivers it again at the front of its queue,
    but what is behind it has been prefetched and waits here already. To hand that out now would let it overtake.
    """

    def __init__(self, again: Callable[[T, T], bool], gone: Callable[[T], bool]) -> None:
        self._again = again
        self._gone = gone
        self._queues: dict[Hashable, KeyQueue[T]] = {}
        self._ready: deque[tuple[KeyQueue[T] | None, T]] = deque()
        self._closed: set[KeyQueue[T]] = set()

    @property
    def has_ready(self) -> bool:
        """Whether there may be something to take."""
        return bool(self._ready)

    def add(self, item: T, key: Hashable = NO_KEY) -> None:
        """Takes in an item; without a key it waits for nothing but its turn."""
        if key is NO_KEY:
            self._ready.append((None, item))
            return
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = KeyQueue(key)
        if queue.head is not None and not self._gone(queue.head) and self._again(item, queue.head):
            queue.is_redelivered = True
            queue.waiting.appendleft(item)
        else:
            queue.waiting.append(item)
        if not queue.ready and self._may_open(queue):
            self._advance(queue)

    def take(self) -> tuple[KeyQueue[T] | None, T] | None:
        """The next item, with the queue that is busy with it until `done`."""
        while self._ready:
            queue, item = self._ready.popleft()
            if not self._gone(item):
                return queue, item
            if queue is not None:
                self._advance(queue)
        return None

    def done(self, queue: KeyQueue[T], redelivered_by: float | None = None) -> None:
        """The item of `queue` is dealt with, or (with the second until when) it will be delivered again."""
        if redelivered_by is None:
            self._advance(queue)
            return
        queue.ready = False
        queue.give_up_at = redelivered_by
        if self._may_open(queue):
            self._advance(queue)
        else:
            self._closed.add(queue)

    def give_up_late(self, now: float) -> list[T]:
        """Opens the queues whose item should have come again before `now`; those items."""
        late = [queue for queue in self._closed if queue.give_up_at is not None and queue.give_up_at <= now]
        missed = [queue.head for queue in late if queue.head is not None and not self._gone(queue.head)]
        for queue in late:
            self._advance(queue)
        return missed

    def wake_at(self) -> float | None:
        """When `give_up_late` should be called next; None: not at all as things stand."""
        return min((queue.give_up_at for queue in self._closed if queue.give_up_at is not None), default=None)

    def clear(self) -> None:
        """Forgets what was not handed out."""
        self._ready.clear()
        self._queues.clear()
        self._closed.clear()

    def _may_open(self, queue: KeyQueue[T]) -> bool:
        return queue.head is None or (queue.give_up_at is not None and (queue.is_redelivered or self._gone(queue.head)))

    def _advance(self, queue: KeyQueue[T]) -> None:
        self._closed.discard(queue)
        queue.head = queue.give_up_at = None
        queue.is_redelivered = False
        while queue.waiting:
            item = queue.waiting.popleft()
            if not self._gone(item):
                queue.head, queue.ready = item, True
                self._ready.append((queue, item))
                return
        queue.ready = False
        if self._queues.get(queue.key) is queue:
            del self._queues[queue.key]


class InlineWorker(Generic[T]):
    """What a pool of one does for items without keys: whoever adds them handles them, at once and in their order.

    `gone(item)` tells whether the broker has taken it away; such an item is left out. `handle` must not raise.
    """

    def __init__(self, gone: Callable[[T], bool], handle: Callable[[T], bool]) -> None:
        self._gone = gone
        self._handle = handle
        self._idle = threading.Condition()
        self._worker: threading.Thread | None = None
        self._stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether something is being handled."""
        return self._worker is not None

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is being called by the handler."""
        return self._worker is threading.current_thread()

    def add(self, items: Sequence[tuple[T, Hashable]]) -> None:
        """Handles the items, oldest first, and returns when that is done; after `stop` begins no more."""
        self._worker = threading.current_thread()
        try:
            for item, _ in items:
                if self._stopped:
                    break
                if not self._gone(item):
                    self._handle(item)
        finally:
            with self._idle:
                self._worker = None
                self._idle.notify_all()

    def stop(self) -> None:
        """Begins nothing more; returns at once."""
        self._stopped = True

    def wait(self, timeout_s: float) -> bool:
        """Waits until nothing is handled; False if that takes longer. Not for the handler."""
        with self._idle:
            return self._idle.wait_for(lambda: self._worker is None, timeout_s)


class WorkerPool(Generic[T]):
    """`size` daemon threads that handle what is added.

    `handle` gives whether the item is dealt with (False: it will be delivered again), and must not raise. `missed`
    hears of an item that was not delivered again within 30 seconds; what waited behind it goes on.
    """

    def __init__(
        self, name: str, size: int, queues: KeyedQueues[T], handle: Callable[[T], bool], missed: Callable[[T], None]
    ) -> None:
        self._queues = queues
        self._handle = handle
        self._missed = missed
        lock = threading.Lock()
        self._work_available = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._busy_count = 0
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"handle {name} {n}", daemon=True) for n in range(1, size + 1)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether something is being handled, or could be."""
        with self._idle:
            return self._busy_count > 0 or self._queues.has_ready

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is being called by the handler."""
        return threading.current_thread() in self._threads

    def add(self, items: Sequence[tuple[T, Hashable]]) -> None:
        """Takes in items with their keys, oldest first; after `stop` nothing any more."""
        with self._work_available:
            if not self._stopped:
                for item, key in items:
                    self._queues.add(item, key)
                self._work_available.notify(len(items))

    def stop(self) -> None:
        """Hands out nothing more; returns at once."""
        with self._work_available:
            self._stopped = True
            self._queues.clear()
            self._work_available.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Waits until no thread is at work; False if that takes longer. Not for the handler."""
        with self._idle:
            return self._idle.wait_for(lambda: self._busy_count == 0, timeout_s)

    def _work(self) -> None:
        done: Callable[[], None] | None = None
        while True:
            with self._work_available:
                if done is not None and not self._stopped:
                    done()
                taken = self._next(is_working=done is not None)
            if taken is None:
                return
            queue, item = taken
            dealt_with = self._handle(item)
            done = partial(self._done, queue, dealt_with)

    def _done(self, queue: KeyQueue[T] | None, dealt_with: bool) -> None:
        if queue is None:
            return
        if dealt_with:
            self._queues.done(queue)
        else:
            self._queues.done(queue, time.monotonic() + RETURN_S)
            self._work_available.notify()  # somebody has to watch the time

    def _next(self, *, is_working: bool) -> tuple[KeyQueue[T] | None, T] | None:
        taken = None if self._stopped else self._queues.take()
        if taken is None and is_working:
            self._busy_count -= 1
            self._idle.notify_all()
        if taken is not None and is_working:
            return taken
        while taken is None and not self._stopped:
            self._work_available.wait(self._patience_s())
            if not self._stopped:
                for item in self._queues.give_up_late(time.monotonic()):
                    self._missed(item)
                taken = self._queues.take()
        if taken is not None:
            self._busy_count += 1
        return taken

    def _patience_s(self) -> float:
        wake_at = self._queues.wake_at()
        return IDLE_S if wake_at is None else max(0.0, wake_at - time.monotonic())
