"""`dmq fault`: break the cluster as a whole, and undo it."""

from __future__ import annotations

import time

import click

from dmq_core.actions.action import Action, action_of
from dmq_core.actions.catalog import CATALOG
from dmq_core.actions.gate import guard, perform
from dmq_core.actions.impact import impact_of
from dmq_core.actions.wording import text_of
from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options, yes_option
from dmq_core.cli.output import confirm
from dmq_core.cluster.faults.model import DELAY_MS, FaultKind
from dmq_core.errors import InvalidInputError
from dmq_core.presentation import duration
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

_peer_option = click.option("--peer", metavar="NODE", help="The other end of a link.")
_KINDS = click.Choice([str(kind) for kind in FaultKind])
_SPECS = [CATALOG[kind] for kind in FaultKind]


@click.command(name="list")
@common_options
def list_faults(invocation: Invocation) -> None:
    """List the faults, what each needs, and what it will do."""
    if invocation.out.json:
        invocation.out.document(
            [
                {
                    "fault": str(spec.kind),
                    "needs": list(spec.needs),
                    "takes": list(spec.takes),
                    "expected": spec.expected,
                }
                for spec in _SPECS
            ]
        )
        return
    for spec in _SPECS:
        needs = [_option(need) for need in spec.needs]
        takes = [f"[{_option(what)}]" for what in spec.takes]
        invocation.out.text(" ".join((spec.kind, *needs, *takes)))
        invocation.out.text(f"    {spec.expected}")


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
    _do(invocation, Action(FaultKind(name), node, queue, vhost, peer, delay), yes)


@click.command()
@click.argument("name", type=_KINDS)
@click.option("--node", metavar="NODE", help="Where the alarm is; one end of the link.")
@_peer_option
@yes_option
@common_options
def undo(invocation: Invocation, name: str, node: str | None, peer: str | None, yes: bool) -> None:
    """Undo the fault NAME: an alarm ends, a link is as it was."""
    kind = FaultKind(name)
    if "queue" in CATALOG[kind].needs:
        raise InvalidInputError(
            f"{kind} does not know where the leader was", "Move it back: 'dmq fault do move-leader'."
        )
    action = Action(kind, node, peer=peer).undo
    if action is None:
        raise InvalidInputError(f"{kind} leaves nothing to undo")
    _do(invocation, action, yes)


@click.command()
@common_options
def active(invocation: Invocation) -> None:
    """List the active faults, which are alarms and cut or slow links, and what undoes each; the nodes are asked."""
    cluster = connect.find_cluster(invocation.settings)
    found = [action_of(fault) for fault in cluster.active_faults()]
    commands = [None if (undo := one.undo) is None else on_cluster(undo.command, cluster.name) for one in found]
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
                for fault, command in zip(found, commands, strict=True)
            ]
        )
        return
    for fault, command in zip(found, commands, strict=True):
        invocation.out.text(f"{visible(fault.title)}: undo with '{visible(command or '')}'")
    if not found:
        invocation.out.text("no active faults")


def _do(invocation: Invocation, fault: Action, yes: bool) -> None:
    cluster = connect.find_cluster(invocation.settings)
    read_only = invocation.settings.read_only.value
    guard(cluster, fault.title, read_only=read_only)
    if fault.destructive and not yes:
        impact = impact_of(fault, connect.take_snapshot(cluster))
        confirm(f"{visible(fault.title)}: {visible(text_of(impact))}", yes=yes)
    began = time.monotonic()
    with invocation.out.progress() as progress:
        undo_action = perform(cluster, fault, read_only=read_only, progress=progress)
    seconds = time.monotonic() - began
    command = None if undo_action is None else on_cluster(undo_action.command, cluster.name)
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
        invocation.out.say(f"Undo it with '{visible(command)}'.")


def _option(name: str) -> str:
    return f"--{name} {'MS' if name == 'delay' else 'NODE' if name == 'peer' else name.upper()}"


fault = LazyGroup(
    name="fault",
    help="Cause cluster-wide faults: alarms, cut or slow links, moved leaders and more.",
    entries={},
    commands=[list_faults, do, undo, active],
)
