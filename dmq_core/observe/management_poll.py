"""What the management API says at one moment, read as cheaply as the size of the cluster asks for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from dmq_core.errors import AccessDeniedError
from dmq_core.management.client import ManagementClient
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.management.models import (
    Alarm,
    BindingFigures,
    ConnectionFigures,
    EntityKey,
    ExchangeFigures,
    NodeFigures,
    Overview,
    QueueFigures,
)

T = TypeVar("T")
CHEAP_S = 0.1
REST = 9.0
QUEUE_COLUMNS = (
    "vhost",
    "name",
    "type",
    "state",
    "leader",
    "node",
    "members",
    "online",
    "messages_ready",
    "messages_unacknowledged",
    "consumers",
    "durable",
    "exclusive",
    "auto_delete",
    "arguments",
    "policy",
    "memory",
    "message_stats",
)


@dataclass(frozen=True, slots=True, eq=False)
class ManagementFigures:
    """One reading. Times are epoch seconds: `began_at` when it began, `counted_at` when the queues' counters were read.

    `asked` answered it, `overview_asked` the overview in it. Between two full lists the queues' counters, and thus
    `counted_at`, are those of the last one.
    """

    began_at: float
    taken_at: float
    counted_at: float
    asked: ManagementEndpoint | None
    overview_asked: ManagementEndpoint | None
    overview: Overview
    nodes: tuple[NodeFigures, ...]
    exchanges: tuple[ExchangeFigures, ...] = ()
    queues: tuple[QueueFigures, ...] = ()
    bindings: tuple[BindingFigures, ...] = ()
    connections: tuple[ConnectionFigures, ...] = ()
    alarms: tuple[Alarm, ...] = ()


class AdaptiveCache(Generic[T]):
    """What `read` gave, kept for `least_s` seconds, or for ten times as long as it took where it took long."""

    def __init__(self, least_s: float, read: Callable[[], T]) -> None:
        self._least_s = least_s
        self._read = read
        self._value: T | None = None
        self._read_at = -math.inf
        self._rests_until = -math.inf
        self._hurries = False

    @property
    def is_due(self) -> bool:
        """Whether `get` would read again."""
        now = time.monotonic()
        return now >= self._rests_until and (self._hurries or now >= self._read_at + self._least_s)

    def invalidate(self) -> None:
        """What is kept is out of date: read it again as soon as its cost allows."""
        self._hurries = True

    def get(self) -> T:
        """What is kept, read again if it is due."""
        if self._value is None or self.is_due:
            self._hurries = False
            began = time.monotonic()
            self._value = self._read()
            self._read_at = time.monotonic()
            cost_s = self._read_at - began
            self._rests_until = self._read_at + (REST * cost_s if cost_s > CHEAP_S else 0.0)
        return self._value


class FiguresReader:
    """Reads figures again and again; what is costly or hardly changes is read less often than the rest.

    With hundreds of queues the full list is read each time. Where that takes over a tenth of a second it is read less
    often, and a list without statistics keeps states, leaders and depths fresh in between.
    """

    def __init__(self, client: ManagementClient) -> None:
        self._client = client
        self._overview = AdaptiveCache(5.0, lambda: (client.overview(), client.asks))
        self._exchanges = AdaptiveCache(2.0, client.exchanges)
        self._bindings = AdaptiveCache(5.0, client.bindings)
        self._connections = AdaptiveCache(0.0, lambda: _permitted(client.connections))
        self._full = AdaptiveCache(0.0, self._read_full)
        self._queues: dict[EntityKey, QueueFigures] = {}
        self._counted_at = 0.0

    def topology_changed(self) -> None:
        """Something was declared, deleted, bound or unbound: reads these lists at the next opportunity."""
        self._exchanges.invalidate()
        self._bindings.invalidate()

    def read(self) -> ManagementFigures:
        """Reads; raises what `ManagementClient` raises."""
        began = time.time()
        alarms = _permitted(self._client.alarms)
        nodes = self._client.nodes()
        queues = self._read_queues(nodes)
        overview, overview_asked = self._overview.get()
        return ManagementFigures(
            began_at=began,
            connections=self._connections.get(),
            exchanges=self._exchanges.get(),
            bindings=self._bindings.get(),
            overview=overview,
            overview_asked=overview_asked,
            nodes=nodes,
            queues=queues,
            alarms=alarms,
            counted_at=self._counted_at,
            asked=self._client.asks,
            taken_at=time.time(),
        )

    def _read_full(self) -> tuple[QueueFigures, ...]:
        queues = self._client.queues(QUEUE_COLUMNS)
        self._counted_at = time.time()
        return queues

    def _read_queues(self, nodes: tuple[NodeFigures, ...]) -> tuple[QueueFigures, ...]:
        if not self._queues or self._full.is_due:
            queues = self._full.get()
        else:
            running = frozenset(n.name for n in nodes if n.running)
            queues = refreshed(self._queues, self._client.queues_without_rates(), running)
        self._queues = {q.key: q for q in queues}
        return queues


def _permitted(read: Callable[[], tuple[T, ...]]) -> tuple[T, ...]:
    """What a user without the tag `monitoring` may not see is empty."""
    try:
        return read()
    except AccessDeniedError:
        return ()


def refreshed(
    last: dict[EntityKey, QueueFigures], cheap: tuple[QueueFigures, ...], running: frozenset[str]
) -> tuple[QueueFigures, ...]:
    """The queues of a cheap list with the statistics of the last full one.

    The cheap list leaves out classic queues of nodes that are down; they are kept while their node is not in `running`.
    """
    joined = [_joined(last.get(q.key), q) for q in cheap]
    told = {q.key for q in cheap}
    joined += [
        replace(q, state="down", online=())
        for q in last.values()
        if q.key not in told and q.type == "classic" and q.leader not in running
    ]
    return tuple(joined)


def _joined(full: QueueFigures | None, cheap: QueueFigures) -> QueueFigures:
    if full is None:
        return cheap
    return replace(
        full,
        state=cheap.state,
        leader=cheap.leader or full.leader,
        members=full.members if cheap.leader is None else cheap.members,
        online=cheap.online,
        ready=full.ready if cheap.ready is None else cheap.ready,
        unacked=full.unacked if cheap.unacked is None else cheap.unacked,
    )
