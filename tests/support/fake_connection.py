"""A connection and a channel that do what a test says, on the test's own thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import DmqError
from dmq_core.messaging.amqp.frames import Content
from dmq_core.messaging.connection.states import ConnectionState, ConnectionStatus
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction

HERE = NodeEndpoint("127.0.0.1", 5672, None)
LOST = CloseReason(RecoveryAction.RECOVER, "the peer closed the connection")


class FakeChannel:
    """Takes what is sent on it and lets a test answer."""

    def __init__(self, number: int = 2, frame_limit: int = 131_064) -> None:
        self.number = number
        self.frame_limit = frame_limit
        self.unsent = 0
        self.is_open = True
        self.sink: Any = None
        self.published: list[Any] = []
        self.frames: list[bytes] = []
        self.sent: list[tuple[Any, ...]] = []
        self.timers: list[Callable[[], None]] = []
        self.cancelled: Callable[[], None] | None = None

    def listen(self, sink: Any) -> None:
        self.sink = sink

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def select_confirms(self, done: Callable[[], None]) -> None:
        done()

    def publish(self, handles: Any) -> None:
        assert all(handle.encoder.fits(self.number, self.frame_limit) and handle.frames for handle in handles)
        self.published += handles
        self.frames += [handle.frames for handle in handles]

    def confirm(self, tag: int, multiple: bool = False, good: bool = True) -> None:
        """Answers as one read of the socket would."""
        (self.sink.acked if good else self.sink.nacked)(tag, multiple)
        self.sink.read_ended()

    def close(self) -> None:
        self.is_open = False
        self.sent.append(("close",))

    def prefetch(self, _count: int, done: Callable[[], None]) -> None:
        done()

    def declare(self, entity: Any, done: Callable[[Any], None]) -> None:
        self.sent.append(("declare", entity))
        done(None)

    def consume(
        self, queue: str, _exclusive: bool, _arguments: Any, done: Callable[[], None], cancelled: Callable[[], None]
    ) -> str:
        self.sent.append(("consume", queue))
        self.cancelled = cancelled
        done()
        return "ctag"

    def cancel(self, _tag: str, done: Callable[[], None]) -> None:
        done()

    def ack(self, tag: int, multiple: bool) -> None:
        self.sent.append(("ack", tag, multiple))

    def reject(self, tag: int, requeue: bool) -> None:
        self.sent.append(("reject", tag, requeue))

    def requeue(self, tag: int) -> None:
        self.sent.append(("give back", tag))

    def later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def deliver(self, tag: int, body: bytes = b"", redelivered: bool = False) -> None:
        self.sink.delivered(Content("x", "k", b"\x00\x00", body, tag=tag, redelivered=redelivered))
        self.sink.read_ended()


class FakeConnection:
    """A connection whose opening and losing a test decides."""

    name = "fake"
    on_io_thread = False
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self) -> None:
        self.user: Any = None
        self.channel: FakeChannel | None = None
        self.alive = True
        self.status = ConnectionStatus(ConnectionState.CONNECTING, 0.0, problem="no node answers")

    def attach(self, user: Any) -> None:
        self.user = user

    def detach(self, _user: Any) -> None:
        self.user = None

    def call(self, callback: Callable[[], None]) -> bool:
        # A real loop runs it later; here at once would be inside the caller's lock, so it waits for `turn`.
        self.pending.append(callback)
        return self.alive

    @property
    def pending(self) -> list[Callable[[], None]]:
        return self.__dict__.setdefault("_pending", [])

    def turn(self) -> None:
        """Lets the I/O thread's work be done."""
        while self.pending:
            self.pending.pop(0)()

    def open(self, number: int = 2, frame_limit: int = 131_064) -> FakeChannel:
        self.channel = FakeChannel(number, frame_limit)
        self.user.channel_opened(self.channel, HERE)
        self.turn()
        return self.channel

    def lose(self, reason: CloseReason = LOST) -> None:
        if self.channel is not None:
            self.channel.is_open = False
            self.channel = None
            self.user.channel_lost(reason)
        self.turn()

    def end(self, error: DmqError | None = None) -> None:
        self.alive = False
        if self.user is not None:
            self.user.ended(error)
