"""How a simulated cluster is observed: its sources are made up, what becomes of them is the real observer's work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dmq_core.cluster.protocol import NodeChange, NodeInfo
from dmq_core.errors import NotReachableError
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.observe.broker_events import QueueDeleted
from dmq_core.observe.events import Event
from dmq_core.observe.observation import Observation
from dmq_core.observe.observed_cluster import ObservedCluster
from dmq_core.observe.snapshot import ClusterSnapshot, SourceStatus
from dmq_core.observe.state import EVENT_SOURCE, LOG_SOURCE, MANAGEMENT
from dmq_core.testing.simulation.broker import SimBroker
from dmq_core.testing.simulation.figures import Place, figures_of
from dmq_core.testing.simulation.listener_thread import ListenerThread


class SimObservation:
    """Looks at the moment at which anything changes, on whatever thread moves the clock, so that each run is the same.

    `clients` are asked for the clients that are connected.
    """

    def __init__(self, broker: SimBroker, clients: Callable[[], tuple[Place, ...]]) -> None:
        self._broker = broker
        self._clients = clients
        self._observed = ObservedCluster(broker.name, broker.backend)
        self._asked: ManagementEndpoint | None = None
        self._observers: list[SimObserver] = []
        broker.listeners.append(self._changed)

    def snapshot(self) -> ClusterSnapshot:
        """The cluster now."""
        return self.look().snapshot

    def look(self) -> Observation:
        """The cluster now, and what happened since the last look; every observer hears of it, too."""
        with self._broker.lock:
            self._list_nodes()
            self._read_figures()
            observation = self._observed.observation(self._asked, self._feeds(), self._broker.now)
            for observer in tuple(self._observers):
                observer.hear(observation)
            return observation

    def observe(self, listener: Callable[[Observation], None]) -> SimObserver:
        """Begins to observe for `listener`."""
        observer = SimObserver(listener, self.look, self._observers.remove)
        with self._broker.lock:
            self._observers.append(observer)
            self.look()
        return observer

    def settle(self) -> None:
        """Returns once every listener has heard what happened so far; raises what a listener raised."""
        for observer in tuple(self._observers):
            observer.settle()

    def close(self) -> None:
        """Ends every observer."""
        if self._changed in self._broker.listeners:
            self._broker.listeners.remove(self._changed)
        for observer in tuple(self._observers):
            observer.close()

    def _changed(self, event: Event | None) -> None:
        if event is not None:
            self._observed.told(event)
        self.look()

    def _list_nodes(self) -> None:
        broker, now = self._broker, self._broker.now
        nodes = broker.nodes.values() if broker.exists else ()
        known = {node.name: node.state for node in self._observed.nodes}
        for node in nodes:
            if known.get(node.name, node.state) is not node.state:
                self._observed.node_changed(NodeChange(now, node.name, node.state))
        infos = tuple(NodeInfo(node.name, node.erlang_name, node.state, node.endpoint) for node in nodes)
        self._observed.nodes_listed(infos, now, now)

    def _read_figures(self) -> None:
        for key in self._observed.queues - self._broker.queues.keys():
            self._observed.broker_told(QueueDeleted(self._broker.now, key))
        try:
            figures = figures_of(self._broker, self._clients())
        except NotReachableError as error:
            self._asked = None
            self._observed.source_failed(MANAGEMENT, error.what)
        else:
            self._asked = figures.asked
            self._observed.figures_read(figures)

    def _feeds(self) -> Iterator[SourceStatus]:
        for source in (LOG_SOURCE, EVENT_SOURCE):
            if serving := self._broker.serving():
                yield SourceStatus(source, serving[0].endpoint.amqp_url, self._broker.now)
            else:
                yield SourceStatus(source, None, None, "no node to listen at")


class SimObserver:
    """One listener, told from a thread of its own."""

    def __init__(
        self,
        listener: Callable[[Observation], None],
        look: Callable[[], Observation],
        forget: Callable[[SimObserver], None],
    ) -> None:
        self._listener = listener
        self._look = look
        self._forget = forget
        self._closed = False
        self._thread: ListenerThread[Observation] = ListenerThread("fake-observer", self._tell)

    def hear(self, observation: Observation) -> None:
        """Something happened."""
        self._thread.put(observation)

    def poke(self) -> None:
        """Looks again now."""
        self._look()

    def settle(self) -> None:
        """Returns once the listener knows everything."""
        self._thread.settle()

    def close(self) -> None:
        """Ends it; may be called twice."""
        if not self._closed:
            self._closed = True
            self._forget(self)
            self._thread.close()

    def _tell(self, observations: tuple[Observation, ...]) -> None:
        events = tuple(event for observation in observations for event in observation.events)
        self._listener(Observation(observations[-1].snapshot, events))
