"""Changes of node states as the Docker engine pushes them."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dmq_core.cluster.docker.definition import CLUSTER_LABEL, NODE_LABEL, cluster_network
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.values import ContainerEvent
from dmq_core.cluster.protocol import NodeChange, NodeInfo, NodeState
from dmq_core.errors import DmqError

_POLL_S = 0.2
_RECONNECT_S = 0.5
# Nothing tells when a node whose ports are closed opens them again.
_LOOK_AGAIN_S = 1.0
# A cut is told of the network; what a command in a container did to its node, nothing tells.
_LOOK_AFTER = frozenset({"connect", "disconnect", "exec_die", "unpause"})
_STATES = {
    "start": NodeState.STARTING,
    "die": NodeState.STOPPED,
    "destroy": NodeState.STOPPED,
    "pause": NodeState.PAUSED,
}


def state_after(event: ContainerEvent) -> NodeState | None:
    """The state that an event leaves a node in; None if it changes none."""
    return _STATES.get(event.action)


def event_of(report: Mapping[str, Any]) -> ContainerEvent:
    """The event that the engine's JSON tells; for a network's, `labels` are its other attributes."""
    at = report.get("timeNano", 0) / 1e9 or float(report.get("time", 0)) or time.time()
    return ContainerEvent(at, str(report.get("Action", "")), report.get("Actor", {}).get("Attributes") or {})


def concerns(event: ContainerEvent, cluster: str) -> bool:
    """Whether it happened to a container, or on the network between the nodes, of `cluster`."""
    return event.labels.get(CLUSTER_LABEL) == cluster or (
        event.action in _LOOK_AFTER and event.labels.get("name") == cluster_network(cluster)
    )


def watch(
    engine: Engine, cluster: str, look: Callable[[], tuple[NodeInfo, ...]], stop: threading.Event
) -> Iterator[NodeChange]:
    """Yields changes until `stop` is set; connects again for ever while the engine is away, and misses no change then.

    `look` tells the nodes' states now; it also finds the moment from which a started node serves.
    """
    known = _States()
    with contextlib.suppress(DmqError):
        known.of(look())
    while not stop.is_set():
        with contextlib.suppress(DmqError), _listening(engine, cluster) as heard:
            yield from known.of(look())
            while not stop.is_set() and not heard.ended:
                event = heard.next()
                if event is not None and event.action not in _LOOK_AFTER:
                    yield from known.after(event)
                elif event is not None or known.awaiting:
                    yield from known.of(look())
        stop.wait(_RECONNECT_S)


class _States:
    """What is known of each node, so that each change is told once."""

    def __init__(self) -> None:
        self._known: dict[str, NodeState] = {}
        self._looked_at = 0.0

    @property
    def awaiting(self) -> bool:
        due = time.monotonic() - self._looked_at > _LOOK_AGAIN_S
        states = self._known.values()
        return NodeState.STARTING in states or (NodeState.UNREACHABLE in states and due)

    def of(self, nodes: tuple[NodeInfo, ...]) -> list[NodeChange]:
        now, self._looked_at = time.time(), time.monotonic()
        changed = [n for n in nodes if self._known.get(n.name, n.state) is not n.state]
        self._known.update({n.name: n.state for n in nodes})
        return [NodeChange(now, n.name, n.state) for n in changed]

    def after(self, event: ContainerEvent) -> list[NodeChange]:
        node, state = event.labels.get(NODE_LABEL), state_after(event)
        if node is None or state is None or self._known.get(node) is state:
            return []
        self._known[node] = state
        return [NodeChange(event.at, node, state)]


class _Heard(threading.Thread):
    """Moves an event stream, whose reading blocks, into a queue."""

    def __init__(self, stream: Iterable[Mapping[str, Any]], cluster: str) -> None:
        super().__init__(name="dmq-docker-events", daemon=True)
        self._stream = stream
        self._cluster = cluster
        self._queue: queue.SimpleQueue[ContainerEvent] = queue.SimpleQueue()
        self._over = threading.Event()

    @property
    def ended(self) -> bool:
        return self._over.is_set() and self._queue.empty()

    def next(self) -> ContainerEvent | None:
        try:
            return self._queue.get(timeout=_POLL_S)
        except queue.Empty:
            return None

    def run(self) -> None:
        # A stream that is closed or torn ends in one of many errors of urllib3, http.client, socket and json.
        with contextlib.suppress(Exception):
            for event in map(event_of, self._stream):
                if concerns(event, self._cluster):
                    self._queue.put(event)
        self._over.set()


@contextlib.contextmanager
def _listening(engine: Engine, cluster: str) -> Iterator[_Heard]:
    stream = engine.event_stream()
    heard = _Heard(stream, cluster)
    heard.start()
    try:
        yield heard
    finally:
        with contextlib.suppress(Exception):
            stream.close()
        heard.join(1.0)
