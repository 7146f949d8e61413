"""The cluster at one moment, as one immutable value that compares by identity."""

from __future__ import annotations

from dataclasses import dataclass

from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.majority import is_majority
from dmq_core.management.models import (
    Alarm,
    BindingFigures,
    ConnectionFigures,
    EntityKey,
    ExchangeFigures,
    NodeFigures,
    QueueFigures,
)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node: what its backend says joined with what the management API says (`figures` None: never heard).

    `leads` and `follows` count the quorum queues, streams and classic queues that it leads or is a member of.
    `memory_history` holds bytes, oldest first.
    """

    name: str
    erlang_name: str
    state: NodeState
    endpoint: NodeEndpoint
    figures: NodeFigures | None = None
    leads: int | None = None
    follows: int | None = None
    connections: int | None = None
    alarms: tuple[Alarm, ...] = ()
    memory_history: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue with `history`, its recent publish rates in messages a second, oldest first.

    Leaders and members are our short node names (`rmq1`) where the node is known, else Erlang names.
    """

    figures: QueueFigures
    leader: str | None
    members: tuple[str, ...]
    online: tuple[str, ...]
    history: tuple[float, ...] = ()

    @property
    def key(self) -> EntityKey:
        """What identifies the queue."""
        return self.figures.key


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source of figures (`management`, `backend events`, `log exchange`, `event exchange`).

    `heard_at` is the epoch second of its last good word (None: never), `endpoint` whom it asks, `problem` why it is
    silent now (empty: it is well).
    """

    name: str
    endpoint: str | None = None
    heard_at: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the cluster: counts, depths in messages, rates in messages a second."""

    queues: int | None = None
    connections: int | None = None
    ready: int | None = None
    unacked: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSnapshot:
    """Everything known of a cluster at `taken_at` (epoch seconds). `asks` names the node that last answered."""

    cluster: str
    backend: Backend
    taken_at: float
    rabbitmq: str | None = None
    asks: str | None = None
    nodes: tuple[NodeView, ...] = ()
    exchanges: tuple[ExchangeFigures, ...] = ()
    queues: tuple[QueueView, ...] = ()
    bindings: tuple[BindingFigures, ...] = ()
    connections: tuple[ConnectionFigures, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    partitions: tuple[str, ...] = ()
    totals: Totals = Totals()
    sources: tuple[SourceStatus, ...] = ()
    queues_total: int | None = None

    @property
    def running(self) -> tuple[NodeView, ...]:
        """The nodes that serve."""
        return tuple(n for n in self.nodes if n.state in (NodeState.RUNNING, NodeState.DRAINING))

    @property
    def voting(self) -> int:
        """How many nodes count for the majority."""
        return sum(n.state.votes for n in self.nodes)

    @property
    def has_majority(self) -> bool:
        """Whether enough nodes vote."""
        return is_majority(self.voting, len(self.nodes))

    def node(self, name: str) -> NodeView | None:
        """The node called `name` (ours or Erlang's)."""
        return next((n for n in self.nodes if name in (n.name, n.erlang_name)), None)

    def queue(self, key: EntityKey) -> QueueView | None:
        """The queue with that key."""
        return next((q for q in self.queues if q.key == key), None)

    def age_s(self, source: str, now: float) -> float | None:
        """Seconds since `source` last gave good figures; None: never."""
        heard = next((s.heard_at for s in self.sources if s.name == source), None)
        return None if heard is None else max(0.0, now - heard)
