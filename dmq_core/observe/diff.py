"""What changed between two snapshots, as events in words: pure, and bounded whatever happens at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from dmq_core.cluster.protocol import NodeChange, NodeState
from dmq_core.management.models import EntityKey
from dmq_core.observe.events import Event, Origin, Severity
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView, QueueView, SourceStatus
from dmq_core.observe.state import MANAGEMENT
from dmq_core.text import visible

MOST_OF_A_KIND = 12
_HEARD_LATE_S = 5.0


@dataclass(frozen=True, slots=True)
class KnownChanges:
    """What sources tell beyond two snapshots: when each node changed, and when and in which term leaders were elected.

    Nodes by our names; times in epoch seconds.
    """

    nodes: Mapping[str, NodeChange] = field(default_factory=dict)
    leaders: Mapping[EntityKey, tuple[float, str, int]] = field(default_factory=dict)


NOTHING_KNOWN = KnownChanges()


def diff(
    before: ClusterSnapshot | None, after: ClusterSnapshot, hints: KnownChanges = NOTHING_KNOWN
) -> tuple[Event, ...]:
    """The events between the two, in time order; none if there was nothing before.

    What a source tells for the first time is no event. Of one kind at most a dozen are told one by one, the others are
    summed up.
    """
    if before is None or before is after:
        return ()
    told: list[Event] = []
    for rule in _RULES:
        told += _bounded(list(rule(before, after, hints)), after.taken_at)
    return tuple(sorted(told, key=lambda event: event.at))


def named(key: EntityKey) -> str:
    """A queue or exchange as people call it, safe to show; the virtual host is left out where it is `/`."""
    return visible(key.name if key.vhost == "/" else f"{key.vhost}/{key.name}")


_Rule = Callable[[ClusterSnapshot, ClusterSnapshot, KnownChanges], Iterator[Event]]

_NODE_WORDS: Mapping[NodeState, tuple[Severity, str, str]] = {
    NodeState.RUNNING: (Severity.GOOD, "node_up", "is up"),
    NodeState.STARTING: (Severity.PLAIN, "node_starting", "is starting"),
    NodeState.STOPPED: (Severity.BAD, "node_down", "is down"),
    NodeState.PAUSED: (Severity.BAD, "node_paused", "is frozen"),
    NodeState.ISOLATED: (Severity.BAD, "node_isolated", "is cut off from its peers"),
    NodeState.DRAINING: (Severity.NOTICE, "node_draining", "is in maintenance"),
    NodeState.UNREACHABLE: (Severity.BAD, "node_down", "does not answer its peers"),
}


def _nodes(before: ClusterSnapshot, after: ClusterSnapshot, hints: KnownChanges) -> Iterator[Event]:
    if not before.nodes:
        return
    known = {n.name: n for n in before.nodes}
    for node in after.nodes:
        was = known.pop(node.name, None)
        if was is None:
            yield _broker(after.taken_at, Severity.PLAIN, "node_added", node.name, f"{visible(node.name)} joined")
        elif was.state is not node.state:
            severity, kind, words = _NODE_WORDS[node.state]
            if was.state is NodeState.PAUSED and node.state is NodeState.RUNNING:
                words = "goes on"
            at = _node_moment(node, before, after, hints)
            yield _broker(at, severity, kind, node.name, f"{visible(node.name)} {words}")
    for name in known:
        yield _broker(
            after.taken_at, Severity.NOTICE, "node_removed", name, f"{visible(name)} is gone from the cluster"
        )


def _majority(before: ClusterSnapshot, after: ClusterSnapshot, hints: KnownChanges) -> Iterator[Event]:
    if not before.nodes or not after.nodes or before.has_majority == after.has_majority:
        return
    moments = (_node_moment(n, before, after, hints) for n in _changed_nodes(before, after))
    at = max(moments, default=after.taken_at)
    if after.has_majority:
        yield _broker(at, Severity.GOOD, "majority_regained", after.cluster, "the cluster has its majority again")
    else:
        yield _broker(at, Severity.BAD, "majority_lost", after.cluster, "the cluster has lost its majority")


def _node_moment(node: NodeView, before: ClusterSnapshot, after: ClusterSnapshot, hints: KnownChanges) -> float:
    change = hints.nodes.get(node.name)
    return _moment(change.at if change is not None and change.state is node.state else None, before, after)


def _moment(hint: float | None, before: ClusterSnapshot, after: ClusterSnapshot) -> float:
    """When a change between the two happened: as a source told it, if that can be true, else now."""
    if hint is None or not before.taken_at - _HEARD_LATE_S <= hint <= after.taken_at:
        return after.taken_at
    return hint


def _changed_nodes(before: ClusterSnapshot, after: ClusterSnapshot) -> Iterator[NodeView]:
    states = {n.name: n.state for n in before.nodes}
    return (n for n in after.nodes if states.get(n.name) is not n.state)


def _leaders(before: ClusterSnapshot, after: ClusterSnapshot, hints: KnownChanges) -> Iterator[Event]:
    for was, queue in _common(before, after):
        if was.leader == queue.leader:
            continue
        name, text = queue.figures.name, f"{named(queue.key)}: leader {visible(was.leader or 'none')}"
        if queue.leader is None:
            yield _broker(after.taken_at, Severity.BAD, "leader_lost", name, f"{named(queue.key)}: has no leader")
            continue
        at, node, term = hints.leaders.get(queue.key, (after.taken_at, "", 0))
        if node != queue.figures.leader:
            term = 0
        text += f" → {visible(queue.leader)}" + (f" (term {term})" if term else "")
        at = _moment(at if term else None, before, after)
        yield _broker(at, Severity.NOTICE, "leader_moved", name, text)


def _queues(before: ClusterSnapshot, after: ClusterSnapshot, _hints: KnownChanges) -> Iterator[Event]:
    if not (_is_listed(before) and _is_listed(after)):
        return
    old, new = _by_key(before), _by_key(after)
    for key in new.keys() - old.keys():
        queue = new[key]
        led = "" if queue.leader is None else f", leader {visible(queue.leader)}"
        text = f"queue {named(key)} appeared ({visible(queue.figures.type)}{led})"
        yield _broker(after.taken_at, Severity.PLAIN, "queue_appeared", key.name, text)
    for key in old.keys() - new.keys():
        yield _broker(after.taken_at, Severity.NOTICE, "queue_gone", key.name, f"queue {named(key)} is gone")


def _consumers(before: ClusterSnapshot, after: ClusterSnapshot, _hints: KnownChanges) -> Iterator[Event]:
    for was, queue in _common(before, after):
        had, has = was.figures.consumers, queue.figures.consumers
        if had is None or has is None or had == has:
            continue
        change = _many(abs(has - had), "consumer")
        if has < had:
            text = f"{named(queue.key)}: {change} lost, {has} left"
            yield _broker(after.taken_at, Severity.NOTICE, "consumer_lost", queue.figures.name, text)
        else:
            text = f"{named(queue.key)}: {change} joined, {has} now"
            yield _broker(after.taken_at, Severity.PLAIN, "consumer_joined", queue.figures.name, text)


def _members(before: ClusterSnapshot, after: ClusterSnapshot, _hints: KnownChanges) -> Iterator[Event]:
    """Members by node, and only while every node runs: a node that is down says enough, and brokers are unsure then."""
    if any(n.state is not NodeState.RUNNING or (n.figures and not n.figures.running) for n in after.nodes):
        return
    gone: dict[str, list[QueueView]] = defaultdict(list)
    back: dict[str, list[QueueView]] = defaultdict(list)
    for was, queue in _common(before, after):
        if was.online == queue.online:
            continue
        for node in set(was.online) - set(queue.online):
            if node in queue.members:
                gone[node].append(queue)
        for node in set(queue.online) - set(was.online):
            if node in was.members:
                back[node].append(queue)
    for node, queues in sorted(gone.items()):
        yield _broker(after.taken_at, Severity.NOTICE, "member_offline", node, _member_text(node, queues, "offline"))
    for node, queues in sorted(back.items()):
        yield _broker(after.taken_at, Severity.GOOD, "member_online", node, _member_text(node, queues, "online again"))


def _member_text(node: str, queues: list[QueueView], word: str) -> str:
    if len(queues) > 1:
        return f"{visible(node)}: its members of {len(queues)} queues are {word}"
    queue = queues[0]
    return f"{named(queue.key)}: member {visible(node)} is {word}, {len(queue.online)} of {len(queue.members)} online"


def _alarms(before: ClusterSnapshot, after: ClusterSnapshot, _hints: KnownChanges) -> Iterator[Event]:
    for alarm in after.alarms:
        if alarm not in before.alarms:
            text = f"{_node_name(after, alarm.node)}: {visible(alarm.resource)} alarm, every publisher is blocked"
            yield _broker(after.taken_at, Severity.BAD, "alarm_set", alarm.node, text)
    for alarm in before.alarms:
        if alarm not in after.alarms:
            text = f"{_node_name(after, alarm.node)}: {visible(alarm.resource)} alarm cleared"
            yield _broker(after.taken_at, Severity.GOOD, "alarm_cleared", alarm.node, text)


def _partitions(before: ClusterSnapshot, after: ClusterSnapshot, _hints: KnownChanges) -> Iterator[Event]:
    for name in sorted(set(after.partitions) - set(before.partitions)):
        text = f"{visible(name)} is partitioned from the others"
        yield _broker(after.taken_at, Severity.BAD, "partition", name, text)
    for name in sorted(set(before.partitions) - set(after.partitions)):
        text = f"{visible(name)} is no longer partitioned"
        yield _broker(after.taken_at, Severity.GOOD, "partition_healed", name, text)


def _management(before: ClusterSnapshot, after: ClusterSnapshot, _hints: KnownChanges) -> Iterator[Event]:
    was, now = _management_of(before), _management_of(after)
    if was.heard_at is None:
        return
    if now.problem and not was.problem:
        text = f"no figures: {visible(now.problem)}"
        yield _client(after.taken_at, Severity.NOTICE, "management_silent", after.cluster, text)
    elif was.problem and not now.problem:
        text = f"figures again, from {visible(after.asks or 'the management API')}"
        yield _client(after.taken_at, Severity.GOOD, "management_back", after.cluster, text)
    elif before.asks and after.asks and before.asks != after.asks:
        text = f"management: now asks {visible(after.asks)}, no longer {visible(before.asks)}"
        yield _client(after.taken_at, Severity.NOTICE, "management_switched", after.asks, text)


_RULES: tuple[_Rule, ...] = (
    _nodes,
    _majority,
    _partitions,
    _leaders,
    _members,
    _queues,
    _consumers,
    _alarms,
    _management,
)


def _common(before: ClusterSnapshot, after: ClusterSnapshot) -> Iterator[tuple[QueueView, QueueView]]:
    """The queues of both, without those of one connection only, which come and go with it."""
    old = _by_key(before)
    for key, queue in _by_key(after).items():
        was = old.get(key)
        if was is not None and was is not queue:
            yield was, queue


# Several rules ask, of the same two snapshots; a snapshot is hashed by its identity and never changes.
@lru_cache(maxsize=2)
def _by_key(snapshot: ClusterSnapshot) -> Mapping[EntityKey, QueueView]:
    return MappingProxyType({q.key: q for q in snapshot.queues if not q.figures.exclusive})


def _is_listed(snapshot: ClusterSnapshot) -> bool:
    return snapshot.queues_total is not None


def _management_of(snapshot: ClusterSnapshot) -> SourceStatus:
    return next((s for s in snapshot.sources if s.name == MANAGEMENT), SourceStatus(MANAGEMENT))


def _bounded(events: list[Event], now: float) -> list[Event]:
    by_kind: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_kind[event.kind].append(event)
    told: list[Event] = []
    for kind, some in by_kind.items():
        ordered = sorted(some, key=lambda e: (e.at, e.text))
        told += ordered[:MOST_OF_A_KIND]
        rest = len(ordered) - MOST_OF_A_KIND
        if rest > 0:
            words = kind.replace("_", " ")
            told.append(Event(now, ordered[0].origin, ordered[0].severity, kind, "", f"{words}: {rest} more"))
    return told


def _node_name(snapshot: ClusterSnapshot, erlang_name: str) -> str:
    node = snapshot.node(erlang_name)
    return visible(erlang_name if node is None else node.name)


def _many(count: int, noun: str) -> str:
    return noun if count == 1 else f"{count} {noun}s"


def _broker(at: float, severity: Severity, kind: str, subject: str, text: str) -> Event:
    return Event(at, Origin.BROKER, severity, kind, subject, text)


def _client(at: float, severity: Severity, kind: str, subject: str, text: str) -> Event:
    return Event(at, Origin.CLIENT, severity, kind, subject, text)
