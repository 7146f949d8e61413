"""`dmq status`: the cluster and its nodes, in words or as the contract's document."""

from __future__ import annotations

import time
from typing import Any

import click

from dmq_core.cli import connect
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import Output
from dmq_core.cluster.protocol import Cluster
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.presentation import UNKNOWN, age, count, rate, size
from dmq_core.text import visible

MANAGEMENT = "management"


@click.command()
@common_options
def status(invocation: Invocation) -> None:
    """Show the cluster and its nodes.

    Node states come from the container or process itself, so they are right even if RabbitMQ does not answer. A figure
    that is not known is shown as –, never as 0.
    """
    show_status(invocation.out, connect.find_cluster(invocation.settings))


def show_status(out: Output, cluster: Cluster) -> None:
    """Writes the status of `cluster`."""
    snapshot = connect.take_snapshot(cluster)
    if out.json:
        out.document(status_document(snapshot, time.time()))
        return
    out.text(_headline(snapshot))
    nodes_table(out, snapshot)
    for line in _remarks(snapshot):
        out.text(line)


def status_document(snapshot: ClusterSnapshot, now: float) -> dict[str, Any]:
    """The contract's document of `dmq status`; `taken_at` in epoch seconds, `age_s` of the management figures."""
    totals = snapshot.totals
    return {
        "cluster": snapshot.cluster,
        "backend": str(snapshot.backend),
        "rabbitmq": snapshot.rabbitmq,
        "nodes": [node_document(node) for node in snapshot.nodes],
        "partitions": list(snapshot.partitions),
        "totals": {
            "queues": totals.queues,
            "ready": totals.ready,
            "unacked": totals.unacked,
            "publish_rate": totals.publish_rate,
            "deliver_rate": totals.deliver_rate,
        },
        "taken_at": snapshot.taken_at,
        "age_s": age_of(snapshot, now),
    }


def node_document(node: NodeView) -> dict[str, Any]:
    """The contract's object of one node."""
    figures = node.figures
    return {
        "name": node.name,
        "state": str(node.state),
        "amqp": node.endpoint.amqp_url,
        "management": node.endpoint.management_url,
        "version": None if figures is None else figures.version,
        "leaders": node.leads,
        "connections": node.connections,
        "memory_bytes": None if figures is None else figures.memory_bytes,
        "alarms": [alarm.resource for alarm in node.alarms],
    }


def age_of(snapshot: ClusterSnapshot, now: float) -> float | None:
    """Seconds since the management API last answered, to the millisecond; None: never."""
    age = snapshot.age_s(MANAGEMENT, now)
    return None if age is None else round(age, 3)


def nodes_table(out: Output, snapshot: ClusterSnapshot) -> None:
    """Writes the nodes as a table."""
    headers = (
        "NODE",
        "STATE",
        ">LEADERS",
        ">CONNS",
        ">MEMORY",
        ">DISK FREE",
        "VERSION",
        "AMQP",
        "MANAGEMENT",
        "ALARMS",
    )
    out.table(headers, [_node_row(out, node) for node in snapshot.nodes])


def _node_row(out: Output, node: NodeView) -> tuple[str, ...]:
    figures = node.figures
    return (
        visible(node.name),
        out.state(node.state),
        count(node.leads),
        count(node.connections),
        size(None if figures is None else figures.memory_bytes),
        size(None if figures is None else figures.disk_free_bytes),
        visible((figures and figures.version) or UNKNOWN),
        node.endpoint.amqp_url or UNKNOWN,
        node.endpoint.management_url or UNKNOWN,
        ", ".join(alarm.resource for alarm in node.alarms) or UNKNOWN,
    )


def _headline(snapshot: ClusterSnapshot) -> str:
    version = f"RabbitMQ {visible(snapshot.rabbitmq)}" if snapshot.rabbitmq else "RabbitMQ version unknown"
    total, running = len(snapshot.nodes), len(snapshot.running)
    return f"{visible(snapshot.cluster)} · {snapshot.backend} · {version} · {running}/{total} nodes"


def _remarks(snapshot: ClusterSnapshot) -> list[str]:
    totals = snapshot.totals
    lines = [f"partitioned from: {visible(name)}" for name in snapshot.partitions]
    old = age_of(snapshot, time.time())
    if old is None:
        problem = next((s.problem for s in snapshot.sources if s.name == MANAGEMENT and s.problem), "")
        lines.append("no figures: no node's management API answers" + (f" ({visible(problem)})" if problem else ""))
        return lines
    queues = f"{count(totals.queues)} queue{'' if totals.queues == 1 else 's'}"
    lines.append(
        f"{queues}, {count(totals.ready)} ready, {count(totals.unacked)} unacknowledged, "
        f"in {rate(totals.publish_rate)}/s, out {rate(totals.deliver_rate)}/s"
    )
    lines.append(f"figures from {visible(snapshot.asks or UNKNOWN)}, {age(old)} ago")
    return lines
