"""Whether a node may come or go: judged from what the nodes do and where the queues are, before anything is done."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from dmq_core.cluster.node_config import MOST_NODES, NODE_NAME_PREFIX
from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.errors import InvalidInputError, RefusedError
from dmq_core.majority import is_majority
from dmq_core.management.models import QueueFigures
from dmq_core.text import visible

CLASSIC = "classic"
_NAMED = 3
_WAY_BACK = {
    NodeState.PAUSED: "unpause",
    NodeState.ISOLATED: "rejoin",
    NodeState.STARTING: "start",
    NodeState.UNREACHABLE: "restart",
}


def lowest_free_name(taken: Collection[str]) -> str:
    """The name of the next node: the lowest `rmqN` that none has; `InvalidInputError` if there are nine."""
    for number in range(1, MOST_NODES + 1):
        if f"{NODE_NAME_PREFIX}{number}" not in taken:
            return f"{NODE_NAME_PREFIX}{number}"
    raise InvalidInputError(f"a cluster has {MOST_NODES} nodes at most", "Remove one first, or start another cluster.")


def other_number(cluster: str, there: int) -> InvalidInputError:
    """The error of asking for another number of nodes than a cluster has."""
    return InvalidInputError(
        f"the cluster {cluster} has {there} node{'' if there == 1 else 's'}",
        "Start it without --nodes; 'dmq node add' and 'dmq node remove' change how many there are.",
    )


def check_may_grow(nodes: Iterable[NodeInfo]) -> None:
    """Refuses a new node while any other does not serve: it could not tell where it belongs, nor could queues grow."""
    waiting = [f"{info.name} is {info.state}" for info in nodes if info.state is not NodeState.RUNNING]
    if waiting:
        raise RefusedError(
            f"a node joins only a cluster that is whole: {', '.join(waiting)}", "'dmq start' makes it whole."
        )


def check_may_leave(node: str, nodes: Sequence[NodeInfo]) -> None:
    """Refuses to let `node` go where those that remain could not go on without it.

    Raises `InvalidInputError` if it cannot be asked.
    """
    target = next((info for info in nodes if info.name == node), None)
    if target is None:
        names = ", ".join(info.name for info in nodes)
        raise InvalidInputError(f"there is no node '{visible(node)}' to remove", f"The nodes are {names}.")
    if len(nodes) == 1:
        raise RefusedError(f"{node} is the last node", "'dmq destroy' removes the cluster with all its data.")
    if target.state in _WAY_BACK:
        raise InvalidInputError(
            f"{node} is {target.state}: it can neither give its queues away nor be taken for gone",
            f"'dmq node {_WAY_BACK[target.state]} {node}' first, or 'dmq node kill {node}'.",
        )
    others = [info for info in nodes if info.name != node]
    running = [info for info in others if info.state is NodeState.RUNNING]
    voting = len(running) + (target.state is not NodeState.STOPPED)
    hint = "'dmq start' brings every node back; then remove it."
    if not is_majority(len(running), len(others)):
        raise RefusedError(f"without {node} no majority is left: {len(running)} of {len(others)} other nodes run", hint)
    if not is_majority(voting, len(nodes)):
        raise RefusedError(f"there is no majority to agree that {node} goes: {voting} of {len(nodes)} nodes run", hint)


def check_queues_may_leave(node: str, queues: Iterable[QueueFigures]) -> None:
    """Refuses to let `node` go while a replicated queue needs it; names in `queues` are those of `node`'s kind."""
    stuck = [queue for queue in queues if needs(node, queue)]
    if stuck:
        raise RefusedError(
            f"without {node} no majority of the members would be left of {names_of(stuck)}",
            "'dmq start' brings the other members back; 'dmq queue show' tells where they are.",
        )


def needs(node: str, queue: QueueFigures) -> bool:
    """Whether a queue with members on several nodes would have no majority of them once that on `node` is gone."""
    if queue.type == CLASSIC or node not in queue.members or len(queue.members) == 1:
        return False
    remain = [member for member in queue.members if member != node]
    left = sum(member in queue.online for member in remain)
    # Those that are there now must agree that the member goes, and those that remain must be able to go on.
    return not is_majority(left, len(remain)) or not is_majority(len(queue.online), len(queue.members))


def lost_with(node: str, queues: Iterable[QueueFigures]) -> tuple[QueueFigures, ...]:
    """The queues that are only on `node` and whose loss would be one: durable, or with messages in them.

    A connection's exclusive queues are not among them: they end with it, and its client makes them again.
    """
    return tuple(q for q in queues if only_on(node, q) and not q.exclusive and (q.durable or _messages(q)))


def only_on(node: str, queue: QueueFigures) -> bool:
    """Whether no other node has anything of the queue."""
    if queue.type == CLASSIC or not queue.members:
        return queue.leader == node
    return set(queue.members) == {node}


def check_nothing_lost(node: str, lost: Sequence[QueueFigures]) -> None:
    """Refuses to remove `node` while queues are only on it."""
    if lost:
        count = sum(_messages(queue) for queue in lost)
        raise RefusedError(
            f"{names_of(lost)} would be lost with {node}, and {count} message{'' if count == 1 else 's'} in them",
            "Move the messages or add a member elsewhere first; --force removes them with the node.",
        )


def names_of(queues: Sequence[QueueFigures]) -> str:
    """`the classic queue 'mail' and the quorum queue 'x' in virtual host 'v'`; only the first few by name."""
    told = [f"the {q.type} queue {visible(q.name)!r}{_place(q)}" for q in queues[:_NAMED]]
    more = len(queues) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def _place(queue: QueueFigures) -> str:
    return "" if queue.vhost == "/" else f" in virtual host {visible(queue.vhost)!r}"


def _messages(queue: QueueFigures) -> int:
    return (queue.ready or 0) + (queue.unacked or 0)
