"""Key presses in tests of the console are waited for as long as the console works on them, and no longer.

Textual's own measure sleeps for 20 ms twice or more for each key and each pause, also when all is done.
"""

from __future__ import annotations

import asyncio
import time

import textual.app
import textual.pilot

BREATH_S = 0.001
BREATHS = 3


async def idle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Returns when the event loop has had nothing to do, and no thread has computed, for three milliseconds."""
    loop = asyncio.get_running_loop()
    begun = time.monotonic()
    quiet = 0
    while quiet < BREATHS or time.monotonic() - begun < min_sleep:
        worked, at = time.process_time(), time.monotonic()
        await asyncio.sleep(BREATH_S)
        if time.monotonic() - begun >= max_sleep:
            break
        is_busy = bool(loop._ready) or time.process_time() - worked > (time.monotonic() - at) / 2  # type: ignore[attr-defined]
        quiet = 0 if is_busy else quiet + 1


def use() -> None:
    """Has Textual's pilot wait in this way."""
    textual.pilot.wait_for_idle = idle
    textual.app.wait_for_idle = idle
