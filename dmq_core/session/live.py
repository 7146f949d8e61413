"""`LiveSession`: a session with a real cluster."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.actions.gate import actions_on, guard, guard_change, perform
from dmq_core.cluster.protocol import Cluster, NodeInfo, NodeState
from dmq_core.cluster.view import ClusterView
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import ClusterNotFoundError, DmqError, MessagingError, NotReachableError
from dmq_core.management.models import BindingFigures
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.states import FINAL_STATES
from dmq_core.messaging.messages import Outcome, OutgoingMessage, PublishResult, SeenMessage
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.tap.source import TailSource, TailStatus
from dmq_core.messaging.tap.tap import Tap
from dmq_core.messaging.topology.model import PrivateBinding
from dmq_core.observe.events import ActionDetails, Event, Origin, Severity
from dmq_core.observe.observation import Observation
from dmq_core.observe.observer import ClusterObserver
from dmq_core.progress import ProgressListener, no_progress
from dmq_core.proof.scenario import Scenario
from dmq_core.session.protocol import Observer, Proof, Tail
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.demo.runner import DemoRun
    from dmq_core.proof.run.live_run import LiveProofRun
    from dmq_core.proof.run.run import ProofOptions

CLOSE_LIMIT_S = 5.0
ASK_LIMIT_S = 3.0
CONNECT_LIMIT_S = 5.0


class _Closeable(Protocol):
    def close(self) -> object: ...


T = TypeVar("T", bound=_Closeable)


class LiveSession:
    """A session with `cluster`; nothing is connected before it is needed."""

    def __init__(self, cluster: Cluster, *, read_only: bool = False) -> None:
        self._cluster = cluster
        self._read_only = read_only
        self._lock = threading.Lock()
        self._open: list[_Closeable] = []
        self._observers: list[ClusterObserver] = []
        self._proofs: list[LiveProofRun] = []
        self._publisher: _Publisher | None = None
        self._closed = False

    @property
    def cluster(self) -> Cluster:
        """The cluster itself."""
        return self._cluster

    @property
    def read_only(self) -> bool:
        """Whether everything that changes the cluster or its messages is refused."""
        return self._read_only

    def start_cluster(self, progress: ProgressListener = no_progress) -> None:
        """Starts the cluster, made if need be."""
        guard(self._cluster, f"Start {self._cluster.name}", read_only=self._read_only)
        self._cluster.start(progress)

    def observe(self, listener: Callable[[Observation], None]) -> Observer:
        """Begins to observe; what `perform` does is told among the events."""

        def hear(observation: Observation) -> None:
            for proof in self._proofs:
                proof.heard(observation.events)
            listener(observation)

        observer = ClusterObserver(self._cluster, hear)
        with self._lock:
            self._observers.append(observer)
        return self._kept(observer)

    def publish(self, message: OutgoingMessage, timeout_s: float = CONNECT_LIMIT_S) -> PublishResult:
        """Publishes one message, confirmed; NOT_SENT with the reason if no node takes it in time."""
        guard_change("Publish", read_only=self._read_only)
        with self._lock:
            if self._publisher is None:
                self._refuse_if_closed()
                self._publisher = _Publisher(self._cluster)
                self._open.append(self._publisher)
        return self._publisher.publish(message, timeout_s)

    def tail(self, source: TailSource, listener: Callable[[tuple[SeenMessage, ...]], None]) -> Tail:
        """Begins to copy messages, by bindings like those of `source`."""
        kind, bindings = self._ways_in(source)
        connection = Connection(_endpoints(self._cluster, source.virtual_host), self._cluster.credentials, "dmq tail")
        try:
            tap = Tap(connection, source, listener, exchange_type=kind, bindings=bindings)
        except DmqError:
            connection.close()
            raise
        return self._kept(_LiveTail(tap, connection))

    def load(self, rate: float) -> Proof:
        """Begins a load, its consumer on the node of the queue's leader; what its clients feel is told as events."""
        from dmq_core.proof.run.load import load_of, load_options

        guard_change("Load", read_only=self._read_only)
        return self._follow(load_of(rate), load_options(read_only=self._read_only))

    def prove(self, scenario: Scenario, *, allow_majority_loss: bool = False) -> Proof:
        """Begins a proof run, whose faults are told among the events, and what its clients feel."""
        from dmq_core.proof.run.run import ProofOptions

        guard(self._cluster, scenario.title, read_only=self._read_only)
        # Whoever may take the majority has been told that the cluster is not whole.
        options = ProofOptions(
            read_only=self._read_only, force=allow_majority_loss, allow_majority_loss=allow_majority_loss
        )
        return self._follow(scenario, options)

    def _follow(self, scenario: Scenario, options: ProofOptions) -> Proof:
        from dmq_core.proof.run.live_run import LiveProofRun

        self._refuse_if_closed()
        proof = self._kept(LiveProofRun(self._cluster, scenario, options, self._hear))
        self._proofs = [*(p for p in self._proofs if not p.wait(0.0)), proof]
        return proof

    def demo(self, name: str) -> DemoRun[Any]:
        """Begins a demo with clients of its own; what it does to nodes is told as what `perform` does."""
        from dmq_core.demo.context import DemoEnvironment
        from dmq_core.demo.discovery import find_demo
        from dmq_core.demo.runner import DemoRun

        self._refuse_if_closed()
        actions = replace(actions_on(self._cluster, no_progress, read_only=self._read_only), perform=self.perform)
        return self._kept(
            DemoRun(name, find_demo(name), DemoEnvironment(self._cluster, read_only=self._read_only, actions=actions))
        )

    def perform(self, action: Action, progress: ProgressListener = no_progress) -> Action | None:
        """Does an action; one that takes something from clients is told as a fault as it begins."""
        guard(self._cluster, visible(action.title), read_only=self._read_only)
        if action.destructive:
            self._tell(action, Severity.FAULT)
        with contextlib.ExitStack() as recordings:
            for proof in self._proofs:
                recordings.enter_context(proof.recording(action))
            undo = perform(self._cluster, action, read_only=self._read_only, progress=progress)
            if not action.destructive:
                added = undo is not None and action.kind is Scaling.ADD
                self._tell(replace(action, node=undo.node) if added and undo else action, Severity.PLAIN)
            self._look_again()
        return undo

    def close(self) -> None:
        """Closes everything that this session opened, side by side, within 5 s; may be called twice."""
        with self._lock:
            self._closed = True
            ending, self._open, self._observers = self._open, [], []
        threads = [threading.Thread(target=thing.close, name="close", daemon=True) for thing in ending]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + CLOSE_LIMIT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _kept(self, thing: T) -> T:
        with self._lock:
            closed = self._closed
            if not closed:
                self._open.append(thing)
        if closed:
            thing.close()
            raise _closed_error()
        return thing

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise _closed_error()

    def _tell(self, action: Action, severity: Severity) -> None:
        subject = action.node or self._cluster.name
        details = ActionDetails(subject, action.done)
        self._hear(Event(time.time(), Origin.YOU, severity, action.event_kind, subject, details))

    def _look_again(self) -> None:
        for observer in self._observers:
            observer.poke()

    def _hear(self, event: Event) -> None:
        for observer in self._observers:
            observer.tell(event)

    def _ways_in(self, source: TailSource) -> tuple[str, tuple[PrivateBinding, ...]]:
        """The type of the exchange and the bindings that the tap needs, from the last snapshot or else the API."""
        if source.exchange is None and source.queue is None:
            return "topic", ()
        client = ClusterView(_nodes(self._cluster), self._cluster.credentials).management(ASK_LIMIT_S)
        with contextlib.closing(client):
            bindings = tuple(b for b in client.bindings() if b.vhost == source.virtual_host)
            if source.queue is not None:
                return "topic", _bindings_of_queue(bindings, source.queue)
            kinds = {x.name: x.type for x in client.exchanges() if x.vhost == source.virtual_host}
        if source.exchange not in kinds:
            raise MessagingError(
                f"there is no exchange {source.exchange!r} in virtual host {source.virtual_host!r}",
                "Choose one that the exchanges pane or 'dmq exchange list' shows.",
            )
        return kinds[source.exchange], _bindings_from_exchange(bindings, source.exchange)


class _Publisher:
    """One producer on one connection, made at the first message and kept for the next ones."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._parts: tuple[Connection, Publisher] | None = None

    def publish(self, message: OutgoingMessage, timeout_s: float) -> PublishResult:
        began = time.monotonic()
        try:
            producer = self._producer(timeout_s)
        except NotReachableError as error:
            return PublishResult(Outcome.NOT_SENT, None, time.monotonic() - began, error.what)
        return producer.publish_and_wait(message, max(0.1, timeout_s - (time.monotonic() - began)))

    def close(self) -> None:
        with self._lock:
            parts, self._parts = self._parts, None
        if parts is not None:
            connection, producer = parts
            producer.close(0.5)
            connection.close()

    def _producer(self, timeout_s: float) -> Publisher:
        with self._lock:
            if self._parts is not None and self._parts[0].status.state in FINAL_STATES:
                self._parts = None
            if self._parts is None:
                self._parts = self._connected(timeout_s)
            return self._parts[1]

    def _connected(self, timeout_s: float) -> tuple[Connection, Publisher]:
        connection = Connection(_endpoints(self._cluster), self._cluster.credentials, "dmq publish")
        try:
            connection.wait_open(timeout_s)
            return connection, Publisher(connection)
        except DmqError:
            connection.close()
            raise


class _LiveTail:
    """A tap together with the connection that it runs on."""

    def __init__(self, tap: Tap, connection: Connection) -> None:
        self._tap = tap
        self._connection = connection

    def status(self) -> TailStatus:
        return self._tap.status()

    def close(self) -> None:
        self._tap.close()
        self._connection.close()


def _nodes(cluster: Cluster) -> tuple[NodeInfo, ...]:
    nodes = cluster.nodes()
    if not nodes:
        raise ClusterNotFoundError(f"there is no cluster called {cluster.name} here", "Make it with 'dmq start'.")
    return nodes


def _endpoints(cluster: Cluster, virtual_host: str | None = None) -> tuple[NodeEndpoint, ...]:
    """Where clients reach the nodes, those that serve first; in the cluster's own virtual host unless one is given."""
    serving_first = sorted(_nodes(cluster), key=lambda n: n.state is not NodeState.RUNNING)
    endpoints = tuple(n.endpoint for n in serving_first)
    return endpoints if virtual_host is None else tuple(replace(e, virtual_host=virtual_host) for e in endpoints)


def _bindings_of_queue(bindings: tuple[BindingFigures, ...], queue: str) -> tuple[PrivateBinding, ...]:
    return tuple(
        PrivateBinding(b.source, b.routing_key, b.arguments)
        for b in bindings
        if b.destination_type == "queue" and b.destination == queue
    )


def _bindings_from_exchange(bindings: tuple[BindingFigures, ...], exchange: str) -> tuple[PrivateBinding, ...]:
    return tuple(PrivateBinding(b.source, b.routing_key, b.arguments) for b in bindings if b.source == exchange)


def _closed_error() -> MessagingError:
    return MessagingError("the session is closed", "Open another one.")
