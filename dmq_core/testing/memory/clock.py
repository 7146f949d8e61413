"""Virtual time, and the order in which everything happens: one thing at a time, whichever thread does it."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dmq_core.errors import MessagingError, OperationTimeoutError
from dmq_core.messaging.transport.protocol import LoopOwner

START_S = 1000.0
EPOCH_S = 1_790_000_000.0
POLL_S = 0.001
TURN_LIMIT_S = 30.0

Callback = Callable[[], None]


@dataclass(slots=True)
class _Timer:
    callback: Callback
    loop: MemoryLoop | None
    cancelled: bool = False


class MemoryClock:
    """The time, the timers, and whose turn it is.

    Loops have threads of their own, yet only one of them runs a callback at any moment, in the order in which
    callbacks were handed over. Other threads take their turn with `turn`. So a test sees the same order every time.
    """

    def __init__(self) -> None:
        self.now = START_S
        self._gate = threading.Lock()
        self._free = threading.Condition(self._gate)
        self._holder: int | None = None
        self._ready: deque[tuple[MemoryLoop, Callback]] = deque()
        self._handed_over = 0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()
        self._loops: list[MemoryLoop] = []

    @property
    def wall(self) -> float:
        """Epoch seconds."""
        return EPOCH_S + self.now - START_S

    def loop(self, owner: LoopOwner) -> MemoryLoop:
        """A loop for a thread to run."""
        loop = MemoryLoop(self, owner)
        with self._gate:
            self._loops.append(loop)
        return loop

    def later(self, seconds: float, callback: Callback, loop: MemoryLoop | None = None) -> Callback:
        """Calls `callback` in `seconds`, on `loop` or the thread that moves the time; gives what cancels it."""
        timer = _Timer(callback, loop)
        with self._gate:
            heapq.heappush(self._timers, (self.now + max(0.0, seconds), next(self._numbers), timer))
            self._free.notify_all()

        def cancel() -> None:
            timer.cancelled = True

        return cancel

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Nothing else happens inside."""
        me = threading.get_ident()
        with self._gate:
            nested = self._holder == me
            if not nested:
                if not self._free.wait_for(lambda: self._holder is None, TURN_LIMIT_S):
                    raise OperationTimeoutError(
                        "a callback does not return", "Callbacks of an I/O thread must not block."
                    )
                self._holder = me
        try:
            yield
        finally:
            if not nested:
                with self._gate:
                    self._pass_on()

    def settle(self, timeout_s: float = 10.0) -> None:
        """Waits until there is nothing to do before time moves on; `OperationTimeoutError` if that never comes."""
        if self._holder == threading.get_ident():
            raise MessagingError("a callback cannot wait until there is nothing to do", "Wait on another thread.")
        deadline = time.monotonic() + timeout_s
        while not self._is_settled():
            if time.monotonic() > deadline:
                raise OperationTimeoutError(
                    f"there is still something to do after {timeout_s:g} s", "Does a handler hang?"
                )

    def advance(self, seconds: float) -> None:
        """Moves the time on by `seconds`; what is due happens in order, with all that follows from it at once."""
        target = self.now + seconds
        self.settle()
        while self._fire_next(target):
            self.settle()
        with self._gate:
            self.now = max(self.now, target)

    # What loops use.

    def hand_over(self, loop: MemoryLoop, callback: Callback) -> bool:
        """Puts `callback` at the end of what is to be done; False if the loop has ended."""
        with self._gate:
            if not loop.open:
                return False
            self._ready.append((loop, callback))
            self._handed_over += 1
            if self._holder is None:
                self._wake_next()
            return True

    def serve(self, loop: MemoryLoop) -> None:
        """Runs what is handed to `loop`, on the caller's thread, until the loop is stopped and nothing is left."""
        me = threading.get_ident()
        while True:
            with self._gate:
                loop.changed.wait_for(lambda: self._may_run(loop))
                if not (self._ready and self._ready[0][0] is loop):
                    self._loops.remove(loop)
                    return
                self._holder = me
                _, callback = self._ready.popleft()
            try:
                loop.guarded(callback)
            finally:
                with self._gate:
                    self._pass_on()

    def stop(self, loop: MemoryLoop) -> None:
        """Takes nothing more for `loop`."""
        with self._gate:
            loop.open = False
            loop.changed.notify_all()

    def _may_run(self, loop: MemoryLoop) -> bool:
        if self._holder is not None:
            return False
        if self._ready and self._ready[0][0] is loop:
            return True
        return not loop.open and not any(of is loop for of, _ in self._ready)

    def _pass_on(self) -> None:
        self._holder = None
        self._wake_next()

    def _wake_next(self) -> None:
        if self._ready:
            self._ready[0][0].changed.notify_all()
        for loop in self._loops:
            if not loop.open:
                loop.changed.notify_all()
        self._free.notify_all()

    # What settling and moving on use.

    def _is_settled(self) -> bool:
        with self._gate:
            seen = self._handed_over
            if not self._is_quiet() and not self._free.wait_for(self._is_quiet, POLL_S):
                return False
            loops = tuple(self._loops)
        # Asked outside the gate: a user may hold a lock of its own while it hands something over.
        if any(loop.owner.busy() for loop in loops):
            with self._gate:
                self._free.wait(POLL_S)
            return False
        if self._take_due_now():
            return False
        with self._gate:
            return self._is_quiet() and seen == self._handed_over

    def _is_quiet(self) -> bool:
        return not self._ready and self._holder is None

    def _take_due_now(self) -> bool:
        return self._fire_next(self.now)

    def _fire_next(self, until: float) -> bool:
        """Lets the next timer that is due by `until` go off, and time be what it was set to."""
        with self._gate:
            while self._timers and self._timers[0][2].cancelled:
                heapq.heappop(self._timers)
            if not self._timers or self._timers[0][0] > until:
                return False
            due, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, due)
        loop = timer.loop
        if loop is None:
            with self.turn():
                timer.callback()
        else:
            loop.call_soon(lambda: None if timer.cancelled else timer.callback())
        return True


@dataclass(eq=False)
class MemoryLoop:
    """An I/O loop on virtual time; a `Loop` of `dmq_core.messaging.transport.protocol`."""

    clock: MemoryClock
    owner: LoopOwner
    open: bool = True
    changed: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.clock._gate)

    def run(self) -> None:
        """Runs until `stop`."""
        self.clock.serve(self)

    def stop(self) -> None:
        """Ends `run`, once what was handed over before has been called."""
        self.call_soon(lambda: self.clock.stop(self))

    def call_soon(self, callback: Callback) -> bool:
        """Has the loop's thread call `callback`; False if the loop has ended. From any thread."""
        return self.clock.hand_over(self, callback)

    def call_later(self, seconds: float, callback: Callback) -> Callback:
        """Calls `callback` after `seconds` of virtual time; gives what cancels it."""
        if seconds > 0:
            return self.clock.later(seconds, callback, self)
        timer = _Timer(callback, self)
        self.call_soon(lambda: None if timer.cancelled else timer.callback())

        def cancel() -> None:
            timer.cancelled = True

        return cancel

    def guarded(self, callback: Callback) -> None:
        """Calls `callback`; its failure is told to the owner and harms nobody else."""
        try:
            callback()
        except Exception as error:  # one callback's failure must not take the others with it
            self.owner.crashed(error)
