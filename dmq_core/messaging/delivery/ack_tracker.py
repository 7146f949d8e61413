"""Which acknowledgements to send for the deliveries of one channel; pure."""

from __future__ import annotations

from typing import NamedTuple


class Ack(NamedTuple):
    """An acknowledgement to send; `multiple` covers every delivery up to `tag`."""

    tag: int
    multiple: bool


class AckTracker:
    """The deliveries of one channel, whose tags count from 1.

    Acknowledgements wait in the book until `due`; one `multiple` then covers the longest prefix in which nothing is
    still running, and each one beyond goes alone.
    """

    def __init__(self) -> None:
        self._delivered = 0
        self._floor = 0
        self._settled: set[int] = set()
        self._waiting: set[int] = set()

    @property
    def running(self) -> int:
        """Deliveries that nobody has settled."""
        return self._delivered - self._floor - len(self._settled)

    @property
    def waiting(self) -> int:
        """Acknowledgements not yet sent."""
        return len(self._waiting)

    def delivered(self, tag: int) -> None:
        """Notes a delivery."""
        self._delivered = max(self._delivered, tag)

    def ack(self, tag: int) -> bool:
        """Notes that `tag` is to be acknowledged; False if it was never delivered or is settled."""
        if not self.settle(tag):
            return False
        self._waiting.add(tag)
        return True

    def settle(self, tag: int) -> bool:
        """Notes that `tag` was answered in another way; False if it was never delivered or is settled."""
        if not self._floor < tag <= self._delivered or tag in self._settled:
            return False
        self._settled.add(tag)
        return True

    def due(self) -> list[Ack]:
        """The acknowledgements to send now, in order."""
        covered = 0
        while self._floor + 1 in self._settled:
            self._floor += 1
            self._settled.discard(self._floor)
            if self._floor in self._waiting:
                self._waiting.discard(self._floor)
                covered = self._floor
        acks = [Ack(covered, True)] if covered else []
        acks += [Ack(tag, False) for tag in sorted(self._waiting)]
        self._waiting.clear()
        return acks
