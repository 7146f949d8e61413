"""Changes of node states as the Docker engine pushes them."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dmq_core.cluster.base import NodeChange, NodeInfo, NodeState
from dmq_core.cluster.docker_engine import Engine
from dmq_core.cluster.docker_layout import CLUSTER_LABEL, NODE_LABEL
from dmq_core.cluster.docker_values import ContainerEvent
from dmq_core.errors import DmqError

_POLL_S = 0.2
_RECONNECT_S = 0.5
_STATES = {
    "start": NodeState.STARTING,
    "die": NodeState.STOPPED,
    "destroy": NodeState.STOPPED,
    "pause": NodeState.PAUSED,
    "unpause": NodeState.RUNNING,
}


def state_after(event: ContainerEvent) -> NodeState | None:
    """The state that an event leaves a node in; None if it changes none."""
    return _STATES.get(event.action)


def event_of(report: Mapping[str, Any]) -> ContainerEvent:
    """The event that the engine's JSON tells."""
    at = report.get("timeNano", 0) / 1e9 or float(report.get("time", 0)) or time.time()
    return ContainerEvent(at, str(report.get("Action", "")), report.get("Actor", {}).get("Attributes") or {})


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
                if event is not None:
                    yield from known.after(event)
                elif known.awaiting:
                    yield from known.of(look())
        stop.wait(_RECONNECT_S)


class _States:
    """What is known of each node, so that each change is told once."""

    def __init__(self) -> None:
        self._known: dict[str, NodeState] = {}

    @property
    def awaiting(self) -> bool:
        return NodeState.STARTING in self._known.values()

    def of(self, nodes: tuple[NodeInfo, ...]) -> list[NodeChange]:
        now = time.time()
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

    def __init__(self, stream: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(name="dmq-docker-events", daemon=True)
        self._stream = stream
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
            for report in self._stream:
                self._queue.put(event_of(report))
        self._over.set()


@contextlib.contextmanager
def _listening(engine: Engine, cluster: str) -> Iterator[_Heard]:
    stream = engine.event_stream(f"{CLUSTER_LABEL}={cluster}")
    heard = _Heard(stream)
    heard.start()
    try:
        yield heard
    finally:
        with contextlib.suppress(Exception):
            stream.close()
        heard.join(1.0)
