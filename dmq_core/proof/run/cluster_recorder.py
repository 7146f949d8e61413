"""What a proof run hears of its cluster and its clients while it lasts, put down in the journal on its one clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.protocol import Cluster, NodeChange, NodeState
from dmq_core.cluster.view import NodeNames
from dmq_core.connection_manager import ConnectionEvent, Role
from dmq_core.errors import DmqError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.connection.states import FINAL_STATES, LIVE_STATES, ConnectionState
from dmq_core.observe.broker_events import BrokerEvent, LeaderElected, StreamLeaderElected
from dmq_core.observe.feeds import Feeds
from dmq_core.proof.journal.records import ClientEvent

if TYPE_CHECKING:
    from dmq_core.proof.journal.file import Journal

HEARS_WITHIN_S: Final = 3.0
_AGAIN_S: Final = 0.5
_JOIN_S: Final = 2.0
_ROLES: Final = {Role.PUBLISHING: "publisher", Role.CONSUMING: "consumer"}


def monotonic_of(wall: float) -> float:
    """The monotonic second of an epoch second not long ago."""
    return time.monotonic() - (time.time() - wall)


@dataclass(slots=True)
class _ClientConnection:
    """A connection of the clients: the how manieth of its role, how often it was opened, and where it is."""

    role: Role
    number: int
    epoch: int = 0
    node: str = ""
    live: bool = False


class ClusterRecorder:
    """Hears node changes, elections of `queues` and what the clients' connections go through, from when it is made.

    Elections come from the log exchange, never from the API, which may hang for seconds when it matters. `consumers` is
    how many of them there are in all; `changed` hears of every node change, on one thread.
    """

    def __init__(
        self,
        cluster: Cluster,
        queues: Sequence[str],
        journal: Journal,
        consumers: int = 1,
        changed: Callable[[NodeChange], None] = lambda _change: None,
    ) -> None:
        self._cluster = cluster
        self._queues = frozenset(queues)
        self._consumers = consumers
        self._changed = changed
        self._journal = journal
        self._nodes = {node.name: node for node in cluster.nodes()}
        self._virtual_host = next((n.endpoint.virtual_host for n in self._nodes.values()), "/")
        self._states = {node.name: node.state for node in self._nodes.values()}
        self._names = NodeNames(self._nodes.values())
        self._heard = threading.Condition()
        self._changes: list[NodeChange] = []
        self._leaders: dict[str, tuple[int, str]] = {}
        self._clients: dict[str, _ClientConnection] = {}
        self._losses: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._feeds = Feeds(cluster.credentials, self._news)
        self._watcher = threading.Thread(target=self._watch, name="proof watch", daemon=True)
        self._use_feeds()
        self._watcher.start()

    def await_feeds(self) -> bool:
        """Waits until the log exchange is heard, at most 3 s; whether it is."""
        deadline = time.monotonic() + HEARS_WITHIN_S
        while time.monotonic() < deadline:
            if not self._feeds.statuses()[0].problem:
                return True
            self._stop.wait(0.05)
        return False

    def note_leader(self, queue: str, node: str) -> None:
        """Tells who leads a queue, as far as is known from elsewhere; what was heard of an election is better."""
        with self._heard:
            self._leaders.setdefault(queue, (0, node))
        self._journal.append_leader(queue, node)

    def leader(self, queue: str) -> str | None:
        """Who was last heard to lead it."""
        with self._heard:
            known = self._leaders.get(queue)
        return None if known is None else known[1]

    def await_leader(self, queue: str, node: str, timeout_s: float) -> bool:
        """Whether `node` is heard to lead the queue within `timeout_s` seconds."""
        with self._heard:
            return self._heard.wait_for(lambda: self._leaders.get(queue, (0, ""))[1] == node, timeout_s)

    def await_change(self, node: str, states: Sequence[NodeState], since: float, timeout_s: float) -> NodeChange | None:
        """The first change of `node` to one of `states` after the epoch second `since`; None if none comes in time."""

        def found() -> NodeChange | None:
            return next((c for c in self._changes if c.node == node and c.state in states and c.at >= since), None)

        with self._heard:
            self._heard.wait_for(lambda: found() is not None, timeout_s)
            return found()

    def first_loss_at(self, node: str, since: float) -> float | None:
        """The monotonic second, not before `since`, at which a client first lost that node; None: none did."""
        with self._heard:
            return min((at for at, lost in self._losses if lost == node and at >= since), default=None)

    def epoch(self, role: Role) -> int:
        """How often a connection of that role was opened."""
        with self._heard:
            return max((client.epoch for client in self._clients.values() if client.role is role), default=0)

    def node_of(self, role: Role) -> str | None:
        """Where the first connection of that role is, or was last."""
        with self._heard:
            nodes = [client.node for client in self._clients.values() if client.role is role]
        return nodes[0] if nodes and nodes[0] else None

    def connection_changed(self, event: ConnectionEvent) -> None:
        """Hears a change of a client's connection, on its I/O thread."""
        with self._heard:
            number = sum(client.role is event.role for client in self._clients.values())
            client = self._clients.setdefault(event.connection, _ClientConnection(event.role, number))
            was, client.live = client.live, event.status.state in LIVE_STATES
            if client.live and not was:
                first = client.epoch == 0
                client.epoch += 1
                client.node = str(event.broker or "")
        state, at = event.status.state, monotonic_of(event.status.at)
        if client.live and not was:
            self._tell(client, ClientEvent.CONNECTED if first else ClientEvent.RECONNECTED, "", at)
        elif was and not client.live and state is not ConnectionState.CLOSING and state not in FINAL_STATES:
            with self._heard:
                self._losses.append((at, client.node))
            self._tell(client, ClientEvent.LOST, event.status.problem, at)

    def close(self) -> None:
        """Listens no more."""
        self._stop.set()
        self._feeds.close()
        self._watcher.join(_JOIN_S)

    def _tell(self, client: _ClientConnection, event: ClientEvent, text: str, at: float) -> None:
        role = _ROLES[client.role]
        # All consumers share one connection, and the account asks for the end of each one's channel.
        numbers = range(self._consumers) if client.role is Role.CONSUMING else (client.number,)
        for number in numbers:
            self._journal.append_client(role, number, event, client.node, client.epoch, text, at)

    def _news(self, news: BrokerEvent) -> None:
        match news:
            case LeaderElected():
                if news.queue.name in self._queues:
                    self._led(news.queue.name, news.node, news.term, news.at)
            case StreamLeaderElected():
                for queue in self._queues:
                    if news.is_of(EntityKey(self._virtual_host, queue)):
                        self._led(queue, news.node, news.epoch, news.at)

    def _led(self, queue: str, erlang_name: str, term: int, at: float) -> None:
        node = self._names.short(erlang_name)
        with self._heard:
            if self._leaders.get(queue, (0, ""))[0] > term:
                return
            self._leaders[queue] = (term, node)
            self._heard.notify_all()
        self._journal.append_leader(queue, node, term, monotonic_of(at))

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                for change in self._cluster.watch(self._stop):
                    with self._heard:
                        self._changes.append(change)
                        self._states[change.node] = change.state
                        self._heard.notify_all()
                    self._changed(change)
                    if all(state is NodeState.RUNNING for state in self._states.values()):
                        # Not before: ears that move while a leader is elected do not hear of it.
                        self._use_feeds()
            except DmqError:
                # Without the backend's news a fault has the moment at which it was asked for.
                self._stop.wait(_AGAIN_S)

    def _use_feeds(self) -> None:
        endpoints = [node.endpoint for node in self._nodes.values()]
        self._feeds.use(endpoints, endpoints)
