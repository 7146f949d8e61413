"""What the sources of a cluster tell, joined into one observation after the other; without threads, I/O or a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dmq_core.cluster.protocol import Backend, NodeChange, NodeInfo
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.management.models import EntityKey
from dmq_core.observe.broker_events import (
    AlarmChanged,
    BrokerEvent,
    ConsumerChanged,
    LeaderElected,
    QueueDeleted,
    StreamLeaderElected,
)
from dmq_core.observe.diff import KnownChanges, diff
from dmq_core.observe.events import Event
from dmq_core.observe.management_poll import ManagementFigures
from dmq_core.observe.observation import Observation
from dmq_core.observe.rates import RateCalculator
from dmq_core.observe.snapshot import ClusterSnapshot, SourceStatus
from dmq_core.observe.snapshot_builder import assemble
from dmq_core.observe.state import (
    BACKEND_EVENTS,
    MANAGEMENT,
    ClusterState,
    source_problem,
    stream_elections,
    with_alarm,
    with_change,
    with_consumer,
    with_deleted,
    with_figures,
    with_leader,
    with_nodes,
    with_source,
)


class ObservedCluster:
    """Takes what each source tells, in any order, and gives observations; not thread-safe. Times are epoch seconds."""

    def __init__(self, cluster: str, backend: Backend) -> None:
        self._state = ClusterState(cluster, backend)
        self._elections: dict[EntityKey, tuple[float, str, int]] = {}
        self._rates = RateCalculator()
        self._last: ClusterSnapshot | None = None
        self._told: list[Event] = []

    @property
    def nodes(self) -> tuple[NodeInfo, ...]:
        """The nodes as its backend told last."""
        return self._state.nodes

    @property
    def queues(self) -> frozenset[EntityKey]:
        """The queues that the management API told of."""
        figures = self._state.figures
        return frozenset() if figures is None else frozenset(queue.key for queue in figures.queues)

    def node_changed(self, change: NodeChange) -> None:
        """The backend told a change of a node's state."""
        self._state = with_change(self._state, change)

    def nodes_listed(self, nodes: tuple[NodeInfo, ...], asked_at: float, now: float) -> None:
        """The backend listed its nodes."""
        self._state = with_nodes(self._state, nodes, asked_at)
        self._state = with_source(self._state, SourceStatus(BACKEND_EVENTS, None, now))

    def figures_read(self, figures: ManagementFigures) -> None:
        """The management API was read."""
        figures = self._rates.measured(figures)
        history = self._rates.queue_history(figures.queues)
        self._state = with_figures(self._state, figures, history, dict(self._rates.memory_history))
        url = None if figures.asked is None else figures.asked.url
        self._state = with_source(self._state, SourceStatus(MANAGEMENT, url, figures.taken_at))
        listed = {queue.key for queue in figures.queues}
        # An election that is older than a list without its queue is over and done with.
        self._elections = {k: e for k, e in self._elections.items() if k in listed or e[0] > figures.began_at}

    def source_failed(self, source: str, problem: str) -> None:
        """A source is silent, or told something that makes no sense."""
        self._state = source_problem(self._state, source, problem)

    def broker_told(self, event: BrokerEvent) -> None:
        """A feed heard something of the broker."""
        match event:
            case LeaderElected():
                known = self._elections.get(event.queue)
                if known is None or known[2] <= event.term:
                    self._elections[event.queue] = (event.at, event.node, event.term)
                self._state = with_leader(self._state, event)
            case StreamLeaderElected():
                for elected in stream_elections(self._state, event):
                    self.broker_told(elected)
            case ConsumerChanged():
                self._state = with_consumer(self._state, event)
            case QueueDeleted():
                self._state = with_deleted(self._state, event)
            case AlarmChanged():
                self._state = with_alarm(self._state, event)

    def told(self, event: Event) -> None:
        """Somebody told an event that no source can, such as what a user does."""
        self._told.append(event)

    def observation(self, asks: ManagementEndpoint | None, feeds: Iterable[SourceStatus], now: float) -> Observation:
        """The cluster at `now`, and what happened since the last observation; `asks` is who answered last."""
        self._state = replace(self._state, asks=None if asks is None else asks.name)
        for status in feeds:
            self._state = with_source(self._state, status)
        snapshot = assemble(self._state, now)
        seen = diff(self._last, snapshot, KnownChanges(self._state.changes, self._elections))
        events = tuple(sorted((*self._told, *seen), key=lambda event: event.at))
        self._last, self._told = snapshot, []
        return Observation(snapshot, events)
