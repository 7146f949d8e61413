"""A TCP proxy that breaks the connections to a broker on demand: for tests of AMQP clients."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from dmq_core.chaos.proxied_connection import Address, ProxiedConnection, ProxyTotals
from dmq_core.chaos.rules import ConnectionFault, Direction, FrameTrigger, LinkConditions, ProtocolStep, Which
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import InvalidInputError, MessagingError, NotReachableError

LOOPBACK = "127.0.0.1"
CLOSE_LIMIT_S = 5.0
_BACKLOG = 128
_TAKEN_IN_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class ProxyCounts:
    """What has gone through a proxy: connections accepted, and those still open; bytes written to each side; acks and
    nacks dropped; connections in which a frame triggered what `stall_at` or `cut_at` set.

    >>> from dmq_core.testing import ChaosProxy
    >>> with ChaosProxy("127.0.0.1", 5672) as proxy:
    ...     proxy.counts
    ProxyCounts(accepted=0, open=0, to_broker=0, to_client=0, dropped=0, triggered=0)
    """

    accepted: int = 0
    open: int = 0
    to_broker: int = 0
    to_client: int = 0
    dropped: int = 0
    triggered: int = 0


class ChaosProxy:
    """Listens on a free port of 127.0.0.1 and forwards everything to `host:port`, except for the faults that it is
    told to cause.

    It works from the moment it is made until `close`; a `with` statement closes it. A fault holds before its method
    returns, and stays until `heal`. `which` says whether it is for connections that are there, for later ones, or for
    both; `direction` is one direction (None: both). Faults add up: a slow link may drop acks too. Methods may be
    called from any thread; after `close` they raise `MessagingError`. What is not AMQP in plain text passes too, but
    the faults that look at frames leave it alone. `NotReachableError` if nobody knows the host.

    >>> from dmq_core.testing import ChaosProxy, Direction
    >>> with ChaosProxy("127.0.0.1", 5672) as proxy:
    ...     proxy.delay(0.05)                 # a slow link, 50 ms each way,
    ...     proxy.stall(direction=Direction.TO_CLIENT)    # on which nothing comes back at all
    ...     proxy.heal()
    ...     proxy.counts.accepted
    0
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = _resolved(host, port)
        # This socket never listens: it reserves the port while connections are refused.
        self._reserved_port = _bound(0)
        self._port: int = self._reserved_port.getsockname()[1]
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._waker, self._wakeup = socket.socketpair()
        self._waker.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._over = False
        self._future_conditions = {direction: LinkConditions() for direction in Direction}
        self._fault_on_accept: ConnectionFault | None = None
        self._connections: list[ProxiedConnection] = []
        self._accepted = 0
        self._totals = ProxyTotals()
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"chaos proxy {self._port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ChaosProxy({self._port} -> {self._target[1][0]}:{self._target[1][1]})"

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self._port

    @property
    def endpoint(self) -> NodeEndpoint:
        """Where it listens, as a `Connection` takes it."""
        return NodeEndpoint(LOOPBACK, self._port, None)

    @property
    def amqp_url(self) -> str:
        """Where it listens: `amqp://127.0.0.1:port`."""
        return f"amqp://{LOOPBACK}:{self._port}"

    @property
    def counts(self) -> ProxyCounts:
        """What has gone through since the proxy was made."""
        with self._lock:
            totals = self._totals
            up, down = (totals.written[direction] for direction in Direction)
            there = sum(not c.is_over for c in self._connections)
            return ProxyCounts(self._accepted, there, up, down, totals.dropped, totals.triggered)

    def heal(self) -> None:
        """Ends every fault; stalled connections go on, and no byte of theirs is lost."""

        def healed() -> None:
            self._fault_on_accept = None
            self._listen()
            self._change_conditions(Which.ALL, None, lambda _conditions: LinkConditions())

        self._change(healed)

    def stall(self, direction: Direction | None = None, which: Which = Which.ALL) -> None:
        """Connections stay open and later ones are accepted, but nothing is read or written."""
        self._apply(which, direction, lambda c: replace(c, stalled=True))

    def delay(
        self,
        seconds: float,
        jitter_s: float = 0.0,
        direction: Direction | None = None,
        which: Which = Which.ALL,
    ) -> None:
        """Every byte comes `seconds` later, and up to `jitter_s` seconds more, in order.

        Raises `InvalidInputError` below 0.
        """
        if seconds < 0 or jitter_s < 0:
            raise InvalidInputError(f"a delay of {min(seconds, jitter_s):g} s lies in the past", "Give 0 or more.")
        self._apply(which, direction, lambda c: replace(c, delay_s=seconds, jitter_s=jitter_s))

    def throttle(self, bytes_per_s: float, direction: Direction | None = None, which: Which = Which.ALL) -> None:
        """At most so many bytes a second pass each way, on each connection; `InvalidInputError` unless above 0."""
        if bytes_per_s <= 0:
            raise InvalidInputError(f"at {bytes_per_s:g} bytes a second nothing moves", "Use stall() for that.")
        self._apply(which, direction, lambda c: replace(c, bytes_per_s=bytes_per_s))

    def drop_acks(self, which: Which = Which.ALL) -> None:
        """Drops `basic.ack` and `basic.nack` of the broker: publishers never get the outcome of a message."""
        self._apply(which, Direction.TO_CLIENT, lambda c: replace(c, drops_acks=True))

    def stall_at(
        self,
        step: ProtocolStep,
        into: int | None = None,
        direction: Direction | None = None,
        which: Which = Which.ALL,
    ) -> None:
        """Stalls both directions of each connection from the moment at which a frame at `step` is seen.

        `into` bytes of that frame pass; None: half of it where the step is `mid-body`, else nothing.

        >>> from dmq_core.testing import ChaosProxy, ProtocolStep
        >>> with ChaosProxy("127.0.0.1", 5672) as proxy:
        ...     proxy.stall_at(ProtocolStep.DECLARE)    # who declares waits for ever, or for as long as it cares to
        """
        if step is ProtocolStep.CONNECT:
            self.stall(which=Which.FUTURE)
            return
        bytes_passed = 0 if into is None and step is not ProtocolStep.MID_BODY else into
        self._apply(
            which, direction, lambda c: replace(c, trigger=FrameTrigger(ConnectionFault.STALL, step, bytes_passed))
        )

    def cut_at(
        self,
        step: ProtocolStep | None = None,
        into: int | None = None,
        direction: Direction | None = None,
        which: Which = Which.ALL,
    ) -> None:
        """Each connection: lets `into` bytes (None: half) of the next frame at `step` (None: any) pass, then resets.

        `InvalidInputError` for `ProtocolStep.CONNECT`, at which there is no frame.
        """
        if step is ProtocolStep.CONNECT:
            raise InvalidInputError("no frame comes at connect", "Use refuse(), or reset(Which.FUTURE).")
        self._apply(which, direction, lambda c: replace(c, trigger=FrameTrigger(ConnectionFault.RESET, step, into)))

    def refuse(self) -> None:
        """Refuses later connections, as if no process listened on the port."""
        self._change(self._stop_listening)

    def reset(self, which: Which = Which.EXISTING) -> None:
        """Ends connections with RST on both sides; later ones as soon as they are there."""
        self._end(ConnectionFault.RESET, which)

    def disconnect(self, which: Which = Which.EXISTING) -> None:
        """Ends connections with FIN on both sides; later ones as soon as they are there."""
        self._end(ConnectionFault.DISCONNECT, which)

    def close(self) -> None:
        """Ends the proxy and every connection through it within five seconds; may be called twice."""
        with self._lock:
            if self._over:
                return
            self._over = True
            self._wake()
        self._thread.join(CLOSE_LIMIT_S)

    # Faults change values under the lock, which the thread holds except while it waits.

    def _change(self, change: Callable[[], None]) -> None:
        with self._lock:
            if self._over:
                raise MessagingError("the proxy is closed")
            change()
            self._wake()

    def _apply(
        self, which: Which, direction: Direction | None, change: Callable[[LinkConditions], LinkConditions]
    ) -> None:
        self._change(lambda: self._change_conditions(which, direction, change))

    def _change_conditions(
        self, which: Which, direction: Direction | None, change: Callable[[LinkConditions], LinkConditions]
    ) -> None:
        if which is not Which.EXISTING:
            for future_direction in Direction:
                if direction in (None, future_direction):
                    self._future_conditions[future_direction] = change(self._future_conditions[future_direction])
        if which is not Which.FUTURE:
            for connection in self._connections:
                connection.change_conditions(direction, change)

    def _end(self, fault: ConnectionFault, which: Which) -> None:
        def end() -> None:
            if which is not Which.EXISTING:
                self._fault_on_accept = fault
            if which is not Which.FUTURE:
                for connection in self._connections:
                    connection.break_connection(fault)

        self._change(end)

    def _wake(self) -> None:
        # If the pipe is full, the thread is about to wake anyway.
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b"\0")

    def _run(self) -> None:
        pause: float | None = 0.0
        try:
            while not self._over:
                events = self._selector.select(pause)
                with self._lock:
                    pause = self._run_once(events)
        finally:
            with self._lock:
                self._over = True
                self._release()

    def _run_once(self, events: list[tuple[selectors.SelectorKey, int]]) -> float | None:
        """Does what can be done now; how many seconds to wait (None: until something happens)."""
        now = time.monotonic()
        for key, mask in events:
            if key.fileobj is self._wakeup:
                self._wakeup.recv(4096)
            elif key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, ProxiedConnection) and isinstance(key.fileobj, socket.socket):
                key.data.on_ready(key.fileobj, mask, now)
        for connection in self._connections:
            connection.forward(now)
        self._connections = [c for c in self._connections if not c.is_over]
        due = min((at for c in self._connections if (at := c.next_write_at) is not None), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        self._accepted += 1
        connection = ProxiedConnection(self._selector, client, self._target, self._future_conditions, self._totals)
        self._connections.append(connection)
        if self._fault_on_accept is not None:
            connection.break_connection(self._fault_on_accept)

    def _listen(self) -> None:
        if self._listener is not None:
            return
        self._listener = _bound(self._port)
        self._listener.listen(_BACKLOG)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _release(self) -> None:
        self._stop_listening()
        for connection in self._connections:
            connection.break_connection(ConnectionFault.DISCONNECT)
        self._connections = []
        self._selector.close()
        for sock in (self._reserved_port, self._waker, self._wakeup):
            sock.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # A client counts bytes in our receive buffer as sent; with a large one a slow link would not look slow.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TAKEN_IN_BYTES)
    sock.setblocking(False)
    sock.bind((LOOPBACK, port))
    return sock


def _resolved(host: str, port: int) -> Address:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NotReachableError(f"the host {host!r} is not known", "Give a host name or an address.") from error
    # Brokers on this machine often listen on IPv4 only, though its name stands for both.
    family, _, _, _, address = min(found, key=lambda info: info[0] is not socket.AF_INET)
    return family, (str(address[0]), int(address[1]))
