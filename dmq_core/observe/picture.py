"""Everything that is known of a cluster, source by source, as one value; each piece of news gives a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from dmq_core.cluster.base import Backend, NodeChange, NodeInfo, NodeState
from dmq_core.management.models import Alarm, EntityKey, QueueFigures
from dmq_core.observe.figures import Figures
from dmq_core.observe.news import AlarmNews, ConsumerNews, LeaderNews
from dmq_core.observe.snapshot import SourceStatus

K = TypeVar("K")
V = TypeVar("V")

MANAGEMENT = "management"
BACKEND_EVENTS = "backend events"
LOG_SOURCE = "log exchange"
EVENT_SOURCE = "event exchange"

# How long news is believed against figures that are read later and say otherwise.
LEADER_LAG_S = 4.0
CONSUMER_LAG_S = 3.0
ALARM_LAG_S = 2.0


@dataclass(frozen=True, slots=True)
class ExpectedConsumers:
    """How many consumers a queue has by the event of `at` (epoch seconds)."""

    at: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What each source last told of a cluster.

    `since` has the epoch second at which the backend told the present state of a node; `erlang_names` our node names'
    Erlang names as the nodes themselves told them; `queue_history` publish rates and `memory_history` bytes, by Erlang
    name, oldest first.
    """

    cluster: str
    backend: Backend
    nodes: tuple[NodeInfo, ...] = ()
    since: Mapping[str, float] = field(default_factory=dict)
    erlang_names: Mapping[str, str] = field(default_factory=dict)
    figures: Figures | None = None
    queue_history: Mapping[EntityKey, tuple[float, ...]] = field(default_factory=dict)
    memory_history: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    leaders: Mapping[EntityKey, LeaderNews] = field(default_factory=dict)
    consumers: Mapping[EntityKey, ExpectedConsumers] = field(default_factory=dict)
    alarms: Mapping[Alarm, AlarmNews] = field(default_factory=dict)
    sources: Mapping[str, SourceStatus] = field(default_factory=dict)

    def erlang_name(self, node: NodeInfo) -> str:
        """RabbitMQ's name of one of our nodes: as it told itself, else as its backend supposes."""
        return self.erlang_names.get(node.name, node.erlang_name)


def with_nodes(picture: Picture, nodes: tuple[NodeInfo, ...], asked_at: float) -> Picture:
    """The backend listed its nodes; what it was asked before a later change is old news for that node."""
    states = {n.name: n.state for n in picture.nodes}
    fresh = []
    since = dict(picture.since)
    for node in nodes:
        known = states.get(node.name)
        if known is not None and known is not node.state:
            if since.get(node.name, 0.0) >= asked_at:
                fresh.append(replace(node, state=known))
                continue
            since[node.name] = asked_at
        fresh.append(node)
    return replace(picture, nodes=tuple(fresh), since=MappingProxyType(since))


def with_change(picture: Picture, change: NodeChange) -> Picture:
    """The backend told a node's change of state."""
    nodes = tuple(replace(n, state=change.state) if n.name == change.node else n for n in picture.nodes)
    return replace(picture, nodes=nodes, since=_with(picture.since, change.node, change.at))


def with_figures(
    picture: Picture,
    figures: Figures,
    queue_history: Mapping[EntityKey, tuple[float, ...]],
    memory_history: Mapping[str, tuple[int, ...]],
) -> Picture:
    """The management API was read; news that it has caught up with, or that is too old to differ, is dropped."""
    queues = {q.key: q for q in figures.queues}
    names = picture.erlang_names
    if figures.overview_asked is not None and figures.overview.node:
        names = _with(names, figures.overview_asked.name, figures.overview.node)
    return replace(
        picture,
        figures=figures,
        queue_history=queue_history,
        memory_history=memory_history,
        erlang_names=names,
        leaders=MappingProxyType({k: n for k, n in picture.leaders.items() if _still_ahead(n, queues.get(k), figures)}),
        consumers=MappingProxyType(
            {k: e for k, e in picture.consumers.items() if _still_expected(e, queues.get(k), figures)}
        ),
        alarms=MappingProxyType({a: n for a, n in picture.alarms.items() if figures.began_at < n.at + ALARM_LAG_S}),
    )


def with_leader(picture: Picture, news: LeaderNews) -> Picture:
    """A member was elected; an older term than the one known is ignored."""
    known = picture.leaders.get(news.queue)
    if known is not None and known.term > news.term:
        return picture
    return replace(picture, leaders=_with(picture.leaders, news.queue, news))


def with_consumer(picture: Picture, news: ConsumerNews) -> Picture:
    """A consumer came or went."""
    expected = picture.consumers.get(news.queue)
    count = expected.count if expected is not None else _counted_consumers(picture, news.queue)
    if count is None:
        return picture
    after = ExpectedConsumers(news.at, max(0, count + (1 if news.joined else -1)))
    return replace(picture, consumers=_with(picture.consumers, news.queue, after))


def with_alarm(picture: Picture, news: AlarmNews) -> Picture:
    """An alarm was set or cleared."""
    return replace(picture, alarms=_with(picture.alarms, news.alarm, news))


def with_source(picture: Picture, status: SourceStatus) -> Picture:
    """A source is well or is not."""
    return replace(picture, sources=_with(picture.sources, status.name, status))


def source_problem(picture: Picture, name: str, problem: str) -> Picture:
    """The source called `name` is silent; when it was last heard stays known."""
    status = picture.sources.get(name, SourceStatus(name))
    return with_source(picture, replace(status, problem=problem))


def endpoint_of(picture: Picture, node: str) -> NodeInfo | None:
    """The node of that name of ours."""
    return next((n for n in picture.nodes if n.name == node), None)


def serves(state: NodeState) -> bool:
    """Whether a node in that state answers clients."""
    return state in (NodeState.RUNNING, NodeState.DRAINING, NodeState.ISOLATED)


def _still_ahead(news: LeaderNews, queue: QueueFigures | None, figures: Figures) -> bool:
    if queue is None:
        return figures.began_at < news.at
    return queue.leader != news.node and figures.began_at < news.at + LEADER_LAG_S


def _still_expected(expected: ExpectedConsumers, queue: QueueFigures | None, figures: Figures) -> bool:
    if queue is None:
        return figures.began_at < expected.at
    return queue.consumers != expected.count and figures.began_at < expected.at + CONSUMER_LAG_S


def _counted_consumers(picture: Picture, key: EntityKey) -> int | None:
    if picture.figures is None:
        return None
    return next((q.consumers for q in picture.figures.queues if q.key == key), None)


def _with(mapping: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return MappingProxyType({**mapping, key: value})
