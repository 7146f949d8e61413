"""A cluster in memory that demos are played on: its nodes, its messages and its figures are of one piece."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dmq_core.cluster.protocol import Backend, Cluster, NodeState
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.demo.context import CLIENT, DemoEnvironment
from dmq_core.messaging.connection.load_balancing import Policy
from dmq_core.testing.memory.broker import MemoryBroker
from dmq_core.testing.memory.figures import MemoryFigures
from dmq_core.testing.memory.flow import PAUSE_S, flowing
from dmq_core.testing.simulation.broker import SimBroker
from dmq_core.testing.simulation.cluster import FakeCluster

if TYPE_CHECKING:
    from dmq_core.observe.events import Event

_DOWN = frozenset({NodeState.STOPPED, NodeState.STARTING, NodeState.UNREACHABLE, NodeState.DRAINING})
_SILENT = frozenset({NodeState.PAUSED, NodeState.ISOLATED})
PATIENCE_S = 5.0


class MemoryDemoEnvironment:
    """Plays the messages of a simulated cluster in a `MemoryBroker` whose time passes while nothing is left to do.

    A node that the cluster stops, kills or drains is down for clients, too, one that it pauses or isolates is frozen,
    and an alarm blocks publishers; links are as they were. Without a `cluster` it is one of three nodes of its own.
    """

    def __init__(
        self, sim: SimBroker | None = None, cluster: Cluster | None = None, *, pause_s: float = PAUSE_S
    ) -> None:
        self._sim = sim or SimBroker("dmq", 3, backend=Backend.LOCAL, started=True, realtime=False)
        self.cluster = cluster or FakeCluster(self._sim)
        self._open = contextlib.ExitStack()
        self.broker = self._open.enter_context(MemoryBroker(len(self._sim.nodes)))
        self._open.enter_context(flowing(self.broker.advance, pause_s))
        self._names = tuple(self._sim.nodes)
        self._sim.listeners.append(self._follow)
        self._follow(None)

    def connect(
        self, cluster: Cluster, name: str = CLIENT, policy: Policy = Policy.ORDERED, node: str = ""
    ) -> BrokerConnectionManager:
        """A manager that knows every node, or `node` alone."""
        manager = BrokerConnectionManager(policy, name, network=self.broker.network)
        for one, at in zip(cluster.nodes(), self.broker.endpoints, strict=True):
            if node in ("", one.name):
                manager.register_broker(one.name, at.host, at.amqp_port)
        return manager

    def environment(self, *, read_only: bool = False, patience_s: float = PATIENCE_S) -> DemoEnvironment:
        """What a demo is played before."""
        return DemoEnvironment(
            self.cluster,
            self.connect,
            lambda _: MemoryFigures(self.broker),
            read_only,
            patience_s=patience_s,
            link=lambda cluster, name: LossyMemoryLink(self.broker, self.connect(cluster, name)),
        )

    @property
    def remains(self) -> tuple[str, ...]:
        """Queues and exchanges of demos."""
        return tuple(name for name in self.broker.names() if name.startswith("dmq.demo."))

    def close(self) -> None:
        """Ends time and broker."""
        if self._follow in self._sim.listeners:
            self._sim.listeners.remove(self._follow)
        self._open.close()

    def _follow(self, _event: Event | None) -> None:
        for name in self._names:
            node = self._sim.nodes.get(name)
            _bring(self.broker, name, NodeState.STOPPED if node is None else node.state)
        if self.broker.alarmed is not bool(self._sim.alarms):
            self.broker.alarm(bool(self._sim.alarms))


class LossyMemoryLink:
    """A `Link` to a broker in memory."""

    def __init__(self, broker: MemoryBroker, manager: BrokerConnectionManager) -> None:
        self._broker = broker
        self.manager = manager

    @property
    def lost(self) -> int:
        """How many confirms got lost so far, with all that is under way."""
        self._broker.settle()
        return self._broker.lost_confirms

    def lose_confirms(self) -> None:
        """Lets none through, from now on."""
        self._broker.drop_confirms(True)

    def break_off(self) -> None:
        """Breaks the connections that are there; on later ones nothing gets lost."""
        self._broker.drop_confirms(False)
        for connection in self.manager.connections:
            if connection.broker is not None:
                self._broker.close_connection(connection.name)

    def close(self) -> None:
        """Ends the clients."""
        self.manager.close()


def _bring(broker: MemoryBroker, name: str, state: NodeState) -> None:
    if state in _DOWN:
        broker.kill(name)
    elif state in _SILENT:
        broker.freeze(name)
    elif not broker.serves(name):
        broker.start(name)
        broker.thaw(name)
