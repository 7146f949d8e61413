"""A connection that comes back: it dials one endpoint after the other and gives each user a channel wherever it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import DmqError, MessagingError, NotReachableError, OperationTimeoutError
from dmq_core.messaging.connection import fork_guard
from dmq_core.messaging.connection.connection_loop import ConnectionLoop
from dmq_core.messaging.connection.endpoint_selection import EndpointSelector
from dmq_core.messaging.connection.states import (
    FINAL_STATES,
    LIVE_STATES,
    NO_HOOKS,
    ChannelUser,
    ConnectionHooks,
    ConnectionState,
    ConnectionStatus,
    TopologySetup,
)
from dmq_core.messaging.transport.amqp import AMQP
from dmq_core.messaging.transport.protocol import Network

CLOSE_LIMIT_S = 4.0


class Connection:
    """A recovering AMQP connection named `name` to one of `endpoints`; methods may be called from any thread.

    It starts with its first user or `start`. A node from which nothing is heard for about two seconds though it was
    asked is left for another. Whenever it opens, `setup` runs before users get their channels. `penalties` may be
    shared with other connections, see `EndpointSelector`. `network` is what it connects through (None: AMQP over TCP);
    `now` tells its monotonic seconds, by which everything about the broker is timed, and `wall` its epoch seconds.
    """

    def __init__(
        self,
        endpoints: Sequence[NodeEndpoint],
        credentials: Credentials | Mapping[NodeEndpoint, Credentials],
        name: str,
        hooks: ConnectionHooks = NO_HOOKS,
        setup: TopologySetup | None = None,
        penalties: dict[NodeEndpoint, float] | None = None,
        network: Network | None = None,
    ) -> None:
        self.name = name
        self._fork_generation = fork_guard.generation
        self._hooks = hooks
        self._network = network or AMQP
        self.now = self._network.now
        self.wall = self._network.wall
        self._credentials = (
            dict.fromkeys(endpoints, credentials) if isinstance(credentials, Credentials) else dict(credentials)
        )
        self._selector = EndpointSelector(endpoints, hooks.prefer, penalties=penalties)
        self._setup = setup
        self._changed = threading.Condition()
        self._status = ConnectionStatus(ConnectionState.NEW, self._network.wall())
        self._error: DmqError | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._io: ConnectionLoop | None = None

    @property
    def status(self) -> ConnectionStatus:
        """What it is doing now, without waiting."""
        return self._status

    @property
    def on_io_thread(self) -> bool:
        """Whether the caller is the I/O thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def add_endpoint(self, endpoint: NodeEndpoint, credentials: Credentials) -> None:
        """Adds an endpoint, for the next time that it has to dial."""
        self._credentials[endpoint] = credentials
        self._selector.add(endpoint)

    def start(self) -> None:
        """Begins to connect; returns at once, and does nothing the second time. `MessagingError` once closed."""
        self._running_io()

    def wait_open(self, timeout_s: float = 10.0) -> NodeEndpoint:
        """Waits until it is open; `AccessDeniedError` or `NotReachableError` say why it is not."""
        self.start()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._status.state not in LIVE_STATES:
                if self._status.state in FINAL_STATES:
                    raise self._error or MessagingError(f"the connection {self.name!r} is closed")
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise self._not_open(timeout_s)
            endpoint = self._status.endpoint
        if endpoint is None:
            raise MessagingError(f"the connection {self.name!r} is open but nowhere")
        return endpoint

    def attach(self, user: ChannelUser) -> None:
        """Gives `user` a channel as soon and as often as the connection opens, until `detach`."""
        io = self._running_io()
        if not io.call(lambda: io.attach(user)):
            raise MessagingError(f"the connection {self.name!r} is closed")

    def detach(self, user: ChannelUser) -> None:
        """Closes the user's channel and forgets the user, who hears nothing more."""
        if io := self._io_here():
            io.call(lambda: io.detach(user))

    def call(self, callback: Callable[[], None]) -> bool:
        """Has the I/O thread call `callback`; False if there is no such thread any more."""
        self._refuse_after_fork()
        return self._io is not None and self._io.call(callback)

    def leave(self, endpoint: NodeEndpoint | None, why: str) -> None:
        """Leaves `endpoint` at once if connected there (None: wherever it is) and avoids it for a while."""
        if io := self._io_here():
            io.call(lambda: io.leave(endpoint, why))

    def suspect(self, endpoint: NodeEndpoint, why: str) -> None:
        """Leaves `endpoint` if connected there, waiting for messages that do not come, and nothing is under way."""
        if io := self._io_here():
            io.call(lambda: io.suspect(endpoint, why))

    def move(self, endpoint: NodeEndpoint) -> None:
        """Goes over to `endpoint` as soon as nothing is under way; stays if that cannot be. Returns at once."""
        if io := self._io_here():
            io.call(lambda: io.move(endpoint))

    def close(self) -> None:
        """Ends it within four seconds, back-off included; final, and may be called twice.

        In a forked process it does nothing: what is open belongs to the process that made it.
        """
        self.begin_closing()
        thread = self._thread
        if thread is not None and threading.current_thread() is not thread:
            thread.join(CLOSE_LIMIT_S)

    def begin_closing(self) -> None:
        """Begins what `close` waits for."""
        if self._fork_generation != fork_guard.generation:
            return
        with self._changed:
            closing, self._closing = self._closing, True
            if self._io is None and not closing:
                self._status = replace(self._status, state=ConnectionState.CLOSED, at=self._network.wall())
        if self._io is not None:
            self._io.call(self._io.close)

    def _refuse_after_fork(self) -> None:
        if self._fork_generation != fork_guard.generation:
            fork_guard.refuse(f"the connection {self.name!r}")

    def _io_here(self) -> ConnectionLoop | None:
        return self._io if self._fork_generation == fork_guard.generation else None

    def _running_io(self) -> ConnectionLoop:
        self._refuse_after_fork()
        with self._changed:
            if self._closing:
                raise MessagingError(f"the connection {self.name!r} is closed")
            if self._io is None:
                self._io = ConnectionLoop(
                    self.name,
                    self._credentials,
                    self._selector,
                    self._publish,
                    self._network,
                    self._setup,
                    self._hooks,
                )
                self._thread = threading.Thread(target=self._io.run, name=f"amqp {self.name}", daemon=True)
                self._thread.start()
            return self._io

    def _publish(self, status: ConnectionStatus, error: DmqError | None) -> None:
        with self._changed:
            self._status = status
            self._error = error
            self._changed.notify_all()
        if self._hooks.on_change is not None:
            self._hooks.on_change(status)

    def _not_open(self, timeout_s: float) -> DmqError:
        problem = self._status.problem
        if problem:
            return NotReachableError(problem, "Check that the cluster runs and that the port is an AMQP port.")
        return OperationTimeoutError(f"no node answered within {timeout_s:g} s", "Check that the cluster runs.")
