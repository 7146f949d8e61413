"""Whether a node of ours serves its clients: short questions to its ports on 127.0.0.1, each with its own bound."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import AccessDeniedError

In = TypeVar("In")
Out = TypeVar("Out")
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"


def management_answers(endpoint: NodeEndpoint, timeout_s: float = 0.2) -> bool | None:
    """Whether the management listener answers, asked without a login or the cluster's help; None if it is silent."""
    try:
        return _get(endpoint, "/", None, timeout_s)[0] < 500
    except TimeoutError:
        return None
    except (OSError, http.client.HTTPException):
        return False


def amqp_answers(endpoint: NodeEndpoint, timeout_s: float = 1.0) -> bool:
    """Whether the node greets an AMQP client."""
    if endpoint.amqp_port is None:
        return False
    try:
        with closing(socket.create_connection((endpoint.host, endpoint.amqp_port), timeout=timeout_s)) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(_AMQP_HEADER)
            # The first frame is Connection.Start: a method frame (1) on channel 0.
            return connection.recv(3) == b"\x01\x00\x00"
    except OSError:
        return False


def running_nodes(endpoint: NodeEndpoint, credentials: Credentials, timeout_s: float = 3.0) -> frozenset[str] | None:
    """The Erlang names of the nodes that this one sees running; None if it does not answer or has no answer yet.

    `AccessDeniedError` if it knows these credentials not.
    """
    try:
        status, body = _get(endpoint, "/api/nodes?columns=name,running", credentials, timeout_s)
    except (OSError, http.client.HTTPException):
        return None
    if status == http.client.UNAUTHORIZED:
        raise AccessDeniedError(
            f"{endpoint.management_url} does not accept the user {credentials.username}",
            "Give the user and DMQ_PASSWORD that the cluster was made with.",
        )
    if status != http.client.OK:
        return None
    try:
        return frozenset(node["name"] for node in json.loads(body) if node.get("running"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def partitioned(endpoint: NodeEndpoint, credentials: Credentials, timeout_s: float = 1.5) -> bool:
    """Whether the node tells of any partition between nodes; False if it does not answer."""
    try:
        status, body = _get(endpoint, "/api/nodes?columns=partitions", credentials, timeout_s)
        return status == http.client.OK and any(node.get("partitions") for node in json.loads(body))
    except (OSError, http.client.HTTPException, ValueError, TypeError, AttributeError):
        return False


def whole(endpoints: Sequence[NodeEndpoint], expected: frozenset[str], credentials: Credentials) -> bool:
    """Whether every endpoint serves AMQP and management and sees exactly the `expected` nodes running."""
    return all(side_by_side(lambda e: running_nodes(e, credentials) == expected and amqp_answers(e), endpoints))


def side_by_side(question: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """`question` of each item, asked at the same time; answers in the order of the items."""
    if len(items) < 2:
        return [question(item) for item in items]
    with ThreadPoolExecutor(max_workers=len(items), thread_name_prefix="dmq-ask") as pool:
        return list(pool.map(question, items))


def _get(endpoint: NodeEndpoint, path: str, credentials: Credentials | None, timeout_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.management_port, timeout=timeout_s)
    headers = {"Connection": "close"}
    if credentials is not None:
        pair = f"{credentials.username}:{credentials.password}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
    with closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
