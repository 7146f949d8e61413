"""What a management API would tell of the simulated cluster."""

from __future__ import annotations

from dataclasses import replace

from dmq_core.cluster.protocol import NodeState
from dmq_core.errors import NotReachableError
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.management.models import (
    Alarm,
    BindingFigures,
    ConnectionFigures,
    ExchangeFigures,
    NodeFigures,
    Overview,
    QueueFigures,
)
from dmq_core.observe.management_poll import ManagementFigures
from dmq_core.testing.simulation.broker import SimBroker, SimNode, SimQueue

VERSION = "4.3.6"
_GIB = 1 << 30
_AMQP = "AMQP 0-9-1"
Place = tuple[str, str]
"""The role of a client, and the node that it is connected to."""


def figures_of(broker: SimBroker, clients: tuple[Place, ...]) -> ManagementFigures:
    """One reading, by the first node that serves; `NotReachableError` if none does."""
    serving = broker.serving()
    if broker.management_problem or not serving:
        raise NotReachableError(broker.management_problem or "no node answers")
    now, first = broker.now, serving[0]
    asked = ManagementEndpoint(first.name, first.endpoint.management_url or "")
    queues = tuple(_queue(broker, queue) for queue in broker.queues.values())
    return ManagementFigures(
        began_at=now,
        taken_at=now,
        counted_at=now,
        asked=asked,
        overview_asked=asked,
        overview=Overview(broker.name, first.erlang_name, VERSION),
        nodes=tuple(_node(broker, node) for node in broker.nodes.values()),
        exchanges=tuple(_exchange(broker, exchange) for exchange in broker.exchanges.values()),
        queues=queues,
        bindings=(*(BindingFigures(q.vhost, "", q.name, "queue", q.name) for q in queues), *broker.bindings),
        connections=tuple(_connection(broker, number, client) for number, client in enumerate(clients)),
        alarms=tuple(Alarm(broker.nodes[name].erlang_name, resource) for name, resource in sorted(broker.alarms)),
    )


def _node(broker: SimBroker, node: SimNode) -> NodeFigures:
    if not node.serves:
        rests = node.state is NodeState.DRAINING
        return NodeFigures(node.erlang_name, running=rests, being_drained=rests)
    return NodeFigures(
        node.erlang_name,
        running=True,
        version=VERSION,
        memory_bytes=node.memory_bytes(broker.now),
        memory_limit_bytes=4 * _GIB,
        disk_free_bytes=71 * _GIB,
        disk_limit_bytes=50_000_000,
        memory_alarm=(node.name, "memory") in broker.alarms,
        disk_alarm=(node.name, "disk") in broker.alarms,
        files_used=110,
        files_total=65_536,
        sockets_used=4,
        processes_used=560,
        uptime_ms=int((broker.now - node.up_since) * 1000),
        being_drained=False,
    )


def _exchange(broker: SimBroker, exchange: ExchangeFigures) -> ExchangeFigures:
    return replace(exchange, published_in=broker.entered.get(exchange.key, 0), publish_in_rate=0.0)


def _queue(broker: SimBroker, queue: SimQueue) -> QueueFigures:
    available = broker.available(queue)
    leader = queue.leader if available or not queue.replicated else None
    return replace(
        queue.figures,
        state="running" if available else ("minority" if queue.replicated else "down"),
        leader=_erlang(broker, leader),
        members=tuple(broker.nodes[name].erlang_name for name in queue.members),
        online=tuple(broker.nodes[name].erlang_name for name in broker.online(queue)),
        ready=len(queue.messages),
        unacked=queue.unacked,
        consumers=queue.consumers,
        memory_bytes=142_000 + 2_000 * len(queue.messages),
        published=int(queue.published),
        delivered=int(queue.delivered),
        acked=int(queue.delivered),
        redelivered=queue.redelivered,
        publish_rate=0.0,
        deliver_rate=0.0,
        ack_rate=0.0,
        redeliver_rate=0.0,
    )


def _connection(broker: SimBroker, number: int, client: Place) -> ConnectionFigures:
    (role, node), port = client, 40_000 + number
    return ConnectionFigures(
        name=f"127.0.0.1:{port} -> 127.0.0.1:5672",
        node=_erlang(broker, node),
        vhost="/",
        user="guest",
        client_name=f"dmq {role}",
        protocol=_AMQP,
        state="running",
        channels=1,
        peer_host="127.0.0.1",
        peer_port=port,
        connected_at_ms=int(broker.now * 1000),
        receive_rate=0.0,
        send_rate=0.0,
    )


def _erlang(broker: SimBroker, name: str | None) -> str | None:
    return None if name is None else broker.nodes[name].erlang_name
