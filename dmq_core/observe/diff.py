"""What changed between two snapshots, as events: pure, and bounded whatever happens at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from dmq_core.cluster.protocol import NodeChange, NodeState
from dmq_core.management.models import Alarm, EntityKey
from dmq_core.observe.events import (
    AlarmDetails,
    ConsumerDetails,
    CountDetails,
    Details,
    Event,
    LeaderDetails,
    ManagementDetails,
    MemberDetails,
    NodeDetails,
    Origin,
    QueueDetails,
    Severity,
)
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView, QueueView, SourceStatus
from dmq_core.observe.state import MANAGEMENT

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
    before: ClusterSnapshot | None, after: ClusterSnapshot, known: KnownChanges = NOTHING_KNOWN
) -> tuple[Event, ...]:
    """The events between the two, in time order; none if there was nothing before.

    What a source tells for the first time is no event. Of one kind at most a dozen are told one by one, the others are
    summed up.
    """
    if before is None or before is after:
        return ()
    told: list[Event] = []
    for rule in _RULES:
        told += _bounded(list(rule(before, after, known)), after.taken_at)
    return tuple(sorted(told, key=lambda event: event.at))


_Rule = Callable[[ClusterSnapshot, ClusterSnapshot, KnownChanges], Iterator[Event]]

NODE_EVENTS: Mapping[NodeState, tuple[Severity, str]] = {
    NodeState.RUNNING: (Severity.GOOD, "node_up"),
    NodeState.STARTING: (Severity.PLAIN, "node_starting"),
    NodeState.STOPPED: (Severity.BAD, "node_down"),
    NodeState.PAUSED: (Severity.BAD, "node_paused"),
    NodeState.ISOLATED: (Severity.BAD, "node_isolated"),
    NodeState.DRAINING: (Severity.NOTICE, "node_draining"),
    NodeState.UNREACHABLE: (Severity.BAD, "node_down"),
}


def _nodes(before: ClusterSnapshot, after: ClusterSnapshot, known: KnownChanges) -> Iterator[Event]:
    if not before.nodes:
        return
    gone = {n.name: n for n in before.nodes}
    for node in after.nodes:
        was = gone.pop(node.name, None)
        if was is None:
            yield _broker(after.taken_at, Severity.PLAIN, "node_added", node.name, NodeDetails(node.name))
        elif was.state is not node.state:
            severity, kind = NODE_EVENTS[node.state]
            resumed = was.state is NodeState.PAUSED and node.state is NodeState.RUNNING
            at = _node_moment(node, before, after, known)
            yield _broker(at, severity, kind, node.name, NodeDetails(node.name, node.state, resumed))
    for name in gone:
        yield _broker(after.taken_at, Severity.NOTICE, "node_removed", name, NodeDetails(name))


def _majority(before: ClusterSnapshot, after: ClusterSnapshot, known: KnownChanges) -> Iterator[Event]:
    if not before.nodes or not after.nodes or before.has_majority == after.has_majority:
        return
    moments = (_node_moment(n, before, after, known) for n in _changed_nodes(before, after))
    at = max(moments, default=after.taken_at)
    if after.has_majority:
        yield _broker(at, Severity.GOOD, "majority_regained", after.cluster)
    else:
        yield _broker(at, Severity.BAD, "majority_lost", after.cluster)


def _node_moment(node: NodeView, before: ClusterSnapshot, after: ClusterSnapshot, known: KnownChanges) -> float:
    change = known.nodes.get(node.name)
    return _moment(change.at if change is not None and change.state is node.state else None, before, after)


def _moment(hint: float | None, before: ClusterSnapshot, after: ClusterSnapshot) -> float:
    """When a change between the two happened: as a source told it, if that can be true, else now."""
    if hint is None or not before.taken_at - _HEARD_LATE_S <= hint <= after.taken_at:
        return after.taken_at
    return hint


def _changed_nodes(before: ClusterSnapshot, after: ClusterSnapshot) -> Iterator[NodeView]:
    states = {n.name: n.state for n in before.nodes}
    return (n for n in after.nodes if states.get(n.name) is not n.state)


def _leaders(before: ClusterSnapshot, after: ClusterSnapshot, known: KnownChanges) -> Iterator[Event]:
    for was, queue in _common(before, after):
        if was.leader == queue.leader:
            continue
        name = queue.figures.name
        if queue.leader is None:
            details = LeaderDetails(queue.key, was.leader, None)
            yield _broker(after.taken_at, Severity.BAD, "leader_lost", name, details)
            continue
        at, node, term = known.leaders.get(queue.key, (after.taken_at, "", 0))
        if node != queue.figures.leader:
            # What was told is of another election: neither its term nor its moment is this one's.
            term = 0
        at = _moment(at if term else None, before, after)
        details = LeaderDetails(queue.key, was.leader, queue.leader, term)
        yield _broker(at, Severity.NOTICE, "leader_moved", name, details)


def _queues(before: ClusterSnapshot, after: ClusterSnapshot, _known: KnownChanges) -> Iterator[Event]:
    if not (_is_listed(before) and _is_listed(after)):
        return
    old, new = _by_key(before), _by_key(after)
    for key in new.keys() - old.keys():
        details = QueueDetails(key, new[key].figures.type, new[key].leader)
        yield _broker(after.taken_at, Severity.PLAIN, "queue_appeared", key.name, details)
    for key in old.keys() - new.keys():
        yield _broker(after.taken_at, Severity.NOTICE, "queue_gone", key.name, QueueDetails(key))


def _consumers(before: ClusterSnapshot, after: ClusterSnapshot, _known: KnownChanges) -> Iterator[Event]:
    for was, queue in _common(before, after):
        had, has = was.figures.consumers, queue.figures.consumers
        if had is None or has is None or had == has:
            continue
        severity, kind = (Severity.NOTICE, "consumer_lost") if has < had else (Severity.PLAIN, "consumer_joined")
        details = ConsumerDetails(queue.key, abs(has - had), has)
        yield _broker(after.taken_at, severity, kind, queue.figures.name, details)


def _members(before: ClusterSnapshot, after: ClusterSnapshot, _known: KnownChanges) -> Iterator[Event]:
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
        yield _broker(after.taken_at, Severity.NOTICE, "member_offline", node, _member_details(node, queues))
    for node, queues in sorted(back.items()):
        yield _broker(after.taken_at, Severity.GOOD, "member_online", node, _member_details(node, queues))


def _member_details(node: str, queues: list[QueueView]) -> MemberDetails:
    first = queues[0]
    return MemberDetails(node, tuple(q.key for q in queues), len(first.online), len(first.members))


def _alarms(before: ClusterSnapshot, after: ClusterSnapshot, _known: KnownChanges) -> Iterator[Event]:
    for alarm in after.alarms:
        if alarm not in before.alarms:
            yield _broker(after.taken_at, Severity.BAD, "alarm_set", alarm.node, _alarm_details(after, alarm))
    for alarm in before.alarms:
        if alarm not in after.alarms:
            yield _broker(after.taken_at, Severity.GOOD, "alarm_cleared", alarm.node, _alarm_details(after, alarm))


def _alarm_details(snapshot: ClusterSnapshot, alarm: Alarm) -> AlarmDetails:
    node = snapshot.node(alarm.node)
    return AlarmDetails(alarm.node if node is None else node.name, alarm.resource)


def _partitions(before: ClusterSnapshot, after: ClusterSnapshot, _known: KnownChanges) -> Iterator[Event]:
    for name in sorted(set(after.partitions) - set(before.partitions)):
        yield _broker(after.taken_at, Severity.BAD, "partition", name, NodeDetails(name))
    for name in sorted(set(before.partitions) - set(after.partitions)):
        yield _broker(after.taken_at, Severity.GOOD, "partition_healed", name, NodeDetails(name))


def _management(before: ClusterSnapshot, after: ClusterSnapshot, _known: KnownChanges) -> Iterator[Event]:
    was, now = _management_of(before), _management_of(after)
    if was.heard_at is None:
        return
    if now.problem and not was.problem:
        details = ManagementDetails(problem=now.problem)
        yield _client(after.taken_at, Severity.NOTICE, "management_silent", after.cluster, details)
    elif was.problem and not now.problem:
        yield _client(after.taken_at, Severity.GOOD, "management_back", after.cluster, ManagementDetails(after.asks))
    elif before.asks and after.asks and before.asks != after.asks:
        details = ManagementDetails(after.asks, before.asks)
        yield _client(after.taken_at, Severity.NOTICE, "management_switched", after.asks, details)


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
        ordered = sorted(some, key=lambda e: (e.at, e.subject))
        told += ordered[:MOST_OF_A_KIND]
        rest = len(ordered) - MOST_OF_A_KIND
        if rest > 0:
            told.append(Event(now, ordered[0].origin, ordered[0].severity, kind, "", CountDetails(rest)))
    return told


def _broker(at: float, severity: Severity, kind: str, subject: str, details: Details | None = None) -> Event:
    return Event(at, Origin.BROKER, severity, kind, subject, details)


def _client(at: float, severity: Severity, kind: str, subject: str, details: Details) -> Event:
    return Event(at, Origin.CLIENT, severity, kind, subject, details)
