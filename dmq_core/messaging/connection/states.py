"""What a connection is doing, and what it asks of those who use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import DmqError

if TYPE_CHECKING:
    from dmq_core.messaging.transport.close_reason import CloseReason
    from dmq_core.messaging.transport.protocol import Channel, Link


class ConnectionState(StrEnum):
    """What a connection is doing.

    BLOCKED is open, but the broker takes no messages for now; RECOVERING had been open, and dials again; CLOSED and
    FAILED are final.

    >>> manager.wait_open()
    >>> manager.state is ConnectionState.OPEN
    True
    """

    NEW = "new"
    CONNECTING = "connecting"
    OPEN = "open"
    BLOCKED = "blocked"
    RECOVERING = "recovering"
    CLOSING = "closing"
    CLOSED = "closed"
    FAILED = "failed"


LIVE_STATES = frozenset({ConnectionState.OPEN, ConnectionState.BLOCKED})
FINAL_STATES = frozenset({ConnectionState.CLOSED, ConnectionState.FAILED})


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """What a connection is doing since `at` (epoch seconds), where (None: nowhere), and what last went wrong.

    `problem` names the endpoint, `reason` is why that was left (None: it was not). `epoch` counts how often the
    connection was opened.

    >>> manager.wait_open()
    >>> status = manager.connections[0].status
    >>> print(status.state, status.epoch, status.problem or "no problem")
    open 1 no problem
    """

    state: ConnectionState
    at: float
    endpoint: NodeEndpoint | None = None
    epoch: int = 0
    problem: str = ""
    broker_version: str = ""
    reason: CloseReason | None = None


@dataclass(frozen=True, slots=True)
class ConnectionHooks:
    """What whoever keeps a connection decides and hears: all on the I/O thread, which it must not block.

    `prefer` may reorder the endpoints at each attempt. `on_change` hears each status, in order. `rebalance_target` is
    asked every few seconds whether the connection should move to another endpoint. `on_leave` hears of an endpoint that
    is left because it is silent, does not confirm, or no longer reaches a queue, and why.
    """

    prefer: Callable[[], Sequence[NodeEndpoint]] | None = None
    on_change: Callable[[ConnectionStatus], None] | None = None
    rebalance_target: Callable[[NodeEndpoint], NodeEndpoint | None] | None = None
    on_leave: Callable[[NodeEndpoint, str], None] | None = None


NO_HOOKS = ConnectionHooks()


class TopologySetup(Protocol):
    """What has to be done on each link before its users may work; everything is called on the I/O thread."""

    def run(self, link: Link, done: Callable[[], None]) -> None:
        """Does it over channels of its own, and calls `done` once it is done or cannot be."""
        ...


class ChannelUser(Protocol):
    """Somebody who needs a channel. Everything is called on the connection's I/O thread and must not block."""

    def channel_opened(self, channel: Channel, endpoint: NodeEndpoint) -> None:
        """A fresh channel; it replaces every earlier one."""
        ...

    def channel_lost(self, reason: CloseReason) -> None:
        """The channel is gone; another follows unless the user detaches."""
        ...

    def flow_changed(self, blocked: bool) -> None:
        """The broker began or ceased to block publishers."""
        ...

    def overdue(self, now: float) -> str:
        """Asked every quarter second: why the node must be left (empty: it need not be)."""
        ...

    def ended(self, error: DmqError | None) -> None:
        """No channel will come any more: the connection was closed, or failed with `error`."""
        ...


@runtime_checkable
class HasWorkers(Protocol):
    """A channel user with threads of its own."""

    def busy(self) -> bool:
        """Whether they still work on what came. From any thread."""
        ...


@runtime_checkable
class AwaitsMessages(Protocol):
    """A channel user that waits for messages, and cannot tell why none come. Called on the I/O thread."""

    @property
    def awaited(self) -> str:
        """The queue that it waits for; empty if for none now."""
        ...

    def idle_s(self, now: float) -> float:
        """For how many seconds nothing has come; 0 while something that came is not answered."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """A channel user that can let go of its channel without losing anything. Called on the I/O thread."""

    @property
    def is_bound(self) -> bool:
        """Whether something of its own ends with the connection, so that it must not move."""
        ...

    def pause(self) -> None:
        """Begin nothing more on this channel, while what is under way goes on."""
        ...

    def resume(self) -> None:
        """Go on: the channel stays."""
        ...

    def is_idle(self) -> bool:
        """Whether nothing is under way on this channel."""
        ...
