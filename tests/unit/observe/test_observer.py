"""The running observation over a cluster whose backend speaks and whose nodes do not."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dmq_core.cluster.protocol import Backend, NodeChange, NodeInfo, NodeState
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import BackendUnavailableError
from dmq_core.observe.observation import Observation
from dmq_core.observe.observer import ClusterObserver
from dmq_core.observe.state import BACKEND_EVENTS, MANAGEMENT


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class SilentCluster:
    """Three nodes behind ports that refuse; the test moves their states."""

    name = "dmq"
    backend = Backend.DOCKER
    credentials = Credentials()

    def __init__(self) -> None:
        self.states = dict.fromkeys(("rmq1", "rmq2", "rmq3"), NodeState.RUNNING)
        self.pushed: queue.SimpleQueue[NodeChange] = queue.SimpleQueue()
        self.broken = False
        self._port = closed_port()

    def nodes(self) -> tuple[NodeInfo, ...]:
        if self.broken:
            raise BackendUnavailableError("Docker does not answer", "Start it.")
        endpoint = NodeEndpoint("127.0.0.1", self._port, self._port)
        return tuple(NodeInfo(n, f"rabbit@{n}", s, endpoint) for n, s in self.states.items())

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        while not stop.is_set():
            try:
                yield self.pushed.get(timeout=0.05)
            except queue.Empty:
                continue

    def push(self, node: str, state: NodeState) -> None:
        self.states[node] = state
        self.pushed.put(NodeChange(time.time(), node, state))


class Seen:
    """What a listener has heard, and from which threads."""

    def __init__(self) -> None:
        self.observations: list[tuple[float, Observation]] = []
        self.threads: set[str] = set()
        self.changed = threading.Condition()

    def __call__(self, observation: Observation) -> None:
        with self.changed:
            self.observations.append((time.time(), observation))
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()

    @property
    def last(self) -> Observation:
        return self.observations[-1][1]

    def await_that(self, holds: Callable[[Observation], bool], within: float) -> float:
        """The moment at which an observation first held; fails if none does."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(holds(o) for _, o in self.observations), within)
            return next(at for at, o in self.observations if holds(o))


@pytest.fixture
def cluster() -> SilentCluster:
    return SilentCluster()


@pytest.fixture
def seen(cluster: SilentCluster) -> Iterator[Seen]:
    listener = Seen()
    observer = ClusterObserver(cluster, listener)  # type: ignore[arg-type]  # only what an observer needs
    yield listener
    observer.close()


def source_problem(observation: Observation, name: str) -> str:
    return next(s.problem for s in observation.snapshot.sources if s.name == name)


def test_a_change_that_the_backend_pushes_is_heard_within_half_a_second(cluster: SilentCluster, seen: Seen) -> None:
    seen.await_that(lambda o: len(o.snapshot.nodes) == 3, 3.0)
    pushed = time.time()
    cluster.push("rmq2", NodeState.STOPPED)
    heard = seen.await_that(lambda o: any(e.kind == "node_down" for e in o.events), 3.0)
    assert heard - pushed < 0.5
    assert [(e.kind, e.subject) for e in seen.last.events if e.kind == "node_down"] == [("node_down", "rmq2")]


def test_with_every_management_api_dead_snapshots_come_on_and_say_so(cluster: SilentCluster, seen: Seen) -> None:
    seen.await_that(lambda o: source_problem(o, MANAGEMENT) != "", 5.0)
    start = len(seen.observations)
    with seen.changed:
        assert seen.changed.wait_for(lambda: len(seen.observations) >= start + 3, 5.0)
    moments = [at for at, _ in seen.observations[start - 1 :]]
    assert max(b - a for a, b in itertools.pairwise(moments)) < 1.6
    assert "refuses the connection" in source_problem(seen.last, MANAGEMENT)
    assert seen.last.snapshot.queues_total is None
    assert len(seen.last.snapshot.running) == 3


def test_a_backend_that_falls_silent_keeps_its_last_states(cluster: SilentCluster, seen: Seen) -> None:
    seen.await_that(lambda o: len(o.snapshot.nodes) == 3, 3.0)
    cluster.broken = True
    seen.await_that(lambda o: source_problem(o, BACKEND_EVENTS) == "Docker does not answer", 4.0)
    assert len(seen.last.snapshot.nodes) == 3


def test_a_change_that_was_not_pushed_is_found_by_asking(cluster: SilentCluster, seen: Seen) -> None:
    seen.await_that(lambda o: len(o.snapshot.nodes) == 3, 3.0)
    cluster.states["rmq3"] = NodeState.PAUSED
    seen.await_that(lambda o: any(e.kind == "node_paused" for e in o.events), 4.0)


def test_the_listener_is_called_from_one_thread(cluster: SilentCluster, seen: Seen) -> None:
    cluster.push("rmq1", NodeState.PAUSED)
    cluster.push("rmq1", NodeState.RUNNING)
    seen.await_that(lambda o: source_problem(o, MANAGEMENT) != "", 5.0)
    assert len(seen.threads) == 1


def test_a_listener_that_raises_does_not_end_the_observation(cluster: SilentCluster) -> None:
    heard = threading.Semaphore(0)

    def stumbles(_observation: Observation) -> None:
        heard.release()
        raise ValueError("the listener's own fault")

    observer = ClusterObserver(cluster, stumbles)  # type: ignore[arg-type]  # only what an observer needs
    try:
        for _ in range(3):
            assert heard.acquire(timeout=3.0)
    finally:
        observer.close()


def test_closing_takes_under_two_seconds_leaves_no_thread_and_may_come_twice(cluster: SilentCluster) -> None:
    before = set(threading.enumerate())
    listener = Seen()
    observer = ClusterObserver(cluster, listener)  # type: ignore[arg-type]  # only what an observer needs
    listener.await_that(lambda o: source_problem(o, MANAGEMENT) != "", 5.0)
    started = time.monotonic()
    observer.close()
    observer.close()
    assert time.monotonic() - started < 2.0
    count = len(listener.observations)
    deadline = time.monotonic() + 3.0
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert len(listener.observations) == count
