"""All that is known of a cluster joined into one snapshot: pure, each figure from the source that knows it best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.view import NodeNames
from dmq_core.endpoints import NodeEndpoint
from dmq_core.majority import is_majority
from dmq_core.management.models import Alarm, NodeFigures, QueueFigures
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView, QueueView, SourceStatus, Totals
from dmq_core.observe.state import BACKEND_EVENTS, EVENT_SOURCE, LOG_SOURCE, MANAGEMENT, ClusterState

OWN_QUEUES = "dmq.observe."
# Peers know of a kill sooner than its backend may, and of a start later; what they say for this long is true.
UNSEEN_S = 2.5
_AWAY = frozenset(NodeState) - {NodeState.RUNNING, NodeState.DRAINING}
_SOURCES = (MANAGEMENT, BACKEND_EVENTS, LOG_SOURCE, EVENT_SOURCE)


def assemble(state: ClusterState, now: float) -> ClusterSnapshot:
    """The snapshot at `now` (epoch seconds).

    What a node does, its backend knows at once; who leads, the log exchange tells first; all else is the management
    API's, as old as `sources` says. The queues through which dmq itself listens are left out.
    """
    names = _Names(state)
    alarms = _alarms(state)
    queues = _queues(state, names)
    figures = state.figures
    connections = figures.connections if figures else ()
    return ClusterSnapshot(
        cluster=state.cluster,
        backend=state.backend,
        taken_at=now,
        rabbitmq=_version(state),
        asks=state.asks,
        nodes=_nodes(state, names, queues, alarms),
        exchanges=figures.exchanges if figures else (),
        queues=queues,
        bindings=tuple(b for b in figures.bindings if not b.destination.startswith(OWN_QUEUES)) if figures else (),
        connections=connections,
        alarms=alarms,
        partitions=_partitions(state, names),
        totals=_totals(queues, len(connections)) if figures else Totals(),
        sources=tuple(state.sources.get(name, SourceStatus(name)) for name in _SOURCES),
        queues_total=len(queues) if figures else None,
    )


class _Names(NodeNames):
    """What the nodes are called, and which of them cannot have an online member of a queue, by Erlang's names."""

    def __init__(self, state: ClusterState) -> None:
        nodes = [replace(node, erlang_name=state.erlang_name(node)) for node in state.nodes]
        super().__init__(nodes)
        self.stopped = frozenset(n.erlang_name for n in nodes if n.state is NodeState.STOPPED)
        ours = frozenset(n.erlang_name for n in nodes if n.state in _AWAY)
        told = state.figures.nodes if state.figures else ()
        self.away = ours | {n.name for n in told if not n.running}


def _nodes(
    state: ClusterState, names: _Names, queues: tuple[QueueView, ...], alarms: tuple[Alarm, ...]
) -> tuple[NodeView, ...]:
    figures = state.figures
    told = {n.name: n for n in figures.nodes} if figures else {}
    leads = Counter(q.leader for q in queues)
    members = Counter(m for q in queues for m in q.members if m != q.leader)
    clients = Counter(c.node for c in figures.connections) if figures else Counter[str | None]()

    def view(name: str, erlang_name: str, node_state: NodeState, endpoint: NodeEndpoint) -> NodeView:
        return NodeView(
            name=name,
            erlang_name=erlang_name,
            state=node_state,
            endpoint=endpoint,
            figures=told.get(erlang_name),
            leads=leads[name] if figures else None,
            follows=members[name] if figures else None,
            connections=_connections(node_state, clients[erlang_name]) if figures else None,
            alarms=tuple(a for a in alarms if a.node == erlang_name),
            memory_history=state.memory_history.get(erlang_name, ()),
        )

    views = []
    for node in state.nodes:
        erlang_name = state.erlang_name(node)
        node_state = _state(node, told.get(erlang_name), state)
        views.append(view(node.name, erlang_name, node_state, node.endpoint))
    ours = {v.erlang_name for v in views}
    for erlang_name, figure in sorted(told.items()):
        if erlang_name not in ours:
            endpoint = NodeEndpoint(erlang_name.rpartition("@")[2], None, None)
            views.append(view(names.short(erlang_name), erlang_name, _peer_state(figure), endpoint))
    return tuple(views)


def _connections(node_state: NodeState, counted: int) -> int:
    return 0 if node_state is NodeState.STOPPED else counted


def _peer_state(figure: NodeFigures) -> NodeState:
    """The state of a node that only its peers tell of."""
    if not figure.running:
        return NodeState.UNREACHABLE
    return NodeState.DRAINING if figure.being_drained else NodeState.RUNNING


def _state(node: NodeInfo, figure: NodeFigures | None, state: ClusterState) -> NodeState:
    figures = state.figures
    if node.state is not NodeState.RUNNING or figure is None or figures is None:
        return node.state
    # Figures that were asked for before the backend told a change cannot know of it, however late they arrive.
    change = state.changes.get(node.name)
    if change is not None and figures.began_at < change.at:
        return node.state
    if figure.running:
        return _peer_state(figure)
    unseen_since = max(state.unseen.get(figure.name, figures.began_at), 0.0 if change is None else change.at)
    unseen_s = figures.began_at - unseen_since
    return NodeState.UNREACHABLE if unseen_s >= UNSEEN_S and _seen_by_majority(state) else node.state


def _seen_by_majority(state: ClusterState) -> bool:
    """Whether the node that was asked sees more than half of the nodes: a cut off one calls all others dead."""
    nodes = state.figures.nodes if state.figures else ()
    return is_majority(sum(n.running for n in nodes), len(nodes))


def _queues(state: ClusterState, names: _Names) -> tuple[QueueView, ...]:
    if state.figures is None:
        return ()
    shown = (q for q in state.figures.queues if not (q.exclusive and q.name.startswith(OWN_QUEUES)))
    return tuple(_queue(_corrected(q, state, names), state, names) for q in shown)


def _corrected(queue: QueueFigures, state: ClusterState, names: _Names) -> QueueFigures:
    """The figures of a queue with what the feeds know better."""
    key = queue.key
    elected, expected = state.leaders.get(key), state.consumers.get(key)
    if elected is not None and elected.node != queue.leader:
        queue = replace(queue, leader=elected.node)
    if expected is not None and expected.count != queue.consumers:
        queue = replace(queue, consumers=expected.count)
    if (online := queue.online_without(names.away)) != queue.online:
        queue = replace(queue, online=online)
    if names.stopped and not names.stopped.isdisjoint(queue.online):
        queue = replace(queue, online=tuple(n for n in queue.online if n not in names.stopped))
    return queue


def _queue(queue: QueueFigures, state: ClusterState, names: _Names) -> QueueView:
    return QueueView(
        figures=queue,
        leader=None if queue.leader is None else names.short(queue.leader),
        members=names.all_short(queue.members),
        online=names.all_short(queue.online),
        history=state.queue_history.get(queue.key, ()),
    )


def _alarms(state: ClusterState) -> tuple[Alarm, ...]:
    counted = set(state.figures.alarms) if state.figures else set()
    for alarm, event in state.alarms.items():
        if event.is_set:
            counted.add(alarm)
        else:
            counted.discard(alarm)
    return tuple(sorted(counted, key=lambda a: (a.node, a.resource)))


def _partitions(state: ClusterState, names: _Names) -> tuple[str, ...]:
    told = {p for n in state.figures.nodes for p in n.partitions} if state.figures else set()
    return names.all_short(told)


def _version(state: ClusterState) -> str | None:
    if state.figures is None:
        return None
    versions = Counter(n.version for n in state.figures.nodes if n.version)
    return versions.most_common(1)[0][0] if versions else state.figures.overview.rabbitmq_version or None


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
