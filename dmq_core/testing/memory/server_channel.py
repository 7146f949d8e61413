"""The broker's end of a channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from dmq_core.messaging.amqp.frames import Content, safe_properties
from dmq_core.messaging.delivery.stream_offset import OFFSET
from dmq_core.messaging.topology.model import Arguments, Binding, Entity, Exchange, Queue, QueueDepth
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.testing.memory.message import Message, deaths_told
from dmq_core.testing.memory.queue import MemoryConsumer, MemoryQueue, Stored, Verdicts
from dmq_core.testing.memory.refusal import Refusal, refuse
from dmq_core.testing.memory.stream import MemoryStream

if TYPE_CHECKING:
    from dmq_core.testing.memory.server_connection import ServerConnection
    from dmq_core.testing.memory.transport import MemoryChannel
    from dmq_core.testing.memory.wire import Published

NO_ROUTE = 312


class ServerChannel:
    """Does what comes over one channel. Everything happens in the broker's turn."""

    def __init__(self, connection: ServerConnection, channel: MemoryChannel) -> None:
        self.confirming = False
        self.prefetch_count = 0
        self._connection = connection
        self._broker = connection.broker
        self._host = connection.host
        self._channel = channel
        self._closed = False
        self._published = 0
        self._delivered = 0
        self._held: dict[int, tuple[MemoryConsumer, Stored]] = {}
        self._stale: set[int] = set()
        self._subscriptions: dict[str, tuple[MemoryConsumer, Callable[[], None]]] = {}

    @property
    def subscriptions(self) -> list[MemoryConsumer]:
        """Its consumers."""
        return [subscription for subscription, _ in self._subscriptions.values()]

    def do(self, action: Callable[[ServerChannel], None]) -> None:
        """Does something that was asked for, or closes the channel over it."""
        if self._closed:
            return
        try:
            action(self)
        except Refusal as refusal:
            if refusal.ends_connection:
                self._connection.close(refusal)
            else:
                self.close()
                reason = CloseReason(RecoveryAction.RECOVER, refusal.text, refusal.code, denied=refusal.code == 403)
                self._connection.reply(lambda: self._channel.closed(reason))

    # Publishing.

    def publish(self, published: Published) -> None:
        """Routes a message and answers for it; an alarm keeps it and all that comes after it from being read."""
        if self._connection.holds_back(lambda: self.do(lambda channel: channel.publish(published))):
            return
        exchange = self._host.exchange(published.exchange)
        if exchange.internal:
            refuse(403, f"cannot publish to internal exchange '{exchange.name}' in vhost '{self._host.name}'")
        self._check(published)
        self._published += 1
        number = self._published
        message = Message.published(published.exchange, published.routing_key, published.raw_properties, published.body)
        if self._broker.rules.trusts_client_deaths:
            message = replace(message, deaths=deaths_told(message.headers))
        targets = self._host.targets(message.exchange, message.routing_key, message.headers)
        if not targets and published.mandatory:
            returned = Content(
                exchange=message.exchange,
                routing_key=message.routing_key,
                raw_properties=message.raw_properties,
                body=message.body,
                code=NO_ROUTE,
                text="NO_ROUTE",
            )
            self._reply(lambda: self._channel.returned(returned))
        verdicts = Verdicts(len(targets), lambda taken: self._confirm(number, taken))
        for queue in targets:
            queue.publish(message, verdicts)
        if not targets:
            self._confirm(number, True)

    def _check(self, published: Published) -> None:
        size, largest = len(published.body), self._broker.rules.largest_body
        if size > largest:
            refuse(406, f"message size {size} is larger than configured max size {largest}")
        user = safe_properties(published.raw_properties).user_id
        if user is not None and user != self._connection.user:
            refuse(406, f"user_id property set to '{user}' but authenticated user was '{self._connection.user}'")

    def _confirm(self, number: int, taken: bool) -> None:
        if not self.confirming or self._closed:
            return
        if self._broker.loses_confirms:
            self._broker.lost_confirms += 1
        else:
            self._reply(lambda: self._channel.confirmed(number, taken))

    # Consuming.

    def consume(
        self,
        name: str,
        tag: str,
        exclusive: bool,
        arguments: Arguments,
        done: Callable[[], None],
        cancelled: Callable[[], None],
    ) -> None:
        """Begins to deliver from a queue."""
        queue = self._broker.reached(self._connection, name)
        place = self._place(queue, arguments)
        claimed = any(other.exclusive for other in queue.subscriptions) or (exclusive and queue.subscriptions)
        # A queue of several nodes pays no heed to it.
        if claimed and not queue.is_replicated:
            refuse(403, f"queue '{name}' in vhost '{self._host.name}' in exclusive use")
        self._reply(done)
        subscription = MemoryConsumer(self, tag, queue, self.prefetch_count, exclusive, place)
        self._subscriptions[tag] = (subscription, cancelled)
        queue.subscribe(subscription)

    def _place(self, queue: MemoryQueue, arguments: Arguments) -> int:
        where = f"queue '{queue.name}' in vhost '{self._host.name}'"
        if isinstance(queue, MemoryStream):
            if not self.prefetch_count:
                refuse(406, f"consumer prefetch count is not set for stream {where}")
            return queue.place(arguments.get(OFFSET))
        if OFFSET in arguments:
            refuse(406, f"invalid arg '{OFFSET}' for {where} of queue type rabbit_{queue.spec.type}_queue")
        return 0

    def cancel(self, tag: str, done: Callable[[], None]) -> None:
        """Delivers no more to a consumer; what it holds stays its own."""
        subscription, _ = self._subscriptions.pop(tag, (None, None))
        self._reply(done)
        if subscription is not None:
            subscription.queue.unsubscribe(subscription)

    def deliver(self, subscription: MemoryConsumer, stored: Stored, redelivered: bool) -> None:
        """Sends a message to a consumer."""
        self._delivered += 1
        self._held[self._delivered] = (subscription, stored)
        message = stored.message
        content = Content(
            message.exchange,
            message.routing_key,
            self._broker.told_properties(subscription.queue, message),
            message.body,
            tag=self._delivered,
            redelivered=redelivered,
        )
        self._reply(lambda: self._channel.delivered(content))

    def cancelled(self, subscription: MemoryConsumer) -> None:
        """Tells that the broker ended the consumer; what it held is no longer its own."""
        found = self._subscriptions.pop(subscription.tag, None)
        if found is not None:
            self._reply(found[1])
        self._take_back(subscription)

    def acknowledge(self, tag: int, multiple: bool) -> None:
        """Deliveries are done."""
        for subscription, _ in self._taken(tag, multiple):
            subscription.queue.acknowledge(subscription)

    def reject(self, tag: int, requeue: bool) -> None:
        """A delivery failed."""
        self._check_returnable(tag)
        for subscription, stored in self._taken(tag, multiple=False):
            if requeue:
                subscription.queue.requeue(subscription, [stored], failed=True, told=True)
            else:
                subscription.queue.refuse(subscription, stored)

    def requeue(self, tag: int) -> None:
        """A delivery was not tried."""
        self._check_returnable(tag)
        for subscription, stored in self._taken(tag, multiple=False):
            subscription.queue.requeue(subscription, [stored], failed=False, told=True)

    def _check_returnable(self, tag: int) -> None:
        held = self._held.get(tag)
        if held is not None and held[0].queue.is_stream and not self._broker.rules.streams_take_rejections:
            where = f"queue '{held[0].queue.name}' in vhost '{self._host.name}'"
            refuse(540, f"basic.nack and basic.reject not supported by stream queues {where}")

    def _taken(self, tag: int, multiple: bool) -> list[tuple[MemoryConsumer, Stored]]:
        if multiple:
            tags = [held for held in self._held if held <= tag or tag == 0]
        elif tag in self._stale:
            tags = []
        elif tag in self._held:
            tags = [tag]
        else:
            refuse(406, f"unknown delivery tag {tag}")
        return [self._held.pop(tag) for tag in tags]

    # Declaring.

    def declare(self, entity: Entity, done: Callable[[QueueDepth | None], None]) -> None:
        """Declares or binds, as soon as the cluster has a majority."""
        self._broker.when_quorate(lambda: self.do(lambda _: self._declare(entity, done)))

    def _declare(self, entity: Entity, done: Callable[[QueueDepth | None], None]) -> None:
        depth: QueueDepth | None = None
        match entity:
            case Exchange():
                self._host.declare_exchange(entity)
            case Queue():
                depth = _depth(self._broker.declare_queue(self._connection, entity))
            case Binding():
                if not entity.to_exchange and entity.destination in self._host.queues:
                    self._broker.reached(self._connection, entity.destination)
                self._host.bind(entity)
        self._reply(lambda: done(depth))

    def depth(self, name: str, done: Callable[[QueueDepth], None]) -> None:
        """Tells how deep a queue is."""
        queue = self._broker.reached(self._connection, name)
        # One whose leader is silent answers all the same, with nothing.
        depth = _depth(queue) if self._broker.is_available(queue) else QueueDepth(name, 0, 0)
        self._reply(lambda: done(depth))

    def delete_queue(self, name: str, only_empty: bool, done: Callable[[], None]) -> None:
        """Deletes a queue, as soon as the cluster has a majority."""
        self._broker.when_quorate(lambda: self.do(lambda _: self._delete_queue(name, only_empty, done)))

    def _delete_queue(self, name: str, only_empty: bool, done: Callable[[], None]) -> None:
        if name in self._host.queues:
            queue = self._broker.reached(self._connection, name)
            where = f"queue '{name}' in vhost '{self._host.name}'"
            if only_empty and queue.is_quorum:
                words = "queue.delete operations with if-empty flag set are not supported by quorum queues"
                refuse(540, f"cannot delete {where}. {words}")
            if only_empty and queue.ready:
                refuse(406, f"{where} not empty")
            self._host.drop(queue)
        self._reply(done)

    def delete_exchange(self, name: str, done: Callable[[], None]) -> None:
        """Deletes an exchange, as soon as the cluster has a majority."""
        self._broker.when_quorate(lambda: self.do(lambda _: self._delete_exchange(name, done)))

    def _delete_exchange(self, name: str, done: Callable[[], None]) -> None:
        self._host.drop_exchange(name)
        self._reply(done)

    def answer(self, done: Callable[[], None]) -> None:
        """Replies, and that is all."""
        self._reply(done)

    def _reply(self, callback: Callable[[], None]) -> None:
        self._connection.reply(lambda: self._channel.heard(callback))

    # Ending.

    def close(self) -> None:
        """Ends the consumers, and returns what they hold."""
        if not self._closed:
            self._closed = True
            self.release(lambda _queue: True)

    def detach(self) -> None:
        """The rest of the cluster has lost sight of this node: what its consumers hold goes back, if held elsewhere."""
        for subscription, _ in tuple(self._subscriptions.values()):
            if self._broker.is_elsewhere(self._connection, subscription.queue):
                self.cancelled(subscription)
        self.release(lambda queue: self._broker.is_elsewhere(self._connection, queue))

    def suspend(self) -> None:
        """The node is gone: quorum queues hold what its consumers have for a moment, others return it at once."""
        self._closed = True
        held_s = self._broker.rules.held_s
        for subscription in self._consumers():
            subscription.suspended = True
        self.release(lambda queue: not queue.is_quorum)
        if held_s:
            self._broker.clock.later(held_s, lambda: self.release(lambda _queue: True))
        else:
            self.release(lambda _queue: True)

    def release(self, fits: Callable[[MemoryQueue], bool]) -> None:
        """Takes consumers and deliveries of the queues that fit away from this channel."""
        leaving = [s for s in self._consumers() if fits(s.queue)]
        for subscription in leaving:
            self._subscriptions.pop(subscription.tag, None)
            subscription.suspended = True
        for subscription in leaving:
            self._take_back(subscription)
        for subscription in leaving:
            subscription.queue.unsubscribe(subscription)

    def _take_back(self, subscription: MemoryConsumer) -> None:
        tags = [tag for tag, (of, _) in self._held.items() if of is subscription]
        self._stale |= set(tags)
        stored = [self._held.pop(tag)[1] for tag in tags]
        if not subscription.queue.gone:
            subscription.queue.requeue(subscription, stored, failed=True, told=False)

    def _consumers(self) -> list[MemoryConsumer]:
        """Every consumer of this channel, those that were cancelled and still hold something among them."""
        known = [subscription for subscription, _ in self._subscriptions.values()]
        return list(dict.fromkeys([*known, *(subscription for subscription, _ in self._held.values())]))


def _depth(queue: MemoryQueue) -> QueueDepth:
    # A stream counts no consumers.
    return QueueDepth(queue.name, queue.ready, 0 if queue.is_stream else len(queue.subscriptions))
