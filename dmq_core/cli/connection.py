"""`dmq connection`: list client connections."""

from __future__ import annotations

import time
from typing import Any

import click

from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.status import age_of
from dmq_core.management.models import ConnectionFigures
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import UNKNOWN, count
from dmq_core.text import visible


@click.command(name="list")
@common_options
def list_connections(invocation: Invocation) -> None:
    """List client connections with their node, user and rates."""
    snapshot = connect.take_figures(invocation.settings)
    if invocation.out.json:
        invocation.out.document([_document(c, snapshot) for c in snapshot.connections])
        return
    invocation.out.table(
        ("CONNECTION", "CLIENT", "NODE", "USER", "VHOST", "STATE", ">CHANNELS", ">IN kB/s", ">OUT kB/s"),
        [_row(c, snapshot) for c in snapshot.connections],
    )


def _row(connection: ConnectionFigures, snapshot: ClusterSnapshot) -> tuple[str, ...]:
    return (
        visible(connection.name),
        visible(connection.client_name or UNKNOWN),
        visible(_node_name(connection, snapshot) or UNKNOWN),
        visible(connection.user or UNKNOWN),
        visible(connection.vhost or UNKNOWN),
        visible(connection.state or UNKNOWN),
        count(connection.channels),
        _kilobytes(connection.receive_rate),
        _kilobytes(connection.send_rate),
    )


def _kilobytes(rate: float | None) -> str:
    return UNKNOWN if rate is None else f"{rate / 1000:.1f}"


def _node_name(connection: ConnectionFigures, snapshot: ClusterSnapshot) -> str | None:
    node = snapshot.node(connection.node) if connection.node else None
    return connection.node if node is None else node.name


def _document(connection: ConnectionFigures, snapshot: ClusterSnapshot) -> dict[str, Any]:
    return {
        "name": connection.name,
        "client_name": connection.client_name,
        "node": _node_name(connection, snapshot),
        "user": connection.user,
        "vhost": connection.vhost,
        "protocol": connection.protocol,
        "state": connection.state,
        "channels": connection.channels,
        "peer_host": connection.peer_host,
        "peer_port": connection.peer_port,
        "receive_rate": connection.receive_rate,
        "send_rate": connection.send_rate,
        "age_s": age_of(snapshot, time.time()),
    }


connection = LazyGroup(name="connection", help="List client connections.", entries={}, commands=[list_connections])
