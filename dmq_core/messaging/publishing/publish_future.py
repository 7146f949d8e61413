"""A published message on its way to its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dmq_core.messaging.amqp.wire import with_id
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, PublishResult

if TYPE_CHECKING:
    from dmq_core.messaging.amqp.wire import MessageEncoder


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How messages ended, many at once: `at` is the connection's second, `sends` how often they were sent."""

    outcome: Outcome
    endpoint: str | None
    at: float
    reason: str = ""
    sends: int = 1


class Waiting(Protocol):
    """Who waits for outcomes."""

    def wait_for(self, handle: PublishFuture, timeout_s: float) -> PublishResult:
        """Waits for the outcome of `handle`; `OperationTimeoutError` leaves it open."""
        ...


class PublishFuture:
    """One published message on its way to its outcome.

    `frames` are its bytes for `encoder`; without a wire they are yet to be made.

    >>> manager.declare(Queue("orders", "quorum"))
    >>> handle = DirectProducer(manager).publish("orders", "a book")
    >>> print(handle.wait(timeout_s=10).outcome)
    confirmed
    >>> handle.settlement == handle.wait()
    True
    """

    __slots__ = (
        "_producer",
        "body",
        "encoder",
        "exchange",
        "fate",
        "frames",
        "mandatory",
        "own_id",
        "properties",
        "routing_key",
        "size",
        "taken_at",
    )

    def __init__(
        self,
        producer: Waiting,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: MessageProperties,
        mandatory: bool,
        own_id: bytes,
        taken_at: float,
        encoder: MessageEncoder | None,
        frames: bytes,
    ) -> None:
        self._producer = producer
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.properties = properties
        self.mandatory = mandatory
        self.own_id = own_id
        self.taken_at = taken_at
        self.encoder = encoder
        self.frames = frames
        self.size = len(body)
        self.fate: BatchOutcome | None = None

    @property
    def message(self) -> OutgoingMessage:
        """The message as it was given."""
        return OutgoingMessage(self.exchange, self.routing_key, self.body, self.properties, self.mandatory)

    @property
    def id(self) -> str:
        """The producer's own id for it: sent as its message id, or where it was given one of those, in a header."""
        return self.own_id.decode()

    @property
    def sent_properties(self) -> MessageProperties:
        """The properties as they are sent, our id included."""
        return with_id(self.properties, self.id)

    @property
    def settlement(self) -> PublishResult | None:
        """How it ended; None while that is open."""
        fate = self.fate
        if fate is None:
            return None
        return PublishResult(fate.outcome, fate.endpoint, fate.at - self.taken_at, fate.reason, fate.sends)

    def wait(self, timeout_s: float = 30.0) -> PublishResult:
        """Waits for the outcome, up to `timeout_s` seconds.

        Raises `OperationTimeoutError` leaves it open, so that one may wait again.
        """
        return self._producer.wait_for(self, timeout_s)

    def encode(self, encoder: MessageEncoder) -> None:
        """Makes the frames for `encoder`; `InvalidInputError` if it cannot be sent there."""
        self.frames = encoder.encode(
            self.exchange, self.routing_key, self.body, self.properties, self.mandatory, self.own_id
        )
        self.encoder = encoder

    def forget_frames(self) -> None:
        """Frees what a large message's frames hold once they are sent."""
        self.encoder = None
        self.frames = b""
