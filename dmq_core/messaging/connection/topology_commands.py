"""Asks a broker for something once, over a connection of its own choice: declare, delete, count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic

from dmq_core.errors import DmqError, MessagingError, NotReachableError, OperationTimeoutError
from dmq_core.messaging.topology.model import (
    _LOG,
    INEQUIVALENT,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    Binding,
    Entity,
    Exchange,
    QueueDepth,
    T,
)
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.endpoints import NodeEndpoint
    from dmq_core.messaging.connection.connection import Connection
    from dmq_core.messaging.transport.close_reason import CloseReason
    from dmq_core.messaging.transport.protocol import Channel

_REFUSALS = frozenset({403, NOT_FOUND, 405, INEQUIVALENT, NOT_IMPLEMENTED})


def is_refusal(reason: CloseReason) -> bool:
    """Whether the broker closed channel or connection because it will not do what was asked, now or later."""
    # A classic queue whose node is down answers "not found" too, and comes back with its node.
    return reason.code in _REFUSALS and "is down or inaccessible" not in reason.text


def is_adopted(entity: Entity, reason: CloseReason) -> bool:
    """Whether `reason` only says that `entity` is there already in another form, and that is accepted."""
    if isinstance(entity, Binding) or not entity.adopt or reason.code != INEQUIVALENT:
        return False
    taken = "inequivalent" in reason.text and not (isinstance(entity, Exchange) and "arg 'type'" in reason.text)
    if taken:
        _LOG.info("taken as it is: %s", visible(reason.text))
    return taken


def declare(connection: Connection, entities: Sequence[Entity], timeout_s: float = 10.0) -> None:
    """Declares `entities` in order; `MessagingError` with the broker's words if it refuses one."""
    remaining = list(entities)

    def steps(channel: Channel, done: Callable[[None], None]) -> None:
        def declared(_depth: QueueDepth | None) -> None:
            remaining.pop(0)
            proceed()

        def proceed() -> None:
            # What is not yet declared stays in the list, so that another node can be asked for the rest.
            if remaining:
                channel.declare(remaining[0], declared)
            else:
                done(None)

        proceed()

    def forgives(reason: CloseReason) -> bool:
        adopted = bool(remaining) and is_adopted(remaining[0], reason)
        if adopted:
            remaining.pop(0)
        return adopted

    _Request(connection, steps, forgives).result(timeout_s)


def queue_depth(connection: Connection, queue: str, timeout_s: float = 5.0) -> QueueDepth | None:
    """How deep `queue` is; None if there is no such queue."""

    def steps(channel: Channel, done: Callable[[QueueDepth | None], None]) -> None:
        channel.depth(queue, done)

    request: _Request[QueueDepth | None] = _Request(connection, steps)
    try:
        return request.result(timeout_s)
    except MessagingError:
        if request.refused_with == NOT_FOUND:
            return None
        raise


def delete_queue(connection: Connection, queue: str, *, only_empty: bool = False, timeout_s: float = 10.0) -> None:
    """Deletes `queue` if it exists; with `only_empty`, `MessagingError` if it holds messages.

    `only_empty` is for classic queues: over any other RabbitMQ closes the whole connection, which then recovers.
    """

    def steps(channel: Channel, done: Callable[[None], None]) -> None:
        channel.delete_queue(queue, only_empty, lambda: done(None))

    _Request(connection, steps).result(timeout_s)


def delete_exchange(connection: Connection, exchange: str, timeout_s: float = 10.0) -> None:
    """Deletes `exchange` with its bindings if it exists; `MessagingError` for those that are RabbitMQ's own."""

    def steps(channel: Channel, done: Callable[[None], None]) -> None:
        channel.delete_exchange(exchange, lambda: done(None))

    _Request(connection, steps).result(timeout_s)


class _Request(Generic[T]):
    """Steps done once on a channel of their own, begun anew on the next node if a node is lost in the middle."""

    def __init__(
        self,
        connection: Connection,
        steps: Callable[[Channel, Callable[[T], None]], None],
        forgives: Callable[[CloseReason], bool] = lambda _reason: False,
    ) -> None:
        self._connection = connection
        self._steps = steps
        self._forgives = forgives
        self._finished = threading.Event()
        self._results: list[T] = []
        self._error: DmqError | None = None
        self.refused_with: int | None = None
        connection.attach(self)

    def result(self, timeout_s: float) -> T:
        """Waits for the result, or raises why there is none."""
        try:
            if not self._finished.wait(timeout_s):
                problem = self._connection.status.problem
                if problem:
                    raise NotReachableError(problem, "Check that the cluster runs and has a majority of its nodes.")
                raise OperationTimeoutError(
                    f"the broker did not answer within {timeout_s:g} s", "Has the cluster a majority?"
                )
        finally:
            self._connection.detach(self)
        if self._error is not None:
            raise self._error
        return self._results[0]

    def channel_opened(self, channel: Channel, endpoint: NodeEndpoint) -> None:
        """The connection gave us a channel: begin."""
        if not self._finished.is_set():
            self._steps(channel, self._done)

    def channel_lost(self, reason: CloseReason) -> None:
        """The channel went; a refusal by the broker is final, the loss of a node is not."""
        if is_refusal(reason) and not self._finished.is_set() and not self._forgives(reason):
            self.refused_with = reason.code
            self._error = reason.error("the broker refused") if reason.denied else MessagingError(reason.text)
            self._finished.set()

    def flow_changed(self, blocked: bool) -> None:
        """Nothing is published here."""

    def overdue(self, now: float) -> str:
        """The caller has a bound of its own."""
        return ""

    def ended(self, error: DmqError | None) -> None:
        """The connection is over."""
        if not self._finished.is_set():
            self._error = error or MessagingError("the connection was closed")
            self._finished.set()

    def _done(self, result: T) -> None:
        self._results.append(result)
        self._finished.set()
