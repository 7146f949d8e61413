"""What tests do as clients of a broker, with plain pika, so that they do not rest on the code they test."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from dmq_core.cluster.docker import engine as docker_engine
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.installation import find_installation
from dmq_core.cluster.local.node import control, places
from dmq_core.cluster.local.state import read_state
from dmq_core.cluster.protocol import Backend, Cluster, NodeInfo
from dmq_core.endpoints import Credentials, NodeEndpoint

ClusterMaker = Callable[..., Cluster]


def _one_side_is_thorough(thorough: Backend) -> pytest.MarkDecorator:
    sides = []
    for backend in (Backend.DOCKER, Backend.LOCAL):
        marks = [pytest.mark.real, getattr(pytest.mark, str(backend))]
        marks += [pytest.mark.thorough] if backend is thorough else []
        sides.append(pytest.param(backend, marks=marks, id=str(backend)))
    return pytest.mark.parametrize("backend", sides, indirect=True)


# For tests that show the same on both backends: `make test` runs them on one, `make thorough` on both.
mostly_on_docker = _one_side_is_thorough(Backend.LOCAL)
mostly_on_local = _one_side_is_thorough(Backend.DOCKER)


def node(cluster: Cluster, name: str) -> NodeInfo:
    """The node called `name`, as the backend tells it now."""
    return next(n for n in cluster.nodes() if n.name == name)


def connect(endpoint: NodeEndpoint, credentials: Credentials | None = None) -> pika.BlockingConnection:
    """An open connection to one node."""
    user = credentials or Credentials()
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            endpoint.host,
            endpoint.amqp_port,
            credentials=pika.PlainCredentials(user.username, user.password),
            blocked_connection_timeout=10,
            socket_timeout=5,
            stack_timeout=10,
        )
    )


@contextlib.contextmanager
def channel(endpoint: NodeEndpoint, credentials: Credentials | None = None) -> Iterator[BlockingChannel]:
    """A channel on a connection of its own."""
    connection = connect(endpoint, credentials)
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


def publish(endpoint: NodeEndpoint, queue: str, bodies: Iterable[str], kind: str = "quorum") -> None:
    """Declares a durable queue and publishes persistent messages into it, each confirmed."""
    with channel(endpoint) as ch:
        ch.queue_declare(queue, durable=True, arguments={"x-queue-type": kind})
        ch.confirm_delivery()
        for body in bodies:
            ch.basic_publish("", queue, body.encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)


def drain(endpoint: NodeEndpoint, queue: str, count: int, limit_s: float = 20.0) -> list[str]:
    """Takes `count` messages, or those that come within `limit_s`, and deletes the queue."""
    taken: list[str] = []
    deadline = time.monotonic() + limit_s
    with channel(endpoint) as ch:
        for method, _, body in ch.consume(queue, auto_ack=True, inactivity_timeout=0.1):
            if method is not None:
                taken.append(body.decode())
            if len(taken) >= count or time.monotonic() > deadline:
                break
        ch.cancel()
        ch.queue_delete(queue)
    return taken


def await_until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Returns when `condition` holds; fails with `what` if it does not within `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def rabbitmqctl(cluster: Cluster, node: str, *command: str) -> None:
    """Runs a command of RabbitMQ's own in a node of either backend; fails if the command does."""
    if isinstance(cluster, LocalCluster):
        state, installation = read_state(cluster.folder), find_installation()
        assert state is not None
        assert installation is not None
        place = next(place for place in places(cluster.folder, state) if place.node.name == node)
        control(place, state, installation, *command, limit_s=20)
        return
    engine = docker_engine.connect()
    try:
        status, said = engine.run_in(f"dmq-{cluster.name}-{node}", ["rabbitmqctl", *command], "rabbitmq")
    finally:
        engine.close()
    assert status == 0, said
