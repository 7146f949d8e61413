"""`dmq fault`: break the cluster as a whole, and take it back."""

from __future__ import annotations

import time

import click

from dmq_core.actions.gate import cause, guard
from dmq_core.actions.impact import Margin, impact_of_fault
from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options, yes_option
from dmq_core.cli.output import confirm
from dmq_core.cluster.faults.model import DELAY_MS, Fault, FaultKind, needs_of, notes_of, takes_of, undo_of
from dmq_core.errors import InvalidInputError
from dmq_core.presentation import duration
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

_peer_option = click.option("--peer", metavar="NODE", help="The other end of a link.")
_KINDS = click.Choice([str(kind) for kind in FaultKind])


@click.command(name="list")
@common_options
def list_faults(invocation: Invocation) -> None:
    """List the faults, what each needs, and what it will do."""
    if invocation.out.json:
        invocation.out.document(
            [
                {
                    "fault": str(kind),
                    "needs": list(needs_of(kind)),
                    "takes": list(takes_of(kind)),
                    "expected": notes_of(kind).expected,
                }
                for kind in FaultKind
            ]
        )
        return
    for kind in FaultKind:
        needs = [_option(need) for need in needs_of(kind)]
        takes = [f"[{_option(what)}]" for what in takes_of(kind)]
        invocation.out.text(" ".join((kind, *needs, *takes)))
        invocation.out.text(f"    {notes_of(kind).expected}")


@click.command(name="do")
@click.argument("name", type=_KINDS)
@click.option("--node", metavar="NODE", help="Where an alarm is, or a leader goes; one end of a link.")
@_peer_option
@click.option("--queue", metavar="QUEUE", help="The quorum queue whose leader moves.")
@click.option("--vhost", metavar="VHOST", default="/", help="Where that queue is; by default '/'.")
@click.option(
    "--delay",
    metavar="MS",
    type=int,
    default=DELAY_MS,
    help=f"What each end of a slow link holds back at most: 1 to 5000, by default {DELAY_MS}.",
)
@yes_option
@common_options
def do(
    invocation: Invocation,
    name: str,
    node: str | None,
    peer: str | None,
    queue: str | None,
    vhost: str,
    delay: int,
    yes: bool,
) -> None:
    """Do the fault NAME; 'dmq fault list' tells which there are."""
    _do(invocation, Fault(FaultKind(name), node, queue, vhost, peer, delay), yes)


@click.command()
@click.argument("name", type=_KINDS)
@click.option("--node", metavar="NODE", help="Where the alarm is; one end of the link.")
@_peer_option
@yes_option
@common_options
def undo(invocation: Invocation, name: str, node: str | None, peer: str | None, yes: bool) -> None:
    """Take the fault NAME back: an alarm ends, a link is as it was."""
    kind = FaultKind(name)
    if "queue" in needs_of(kind):
        raise InvalidInputError(
            f"{kind} does not know where the leader was", "Move it back: 'dmq fault do move-leader'."
        )
    back = undo_of(Fault(kind, node, peer=peer))
    if back is None:
        raise InvalidInputError(f"{kind} leaves nothing to take back")
    _do(invocation, back, yes)


@click.command()
@common_options
def standing(invocation: Invocation) -> None:
    """Tell which alarms and which cut or slow links hold now, and what takes each back; the nodes are asked."""
    cluster = connect.find_cluster(invocation.settings)
    found = [(fault, undo_of(fault)) for fault in cluster.standing()]
    commands = [None if back is None else on_cluster(back.command, cluster.name) for _, back in found]
    if invocation.out.json:
        invocation.out.document(
            [
                {
                    "fault": str(fault.kind),
                    "node": fault.node,
                    "peer": fault.peer,
                    "delay_ms": fault.delay_ms if fault.kind is FaultKind.SLOW_LINK else None,
                    "undo": command,
                }
                for (fault, _), command in zip(found, commands, strict=True)
            ]
        )
        return
    for (fault, _), command in zip(found, commands, strict=True):
        invocation.out.text(f"{visible(fault.title)}: '{visible(command or '')}' takes it back")
    if not found:
        invocation.out.text("no fault stands")


def _do(invocation: Invocation, fault: Fault, yes: bool) -> None:
    cluster = connect.find_cluster(invocation.settings)
    read_only = invocation.settings.read_only.value
    guard(cluster, fault.title, read_only=read_only)
    if fault.destructive and not yes:
        impact = impact_of_fault(fault, connect.take_snapshot(cluster))
        loss = " No majority is left." if impact.margin is Margin.NO_MAJORITY else ""
        confirm(f"{visible(fault.title)}: {' '.join(impact.sentences)}{loss}", yes=yes)
    began = time.monotonic()
    with invocation.out.progress() as progress:
        back = cause(cluster, fault, read_only=read_only, progress=progress)
    seconds = time.monotonic() - began
    command = None if back is None else on_cluster(back.command, cluster.name)
    if invocation.out.json:
        invocation.out.document(
            {
                "cluster": cluster.name,
                "fault": str(fault.kind),
                "node": fault.node,
                "peer": fault.peer,
                "queue": fault.queue,
                "undo": command,
                "seconds": round(seconds, 3),
            }
        )
        return
    invocation.out.text(f"{visible(fault.title)}: done, after {duration(seconds)}")
    if command is not None:
        invocation.out.say(f"Take it back with '{visible(command)}'.")


def _option(name: str) -> str:
    return f"--{name} {'MS' if name == 'delay' else 'NODE' if name == 'peer' else name.upper()}"


fault = LazyGroup(
    name="fault",
    help="Cause cluster-wide faults: alarms, cut or slow links, moved leaders and more.",
    entries={},
    commands=[list_faults, do, undo, standing],
)
