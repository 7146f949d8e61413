"""`dmq node`: list, add, remove, break and mend single nodes, and read their logs."""

from __future__ import annotations

import time

import click

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import CATALOG, Scaling
from dmq_core.actions.gate import guard, perform
from dmq_core.actions.impact import impact_of, votes_without
from dmq_core.actions.wording import text_of
from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options, yes_option
from dmq_core.cli.output import confirm
from dmq_core.cli.status import node_document, nodes_table
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeInfo
from dmq_core.errors import InvalidInputError
from dmq_core.majority import is_majority
from dmq_core.presentation import duration
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible


@click.command(name="list")
@common_options
def list_nodes(invocation: Invocation) -> None:
    """List the nodes."""
    snapshot = connect.take_snapshot(connect.find_cluster(invocation.settings))
    if invocation.out.json:
        invocation.out.document([node_document(node) for node in snapshot.nodes])
    else:
        nodes_table(invocation.out, snapshot)


@click.command()
@click.argument("node")
@click.option("--lines", type=click.IntRange(1, 100_000), default=200, metavar="N", help="How many; by default 200.")
@common_options
def logs(invocation: Invocation, node: str, lines: int) -> None:
    """Show the last lines of NODE's log, also while it is stopped."""
    cluster = connect.find_cluster(invocation.settings)
    written = cluster.logs(_known_node(cluster, node).name, lines).splitlines()
    if invocation.out.json:
        invocation.out.document({"node": node, "lines": written})
        return
    for line in written:
        invocation.out.text(visible(line))


def _act_command(action: NodeAction) -> click.Command:
    @click.command(name=str(action), help=CATALOG[action].help)
    @click.argument("node")
    @yes_option
    @common_options
    def act(invocation: Invocation, node: str, yes: bool) -> None:
        _act(invocation, Action(action, node), yes)

    return act


@click.command(help=CATALOG[Scaling.ADD].help)
@common_options
def add(invocation: Invocation) -> None:
    """Adds a node."""
    cluster = connect.find_cluster(invocation.settings)
    began = time.monotonic()
    with invocation.out.progress() as progress:
        undo = perform(cluster, Action(Scaling.ADD), read_only=invocation.settings.read_only.value, progress=progress)
    name = "" if undo is None or undo.node is None else undo.node
    found = _known_node(cluster, name)
    _tell(invocation, cluster, Action(Scaling.ADD, name), time.monotonic() - began, {"state": str(found.state)})
    invocation.out.say(f"Clients reach it at {found.endpoint.amqp_url}.")


@click.command(help=CATALOG[Scaling.REMOVE].help)
@click.argument("node")
@click.option("--force", is_flag=True, help="Delete the queues that are only on it, with their messages.")
@yes_option
@common_options
def remove(invocation: Invocation, node: str, force: bool, yes: bool) -> None:
    """Removes a node."""
    cluster = connect.find_cluster(invocation.settings)
    read_only = invocation.settings.read_only.value
    action = Action(Scaling.REMOVE, node)
    title = visible(action.title)
    guard(cluster, title, read_only=read_only)
    if not yes:
        impact = impact_of(action, connect.take_snapshot(cluster))
        loss = " Queues that are only on it are deleted." if force else ""
        confirm(f"{title}: {visible(text_of(impact))}{loss}", yes=yes)
    began = time.monotonic()
    with invocation.out.progress() as progress:
        perform(cluster, action, read_only=read_only, force=force, progress=progress)
    _tell(invocation, cluster, action, time.monotonic() - began, {})


def _tell(invocation: Invocation, cluster: Cluster, action: Action, seconds: float, more: dict[str, str]) -> None:
    names = [info.name for info in cluster.nodes()]
    if invocation.out.json:
        head = {"cluster": cluster.name, "node": action.node, "action": str(action.kind), **more}
        invocation.out.document({**head, "nodes": names, "seconds": round(seconds, 3)})
    else:
        invocation.out.text(f"{visible(action.done)}, after {duration(seconds)}; the nodes are {', '.join(names)}")


def _act(invocation: Invocation, action: Action, yes: bool) -> None:
    cluster = connect.find_cluster(invocation.settings)
    read_only = invocation.settings.read_only.value
    guard(cluster, visible(action.title), read_only=read_only)
    node = _known_node(cluster, action.node or "").name
    if action.destructive and not yes:
        nodes = cluster.nodes()
        # Only a question needs what all nodes tell, which takes a while.
        if not is_majority(votes_without(nodes, node), len(nodes)):
            impact = impact_of(action, connect.take_snapshot(cluster))
            confirm(f"{action.title}: {visible(text_of(impact))}", yes=yes)
    began = time.monotonic()
    with invocation.out.progress() as progress:
        undo = perform(cluster, action, read_only=read_only, progress=progress)
    seconds = time.monotonic() - began
    state = _known_node(cluster, node).state
    if invocation.out.json:
        invocation.out.document(
            {
                "cluster": cluster.name,
                "node": node,
                "action": str(action.kind),
                "state": str(state),
                "seconds": round(seconds, 3),
            }
        )
        return
    invocation.out.text(f"{node} is {state}, after {duration(seconds)}")
    if undo is not None:
        invocation.out.say(f"Undo it with '{on_cluster(undo.command, cluster.name)}'.")


def _known_node(cluster: Cluster, name: str) -> NodeInfo:
    nodes = cluster.nodes()
    found = next((node for node in nodes if node.name == name), None)
    if found is None:
        names = ", ".join(node.name for node in nodes)
        raise InvalidInputError(f"{cluster.name} has no node '{visible(name)}'", f"Its nodes are {names}.")
    return found


node = LazyGroup(
    name="node",
    help="Manage single nodes: list, add, remove, kill, pause, isolate and more; show logs.",
    entries={},
    commands=[list_nodes, add, remove, *(_act_command(action) for action in NodeAction), logs],
)
