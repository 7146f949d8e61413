"""The first words of an AMQP conversation: who a broker is, and whether it lets a user in."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.tls import tls_context

T = TypeVar("T")
_HEADER = b"AMQP\x00\x00\x09\x01"
_START = b"\x00\x0a\x00\x0a"
_TUNE = b"\x00\x0a\x00\x1e"
_CLOSE = b"\x00\x0a\x00\x32"
_LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Greeting:
    """A broker's first words: the cluster's name and the RabbitMQ version, empty where it does not tell."""

    cluster_name: str
    version: str


def greeting(endpoint: NodeEndpoint, limit_s: float) -> Greeting | None:
    """How the broker at the AMQP port of `endpoint` greets; None if nothing there does within `limit_s`.

    `ssl.SSLError` if its TLS cannot be trusted.
    """
    return _converse(endpoint, limit_s, lambda connection, deadline: _greeting(connection, deadline))


def accepts(endpoint: NodeEndpoint, credentials: Credentials, limit_s: float) -> bool | None:
    """Whether the broker lets this user in; None if it does not say within `limit_s`. The connection ends at once."""

    def log_in(connection: socket.socket, deadline: float) -> bool | None:
        if _greeting(connection, deadline) is None:
            return None
        connection.sendall(_start_ok(credentials))
        reply = _frame(connection, deadline)[7:11]
        # A broker that does not say why simply hangs up, which it does for nothing else here.
        return reply == _TUNE if reply in (_TUNE, _CLOSE, b"") else None

    return _converse(endpoint, limit_s, log_in)


def parse_greeting(frame: bytes) -> Greeting | None:
    """The greeting in a broker's first frame; None if it is not complete or not the start of an AMQP conversation."""
    if len(frame) < 7 or frame[:3] != b"\x01\x00\x00":
        return None
    size = int.from_bytes(frame[3:7], "big")
    payload = frame[7 : 7 + size]
    if len(payload) < size or payload[:4] != _START:
        return None
    return Greeting(_text_entry(payload, b"cluster_name"), _text_entry(payload, b"version"))


def _converse(endpoint: NodeEndpoint, limit_s: float, talk: Callable[[socket.socket, float], T | None]) -> T | None:
    if endpoint.amqp_port is None:
        return None
    deadline = time.monotonic() + limit_s
    try:
        with socket.create_connection((endpoint.host, endpoint.amqp_port), timeout=limit_s) as plain:
            if endpoint.tls is None:
                return talk(plain, deadline)
            with tls_context(endpoint.tls).wrap_socket(plain, server_hostname=endpoint.host) as secured:
                return talk(secured, deadline)
    except ssl.SSLError:
        raise
    except (OSError, UnicodeError):
        return None


def _greeting(connection: socket.socket, deadline: float) -> Greeting | None:
    connection.sendall(_HEADER)
    return parse_greeting(_frame(connection, deadline))


def _frame(connection: socket.socket, deadline: float) -> bytes:
    """The next frame, or what came of it."""
    frame = b""
    while len(frame) < 7 or len(frame) < 8 + min(int.from_bytes(frame[3:7], "big"), _LONGEST):
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        part = connection.recv(_LONGEST)
        frame += part
        if not part or frame[:1] != b"\x01":
            break
    return frame


def _start_ok(credentials: Credentials) -> bytes:
    capability = b"\x1cauthentication_failure_closet\x01"
    properties = b"\x0ccapabilitiesF" + _long(capability)
    response = f"\0{credentials.username}\0{credentials.password}".encode()
    payload = b"\x00\x0a\x00\x0b" + _long(properties) + b"\x05PLAIN" + _long(response) + b"\x05en_US"
    return b"\x01\x00\x00" + _long(payload) + b"\xce"


def _long(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def _text_entry(table: bytes, name: bytes) -> str:
    """A text of the server's properties, found by its encoded name: the whole table need not be understood."""
    before, found, after = table.partition(bytes([len(name)]) + name + b"S")
    del before
    size = int.from_bytes(after[:4], "big") if found and len(after) >= 4 else 0
    return after[4 : 4 + size].decode(errors="replace")
