"""A small HTTP server on 127.0.0.1 that misbehaves as it is told to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

Behaviour = Callable[[socket.socket, str], None]


class Web:
    """Answers each request by what `behave` does with the socket and the path; remembers which paths were asked."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[str] = []
        self.heads: list[str] = []
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def stopped(self) -> threading.Event:
        return self._stop

    def die(self) -> None:
        """As a killed node: every connection breaks, new ones are refused."""
        self._stop.set()
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            while (head := _head(sock)) is not None:
                path = head.split(" ", 2)[1]
                self.asked.append(path)
                self.heads.append(head)
                self.behave(sock, path)


@contextlib.contextmanager
def serving(behave: Behaviour) -> Iterator[Web]:
    web = Web(behave)
    try:
        yield web
    finally:
        web.die()


def reply(sock: socket.socket, body: bytes, status: str = "200 OK", more: str = "") -> None:
    sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body)


def says(document: object, status: str = "200 OK") -> Behaviour:
    return lambda sock, _path: reply(sock, json.dumps(document).encode(), status)


def frozen(sock: socket.socket, _path: str) -> None:
    """Takes the request and never answers; the other end goes, or thirty seconds pass."""
    sock.settimeout(30)
    sock.recv(1)


def gathering(document: object, seconds: float) -> Behaviour:
    """Answers `whoami` at once and everything else late."""

    def behave(sock: socket.socket, path: str) -> None:
        if "whoami" not in path:
            time.sleep(seconds)  # the lateness that is tested
        reply(sock, json.dumps({"name": "guest", "tags": []} if "whoami" in path else document).encode())

    return behave


def trickling(sock: socket.socket, path: str) -> None:
    """Sends a body a byte at a time, for ever, but answers `whoami`."""
    if "whoami" in path:
        reply(sock, b'{"name":"guest"}')
        return
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[")
    for _ in range(600):
        sock.sendall(b" ")
        time.sleep(0.05)  # the slowness that is tested


def _head(sock: socket.socket) -> str | None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(4096)
        if not chunk:
            return None
        data += chunk
    return data.decode("latin-1")
