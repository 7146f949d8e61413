"""The fakes that ship with dmq behave like a cluster, on a clock that a test moves."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import Backend, Cluster, NodeAction, NodeChange, NodeState
from dmq_core.errors import ClusterError, ClusterNotFoundError, InvalidInputError, MessagingError, RefusedError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.messages import Outcome, OutgoingMessage, SeenMessage
from dmq_core.messaging.tap.source import TailSource
from dmq_core.observe.event_text import event_text
from dmq_core.observe.observation import Observation
from dmq_core.progress import Progress
from dmq_core.proof.progress import LoadAccount
from dmq_core.session.protocol import Proof, Session
from dmq_core.testing import HOSTILE_NAMES, FakeSession, hostile, thousand_queues
from dmq_core.testing.simulation.traffic import LOAD_QUEUE
from dmq_core.text import visible

NODES = ("rmq1", "rmq2", "rmq3")
ORDER = OutgoingMessage("orders", "order.eu.new", b"x")


def act(session: FakeSession, action: NodeAction, node: str) -> None:
    session.perform(Action(action, node))


def ended(load: Proof) -> LoadAccount:
    load.stop()
    load.finish()
    return load.progress().account


def test_the_fakes_are_what_the_protocols_ask_for() -> None:
    session: Session = FakeSession()
    cluster: Cluster = session.cluster
    assert cluster.exists()


def test_time_stands_still_until_it_is_moved() -> None:
    session = FakeSession()
    before = session.snapshot().taken_at
    assert session.snapshot().taken_at == before
    session.advance(2.5)
    assert session.snapshot().taken_at == pytest.approx(before + 2.5)


def test_two_runs_of_the_same_script_are_equal() -> None:
    def run() -> tuple[object, ...]:
        session = FakeSession()
        heard: list[Observation] = []
        session.observe(heard.append)
        load = session.load(300)
        session.advance(2)
        act(session, NodeAction.KILL, "rmq1")
        session.advance(3)
        act(session, NodeAction.START, "rmq1")
        final = ended(load)
        session.settle()
        told = tuple(event for seen in heard for event in seen.events)
        return final, told, session.snapshot().queues

    assert run() == run()


def test_leaders_of_a_killed_node_move_after_half_a_second() -> None:
    session = FakeSession()
    heard: list[Observation] = []
    session.observe(heard.append)
    act(session, NodeAction.KILL, "rmq2")
    session.advance(0.3)
    queue = session.snapshot().queue(EntityKey("/", "orders"))
    assert queue is not None
    assert (queue.leader, queue.online) == ("rmq2", ("rmq1", "rmq3")), "the last one is shown until another is elected"
    session.advance(0.3)
    queue = session.snapshot().queue(EntityKey("/", "orders"))
    assert queue is not None
    assert queue.leader in ("rmq1", "rmq3")
    moved = [e for o in heard for e in o.events if e.kind == "leader_moved" and e.subject == "orders"]
    assert [event_text(e) for e in moved] == [f"orders: leader rmq2 → {queue.leader}"]
    assert moved[0].at == pytest.approx(session.broker.now - 0.1, abs=0.06)


def test_a_classic_queue_goes_with_its_node_and_comes_back_with_it() -> None:
    session = FakeSession()
    act(session, NodeAction.KILL, "rmq1")
    session.advance(5)
    mail = session.snapshot().queue(EntityKey("/", "mail"))
    assert mail is not None
    assert (mail.leader, mail.online, mail.figures.state) == ("rmq1", (), "down")
    assert session.publish(OutgoingMessage("", "mail", b"x")).outcome is Outcome.NACKED
    act(session, NodeAction.START, "rmq1")
    assert session.publish(OutgoingMessage("", "mail", b"x")).outcome is Outcome.CONFIRMED


def test_without_a_majority_a_publish_is_unknown_after_its_timeout() -> None:
    session = FakeSession()
    act(session, NodeAction.KILL, "rmq1")
    act(session, NodeAction.KILL, "rmq2")
    settlement = session.publish(ORDER, timeout_s=3.0)
    assert settlement.outcome is Outcome.UNKNOWN
    assert settlement.seconds == pytest.approx(3.0, abs=0.1)


def test_a_publish_waits_for_an_election_and_is_confirmed() -> None:
    session = FakeSession()
    act(session, NodeAction.KILL, "rmq3")
    settlement = session.publish(ORDER)
    assert settlement.outcome is Outcome.CONFIRMED
    assert settlement.seconds == pytest.approx(0.5, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(NodeAction)), st.sampled_from(NODES), st.floats(min_value=0.0, max_value=4.0)),
        max_size=8,
    )
)
def test_whatever_happens_to_nodes_the_account_of_a_load_adds_up_and_nothing_is_lost(
    happenings: list[tuple[NodeAction, str, float]],
) -> None:
    session = FakeSession()
    load = session.load(100)
    for action, node, seconds in happenings:
        try:
            act(session, action, node)
        except InvalidInputError:
            continue
        session.advance(seconds)
        account = load.progress().account
        settled = account.confirmed + account.nacked + account.returned + account.unknown + account.not_sent
        assert account.attempted == settled + account.outstanding
        assert account.delivered <= account.attempted
        assert account.confirmed <= account.delivered + account.in_flight + account.lost
    session.cluster.start()
    session.advance(3.0)
    final = ended(load)
    session.close()
    assert (final.lost, final.outstanding, final.in_flight) == (0, 0, 0)
    assert final.confirmed <= final.delivered <= final.confirmed + final.unknown
    assert final.duplicates <= final.redelivered


def test_a_lost_message_shows_in_the_account() -> None:
    session = FakeSession()
    load = session.load(100)
    session.broker.lose_confirmed = 3
    session.advance(2)
    final = ended(load)
    assert final.lost == 3
    assert final.confirmed == final.delivered + 3


def test_a_paused_node_is_noticed_by_its_clients_after_two_seconds() -> None:
    session = FakeSession()
    load = session.load(100)
    session.advance(1)
    at = load.progress().account.consumer_at
    assert at is not None
    act(session, NodeAction.PAUSE, at)
    session.advance(1.9)
    assert load.progress().account.consumer_at == at
    session.advance(1.0)
    assert load.progress().account.consumer_at not in (None, at)
    act(session, NodeAction.UNPAUSE, at)
    assert ended(load).lost == 0


def test_a_tail_copies_by_pattern_and_by_queue_and_takes_nothing() -> None:
    session = FakeSession()
    by_pattern: list[SeenMessage] = []
    by_queue: list[SeenMessage] = []
    everything: list[SeenMessage] = []
    session.tail(TailSource("orders", "order.eu.*"), by_pattern.extend)
    session.tail(TailSource(queue="orders.eu"), by_queue.extend)
    session.tail(TailSource(), everything.extend)
    session.publish(ORDER)
    session.publish(OutgoingMessage("orders", "order.us.new", b"y"))
    session.publish(OutgoingMessage("", "orders.eu", b"z"))
    session.settle()
    assert [m.body for m in by_pattern] == [b"x"]
    assert [m.body for m in by_queue] == [b"x"]
    assert [m.body for m in everything] == [b"x", b"y", b"z"]
    assert len(session.broker.queues[EntityKey("/", "orders.eu")].messages) == 2


def test_the_next_call_fails_as_told_and_only_the_next() -> None:
    session = FakeSession()
    session.script.fail_next("publish", MessagingError("no"))
    with pytest.raises(MessagingError):
        session.publish(ORDER)
    assert session.publish(ORDER).outcome is Outcome.CONFIRMED
    session.script.fail_next("act", ClusterError("no"))
    with pytest.raises(ClusterError):
        act(session, NodeAction.KILL, "rmq1")


def test_a_held_call_waits_until_it_is_let_go() -> None:
    session = FakeSession()
    done = threading.Event()

    def publish() -> None:
        session.publish(ORDER)
        done.set()

    with session.script.hold("publish"):
        threading.Thread(target=publish, daemon=True).start()
        assert not done.wait(0.1)
    assert done.wait(5.0)


def test_a_listener_that_raises_is_told_to_the_test() -> None:
    session = FakeSession()

    def listener(_observation: Observation) -> None:
        raise ValueError("seen")

    session.observe(listener)
    with pytest.raises(ValueError, match="seen"):
        session.settle()


def test_a_cluster_that_was_never_started_starts_node_by_node() -> None:
    session = FakeSession(started=False)
    assert not session.cluster.exists()
    assert session.cluster.nodes() == ()
    assert session.snapshot().nodes == ()
    for attempt in (session.cluster.stop, lambda: session.cluster.logs("rmq1")):
        with pytest.raises(ClusterNotFoundError):
            attempt()
    steps: list[Progress] = []
    session.start_cluster(steps.append)
    assert [s.node for s in steps if s.node] == [n for node in NODES for n in (node, node)]
    assert steps[-1].fraction == 1.0
    assert {n.state for n in session.cluster.nodes()} == {NodeState.RUNNING}
    steps.clear()
    session.start_cluster(steps.append)
    assert steps == []


def test_what_cannot_be_done_to_a_node_is_bad_input() -> None:
    session = FakeSession()
    act(session, NodeAction.PAUSE, "rmq3")
    with pytest.raises(InvalidInputError, match="paused"):
        act(session, NodeAction.START, "rmq3")
    act(session, NodeAction.KILL, "rmq3")
    for action in set(NodeAction) - {NodeAction.KILL, NodeAction.STOP, NodeAction.START, NodeAction.RESTART}:
        with pytest.raises(InvalidInputError, match="does not run"):
            act(session, action, "rmq3")
    with pytest.raises(InvalidInputError, match="rmq9"):
        act(session, NodeAction.KILL, "rmq9")


@pytest.mark.parametrize(
    ("fault", "state", "undo"),
    [
        (NodeAction.ISOLATE, NodeState.ISOLATED, NodeAction.REJOIN),
        (NodeAction.DRAIN, NodeState.DRAINING, NodeAction.REVIVE),
    ],
)
@pytest.mark.parametrize("by_start", [False, True])
def test_a_node_that_is_cut_off_or_drained_gives_its_leaders_away_and_comes_back(
    fault: NodeAction, state: NodeState, undo: NodeAction, by_start: bool
) -> None:
    session = FakeSession()
    act(session, fault, "rmq2")
    act(session, fault, "rmq2")
    assert session.cluster.nodes()[1].state is state
    session.advance(2)
    view = session.snapshot().node("rmq2")
    assert view is not None
    assert (view.state, view.leads, view.connections) == (state, 1, 0), "a classic queue cannot move"
    assert session.publish(ORDER).outcome is Outcome.CONFIRMED
    act(session, NodeAction.START if by_start else undo, "rmq2")
    assert session.cluster.nodes()[1].state is NodeState.RUNNING
    act(session, undo, "rmq2")


def test_a_pause_does_not_mend_a_cut() -> None:
    session = FakeSession()
    act(session, NodeAction.ISOLATE, "rmq2")
    act(session, NodeAction.PAUSE, "rmq2")
    assert session.cluster.nodes()[1].state is NodeState.PAUSED
    for action in (NodeAction.REJOIN, NodeAction.DRAIN, NodeAction.REVIVE):
        with pytest.raises(InvalidInputError, match="paused"):
            act(session, action, "rmq2")
    act(session, NodeAction.UNPAUSE, "rmq2")
    assert session.cluster.nodes()[1].state is NodeState.ISOLATED
    for action in (NodeAction.DRAIN, NodeAction.REVIVE):
        with pytest.raises(InvalidInputError, match="isolated"):
            act(session, action, "rmq2")
    session.start_cluster()
    assert session.cluster.nodes()[1].state is NodeState.RUNNING


def test_an_attached_cluster_refuses_what_changes_its_nodes() -> None:
    session = FakeSession(backend=Backend.ATTACHED)
    with pytest.raises(RefusedError):
        act(session, NodeAction.KILL, "rmq1")
    with pytest.raises(RefusedError):
        session.cluster.act(NodeAction.KILL, "rmq1")
    with pytest.raises(RefusedError):
        session.start_cluster()
    assert session.publish(ORDER).outcome is Outcome.CONFIRMED


def test_figures_stay_and_grow_old_while_no_node_answers() -> None:
    session = FakeSession()
    before = session.snapshot()
    session.cluster.stop()
    session.advance(5)
    after = session.snapshot()
    assert [(q.key, q.leader, q.figures.ready) for q in after.queues] == [
        (q.key, q.leader, q.figures.ready) for q in before.queues
    ]
    assert {n.state for n in after.nodes} == {NodeState.STOPPED}
    management = next(s for s in after.sources if s.name == "management")
    assert management.problem
    age = after.age_s("management", after.taken_at)
    assert age is not None
    assert age >= 5


def test_changes_of_nodes_are_pushed_within_half_a_second() -> None:
    session = FakeSession()
    stop = threading.Event()
    changes: list[NodeChange] = []
    thread = threading.Thread(target=lambda: changes.extend(session.cluster.watch(stop)), daemon=True)
    thread.start()
    deadline = time.monotonic() + 5
    while "nodes" not in session.script.calls and time.monotonic() < deadline:
        time.sleep(0.01)
    act(session, NodeAction.KILL, "rmq2")
    time.sleep(0.5)  # the bound that the protocol promises
    stop.set()
    thread.join(2)
    assert [(c.node, c.state) for c in changes] == [("rmq2", NodeState.STOPPED)]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_route_and_are_safe_in_events(name: str) -> None:
    session = FakeSession(hostile)
    heard: list[Observation] = []
    session.observe(heard.append)
    assert session.publish(OutgoingMessage(name, "", b"x")).outcome is Outcome.CONFIRMED
    act(session, NodeAction.KILL, "rmq1")
    session.advance(2)
    session.broker.delete_queue(name)
    session.settle()
    texts = [event_text(e) for o in heard for e in o.events]
    assert any(visible(name) in text for text in texts)
    assert all(visible(text) == text for text in texts)


def test_a_thousand_queues_are_seen_in_a_blink() -> None:
    session = FakeSession(thousand_queues)
    began = time.thread_time()
    snapshot = session.snapshot()
    assert time.thread_time() - began < 0.3
    assert len(snapshot.queues) == snapshot.queues_total == 1007


def test_a_clock_that_follows_the_wall_needs_nobody_to_move_it() -> None:
    session = FakeSession(realtime=True)
    load = session.load(200)
    deadline = time.monotonic() + 5
    while load.progress().account.delivered < 50 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert load.progress().account.delivered >= 50
    session.close()
    assert load.progress().account.queue == LOAD_QUEUE
    session.close()
