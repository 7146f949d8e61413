"""One connection through a chaos proxy: two sockets, and the bytes on their way in each direction. Not thread-safe."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dmq_core.chaos.rules import ConnectionFault, Direction, LinkConditions, is_answer
from dmq_core.messaging.amqp.frames import FrameReader

Address = tuple[socket.AddressFamily, tuple[str, int]]
_READ_BYTES = 1 << 16
_QUEUE_BYTES = 1 << 20
_SLICE_S = 0.02
_AMQP_HEADER = b"AMQP"
_HEADER_BYTES = 8
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class ProxyTotals:
    """What all connections of a proxy count together."""

    written: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))
    dropped: int = 0
    triggered: int = 0


class ByteForwarder:
    """Forwards bytes from one socket to the other under `conditions`: late, slowly, not at all, or up to a trigger."""

    def __init__(
        self,
        direction: Direction,
        source: socket.socket,
        target: socket.socket,
        conditions: LinkConditions,
        totals: ProxyTotals,
    ) -> None:
        self.source = source
        self.target = target
        self.conditions = conditions
        self.is_blocked = False
        self._direction = direction
        self._totals = totals
        self._reader = FrameReader(self._filter_frame)
        self._passed = bytearray()
        self._queue: deque[tuple[float, bytes | ConnectionFault]] = deque()
        self._queued_bytes = 0
        self._now = 0.0
        self._last_due_at = 0.0
        self._free_at = 0.0
        self._ended = False
        self._shut = False

    @property
    def wants_read(self) -> bool:
        """Whether its source is to be read."""
        return not (self.conditions.stalled or self._ended) and self._queued_bytes < _QUEUE_BYTES

    @property
    def next_write_at(self) -> float | None:
        """The monotonic second at which something can be written; None if time alone does not allow it."""
        if not self._queue or self.is_blocked or self.conditions.stalled:
            return None
        return max(self._queue[0][0], self._free_at)

    @property
    def is_done(self) -> bool:
        """Whether the source has ended and everything was forwarded, its end included."""
        return self._shut

    def enqueue(self, data: bytes, is_amqp: bool, now: float) -> None:
        """Queues what was read; no bytes mean that the source has ended."""
        self._now = now
        if not data:
            self._ended = True
            self._passed += self._reader.rest
        elif is_amqp:
            self._reader.feed(data)
        else:
            self._passed += data
        self._enqueue()

    def write(self, now: float) -> ConnectionFault | None:
        """Writes what is due; the fault to cause where a frame triggered one."""
        while (at := self.next_write_at) is not None and at <= now:
            item = self._queue[0][1]
            if isinstance(item, ConnectionFault):
                self._queue.popleft()
                return item
            self._send(item, now)
        if self._ended and not (self._queue or self._shut or self.is_blocked or self.conditions.stalled):
            self._shut = True
            self.target.shutdown(socket.SHUT_WR)
        return None

    def _filter_frame(self, frame: bytes) -> None:
        if self.conditions.drops_acks and is_answer(frame):
            self._totals.dropped += 1
            return
        trigger = self.conditions.trigger
        if trigger is None or not trigger.is_triggered_by(frame):
            self._passed += frame
            return
        self.conditions = replace(self.conditions, trigger=None)
        # The fault stands in the queue between the bytes that still pass and those that do not, so that delays apply.
        split = trigger.bytes_passed(frame)
        self._passed += frame[:split]
        self._enqueue()
        self._queue.append((self._last_due_at, trigger.fault))
        self._passed += frame[split:]

    def _enqueue(self) -> None:
        if not self._passed:
            return
        late = self.conditions.delay_s + random.uniform(0.0, self.conditions.jitter_s)
        self._last_due_at = max(self._last_due_at, self._now + late)
        self._queue.append((self._last_due_at, bytes(self._passed)))
        self._queued_bytes += len(self._passed)
        self._passed.clear()

    def _send(self, data: bytes, now: float) -> None:
        rate = self.conditions.bytes_per_s
        size = len(data) if rate is None else max(1, int(rate * _SLICE_S))
        try:
            sent = self.target.send(data[:size])
        except BlockingIOError:
            self.is_blocked = True
            return
        due, _ = self._queue.popleft()
        if sent < len(data):
            self._queue.appendleft((due, data[sent:]))
        self._queued_bytes -= sent
        self._totals.written[self._direction] += sent
        if rate is not None:
            self._free_at = max(self._free_at, now) + sent / rate


class ProxiedConnection:
    """A client's connection and its own to the broker, which is opened once bytes may pass in a direction."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        client: socket.socket,
        broker: Address,
        conditions: Mapping[Direction, LinkConditions],
        totals: ProxyTotals,
    ) -> None:
        self._selector = selector
        self._client = client
        self._address = broker[1]
        self._broker = socket.socket(broker[0], socket.SOCK_STREAM)
        for sock in (self._client, self._broker):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._totals = totals
        self._to_broker = ByteForwarder(
            Direction.TO_BROKER, self._client, self._broker, conditions[Direction.TO_BROKER], totals
        )
        self._to_client = ByteForwarder(
            Direction.TO_CLIENT, self._broker, self._client, conditions[Direction.TO_CLIENT], totals
        )
        # The socket to the broker takes bytes only once it is connected, which the selector reports as writable.
        self._to_broker.is_blocked = True
        self._connecting = False
        self._saw_header = False
        self._is_amqp = False
        self.is_over = False

    @property
    def next_write_at(self) -> float | None:
        """The monotonic second at which `forward` has something to do though nothing happens on a socket."""
        return min((at for forwarder in self._forwarders if (at := forwarder.next_write_at) is not None), default=None)

    @property
    def _forwarders(self) -> tuple[ByteForwarder, ByteForwarder]:
        return self._to_broker, self._to_client

    def change_conditions(
        self, direction: Direction | None, change: Callable[[LinkConditions], LinkConditions]
    ) -> None:
        """Changes the conditions of one direction, or of both (None)."""
        for forwarder_direction, forwarder in zip(Direction, self._forwarders, strict=True):
            if direction in (None, forwarder_direction):
                forwarder.conditions = change(forwarder.conditions)

    def forward(self, now: float) -> None:
        """Writes what is due, causes the faults that frames triggered, and registers for what comes next."""
        if self.is_over:
            return
        try:
            self._connect()
            faults = [forwarder.write(now) for forwarder in self._forwarders]
        except OSError:
            self.break_connection(ConnectionFault.RESET)
            return
        for fault in faults:
            if fault is not None:
                self._totals.triggered += 1
                self.break_connection(fault)
        if not self.is_over and all(forwarder.is_done for forwarder in self._forwarders):
            self._close()
        self._register()

    def break_connection(self, fault: ConnectionFault) -> None:
        """Causes `fault` on both sides now."""
        if self.is_over:
            return
        if fault is ConnectionFault.STALL:
            self.change_conditions(None, lambda c: replace(c, stalled=True, trigger=None))
            return
        for sock in (self._client, self._broker):
            with contextlib.suppress(OSError):
                if fault is ConnectionFault.RESET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                else:
                    _drain(sock)
                    sock.shutdown(socket.SHUT_WR)
        self._close()

    def on_ready(self, sock: socket.socket, events: int, now: float) -> None:
        """A socket can be read or written."""
        if self.is_over:
            return
        readable, other = self._forwarders if sock is self._client else reversed(self._forwarders)
        if events & selectors.EVENT_WRITE:
            other.is_blocked = False
        if events & selectors.EVENT_READ and readable.wants_read:
            try:
                self._read(readable, now)
            except BlockingIOError:
                pass
            except OSError:
                self.break_connection(ConnectionFault.RESET)

    def _read(self, forwarder: ByteForwarder, now: float) -> None:
        data = forwarder.source.recv(_READ_BYTES)
        if forwarder is self._to_broker and not self._saw_header:
            self._saw_header = True
            self._is_amqp = data.startswith(_AMQP_HEADER)
            if self._is_amqp:
                forwarder.enqueue(data[:_HEADER_BYTES], False, now)
                data = data[_HEADER_BYTES:]
                if not data:
                    return
        forwarder.enqueue(data, self._is_amqp, now)

    def _connect(self) -> None:
        if self._connecting or all(forwarder.conditions.stalled for forwarder in self._forwarders):
            return
        self._connecting = True
        # Whether it succeeds shows at the first read or write.
        self._broker.connect_ex(self._address)

    def _register(self) -> None:
        if self.is_over:
            return
        self._register_socket(self._client, self._to_broker, self._to_client)
        if self._connecting:
            self._register_socket(self._broker, self._to_client, self._to_broker)

    def _register_socket(self, sock: socket.socket, readable: ByteForwarder, other: ByteForwarder) -> None:
        wanted = selectors.EVENT_READ if readable.wants_read else 0
        if other.is_blocked and not other.conditions.stalled:
            wanted |= selectors.EVENT_WRITE
        known = self._selector.get_map().get(sock)
        if known is None:
            if wanted:
                self._selector.register(sock, wanted, self)
        elif not wanted:
            self._selector.unregister(sock)
        elif known.events != wanted:
            self._selector.modify(sock, wanted, self)

    def _close(self) -> None:
        self.is_over = True
        for sock in (self._client, self._broker):
            if self._selector.get_map().get(sock) is not None:
                self._selector.unregister(sock)
            sock.close()


def _drain(sock: socket.socket) -> None:
    """Discards received bytes: closing a socket with unread bytes would send RST instead of FIN."""
    with contextlib.suppress(OSError):
        while sock.recv(_READ_BYTES):
            pass
