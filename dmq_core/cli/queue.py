"""`dmq queue`: list queues, show one."""

from __future__ import annotations

import time
from typing import Any

import click

from dmq_core.actions.gate import guard_change
from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options, yes_option
from dmq_core.cli.output import Output, confirm
from dmq_core.cli.status import age_of
from dmq_core.errors import DmqError
from dmq_core.management.models import BindingFigures, EntityKey
from dmq_core.messaging.typed_fields import parse_headers
from dmq_core.observe.snapshot import ClusterSnapshot, QueueView
from dmq_core.presentation import UNKNOWN, count, rate
from dmq_core.text import visible

vhost_option = click.option(
    "--vhost", metavar="NAME", default=None, help="Virtual host (default: all when listing, else /)."
)


@click.command(name="list")
@vhost_option
@common_options
def list_queues(invocation: Invocation, vhost: str | None) -> None:
    """List queues with their leader, members, depth and rates."""
    snapshot = connect.take_figures(invocation.settings)
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
        invocation.out.say(f"{len(queues)} of {total} queues shown")


@click.command()
@click.argument("queue")
@vhost_option
@common_options
def show(invocation: Invocation, queue: str, vhost: str | None) -> None:
    """Show QUEUE: members, depth, rates, bindings, arguments and policy."""
    snapshot = connect.take_figures(invocation.settings)
    key = EntityKey(vhost or "/", queue)
    found = snapshot.queue(key)
    if found is None:
        raise _no_such(key)
    bindings = [b for b in snapshot.bindings if b.destination_type == "queue" and (b.vhost, b.destination) == key]
    if invocation.out.json:
        invocation.out.document(_full_document(found, bindings, snapshot))
    else:
        _write(invocation.out, found, bindings)


@click.command()
@click.argument("queue")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["quorum", "classic", "stream"]),
    default="quorum",
    help="Queue type (default: quorum).",
)
@click.option("--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="Queue argument; repeatable.")
@vhost_option
@common_options
def declare(invocation: Invocation, queue: str, kind: str, arguments: tuple[str, ...], vhost: str | None) -> None:
    """Declare QUEUE as durable; nothing changes if it exists with the same settings."""
    from dmq_core.messaging.connection import topology_commands as commands
    from dmq_core.messaging.topology.model import Queue

    guard_change(f"Declare queue {queue}", read_only=invocation.settings.read_only.value)
    wanted = Queue(queue, kind, arguments=parse_headers(arguments))
    with connect.open_connection(invocation.settings, "dmq queue declare", vhost) as connection:
        commands.declare(connection, [wanted])
    _tell(invocation.out, queue, vhost, "declared")


@click.command()
@click.argument("queue")
@vhost_option
@yes_option
@common_options
def delete(invocation: Invocation, queue: str, vhost: str | None, yes: bool) -> None:
    """Delete QUEUE and all its messages."""
    from dmq_core.messaging.connection import topology_commands as commands

    guard_change(f"Delete queue {queue}", read_only=invocation.settings.read_only.value)
    with connect.open_connection(invocation.settings, "dmq queue delete", vhost) as connection:
        depth = commands.queue_depth(connection, queue)
        if depth is None:
            raise _no_such(EntityKey(vhost or "/", queue))
        confirm(f"Delete queue {visible(queue)}: its {depth.ready} ready messages are deleted for good.", yes=yes)
        commands.delete_queue(connection, queue)
    _tell(invocation.out, queue, vhost, "deleted")


def _tell(out: Output, queue: str, vhost: str | None, state: str) -> None:
    if out.json:
        out.document({"vhost": vhost or "/", "name": queue, "state": state})
    else:
        out.text(f"{visible(queue)} {state}")


def _no_such(key: EntityKey) -> DmqError:
    return DmqError(
        f"there is no queue '{visible(key.name)}' in virtual host '{visible(key.vhost)}'", "See 'dmq queue list'."
    )


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
        count(figures.ready),
        count(figures.unacked),
        count(figures.consumers),
        rate(figures.publish_rate),
        rate(figures.deliver_rate),
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
        ("ready", count(figures.ready)),
        ("unacked", count(figures.unacked)),
        ("consumers", count(figures.consumers)),
        ("in, out, again", ", ".join(f"{rate(r)}/s" for r in _rates(queue))),
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


queue = LazyGroup(
    name="queue",
    help="List, show, declare and delete queues.",
    entries={},
    commands=[list_queues, show, declare, delete],
)
