"""All that is known of a cluster joined into one snapshot: pure, each figure from the source that knows it best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.management.models import Alarm, NodeFigures, QueueFigures
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView, QueueView, SourceStatus, Totals
from dmq_core.observe.state import BACKEND_EVENTS, EVENT_SOURCE, LOG_SOURCE, MANAGEMENT, Picture

OWN_QUEUES = "dmq.observe."
# Peers know of a kill sooner than its backend may, and of a start later; what they say for this long is true.
UNSEEN_S = 2.5
_AWAY = frozenset(NodeState) - {NodeState.RUNNING, NodeState.DRAINING}
_SOURCES = (MANAGEMENT, BACKEND_EVENTS, LOG_SOURCE, EVENT_SOURCE)


def assemble(picture: Picture, now: float) -> ClusterSnapshot:
    """The snapshot at `now` (epoch seconds).

    What a node does, its backend knows at once; who leads, the log exchange tells first; all else is the management
    API's, as old as `sources` says. The queues through which dmq itself listens are left out.
    """
    names = _Names(picture)
    alarms = _alarms(picture)
    queues = _queues(picture, names)
    figures = picture.figures
    connections = figures.connections if figures else ()
    return ClusterSnapshot(
        cluster=picture.cluster,
        backend=picture.backend,
        taken_at=now,
        rabbitmq=_version(picture),
        asks=picture.asks,
        nodes=_nodes(picture, names, queues, alarms),
        exchanges=figures.exchanges if figures else (),
        queues=queues,
        bindings=tuple(b for b in figures.bindings if not b.destination.startswith(OWN_QUEUES)) if figures else (),
        connections=connections,
        alarms=alarms,
        partitions=_partitions(picture, names),
        totals=_totals(queues, len(connections)) if figures else Totals(),
        sources=tuple(picture.sources.get(name, SourceStatus(name)) for name in _SOURCES),
        queues_total=len(queues) if figures else None,
    )


class _Names:
    """Our short names for Erlang names, where the node is ours to name."""

    def __init__(self, picture: Picture) -> None:
        self._ours = {picture.erlang_name(n): n.name for n in picture.nodes}
        self.stopped = frozenset(picture.erlang_name(n) for n in picture.nodes if n.state is NodeState.STOPPED)
        ours = frozenset(picture.erlang_name(n) for n in picture.nodes if n.state in _AWAY)
        told = picture.figures.nodes if picture.figures else ()
        self.away = ours | {n.name for n in told if not n.running}

    def short(self, erlang_name: str) -> str:
        return self._ours.get(erlang_name, erlang_name)

    def all_short(self, erlang_names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(self.short(name) for name in erlang_names))


def _nodes(
    picture: Picture, names: _Names, queues: tuple[QueueView, ...], alarms: tuple[Alarm, ...]
) -> tuple[NodeView, ...]:
    figures = picture.figures
    told = {n.name: n for n in figures.nodes} if figures else {}
    leads = Counter(q.leader for q in queues)
    members = Counter(m for q in queues for m in q.members if m != q.leader)
    clients = Counter(c.node for c in figures.connections) if figures else Counter[str | None]()

    def view(name: str, erlang_name: str, state: NodeState, endpoint: NodeEndpoint) -> NodeView:
        return NodeView(
            name=name,
            erlang_name=erlang_name,
            state=state,
            endpoint=endpoint,
            figures=told.get(erlang_name),
            leads=leads[name] if figures else None,
            follows=members[name] if figures else None,
            connections=_connections(state, clients[erlang_name]) if figures else None,
            alarms=tuple(a for a in alarms if a.node == erlang_name),
            memory_history=picture.memory_history.get(erlang_name, ()),
        )

    views = []
    for node in picture.nodes:
        erlang_name = picture.erlang_name(node)
        state = _state(node, told.get(erlang_name), picture)
        views.append(view(node.name, erlang_name, state, node.endpoint))
    ours = {v.erlang_name for v in views}
    for erlang_name, figure in sorted(told.items()):
        if erlang_name not in ours:
            endpoint = NodeEndpoint(erlang_name.rpartition("@")[2], None, None)
            views.append(view(names.short(erlang_name), erlang_name, _peer_state(figure), endpoint))
    return tuple(views)


def _connections(state: NodeState, counted: int) -> int:
    return 0 if state is NodeState.STOPPED else counted


def _peer_state(figure: NodeFigures) -> NodeState:
    """The state of a node that only its peers tell of."""
    if not figure.running:
        return NodeState.UNREACHABLE
    return NodeState.DRAINING if figure.being_drained else NodeState.RUNNING


def _state(node: NodeInfo, figure: NodeFigures | None, picture: Picture) -> NodeState:
    figures = picture.figures
    if node.state is not NodeState.RUNNING or figure is None or figures is None:
        return node.state
    change = picture.changes.get(node.name)
    if change is not None and figures.began_at < change.at:
        return node.state
    if figure.running:
        return _peer_state(figure)
    unseen_since = max(picture.unseen.get(figure.name, figures.began_at), 0.0 if change is None else change.at)
    unseen_s = figures.began_at - unseen_since
    return NodeState.UNREACHABLE if unseen_s >= UNSEEN_S and _seen_by_majority(picture) else node.state


def _seen_by_majority(picture: Picture) -> bool:
    """Whether the node that was asked sees more than half of the nodes: a cut off one calls all others dead."""
    nodes = picture.figures.nodes if picture.figures else ()
    return 2 * sum(n.running for n in nodes) > len(nodes)


def _queues(picture: Picture, names: _Names) -> tuple[QueueView, ...]:
    if picture.figures is None:
        return ()
    shown = (q for q in picture.figures.queues if not (q.exclusive and q.name.startswith(OWN_QUEUES)))
    return tuple(_queue(_corrected(q, picture, names), picture, names) for q in shown)


def _corrected(queue: QueueFigures, picture: Picture, names: _Names) -> QueueFigures:
    """The figures of a queue with what the feeds know better."""
    key = queue.key
    elected, expected = picture.leaders.get(key), picture.consumers.get(key)
    if elected is not None and elected.node != queue.leader:
        queue = replace(queue, leader=elected.node)
    if expected is not None and expected.count != queue.consumers:
        queue = replace(queue, consumers=expected.count)
    if (online := queue.online_without(names.away)) != queue.online:
        queue = replace(queue, online=online)
    if names.stopped and not names.stopped.isdisjoint(queue.online):
        queue = replace(queue, online=tuple(n for n in queue.online if n not in names.stopped))
    return queue


def _queue(queue: QueueFigures, picture: Picture, names: _Names) -> QueueView:
    return QueueView(
        figures=queue,
        leader=None if queue.leader is None else names.short(queue.leader),
        members=names.all_short(queue.members),
        online=names.all_short(queue.online),
        history=picture.queue_history.get(queue.key, ()),
    )


def _alarms(picture: Picture) -> tuple[Alarm, ...]:
    counted = set(picture.figures.alarms) if picture.figures else set()
    for alarm, news in picture.alarms.items():
        if news.is_set:
            counted.add(alarm)
        else:
            counted.discard(alarm)
    return tuple(sorted(counted, key=lambda a: (a.node, a.resource)))


def _partitions(picture: Picture, names: _Names) -> tuple[str, ...]:
    told = {p for n in picture.figures.nodes for p in n.partitions} if picture.figures else set()
    return names.all_short(told)


def _version(picture: Picture) -> str | None:
    if picture.figures is None:
        return None
    versions = Counter(n.version for n in picture.figures.nodes if n.version)
    return versions.most_common(1)[0][0] if versions else picture.figures.overview.rabbitmq_version or None


def _totals(queues: tuple[QueueView, ...], connections: int) -> Totals:
    return Totals(
        queues=len(queues),
        connections=connections,
        ready=_depth(q.figures.ready for q in queues),
        unacked=_depth(q.figures.unacked for q in queues),
        publish_rate=_sum(q.figures.publish_rate for q in queues),
        deliver_rate=_sum(q.figures.deliver_rate for q in queues),
    )


def _depth(depths: Iterable[int | None]) -> int | None:
    """The sum of what is known; None if no queue's depth is known yet, as just after a start."""
    asked = list(depths)
    known = [d for d in asked if d is not None]
    return None if asked and not known else sum(known)


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [r for r in rates if r is not None]
    return sum(known) if known else None
