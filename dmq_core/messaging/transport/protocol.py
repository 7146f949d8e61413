"""What a connection stands on: loops, links and channels, and the clock that everything about the broker is timed by.

`AMQP` is the real one. Another `Network` can stand in its place; everything above it is the same code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from dmq_core.endpoints import Credentials, NodeEndpoint
    from dmq_core.messaging.amqp.frames import FrameSink
    from dmq_core.messaging.topology.model import Arguments, Entity, QueueDepth
    from dmq_core.messaging.transport.close_reason import CloseReason

STACK_TIMEOUT_S: Final = 3.0
CLOSE_TIMEOUT_S: Final = 1.0


class Network(Protocol):
    """Makes loops and links, and tells the time."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Epoch seconds."""
        ...

    def loop(self, owner: LoopOwner) -> Loop:
        """A loop for one thread; `owner` hears of its crashes."""
        ...

    def link(
        self, loop: Loop, endpoint: NodeEndpoint, credentials: Credentials, name: str, listener: LinkListener
    ) -> Link:
        """Begins to connect to `endpoint`; `loop` is one that this network made."""
        ...


class LoopOwner(Protocol):
    """Whoever runs a loop."""

    def crashed(self, error: Exception) -> None:
        """A callback raised."""
        ...

    def busy(self) -> bool:
        """Whether other threads still work on what the loop brought. From any thread."""
        ...


class Loop(Protocol):
    """An I/O loop that one thread runs and any thread may hand callbacks to."""

    def run(self) -> None:
        """Runs until `stop`."""
        ...

    def stop(self) -> None:
        """Ends `run`, once what was handed over before has been called."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> bool:
        """Has the loop's thread call `callback`; False if the loop has ended. From any thread."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` after `seconds`; gives what cancels it."""
        ...


class LinkListener(Protocol):
    """Hears the life of a `Link`; `opened` and `lost` come at most once each, nothing comes after `lost`."""

    def opened(self) -> None:
        """The broker let us in."""
        ...

    def lost(self, reason: CloseReason) -> None:
        """It never opened, or is over."""
        ...

    def blocked(self, why: str | None) -> None:
        """The broker blocks publishers for that reason, or (None) no longer does."""
        ...


class Link(Protocol):
    """One connection to one endpoint, from the first attempt to its end; it never comes back."""

    @property
    def endpoint(self) -> NodeEndpoint:
        """Where it goes."""
        ...

    @property
    def heard_at(self) -> float:
        """When (`Network.now`) something last came from there, or something that we sent was last taken."""
        ...

    @property
    def broker_version(self) -> str:
        """What the broker says that it is, such as `4.3.6`; empty before it opened."""
        ...

    def channel(self, on_open: Callable[[Channel], None], on_closed: Callable[[CloseReason], None]) -> None:
        """Opens a channel; `on_closed` comes once, also when the link is lost; nothing comes of one that is ending."""
        ...

    def close(self) -> None:
        """Closes it politely; within `CLOSE_TIMEOUT_S` it is over in any case."""
        ...

    def abandon(self, why: str) -> None:
        """Ends it now without a word to the broker."""
        ...


class Outgoing(Protocol):
    """A message in the frames of one channel."""

    @property
    def frames(self) -> bytes:
        """Its method, header and body frames, one after the other."""
        ...

    @property
    def size(self) -> int:
        """Bytes of its body."""
        ...


class Channel(Protocol):
    """One channel of a link. Its callbacks run on the loop's thread; after it closed, nothing is sent."""

    @property
    def is_open(self) -> bool:
        """Whether something may be sent on it."""
        ...

    @property
    def number(self) -> int:
        """Its number on the link."""
        ...

    @property
    def frame_limit(self) -> int:
        """Bytes that one frame carries at most."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that the link has not handed to the operating system yet."""
        ...

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` after `seconds`, whether or not the channel is still open."""
        ...

    def listen(self, sink: FrameSink) -> None:
        """Gives deliveries, returns and confirms of this channel to `sink`."""
        ...

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """Joins everything sent inside into one write."""
        ...

    def select_confirms(self, done: Callable[[], None]) -> None:
        """Switches publisher confirms on."""
        ...

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Sends messages whose frames were made for this channel, in one write."""
        ...

    def prefetch(self, count: int, done: Callable[[], None]) -> None:
        """Sets how many unacknowledged deliveries the next consumer may hold."""
        ...

    def consume(
        self, queue: str, exclusive: bool, arguments: Arguments, done: Callable[[], None], cancelled: Callable[[], None]
    ) -> str:
        """Begins to consume with manual acks; `cancelled` comes when the broker ends it. Gives the consumer tag."""
        ...

    def cancel(self, consumer_tag: str, done: Callable[[], None]) -> None:
        """Asks the broker to send no more."""
        ...

    def ack(self, tag: int, multiple: bool) -> None:
        """Acknowledges one delivery, or all up to it."""
        ...

    def reject(self, tag: int, requeue: bool) -> None:
        """Tells that a delivery failed."""
        ...

    def requeue(self, tag: int) -> None:
        """Returns a delivery that was not tried."""
        ...

    def ping(self) -> None:
        """Asks for a reply that changes nothing."""
        ...

    def declare(self, entity: Entity, done: Callable[[QueueDepth | None], None]) -> None:
        """Declares or binds; the depth comes for a queue."""
        ...

    def depth(self, queue: str, done: Callable[[QueueDepth], None]) -> None:
        """How deep a queue is; the channel closes with 404 if there is none."""
        ...

    def delete_queue(self, queue: str, only_empty: bool, done: Callable[[], None]) -> None:
        """Deletes a queue, `only_empty`: unless it holds messages, which closes the channel with 406."""
        ...

    def delete_exchange(self, exchange: str, done: Callable[[], None]) -> None:
        """Deletes an exchange and its bindings, if there is one."""
        ...

    def close(self) -> None:
        """Closes it; a second call does nothing."""
        ...
