"""Where a stream is read from, and what of it is done, across the channels that it is read over; no I/O."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from dmq_core.errors import InvalidInputError
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.messaging.messages import Headers

Offset = int | str | datetime
OFFSET: Final = "x-stream-offset"
FIRST: Final = "first"
_WORDS: Final = (FIRST, "last", "next")
_INTERVAL: Final = re.compile(r"([0-9]+)([YMDhms])")
# As RabbitMQ counts them.
_UNIT_S: Final = {"Y": 31_536_000, "M": 2_592_000, "D": 86_400, "h": 3600, "m": 60, "s": 1}


def checked_offset(offset: Offset) -> Offset:
    """`offset` if a broker would take it, else `InvalidInputError`."""
    match offset:
        case bool():
            fits = False
        case int():
            fits = 0 <= offset < 2**63
        case datetime():
            fits = offset.tzinfo is not None
        case str():
            fits = offset in _WORDS or age_s(offset) is not None
        case _:
            fits = False
    if not fits:
        raise InvalidInputError(
            f"a stream cannot be read from {visible(repr(offset))[:60]}",
            "Say first, last or next, an offset from 0, a datetime with its time zone, or an age such as 1h.",
        )
    return offset


def offset_of(headers: Headers) -> int | None:
    """The offset that a broker wrote into `headers`; None if there is none."""
    offset = headers.get(OFFSET)
    return offset if isinstance(offset, int) and not isinstance(offset, bool) else None


class StreamPosition:
    """What of a stream was delivered and what of that is settled; from any thread.

    It is read on from the lowest offset that is not settled, or behind everything that was delivered. While nothing
    was, it is read from `offset`; one that means another place at each moment (next, last, an age) is held to the
    moment of the first subscription, by the wall clock and to the second.
    """

    def __init__(self, offset: Offset) -> None:
        self._lock = threading.Lock()
        self.has_begun = False
        self._start = offset
        self._highest: int | None = None
        # In ascending order, as they were delivered.
        self._open: dict[int, None] = {}
        self._resumed_at: int | None = None

    @property
    def start(self) -> Offset:
        """Where the next subscription begins."""
        with self._lock:
            return self._resume()

    def subscribed(self, at: float) -> None:
        """A subscription that was asked for at `at` (epoch seconds) began."""
        with self._lock:
            self.has_begun = True
            self._resumed_at = None
            if self._highest is None:
                self._start = _fixed(self._start, at)
                return
            resume = self._resume()
            self._resumed_at = resume if isinstance(resume, int) else None

    def delivered(self, offset: int) -> bool:
        """Notes a delivery; whether that offset was delivered before."""
        with self._lock:
            if self._highest is not None and offset <= self._highest:
                return True
            self._highest = offset
            self._open[offset] = None
            return False

    def missed(self, offset: int) -> range:
        """What the stream no longer has of what was still to be read, at the first delivery of a subscription."""
        with self._lock:
            resumed, self._resumed_at = self._resumed_at, None
            if resumed is None or offset <= resumed:
                return range(0)
            for lost in [number for number in self._open if number < offset]:
                del self._open[lost]
            return range(resumed, offset)

    def is_settled(self, offset: int) -> bool:
        """Whether that offset was delivered and is done."""
        with self._lock:
            return self._highest is not None and offset <= self._highest and offset not in self._open

    def settle(self, offset: int) -> bool:
        """Notes that a delivered offset is done; False if it was before."""
        with self._lock:
            return self._open.pop(offset, offset) is None

    def _resume(self) -> Offset:
        if self._highest is None:
            return self._start
        return next(iter(self._open), self._highest + 1)


def _fixed(offset: Offset, at: float) -> Offset:
    """`offset` as a place that stays the same, seen from the moment `at`."""
    if not isinstance(offset, str) or offset == FIRST:
        return offset
    return datetime.fromtimestamp(max(0, int(at - (age_s(offset) or 0))), UTC)


def age_s(text: str) -> int | None:
    """The seconds of an age such as `1h`; None if `text` is none, or of nothing."""
    found = _INTERVAL.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found and len(text) <= 12 else 0
    return seconds or None
