"""The client's end of a connection to the in-memory broker: a `Network`, a `Link` and a `Channel`."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from dmq_core.messaging.amqp.frames import Content, FrameSink
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.messaging.transport.protocol import STACK_TIMEOUT_S, LinkListener, Loop, LoopOwner
from dmq_core.testing.memory.clock import MemoryLoop
from dmq_core.testing.memory.wire import Published, read_publish

if TYPE_CHECKING:
    from dmq_core.endpoints import Credentials, NodeEndpoint
    from dmq_core.messaging.topology.model import Arguments, Entity, QueueDepth
    from dmq_core.messaging.transport.protocol import Channel, Outgoing
    from dmq_core.testing.memory.broker import MemoryBroker
    from dmq_core.testing.memory.server_channel import ServerChannel
    from dmq_core.testing.memory.server_connection import ServerConnection

FRAME_LIMIT: Final = 131_072 - 8
OURS: Final = CloseReason(RecoveryAction.RECOVER, "closed by us")


class MemoryNetwork:
    """What connections to an in-memory broker stand on."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def now(self) -> float:
        """Monotonic seconds of virtual time."""
        return self._broker.clock.now

    def wall(self) -> float:
        """Epoch seconds of virtual time."""
        return self._broker.clock.wall

    def loop(self, owner: LoopOwner) -> Loop:
        """A loop for one thread."""
        return self._broker.clock.loop(owner)

    def link(
        self, loop: Loop, endpoint: NodeEndpoint, credentials: Credentials, name: str, listener: LinkListener
    ) -> MemoryLink:
        """Begins to connect to a node."""
        if not isinstance(loop, MemoryLoop):
            raise TypeError("the loop is another network's")
        return MemoryLink(self._broker, loop, endpoint, credentials, name, listener)


class MemoryLink:
    """One connection to one node, from the first attempt to its end."""

    def __init__(
        self,
        broker: MemoryBroker,
        loop: MemoryLoop,
        endpoint: NodeEndpoint,
        credentials: Credentials,
        name: str,
        listener: LinkListener,
    ) -> None:
        self.endpoint = endpoint
        self.credentials = credentials
        self.name = name
        self.listener = listener
        self.loop = loop
        self.heard_at = 0.0
        self._broker = broker
        self._server: ServerConnection | None = None
        self._over = False
        self._arrived: deque[Callable[[], None]] = deque()
        self._touched: dict[FrameSink, None] = {}
        self._channels: list[MemoryChannel] = []
        self._numbers = itertools.count(1)
        self._cancel_guard = loop.call_later(STACK_TIMEOUT_S, lambda: self.abandon("it did not answer in time"))
        loop.call_soon(lambda: broker.admit(self))

    @property
    def broker_version(self) -> str:
        """The version that the broker plays."""
        return "" if self._server is None else str(self._broker.rules.version)

    def channel(self, on_open: Callable[[Channel], None], on_closed: Callable[[CloseReason], None]) -> None:
        """Opens a channel; `on_closed` comes once, also when the link is lost."""
        if self._server is not None and not self._over:
            channel = MemoryChannel(self, self._server, next(self._numbers), on_open, on_closed)
            self._channels.append(channel)

    def close(self) -> None:
        """Closes it; without a word where nobody would answer, since no time passes while somebody waits for it."""
        if self._over:
            return
        if self._server is None or not self._server.reads:
            self.abandon(OURS.text)
            return
        server = self._server
        server.reply(lambda: self.ended(OURS))
        server.hung_up()

    def abandon(self, why: str) -> None:
        """Ends it now without a word to the broker."""
        if self._over:
            return
        if self._server is not None:
            # A frozen node reads what was sent to it before it notices that the client is gone.
            (self._server.receive if self._server.node.frozen else _at_once)(self._server.hung_up)
        self.ended(CloseReason(RecoveryAction.RECOVER, why))

    def forget(self, channel: MemoryChannel) -> None:
        """A channel is closed."""
        if channel in self._channels:
            self._channels.remove(channel)

    # What the broker's end calls.

    def let_in(self, server: ServerConnection) -> None:
        """The node let the client in."""
        self._server = server
        server.reply(self._opened)

    def arrived(self, callback: Callable[[], None]) -> None:
        """Something came over the wire for the client's loop."""
        self._arrived.append(callback)
        if len(self._arrived) == 1:
            self.loop.call_soon(self._read)

    def ended(self, reason: CloseReason) -> None:
        """It never opened, or is over."""
        if self._over:
            return
        self._over = True
        self._cancel_guard()
        for channel in tuple(self._channels):
            channel.closed(reason)
        self.listener.lost(reason)

    def touch(self, sink: FrameSink) -> None:
        """`sink` heard something and wants to know when that was all."""
        self._touched[sink] = None

    def _opened(self) -> None:
        self._cancel_guard()
        self.listener.opened()

    def _read(self) -> None:
        self.heard_at = self._broker.clock.now
        while self._arrived and not self._over:
            self.loop.guarded(self._arrived.popleft())
        self._arrived.clear()
        touched, self._touched = tuple(self._touched), {}
        for sink in touched:
            sink.read_ended()


class MemoryChannel:
    """One channel of a link."""

    def __init__(
        self,
        link: MemoryLink,
        server: ServerConnection,
        number: int,
        on_open: Callable[[Channel], None],
        on_closed: Callable[[CloseReason], None],
    ) -> None:
        self.number = number
        self.frame_limit = FRAME_LIMIT
        self.unsent = 0
        self.is_open = False
        self._link = link
        self._server = server
        self._on_closed = on_closed
        self._sink: FrameSink | None = None
        self._over = False
        self._tags = itertools.count(1)
        self._served: ServerChannel | None = None
        server.receive(lambda: self._begin(on_open))

    def _begin(self, on_open: Callable[[Channel], None]) -> None:
        self._served = self._server.open_channel(self)
        self._server.reply(lambda: self._opened(on_open))

    def _opened(self, on_open: Callable[[Channel], None]) -> None:
        if not self._over:
            self.is_open = True
            on_open(self)

    # The `Channel` that producers and consumers know.

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` after `seconds` of virtual time."""
        self._link.loop.call_later(seconds, callback)

    def listen(self, sink: FrameSink) -> None:
        """Gives deliveries, returns and confirms of this channel to `sink`."""
        self._sink = sink

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """There is no wire to save writes on."""
        return contextlib.nullcontext()

    def select_confirms(self, done: Callable[[], None]) -> None:
        """Switches publisher confirms on."""

        def select(channel: ServerChannel) -> None:
            channel.confirming = True
            channel.answer(done)

        self._send(select)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Sends messages whose frames were made for this channel."""
        for message in messages:
            published = read_publish(message.frames)
            if published.channel != self.number:
                raise ValueError(f"frames for channel {published.channel} were sent on channel {self.number}")
            self._send(partial(_publish, published=published))

    def prefetch(self, count: int, done: Callable[[], None]) -> None:
        """Sets how many unacknowledged deliveries the next consumer may hold."""

        def set_it(channel: ServerChannel) -> None:
            channel.prefetch_count = count
            channel.answer(done)

        self._send(set_it)

    def consume(
        self, queue: str, exclusive: bool, arguments: Arguments, done: Callable[[], None], cancelled: Callable[[], None]
    ) -> str:
        """Begins to consume; gives the consumer tag. Of `arguments` only the offset in a stream is heeded."""
        tag = f"ctag{self.number}.{next(self._tags)}"
        self._send(lambda channel: channel.consume(queue, tag, exclusive, arguments, done, cancelled))
        return tag

    def cancel(self, consumer_tag: str, done: Callable[[], None]) -> None:
        """Asks the broker to send no more."""
        self._send(lambda channel: channel.cancel(consumer_tag, done))

    def ack(self, tag: int, multiple: bool) -> None:
        """Acknowledges one delivery, or all up to it."""
        self._send(lambda channel: channel.acknowledge(tag, multiple))

    def reject(self, tag: int, requeue: bool) -> None:
        """Tells that a delivery failed."""
        self._send(lambda channel: channel.reject(tag, requeue))

    def requeue(self, tag: int) -> None:
        """Returns a delivery that was not tried."""
        self._send(lambda channel: channel.requeue(tag))

    def ping(self) -> None:
        """Asks for a reply that changes nothing."""
        self._send(lambda channel: channel.answer(lambda: None))

    def declare(self, entity: Entity, done: Callable[[QueueDepth | None], None]) -> None:
        """Declares or binds; the depth comes for a queue."""
        self._send(lambda channel: channel.declare(entity, done))

    def depth(self, queue: str, done: Callable[[QueueDepth], None]) -> None:
        """How deep a queue is; the channel closes with 404 if there is none."""
        self._send(lambda channel: channel.depth(queue, done))

    def delete_queue(self, queue: str, only_empty: bool, done: Callable[[], None]) -> None:
        """Deletes a queue."""
        self._send(lambda channel: channel.delete_queue(queue, only_empty, done))

    def delete_exchange(self, exchange: str, done: Callable[[], None]) -> None:
        """Deletes an exchange and its bindings."""
        self._send(lambda channel: channel.delete_exchange(exchange, done))

    def close(self) -> None:
        """Closes it; a second call does nothing."""
        if self._over:
            return
        self.is_open = False
        self._server.receive(self._end)

    def _end(self) -> None:
        if self._served is not None:
            self._served.close()
        self._server.reply(lambda: self.closed(OURS))

    def _send(self, action: Callable[[ServerChannel], None]) -> None:
        if self.is_open:
            self._server.receive(lambda: self._do(action))

    def _do(self, action: Callable[[ServerChannel], None]) -> None:
        if self._served is not None:
            self._served.do(action)

    # What the broker's end has the loop call.

    def closed(self, reason: CloseReason) -> None:
        """The channel is over."""
        if self._over:
            return
        self._over = True
        self.is_open = False
        self._link.forget(self)
        self._on_closed(reason)

    def heard(self, callback: Callable[[], None]) -> None:
        """Something came for this channel, which nobody wants to hear once it is being closed."""
        if self.is_open:
            callback()

    def confirmed(self, number: int, taken: bool) -> None:
        """The broker answered for a message."""
        if self._sink is not None:
            (self._sink.acked if taken else self._sink.nacked)(number, False)
            self._link.touch(self._sink)

    def returned(self, content: Content) -> None:
        """No queue wanted a mandatory message."""
        if self._sink is not None:
            self._sink.returned(content)
            self._link.touch(self._sink)

    def delivered(self, content: Content) -> None:
        """A message came from a queue."""
        if self._sink is not None:
            self._sink.delivered(content)
            self._link.touch(self._sink)


def _publish(channel: ServerChannel, published: Published) -> None:
    channel.publish(published)


def _at_once(action: Callable[[], None]) -> None:
    action()
