"""What an action will cause, judged from a snapshot, and the majority that it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault, FaultKind, notes_of
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.versions import Version, parse_version

_EXPECTED = {
    NodeAction.KILL: "Expected: new leaders within a second; unacknowledged messages come again.",
    NodeAction.STOP: "Expected: leaders move in half a second; clients reconnect.",
    NodeAction.RESTART: "Expected: leaders move, the node is back in about ten seconds.",
    NodeAction.PAUSE: "Expected: nobody is told; the others notice after one to six seconds.",
    NodeAction.DRAIN: "Expected: leaders move in one to three seconds; its clients are closed and reconnect elsewhere.",
    NodeAction.REJOIN: "Expected: the cluster is whole again in one to ten seconds.",
}
# Nodes in any other state neither take clients nor hold replicas that vote: draining ones stop theirs.
LOST_STATES = frozenset(NodeState) - {NodeState.RUNNING, NodeState.STARTING}
_MINORITY_STAYS = Version(4, 3)


class Margin(StrEnum):
    """What an act leaves of the cluster's majority."""

    SAFE = "safe"
    NO_MARGIN = "no further margin"
    NO_MAJORITY = "no majority"


@dataclass(frozen=True, slots=True)
class Impact:
    """What an operation will cause: sentences for people and the majority that it leaves."""

    margin: Margin
    sentences: tuple[str, ...]


def impact_of(operation: NodeOperation, snapshot: ClusterSnapshot) -> Impact:
    """What `operation` will cause, judged from `snapshot`."""
    target = snapshot.node(operation.node)
    serving = {n.name for n in snapshot.nodes if n.state is NodeState.RUNNING}
    if operation.destructive:
        serving.discard(operation.node)
    elif target is not None:
        serving.add(operation.node)
    remaining = len(serving)
    margin = margin_left(remaining, len(snapshot.nodes))
    sentences = [
        _role_sentence(operation, target),
        f"{remaining} of {len(snapshot.nodes)} nodes {'remain' if operation.destructive else 'will run'}: "
        + margin_words(margin),
    ]
    if margin is not Margin.NO_MAJORITY or operation.action is NodeAction.ISOLATE:
        sentences.append(_expected(operation.action, snapshot))
    return Impact(margin, tuple(s for s in sentences if s))


def impact_of_removal(node: str, snapshot: ClusterSnapshot) -> Impact:
    """What the removal of `node` will cause, judged from `snapshot`; the majority is that of the nodes that remain."""
    others = [other for other in snapshot.nodes if other.name != node]
    running = sum(other.state is NodeState.RUNNING for other in others)
    margin = margin_left(running, len(others))
    target = snapshot.node(node)
    held = None if target is None or target.follows is None or target.leads is None else target.leads + target.follows
    members = "Members of queues" if held is None else _count(held, "queue member")
    sentences = (
        f"{members} on {node} and its data are removed; its clients are closed and reconnect elsewhere.",
        f"{running} of {len(others)} nodes remain: {margin_words(margin)}",
    )
    return Impact(margin, sentences)


def impact_of_addition(snapshot: ClusterSnapshot) -> Impact:
    """What one more node will cause, judged from `snapshot`."""
    total = len(snapshot.nodes) + 1
    running = sum(n.state is NodeState.RUNNING for n in snapshot.nodes) + 1
    margin = margin_left(running, total)
    sentences = (
        "Expected: The new node serves, and every quorum queue and stream has a member on it, within three minutes.",
        f"{running} of {total} nodes will run: {margin_words(margin)}",
    )
    return Impact(margin, sentences)


def impact_of_fault(fault: Fault, snapshot: ClusterSnapshot) -> Impact:
    """What `fault` will cause, judged from `snapshot`; a rolling restart takes one node away at a time."""
    running = sum(n.state is NodeState.RUNNING for n in snapshot.nodes)
    rolling = fault.kind is FaultKind.ROLLING_RESTART
    margin = margin_left(_left_by(fault, running, snapshot), len(snapshot.nodes))
    sentences = [f"Expected: {notes_of(fault.kind).expected}"]
    if fault.kind is FaultKind.CUT_LINK:
        sentences.append(_after_cut(running, snapshot))
    elif fault.destructive and not rolling:
        clients = _count(len(snapshot.connections), "connection")
        sentences.insert(0, f"It concerns all {clients} of the cluster.")
    if margin is Margin.NO_MAJORITY and fault.kind is not FaultKind.CUT_LINK:
        sentences.insert(0, f"{running} of {len(snapshot.nodes)} nodes run: {margin_words(margin)}")
    return Impact(margin, tuple(sentences))


def _left_by(fault: Fault, running: int, snapshot: ClusterSnapshot) -> int:
    """How many of the nodes that run surely still work together once `fault` is noticed."""
    if fault.kind is FaultKind.ROLLING_RESTART:
        return running - 1
    if fault.kind is not FaultKind.CUT_LINK:
        return running
    version = _version(snapshot)
    if version is not None and version < _MINORITY_STAYS:
        return 0
    # Two that have no third one to meet over are alone, each of them.
    return running if running > 2 else running - 1


def _after_cut(running: int, snapshot: ClusterSnapshot) -> str:
    version = _version(snapshot)
    if version is not None and version < _MINORITY_STAYS:
        return f"RabbitMQ {version} may then pause one, both or all nodes until the link is mended."
    if running > 2:
        return "Every node stays up; clients of one end may wait for queues that the other end leads."
    return "Each of the two is then alone; they keep their clients and confirm nothing."


def _version(snapshot: ClusterSnapshot) -> Version | None:
    return None if snapshot.rabbitmq is None else parse_version(snapshot.rabbitmq)


def _expected(action: NodeAction, snapshot: ClusterSnapshot) -> str:
    if action is not NodeAction.ISOLATE:
        return _EXPECTED.get(action, "")
    version = _version(snapshot)
    if version is not None and version < _MINORITY_STAYS:
        own = "after about 6.5 s it closes its ports and its clients reconnect elsewhere"
    else:
        own = "it keeps its clients and confirms them nothing"
    return f"Expected: the others elect new leaders in one to three seconds; {own}."


def margin_left(remaining: int, total: int) -> Margin:
    """What `remaining` nodes of `total` leave of the majority."""
    majority = total // 2 + 1
    if remaining < majority:
        return Margin.NO_MAJORITY
    return Margin.NO_MARGIN if remaining == majority else Margin.SAFE


def margin_words(margin: Margin) -> str:
    """`margin` as the end of a sentence."""
    if margin is Margin.SAFE:
        return "a majority, with margin."
    if margin is Margin.NO_MARGIN:
        return "a majority, no further margin."
    return "no majority; quorum queues stop taking messages until nodes return."


def _role_sentence(operation: NodeOperation, target: NodeView | None) -> str:
    if target is None or not operation.destructive:
        return ""
    if target.state is not NodeState.RUNNING:
        return f"{target.name} is {target.state} now."
    leads = "an unknown number of queues" if target.leads is None else _count(target.leads, "queue")
    clients = "" if target.connections is None else f" and serves {_count(target.connections, 'connection')}"
    return f"{target.name} leads {leads}{clients}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
