"""A running observation: every source on a thread of its own, one thread that joins them and tells its listener."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dmq_core.cluster.protocol import Cluster, NodeChange, NodeInfo, NodeState
from dmq_core.cluster.view import ClusterView
from dmq_core.errors import DmqError
from dmq_core.management.client import ManagementClient
from dmq_core.observe.broker_events import (
    AlarmChanged,
    BrokerEvent,
    ConsumerChanged,
    LeaderElected,
    QueueDeleted,
    SomethingChanged,
    StreamLeaderElected,
)
from dmq_core.observe.events import Event
from dmq_core.observe.feeds import Feeds
from dmq_core.observe.management_poll import FiguresReader, ManagementFigures
from dmq_core.observe.observation import Observation
from dmq_core.observe.observed_cluster import ObservedCluster
from dmq_core.observe.poller import Poller
from dmq_core.observe.state import (
    BACKEND_EVENTS,
    MANAGEMENT,
)

TICK_S = 1.0
# Snapshots are no closer together, and news makes the poller ask no more often.
GAP_S = 0.08
NEWS_POKE_S = 0.4
WATCH_AGAIN_S = 1.0
CLOSE_LIMIT_S = 1.8
_PREFERRED = (NodeState.RUNNING, NodeState.DRAINING)
_LOG = logging.getLogger("dmq.observe")


@dataclass(frozen=True, slots=True)
class _Listed:
    """The backend's list of nodes, and when it was asked."""

    asked_at: float
    nodes: tuple[NodeInfo, ...]


@dataclass(frozen=True, slots=True)
class _Silent:
    """A source failed."""

    source: str
    error: DmqError


_Word = NodeChange | BrokerEvent | ManagementFigures | Event | _Listed | _Silent


class ClusterObserver:
    """Observes `cluster` until `close`; it runs from the moment it is made.

    `listener` gets an `Observation` at least every second, whatever is down, and within a tenth of a second of
    whatever a feed tells; always from the same thread, which waits for it to return.
    """

    def __init__(self, cluster: Cluster, listener: Callable[[Observation], None]) -> None:
        self._cluster = cluster
        self._listener = listener
        self._inbox: queue.SimpleQueue[_Word] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._closing = threading.Lock()
        self._observed = ObservedCluster(cluster.name, cluster.backend)
        self._poke_at: float | None = None
        self._poked_at = 0.0
        self._client = ManagementClient((), cluster.credentials)
        self._reader = FiguresReader(self._client)
        self._feeds = Feeds(cluster.credentials, self._inbox.put)
        self._poller = Poller("poll management", self._reader.read, self._inbox.put, self._silent(MANAGEMENT))
        self._roll_call = Poller("list nodes", self._list_nodes, self._inbox.put, self._silent(BACKEND_EVENTS))
        self._watcher = threading.Thread(target=self._watch, name="watch nodes", daemon=True)
        self._joiner = threading.Thread(target=self._run, name="join sources", daemon=True)
        for thread in (self._joiner, self._watcher, self._roll_call):
            thread.start()

    def poke(self) -> None:
        """Looks again now rather than at the next tick; does not wait."""
        self._roll_call.poke()
        self._poller.poke()

    def tell(self, event: Event) -> None:
        """Adds an event that the cluster cannot tell, such as what its user does; does not wait."""
        self._inbox.put(event)

    def close(self) -> None:
        """Ends it within 2 s; may be called twice. The listener hears nothing after that."""
        if not self._closing.acquire(blocking=False):
            return
        deadline = time.monotonic() + CLOSE_LIMIT_S
        self._stop.set()
        self._client.close()
        closer = threading.Thread(target=self._feeds.close, name="close feeds", daemon=True)
        closer.start()
        for source in (self._poller, self._roll_call):
            source.close(max(0.0, deadline - time.monotonic()))
        for thread in (self._joiner, self._watcher, closer):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    # What the sources' threads do.

    def _list_nodes(self) -> _Listed:
        asked_at = time.time()
        return _Listed(asked_at, self._cluster.nodes())

    def _silent(self, source: str) -> Callable[[DmqError], None]:
        return lambda error: self._inbox.put(_Silent(source, error))

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                for change in self._cluster.watch(self._stop):
                    self._inbox.put(change)
            except DmqError as error:
                self._inbox.put(_Silent(BACKEND_EVENTS, error))
            self._stop.wait(WATCH_AGAIN_S)

    # What the joining thread does.

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            words = self._await_words(due)
            for word in words:
                self._hear(word)
            self._poke_if_due()
            if words or time.monotonic() >= due:
                self._tell()
                due = time.monotonic() + TICK_S
                self._stop.wait(GAP_S)

    def _await_words(self, due: float) -> list[_Word]:
        until = due if self._poke_at is None else min(due, self._poke_at)
        words: list[_Word] = []
        try:
            words.append(self._inbox.get(timeout=max(0.001, until - time.monotonic())))
            while True:
                words.append(self._inbox.get_nowait())
        except queue.Empty:
            return words

    def _hear(self, word: _Word) -> None:
        match word:
            case NodeChange():
                self._observed.node_changed(word)
                self._nodes_changed()
                self.poke()
            case _Listed():
                self._listed(word)
            case ManagementFigures():
                self._observed.figures_read(word)
            case Event():
                self._observed.told(word)
            case _Silent():
                self._observed.source_failed(word.source, word.error.what)
            case (
                LeaderElected()
                | StreamLeaderElected()
                | ConsumerChanged()
                | QueueDeleted()
                | AlarmChanged()
                | SomethingChanged()
            ):
                self._broker_told(word)

    def _broker_told(self, event: BrokerEvent) -> None:
        self._observed.broker_told(event)
        if isinstance(event, QueueDeleted) or (isinstance(event, SomethingChanged) and event.topology):
            self._reader.topology_changed()
        if self._poke_at is None:
            self._poke_at = max(time.monotonic(), self._poked_at + NEWS_POKE_S)

    def _listed(self, listed: _Listed) -> None:
        before = self._observed.nodes
        self._observed.nodes_listed(listed.nodes, listed.asked_at, time.time())
        self._nodes_changed()
        if self._observed.nodes != before:
            self._poller.poke()
        self._poller.start()

    def _nodes_changed(self) -> None:
        nodes = self._observed.nodes
        self._client.use(ClusterView(nodes, self._cluster.credentials).endpoints())
        preferred = [n.endpoint for n in nodes if n.state in _PREFERRED]
        self._feeds.use([n.endpoint for n in nodes], preferred)

    def _poke_if_due(self) -> None:
        now = time.monotonic()
        if self._poke_at is not None and now >= self._poke_at:
            self._poke_at, self._poked_at = None, now
            self._poller.poke()

    def _tell(self) -> None:
        observation = self._observed.observation(self._client.asks, self._feeds.statuses(), time.time())
        if self._stop.is_set():
            return
        try:
            self._listener(observation)
        except Exception:  # the listener is the caller's; its failure must not end the observation
            _LOG.exception("a listener failed")
