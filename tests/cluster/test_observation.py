"""What is seen of a real cluster while its nodes are killed and frozen."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from clients import channel, node, publish

from dmq_core.cluster.protocol import Cluster, NodeAction, NodeState
from dmq_core.management.models import EntityKey
from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Event
from dmq_core.observe.observation import Observation
from dmq_core.observe.observer import ClusterObserver
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.observe.state import EVENT_SOURCE, LOG_SOURCE, MANAGEMENT

pytestmark = [pytest.mark.real, pytest.mark.docker]

FRESH_S = 2.5


class Watch:
    """Remembers every observation with the moment at which it came."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, Observation]] = []
        self._changed = threading.Condition()

    def __call__(self, observation: Observation) -> None:
        with self._changed:
            self.heard.append((time.time(), observation))
            self._changed.notify_all()

    @property
    def last(self) -> ClusterSnapshot:
        return self.heard[-1][1].snapshot

    def events(self, kind: str, subject: str | None = None, since: float = 0.0) -> list[tuple[float, Event]]:
        """The events of a kind, each with the moment at which the listener heard it."""
        return [
            (at, event)
            for at, observation in tuple(self.heard)
            for event in observation.events
            if event.kind == kind and subject in (None, event.subject) and event.at >= since
        ]

    def await_snapshot(self, holds: Callable[[ClusterSnapshot], bool], within: float, what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.heard) and holds(self.last), within), what

    def await_event(self, kind: str, subject: str, within: float, since: float = 0.0) -> tuple[float, Event]:
        with self._changed:
            told = self._changed.wait_for(lambda: bool(self.events(kind, subject, since)), within)
        assert told, f"no {kind} of {subject} within {within} s"
        return self.events(kind, subject, since)[0]


@pytest.fixture
def watch(docker_cluster: Cluster) -> Iterator[Watch]:
    seen = Watch()
    observer = ClusterObserver(docker_cluster, seen)
    try:
        seen.await_snapshot(_is_whole, 20.0, "the cluster is seen whole, by every source")
        yield seen
    finally:
        observer.close()


@pytest.fixture
def orders(docker_cluster: Cluster, watch: Watch) -> Iterator[str]:
    """A quorum queue that is seen with its leader and all its members."""
    name = f"observed-{secrets.token_hex(3)}"
    publish(node(docker_cluster, "rmq1").endpoint, name, ["one", "two"])
    seen = "the new queue is seen with its leader and its count of consumers"
    watch.await_snapshot(lambda s: _leader(s, name) is not None and _consumers(s, name) == 0, 8.0, seen)
    yield name
    docker_cluster.start()
    with channel(node(docker_cluster, "rmq1").endpoint) as ch:
        ch.queue_delete(name)


def test_a_new_queue_and_its_consumers_are_seen_within_two_seconds(
    docker_cluster: Cluster, watch: Watch, orders: str
) -> None:
    assert len(watch.events("queue_appeared", orders)) == 1
    with channel(node(docker_cluster, "rmq2").endpoint) as ch:
        began = time.time()
        ch.basic_consume(orders, lambda *_: None)
        joined, _ = watch.await_event("consumer_joined", orders, 5.0)
        assert joined - began < 2.0
        began = time.time()
    lost, _ = watch.await_event("consumer_lost", orders, 5.0)
    assert lost - began < 2.0
    watch.await_snapshot(lambda s: _consumers(s, orders) == 0, 5.0, "no consumer is left")
    assert len(watch.events("consumer_joined", orders)) == len(watch.events("consumer_lost", orders)) == 1


def test_a_killed_leader_and_its_heir_are_told_once_and_in_time(
    docker_cluster: Cluster, watch: Watch, orders: str
) -> None:
    leader = _leader(watch.last, orders)
    assert leader is not None
    began = time.time()
    docker_cluster.act(NodeAction.KILL, leader)
    down, fell = watch.await_event("node_down", leader, 5.0, began)
    moved, event = watch.await_event("leader_moved", orders, 5.0, began)
    assert down - fell.at < 0.5
    assert moved - fell.at < 2.0
    heir = _leader(watch.last, orders)
    assert heir not in (leader, None)
    assert event_text(event).startswith(f"{orders}: leader {leader} → {heir} (term ")
    assert fell.at <= event.at <= moved
    watch.await_snapshot(lambda s: _age(s, MANAGEMENT) < FRESH_S and s.asks != leader, 5.0, "figures come again")
    time.sleep(3.0)  # long enough for slow figures to tell it a second time, if they did
    assert len(watch.events("leader_moved", orders, began)) == 1
    assert len(watch.events("node_down", leader, began)) == 1


def test_when_the_node_that_is_asked_dies_another_is_asked(docker_cluster: Cluster, watch: Watch) -> None:
    asked = watch.last.asks
    assert asked is not None
    docker_cluster.act(NodeAction.KILL, asked)
    killed = time.time()
    _, event = watch.await_event("management_switched", watch_other(docker_cluster, watch, asked), 4.0)
    assert event_text(event).endswith(f"no longer {asked}")
    watch.await_snapshot(lambda s: _heard(s, MANAGEMENT) > killed, 4.0, "fresh figures from another node")


def test_a_frozen_node_is_seen_at_once_and_snapshots_come_on(docker_cluster: Cluster, watch: Watch) -> None:
    asked = watch.last.asks
    assert asked is not None
    began = time.time()
    docker_cluster.act(NodeAction.PAUSE, asked)
    try:
        frozen, event = watch.await_event("node_paused", asked, 5.0, began)
        assert frozen - event.at < 0.5
        watch.await_snapshot(lambda s: _heard(s, MANAGEMENT) > began + 2.0, 15.0, "figures come from another node")
        moments = [at for at, _ in watch.heard if at > began]
        assert max(b - a for a, b in itertools.pairwise(moments)) < 2.0
        assert watch.last.asks != asked
        seen = watch.last.node(asked)
        assert seen is not None
        assert seen.state is NodeState.PAUSED
    finally:
        docker_cluster.act(NodeAction.UNPAUSE, asked)
    watch.await_event("node_up", asked, 10.0, began)


def watch_other(cluster: Cluster, watch: Watch, asked: str) -> str:
    """The node that is asked instead of `asked`."""
    watch.await_snapshot(lambda s: s.asks not in (None, asked), 4.0, f"somebody else than {asked} is asked")
    other = watch.last.asks
    assert other in {n.name for n in cluster.nodes()}
    return str(other)


def _is_whole(snapshot: ClusterSnapshot) -> bool:
    feeds = (MANAGEMENT, LOG_SOURCE, EVENT_SOURCE)
    states = {n.state for n in snapshot.nodes}
    return states == {NodeState.RUNNING} and all(_age(snapshot, feed) < FRESH_S for feed in feeds)


def _age(snapshot: ClusterSnapshot, source: str) -> float:
    age = snapshot.age_s(source, time.time())
    return float("inf") if age is None else age


def _heard(snapshot: ClusterSnapshot, source: str) -> float:
    return next((s.heard_at or 0.0 for s in snapshot.sources if s.name == source), 0.0)


def _leader(snapshot: ClusterSnapshot, queue: str) -> str | None:
    view = snapshot.queue(EntityKey("/", queue))
    return None if view is None or len(view.online) < 2 else view.leader


def _consumers(snapshot: ClusterSnapshot, queue: str) -> int | None:
    view = snapshot.queue(EntityKey("/", queue))
    return None if view is None else view.figures.consumers
