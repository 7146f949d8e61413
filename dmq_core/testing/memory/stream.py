"""A stream of the in-memory broker: every message stays, and each consumer reads on by itself from its own place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.delivery.stream_offset import OFFSET, age_s, checked_offset
from dmq_core.testing.memory.message import Message
from dmq_core.testing.memory.queue import Confirm, MemoryConsumer, MemoryQueue, Stored
from dmq_core.testing.memory.refusal import refuse


class MemoryStream(MemoryQueue):
    """A stream that heeds no bounds, in chunks of one message. Everything happens in the broker's turn."""

    is_stream = True

    @property
    def ready(self) -> int:
        """Its messages, read or not."""
        return len(self._waiting)

    def publish(self, message: Message, confirm: Confirm) -> None:
        """Takes a message, now or once there is a leader."""
        if not self._broker.is_available(self):
            self._undecided.append((message, confirm))
            return
        offset = len(self._waiting)
        kept = replace(message, acquired=0, failed=0, headers={**message.headers, OFFSET: offset})
        self._waiting.append(Stored(kept, offset, self._clock.wall))
        self.pump()
        confirm(True)

    def place(self, where: object) -> int:
        """The offset at which a consumer begins that asks for `where`."""
        try:
            wanted = "next" if where is None else checked_offset(where)  # type: ignore[arg-type]  # it tells
        except InvalidInputError:
            refuse(406, f"invalid arg '{OFFSET}' for queue '{self.name}': invalid_stream_offset_arg {where!r}")
        match wanted:
            case "first":
                return 0
            case "last":
                return max(0, self.ready - 1)
            case "next":
                return self.ready
            case str():
                return self._since(self._clock.wall - (age_s(wanted) or 0))
            case datetime():
                return self._since(int(wanted.timestamp()))
            case _:
                return wanted

    def _since(self, moment: float) -> int:
        written = (stored.due or 0.0 for stored in self._waiting)
        return next((offset for offset, at in enumerate(written) if at >= moment), self.ready)

    def pump(self) -> None:
        """Delivers to each consumer what comes next to it, as far as it has room."""
        if self.gone or not self._broker.is_available(self):
            return
        for subscription in tuple(self.subscriptions):
            while subscription.has_room and subscription.place < self.ready:
                stored = self._waiting[subscription.place]
                subscription.place += 1
                subscription.held += 1
                subscription.receiver.deliver(subscription, stored, False)

    def refuse(self, subscription: MemoryConsumer, stored: Stored) -> None:
        """A rejection is an acknowledgement."""
        self.acknowledge(subscription)

    def requeue(self, subscription: MemoryConsumer, deliveries: Iterable[Stored], *, failed: bool, told: bool) -> None:
        """Nothing is taken back."""
        for _ in deliveries:
            subscription.held -= 1
        self.pump()
