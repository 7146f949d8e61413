"""The sentence for each event, safe to show: what both front ends say of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

from dmq_core.cluster.protocol import NodeState
from dmq_core.management.models import EntityKey
from dmq_core.observe.events import (
    ActionDetails,
    AlarmDetails,
    ClientDetails,
    ConsumerDetails,
    CountDetails,
    Event,
    GapDetails,
    LeaderDetails,
    LoadDetails,
    ManagementDetails,
    MemberDetails,
    NodeDetails,
    QueueDetails,
)
from dmq_core.presentation import duration
from dmq_core.text import visible

_STATES: Mapping[NodeState, str] = {
    NodeState.RUNNING: "is up",
    NodeState.STARTING: "is starting",
    NodeState.STOPPED: "is down",
    NodeState.PAUSED: "is frozen",
    NodeState.ISOLATED: "is cut off from its peers",
    NodeState.DRAINING: "is in maintenance",
    NodeState.UNREACHABLE: "does not answer its peers",
}
_NODES = {
    "node_added": "joined",
    "node_removed": "is gone from the cluster",
    "partition": "is partitioned from the others",
    "partition_healed": "is no longer partitioned",
}
_WITHOUT_DETAILS = {
    "majority_lost": "the cluster has lost its majority",
    "majority_regained": "the cluster has its majority again",
}
_MESSAGES = {
    "unknown": "with unknown outcome",
    "redelivered": "redelivered",
    "unknown_resolved": "with unknown outcome delivered after all",
}
_CLIENTS = {
    "connected": "{role} on {node}",
    "resumed": "{role} now on {node}",
    "lost": "{role} lost {node}",
    "blocked": "{role}",
    "released": "{role} released by the broker",
}


def event_text(event: Event) -> str:
    """What happened, in a sentence."""
    return _text(event.details, event.kind)


def leader_text(leader: LeaderDetails) -> str:
    """How the leader of a queue changed, where it is plain which queue is meant: `leader rmq1 → rmq2 (term 4)`."""
    if leader.leader is None:
        return "has no leader"
    term = f" (term {leader.term})" if leader.term else ""
    return f"leader {visible(leader.previous or 'none')} → {visible(leader.leader)}{term}"


def queue_name(key: EntityKey) -> str:
    """A queue or exchange as people call it, safe to show; the virtual host is left out where it is `/`."""
    return visible(key.name if key.vhost == "/" else f"{key.vhost}/{key.name}")


@singledispatch
def _text(_details: object, kind: str) -> str:
    """The sentence for an event of that kind; each type of details has its own below."""
    return _WITHOUT_DETAILS.get(kind, _words(kind))


@_text.register
def _node(node: NodeDetails, kind: str) -> str:
    words = _NODES[kind] if node.state is None else "goes on" if node.resumed else _STATES[node.state]
    return f"{visible(node.node)} {words}"


@_text.register
def _leader(leader: LeaderDetails, _kind: str) -> str:
    return f"{queue_name(leader.queue)}: {leader_text(leader)}"


@_text.register
def _queue(queue: QueueDetails, kind: str) -> str:
    name = f"queue {queue_name(queue.queue)}"
    if kind == "queue_gone":
        return f"{name} is gone"
    led = "" if queue.leader is None else f", leader {visible(queue.leader)}"
    return f"{name} appeared ({visible(queue.type)}{led})"


@_text.register
def _consumers(consumers: ConsumerDetails, kind: str) -> str:
    change = "consumer" if consumers.number == 1 else f"{consumers.number} consumers"
    how = f"lost, {consumers.total} left" if kind == "consumer_lost" else f"joined, {consumers.total} now"
    return f"{queue_name(consumers.queue)}: {change} {how}"


@_text.register
def _members(members: MemberDetails, kind: str) -> str:
    node, count = visible(members.node), len(members.queues)
    word = "offline" if kind == "member_offline" else "online again"
    if count > 1:
        return f"{node}: its members of {count} queues are {word}"
    return f"{queue_name(members.queues[0])}: member {node} is {word}, {members.online} of {members.total} online"


@_text.register
def _alarm(alarm: AlarmDetails, kind: str) -> str:
    effect = ", every publisher is blocked" if kind == "alarm_set" else " cleared"
    return f"{visible(alarm.node)}: {visible(alarm.resource)} alarm{effect}"


@_text.register
def _management(management: ManagementDetails, kind: str) -> str:
    if kind == "management_silent":
        return f"no figures: {visible(management.problem)}"
    node = visible(management.node or "the management API")
    if kind == "management_back":
        return f"figures again, from {node}"
    return f"management: now asks {node}, no longer {visible(management.previous or '')}"


@_text.register
def _action(action: ActionDetails, _kind: str) -> str:
    done = visible(action.done)
    if action.took_s is None:
        return f"{done} (you)"
    took = duration(action.took_s)
    return f"{done} failed after {took}: {visible(action.error)}" if action.error else f"{done}; it took {took}"


@_text.register
def _client(client: ClientDetails, kind: str) -> str:
    words = _CLIENTS[kind.removeprefix(f"{client.role}_")].format(role=client.role, node=visible(client.node))
    return f"{words}: {visible(client.reason)}" if client.reason else words


@_text.register
def _gap(gap: GapDetails, kind: str) -> str:
    return f"{_words(kind)} after {gap.seconds:.2f} s{', the longest gap so far' if gap.is_longest else ''}"


@_text.register
def _count(count: CountDetails, kind: str) -> str:
    if kind in _MESSAGES:
        return f"{count.number} message{'' if count.number == 1 else 's'} {_MESSAGES[kind]}"
    return f"{_words(kind)}: {count.number} more"


@_text.register
def _load(load: LoadDetails, _kind: str) -> str:
    return f"load ended, {visible(load.headline)}{'; ' if load.report else ''}{visible(load.report)}"


def _words(kind: str) -> str:
    return kind.replace("_", " ")
