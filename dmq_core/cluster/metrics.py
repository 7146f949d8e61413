"""How a node is asked for its `/metrics`: by itself alone, so that no other node can make it wait."""

from __future__ import annotations

import http.client
from contextlib import closing
from typing import Final

from dmq_core.errors import NotReachableError

METRICS_PORT: Final = 15692
METRICS_WITHIN_S: Final = 3.0
_QUESTION: Final = r"GET /metrics HTTP/1.0\r\n\r\n"


def question_inside() -> list[str]:
    """The command that asks from inside a container that has no client for HTTP, and prints the whole answer."""
    script = f"exec 3<>/dev/tcp/127.0.0.1/{METRICS_PORT} && printf '{_QUESTION}' >&3 && cat <&3"
    return ["timeout", f"{METRICS_WITHIN_S:g}", "bash", "-c", script]


def metrics_in(node: str, answer: str) -> str:
    """The text in a whole answer; `NotReachableError` if it is none."""
    head, _, body = answer.partition("\r\n\r\n")
    if f"{head} ".split(" ")[1] != "200":
        raise _silent(node)
    return body


def ask_for_metrics(node: str, host: str, port: int) -> str:
    """The text that a node serves at a port of this machine; `NotReachableError` if it does not answer."""
    connection = http.client.HTTPConnection(host, port, timeout=METRICS_WITHIN_S)
    try:
        with closing(connection):
            connection.request("GET", "/metrics", headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _silent(node) from error
    if response.status != http.client.OK:
        raise _silent(node)
    return body.decode(errors="replace")


def _silent(node: str) -> NotReachableError:
    return NotReachableError(f"{node} does not tell its counters", "Does it run, with the plugin rabbitmq_prometheus?")
