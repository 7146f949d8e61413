"""A published message on its way to its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dmq_core.messaging.amqp.wire import with_id
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, PublishResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from dmq_core.messaging.amqp.wire import MessageEncoder


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How messages ended, many at once: `at` is the connection's second, `sends` how often they were sent."""

    outcome: Outcome
    endpoint: str | None
    at: float
    reason: str = ""
    sends: int = 1


class FutureOwner(Protocol):
    """Who gives futures their results."""

    def wait_for(self, future: PublishFuture, timeout_s: float) -> PublishResult:
        """Waits for the result of `future`; `OperationTimeoutError` leaves it open."""
        ...

    def add_callback(self, future: PublishFuture, callback: Callable[[PublishFuture], None]) -> bool:
        """Notes that `callback` is to be called once `future` is done; False if it is done already."""
        ...


class PublishFuture:
    """One published message on its way to its outcome, in the shape of Python's futures.

    Like these it is asked by `done`, `result` and `add_done_callback`. A message that is refused or returned is a
    result like any other, so there is no `exception`; and what was published cannot be cancelled. `frames` are its
    bytes as `encoder` made them; without an encoder they are yet to be made.

    >>> manager.declare(Queue("orders", "quorum"))
    >>> future = DirectProducer(manager).publish("orders", "a book")
    >>> print(future.result(timeout=10).outcome)
    confirmed
    >>> future.done()
    True
    """

    __slots__ = (
        "_owner",
        "body",
        "callbacks",
        "encoder",
        "ended",
        "exchange",
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
        owner: FutureOwner,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: MessageProperties,
        mandatory: bool,
        own_id: bytes,
        taken_at: float,
    ) -> None:
        self._owner = owner
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.properties = properties
        self.mandatory = mandatory
        self.own_id = own_id
        self.taken_at = taken_at
        self.size = len(body)
        self.encoder: MessageEncoder | None = None
        self.frames = b""
        self.ended: BatchOutcome | None = None
        self.callbacks: list[Callable[[PublishFuture], None]] | None = None

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

    def done(self) -> bool:
        """Whether `result` has something to give at once."""
        return self.ended is not None

    def result(self, timeout: float = 30.0) -> PublishResult:
        """How it ended; waits for that up to `timeout` seconds.

        `OperationTimeoutError`, which is a `TimeoutError`, leaves it open, so that one may ask again.
        """
        ended = self.ended
        if ended is None:
            return self._owner.wait_for(self, timeout)
        return PublishResult(ended.outcome, ended.endpoint, ended.at - self.taken_at, ended.reason, ended.sends)

    def add_done_callback(self, callback: Callable[[PublishFuture], None]) -> None:
        """Calls `callback` with this future once it is done: at once, or on a thread that it must not block.

        >>> future = DirectProducer(manager).publish("nobody-listens-here", "Hello World!")
        >>> _ = future.result()
        >>> future.add_done_callback(lambda done: print(done.result().outcome))
        returned
        """
        if not self._owner.add_callback(self, callback):
            callback(self)

    def encode(self, encoder: MessageEncoder) -> None:
        """Makes the frames with `encoder`; `InvalidInputError` if it cannot be sent there."""
        self.frames = encoder.encode(
            self.exchange, self.routing_key, self.body, self.properties, self.mandatory, self.own_id
        )
        self.encoder = encoder

    def forget_frames(self) -> None:
        """Frees what a large message's frames hold once they are sent."""
        self.encoder = None
        self.frames = b""
