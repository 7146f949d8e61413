"""`FakeCluster`: the `Cluster` protocol over the simulation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from dmq_core.cluster.faults.injector import MENDS_LINKS
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Backend, NodeAction, NodeChange, NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import (
    check_may_grow,
    check_may_leave,
    check_nothing_lost,
    check_queues_may_leave,
    lost_with,
    lowest_free_name,
)
from dmq_core.endpoints import Credentials
from dmq_core.errors import ClusterNotFoundError, InvalidInputError, NotReachableError, RefusedError
from dmq_core.management.models import EntityKey, QueueFigures
from dmq_core.progress import Progress, ProgressListener, no_progress
from dmq_core.testing.simulation.broker import HANDED_OVER_S, SILENT_ELECTION_S, SimBroker
from dmq_core.testing.simulation.scripted_failures import ScriptedFailures

BOOT_S = 3.0
STOP_S = 1.0
_WATCH_S = 0.05
_ALARMS = {
    FaultKind.MEMORY_ALARM: ("memory", True),
    FaultKind.CLEAR_MEMORY_ALARM: ("memory", False),
    FaultKind.DISK_ALARM: ("disk", True),
    FaultKind.CLEAR_DISK_ALARM: ("disk", False),
}
_AWAKE = frozenset({NodeState.RUNNING, NodeState.ISOLATED, NodeState.DRAINING})
_NEED_AN_ANSWER = frozenset({NodeAction.REJOIN, NodeAction.DRAIN, NodeAction.REVIVE})
_NEED_A_PROCESS = _NEED_AN_ANSWER | {NodeAction.PAUSE, NodeAction.UNPAUSE, NodeAction.ISOLATE}


class FakeCluster:
    """A cluster in memory that passes the same contract tests as the real ones.

    >>> from dmq_core.testing import FakeSession
    >>> cluster = FakeSession(started=False).cluster
    >>> cluster.start()
    >>> [str(node.state) for node in cluster.nodes()]
    ['running', 'running', 'running']
    """

    def __init__(self, broker: SimBroker, script: ScriptedFailures | None = None) -> None:
        self._broker = broker
        self.script = script or ScriptedFailures()
        self._before_pause: dict[str, NodeState] = {}
        self._links: dict[tuple[str, str], Fault] = {}

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._broker.name

    @property
    def backend(self) -> Backend:
        """The backend that it claims to be."""
        return self._broker.backend

    @property
    def credentials(self) -> Credentials:
        """guest."""
        return Credentials()

    def exists(self) -> bool:
        """Whether it was started before."""
        self.script.enter("exists")
        return self._broker.exists

    def nodes(self) -> tuple[NodeInfo, ...]:
        """Every node in name order; empty if the cluster does not exist."""
        self.script.enter("nodes")
        with self._broker.lock:
            if not self._broker.exists:
                return ()
            return tuple(NodeInfo(n.name, n.erlang_name, n.state, n.endpoint) for n in self._broker.nodes.values())

    def start(self, progress: ProgressListener = no_progress) -> None:
        """Starts what does not run, node by node, in 3 simulated seconds each."""
        self._own("start")
        self.script.enter("start")
        self._links.clear()
        idle = [n.name for n in self._broker.nodes.values() if n.state is not NodeState.RUNNING]
        if not idle:
            return
        progress(Progress("image dmq-rabbitmq:4.3 is here", fraction=0.0))
        self._broker.exists = True
        for index, name in enumerate(idle):
            progress(Progress(f"{name} boots", name, index / len(idle)))
            self.script.enter(f"boot {name}")
            self._heal(name)
            self._boot(name)
            progress(Progress(f"{name} serves", name, (index + 1) / len(idle)))
        progress(Progress("the cluster is whole", fraction=1.0))

    def stop(self, progress: ProgressListener = no_progress) -> None:
        """Stops every node and keeps all messages."""
        self._own("stop")
        self._check_exists()
        self.script.enter("stop")
        for name in self._broker.nodes:
            progress(Progress(f"{name} stops", name))
            self._set(name, NodeState.STOPPED)
        self._broker.wait(STOP_S)

    def destroy(self, progress: ProgressListener = no_progress) -> None:
        """Stops every node and forgets all queues."""
        self._own("destroy")
        self.script.enter("destroy")
        if self._broker.exists:
            self.stop(progress)
        with self._broker.lock:
            self._broker.exists = False
            self._broker.queues.clear()
            self._broker.bindings.clear()
            self._broker.changed()

    def act(self, action: NodeAction, node: str, progress: ProgressListener = no_progress) -> None:
        """Does `action` to `node`; returns once it holds."""
        self._own(f"{action} {node}")
        self._check(node)
        self._check_state(action, node)
        self.script.enter("act")
        progress(Progress(f"{action} {node}", node))
        if action in MENDS_LINKS:
            self._mend_links(node)
        acts: dict[NodeAction, Callable[[str], None]] = {
            NodeAction.KILL: self._kill,
            NodeAction.STOP: self._stop,
            NodeAction.START: self._start,
            NodeAction.RESTART: self._restart,
            NodeAction.PAUSE: self._pause,
            NodeAction.UNPAUSE: self._unpause,
            NodeAction.ISOLATE: self._isolate,
            NodeAction.REJOIN: self._heal,
            NodeAction.DRAIN: self._drain,
            NodeAction.REVIVE: self._heal,
        }
        acts[action](node)

    def add_node(self, progress: ProgressListener = no_progress) -> str:
        """Makes one more node in 3 simulated seconds and returns its name once replicated queues have grown onto it."""
        self._own("add a node")
        self._check_exists()
        self.script.enter("add_node")
        check_may_grow(self.nodes())
        with self._broker.lock:
            name = lowest_free_name(self._broker.nodes)
            self._broker.add_node(name)
        progress(Progress(f"{name} boots", name))
        self._boot(name)
        progress(Progress("queues grow onto it", name))
        with self._broker.lock:
            self._broker.grow_onto(name)
        return name

    def remove_node(self, node: str, progress: ProgressListener = no_progress, *, force: bool = False) -> None:
        """Takes `node` and its members away; refused for what would be lost, unless `force`."""
        self._own(f"remove {node}")
        self._check_exists()
        self.script.enter("remove_node")
        check_may_leave(node, self.nodes())
        with self._broker.lock:
            queues = self._placed_queues()
            check_queues_may_leave(node, queues)
            if not force:
                check_nothing_lost(node, lost_with(node, queues))
        progress(Progress(f"{node} leaves", node))
        self._stop(node)
        with self._broker.lock:
            self._broker.remove_node(node)

    def inject(self, fault: Fault, progress: ProgressListener = no_progress) -> str | None:
        """Does a fault of the whole cluster; of a leader that it moved it tells where that was."""
        self._own(str(fault.kind))
        self._check_exists()
        self.script.enter("inject")
        progress(Progress(str(fault.kind), fault.node))
        if fault.node is not None:
            self._check_runs(fault.node)
        with self._broker.lock:
            return self._injected(fault, progress)

    def active_faults(self) -> tuple[Fault, ...]:
        """The alarms and the cut or slow links that hold now."""
        self._own("active faults")
        self._check_exists()
        self.script.enter("active_faults")
        with self._broker.lock:
            kinds = {what: kind for kind, (what, on) in _ALARMS.items() if on}
            alarms = tuple(Fault(kinds[what], node) for node, what in sorted(self._broker.alarms))
            return (*alarms, *self._links.values())

    def logs(self, node: str, lines: int = 200) -> str:
        """A made-up log, with an escape sequence in it as real ones may have."""
        self.script.enter("logs")
        self._check(node)
        text = [f"2026-11-24 10:42:{i % 60:02}.000 [info] <0.{i}.0> line {i} of {node}" for i in range(1, 241)]
        text.append("2026-11-24 10:46:00.000 [error] <0.9.0> \x1b[31mred?\x1b[0m [bold]markup?[/bold]")
        return "\n".join(text[-lines:])

    def metrics(self, node: str) -> str:
        """Counters that never count: the simulation's messages pass through no protocol."""
        self.script.enter("metrics")
        self._check(node)
        if self._broker.nodes[node].state is not NodeState.RUNNING:
            raise NotReachableError(f"{node} does not tell its counters", "Does it run?")
        counted = ("received_total", "confirmed_total", "delivered_total", "acknowledged_total")
        lines = [f'rabbitmq_global_messages_{name}{{protocol="amqp091"}} 0' for name in counted]
        return "\n".join([f"rabbitmq_erlang_uptime_seconds {self._broker.now:.3f}", *lines, ""])

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        """Yields changes of node states within 0.05 s until `stop` is set."""
        before = {n.name: n.state for n in self.nodes()}
        while not stop.wait(_WATCH_S):
            for node in self.nodes():
                if before.get(node.name) is not node.state:
                    before[node.name] = node.state
                    yield NodeChange(self._broker.now, node.name, node.state)

    def _placed_queues(self) -> tuple[QueueFigures, ...]:
        """Every queue, with our names of the nodes that it is on."""
        return tuple(
            replace(q.figures, leader=q.leader, members=q.members, online=self._broker.online(q), ready=len(q.messages))
            for q in self._broker.queues.values()
        )

    def _own(self, what: str) -> None:
        if self._broker.backend is Backend.ATTACHED:
            raise RefusedError(f"{what}: refused, dmq did not make {self.name}", "An attached cluster is only watched.")

    def _check_exists(self) -> None:
        if not self._broker.exists:
            raise ClusterNotFoundError(f"there is no cluster called {self.name} here", "Make it with 'dmq start'.")

    def _check(self, node: str) -> None:
        self._check_exists()
        if node not in self._broker.nodes:
            raise InvalidInputError(f"{self.name} has no node {node!r}", f"Its nodes: {', '.join(self._broker.nodes)}.")

    def _check_state(self, action: NodeAction, node: str) -> None:
        state = self._broker.nodes[node].state
        if action is NodeAction.START and state is NodeState.PAUSED:
            raise InvalidInputError(f"{node} is paused, not stopped", f"'dmq node unpause {node}' lets it go on.")
        if action in _NEED_A_PROCESS and state is NodeState.STOPPED:
            raise InvalidInputError(f"{node} does not run", f"'dmq node start {node}' starts it.")
        if action in _NEED_AN_ANSWER and state is NodeState.PAUSED:
            raise InvalidInputError(f"{node} is paused", f"'dmq node unpause {node}' lets it go on.")
        if action in (NodeAction.DRAIN, NodeAction.REVIVE) and state is NodeState.ISOLATED:
            raise InvalidInputError(f"{node} is isolated", f"'dmq node rejoin {node}' connects it again.")

    def _check_runs(self, node: str) -> None:
        self._check(node)
        state = self._broker.nodes[node].state
        if state is not NodeState.RUNNING:
            raise InvalidInputError(f"{node} is {state}", "'dmq start' brings every node back.")

    def _injected(self, fault: Fault, progress: ProgressListener) -> str | None:
        if fault.kind is FaultKind.MOVE_LEADER:
            return self._move_leader(fault)
        if fault.kind in _ALARMS:
            resource, on = _ALARMS[fault.kind]
            self._broker.set_alarm(fault.node or "", resource, on=on)
        if fault.kind in (FaultKind.CUT_LINK, FaultKind.SLOW_LINK, FaultKind.MEND_LINK):
            self._change_links(fault)
        if fault.kind is FaultKind.ROLLING_RESTART:
            self._roll(progress)
        if fault.kind in (FaultKind.ROLLING_RESTART, FaultKind.REBALANCE):
            self._rebalance()
        return None

    def _change_links(self, fault: Fault) -> None:
        """Notes the links; nodes of 4.3, which these are, go on over the third one, and here at full speed."""
        node = fault.node or ""
        peers = [n for n in self._broker.nodes if n != node] if fault.peer is None else [fault.peer]
        for peer in peers:
            self._check_runs(peer)
            first, second = sorted((node, peer))
            self._links.pop((first, second), None)
            if fault.kind is not FaultKind.MEND_LINK:
                self._links[first, second] = replace(fault, node=first, peer=second)

    def _mend_links(self, node: str) -> None:
        self._links = {pair: fault for pair, fault in self._links.items() if node not in pair}

    def _move_leader(self, fault: Fault) -> str | None:
        queue = self._broker.queues.get(EntityKey(fault.virtual_host, fault.queue or ""))
        if queue is None or not queue.replicated:
            raise InvalidInputError(f"there is no quorum queue {fault.queue!r} in virtual host {fault.virtual_host!r}")
        before = queue.leader
        self._broker.move_leader(queue, fault.node or "")
        return before

    def _rebalance(self) -> None:
        running = [n.name for n in self._broker.serving()]
        replicated = [q for q in self._broker.queues.values() if q.replicated and q.leader]
        for index, queue in enumerate(replicated):
            self._broker.move_leader(queue, running[index % len(running)])

    def _roll(self, progress: ProgressListener) -> None:
        missing = [n.name for n in self._broker.nodes.values() if n.state is not NodeState.RUNNING]
        if missing or len(self._broker.nodes) < 3:
            raise InvalidInputError(
                "a rolling restart needs three nodes or more that all run", "'dmq start' brings them back."
            )
        for name in self._broker.nodes:
            progress(Progress(f"{name} restarts", name))
            self._drain(name)
            self._restart(name)

    def _set(self, node: str, state: NodeState, election_s: float | None = None) -> None:
        with self._broker.lock:
            self._broker.set_state(node, state, election_s)

    def _kill(self, node: str) -> None:
        self._set(node, NodeState.STOPPED)

    def _stop(self, node: str) -> None:
        self._set(node, NodeState.STOPPED, HANDED_OVER_S)
        self._broker.wait(STOP_S)

    def _boot(self, node: str) -> None:
        if self._broker.nodes[node].serves:
            return
        self._set(node, NodeState.STARTING)
        self._broker.wait(BOOT_S)
        self._set(node, NodeState.RUNNING)

    def _start(self, node: str) -> None:
        self._heal(node)
        self._boot(node)

    def _restart(self, node: str) -> None:
        self._stop(node)
        self._boot(node)

    def _pause(self, node: str) -> None:
        if self._broker.nodes[node].state in _AWAKE:
            self._before_pause[node] = self._broker.nodes[node].state
            self._set(node, NodeState.PAUSED, SILENT_ELECTION_S)

    def _unpause(self, node: str) -> None:
        if self._broker.nodes[node].state is NodeState.PAUSED:
            self._set(node, self._before_pause.pop(node, NodeState.RUNNING))

    def _isolate(self, node: str) -> None:
        if self._broker.nodes[node].state is NodeState.PAUSED:
            self._before_pause[node] = NodeState.ISOLATED
        else:
            self._set(node, NodeState.ISOLATED, SILENT_ELECTION_S)

    def _drain(self, node: str) -> None:
        self._set(node, NodeState.DRAINING, HANDED_OVER_S)

    def _heal(self, node: str) -> None:
        self._before_pause.pop(node, None)
        if self._broker.nodes[node].state in (*_AWAKE, NodeState.PAUSED):
            self._set(node, NodeState.RUNNING)
