"""The chaos proxy between two plain sockets: what passes, what does not, and what is left when it is closed."""

from __future__ import annotations

import doctest
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients import await_until
from hypothesis import given, settings
from hypothesis import strategies as st

from dmq_core.chaos import proxy
from dmq_core.chaos.rules import ConnectionFault, FrameTrigger
from dmq_core.errors import InvalidInputError, MessagingError, NotReachableError
from dmq_core.testing import ChaosProxy, Direction, ProtocolStep, Which

GREETING = b"AMQP\x00\x00\x09\x01"
BODY, METHOD = 3, 1
METHODS = {
    ProtocolStep.START: (10, 10),
    ProtocolStep.TUNE: (10, 30),
    ProtocolStep.OPEN: (10, 40),
    ProtocolStep.CHANNEL: (20, 10),
    ProtocolStep.DECLARE: (50, 10),
    ProtocolStep.CONSUME: (60, 20),
}
FROM_BROKER = (ProtocolStep.START, ProtocolStep.TUNE)


def frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(number: tuple[int, int], arguments: bytes = b"") -> bytes:
    return frame(METHOD, struct.pack(">HH", *number) + arguments)


ACK, NACK, DELIVER = method((60, 80), b"\0" * 9), method((60, 120), b"\0" * 9), method((60, 60), b"\1c" + b"\0" * 11)
HEARTBEAT = frame(8, b"", 0)


class Broker:
    """A server that takes connections and leaves them to the test."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(5)
        self.port: int = self._server.getsockname()[1]

    def accepted(self) -> socket.socket:
        sock, _ = self._server.accept()
        sock.settimeout(5)
        return sock

    def close(self) -> None:
        self._server.close()


class Ends:
    """Both ends of one connection through a proxy."""

    def __init__(self, port: int, broker: Broker) -> None:
        self.client = socket.create_connection(("127.0.0.1", port), 5)
        self.broker = broker.accepted()

    def greet(self) -> Ends:
        self.client.sendall(GREETING)
        assert got(self.broker, len(GREETING)) == GREETING
        return self

    def close(self) -> None:
        self.client.close()
        self.broker.close()


def got(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes, or what came before the end."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return bytes(data)


def is_silent(sock: socket.socket, seconds: float = 0.2) -> bool:
    """Whether nothing comes, not even an end."""
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5)
    return False


@pytest.fixture
def broker() -> Iterator[Broker]:
    server = Broker()
    yield server
    server.close()


@pytest.fixture
def chaos(broker: Broker) -> Iterator[ChaosProxy]:
    with ChaosProxy("127.0.0.1", broker.port) as running:
        yield running


@pytest.fixture
def connected(chaos: ChaosProxy, broker: Broker) -> Iterator[Callable[[], Ends]]:
    made: list[Ends] = []

    def connect() -> Ends:
        made.append(Ends(chaos.port, broker))
        return made[-1]

    yield connect
    for ends in made:
        ends.close()


def test_without_a_fault_everything_passes_and_is_counted(chaos: ChaosProxy, connected: Callable[[], Ends]) -> None:
    ends = connected().greet()
    ends.broker.sendall(method(METHODS[ProtocolStep.START]))
    assert got(ends.client, 12) == method(METHODS[ProtocolStep.START])
    counts = chaos.counts
    assert (counts.accepted, counts.open, counts.to_broker, counts.to_client) == (1, 1, 8, 12)
    assert (counts.dropped, counts.triggered) == (0, 0)
    ends.close()
    await_until(lambda: chaos.counts.open == 0, 5, "the connection is forgotten")


PIECES = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


@settings(max_examples=25)
@given(greeting=st.sampled_from([GREETING, b"", b"\x16\x03\x01"]), up=PIECES, down=PIECES)
def test_whatever_comes_in_whatever_pieces_arrives_unchanged(
    greeting: bytes, up: list[bytes], down: list[bytes]
) -> None:
    server = Broker()
    with ChaosProxy("127.0.0.1", server.port) as running:
        ends = Ends(running.port, server)
        for sock, pieces in ((ends.client, [greeting, *up]), (ends.broker, down)):
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
        assert got(ends.broker, 10_000) == greeting + b"".join(up)
        assert got(ends.client, 10_000) == b"".join(down)
        ends.close()
    server.close()


@pytest.mark.parametrize("direction", list(Direction))
def test_a_stall_of_one_direction_leaves_the_other_and_loses_nothing(
    chaos: ChaosProxy, connected: Callable[[], Ends], direction: Direction
) -> None:
    ends = connected().greet()
    chaos.stall(direction)
    source, target = (ends.client, ends.broker) if direction is Direction.TO_BROKER else (ends.broker, ends.client)
    source.sendall(HEARTBEAT)
    target.sendall(HEARTBEAT)
    assert got(source, 8) == HEARTBEAT
    assert is_silent(target)
    chaos.heal()
    assert got(target, 8) == HEARTBEAT


def test_a_stall_of_future_connections_takes_them_on_and_dials_the_broker_once_healed(
    chaos: ChaosProxy, broker: Broker, connected: Callable[[], Ends]
) -> None:
    before = connected().greet()
    chaos.stall_at(ProtocolStep.CONNECT)
    client = socket.create_connection(("127.0.0.1", chaos.port), 5)
    client.sendall(GREETING)
    assert is_silent(client)
    before.client.sendall(HEARTBEAT)
    assert got(before.broker, 8) == HEARTBEAT, "the connection that was there is spared"
    assert chaos.counts.open == 2
    chaos.heal()
    late = broker.accepted()
    assert got(late, 8) == GREETING
    client.close()
    late.close()


def test_refused_connections_find_the_same_port_again_when_healed(
    chaos: ChaosProxy, connected: Callable[[], Ends]
) -> None:
    before = connected().greet()
    chaos.refuse()
    chaos.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", chaos.port), 5)
    before.client.sendall(HEARTBEAT)
    assert got(before.broker, 8) == HEARTBEAT
    chaos.heal()
    connected().greet()


def test_a_reset_is_felt_on_both_sides(chaos: ChaosProxy, connected: Callable[[], Ends]) -> None:
    ends = connected().greet()
    chaos.reset()
    for sock in (ends.client, ends.broker):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert chaos.counts.open == 0
    connected().greet()


def test_a_disconnect_is_a_plain_end_on_both_sides(chaos: ChaosProxy, connected: Callable[[], Ends]) -> None:
    ends = connected().greet()
    chaos.stall()
    ends.client.sendall(HEARTBEAT)
    chaos.disconnect()
    assert ends.client.recv(1) == b""
    assert ends.broker.recv(1) == b""


def test_future_connections_can_be_reset_as_they_come(chaos: ChaosProxy, connected: Callable[[], Ends]) -> None:
    before = connected().greet()
    chaos.reset(Which.FUTURE)
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", chaos.port), 5) as client:
        client.recv(1)
    before.client.sendall(HEARTBEAT)
    assert got(before.broker, 8) == HEARTBEAT


def test_the_end_of_one_side_is_passed_on_and_the_other_may_still_speak(connected: Callable[[], Ends]) -> None:
    ends = connected().greet()
    ends.client.shutdown(socket.SHUT_WR)
    assert ends.broker.recv(1) == b""
    ends.broker.sendall(HEARTBEAT)
    assert got(ends.client, 8) == HEARTBEAT


def test_a_broker_that_is_not_there_resets_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with (
        ChaosProxy("127.0.0.1", port) as running,
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", running.port), 5) as client,
    ):
        client.recv(1)


@pytest.mark.parametrize("into", [0, 1, 7, 200, 207, 1000])
def test_a_cut_passes_so_many_bytes_of_the_frame_and_no_more(
    chaos: ChaosProxy, connected: Callable[[], Ends], into: int
) -> None:
    ends = connected().greet()
    chaos.cut_at(ProtocolStep.MID_BODY, into)
    body = frame(BODY, b"x" * 200)
    ends.client.sendall(HEARTBEAT + body + HEARTBEAT)
    expected = HEARTBEAT + body[: min(into, len(body) - 1)]
    assert got(ends.broker, len(expected)) == expected
    with pytest.raises(ConnectionResetError):
        ends.broker.recv(1)
    with pytest.raises(ConnectionResetError):
        ends.client.recv(1)
    assert chaos.counts.triggered == 1


@pytest.mark.parametrize("step", METHODS)
def test_from_a_step_on_nothing_passes_either_way(
    chaos: ChaosProxy, connected: Callable[[], Ends], step: ProtocolStep
) -> None:
    chaos.stall_at(step)
    ends = connected().greet()
    speaker, listener = (ends.broker, ends.client) if step in FROM_BROKER else (ends.client, ends.broker)
    others = b"".join(method(number) for other, number in METHODS.items() if other is not step)
    speaker.sendall(others + method(METHODS[step]) + HEARTBEAT)
    assert got(listener, len(others)) == others
    assert is_silent(listener)
    listener.sendall(HEARTBEAT)
    assert is_silent(speaker)
    assert chaos.counts.triggered == 1
    chaos.heal()
    assert got(listener, 20) == method(METHODS[step]) + HEARTBEAT
    assert got(speaker, 8) == HEARTBEAT


def test_a_stall_in_the_middle_of_a_body_lets_half_of_it_pass(chaos: ChaosProxy, connected: Callable[[], Ends]) -> None:
    ends = connected().greet()
    chaos.stall_at(ProtocolStep.MID_BODY, direction=Direction.TO_CLIENT)
    body = frame(BODY, b"x" * 92)
    ends.client.sendall(body)
    assert got(ends.broker, 100) == body, "only the broker's bodies are meant"
    ends.broker.sendall(body)
    assert got(ends.client, 50) == body[:50]
    assert is_silent(ends.client)


def test_acks_and_nacks_of_the_broker_are_swallowed_however_they_are_split(
    chaos: ChaosProxy, connected: Callable[[], Ends]
) -> None:
    ends = connected().greet()
    chaos.drop_acks()
    for byte in ACK + HEARTBEAT + NACK + DELIVER + ACK:
        ends.broker.sendall(bytes([byte]))
    assert got(ends.client, 8 + len(DELIVER)) == HEARTBEAT + DELIVER
    ends.client.sendall(ACK)
    assert got(ends.broker, len(ACK)) == ACK, "a consumer's acks pass"
    await_until(lambda: chaos.counts.dropped == 3, 5, "all three are counted")
    chaos.heal()
    ends.broker.sendall(ACK)
    assert got(ends.client, len(ACK)) == ACK


def test_a_delay_keeps_the_order_and_comes_each_way(chaos: ChaosProxy, connected: Callable[[], Ends]) -> None:
    ends = connected().greet()
    chaos.delay(0.1, jitter_s=0.05)
    began = time.monotonic()
    for number in range(20):
        ends.client.sendall(frame(BODY, bytes([number])))
    assert got(ends.broker, 180) == b"".join(frame(BODY, bytes([number])) for number in range(20))
    ends.broker.sendall(HEARTBEAT)
    assert got(ends.client, 8) == HEARTBEAT
    assert time.monotonic() - began >= 0.2


def test_a_throttled_way_takes_its_time_and_the_other_does_not(
    chaos: ChaosProxy, connected: Callable[[], Ends]
) -> None:
    ends = connected().greet()
    chaos.throttle(50_000, Direction.TO_BROKER)
    began = time.monotonic()
    ends.client.sendall(b"\x08" + b"\0" * 6 + b"\xce" + frame(BODY, b"x" * 20_000))
    ends.broker.sendall(frame(BODY, b"x" * 200_000))
    assert len(got(ends.client, 200_008)) == 200_008
    assert chaos.counts.to_broker < 20_000, "the other way is still at it"
    assert len(got(ends.broker, 20_016)) == 20_016
    assert time.monotonic() - began >= 0.35


def test_a_receiver_that_does_not_read_stops_the_sender_and_loses_nothing(connected: Callable[[], Ends]) -> None:
    ends = connected().greet()
    whole = frame(BODY, b"x" * 100_000)
    frames, sent = 600, 0

    def send() -> None:
        nonlocal sent
        ends.client.settimeout(20)
        for _ in range(frames):
            ends.client.sendall(whole)
            sent += 1

    sender = threading.Thread(target=send)
    sender.start()
    await_until(lambda: stands_still(lambda: sent), 10, "the sender has to wait")
    assert sent < frames // 2, "the proxy holds a bounded part"
    assert got(ends.broker, frames * len(whole)) == frames * whole
    sender.join(10)


def stands_still(value: Callable[[], int]) -> bool:
    before = value()
    time.sleep(0.2)
    return before == value() > 0


def test_faults_that_make_no_sense_are_refused(chaos: ChaosProxy) -> None:
    for nonsense in (lambda: chaos.delay(-1), lambda: chaos.throttle(0), lambda: chaos.cut_at(ProtocolStep.CONNECT)):
        with pytest.raises(InvalidInputError):
            nonsense()
    with pytest.raises(NotReachableError, match="not known"):
        ChaosProxy("no.such.host.invalid", 5672)


def test_closed_proxies_leave_no_thread_and_no_descriptor(broker: Broker) -> None:
    def cycle() -> None:
        running = ChaosProxy("127.0.0.1", broker.port)
        ends, more = Ends(running.port, broker), Ends(running.port, broker)
        ends.greet()
        running.stall(which=Which.EXISTING)
        running.close()
        running.close()
        assert ends.client.recv(1) == b""
        assert more.broker.recv(1) == b""
        ends.close()
        more.close()
        with pytest.raises(MessagingError, match="closed"):
            running.heal()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port), 5)

    cycle()
    before = open_things()
    for _ in range(50):
        cycle()
    assert open_things() == before


def open_things() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@given(into=st.integers(0, 1 << 40) | st.none(), payload=st.binary(max_size=300))
def test_a_sprung_trap_never_passes_a_whole_frame(into: int | None, payload: bytes) -> None:
    whole = frame(BODY, payload)
    trigger = FrameTrigger(ConnectionFault.RESET, ProtocolStep.MID_BODY, into)
    assert trigger.is_triggered_by(whole)
    assert 0 <= trigger.bytes_passed(whole) < len(whole)


def test_the_example_in_its_docstring_runs() -> None:
    outcome = doctest.testmod(proxy)
    assert outcome.attempted > 0
    assert outcome.failed == 0
