"""A node comes or goes only where no queue and no majority is lost by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.actions.gate import perform
from dmq_core.actions.impact import impact_of
from dmq_core.actions.wording import sentences_of
from dmq_core.cluster.protocol import Backend, NodeAction, NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import (
    check_may_grow,
    check_may_leave,
    check_nothing_lost,
    check_queues_may_leave,
    lost_with,
    lowest_free_name,
    needs,
)
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import InvalidInputError, RefusedError
from dmq_core.majority import Margin
from dmq_core.management.models import EntityKey, QueueFigures
from dmq_core.messaging.messages import Outcome, OutgoingMessage
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.testing import FakeSession

UP, DOWN = NodeState.RUNNING, NodeState.STOPPED
ORDER = OutgoingMessage("orders", "order.eu.new", b"x")


def nodes(*states: NodeState) -> tuple[NodeInfo, ...]:
    return tuple(
        NodeInfo(f"rmq{i}", f"rabbit@rmq{i}", state, NodeEndpoint("127.0.0.1", 5671 + i, 15671 + i))
        for i, state in enumerate(states, 1)
    )


def quorum(members: str, online: str | None = None) -> QueueFigures:
    there = members if online is None else online
    return QueueFigures("/", "q", "quorum", leader=members[:1], members=tuple(members), online=tuple(there))


def classic(home: str, *, durable: bool = True, exclusive: bool = False, ready: int = 0) -> QueueFigures:
    return QueueFigures("/", "c", "classic", leader=home, durable=durable, exclusive=exclusive, ready=ready)


@given(st.sets(st.integers(1, 9), max_size=8))
def test_a_new_node_takes_the_lowest_name_that_is_free(taken: set[int]) -> None:
    name = lowest_free_name({f"rmq{i}" for i in taken})
    number = int(name.removeprefix("rmq"))
    assert number not in taken
    assert set(range(1, number)) <= taken


def test_there_is_no_tenth_node() -> None:
    with pytest.raises(InvalidInputError, match="9 nodes at most"):
        lowest_free_name({f"rmq{i}" for i in range(1, 10)})


@pytest.mark.parametrize("state", sorted(set(NodeState) - {UP}))
def test_no_node_joins_a_cluster_that_is_not_whole(state: NodeState) -> None:
    check_may_grow(nodes(UP, UP, UP))
    with pytest.raises(RefusedError, match=f"rmq2 is {state}"):
        check_may_grow(nodes(UP, state, UP))


@pytest.mark.parametrize(
    ("states", "node"),
    [
        ((UP, UP), "rmq2"),
        ((UP, UP, UP), "rmq1"),
        ((UP, UP, DOWN), "rmq3"),
        ((UP, UP, DOWN, UP), "rmq1"),
        ((UP, NodeState.DRAINING), "rmq2"),
    ],
)
def test_a_node_may_leave_a_majority_that_runs(states: tuple[NodeState, ...], node: str) -> None:
    check_may_leave(node, nodes(*states))


@pytest.mark.parametrize(
    ("states", "node"),
    [((UP, DOWN), "rmq1"), ((UP, DOWN), "rmq2"), ((UP, UP, DOWN), "rmq1"), ((UP, DOWN, UP, DOWN), "rmq4")],
)
def test_no_node_may_leave_others_without_a_majority(states: tuple[NodeState, ...], node: str) -> None:
    with pytest.raises(RefusedError, match="no majority"):
        check_may_leave(node, nodes(*states))


def test_the_last_node_is_destroyed_and_not_removed() -> None:
    with pytest.raises(RefusedError) as caught:
        check_may_leave("rmq1", nodes(UP))
    assert "destroy" in caught.value.hint


@pytest.mark.parametrize("state", sorted(set(NodeState) - {UP, DOWN, NodeState.DRAINING}))
def test_a_node_in_trouble_is_mended_or_killed_before_it_leaves(state: NodeState) -> None:
    with pytest.raises(InvalidInputError, match=f"rmq3 is {state}") as caught:
        check_may_leave("rmq3", nodes(UP, UP, state))
    assert "dmq node kill rmq3" in caught.value.hint


def test_an_unknown_node_cannot_leave() -> None:
    with pytest.raises(InvalidInputError, match="rmq9"):
        check_may_leave("rmq9", nodes(UP, UP))


@pytest.mark.parametrize(
    ("queue", "stuck"),
    [
        (quorum("abc"), False),
        (quorum("bc"), False),
        (quorum("ab"), False),
        (quorum("abc", "ab"), False),
        (quorum("abc", "bc"), True),
        (quorum("bc", "b"), True),
        (quorum("abcd", "abd"), False),
        (quorum("abcd", "ab"), True),
        (quorum("c"), False),
        (classic("c"), False),
    ],
)
def test_a_queue_needs_a_node_without_which_its_members_have_no_majority(queue: QueueFigures, stuck: bool) -> None:
    assert needs("c", queue) is stuck


@given(st.sets(st.sampled_from("abcde"), min_size=2), st.data())
def test_a_queue_that_a_node_may_leave_goes_on_without_it(members: set[str], data: st.DataObject) -> None:
    online = data.draw(st.sets(st.sampled_from(sorted(members))))
    node = data.draw(st.sampled_from(sorted(members)))
    if not needs(node, quorum("".join(sorted(members)), "".join(sorted(online)))):
        assert 2 * len(online) > len(members)
        assert 2 * len(online - {node}) > len(members - {node})


def test_only_queues_that_are_on_no_other_node_are_lost_with_it() -> None:
    mail, filled = classic("c"), classic("c", durable=False, ready=2)
    alone, stream = quorum("c"), QueueFigures("v", "s", "stream", members=("c",))
    kept = [quorum("abc"), classic("a"), classic("c", durable=False), classic("c", exclusive=True)]
    assert lost_with("c", [mail, *kept, filled, alone, stream]) == (mail, filled, alone, stream)
    with pytest.raises(RefusedError, match=r"classic queue 'c'.* and 1 more .*, and 2 messages in them") as caught:
        check_nothing_lost("c", (mail, filled, alone, stream))
    assert "--force" in caught.value.hint
    check_nothing_lost("c", ())


def test_a_queue_that_would_be_stuck_is_named() -> None:
    with pytest.raises(RefusedError, match="the quorum queue 'q'"):
        check_queues_may_leave("c", [quorum("abc", "bc")])


def test_a_fake_cluster_grows_and_shrinks_without_losing_a_message() -> None:
    session = FakeSession()
    assert session.publish(ORDER).outcome is Outcome.CONFIRMED
    assert perform(session.cluster, Action(Scaling.ADD), read_only=False) == Action(Scaling.REMOVE, "rmq4")
    queue = session.snapshot().queue(EntityKey("/", "orders"))
    assert queue is not None
    assert queue.online == ("rmq1", "rmq2", "rmq3", "rmq4")
    perform(session.cluster, Action(Scaling.REMOVE, "rmq3"), read_only=False)
    session.advance(3)
    assert [n.name for n in session.cluster.nodes()] == ["rmq1", "rmq2", "rmq4"]
    assert session.publish(ORDER).outcome is Outcome.CONFIRMED
    session.cluster.stop()
    session.cluster.start()
    session.advance(3)
    assert {n.state for n in session.cluster.nodes()} == {UP}
    assert [m.message for m in session.broker.queues[EntityKey("/", "orders.eu")].messages] == [ORDER, ORDER]
    assert session.cluster.add_node() == "rmq3"


def test_a_fake_cluster_keeps_a_node_with_a_classic_queue_unless_it_is_forced() -> None:
    session = FakeSession()
    mail = session.snapshot().queue(EntityKey("/", "mail"))
    assert mail is not None
    with pytest.raises(RefusedError, match="mail"):
        perform(session.cluster, Action(Scaling.REMOVE, str(mail.leader)), read_only=False)
    perform(session.cluster, Action(Scaling.REMOVE, str(mail.leader)), read_only=False, force=True)
    assert len(session.cluster.nodes()) == 2
    assert session.snapshot().queue(EntityKey("/", "mail")) is None


def test_a_fake_cluster_takes_no_node_while_one_is_down() -> None:
    session = FakeSession()
    session.cluster.act(NodeAction.KILL, "rmq2")
    with pytest.raises(RefusedError, match="rmq2 is stopped"):
        session.cluster.add_node()


@pytest.mark.parametrize(("backend", "read_only"), [(Backend.ATTACHED, False), (Backend.DOCKER, True)])
def test_scaling_goes_through_the_one_gate(backend: Backend, read_only: bool) -> None:
    session = FakeSession(backend=backend)
    with pytest.raises(RefusedError):
        perform(session.cluster, Action(Scaling.ADD), read_only=read_only)
    with pytest.raises(RefusedError):
        perform(session.cluster, Action(Scaling.REMOVE, "rmq3"), read_only=read_only)
    assert len(session.cluster.nodes()) == 3


def test_the_impact_of_a_removal_tells_what_goes_and_what_majority_remains() -> None:
    views = tuple(NodeView(i.name, i.erlang_name, i.state, i.endpoint, leads=1, follows=2) for i in nodes(UP, UP, UP))
    impact = impact_of(Action(Scaling.REMOVE, "rmq3"), ClusterSnapshot("dmq", Backend.DOCKER, 0.0, nodes=views))
    assert impact.margin is Margin.NO_MARGIN
    assert [sentence.text for sentence in sentences_of(impact)[1:3]] == [
        "It has 3 queue members.",
        "2 of 2 nodes remain: quorum OK, cannot lose another.",
    ]
