"""`dmq queue`: list queues, show one."""

from __future__ import annotations

import time
from typing import Any

import click

from dmq_core.cli import reach
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import UNKNOWN, Output, known
from dmq_core.cli.status import age_of
from dmq_core.errors import DmqError
from dmq_core.management.models import BindingFigures, EntityKey
from dmq_core.observe.snapshot import ClusterSnapshot, QueueView
from dmq_core.text import visible

vhost_option = click.option("--vhost", metavar="NAME", default=None, help="The virtual host; by default all, or '/'.")


@click.command(name="list")
@vhost_option
@common_options
def list_queues(invocation: Invocation, vhost: str | None) -> None:
    """List queues with their leader, members, depth and rates."""
    snapshot = reach.take_figures(invocation.settings)
    queues = [q for q in snapshot.queues if vhost is None or q.key.vhost == vhost]
    if invocation.out.json:
        age = age_of(snapshot, time.time())
        invocation.out.document([queue_document(q, age) for q in queues])
        return
    invocation.out.table(
        ("VHOST", "QUEUE", "TYPE", "STATE", "LEADER", ">ONLINE", ">READY", ">UNACKED", ">CONSUMERS", ">IN/s", ">OUT/s"),
        [_row(q) for q in queues],
    )
    total = snapshot.queues_total
    if vhost is None and total is not None and total > len(queues):
        invocation.out.say(f"{len(queues)} of {total} queues are shown")


@click.command()
@click.argument("queue")
@vhost_option
@common_options
def show(invocation: Invocation, queue: str, vhost: str | None) -> None:
    """Show QUEUE: members, depth, rates, bindings, arguments and policy."""
    snapshot = reach.take_figures(invocation.settings)
    key = EntityKey(vhost or "/", queue)
    found = snapshot.queue(key)
    if found is None:
        raise DmqError(
            f"there is no queue '{visible(queue)}' in virtual host '{visible(key.vhost)}'", "See 'dmq queue list'."
        )
    bindings = [b for b in snapshot.bindings if b.destination_type == "queue" and (b.vhost, b.destination) == key]
    if invocation.out.json:
        invocation.out.document(_full_document(found, bindings, snapshot))
    else:
        _write(invocation.out, found, bindings)


def queue_document(queue: QueueView, age_s: float | None) -> dict[str, Any]:
    """The contract's object of one queue."""
    figures = queue.figures
    return {
        "vhost": figures.vhost,
        "name": figures.name,
        "type": figures.type,
        "state": figures.state,
        "leader": queue.leader,
        "members": list(queue.members),
        "online": list(queue.online),
        "ready": figures.ready,
        "unacked": figures.unacked,
        "consumers": figures.consumers,
        "publish_rate": figures.publish_rate,
        "deliver_rate": figures.deliver_rate,
        "redeliver_rate": figures.redeliver_rate,
        "age_s": age_s,
    }


def _full_document(queue: QueueView, bindings: list[BindingFigures], snapshot: ClusterSnapshot) -> dict[str, Any]:
    figures = queue.figures
    return queue_document(queue, age_of(snapshot, time.time())) | {
        "durable": figures.durable,
        "exclusive": figures.exclusive,
        "auto_delete": figures.auto_delete,
        "arguments": dict(figures.arguments),
        "policy": figures.policy,
        "memory_bytes": figures.memory_bytes,
        "bindings": [
            {"source": b.source, "routing_key": b.routing_key, "arguments": dict(b.arguments)} for b in bindings
        ],
    }


def _row(queue: QueueView) -> tuple[str, ...]:
    figures = queue.figures
    return (
        visible(figures.vhost),
        visible(figures.name),
        visible(figures.type),
        visible(figures.state or UNKNOWN),
        visible(queue.leader or UNKNOWN),
        _online(queue),
        known(figures.ready),
        known(figures.unacked),
        known(figures.consumers),
        known(figures.publish_rate, "{:.0f}"),
        known(figures.deliver_rate, "{:.0f}"),
    )


def _online(queue: QueueView) -> str:
    return f"{len(queue.online)}/{len(queue.members)}" if queue.members else UNKNOWN


def _write(out: Output, queue: QueueView, bindings: list[BindingFigures]) -> None:
    figures = queue.figures
    lines = [
        ("queue", f"{visible(figures.name)} in virtual host {visible(figures.vhost)}"),
        ("type", f"{visible(figures.type)}, {'durable' if figures.durable else 'transient'}"),
        ("state", visible(figures.state or UNKNOWN)),
        ("leader", visible(queue.leader or UNKNOWN)),
        ("members", ", ".join(map(visible, queue.members)) or UNKNOWN),
        ("online", ", ".join(map(visible, queue.online)) or UNKNOWN),
        ("ready", known(figures.ready)),
        ("unacked", known(figures.unacked)),
        ("consumers", known(figures.consumers)),
        ("in, out, again", ", ".join(known(r, "{:.0f}/s") for r in _rates(queue))),
        ("policy", visible(figures.policy or UNKNOWN)),
        *(("argument", f"{visible(k)} = {visible(str(v))}") for k, v in figures.arguments.items()),
        *(("bound to", _binding(b)) for b in bindings),
    ]
    for label, value in lines:
        out.text(f"{label:<16}{value}")


def _rates(queue: QueueView) -> tuple[float | None, ...]:
    figures = queue.figures
    return (figures.publish_rate, figures.deliver_rate, figures.redeliver_rate)


def _binding(binding: BindingFigures) -> str:
    source = visible(binding.source) or "(default)"
    return f"{source} by '{visible(binding.routing_key)}'"


queue = LazyGroup(name="queue", help="List and show queues.", entries={}, commands=[list_queues, show])
