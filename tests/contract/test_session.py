"""What every session keeps: the fake that ships with dmq, and the real one on each backend."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import clients
import pytest
from conftest import ON_DOCKER, ON_LOCAL

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Backend, Cluster, NodeAction, NodeState
from dmq_core.errors import MessagingError, RefusedError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, SeenMessage
from dmq_core.messaging.tap.source import TailSource
from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Event, Origin, Severity
from dmq_core.observe.observation import Observation
from dmq_core.observe.snapshot import ClusterSnapshot, QueueView
from dmq_core.proof.progress import LoadAccount
from dmq_core.proof.result import Verdict
from dmq_core.proof.scenario import scenario_of
from dmq_core.session.live import LiveSession
from dmq_core.session.protocol import Proof, Session
from dmq_core.testing import FakeSession, nothing

RATE = 200.0


@dataclass
class Stand:
    """A session and a topic exchange with one bound quorum queue to try it on."""

    session: Session
    exchange: str
    queue: str
    open_read_only: Callable[[], Session]

    def message(self, key: str, body: bytes = b"x") -> OutgoingMessage:
        return OutgoingMessage(self.exchange, key, body)


@dataclass
class Watcher:
    """An observing listener that keeps the newest snapshot, all events, and whether two calls ever overlapped."""

    snapshot: ClusterSnapshot | None = None
    events: list[Event] = field(default_factory=list)
    overlapped: bool = False
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, observation: Observation) -> None:
        self.overlapped |= not self._busy.acquire(blocking=False)
        self.snapshot = observation.snapshot
        self.events += observation.events
        self._busy.release()

    def state(self, node: str) -> NodeState | None:
        view = self.snapshot.node(node) if self.snapshot else None
        return None if view is None else view.state

    def queue(self, name: str) -> QueueView | None:
        return self.snapshot.queue(EntityKey("/", name)) if self.snapshot else None


def await_until(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    """Seconds until `condition` held; fails with `what` after `limit_s`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, f"not within {limit_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


# What shows the same on both backends.
MOSTLY_ON_DOCKER = [
    pytest.param(None, id="fake"),
    ON_DOCKER,
    pytest.param(Backend.LOCAL, marks=(*ON_LOCAL.marks, pytest.mark.thorough), id="local"),
]
# Proof runs, and a load is one, stand on real nodes in tests/cluster and in the README; here they are long.
REAL_IF_THOROUGH = [
    pytest.param(None, id="fake"),
    pytest.param(Backend.DOCKER, marks=(*ON_DOCKER.marks, pytest.mark.thorough), id="docker"),
    pytest.param(Backend.LOCAL, marks=(*ON_LOCAL.marks, pytest.mark.thorough), id="local"),
]


@pytest.fixture(params=[pytest.param(None, id="fake"), ON_DOCKER, ON_LOCAL])
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    name = f"contract-{secrets.token_hex(3)}"
    backend: Backend | None = request.param
    if backend is None:
        yield from _on_the_fake(name)
    else:
        cluster_on: Callable[[Backend], Cluster] = request.getfixturevalue("cluster_on")
        yield from _on_a_cluster(cluster_on(backend), name)


def _on_the_fake(name: str) -> Iterator[Stand]:
    session = FakeSession(nothing, realtime=True)
    session.broker.declare_exchange(name, "topic")
    session.broker.declare_queue(name, leader="rmq2")
    session.broker.bind(name, name, "order.#")
    opened: list[FakeSession] = []

    def open_read_only() -> Session:
        opened.append(FakeSession(nothing, read_only=True, realtime=True))
        return opened[-1]

    yield Stand(session, name, name, open_read_only)
    for each in (session, *opened):
        each.close()


def _on_a_cluster(cluster: Cluster, name: str) -> Iterator[Stand]:
    session = LiveSession(cluster)
    opened: list[LiveSession] = []

    def open_read_only() -> Session:
        opened.append(LiveSession(cluster, read_only=True))
        return opened[-1]

    with clients.channel(clients.node(cluster, "rmq2").endpoint) as channel:
        channel.exchange_declare(name, "topic", durable=True)
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(name, name, "order.#")
    yield Stand(session, name, name, open_read_only)
    for each in (session, *opened):
        each.close()
    cluster.start()
    with clients.channel(clients.node(cluster, "rmq1").endpoint) as channel:
        channel.queue_delete(name)
        channel.exchange_delete(name)


def test_observing_shows_the_whole_cluster_and_what_is_on_it(stand: Stand) -> None:
    seen = Watcher()
    observer = stand.session.observe(seen)
    await_until(lambda: seen.snapshot is not None, 2.0, "a first snapshot")
    await_until(lambda: seen.queue(stand.queue) is not None, 5.0, "the queue in a snapshot")
    assert seen.snapshot is not None
    assert [n.name for n in seen.snapshot.nodes] == ["rmq1", "rmq2", "rmq3"]
    assert {n.state for n in seen.snapshot.nodes} == {NodeState.RUNNING}
    assert seen.snapshot.rabbitmq
    age = seen.snapshot.age_s("management", time.time())
    assert age is not None
    assert age < 5.0
    queue = seen.queue(stand.queue)
    assert queue is not None
    assert queue.leader in queue.members
    assert set(queue.members) == set(queue.online) == {"rmq1", "rmq2", "rmq3"}
    assert (stand.exchange, "topic") in [(e.name, e.type) for e in seen.snapshot.exchanges]
    assert any(b.source == stand.exchange and b.routing_key == "order.#" for b in seen.snapshot.bindings)
    observer.close()
    observer.close()
    assert not seen.overlapped


@pytest.mark.parametrize("stand", MOSTLY_ON_DOCKER, indirect=True)
def test_each_publish_ends_in_its_own_outcome(stand: Stand) -> None:
    taken = stand.session.publish(stand.message("order.new", b"\x00\xff"))
    assert taken.outcome is Outcome.CONFIRMED
    assert taken.endpoint is not None
    assert taken.endpoint.startswith("127.0.0.1:")
    assert taken.seconds is not None
    assert 0 <= taken.seconds < 5
    assert stand.session.publish(stand.message("nobody.wants.it")).outcome is Outcome.RETURNED
    missing = stand.session.publish(OutgoingMessage("no-such-exchange", "k", b"x"))
    assert missing.outcome is Outcome.NACKED
    assert "404" in missing.reason or "no exchange" in missing.reason
    assert stand.session.publish(stand.message("order.again")).outcome is Outcome.CONFIRMED


@pytest.mark.parametrize("stand", MOSTLY_ON_DOCKER, indirect=True)
def test_a_tail_sees_what_is_published_and_takes_none_of_it(stand: Stand) -> None:
    seen: list[SeenMessage] = []
    watcher = Watcher()
    stand.session.observe(watcher)
    tail = stand.session.tail(TailSource(exchange=stand.exchange, pattern="order.eu.#"), seen.extend)
    probes = _until_the_tail_sees(stand, seen)
    headers = {"vip": True, "n": 3}
    for number in range(5):
        body = f"message {number}".encode()
        properties = MessageProperties(headers=headers)
        stand.session.publish(OutgoingMessage(stand.exchange, "order.eu.new", body, properties))
        stand.session.publish(stand.message("order.us.new"))
    await_until(lambda: len(_bodies(seen)) >= 5, 5.0, "five copies")
    assert _bodies(seen) == [f"message {n}".encode() for n in range(5)]
    copy = next(m for m in seen if m.body == b"message 0")
    assert (copy.exchange, copy.routing_key, copy.size) == (stand.exchange, "order.eu.new", 9)
    assert dict(copy.properties.headers) == headers
    assert tail.status().problem == ""
    assert tail.status().seen == len(seen)
    assert tail.status().blind_spots
    stored = 10 + probes
    await_until(lambda: _ready(watcher, stand) == stored, 8.0, f"all {stored} messages in the queue")
    tail.close()
    tail.close()


def _by_you(seen: Watcher) -> list[Event]:
    return [e for e in seen.events if e.origin is Origin.YOU]


def _bodies(seen: list[SeenMessage]) -> list[bytes]:
    return [m.body for m in seen if m.body != b"probe"]


def _ready(watcher: Watcher, stand: Stand) -> int | None:
    view = watcher.queue(stand.queue)
    return None if view is None else view.figures.ready


def _until_the_tail_sees(stand: Stand, seen: list[SeenMessage]) -> int:
    """Publishes until the tail has begun; the number of messages that took."""
    deadline = time.monotonic() + 10.0
    for number in range(1, 100):
        stand.session.publish(stand.message("order.eu.probe", b"probe"))
        heard = time.monotonic() + 0.2
        while time.monotonic() < heard:
            if seen:
                return number
            time.sleep(0.02)
        assert time.monotonic() < deadline, "not within 10 s: the tail sees anything"
    raise AssertionError("the tail saw none of 99 messages")


def test_a_killed_node_is_seen_within_a_second_and_its_leaders_move(stand: Stand) -> None:
    seen = Watcher()
    stand.session.observe(seen)
    await_until(lambda: (q := seen.queue(stand.queue)) is not None and q.leader is not None, 5.0, "the queue's leader")
    queue = seen.queue(stand.queue)
    assert queue is not None
    leader = queue.leader
    assert leader is not None
    kill = Action(NodeAction.KILL, leader)
    stand.session.perform(kill)
    took = await_until(lambda: seen.state(leader) is NodeState.STOPPED, 1.0, f"{leader} stopped in an observation")
    print(f"{leader} was seen stopped {took:.2f} s after the act")
    moved = "leader_moved"
    await_until(lambda: any(e.kind == moved and e.subject == stand.queue for e in seen.events), 8.0, "the leader moved")
    after = seen.queue(stand.queue)
    assert after is not None
    assert after.leader not in (None, leader)
    told = [e for e in seen.events if e.subject in (leader, stand.queue)]
    first = told[0]
    assert (first.origin, first.severity, first.kind) == (Origin.YOU, Severity.FAULT, "node_kill")
    assert any(e.kind == "node_down" and e.origin is Origin.BROKER for e in told)
    assert stand.session.publish(stand.message("order.after")).outcome is Outcome.CONFIRMED
    assert kill.undo is not None
    stand.session.perform(kill.undo)
    await_until(lambda: seen.state(leader) is NodeState.RUNNING, 5.0, f"{leader} running again")
    await_until(lambda: any(e.kind == "node_up" for e in seen.events), 5.0, "the story says that it is up")
    assert not seen.overlapped


@pytest.mark.parametrize("stand", MOSTLY_ON_DOCKER, indirect=True)
def test_a_fault_of_the_whole_cluster_is_told_as_it_begins_and_is_undone(stand: Stand) -> None:
    seen = Watcher()
    stand.session.observe(seen)
    await_until(lambda: seen.snapshot is not None, 5.0, "the first snapshot")
    undo = stand.session.perform(Action(FaultKind.DISK_ALARM, "rmq3"))
    assert undo == Action(FaultKind.CLEAR_DISK_ALARM, "rmq3")
    assert stand.session.cluster.active_faults() == (Fault(FaultKind.DISK_ALARM, "rmq3"),)
    await_until(lambda: seen.snapshot is not None and bool(seen.snapshot.alarms), 10.0, "the alarm in the snapshot")
    stand.session.perform(undo)
    assert stand.session.cluster.active_faults() == ()
    await_until(lambda: len(_by_you(seen)) == 2, 5.0, "both in the story")
    assert [(e.severity, e.kind, event_text(e)) for e in _by_you(seen)] == [
        (Severity.FAULT, "fault_disk-alarm", "rmq3 put under a disk alarm (you)"),
        (Severity.PLAIN, "fault_clear-disk-alarm", "rmq3 relieved of its disk alarm (you)"),
    ]


@pytest.mark.parametrize("stand", REAL_IF_THOROUGH, indirect=True)
def test_a_load_accounts_for_every_message_through_the_death_of_its_consumers_node(stand: Stand) -> None:
    seen = Watcher()
    stand.session.observe(seen)
    load = stand.session.load(RATE)
    await_until(lambda: account_of(load).delivered > RATE, 20.0, "a second's worth of deliveries")
    target = account_of(load).consumer_at
    assert target is not None
    stand.session.perform(Action(NodeAction.KILL, target))
    confirmed = account_of(load).confirmed
    await_until(lambda: account_of(load).redelivered > 0, 15.0, "redeliveries")
    await_until(lambda: account_of(load).confirmed > confirmed + RATE, 15.0, "confirms again")
    assert account_of(load).consumer_at != target
    _check_algebra(account_of(load))
    stand.session.perform(Action(NodeAction.START, target))
    assert not load.wait(0.0)
    load.stop()
    report = load.finish()
    final = account_of(load)
    _check_algebra(final)
    assert not final.running
    assert (final.outstanding, final.in_flight, final.lost) == (0, 0, 0)
    assert final.longest_delivery_gap_s > 0.1
    assert {"consumer_lost", "consumer_resumed", "redelivered"} <= {e.kind for e in seen.events}
    assert report.result.verdict is Verdict.PASS, report.result.reasons
    faults = [m for m in report.result.marks if m.kind in ("fault", "undo")]
    assert [m.text for m in faults] == [f"{target} killed", f"{target} started"]
    print(f"confirmed {final.confirmed}, redelivered {final.redelivered}, gap {final.longest_delivery_gap_s:.2f} s")


def account_of(load: Proof) -> LoadAccount:
    return load.progress().account


def _check_algebra(account: LoadAccount) -> None:
    parts = account.confirmed + account.nacked + account.returned + account.unknown + account.not_sent
    assert account.attempted == parts + account.outstanding
    assert account.delivered <= account.attempted
    assert account.confirmed <= account.delivered + account.in_flight + account.lost
    assert account.duplicates <= account.redelivered


@pytest.mark.parametrize("stand", REAL_IF_THOROUGH, indirect=True)
def test_a_proof_run_breaks_undoes_accounts_and_tells_of_its_fault(stand: Stand) -> None:
    seen = Watcher()
    stand.session.observe(seen)
    proof = stand.session.prove(scenario_of(NodeAction.KILL, "leader", 4.0))
    await_until(lambda: any(m.kind == "fault" for m in proof.progress().marks), 60.0, "the fault")
    assert proof.progress().account.confirmed > 0
    assert not proof.wait(0.0)
    report = proof.finish()
    assert report.result.verdict is Verdict.PASS, report.result.reasons
    assert proof.wait(0.0)
    assert report.result.account.lost == ()
    assert not report.problems
    assert any(e.severity is Severity.FAULT and e.kind == "node_kill" for e in seen.events)


@pytest.mark.parametrize("stand", REAL_IF_THOROUGH, indirect=True)
def test_a_proof_run_that_is_stopped_undoes_its_fault_first(stand: Stand) -> None:
    proof = stand.session.prove(scenario_of(NodeAction.PAUSE, "follower", 120.0))
    await_until(lambda: any(m.kind == "fault" for m in proof.progress().marks), 60.0, "the fault")
    proof.stop()
    assert proof.progress().is_stopping
    proof.finish()
    assert {n.state for n in stand.session.cluster.nodes()} == {NodeState.RUNNING}


@pytest.mark.parametrize("stand", MOSTLY_ON_DOCKER, indirect=True)
def test_a_read_only_session_watches_and_refuses_every_change(stand: Stand) -> None:
    session = stand.open_read_only()
    seen = Watcher()
    session.observe(seen)
    await_until(lambda: seen.snapshot is not None and len(seen.snapshot.nodes) == 3, 5.0, "the nodes")
    refused: tuple[Callable[[], object], ...] = (
        session.start_cluster,
        lambda: session.publish(stand.message("order.new")),
        lambda: session.load(RATE),
        lambda: session.prove(scenario_of(NodeAction.KILL, "leader")),
        lambda: session.perform(Action(NodeAction.KILL, "rmq1")),
        lambda: session.perform(Action(NodeAction.START, "rmq1")),
        lambda: session.perform(Action(FaultKind.MEMORY_ALARM, "rmq1")),
        lambda: session.perform(Action(Scaling.ADD)),
        lambda: session.perform(Action(Scaling.REMOVE, "rmq3")),
    )
    for change in refused:
        with pytest.raises(RefusedError, match="read-only"):
            change()
    assert {n.state for n in session.cluster.nodes()} == {NodeState.RUNNING}


def test_closing_ends_everything_within_five_seconds_and_twice_is_once(stand: Stand) -> None:
    calls: list[Observation] = []
    stand.session.observe(calls.append)
    stand.session.tail(TailSource(exchange=stand.exchange), lambda _messages: None)
    load = stand.session.load(RATE)
    await_until(lambda: bool(calls) and account_of(load).confirmed > 0, 20.0, "an observation and a confirm")
    began = time.monotonic()
    stand.session.close()
    stand.session.close()
    assert time.monotonic() - began < 5.5
    assert not account_of(load).running
    heard = len(calls)
    time.sleep(1.2)  # longer than a tick: a listener that still lives would have been called
    assert len(calls) == heard
    with pytest.raises(MessagingError, match="closed"):
        stand.session.publish(stand.message("order.late"))
