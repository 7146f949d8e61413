"""What the consumers of a demo received, in the order in which they did."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmq_core.messaging.consuming.decoding import MessageHeaders
    from dmq_core.messaging.delivery.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Received:
    """A message as a handler got it."""

    message: object
    headers: MessageHeaders

    @property
    def delivery(self) -> Delivery:
        """How it came."""
        return self.headers.delivery

    @property
    def routing_key(self) -> str:
        """The key that it was published with."""
        return self.delivery.routing_key

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""
        return self.delivery.redelivered


class Inbox:
    """Collects messages; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._received: list[Received] = []

    def handle(self, message: object, headers: MessageHeaders) -> bool:
        """A handler that keeps the message and is done with it."""
        with self._changed:
            self._received.append(Received(message, headers))
            self._changed.notify_all()
        return True

    @property
    def received(self) -> tuple[Received, ...]:
        """Everything so far."""
        with self._changed:
            return tuple(self._received)

    @property
    def messages(self) -> tuple[object, ...]:
        """The messages alone."""
        return tuple(one.message for one in self.received)

    def wait_for(self, count: int, within_s: float = 10.0) -> bool:
        """Waits until so many came; whether they did."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._received) >= count, within_s)

    def clear(self) -> None:
        """Forgets what came."""
        with self._changed:
            self._received.clear()
