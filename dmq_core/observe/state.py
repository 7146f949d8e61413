"""Everything that is known of a cluster, source by source, as one value; each piece of news gives a new one.

The sources disagree for seconds: a feed tells at once what the management API, which gathers its figures every five
seconds, shows later. So each of them is believed for what it knows first, and only for as long as the other may lag;
without the second half, one event that was lost would be wrong for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from dmq_core.cluster.protocol import Backend, NodeChange, NodeInfo, NodeState
from dmq_core.management.models import Alarm, EntityKey, QueueFigures
from dmq_core.observe.broker_events import (
    AlarmChanged,
    ConsumerChanged,
    LeaderElected,
    QueueDeleted,
    StreamLeaderElected,
)
from dmq_core.observe.management_poll import ManagementFigures
from dmq_core.observe.snapshot import SourceStatus

K = TypeVar("K")
V = TypeVar("V")
MANAGEMENT = "management"
BACKEND_EVENTS = "backend events"
LOG_SOURCE = "log exchange"
EVENT_SOURCE = "event exchange"

# How long news is believed against figures that are read later and say otherwise.
LISTED_LAG_S = 1.0
LEADER_LAG_S = 4.0
CONSUMER_LAG_S = 3.0
ALARM_LAG_S = 2.0
# How long a queue that is not listed any more is believed to exist: with every node up, and with one in trouble, which
# makes brokers leave out queues that are still there.
MISSING_S = 2.5
MISSING_IN_TROUBLE_S = 60.0


@dataclass(frozen=True, slots=True)
class ExpectedConsumers:
    """How many consumers a queue has by the event of `at` (epoch seconds)."""

    at: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class ClusterState:
    """What each source last told of a cluster.

    `changes` has the last change of each node that the backend told, `erlang_names` our nodes' Erlang names as they
    told them themselves. `queue_history` holds publish rates and `memory_history`, by Erlang name, bytes, oldest first.
    Since when (epoch seconds) its peers say that a node does not run is in `unseen`, by Erlang name; since when a queue
    is not listed that is still believed to exist, in `missing`, and is listed without a leader, in `headless`; when one
    was deleted, in `deleted`. `asks` is whom the management client last had an answer from.
    """

    cluster: str
    backend: Backend
    nodes: tuple[NodeInfo, ...] = ()
    changes: Mapping[str, NodeChange] = field(default_factory=dict)
    erlang_names: Mapping[str, str] = field(default_factory=dict)
    figures: ManagementFigures | None = None
    queue_history: Mapping[EntityKey, tuple[float, ...]] = field(default_factory=dict)
    memory_history: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    leaders: Mapping[EntityKey, LeaderElected] = field(default_factory=dict)
    consumers: Mapping[EntityKey, ExpectedConsumers] = field(default_factory=dict)
    alarms: Mapping[Alarm, AlarmChanged] = field(default_factory=dict)
    unseen: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[EntityKey, float] = field(default_factory=dict)
    deleted: Mapping[EntityKey, float] = field(default_factory=dict)
    headless: Mapping[EntityKey, float] = field(default_factory=dict)
    asks: str | None = None
    sources: Mapping[str, SourceStatus] = field(default_factory=dict)

    def erlang_name(self, node: NodeInfo) -> str:
        """RabbitMQ's name of one of our nodes: as it told itself, else as its backend supposes."""
        return self.erlang_names.get(node.name, node.erlang_name)


def with_nodes(state: ClusterState, nodes: tuple[NodeInfo, ...], asked_at: float) -> ClusterState:
    """The backend listed its nodes; a list may lag behind a change that was pushed, so that one wins for a second."""
    states = {n.name: n.state for n in state.nodes}
    fresh = []
    changes = dict(state.changes)
    for node in nodes:
        known = states.get(node.name)
        if known is not None and known is not node.state:
            change = changes.get(node.name)
            if change is not None and change.at > asked_at - LISTED_LAG_S:
                fresh.append(replace(node, state=known))
                continue
            changes[node.name] = NodeChange(asked_at, node.name, node.state)
        fresh.append(node)
    return replace(state, nodes=tuple(fresh), changes=MappingProxyType(changes))


def with_change(state: ClusterState, change: NodeChange) -> ClusterState:
    """The backend told a node's change of state."""
    nodes = tuple(replace(n, state=change.state) if n.name == change.node else n for n in state.nodes)
    return replace(state, nodes=nodes, changes=_with(state.changes, change.node, change))


def with_figures(
    state: ClusterState,
    figures: ManagementFigures,
    queue_history: Mapping[EntityKey, tuple[float, ...]],
    memory_history: Mapping[str, tuple[int, ...]],
) -> ClusterState:
    """The management API was read; news that it has caught up with, or that is too old to differ, is dropped."""
    figures, missing = _with_missing(state, figures)
    figures, headless = _with_last_leaders(state, figures)
    queues = {q.key: q for q in figures.queues}
    names = state.erlang_names
    if figures.overview_asked is not None and figures.overview.node:
        names = _with(names, figures.overview_asked.name, figures.overview.node)
    began = figures.began_at
    return replace(
        state,
        figures=figures,
        queue_history=queue_history,
        memory_history=memory_history,
        erlang_names=names,
        unseen=MappingProxyType({n.name: state.unseen.get(n.name, began) for n in figures.nodes if not n.running}),
        missing=MappingProxyType(missing),
        headless=MappingProxyType(headless),
        deleted=MappingProxyType({k: at for k, at in state.deleted.items() if began < at + MISSING_IN_TROUBLE_S}),
        leaders=_kept(state.leaders, lambda key, event: _still_ahead(event, queues.get(key), began)),
        consumers=_kept(state.consumers, lambda key, expected: _still_expected(expected, queues.get(key), began)),
        alarms=_kept(state.alarms, lambda _alarm, event: began < event.at + ALARM_LAG_S),
    )


def with_leader(state: ClusterState, event: LeaderElected) -> ClusterState:
    """A member was elected; an older term than the one known is ignored."""
    # Two listeners at two nodes hear of elections in any order; the term says which one is the later.
    known = state.leaders.get(event.queue)
    if known is not None and known.term > event.term:
        return state
    return replace(state, leaders=_with(state.leaders, event.queue, event))


def stream_elections(state: ClusterState, event: StreamLeaderElected) -> tuple[LeaderElected, ...]:
    """The same of the streams that it may be about, of those that are known."""
    queues = () if state.figures is None else state.figures.queues
    keys = [q.key for q in queues if q.type == "stream" and event.is_of(q.key)]
    return tuple(LeaderElected(event.at, key, event.node, event.epoch) for key in keys)


def with_consumer(state: ClusterState, event: ConsumerChanged) -> ClusterState:
    """A consumer came or went."""
    expected = state.consumers.get(event.queue)
    count = expected.count if expected is not None else _counted_consumers(state, event.queue)
    if count is None:
        return state
    after = ExpectedConsumers(event.at, max(0, count + (1 if event.joined else -1)))
    return replace(state, consumers=_with(state.consumers, event.queue, after))


def with_alarm(state: ClusterState, event: AlarmChanged) -> ClusterState:
    """An alarm was set or cleared."""
    return replace(state, alarms=_with(state.alarms, event.alarm, event))


def with_deleted(state: ClusterState, event: QueueDeleted) -> ClusterState:
    """A queue was deleted."""
    return replace(state, deleted=_with(state.deleted, event.queue, event.at))


def with_source(state: ClusterState, status: SourceStatus) -> ClusterState:
    """A source is well or is not."""
    return replace(state, sources=_with(state.sources, status.name, status))


def source_problem(state: ClusterState, name: str, problem: str) -> ClusterState:
    """The source called `name` is silent; when it was last heard stays known."""
    status = state.sources.get(name, SourceStatus(name))
    return with_source(state, replace(status, problem=problem))


def _with_missing(state: ClusterState, figures: ManagementFigures) -> tuple[ManagementFigures, dict[EntityKey, float]]:
    """The figures with the queues of before that are not listed now but were not deleted as far as anybody told."""
    if state.figures is None:
        return figures, {}
    listed = {q.key for q in figures.queues}
    trouble = not all(n.running for n in figures.nodes) or any(n.state is not NodeState.RUNNING for n in state.nodes)
    patience = MISSING_IN_TROUBLE_S if trouble else MISSING_S
    kept: list[QueueFigures] = []
    missing: dict[EntityKey, float] = {}
    for queue in state.figures.queues:
        key = queue.key
        if key in listed or queue.exclusive:
            continue
        # In the middle of a failover a broker leaves out queues whose leader it cannot reach. Without patience they
        # would vanish from the screen and come back as new ones, each with a line in the story.
        since = state.missing.get(key, figures.began_at)
        was_deleted = state.deleted.get(key, 0.0) >= state.figures.began_at
        if not was_deleted and figures.began_at - since < patience:
            kept.append(queue)
            missing[key] = since
    if not kept:
        return figures, missing
    return replace(figures, queues=tuple(sorted((*figures.queues, *kept), key=lambda q: q.key))), missing


def _with_last_leaders(
    state: ClusterState, figures: ManagementFigures
) -> tuple[ManagementFigures, dict[EntityKey, float]]:
    """The figures in which a queue keeps its last leader while it elects another, which old brokers show as none."""
    headless = {
        q.key: state.headless.get(q.key, figures.began_at)
        for q in figures.queues
        if q.leader is None and q.type != "classic"
    }
    if not headless or state.figures is None:
        return figures, headless
    electing = {key for key, since in headless.items() if figures.began_at - since < LEADER_LAG_S}
    last = {q.key: q.leader for q in state.figures.queues if q.key in electing}
    queues = tuple(replace(q, leader=last[q.key]) if q.key in last else q for q in figures.queues)
    return replace(figures, queues=queues), headless


def _still_ahead(event: LeaderElected, queue: QueueFigures | None, began_at: float) -> bool:
    if queue is None:
        return began_at < event.at
    return queue.leader != event.node and began_at < event.at + LEADER_LAG_S


def _still_expected(expected: ExpectedConsumers, queue: QueueFigures | None, began_at: float) -> bool:
    if queue is None:
        return began_at < expected.at
    return queue.consumers != expected.count and began_at < expected.at + CONSUMER_LAG_S


def _counted_consumers(state: ClusterState, key: EntityKey) -> int | None:
    if state.figures is None:
        return None
    return next((q.consumers for q in state.figures.queues if q.key == key), None)


def _with(mapping: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return MappingProxyType({**mapping, key: value})


def _kept(mapping: Mapping[K, V], keeps: Callable[[K, V], bool]) -> Mapping[K, V]:
    return MappingProxyType({key: value for key, value in mapping.items() if keeps(key, value)})
