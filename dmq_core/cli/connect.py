"""How the commands get at a cluster, a snapshot of it, or a session with it; imports what is heavy only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dmq_core.errors import NotReachableError

if TYPE_CHECKING:
    from dmq_core.cluster.prerequisites import Package, Prerequisites
    from dmq_core.cluster.protocol import Cluster
    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.demo.context import DemoEnvironment
    from dmq_core.messaging.connection.connection import Connection
    from dmq_core.messaging.consuming.subscription import Subscription
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.messaging.delivery.stream_offset import Offset
    from dmq_core.messaging.publishing.publish_future import PublishFuture
    from dmq_core.messaging.publishing.publisher import Publisher
    from dmq_core.observe.snapshot import ClusterSnapshot
    from dmq_core.progress import ProgressListener
    from dmq_core.session.protocol import Session
    from dmq_core.settings.settings import Settings

OPEN_LIMIT_S = 10.0
# What was prefetched and not taken is unanswered on purpose: there is nothing to wait for.
STOP_LIMIT_S = 0.3


def find_cluster(settings: Settings) -> Cluster:
    """The cluster that the settings name.

    Raises `ClusterNotFoundError` if there is none, `NotReachableError` if no URL answers.
    """
    from dmq_core.cluster import discovery as select

    return select.find_cluster(
        settings.cluster.value, urls=settings.urls.value, credentials=settings.credentials(), tls=settings.tls()
    )


def open_for_start(settings: Settings, *, backend: str, nodes: int | None, rabbitmq: str | None) -> Cluster:
    """The cluster to start, whether it exists or not."""
    from dmq_core.cluster import discovery as select

    return select.open_cluster(
        settings.cluster.value,
        backend,
        settings.urls.value,
        nodes,
        rabbitmq,
        settings.credentials(),
        settings.tls(),
    )


def take_snapshot(cluster: Cluster) -> ClusterSnapshot:
    """What is known of the cluster now, within a few seconds, whatever is down."""
    from dmq_core.observe.one_shot import snapshot_once

    return snapshot_once(cluster)


def take_figures(settings: Settings) -> ClusterSnapshot:
    """A snapshot whose figures are of now; `NotReachableError` if no management API answers."""
    cluster = find_cluster(settings)
    snapshot = take_snapshot(cluster)
    source = next((s for s in snapshot.sources if s.name == "management"), None)
    if source is None or source.problem or source.heard_at is None:
        why = f": {source.problem}" if source is not None and source.problem else ""
        raise NotReachableError(
            f"no management API of {cluster.name} answers{why}",
            "'dmq status' shows its nodes, 'dmq start' starts them.",
        )
    return snapshot


def inspect_machine() -> Prerequisites:
    """What this machine has to run clusters with."""
    from dmq_core.cluster.prerequisites import inspect

    return inspect()


def install(packages: Sequence[Package], progress: ProgressListener) -> None:
    """Installs Debian packages where that may be done."""
    from dmq_core.cluster import prerequisites

    prerequisites.install(packages, progress)


@contextmanager
def open_session(settings: Settings) -> Iterator[Session]:
    """A session with the existing cluster that the settings name."""
    from dmq_core.session.live import LiveSession

    session = LiveSession(find_cluster(settings), read_only=settings.read_only.value)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def open_producer(settings: Settings, on_done: Callable[[PublishFuture], None]) -> Iterator[Publisher]:
    """A producer connected to the cluster; `NotReachableError` or `AccessDeniedError` if that takes over 10 s."""
    from dmq_core.messaging.publishing.publisher import Publisher

    with open_connection(settings, "dmq publish") as connection:
        producer = Publisher(connection, on_done=on_done)
        try:
            yield producer
        finally:
            producer.close(0.0)


@contextmanager
def open_consumer(
    settings: Settings,
    queue: str,
    handler: Callable[[tuple[Delivery, ...]], None],
    *,
    prefetch: int,
    offset: Offset | None = None,
) -> Iterator[Subscription]:
    """A consumer that receives from `queue`, a stream if there is an `offset`; a typed error says why it does not."""
    from dmq_core.messaging.consuming.subscription import Subscription, SubscriptionOptions

    with open_connection(settings, "dmq consume") as connection:
        consumer = Subscription(connection, queue, handler, SubscriptionOptions(prefetch=prefetch, offset=offset))
        try:
            consumer.wait_consuming(OPEN_LIMIT_S)
            yield consumer
        finally:
            consumer.stop(STOP_LIMIT_S)


@contextmanager
def open_connection(settings: Settings, name: str, vhost: str | None = None) -> Iterator[Connection]:
    """An open AMQP connection, by default in the cluster's own virtual host."""
    from dmq_core.messaging.connection.connection import Connection

    cluster = find_cluster(settings)
    endpoints = [node.endpoint for node in cluster.nodes()]
    if vhost is not None:
        endpoints = [replace(endpoint, virtual_host=vhost) for endpoint in endpoints]
    connection = Connection(endpoints, cluster.credentials, name)
    try:
        connection.wait_open(OPEN_LIMIT_S)
        yield connection
    finally:
        connection.close()


@contextmanager
def open_manager(settings: Settings, name: str) -> Iterator[BrokerConnectionManager]:
    """A connection manager that knows every node of the cluster that speaks AMQP."""
    from dmq_core.connection_manager import BrokerConnectionManager

    with BrokerConnectionManager(name=name) as manager:
        cluster = find_cluster(settings)
        manager.register_nodes(cluster.nodes(), cluster.credentials)
        yield manager


def environment(settings: Settings, cluster: Cluster, progress: ProgressListener) -> DemoEnvironment:
    """What demos are played before."""
    from dmq_core.demo.context import DemoEnvironment

    return DemoEnvironment(cluster, read_only=settings.read_only.value, progress=progress)
