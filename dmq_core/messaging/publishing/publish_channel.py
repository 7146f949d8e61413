"""One publishing channel's life: what is on its wire, the answers to it, and how long they take; no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dmq_core.messaging.amqp.frames import safe_properties
from dmq_core.messaging.amqp.wire import ID_HEADER
from dmq_core.messaging.connection.endpoint_selection import label
from dmq_core.messaging.publishing.confirm_window import ConfirmWindow
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.endpoints import NodeEndpoint
    from dmq_core.messaging.amqp.frames import Content
    from dmq_core.messaging.amqp.wire import MessageEncoder
    from dmq_core.messaging.publishing.publish_future import PublishFuture
    from dmq_core.messaging.transport.protocol import Channel


SLEPT_S = 1.0
WORN_OUT_S = 1.0


class PublishChannel:
    """Hears the answers on one channel; those of an earlier channel find their own window, which is empty by then.

    The broker numbers what is published on a channel from 1 and confirms by that number, so a window belongs to one
    channel: after a reconnect the same numbers are other messages.

    `answered` is called once a read has brought answers. Everything runs on the I/O thread.
    """

    def __init__(
        self,
        channel: Channel,
        endpoint: NodeEndpoint,
        encoder: MessageEncoder,
        now: float,
        answered: Callable[[PublishChannel], None],
    ) -> None:
        self.channel = channel
        self.where = label(endpoint)
        self.encoder = encoder
        self.window: ConfirmWindow[PublishFuture] = ConfirmWindow()
        self.returned_for: dict[PublishFuture, str] = {}
        self.ready = False
        self.expired_at: float | None = None
        self.worn_out = False
        self._answered = answered
        self._answers: list[tuple[int, bool, bool]] = []
        self._by_id: dict[bytes, PublishFuture] = {}
        self._progressed_at = 0.0
        self._unsent = 0
        self._asked_at = now
        self._refused_at: float | None = None

    # What the channel brings.

    def acked(self, tag: int, multiple: bool) -> None:
        """The broker took one message on, or all up to it."""
        self._answers.append((tag, multiple, True))

    def nacked(self, tag: int, multiple: bool) -> None:
        """The broker refused one message, or all up to it."""
        self._answers.append((tag, multiple, False))

    def returned(self, content: Content) -> None:
        """No queue wanted a message; its confirm follows."""
        properties = safe_properties(content.raw_properties)
        for own in (properties.message_id, properties.headers.get(ID_HEADER)):
            future = self._find(own.encode()) if isinstance(own, str) else None
            if future is not None:
                self.returned_for[future] = f"{visible(content.text)} ({content.code})"

    def delivered(self, content: Content) -> None:
        """Nothing is delivered on a publishing channel."""

    def read_ended(self) -> None:
        """Every answer that had come was told."""
        if self._answers:
            self._answered(self)

    # What the producer asks.

    def sent(self, futures: list[PublishFuture], now: float) -> None:
        """Notes messages as on the wire."""
        if not self.window:
            self._progressed_at = now
        self.window.add(futures, now)

    def take_answered(self, now: float) -> tuple[list[PublishFuture], list[PublishFuture]]:
        """The messages that the answers so far settle: taken on, and refused."""
        answers, self._answers = self._answers, []
        taken: list[PublishFuture] = []
        refused: list[PublishFuture] = []
        for tag, multiple, good in answers:
            (taken if good else refused).extend(self.window.settle(tag, multiple))
        if taken or refused:
            self._progressed_at = now
        if refused:
            self._refused_at = self._refused_at or now
            # A channel that met a queue while its leader was gone may look for that leader for ever.
            self.worn_out = now - self._refused_at >= WORN_OUT_S
        return taken, refused

    def restart_clock(self, now: float) -> None:
        """Forgives all waiting so far."""
        self._progressed_at = now
        self.window.restart(now)

    def stalled_s(self, now: float) -> float:
        """For how many seconds nothing was confirmed though something is owed, and nothing left for the node either.

        To be asked every quarter second.
        """
        slept, self._asked_at = now - self._asked_at > SLEPT_S, now
        if slept:
            # What the node said while this process was stopped is still unread.
            self.restart_clock(now)
        unsent, before = self.channel.unsent, self._unsent
        self._unsent = unsent
        if unsent < before:
            self._progressed_at = now
        return now - self._progressed_at if self.window else 0.0

    def _find(self, own: bytes) -> PublishFuture | None:
        if own not in self._by_id:
            # Returns are rare and come in bunches, so the index is made when one comes.
            self._by_id = {future.own_id: future for future in self.window}
        return self._by_id.get(own)
