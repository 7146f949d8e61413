"""What is done with one delivery, from its bytes to its answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from dmq_core.messaging.consuming.decoding import Decode, DecodingError, MessageHeaders, headers_of, message_of
from dmq_core.messaging.delivery.delivery import Answer, returns_counted
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.messaging.retry.failure_policy import FailurePath

Handler = Callable[..., bool | None]
OnError = Callable[[BaseException, "Delivery"], None]
_LOG = logging.getLogger("dmq.messaging")
_UNREAD: Final = object()


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """What became of the messages that a consumer got, in messages.

    `stale`: handled, but the channel that brought them was gone before the answer, so the broker delivers them again.
    `duplicates` were recognised by their id, or by their offset in a stream, and acknowledged without the handler.
    `failed` counts each attempt.

    >>> consumer = DirectConsumer(manager, "orders")
    >>> consumer.stats == ConsumerStats(delivered=0, acked=0, failed=0)
    True
    """

    delivered: int = 0
    redelivered: int = 0
    acked: int = 0
    failed: int = 0
    requeued: int = 0
    stale: int = 0
    duplicates: int = 0
    undecodable: int = 0


class StatsCounter:
    """Counts for `ConsumerStats`, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys((field.name for field in fields(ConsumerStats)), 0)

    def add(self, name: str, count: int = 1) -> None:
        """Counts `count` more of the field `name`."""
        with self._lock:
            self._counts[name] += count

    def stats(self) -> ConsumerStats:
        """What was counted."""
        with self._lock:
            return ConsumerStats(**self._counts)


class RecentIds:
    """The last `limit` message ids that were handled well."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._ids: dict[str, None] = {}

    def __contains__(self, message_id: str | None) -> bool:
        return message_id in self._ids

    def add(self, message_id: str | None) -> None:
        """Remembers an id, and forgets the oldest beyond the limit."""
        if message_id is None:
            return
        with self._lock:
            self._ids.pop(message_id, None)
            self._ids[message_id] = None
            if len(self._ids) > self._limit:
                del self._ids[next(iter(self._ids))]


class Task:
    """A delivery on its way to the handler; its message is decoded once, when it is first asked for."""

    __slots__ = ("_message", "delivery", "problem")

    def __init__(self, delivery: Delivery, problem: str = "") -> None:
        self.delivery = delivery
        self.problem = problem
        self._message: object = _UNREAD

    def message(self, decode: Decode) -> object:
        """The decoded message, or `DecodingError`."""
        if self._message is _UNREAD:
            self._message = message_of(self.delivery, decode)
        return self._message


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """How a handler is given its messages.

    `dead_letters`: the queue is known to keep what is rejected. `limit`: after how many counted returns the queue gives
    a message up (None: unknown, or never). `recent` remembers what was handled well (None: nothing does).
    """

    decode: Decode
    auto_ack: bool
    dead_letters: bool
    limit: int | None
    recent: RecentIds | None
    on_error: OnError | None


class HandlerRunner:
    """Gives a handler its message and answers for it: True acknowledges, anything else fails and goes to `path`.

    `ended` hears of an exception by which the handler ends it all. What is returned to a stream is tried again at once,
    by the same thread, while `goes_on`.
    """

    def __init__(
        self,
        handler: Handler,
        path: FailurePath,
        options: HandlerOptions,
        counter: StatsCounter,
        ended: Callable[[BaseException], None],
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._handler = handler
        self._path = path
        self._options = options
        self._count = counter.add
        self._ended = ended
        self._goes_on = goes_on
        self._warned = False

    def handle(self, task: Task) -> bool:
        """Deals with one delivery; False if the broker will deliver it again on the same channel."""
        is_over = self._handle_once(task)
        while task.delivery.comes_back and self._goes_on():
            task = Task(task.delivery.again(), task.problem)
            is_over = self._handle_once(task)
        return is_over

    def _handle_once(self, task: Task) -> bool:
        delivery = task.delivery
        if delivery.is_settled:
            self._acked(delivery, "duplicates")
            return True
        try:
            message = task.message(self._options.decode)
        except DecodingError as error:
            self._undecodable(delivery, error)
            return self._is_over(delivery)
        recent = self._options.recent
        if recent is not None and delivery.properties.message_id in recent:
            self._acked(delivery, "duplicates")
            return True
        # At most once: what is acknowledged in vain is delivered again, and must not be handled now.
        if self._options.auto_ack and not self._acked(delivery):
            return True
        problem = task.problem or self._call(message, headers_of(delivery))
        if problem is None:
            return True  # it ended the consumer
        if delivery.comes_back:
            # The pauses and the limit are the path's, whoever returned it.
            delivery.reopen()
            problem = problem or "the handler returned it to its stream"
        if problem:
            self._failed(delivery, problem)
            return self._is_over(delivery)
        if recent is not None:
            recent.add(delivery.properties.message_id)
        if not self._options.auto_ack:
            self._acked(delivery)
        return True

    def _call(self, message: object, headers: MessageHeaders) -> str | None:
        """Why the handler failed, empty if it did not; None if it wants to end it all."""
        try:
            result = self._handler(message, headers)
        except Exception as error:  # the handler is the user's; its failure is the message's
            self._tell(error, headers.delivery)
            return f"{type(error).__name__}: {visible(str(error))}"
        except BaseException as error:  # SystemExit and the like
            # Unanswered, so that it goes back with its channel: in its order, before those behind it.
            self._ended(error)
            return None
        if result is True:
            return ""
        if result is not False and not self._warned:
            self._warned = True
            _LOG.warning(
                "the handler of %r returned %s, which counts as failed; return True or False",
                visible(headers.delivery.queue),
                "nothing" if result is None else type(result).__name__,
            )
        return "the handler returned False" if result is False else f"the handler returned {type(result).__name__}"

    def _acked(self, delivery: Delivery, counted_as: str = "acked") -> bool:
        sent = delivery.ack()
        self._count(counted_as if sent or delivery.answer is not None else "stale")
        return sent

    def _undecodable(self, delivery: Delivery, error: DecodingError) -> None:
        self._count("undecodable")
        self._tell(error, delivery)
        if not self._options.dead_letters:
            self._hand_over(delivery, str(error))
        elif not delivery.reject():
            self._count("stale")

    def _failed(self, delivery: Delivery, why: str) -> None:
        self._count("failed")
        if not self._options.auto_ack:
            self._hand_over(delivery, why)

    def _hand_over(self, delivery: Delivery, why: str) -> None:
        if not delivery.is_current:
            self._count("stale")
            return
        try:
            self._path.failed(delivery, why)
        except Exception:  # a path may be the user's; without an answer the message would be held for ever
            _LOG.exception("what was to happen after a failure failed too; the message is tried again")
            delivery.reject(requeue=True)

    def _is_over(self, delivery: Delivery) -> bool:
        if delivery.answer not in (Answer.REJECT_REQUEUE, Answer.REQUEUE):
            return True
        return self._options.limit is not None and returns_counted(delivery) >= self._options.limit

    def _tell(self, error: Exception, delivery: Delivery) -> None:
        if self._options.on_error is None:
            _LOG.warning("a message of %r failed: %s", visible(delivery.queue), visible(repr(error)), exc_info=error)
            return
        try:
            self._options.on_error(error, delivery)
        except Exception:  # the listener is the user's; it must not stop the work
            _LOG.exception("the on_error of %r failed", visible(delivery.queue))
