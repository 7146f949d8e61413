"""What the consumers of the four types have in common: a queue declared, its messages handled, its end."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, TypedDict

from dmq_core.errors import DmqError, InvalidInputError, MessagingError
from dmq_core.messaging.consuming.decoding import Decode, DecodingError, MessageHeaders, decode_message, headers_of
from dmq_core.messaging.consuming.handler_runner import (
    ConsumerStats,
    Handler,
    HandlerOptions,
    HandlerRunner,
    OnError,
    RecentIds,
    StatsCounter,
    Task,
)
from dmq_core.messaging.consuming.subscription import CANCELLED, ConsumerStatus, Subscription, SubscriptionOptions
from dmq_core.messaging.consuming.workers import NO_KEY, InlineWorker, KeyedQueues, WorkerPool
from dmq_core.messaging.delivery.delivery import Delivery, returns_counted
from dmq_core.messaging.delivery.stream_offset import Offset, checked_offset
from dmq_core.messaging.retry.failure_policy import DELIVERY_LIMIT, FailurePath, FailurePlan
from dmq_core.messaging.retry.requeue import Requeue
from dmq_core.messaging.topology.model import (
    NOT_FOUND,
    Arguments,
    Binding,
    Entity,
    Exchange,
    PrivateBinding,
    PrivateQueue,
    Queue,
)
from dmq_core.messaging.topology.queue_arguments import QUORUM, STREAM
from dmq_core.messaging.topology.queue_arguments import delivery_limit as limit_of
from dmq_core.text import visible

if TYPE_CHECKING:
    from typing import Self, Unpack

    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.versions import Version

PREFETCH: Final = 200
SLICE_S: Final = 0.5
_LOG = logging.getLogger("dmq.messaging")


class Order(StrEnum):
    """What a consumer promises of the order in which messages are handled: nothing, all of it, or within a key.

    >>> consumer = DirectConsumer(manager, "orders", order=Order.KEY, key="customer", concurrency=8)
    >>> consumer.declare_queue()
    """

    NONE = "none"
    STRICT = "strict"
    KEY = "key"


Key = Callable[[object, MessageHeaders], Hashable] | str


class ConsumerOptions(TypedDict, total=False):
    """What every consumer can be told by keyword; see `Consumer`.

    >>> options: ConsumerOptions = {"prefetch": 50, "concurrency": 4, "deduplicate": 10_000}
    >>> consumers = [DirectConsumer(manager, name, **options) for name in ("orders", "returns")]
    """

    auto_ack: bool
    prefetch: int
    concurrency: int
    order: str
    key: Key | None
    retry: FailurePath | None
    decode: Decode
    deduplicate: int
    on_error: OnError | None
    cluster: str


@dataclass(frozen=True, slots=True)
class _Options:
    auto_ack: bool = False
    prefetch: int = PREFETCH
    concurrency: int = 1
    order: str = Order.NONE
    key: Key | None = None
    retry: FailurePath | None = None
    decode: Decode = decode_message
    deduplicate: int = 0
    on_error: OnError | None = None
    cluster: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.prefetch <= 65535:
            raise InvalidInputError(f"a prefetch of {self.prefetch} makes no sense", "Give a number from 1 to 65535.")
        if self.deduplicate < 0:
            raise InvalidInputError(f"remembering {self.deduplicate} ids makes no sense", "Give 0 or more.")


class Consumer:
    """Receives from one queue and gives each message to a handler; what the four types have in common.

    `prefetch` (1 to 65535) bounds what is unanswered, `concurrency` how many handlers run at once. `auto_ack`
    acknowledges each message before its handler runs, which is then at most once. `order`: "strict" handles one message
    after the other, "key" those with the same `key`: the routing key (None), the header of that name, or what
    `key(message, headers)` gives. Both have the queue serve one consumer at a time, and try a failed message again
    before any later one. `retry` decides what becomes of a failed message (None: `Requeue`). `decode(body, properties)`
    makes the message; what it cannot decode is dead-lettered. With `deduplicate`, that many message ids that were
    handled well are remembered, and such a message is acknowledged unseen. `on_error(error, delivery)` hears what
    handler and decoder raise; without it, that is logged. `InvalidInputError` for what makes no sense.

    >>> def failures(consumer: Consumer) -> int:
    ...     return consumer.stats.failed
    >>> consumer = DirectConsumer(manager, "orders", concurrency=4, deduplicate=10_000)
    >>> consumer.declare_queue()
    >>> with consumer.start_consuming(lambda message, headers: True):
    ...     failures(consumer)
    0
    """

    exchange_type: ClassVar[str]

    def __init__(
        self,
        connection_manager: BrokerConnectionManager,
        queue_name: str | None,
        exchange_name: str,
        bindings: Sequence[PrivateBinding],
        **options: Unpack[ConsumerOptions],
    ) -> None:
        if isinstance(connection_manager, str):
            # What would go wrong later is far from its cause.
            raise InvalidInputError(
                "a consumer's first argument is its connection manager", "Say DirectConsumer(manager, 'orders')."
            )
        self.queue_name = queue_name
        self.exchange_name = exchange_name
        self._manager = connection_manager
        self._bindings = tuple(bindings)
        self._options = checked = _Options(**options)
        self._order = _checked_order(checked, queue_name)
        self._recent = RecentIds(checked.deduplicate) if checked.deduplicate else None
        self._path: FailurePath = checked.retry or Requeue(dead_letter=False)
        self._offset: Offset | None = None
        self._queue: Queue | None = None
        self._limit: int | None = None
        self._declared: tuple[Entity, ...] = ()
        self._counter = StatsCounter()
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None
        self._workers: WorkerPool[Task] | InlineWorker[Task] | None = None
        self._stopping = False
        self._restoring = False
        self._error: DmqError | None = None
        self._over = threading.Event()

    def declare_queue(
        self,
        durable: bool = True,
        queue_type: str | None = None,
        arguments: Arguments | None = None,
        delivery_limit: int = DELIVERY_LIMIT,
        dead_letter: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
    ) -> None:
        """Declares the queue, and again after each reconnect and whenever it was deleted.

        `queue_type` is `quorum` (None, for queues that are to last), `classic` or `stream`. A message that failed
        `delivery_limit` times and once more goes to the queue `<name>.dead` if `dead_letter`. Where nothing is asked
        for, a queue of that name is taken as it is; else `MessagingError` says in what it differs. `InvalidInputError`
        for what cannot take failed messages back in order, or what this version of RabbitMQ would refuse;
        `NotReachableError` if no broker answers within ten seconds.

        A stream keeps what was read; `arguments` bound it: `x-max-length-bytes`, `x-max-age` (such as `7D`) and
        `x-stream-max-segment-size-bytes`, the step in which it forgets. What failed is tried again in its place, before
        anything later in its order, and a copy of it is published to `<name>.dead`.

        >>> consumer = DirectConsumer(manager, "orders")
        >>> consumer.declare_queue(delivery_limit=3, arguments={"x-message-ttl": 60_000})
        >>> DirectConsumer(manager, "clicks").declare_queue(queue_type="stream", arguments={"x-max-age": "7D"})
        """
        kind = queue_type or (QUORUM if durable and not exclusive and not auto_delete else "classic")
        if kind == "classic" and self._order is not Order.NONE:
            raise InvalidInputError(f"a {kind} queue cannot take failed messages back in order", "Take a quorum queue.")
        if kind != "classic" and exclusive:
            raise InvalidInputError(f"a {kind} queue cannot be exclusive", "Leave that out, or take a classic queue.")
        asked = (durable, queue_type, arguments, delivery_limit, dead_letter, exclusive, auto_delete)
        takes_any = asked == (True, None, None, DELIVERY_LIMIT, True, False, False) and self._order is Order.NONE
        if self._options.retry is None:
            self._path = Requeue(delivery_limit, dead_letter)
        own = dict(arguments or {})
        if self._order is not Order.NONE and kind != STREAM:
            own = {"x-single-active-consumer": True, **own}
        queue = Queue(self._named(), kind, durable, exclusive, auto_delete, own)
        self._declare(queue, takes_any)

    def start_consuming(self, handler: Handler, offset: Offset | None = None) -> Self:
        """Gives each message to `handler(message, headers)` from now on, in the background; returns itself.

        The handler returns True when it is done with a message. False, anything else and an exception mean that it
        failed. `headers.delivery` tells its routing key, properties, attempts and so on. A typed error says what cannot
        be declared. `MessagingError` the second time.

        A stream is read from `offset`: "first", "last" (the last chunk, which may be several messages), "next" (what
        comes from now on; the default), an offset, a datetime with its time zone, or an age such as "1h" (of Y, M, D,
        h, m, s); an `offset` says that the queue is a stream. Wherever its connection goes it reads on from the lowest
        offset that is not done, and what it had before is `redelivered`. While nothing came yet, "next", "last" and an
        age are held to the second in which reading began, by this machine's clock. Nothing is kept beyond this
        consumer: keep `headers.delivery.offset` of what is done yourself, and begin at the next one.

        >>> from threading import Event
        >>> done = Event()
        >>> def handle(message, headers):
        ...     print(message["title"], headers.delivery.routing_key)
        ...     done.set()
        ...     return True
        >>> manager.declare(Queue("orders", "quorum"))
        >>> with DirectConsumer(manager, "orders").start_consuming(handle), DirectProducer(manager) as producer:
        ...     _ = producer.publish("orders", {"title": "a book"})
        ...     done.wait(timeout=10)
        a book orders
        True
        """
        if self._workers is not None:
            raise MessagingError("this consumer has been started before", "Make another one.")
        _check_handler(handler)
        self._offset = self._checked_offset(offset)
        self._declare_the_rest()
        options = HandlerOptions(
            decode=self._options.decode,
            auto_ack=self._options.auto_ack,
            dead_letters=self._queue is not None and "x-dead-letter-exchange" in self._queue.arguments,
            limit=self._limit,
            recent=self._recent,
            on_error=self._options.on_error,
        )
        runner = HandlerRunner(
            handler, self._path, options, self._counter, self._handler_ended, lambda: not self._stopping
        )
        source = self._source()
        name = source if isinstance(source, str) else source.prefix
        self._path.bind(self._manager, name)
        self._workers = self._workers_for(visible(name), runner)
        self._connection = self._manager.consuming(self._options.cluster)
        with self._lock:
            self._subscription = Subscription(
                self._connection,
                source,
                self._take,
                SubscriptionOptions(
                    prefetch=self._options.prefetch,
                    declare=self._own_entities(),
                    offset=self._offset,
                    keeps_place=self._order is not Order.NONE,
                ),
                on_change=self._changed,
                on_end=self._ended,
                busy=self._is_busy,
            )
        return self

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until it is stopped, and raises why if it failed; False if `timeout_s` seconds pass before.

        Without `timeout_s` that may be for ever.

        >>> consumer = DirectConsumer(manager, "orders")
        >>> consumer.declare_queue()
        >>> with consumer.start_consuming(lambda message, headers: True):
        ...     consumer.wait(timeout_s=0)
        False
        >>> consumer.wait()
        True
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._over.wait(SLICE_S if deadline is None else max(0.0, min(SLICE_S, deadline - time.monotonic()))):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        if self._error is not None:
            raise self._error
        return True

    def stop_consuming(self, timeout_s: float = 5.0) -> None:
        """Begins nothing more, lets running handlers finish in `timeout_s` seconds, sends the answers, and ends.

        What was not handled goes back to the queue in its order. Final; may be called twice, and by the handler, whose
        own message is still answered.
        """
        with self._lock:
            first, self._stopping = not self._stopping, True
        workers = self._workers
        if first:
            self._begin_no_more()
        if workers is not None and workers.is_own_thread:
            # The message in hand is answered once its handler returns; only then may the consumer go.
            if first:
                name = f"stop {visible(self.queue_name or self.exchange_name)}"
                threading.Thread(target=self._stop, args=(timeout_s,), name=name, daemon=True).start()
        elif first:
            self._stop(timeout_s)
        else:
            self._over.wait(timeout_s)

    def close(self) -> None:
        """Stops within five seconds."""
        self.stop_consuming()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def status(self) -> ConsumerStatus:
        """Whether it receives, without waiting."""
        if self._subscription is None:
            return ConsumerStatus(False, self.queue_name or "", None, "not started")
        return self._subscription.status

    @property
    def stats(self) -> ConsumerStats:
        """What became of the messages so far."""
        return self._counter.stats()

    def _workers_for(self, name: str, runner: HandlerRunner) -> WorkerPool[Task] | InlineWorker[Task]:
        if self._options.concurrency == 1 and self._order is Order.NONE:
            return InlineWorker(_is_gone, runner.handle)
        return WorkerPool(
            name, self._options.concurrency, KeyedQueues(_comes_again, _is_gone), runner.handle, self._missed
        )

    # Declaring.

    def _named(self) -> str:
        if not self.queue_name:
            raise InvalidInputError("a private queue is declared by itself", "Give the consumer a queue_name.")
        return self.queue_name

    def _checked_offset(self, offset: Offset | None) -> Offset | None:
        kind = None if self._queue is None else self._queue.type
        if offset is None:
            return "next" if kind == STREAM else None
        if not self.queue_name or kind not in (None, STREAM):
            which = f"{visible(self.queue_name)!r} is a {kind} queue" if self.queue_name else "a private queue is none"
            raise InvalidInputError(f"an offset is for a stream, and {which}", "Leave it out, or declare a stream.")
        return checked_offset(offset)

    def _declare(self, queue: Queue, takes_any: bool) -> None:
        version = self._manager.broker_version(self._options.cluster)
        if queue.type == STREAM:
            self._take_stream()
        plan = self._path.prepare(queue, version)
        queue = replace(queue, arguments={**plan.arguments, **queue.arguments})
        if self._order is not Order.NONE and queue.type == QUORUM and (limit_of(queue.arguments, version) or 0) <= 0:
            raise InvalidInputError(
                f"without a delivery limit {visible(queue.name)!r} does not keep its order", "Set one."
            )
        if queue.exclusive:
            self._manager.declare(*plan.entities, cluster=self._options.cluster)
        else:
            queue, plan = self._declared_or_taken(queue, plan, takes_any, version)
        self._queue = queue
        self._limit = limit_of(queue.arguments, version) if queue.type == "quorum" else None
        self._declared = (*plan.entities, *(() if queue.exclusive else (queue,)))

    def _declared_or_taken(
        self, queue: Queue, plan: FailurePlan, takes_any: bool, version: Version
    ) -> tuple[Queue, FailurePlan]:
        try:
            self._manager.declare(*plan.entities, queue, cluster=self._options.cluster)
        except MessagingError as error:
            if not takes_any or "inequivalent" not in error.what:
                raise
            # What it does with failed messages is its own affair, and not known here.
            taken = Queue(queue.name, queue.type, arguments=queue.arguments, adopt=True)
            _LOG.info("the queue is taken as it is: %s", visible(error.what))
            if self._options.retry is None:
                self._path = Requeue(dead_letter=False)
            # Without the arguments that were planned, the path may need something else beside the queue.
            plan = self._path.prepare(taken, version)
            self._manager.declare(*plan.entities, taken, cluster=self._options.cluster)
            return Queue(queue.name), plan
        return queue, plan

    def _take_stream(self) -> None:
        if isinstance(self._path, Requeue):
            self._path = self._path.in_stream(self._options.cluster)

    def _declare_the_rest(self) -> None:
        if self.queue_name and self._queue is None:
            kind = None if self._offset is None else STREAM
            if self.exchange_name or (self._order is not Order.NONE and kind is None):
                self.declare_queue(queue_type=kind)
            elif self._options.retry is not None:
                if kind == STREAM:
                    self._take_stream()
                plan = self._path.prepare(
                    Queue(self.queue_name, kind), self._manager.broker_version(self._options.cluster)
                )
                self._manager.declare(*plan.entities, cluster=self._options.cluster)
                self._declared = plan.entities
        rest: list[Entity] = []
        if self.exchange_name and not self.exchange_name.startswith("amq."):
            rest.append(Exchange(self.exchange_name, self.exchange_type, adopt=True))
        if self._queue is not None and not self._queue.exclusive:
            rest += self._queue_bindings()
        if rest:
            self._manager.declare(*rest, cluster=self._options.cluster)
            self._declared += tuple(rest)

    def _queue_bindings(self) -> list[Binding]:
        return [Binding(b.source, self._named(), b.routing_key, b.arguments) for b in self._bindings]

    def _own_entities(self) -> tuple[Entity, ...]:
        # An exclusive queue belongs to the connection that declares it.
        if self._queue is None or not self._queue.exclusive:
            return ()
        return (self._queue, *self._queue_bindings())

    def _source(self) -> str | PrivateQueue:
        return self.queue_name or PrivateQueue(f"{self.exchange_name}.private", self._bindings, None)

    def _restore(self) -> None:
        try:
            self._manager.declare(*self._declared, cluster=self._options.cluster)
        except DmqError as error:
            _LOG.warning("not declared again: %s", visible(error.what))
        finally:
            self._restoring = False

    # Receiving.

    def _take(self, deliveries: tuple[Delivery, ...]) -> None:
        workers = self._workers
        if workers is None:
            return
        self._counter.add("delivered", len(deliveries))
        redelivered = sum([delivery.redelivered for delivery in deliveries])
        if redelivered:
            self._counter.add("redelivered", redelivered)
        workers.add([self._with_key(Task(delivery)) for delivery in deliveries])

    def _with_key(self, task: Task) -> tuple[Task, Hashable]:
        if self._order is Order.NONE:
            return task, NO_KEY
        if self._order is Order.STRICT:
            return task, None
        try:
            key = self._key_of(task)
            hash(key)
        except DecodingError:
            return task, NO_KEY
        except Exception as error:  # the user's code may raise anything about a message
            task.problem = f"it has no key: {type(error).__name__}: {visible(str(error))}"
            return task, NO_KEY
        return task, key

    def _key_of(self, task: Task) -> Hashable:
        if self._options.key is None:
            return task.delivery.routing_key
        if isinstance(self._options.key, str):
            value = headers_of(task.delivery).get(self._options.key)
            return value if isinstance(value, Hashable) else repr(value)
        return self._options.key(task.message(self._options.decode), headers_of(task.delivery))

    def _is_busy(self) -> bool:
        return self._workers is not None and self._workers.is_busy

    def _missed(self, task: Task) -> None:
        _LOG.warning(
            "a message of %r that failed was not delivered again; those behind it go on",
            visible(task.delivery.queue),
        )

    def _changed(self, status: ConsumerStatus) -> None:
        if status.consuming or self._stopping or not status.problem:
            return
        _LOG.warning("nothing is consumed from %r: %s", visible(status.queue), status.problem)
        is_deleted = status.problem == CANCELLED or status.code == NOT_FOUND
        if is_deleted and self._declared and not self._restoring:
            # Elsewhere, because declaring waits for the broker and this is the I/O thread.
            self._restoring = True
            threading.Thread(target=self._restore, name=f"restore {visible(status.queue)}", daemon=True).start()

    # The end.

    def _ended(self, error: DmqError) -> None:
        if not self._stopping:
            self._fail(error)

    def _handler_ended(self, error: BaseException) -> None:
        _LOG.error("the handler of %r ended the consumer: %s", visible(self.queue_name or ""), visible(repr(error)))
        failure = MessagingError(f"the handler ended the consumer: {visible(repr(error))}")
        failure.__cause__ = error
        self._error = self._error or failure
        self.stop_consuming()

    def _fail(self, error: DmqError) -> None:
        self._error = self._error or error
        if self._workers is not None:
            self._workers.stop()
        self._over.set()

    def _begin_no_more(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
        if self._workers is not None:
            self._workers.stop()

    def _stop(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        subscription, workers = self._subscription, self._workers
        if subscription is not None and workers is not None:
            workers.wait(timeout_s)
            self._path.close(max(0.0, deadline - time.monotonic()))
            self._counter.add("requeued", subscription.leave(max(SLICE_S, deadline - time.monotonic())))
            self._manager.release(self._connection)
        self._over.set()


def _checked_order(options: _Options, queue_name: str | None) -> Order:
    order, concurrency = options.order, options.concurrency
    if order not in list(Order):
        raise InvalidInputError(f"there is no order {visible(order)!r}", "Say none, strict or key.")
    checked = Order(order)
    if concurrency < 1 or (checked is Order.STRICT and concurrency > 1):
        raise InvalidInputError(f"{checked} order with a concurrency of {concurrency} makes no sense", "Leave it at 1.")
    if options.key is not None and checked is not Order.KEY:
        raise InvalidInputError("a key is for order='key' only", "Take it out, or ask for that order.")
    if checked is Order.NONE:
        return checked
    if not queue_name:
        raise InvalidInputError(
            "a private queue does not outlive its connection, nor does its order", "Give a queue_name."
        )
    if options.retry is not None and not options.retry.keeps_order:
        raise InvalidInputError("this way of trying again lets later messages pass", "Take another, or order='none'.")
    return checked


def _check_handler(handler: Handler) -> None:
    """Refuses what would fail with every message, before it has cost one."""
    if not callable(handler):
        raise InvalidInputError(
            f"the handler is a {type(handler).__name__}", "Give a function handler(message, headers)."
        )
    if inspect.iscoroutinefunction(handler):
        raise InvalidInputError(
            "the handler is a coroutine function, and handlers run on threads",
            "Give a plain function; asyncio.run_coroutine_threadsafe(...).result() reaches a loop from it.",
        )
    try:
        signature = inspect.signature(handler)
    except ValueError:  # some builtins do not tell
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise InvalidInputError(
            f"the handler cannot be called with a message and its headers: {visible(str(error))}",
            "Give a function handler(message, headers).",
        ) from None


def _comes_again(new: Task, old: Task) -> bool:
    one, other = new.delivery, old.delivery
    return (
        one.redelivered
        and returns_counted(one) > returns_counted(other)
        and one.routing_key == other.routing_key
        and one.properties.message_id == other.properties.message_id
        and one.body == other.body
    )


def _is_gone(task: Task) -> bool:
    return not task.delivery.is_current
