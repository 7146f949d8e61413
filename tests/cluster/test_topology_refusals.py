"""The rules on topology against real brokers: what they call refused is refused, and everything else is taken."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import pika
import pika.exceptions
from clients import connect

from dmq_core.cluster.protocol import Cluster
from dmq_core.messaging.topology.lint import LintSeverity, judge
from dmq_core.messaging.topology.model import Binding, Entity, Exchange, Queue
from dmq_core.versions import Version, parse_version

NAME = "test.rules"
READY_S = 60.0
INTERNAL_ERROR = 541
VALUES: dict[str, tuple[object, ...]] = {
    "x-message-ttl": (0, -1, "1", True, 315_360_000_000, 315_360_000_001),
    "x-expires": (0, -1, 1, "1", 315_360_000_001),
    "x-max-length": (0, -1, 1, "1", True),
    "x-max-length-bytes": (0, -1, "1"),
    "x-max-in-memory-length": (1, -1),
    "x-max-priority": (0, -1, 255, 256, "1"),
    "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx", "x", 1),
    "x-single-active-consumer": (True, False, "true", 1),
    "x-queue-leader-locator": ("client-local", "balanced", "min-masters", "x", 1),
    "x-dead-letter-exchange": ("", "nope", 1),
    "x-dead-letter-routing-key": ("k",),
    "x-dead-letter-strategy": ("at-least-once", "at-most-once", "x"),
    "x-delivery-limit": (5, 0, -1, "5"),
    "x-quorum-initial-group-size": (1, 0, -1, "1"),
    "x-delayed-retry-type": ("failed", "x", 1),
    "x-delayed-retry-min": (100, 0, "1"),
    "x-delayed-retry-max": (100, 0, "1"),
    "x-queue-mode": ("lazy", "default"),
    "x-queue-version": (1, 2, 3, "2"),
    "x-max-age": ("7D", "7X", "0D", 7),
    "x-stream-max-segment-size-bytes": (1_000_000, -1, "1"),
    "x-stream-filter-size-bytes": (16, 15, 255, 256),
    "x-initial-cluster-size": (1, 0, "1"),
    "x-consumer-timeout": (60_000, -1),
    "x-consumer-disconnected-timeout": (1000, -1),
    "x-ha-policy": ("all",),
    "x-unheard-of": (1,),
    "owner": ("billing",),
}


def cases() -> Iterator[Entity]:
    for kind in ("classic", "quorum", "stream"):
        for name, values in VALUES.items():
            yield from (Queue(NAME, kind, arguments={name: value}) for value in values)
        yield Queue("", kind)
        for change in ({"durable": False}, {"exclusive": True}, {"auto_delete": True}):
            yield Queue(NAME, kind, **change)  # type: ignore[arg-type]  # each is a flag of its own
    yield Queue(NAME, "unheard-of")
    yield Queue("amq.mine", "classic")
    yield Exchange("")
    yield Exchange("amq.mine")
    yield Exchange("amq.topic", "topic")
    yield Exchange("amq.topic", "direct")
    yield Exchange(NAME, "topic", arguments={"alternate-exchange": 1})
    yield Exchange(NAME, "topic", arguments={"alternate-exchange": "nope", "x-unheard-of": 1})
    yield Binding("", NAME, "k")
    for match in ("all", "any", "any-with-x", "x"):
        yield Binding("amq.headers", "amq.match", arguments={"x-match": match, "a": 1}, to_exchange=True)


def refused_by_broker(cluster: Cluster) -> Iterator[tuple[Entity, str]]:
    """Each case with the broker's words where it refuses, and without where it does not."""
    endpoint = cluster.nodes()[0].endpoint
    connection = connect(endpoint, cluster.credentials)
    channel = connection.channel()
    attempts = itertools.count()
    for entity in cases():
        deadline = time.monotonic() + READY_S
        while (words := words_on(channel, _under_a_new_name(entity, next(attempts)))) is None:
            assert time.monotonic() < deadline, f"the cluster forms no queue for {entity}"
            connection = connect(endpoint, cluster.credentials)
            channel = connection.channel()
        yield entity, words
        if channel.is_closed:
            channel = connection.channel()
    connection.close()


def _under_a_new_name(entity: Entity, number: int) -> Entity:
    """A quorum queue whose name was used a moment ago may find members of that one still going, and is not formed."""
    if isinstance(entity, Queue) and entity.name == NAME:
        return replace(entity, name=f"{NAME}.{number}")
    return entity


def words_on(channel: pika.adapters.blocking_connection.BlockingChannel, entity: Entity) -> str | None:
    """What the broker says against a declaration; empty if it is taken, None while the cluster is not ready for it."""
    try:
        declare(channel, entity)
    except pika.exceptions.ChannelClosedByBroker as error:
        return str(error.reply_text)
    except pika.exceptions.ConnectionClosedByBroker as error:
        # A member that has just come back from another test's fault takes a moment.
        if error.reply_code != INTERNAL_ERROR:
            raise
        return None
    return ""


def declare(channel: pika.adapters.blocking_connection.BlockingChannel, entity: Entity) -> None:
    match entity:
        case Queue():
            frame = channel.queue_declare(
                entity.name,
                durable=entity.durable,
                exclusive=entity.exclusive,
                auto_delete=entity.auto_delete,
                arguments=entity.all_arguments,
            )
            channel.queue_delete(frame.method.queue)
        case Exchange():
            channel.exchange_declare(entity.name, entity.type, durable=True, arguments=dict(entity.arguments))
            if entity.name == NAME:
                channel.exchange_delete(entity.name)
        case Binding():
            bind = channel.exchange_bind if entity.to_exchange else channel.queue_bind
            bind(entity.destination, entity.source, entity.routing_key, dict(entity.arguments))
            channel.exchange_unbind(entity.destination, entity.source, entity.routing_key, dict(entity.arguments))


def version_of(cluster: Cluster) -> Version:
    connection = connect(cluster.nodes()[0].endpoint, cluster.credentials)
    version = parse_version(connection._impl.server_properties["version"])
    connection.close()
    return version


def test_the_rules_refuse_what_the_broker_refuses_and_nothing_else(real_cluster: Cluster) -> None:
    version = version_of(real_cluster)
    wrong = []
    for entity, words in refused_by_broker(real_cluster):
        findings = [f for f in judge([entity], version) if f.severity is LintSeverity.REFUSED]
        if bool(findings) != bool(words):
            wrong.append((entity, words, findings))
    assert wrong == []
