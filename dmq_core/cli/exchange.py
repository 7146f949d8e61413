"""`dmq exchange`: list exchanges."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import click

from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.status import age_of
from dmq_core.management.models import EntityKey, ExchangeFigures
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import rate
from dmq_core.text import visible


@click.command(name="list")
@common_options
def list_exchanges(invocation: Invocation) -> None:
    """List exchanges with their type, bindings and rates."""
    snapshot = connect.take_figures(invocation.settings)
    bound = Counter(EntityKey(b.vhost, b.source) for b in snapshot.bindings)
    if invocation.out.json:
        invocation.out.document([_document(e, bound[e.key], snapshot) for e in snapshot.exchanges])
        return
    invocation.out.table(
        ("VHOST", "EXCHANGE", "TYPE", ">BINDINGS", ">IN/s", ">OUT/s"),
        [
            (
                visible(e.vhost),
                visible(e.name) or "(default)",
                visible(e.type),
                str(bound[e.key]),
                rate(e.publish_in_rate),
                rate(e.publish_out_rate),
            )
            for e in snapshot.exchanges
        ],
    )


def _document(exchange: ExchangeFigures, bound: int, snapshot: ClusterSnapshot) -> dict[str, Any]:
    return {
        "vhost": exchange.vhost,
        "name": exchange.name,
        "type": exchange.type,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "bindings": bound,
        "publish_in_rate": exchange.publish_in_rate,
        "publish_out_rate": exchange.publish_out_rate,
        "age_s": age_of(snapshot, time.time()),
    }


exchange = LazyGroup(name="exchange", help="List exchanges.", entries={}, commands=[list_exchanges])
