"""Time that goes by by itself, for those who cannot move the clock of an in-memory broker between their own calls."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

TICK_S: Final = 0.02
PAUSE_S: Final = 0.0005
_ENDS_WITHIN_S: Final = 10.0


@contextlib.contextmanager
def flowing(advance: Callable[[float], None], pause_s: float = PAUSE_S) -> Iterator[None]:
    """Calls `advance` of a `MemoryBroker` as fast as nothing is left to do: who waits an hour waits for a moment.

    A longer `pause_s`, real seconds between two ticks, leaves the process idle enough for those who wait for that.
    """
    over = threading.Event()

    def tick() -> None:
        while not over.wait(pause_s):
            advance(TICK_S)

    thread = threading.Thread(target=tick, name="time of a broker in memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_ENDS_WITHIN_S)
