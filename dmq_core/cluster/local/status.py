"""What the nodes of a local cluster are doing, judged from their processes and listening ports."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dmq_core.cluster.local import isolation as local_isolation
from dmq_core.cluster.local import node as local_node
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.node import NODE_MARK, NodePlace
from dmq_core.cluster.local.processes import OwnProcess
from dmq_core.cluster.local.state import LocalState, read_state
from dmq_core.cluster.protocol import NodeChange, NodeInfo, NodeState
from dmq_core.errors import ClusterError

_BOOT_LIMIT_S = 120.0
_WATCH_S = 0.1
_WATCH_SCANS_EVERY = 3


class LocalStatus:
    """Looks at the cluster in `folder` without asking RabbitMQ, and remembers what it saw; threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, OwnProcess] = {}
        self._served: dict[str, OwnProcess] = {}

    def infos(self, state: LocalState, *, scan: bool = True) -> tuple[NodeInfo, ...]:
        """Every node in name order."""
        running = self.processes(state, scan=scan)
        listening = processes.listening_ports()
        infos: list[NodeInfo] = []
        for place in local_node.places(self._folder, state):
            name, process = place.node.name, running.get(place.node.name)
            served = process is not None and self._served.get(name) == process
            judged = _judge(process, place, listening, served=served)
            if process is not None and judged is NodeState.RUNNING:
                self._served[name] = process
            infos.append(NodeInfo(name, place.erlang_name, judged, place.endpoint))
        return tuple(infos)

    def serving(self, state: LocalState) -> tuple[NodeInfo, ...]:
        """The nodes that run and listen."""
        return tuple(info for info in self.infos(state) if info.state is NodeState.RUNNING)

    def processes(self, state: LocalState, *, scan: bool = True) -> dict[str, OwnProcess]:
        """The process of each node that has one. A scan looks for the nodes whose process is not known to live."""
        names = set(state.node_names)
        seen = {name: p for name, p in self._seen.items() if name in names and processes.alive(p)}
        if scan and seen.keys() != names:
            for process, folder in processes.find(NODE_MARK).items():
                path = Path(folder)
                if path.parent == self._folder and path.name in names and local_node.is_node_process(process):
                    seen.setdefault(path.name, process)
        self._seen = seen
        return dict(seen)

    def process(self, state: LocalState, node: str) -> OwnProcess | None:
        """The process of one node; None if it has none."""
        return self.processes(state).get(node)

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        """Yields changes of node states within 0.5 s until `stop` is set; nodes that go away have stopped."""
        known = self._states(scan=True)
        looks = 0
        while not stop.wait(_WATCH_S):
            looks += 1
            seen = self._states(scan=looks % _WATCH_SCANS_EVERY == 0)
            for node in sorted(known.keys() | seen.keys()):
                after = seen.get(node, NodeState.STOPPED)
                if known.get(node, NodeState.STOPPED) != after:
                    yield NodeChange(time.time(), node, after)
            known = seen

    def _states(self, *, scan: bool) -> dict[str, NodeState]:
        try:
            state = read_state(self._folder)
        except ClusterError:
            return {}
        return {} if state is None else {info.name: info.state for info in self.infos(state, scan=scan)}


def _judge(process: OwnProcess | None, place: NodePlace, listening: frozenset[int], *, served: bool) -> NodeState:
    if process is None:
        return NodeState.STOPPED
    if processes.frozen(process):
        return NodeState.PAUSED
    if local_isolation.is_cut(place, process):
        return NodeState.ISOLATED
    if place.node.amqp_port in listening:
        return NodeState.RUNNING
    if local_node.drained(place, process):
        return NodeState.DRAINING
    booting = not served and processes.age_s(process) < _BOOT_LIMIT_S
    return NodeState.STARTING if booting else NodeState.UNREACHABLE
