"""What an act on a node will cause, and who may do it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.actions.action import Action
from dmq_core.actions.gate import guard, perform
from dmq_core.actions.impact import Impact, impact_of
from dmq_core.actions.wording import sentences_of
from dmq_core.cluster.protocol import Backend, NodeAction, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import RefusedError
from dmq_core.majority import Margin
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.settings.settings import on_cluster
from dmq_core.testing import FakeSession


def snapshot(
    *states: NodeState, leads: int | None = 4, connections: int | None = 6, rabbitmq: str | None = None
) -> ClusterSnapshot:
    nodes = tuple(
        NodeView(
            f"rmq{i}",
            f"rabbit@rmq{i}",
            state,
            NodeEndpoint("127.0.0.1", 5671 + i, 15671 + i),
            leads=leads,
            connections=connections,
        )
        for i, state in enumerate(states, 1)
    )
    return ClusterSnapshot("dmq", Backend.DOCKER, 0.0, nodes=nodes, rabbitmq=rabbitmq)


def texts(impact: Impact) -> tuple[str, ...]:
    return tuple(sentence.text for sentence in sentences_of(impact))


UP, DOWN, FROZEN = NodeState.RUNNING, NodeState.STOPPED, NodeState.PAUSED
CUT, RESTING = NodeState.ISOLATED, NodeState.DRAINING


def test_killing_one_of_three_leaves_a_majority_without_margin() -> None:
    impact = impact_of(Action(NodeAction.KILL, "rmq2"), snapshot(UP, UP, UP))
    assert impact.margin is Margin.NO_MARGIN
    assert texts(impact)[0] == "rmq2 leads 4 queues and serves 6 connections."
    assert texts(impact)[1] == "2 of 3 nodes remain: quorum OK, cannot lose another."


def test_killing_the_second_of_three_names_the_loss_of_the_majority() -> None:
    impact = impact_of(Action(NodeAction.PAUSE, "rmq2"), snapshot(UP, UP, DOWN))
    assert impact.margin is Margin.NO_MAJORITY
    assert "no majority" in texts(impact)[1]


def test_killing_a_node_that_is_already_frozen_takes_nothing_more_away() -> None:
    impact = impact_of(Action(NodeAction.KILL, "rmq2"), snapshot(UP, FROZEN, UP))
    assert impact.margin is Margin.NO_MARGIN
    assert texts(impact)[0] == "rmq2 is paused now."


def test_starting_the_third_node_gives_the_margin_back() -> None:
    impact = impact_of(Action(NodeAction.START, "rmq2"), snapshot(UP, DOWN, UP))
    assert impact.margin is Margin.SAFE
    assert texts(impact)[0] == "3 of 3 nodes will run: quorum OK, can lose 1 node."


def test_a_figure_that_is_not_known_is_not_shown_as_zero() -> None:
    impact = impact_of(Action(NodeAction.STOP, "rmq1"), snapshot(UP, UP, UP, leads=None, connections=None))
    assert texts(impact)[0] == "rmq1 leads an unknown number of queues."


@given(
    st.lists(st.sampled_from([UP, DOWN, FROZEN, CUT, RESTING]), min_size=1, max_size=9),
    st.sampled_from(NodeAction),
    st.integers(1, 9),
)
def test_the_margin_is_the_one_that_counting_gives(states: list[NodeState], action: NodeAction, number: int) -> None:
    operation = Action(action, f"rmq{number}")
    known = number <= len(states)
    up = [s is UP for s in states]
    if known:
        up[number - 1] = not operation.destructive
    majority = len(states) // 2 + 1
    expected = Margin.NO_MAJORITY if sum(up) < majority else Margin.NO_MARGIN if sum(up) == majority else Margin.SAFE
    assert impact_of(operation, snapshot(*states)).margin is expected


def test_every_destructive_act_but_restart_can_be_undone() -> None:
    assert Action(NodeAction.KILL, "rmq2").undo == Action(NodeAction.START, "rmq2")
    assert Action(NodeAction.STOP, "rmq2").undo == Action(NodeAction.START, "rmq2")
    assert Action(NodeAction.PAUSE, "rmq2").undo == Action(NodeAction.UNPAUSE, "rmq2")
    assert Action(NodeAction.ISOLATE, "rmq2").undo == Action(NodeAction.REJOIN, "rmq2")
    assert Action(NodeAction.DRAIN, "rmq2").undo == Action(NodeAction.REVIVE, "rmq2")
    assert Action(NodeAction.RESTART, "rmq2").undo is None


def test_a_drained_node_no_longer_counts_for_the_majority_because_its_replicas_have_stopped() -> None:
    impact = impact_of(Action(NodeAction.KILL, "rmq1"), snapshot(UP, RESTING, UP))
    assert impact.margin is Margin.NO_MAJORITY


@pytest.mark.parametrize(
    ("rabbitmq", "expected"),
    [("4.3.6", "keeps its clients"), (None, "keeps its clients"), ("4.0.5", "closes its ports"), ("3.10.8", "closes")],
)
def test_what_a_cut_off_node_does_depends_on_the_version(rabbitmq: str | None, expected: str) -> None:
    impact = impact_of(Action(NodeAction.ISOLATE, "rmq1"), snapshot(UP, UP, UP, rabbitmq=rabbitmq))
    assert texts(impact)[:2] == (
        "rmq1 leads 4 queues and serves 6 connections.",
        "2 of 3 nodes remain: quorum OK, cannot lose another.",
    )
    assert expected in texts(impact)[2]


@pytest.mark.parametrize("action", NodeAction)
def test_every_act_has_its_words(action: NodeAction) -> None:
    operation = Action(action, "rmq1")
    assert operation.title.endswith(" rmq1")
    assert operation.done.startswith("rmq1 ")
    states = (UP, UP, UP) if operation.destructive else (DOWN, UP, UP)
    sentences = texts(impact_of(operation, snapshot(*states)))
    assert any("3 nodes" in s for s in sentences)
    assert not operation.destructive or sentences[-1].startswith("Expected: ")


def test_an_operation_names_the_command_that_does_the_same() -> None:
    assert Action(NodeAction.UNPAUSE, "rmq3").command == "dmq node unpause rmq3"


@pytest.mark.parametrize("action", NodeAction)
def test_read_only_refuses_every_act_and_touches_nothing(action: NodeAction) -> None:
    cluster = FakeSession().cluster
    before = cluster.nodes()
    with pytest.raises(RefusedError) as refusal:
        perform(cluster, Action(action, "rmq1"), read_only=True)
    assert "read-only" in refusal.value.what
    assert cluster.nodes() == before


def test_a_cluster_that_somebody_else_made_is_never_faulted() -> None:
    cluster = FakeSession(backend=Backend.ATTACHED).cluster
    with pytest.raises(RefusedError, match="did not make"):
        guard(cluster, "Kill rmq1", read_only=False)


def test_a_command_names_its_cluster_unless_it_is_the_usual_one() -> None:
    kill = Action(NodeAction.KILL, "rmq2").command
    assert on_cluster(kill, "dmq") == "dmq node kill rmq2"
    assert on_cluster(kill, "shop") == "dmq node kill rmq2 --cluster shop"
