"""Publishing from asyncio, over the same producers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Generic, ParamSpec, Protocol

from dmq_core.messaging.messages import PublishResult

if TYPE_CHECKING:
    from typing import Self

    from dmq_core.messaging.publishing.publish_future import PublishFuture

P = ParamSpec("P")


class AnyProducer(Protocol[P]):
    """A producer of any type."""

    @property
    def has_capacity(self) -> bool:
        """Whether `publish` would not wait."""
        ...

    def publish(self, *args: P.args, **kwargs: P.kwargs) -> PublishFuture:
        """Publishes one message."""
        ...

    def flush(self, timeout_s: float = ...) -> None:
        """Waits until every message has its outcome."""
        ...

    def close(self, timeout_s: float = ...) -> None:
        """Ends it."""
        ...


class AsyncProducer(Generic[P]):
    """The asyncio face of a producer; everything that would wait is awaited, and never holds up the event loop.

    `publish` takes what the producer's `publish` takes. Messages go out in the order in which `publish` was called;
    for speed have many under way, with `asyncio.gather` or a task group. Cancelling does not take a message back.

    >>> import asyncio
    >>> manager.declare(Queue("orders", "quorum"))
    >>> async def main():
    ...     async with AsyncProducer(DirectProducer(manager)) as producer:
    ...         results = await asyncio.gather(*(producer.publish("orders", f"book {n}") for n in range(3)))
    ...         print(*(result.outcome for result in results))
    >>> asyncio.run(main())
    confirmed confirmed confirmed
    """

    def __init__(self, producer: AnyProducer[P]) -> None:
        self._producer = producer
        self._turn = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settled: deque[tuple[asyncio.Future[PublishResult], PublishResult]] = deque()
        self._woken = False

    async def publish(self, *args: P.args, **kwargs: P.kwargs) -> PublishResult:
        """Publishes one message and gives its outcome; raises what the producer's `publish` raises."""
        self._loop = loop = asyncio.get_running_loop()
        outcome: asyncio.Future[PublishResult] = loop.create_future()
        async with self._turn:
            if self._producer.has_capacity:
                future = self._producer.publish(*args, **kwargs)
            else:
                future = await asyncio.to_thread(self._producer.publish, *args, **kwargs)
        future.add_done_callback(lambda done: self._hear(outcome, done))
        return await outcome

    def _hear(self, outcome: asyncio.Future[PublishResult], future: PublishFuture) -> None:
        """On a thread of the producer, perhaps after the event loop has ended."""
        if self._loop is None:
            return
        self._settled.append((outcome, future.result(0)))
        if not self._woken:
            # Confirms come in numbers, and one wake serves all that have come until it is answered.
            self._woken = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False
        while self._settled:
            outcome, result = self._settled.popleft()
            if not outcome.done():
                outcome.set_result(result)

    async def flush(self, timeout_s: float = 30.0) -> None:
        """Waits until every message has its outcome.

        Raises `OperationTimeoutError` if some have none after `timeout_s` seconds.
        """
        await asyncio.to_thread(self._producer.flush, timeout_s)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Waits up to `timeout_s` seconds for what is under way, settles the rest, and ends."""
        await asyncio.to_thread(self._producer.close, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
