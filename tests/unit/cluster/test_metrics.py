"""What a node tells at `/metrics`: the text where there is one, and a plain error where not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dmq_core.cluster.metrics import ask_for_metrics, metrics_in
from dmq_core.errors import NotReachableError


class Broker(BaseHTTPRequestHandler):
    """Serves metrics, and nothing else."""

    def do_GET(self) -> None:
        known = self.path == "/metrics"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(b"a_total 1\n" if known else b"")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Broker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_text_of_a_node_is_what_it_serves(port: int) -> None:
    assert ask_for_metrics("rmq1", "127.0.0.1", port) == "a_total 1\n"


def test_a_closed_port_is_not_reachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(NotReachableError, match="rmq1 does not tell its counters"):
            ask_for_metrics("rmq1", "127.0.0.1", free.getsockname()[1])


@pytest.mark.parametrize(
    "answer", ["", "HTTP/1.0", "HTTP/1.1 503 no\r\n\r\nx", "bash: connect: Connection refused\nbash: /dev/tcp: no\n"]
)
def test_an_answer_from_inside_that_is_none_is_not_reachable(answer: str) -> None:
    with pytest.raises(NotReachableError):
        metrics_in("rmq1", answer)


def test_an_answer_from_inside_is_its_body() -> None:
    assert metrics_in("rmq1", "HTTP/1.1 200 OK\r\na: b\r\n\r\nb_total 2\n") == "b_total 2\n"
