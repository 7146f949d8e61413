"""The one module that knows pika: an I/O loop, a connection to one endpoint, its channels, and why they closed.

Everything here but `PikaLoop.call_soon` belongs to the thread that runs the loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pika
from pika import exceptions as pika_errors
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol, AbstractStreamTransport
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from dmq_core import __version__
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.messaging.amqp.frames import FrameReader, FrameSink
from dmq_core.messaging.amqp.wire import FRAME_OVERHEAD
from dmq_core.messaging.topology.model import Arguments, Binding, Entity, Exchange, Queue, QueueDepth
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.messaging.transport.protocol import CLOSE_TIMEOUT_S, STACK_TIMEOUT_S, LinkListener, Outgoing
from dmq_core.text import visible
from dmq_core.tls import tls_context

HEARTBEAT_S = 10
TCP_USER_TIMEOUT_MS = 5000
BACKLOG_BYTES = 128 << 10


class PikaLoop:
    """An I/O loop that one thread runs and any thread may hand callbacks to."""

    def __init__(self, on_crash: Callable[[Exception], None]) -> None:
        self._io = IOLoop()
        self._on_crash = on_crash
        self._gate = threading.Lock()
        self._open = True
        self._handed: deque[Callable[[], None]] = deque()
        self._woken = False

    @property
    def native(self) -> IOLoop:
        """Pika's loop."""
        return self._io

    def run(self) -> None:
        """Runs until `stop`, then releases every descriptor; an exception in a callback goes to `on_crash`."""
        try:
            while not self._ran_to_its_end():
                pass
        finally:
            with self._gate:
                self._open = False
                self._io.close()
            self._drain()

    def stop(self) -> None:
        """Ends `run`, once what was handed over before has been called and aborted sockets are closed."""
        self._io.add_callback(lambda: self._io.add_callback(self._io.stop))

    def call_soon(self, callback: Callable[[], None]) -> bool:
        """Has the loop's thread call `callback`; False if the loop has ended. From any thread."""
        with self._gate:
            if not self._open:
                return False
            self._handed.append(callback)
            if not self._woken:
                # A wake costs a system call on both sides, so one serves everything handed over until it is answered.
                self._woken = True
                self._io.add_callback_threadsafe(self._drain)
            return True

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` after `seconds`; gives what cancels it."""
        timer = self._io.call_later(seconds, lambda: self._guarded(callback))
        return lambda: self._io.remove_timeout(timer)

    def _drain(self) -> None:
        with self._gate:
            self._woken = False
            batch = tuple(self._handed)
            self._handed.clear()
        for callback in batch:
            self._guarded(callback)

    def _ran_to_its_end(self) -> bool:
        try:
            self._io.start()
        except Exception as error:  # pika's own stumbling must not end the thread
            self._on_crash(error)
            return False
        return True

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:  # one callback's failure must not take the others with it
            self._on_crash(error)


class _Wire(AbstractStreamProtocol, AbstractStreamTransport):  # type: ignore[misc]  # pika is untyped
    """Stands between the socket and pika: reads frames first, gathers writes, notes when it last heard anything."""

    def __init__(self, inner: Any, sock: socket.socket, after_this: Callable[[Callable[[], None]], None]) -> None:
        self.inner = inner
        self._socket = sock
        self._unsent = 0
        self.reader = FrameReader(inner.data_received)
        self._after_this = after_this
        self._untold = False
        self.heard_at = time.monotonic()
        self._transport: Any = None
        self._gathered: list[bytes | memoryview] | None = None
        self._why: Exception | None = None
        self._greeted = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.inner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        if not self._greeted:
            self._greeted = True
            if data[:1] not in (b"\x01", b"A"):
                self.abort_because(f"the peer does not speak AMQP, it says {visible(data[:16].decode('latin-1'))!r}")
                return
        self.reader.feed(data)
        if not self._untold:
            # Pika reads the socket in small pieces; whoever gets messages is woken once for all of them.
            self._untold = True
            self._after_this(self._tell)

    def _tell(self) -> None:
        self._untold = False
        self.reader.end_read()

    def eof_received(self) -> Any:
        return self.inner.eof_received()

    def connection_lost(self, error: BaseException | None) -> None:
        self._tell()
        self.inner.connection_lost(error or self._why)

    def write(self, data: bytes | memoryview) -> None:
        if self._gathered is None:
            self._transport.write(data)
        else:
            self._gathered.append(data)

    def abort(self) -> None:
        self._transport.abort()

    def abort_because(self, why: str) -> None:
        self._why = ConnectionAbortedError(why)
        self._transport.abort()

    def get_protocol(self) -> Any:
        return self.inner

    def get_write_buffer_size(self) -> int:
        return int(self._transport.get_write_buffer_size())

    @property
    def unsent(self) -> int:
        """Bytes that the peer's machine has not taken yet, in our own buffer and in the kernel's; few count as none.

        What a proxy in front of a frozen node takes at once tells nothing of the node.
        """
        if self._transport is None:
            return 0
        backlog = self.get_write_buffer_size() + _in_the_kernel(self._socket)
        return backlog if backlog >= BACKLOG_BYTES else 0

    def moved_at(self) -> float:
        """When something last came, or went out: a node that still takes a large message is not silent."""
        before, self._unsent = self._unsent, self.unsent
        if self._unsent < before:
            self.heard_at = time.monotonic()
        return self.heard_at

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        if self._gathered is not None:
            yield
            return
        self._gathered = []
        try:
            yield
        finally:
            data, self._gathered = b"".join(self._gathered), None
            if data:
                self._transport.write(data)


class _TappedServices(SelectorIOServicesAdapter):  # type: ignore[misc]  # pika is untyped
    """Pika's I/O services, with a `_Wire` put into each stream."""

    def __init__(self, loop: PikaLoop) -> None:
        super().__init__(loop.native)
        self._after_this = loop.native.add_callback
        self.wire: _Wire | None = None

    def create_streaming_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        on_done: Callable[[Any], None],
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Any:
        def with_wire() -> _Wire:
            self.wire = _Wire(protocol_factory(), sock, self._after_this)
            return self.wire

        def done(result: Any) -> None:
            # Pika looks for its own protocol in the pair that it gets.
            on_done((result[1], result[1].inner) if isinstance(result, tuple) else result)

        return super().create_streaming_connection(with_wire, sock, done, ssl_context, server_hostname)


class PikaLink:
    """One connection to one endpoint, from the first attempt to its end; it never comes back."""

    def __init__(
        self, loop: PikaLoop, endpoint: NodeEndpoint, credentials: Credentials, name: str, listener: LinkListener
    ) -> None:
        self.endpoint = endpoint
        self._loop = loop
        self._listener = listener
        self._over = False
        self._services = _TappedServices(loop)
        self._connection: Any = SelectConnection(
            _parameters(endpoint, credentials, name),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
            custom_ioloop=self._services,
        )
        self._cancel_guard = loop.call_later(STACK_TIMEOUT_S + 1.0, lambda: self.abandon("it did not answer in time"))

    @property
    def heard_at(self) -> float:
        """The monotonic second at which bytes last came, or were taken."""
        return 0.0 if self._services.wire is None else self._services.wire.moved_at()

    @property
    def broker_version(self) -> str:
        """What the broker says that it is, such as `4.3.6`; empty before it opened."""
        return str((self._connection.server_properties or {}).get("version", ""))

    def channel(self, on_open: Callable[[PikaChannel], None], on_closed: Callable[[CloseReason], None]) -> None:
        """Opens a channel; `on_closed` comes once, also when the link is lost; nothing comes of one that is ending."""
        if self._connection.is_open:
            PikaChannel(self._loop, self._connection, self._services, on_open, on_closed)

    def close(self) -> None:
        """Closes it politely; within a second it is over in any case."""
        if self._over:
            return
        if not self._connection.is_open:
            self.abandon("closed by us")
            return
        self._connection.close()
        self._loop.call_later(CLOSE_TIMEOUT_S, lambda: self.abandon("closed by us"))

    def abandon(self, why: str) -> None:
        """Ends it now without a word to the broker."""
        if self._over:
            return
        self._over = True
        with contextlib.suppress(pika_errors.AMQPError):
            if self._services.wire is not None:
                self._services.wire.abort_because(why)
            elif not (self._connection.is_closed or self._connection.is_closing):
                self._connection.close()
        self._end(CloseReason(RecoveryAction.RECOVER, why))

    def _on_open(self, connection: Any) -> None:
        if self._over:
            return
        self._cancel_guard()
        connection.add_on_connection_blocked_callback(lambda _c, m: self._listener.blocked(str(m.method.reason)))
        connection.add_on_connection_unblocked_callback(lambda _c, _m: self._listener.blocked(None))
        self._listener.opened()

    def _on_end(self, _connection: Any, error: BaseException) -> None:
        if not self._over:
            self._end(close_reason(error))

    def _end(self, reason: CloseReason) -> None:
        self._over = True
        self._cancel_guard()
        self._listener.lost(reason)


class PikaChannel:
    """One channel of a link. Its callbacks run on the loop's thread; after it closed, nothing is sent."""

    def __init__(
        self,
        loop: PikaLoop,
        connection: Any,
        services: _TappedServices,
        on_open: Callable[[PikaChannel], None],
        on_closed: Callable[[CloseReason], None],
    ) -> None:
        self._loop = loop
        self._services = services
        self._connection = connection
        self._on_closed = on_closed
        self._channel: Any = connection.channel(on_open_callback=lambda _channel: on_open(self))
        self._channel.add_on_close_callback(self._closed)

    @property
    def is_open(self) -> bool:
        """Whether something may be sent on it."""
        return bool(self._channel.is_open)

    @property
    def number(self) -> int:
        """Its number on the link."""
        return int(self._channel.channel_number)

    @property
    def frame_limit(self) -> int:
        """Bytes that one frame carries at most."""
        return int(self._connection.params.frame_max) - FRAME_OVERHEAD

    @property
    def unsent(self) -> int:
        """Bytes that the link has not handed to the operating system yet."""
        return 0 if self._services.wire is None else self._services.wire.unsent

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` after `seconds`, whether or not the channel is still open."""
        self._loop.call_later(seconds, callback)

    def listen(self, sink: FrameSink) -> None:
        """Gives deliveries, returns and confirms of this channel to `sink`."""
        wire = self._services.wire
        if wire is not None:
            wire.reader.sinks[self._channel.channel_number] = _Counting(sink, wire, self._connection)

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """Joins everything sent inside into one write."""
        wire = self._services.wire
        return contextlib.nullcontext() if wire is None else wire.gathered()

    def select_confirms(self, done: Callable[[], None]) -> None:
        """Switches publisher confirms on."""
        # Acks go to the sink; pika wants a callback of its own and never calls it.
        self._channel.confirm_delivery(lambda _frame: None, callback=lambda _frame: done())

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Sends messages whose frames were made for this channel, in one write."""
        wire = self._services.wire
        if wire is None:
            return
        limit = self.frame_limit
        data = b"".join([message.frames for message in messages])
        # Pika's heartbeats go by its counters, and of these frames it does not know.
        self._connection.bytes_sent += len(data)
        self._connection.frames_sent += sum([2 - (-message.size // limit) for message in messages])
        # What a send leaves over is cut off without a copy.
        wire.write(memoryview(data))

    def prefetch(self, count: int, done: Callable[[], None]) -> None:
        """Sets how many unacknowledged deliveries the next consumer may hold."""
        self._channel.basic_qos(prefetch_count=count, callback=lambda _frame: done())

    def consume(
        self, queue: str, exclusive: bool, arguments: Arguments, done: Callable[[], None], cancelled: Callable[[], None]
    ) -> str:
        """Begins to consume with manual acks; `cancelled` comes when the broker ends it. Gives the consumer tag."""
        self._channel.add_on_cancel_callback(lambda _frame: cancelled())
        tag = self._channel.basic_consume(
            queue,
            lambda *_delivery: None,
            exclusive=exclusive,
            arguments=dict(arguments),
            callback=lambda _frame: done(),
        )
        return str(tag)

    def cancel(self, consumer_tag: str, done: Callable[[], None]) -> None:
        """Asks the broker to send no more."""
        self._channel.basic_cancel(consumer_tag, callback=lambda _frame: done())

    def ack(self, tag: int, multiple: bool) -> None:
        """Acknowledges one delivery, or all up to it."""
        self._channel.basic_ack(tag, multiple)

    def reject(self, tag: int, requeue: bool) -> None:
        """Tells that a delivery failed."""
        self._channel.basic_reject(tag, requeue)

    def requeue(self, tag: int) -> None:
        """Returns a delivery that was not tried."""
        self._channel.basic_nack(tag, multiple=False, requeue=True)

    def ping(self) -> None:
        """Asks for a reply that changes nothing."""
        self._channel.flow(True, callback=lambda _active: None)

    def declare(self, entity: Entity, done: Callable[[QueueDepth | None], None]) -> None:
        """Declares or binds; the depth comes for a queue."""
        match entity:
            case Exchange():
                self._channel.exchange_declare(
                    entity.name,
                    entity.type,
                    durable=entity.durable,
                    auto_delete=entity.auto_delete,
                    internal=entity.internal,
                    arguments=dict(entity.arguments),
                    callback=lambda _frame: done(None),
                )
            case Queue():
                self._channel.queue_declare(
                    entity.name,
                    durable=entity.durable,
                    exclusive=entity.exclusive,
                    auto_delete=entity.auto_delete,
                    arguments=entity.all_arguments,
                    callback=lambda frame: done(_depth(frame)),
                )
            case Binding():
                self._bind(entity, lambda: done(None))

    def _bind(self, binding: Binding, done: Callable[[], None]) -> None:
        bind = self._channel.exchange_bind if binding.to_exchange else self._channel.queue_bind
        bind(
            binding.destination,
            binding.source,
            routing_key=binding.routing_key,
            arguments=dict(binding.arguments),
            callback=lambda _frame: done(),
        )

    def depth(self, queue: str, done: Callable[[QueueDepth], None]) -> None:
        """How deep a queue is; the channel closes with 404 if there is none."""
        self._channel.queue_declare(queue, passive=True, callback=lambda frame: done(_depth(frame)))

    def delete_queue(self, queue: str, only_empty: bool, done: Callable[[], None]) -> None:
        """Deletes a queue, `only_empty`: unless it holds messages, which closes the channel with 406."""
        self._channel.queue_delete(queue, if_empty=only_empty, callback=lambda _frame: done())

    def delete_exchange(self, exchange: str, done: Callable[[], None]) -> None:
        """Deletes an exchange and its bindings, if there is one."""
        self._channel.exchange_delete(exchange, callback=lambda _frame: done())

    def close(self) -> None:
        """Closes it; a second call does nothing."""
        if self._channel.is_open or self._channel.is_opening:
            self._channel.close()

    def _closed(self, channel: Any, error: BaseException) -> None:
        if self._services.wire is not None:
            self._services.wire.reader.forget(channel.channel_number)
        self._on_closed(close_reason(error))


class _Counting:
    """Passes on to a sink and tells pika's heartbeat checker of the bytes that pika itself never saw."""

    def __init__(self, sink: FrameSink, wire: _Wire, connection: Any) -> None:
        self.acked = sink.acked
        self.nacked = sink.nacked
        self.delivered = sink.delivered
        self.returned = sink.returned
        self._sink = sink
        self._reader = wire.reader
        self._connection = connection

    def read_ended(self) -> None:
        swallowed, self._reader.swallowed = self._reader.swallowed, 0
        self._connection.bytes_received += swallowed
        self._sink.read_ended()


def _in_the_kernel(sock: socket.socket) -> int:
    """Bytes that were written and not acknowledged yet; 0 where the system does not tell."""
    count = bytearray(4)
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    except (OSError, ValueError):
        return 0
    return int.from_bytes(count, sys.byteorder)


def close_reason(error: BaseException) -> CloseReason:
    """What pika's exception means."""
    causes = list(_causes(error))
    text = _sentence(causes[-1])
    code = next(
        (c.reply_code for c in causes if isinstance(c, pika_errors.ConnectionClosed | pika_errors.ChannelClosed)), None
    )
    if isinstance(error, pika_errors.ChannelClosedByBroker):
        return CloseReason(RecoveryAction.RECOVER, text, code, denied=code == 403)
    if isinstance(error, pika_errors.ProbableAuthenticationError | pika_errors.ProbableAccessDeniedError):
        # Pika keeps the broker's words only as text; a node that just went away mid-handshake says nothing of the kind.
        refused = "(403)" in text or ("(530)" in text and "limit" not in text)
        return CloseReason(
            RecoveryAction.GIVE_UP if refused else RecoveryAction.RECOVER,
            _broker_words(text),
            403 if refused else None,
            refused,
        )
    if code in (403, 530) and "limit" not in text:
        return CloseReason(RecoveryAction.GIVE_UP, text, code, denied=True)
    if any(isinstance(c, ssl.SSLCertVerificationError) for c in causes):
        return CloseReason(RecoveryAction.GIVE_UP, f"the certificate was not accepted: {text}")
    return CloseReason(RecoveryAction.RECOVER, text, code)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that pika wrapped into each other, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        inner = getattr(seen, "exceptions", None) or (getattr(seen, "exception", None), *seen.args)
        seen = next((e for e in reversed(tuple(inner)) if isinstance(e, BaseException)), None)


def _sentence(error: BaseException) -> str:
    match error:
        case pika_errors.ConnectionClosed() | pika_errors.ChannelClosed():
            text = str(error.reply_text)
        case pika_errors.ConnectionOpenAborted():
            text = f"it did not answer the AMQP handshake within {STACK_TIMEOUT_S:g} s"
        case ConnectionAbortedError():
            text = str(error)
        case pika_errors.AMQPHeartbeatTimeout():
            text = "no heartbeat came"
        case socket.gaierror():
            text = f"the host name is not known ({error.strerror})"
        case OSError() if error.strerror:
            text = error.strerror[0].lower() + error.strerror[1:]
        case pika_errors.IncompatibleProtocolError() | pika_errors.StreamLostError():
            text = _broker_words(str(error))
        case _:
            text = str(error) or type(error).__name__
    return visible(text)


def _broker_words(text: str) -> str:
    """The broker's own words out of an exception that pika turned into text."""
    if "EOF" in text:
        return "the peer closed the connection"
    start = text.find(") '")
    if start < 0:
        start = text.find("Error('") + 4
        return text if start < 4 else text[start + 3 :].split("'")[0]
    return text[start + 3 :].split("'\"")[0].rstrip("')\"")


def _depth(frame: Any) -> QueueDepth:
    method = frame.method
    return QueueDepth(str(method.queue), int(method.message_count), int(method.consumer_count))


def _parameters(endpoint: NodeEndpoint, credentials: Credentials, name: str) -> Any:
    options = {}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        options["TCP_USER_TIMEOUT"] = TCP_USER_TIMEOUT_MS
    return pika.ConnectionParameters(
        host=endpoint.host,
        port=endpoint.amqp_port,
        virtual_host=endpoint.virtual_host,
        credentials=pika.PlainCredentials(credentials.username, credentials.password),
        heartbeat=HEARTBEAT_S,
        connection_attempts=1,
        retry_delay=0,
        socket_timeout=STACK_TIMEOUT_S,
        stack_timeout=STACK_TIMEOUT_S,
        ssl_options=None if endpoint.tls is None else pika.SSLOptions(tls_context(endpoint.tls), endpoint.host),
        tcp_options=options,
        client_properties={"connection_name": name, "product": "dmq", "version": __version__, "process": os.getpid()},
    )
