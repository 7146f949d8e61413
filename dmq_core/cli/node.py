"""`dmq node`: list, add, remove, break and mend single nodes, and read their logs."""

from __future__ import annotations

import time

import click

from dmq_core.actions.gate import add_node, guard, perform, remove_node
from dmq_core.actions.impact import LOST_STATES, impact_of_removal
from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cli import connect
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.options import Invocation, common_options, yes_option
from dmq_core.cli.output import confirm
from dmq_core.cli.status import node_document, nodes_table
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeInfo
from dmq_core.errors import InvalidInputError
from dmq_core.presentation import duration
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

_HELP = {
    NodeAction.KILL: "Kill the node at once, as kill -9 does.",
    NodeAction.STOP: "Stop the node in good order.",
    NodeAction.START: "Start the node; returns once it serves.",
    NodeAction.RESTART: "Stop the node, start it; returns once it serves.",
    NodeAction.PAUSE: "Freeze the node: it keeps its connections and answers nobody.",
    NodeAction.UNPAUSE: "Let a frozen node go on; returns once it serves.",
    NodeAction.ISOLATE: "Cut the node off from its peers; its clients still reach it.",
    NodeAction.REJOIN: "Connect a node that was cut off again; returns once the cluster is whole.",
    NodeAction.DRAIN: "Put the node into maintenance: it moves its leaders, closes its clients and takes no new ones.",
    NodeAction.REVIVE: "End the node's maintenance; returns once it serves.",
}


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
    @click.command(name=str(action), help=_HELP[action])
    @click.argument("node")
    @yes_option
    @common_options
    def act(invocation: Invocation, node: str, yes: bool) -> None:
        _act(invocation, NodeOperation(action, node), yes)

    return act


@click.command()
@common_options
def add(invocation: Invocation) -> None:
    """Add a node; returns once it serves and quorum queues and streams have grown onto it."""
    cluster = connect.find_cluster(invocation.settings)
    began = time.monotonic()
    with invocation.out.progress() as progress:
        name = add_node(cluster, read_only=invocation.settings.read_only.value, progress=progress)
    found = _known_node(cluster, name)
    _tell(invocation, cluster, name, "add", time.monotonic() - began, {"state": str(found.state)})
    invocation.out.say(f"Clients reach it at {found.endpoint.amqp_url}.")


@click.command()
@click.argument("node")
@click.option("--force", is_flag=True, help="Delete the queues that are only on it, with their messages.")
@yes_option
@common_options
def remove(invocation: Invocation, node: str, force: bool, yes: bool) -> None:
    """Remove NODE and its data; returns once its queue members are elsewhere and the others forgot it."""
    cluster = connect.find_cluster(invocation.settings)
    read_only = invocation.settings.read_only.value
    guard(cluster, f"Remove {visible(node)}", read_only=read_only)
    if not yes:
        impact = impact_of_removal(node, connect.take_snapshot(cluster))
        loss = " Queues that are only on it are deleted." if force else ""
        confirm(f"Remove {visible(node)}: {' '.join(impact.sentences)}{loss}", yes=yes)
    began = time.monotonic()
    with invocation.out.progress() as progress:
        remove_node(cluster, node, read_only=read_only, force=force, progress=progress)
    _tell(invocation, cluster, node, "remove", time.monotonic() - began, {})


def _tell(
    invocation: Invocation, cluster: Cluster, node: str, action: str, seconds: float, more: dict[str, str]
) -> None:
    names = [info.name for info in cluster.nodes()]
    if invocation.out.json:
        head = {"cluster": cluster.name, "node": node, "action": action, **more}
        invocation.out.document({**head, "nodes": names, "seconds": round(seconds, 3)})
    else:
        done = {"add": "added", "remove": "removed"}[action]
        invocation.out.text(f"{node} {done}, after {duration(seconds)}; the nodes are {', '.join(names)}")


def _act(invocation: Invocation, operation: NodeOperation, yes: bool) -> None:
    cluster = connect.find_cluster(invocation.settings)
    read_only = invocation.settings.read_only.value
    guard(cluster, operation.title, read_only=read_only)
    _known_node(cluster, operation.node)
    if operation.destructive and not _majority_without(cluster.nodes(), operation.node):
        confirm(
            f"{operation.title}: no majority of the nodes would be left; quorum queues stop taking messages.", yes=yes
        )
    began = time.monotonic()
    with invocation.out.progress() as progress:
        perform(cluster, operation, read_only=read_only, progress=progress)
    seconds = time.monotonic() - began
    state = _known_node(cluster, operation.node).state
    if invocation.out.json:
        invocation.out.document(
            {
                "cluster": cluster.name,
                "node": operation.node,
                "action": str(operation.action),
                "state": str(state),
                "seconds": round(seconds, 3),
            }
        )
        return
    invocation.out.text(f"{operation.node} is {state}, after {duration(seconds)}")
    if operation.undo is not None:
        invocation.out.say(f"Bring it back with '{on_cluster(operation.undo.command, cluster.name)}'.")


def _known_node(cluster: Cluster, name: str) -> NodeInfo:
    nodes = cluster.nodes()
    found = next((node for node in nodes if node.name == name), None)
    if found is None:
        names = ", ".join(node.name for node in nodes)
        raise InvalidInputError(f"{cluster.name} has no node '{visible(name)}'", f"Its nodes are {names}.")
    return found


def _majority_without(nodes: tuple[NodeInfo, ...], target: str) -> bool:
    remaining = [node for node in nodes if node.name != target and node.state not in LOST_STATES]
    return 2 * len(remaining) > len(nodes)


node = LazyGroup(
    name="node",
    help="Manage single nodes: list, add, remove, kill, pause, isolate and more; show logs.",
    entries={},
    commands=[list_nodes, add, remove, *(_act_command(action) for action in NodeAction), logs],
)
