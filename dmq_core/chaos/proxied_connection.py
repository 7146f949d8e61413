"""One connection through a chaos proxy: two sockets, and a lane of bytes each way. One thread at a time."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dmq_core.chaos.rules import Act, Conditions, Way, is_answer
from dmq_core.messaging.amqp.frames import FrameReader

Address = tuple[socket.AddressFamily, tuple[str, int]]
_READ_BYTES = 1 << 16
_QUEUE_BYTES = 1 << 20
_SLICE_S = 0.02
_GREETING = b"AMQP"
_GREETING_BYTES = 8
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Tally:
    """What all connections of a proxy count together."""

    written: dict[Way, int] = field(default_factory=lambda: dict.fromkeys(Way, 0))
    dropped: int = 0
    sprung: int = 0


class Lane:
    """Bytes on their way from one socket to the other, and what befalls them."""

    def __init__(
        self, way: Way, source: socket.socket, target: socket.socket, conditions: Conditions, tally: Tally
    ) -> None:
        self.source = source
        self.target = target
        self.conditions = conditions
        self.choked = False
        self._way = way
        self._tally = tally
        self._reader = FrameReader(self._judge)
        self._passing = bytearray()
        self._line: deque[tuple[float, bytes | Act]] = deque()
        self._lined_up = 0
        self._now = 0.0
        self._last_due = 0.0
        self._free_at = 0.0
        self._ended = False
        self._shut = False

    @property
    def wants_bytes(self) -> bool:
        """Whether its source is to be read."""
        return not (self.conditions.stalled or self._ended) and self._lined_up < _QUEUE_BYTES

    @property
    def next_at(self) -> float | None:
        """The monotonic second at which something can be written; None if that is not a matter of time."""
        if not self._line or self.choked or self.conditions.stalled:
            return None
        return max(self._line[0][0], self._free_at)

    @property
    def is_done(self) -> bool:
        """Whether the source has ended and everything, its end too, was passed on."""
        return self._shut

    def take(self, data: bytes, framed: bool, now: float) -> None:
        """Lines up what was read; nothing means that the source has ended."""
        self._now = now
        if not data:
            self._ended = True
            self._passing += self._reader.rest
        elif framed:
            self._reader.feed(data)
        else:
            self._passing += data
        self._line_up()

    def write(self, now: float) -> Act | None:
        """Writes what is due; the act to do if a trap went off."""
        while (at := self.next_at) is not None and at <= now:
            item = self._line[0][1]
            if isinstance(item, Act):
                self._line.popleft()
                return item
            self._send(item, now)
        if self._ended and not (self._line or self._shut or self.choked or self.conditions.stalled):
            self._shut = True
            self.target.shutdown(socket.SHUT_WR)
        return None

    def _judge(self, frame: bytes) -> None:
        if self.conditions.drops_acks and is_answer(frame):
            self._tally.dropped += 1
            return
        trap = self.conditions.trap
        if trap is None or not trap.is_sprung_by(frame):
            self._passing += frame
            return
        self.conditions = replace(self.conditions, trap=None)
        split = trap.passing(frame)
        self._passing += frame[:split]
        self._line_up()
        self._line.append((self._last_due, trap.act))
        self._passing += frame[split:]

    def _line_up(self) -> None:
        if not self._passing:
            return
        late = self.conditions.delay_s + random.uniform(0.0, self.conditions.jitter_s)
        self._last_due = max(self._last_due, self._now + late)
        self._line.append((self._last_due, bytes(self._passing)))
        self._lined_up += len(self._passing)
        self._passing.clear()

    def _send(self, data: bytes, now: float) -> None:
        rate = self.conditions.bytes_per_s
        size = len(data) if rate is None else max(1, int(rate * _SLICE_S))
        try:
            sent = self.target.send(data[:size])
        except BlockingIOError:
            self.choked = True
            return
        due, _ = self._line.popleft()
        if sent < len(data):
            self._line.appendleft((due, data[sent:]))
        self._lined_up -= sent
        self._tally.written[self._way] += sent
        if rate is not None:
            self._free_at = max(self._free_at, now) + sent / rate


class Conversation:
    """A client's connection and the one to the broker that belongs to it, which is made once something may pass."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        client: socket.socket,
        broker: Address,
        conditions: Mapping[Way, Conditions],
        tally: Tally,
    ) -> None:
        self._selector = selector
        self._client = client
        self._address = broker[1]
        self._broker = socket.socket(broker[0], socket.SOCK_STREAM)
        for sock in (self._client, self._broker):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tally = tally
        self._up = Lane(Way.TO_BROKER, self._client, self._broker, conditions[Way.TO_BROKER], tally)
        self._down = Lane(Way.TO_CLIENT, self._broker, self._client, conditions[Way.TO_CLIENT], tally)
        # Nothing can be written to the broker before it has taken the connection.
        self._up.choked = True
        self._dialled = False
        self._greeted = False
        self._framed = False
        self.is_over = False

    @property
    def next_at(self) -> float | None:
        """The monotonic second at which `move` has something to do though nothing happens on a socket."""
        return min((at for lane in self._lanes if (at := lane.next_at) is not None), default=None)

    @property
    def _lanes(self) -> tuple[Lane, Lane]:
        return self._up, self._down

    def impose(self, way: Way | None, change: Callable[[Conditions], Conditions]) -> None:
        """Changes what befalls one way, or both."""
        for lane_way, lane in zip(Way, self._lanes, strict=True):
            if way in (None, lane_way):
                lane.conditions = change(lane.conditions)

    def move(self, now: float) -> None:
        """Writes what is due, does what traps ask for, and waits for what comes next."""
        if self.is_over:
            return
        try:
            self._dial()
            acts = [lane.write(now) for lane in self._lanes]
        except OSError:
            self.do(Act.RESET)
            return
        for act in acts:
            if act is not None:
                self._tally.sprung += 1
                self.do(act)
        if not self.is_over and all(lane.is_done for lane in self._lanes):
            self._close()
        self._watch()

    def do(self, act: Act) -> None:
        """Does `act` to both sides now."""
        if self.is_over:
            return
        if act is Act.STALL:
            self.impose(None, lambda c: replace(c, stalled=True, trap=None))
            return
        for sock in (self._client, self._broker):
            with contextlib.suppress(OSError):
                if act is Act.RESET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                else:
                    _drain(sock)
                    sock.shutdown(socket.SHUT_WR)
        self._close()

    def happened(self, sock: socket.socket, events: int, now: float) -> None:
        """Something can be done on a socket."""
        if self.is_over:
            return
        mine, other = self._lanes if sock is self._client else reversed(self._lanes)
        if events & selectors.EVENT_WRITE:
            other.choked = False
        if events & selectors.EVENT_READ and mine.wants_bytes:
            try:
                self._read(mine, now)
            except BlockingIOError:
                pass
            except OSError:
                self.do(Act.RESET)

    def _read(self, lane: Lane, now: float) -> None:
        data = lane.source.recv(_READ_BYTES)
        if lane is self._up and not self._greeted:
            self._greeted = True
            self._framed = data.startswith(_GREETING)
            if self._framed:
                lane.take(data[:_GREETING_BYTES], False, now)
                data = data[_GREETING_BYTES:]
                if not data:
                    return
        lane.take(data, self._framed, now)

    def _dial(self) -> None:
        if self._dialled or all(lane.conditions.stalled for lane in self._lanes):
            return
        self._dialled = True
        # What comes of it is told by the first read or write.
        self._broker.connect_ex(self._address)

    def _watch(self) -> None:
        if self.is_over:
            return
        self._watch_one(self._client, self._up, self._down)
        if self._dialled:
            self._watch_one(self._broker, self._down, self._up)

    def _watch_one(self, sock: socket.socket, mine: Lane, other: Lane) -> None:
        wanted = selectors.EVENT_READ if mine.wants_bytes else 0
        if other.choked and not other.conditions.stalled:
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
    """Reads away what came: a close with unread bytes would say RST instead of FIN."""
    with contextlib.suppress(OSError):
        while sock.recv(_READ_BYTES):
            pass
