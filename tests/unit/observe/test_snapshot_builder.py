"""Each figure from the source that knows it best."""

from __future__ import annotations

from dataclasses import replace

import pytest
from snapshots import ERLANG, NAMES, T0, cluster_state, figures, node, quorum

from dmq_core.cluster.protocol import Backend, NodeChange, NodeInfo, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.management.models import (
    Alarm,
    BindingFigures,
    ConnectionFigures,
    EntityKey,
    NodeFigures,
    Overview,
    QueueFigures,
)
from dmq_core.observe.broker_events import AlarmChanged, ConsumerChanged, LeaderElected, QueueDeleted
from dmq_core.observe.snapshot_builder import assemble
from dmq_core.observe.state import (
    MANAGEMENT,
    MISSING_S,
    ClusterState,
    source_problem,
    with_alarm,
    with_change,
    with_consumer,
    with_deleted,
    with_figures,
    with_leader,
    with_nodes,
)

ORDERS = EntityKey("/", "orders")


def states(known: ClusterState, now: float = T0) -> dict[str, NodeState]:
    return {n.name: n.state for n in assemble(known, now).nodes}


def leader(known: ClusterState) -> str | None:
    view = assemble(known, T0).queue(ORDERS)
    assert view is not None
    return view.leader


def consumers(known: ClusterState) -> int | None:
    view = assemble(known, T0).queue(ORDERS)
    assert view is not None
    return view.figures.consumers


def test_before_anything_is_heard_there_is_a_snapshot_that_says_so() -> None:
    blank = assemble(ClusterState("dmq", Backend.DOCKER), T0)
    assert (blank.nodes, blank.queues, blank.queues_total, blank.asks, blank.rabbitmq) == ((), (), None, None, None)
    assert [s.name for s in blank.sources] == ["management", "backend events", "log exchange", "event exchange"]
    assert blank.age_s(MANAGEMENT, T0) is None


def test_a_killed_node_is_stopped_at_once_whatever_older_figures_say() -> None:
    known = with_change(cluster_state(quorum("orders")), NodeChange(T0 + 1, "rmq1", NodeState.STOPPED))
    assert states(known)["rmq1"] is NodeState.STOPPED
    view = assemble(known, T0).queue(ORDERS)
    assert view is not None
    assert view.online == ("rmq2", "rmq3")


def old_list(told_by: str, leader: str | None, *acts: NodeChange, running: tuple[str, ...] = NAMES) -> tuple[str, ...]:
    """Who is online, of a queue whose list was told by a node that led it and was cut off then."""
    queue = replace(quorum("orders"), leader=leader and f"rabbit@{leader}", online=(f"rabbit@{told_by}",))
    known = replace(cluster_state(queue), figures=figures(queue, running=running))
    for act in acts:
        known = with_change(known, act)
    view = assemble(known, T0).queue(ORDERS)
    assert view is not None
    return view.online


def test_a_list_of_members_online_without_their_leader_is_an_old_one() -> None:
    assert old_list("rmq1", "rmq2") == NAMES


def test_a_list_that_its_leader_is_on_is_believed() -> None:
    assert old_list("rmq1", "rmq1") == ("rmq1",)
    assert old_list("rmq1", None) == ("rmq1",)


def test_of_an_old_list_only_members_whose_nodes_run_are_taken_for_online() -> None:
    assert old_list("rmq1", "rmq2", running=("rmq1", "rmq2")) == ("rmq1", "rmq2")
    frozen = NodeChange(T0 + 1, "rmq3", NodeState.PAUSED)
    assert old_list("rmq1", "rmq2", frozen) == ("rmq1", "rmq2")


def test_a_started_node_runs_at_once_whatever_older_figures_say() -> None:
    known = replace(
        cluster_state(), figures=figures(running=("rmq1", "rmq2")), nodes=(node("rmq3", NodeState.STOPPED),)
    )
    known = with_change(known, NodeChange(T0 + 1, "rmq3", NodeState.RUNNING))
    assert states(known)["rmq3"] is NodeState.RUNNING


def with_readings(known: ClusterState, running: tuple[str, ...], *moments: float) -> ClusterState:
    for at in moments:
        known = with_figures(known, figures(at=T0 + at, running=running), {}, {})
    return known


def test_a_node_that_a_majority_does_not_see_for_a_while_is_unreachable() -> None:
    known = with_readings(cluster_state(), ("rmq1", "rmq2"), 1.0, 2.0)
    assert states(known)["rmq3"] is NodeState.RUNNING, "a kill reaches the peers before it reaches the backend"
    assert states(with_readings(known, ("rmq1", "rmq2"), 4.0))["rmq3"] is NodeState.UNREACHABLE


def test_a_node_that_just_started_gets_its_while_anew() -> None:
    known = with_readings(cluster_state(), ("rmq1", "rmq2"), 1.0, 9.0)
    known = with_change(known, NodeChange(T0 + 9.5, "rmq3", NodeState.RUNNING))
    assert states(with_readings(known, ("rmq1", "rmq2"), 10.0))["rmq3"] is NodeState.RUNNING


def test_one_node_that_calls_all_others_dead_is_not_believed() -> None:
    known = with_readings(cluster_state(), ("rmq1",), 1.0, 9.0)
    assert states(known) == dict.fromkeys(("rmq1", "rmq2", "rmq3"), NodeState.RUNNING)


def test_a_drained_node_is_draining() -> None:
    told = figures()
    drained = (replace(told.nodes[0], being_drained=True), *told.nodes[1:])
    assert states(replace(cluster_state(), figures=replace(told, nodes=drained)))["rmq1"] is NodeState.DRAINING


def test_a_list_of_nodes_that_lags_behind_a_pushed_change_loses() -> None:
    known = with_change(cluster_state(), NodeChange(T0, "rmq2", NodeState.STOPPED))
    listed = tuple(node(n) for n in ("rmq1", "rmq2", "rmq3"))
    assert states(with_nodes(known, listed, T0 + 0.5))["rmq2"] is NodeState.STOPPED
    assert states(with_nodes(known, listed, T0 + 1.5))["rmq2"] is NodeState.RUNNING


def test_the_log_exchange_beats_figures_until_they_catch_up() -> None:
    known = with_leader(cluster_state(quorum("orders", "rmq1")), LeaderElected(T0 + 1, ORDERS, "rabbit@rmq3", 2))
    assert leader(known) == "rmq3"
    slow = with_figures(known, figures(quorum("orders", "rmq1"), at=T0 + 2), {}, {})
    assert leader(slow) == "rmq3"
    level = with_figures(slow, figures(quorum("orders", "rmq3"), at=T0 + 3), {}, {})
    assert leader(level) == "rmq3"
    assert not level.leaders
    later = with_figures(level, figures(quorum("orders", "rmq2"), at=T0 + 4), {}, {})
    assert leader(later) == "rmq2"


def test_figures_that_go_on_differing_are_believed_in_the_end() -> None:
    known = with_leader(cluster_state(quorum("orders", "rmq1")), LeaderElected(T0 + 1, ORDERS, "rabbit@rmq3", 2))
    assert leader(with_figures(known, figures(quorum("orders", "rmq1"), at=T0 + 6), {}, {})) == "rmq1"


def test_an_older_term_changes_nothing() -> None:
    known = with_leader(cluster_state(quorum("orders")), LeaderElected(T0 + 1, ORDERS, "rabbit@rmq3", 5))
    assert leader(with_leader(known, LeaderElected(T0 + 2, ORDERS, "rabbit@rmq2", 4))) == "rmq3"


def test_a_queue_that_elects_keeps_its_last_leader_for_a_moment() -> None:
    headless = replace(quorum("orders"), leader=None)
    known = cluster_state(quorum("orders", "rmq1"))
    for at in (1, 2, 4):
        known = with_figures(known, figures(headless, at=T0 + at), {}, {})
        assert leader(known) == "rmq1"
    assert leader(with_figures(known, figures(headless, at=T0 + 6), {}, {})) is None
    assert leader(with_figures(known, figures(quorum("orders", "rmq2"), at=T0 + 5), {}, {})) == "rmq2"


def test_consumers_are_counted_by_events_until_figures_agree() -> None:
    known = with_consumer(
        cluster_state(quorum("orders", consumers=2)), ConsumerChanged(T0 + 1, ORDERS, "t", joined=False)
    )
    assert consumers(known) == 1
    assert consumers(with_consumer(known, ConsumerChanged(T0 + 1, ORDERS, "u", joined=False))) == 0
    slow = with_figures(known, figures(quorum("orders", consumers=2), at=T0 + 2), {}, {})
    assert consumers(slow) == 1
    level = with_figures(slow, figures(quorum("orders", consumers=1), at=T0 + 3), {}, {})
    assert consumers(with_figures(level, figures(quorum("orders", consumers=4), at=T0 + 4), {}, {})) == 4


def test_an_alarm_is_seen_when_its_event_comes_and_cleared_likewise() -> None:
    alarm = Alarm("rabbit@rmq2", "memory")
    known = with_alarm(cluster_state(), AlarmChanged(T0 + 1, alarm, is_set=True))
    assert assemble(known, T0).alarms == (alarm,)
    second = assemble(known, T0).node("rmq2")
    assert second is not None
    assert second.alarms == (alarm,)
    assert assemble(with_alarm(known, AlarmChanged(T0 + 2, alarm, is_set=False)), T0).alarms == ()


def test_a_queue_that_brokers_forget_while_a_node_is_in_trouble_is_still_shown() -> None:
    known = with_change(cluster_state(quorum("orders")), NodeChange(T0 + 1, "rmq1", NodeState.PAUSED))
    known = with_figures(known, figures(at=T0 + 9, running=("rmq2", "rmq3")), {}, {})
    assert assemble(known, T0).queue(ORDERS) is not None


def test_a_queue_that_was_deleted_is_gone_with_the_next_figures() -> None:
    known = with_deleted(cluster_state(quorum("orders")), QueueDeleted(T0 + 1, ORDERS))
    assert assemble(with_figures(known, figures(at=T0 + 2), {}, {}), T0).queue(ORDERS) is None


def test_without_the_event_a_queue_that_is_not_listed_is_gone_after_a_moment() -> None:
    once = with_figures(cluster_state(quorum("orders")), figures(at=T0 + 1), {}, {})
    assert assemble(once, T0).queue(ORDERS) is not None
    again = with_figures(once, figures(at=T0 + 1 + MISSING_S), {}, {})
    assert assemble(again, T0).queue(ORDERS) is None


def test_roles_and_connections_are_counted_by_node() -> None:
    told = replace(
        figures(quorum("a", "rmq1"), quorum("b", "rmq1"), quorum("c", "rmq2")),
        connections=(ConnectionFigures("x", "rabbit@rmq1"), ConnectionFigures("y", "rabbit@rmq1")),
    )
    first, second, third = assemble(replace(cluster_state(), figures=told), T0).nodes
    assert (first.leads, first.follows, first.connections) == (2, 1, 2)
    assert (second.leads, second.follows, second.connections) == (1, 2, 0)
    assert (third.leads, third.follows, third.connections) == (0, 3, 0)


def test_the_queues_through_which_we_listen_are_not_shown() -> None:
    ours = QueueFigures("/", "dmq.observe.log.1a2b", "classic", leader="rabbit@rmq1", exclusive=True)
    theirs = QueueFigures("/", "dmq.observe.log.real", "classic", leader="rabbit@rmq1")
    told = replace(figures(ours, theirs), bindings=(BindingFigures("/", "x", ours.name, "queue", "#"),))
    shown = assemble(replace(cluster_state(), figures=told), T0)
    assert [q.figures.name for q in shown.queues] == [theirs.name]
    assert shown.bindings == ()
    assert shown.queues_total == shown.totals.queues == 1


def test_a_silent_source_keeps_its_figures_and_the_time_it_was_heard() -> None:
    known = source_problem(cluster_state(quorum("orders")), MANAGEMENT, "no management API answers")
    late = assemble(known, T0 + 30)
    assert late.queue(ORDERS) is not None
    assert late.age_s(MANAGEMENT, T0 + 30) == pytest.approx(29.9)
    assert next(s.problem for s in late.sources if s.name == MANAGEMENT) == "no management API answers"


def test_a_cluster_known_by_one_url_shows_every_node_by_its_name() -> None:
    entry = ManagementEndpoint("broker.example", "http://broker.example:15672")
    told = replace(
        figures(quorum("orders", "rmq2")),
        asked=entry,
        overview_asked=entry,
        overview=Overview("prod", "rabbit@rmq1", "4.0.5"),
        nodes=tuple(NodeFigures(n, running=n != "rabbit@rmq3") for n in ERLANG),
    )
    at = NodeInfo("broker.example", "", NodeState.RUNNING, NodeEndpoint("broker.example", 5672, 15672))
    known = with_figures(ClusterState("broker.example", Backend.ATTACHED, nodes=(at,)), told, {}, {})
    shown = assemble(known, T0)
    assert [(n.name, n.state) for n in shown.nodes] == [
        ("broker.example", NodeState.RUNNING),
        ("rabbit@rmq2", NodeState.RUNNING),
        ("rabbit@rmq3", NodeState.UNREACHABLE),
    ]
    view = shown.queue(ORDERS)
    assert view is not None
    assert (view.leader, view.members) == ("rabbit@rmq2", ("broker.example", "rabbit@rmq2", "rabbit@rmq3"))
    assert shown.rabbitmq == "4.0.5"


def test_a_node_that_others_are_partitioned_from_is_named() -> None:
    told = figures()
    split = (replace(told.nodes[0], partitions=("rabbit@rmq3",)), *told.nodes[1:])
    assert assemble(replace(cluster_state(), figures=replace(told, nodes=split)), T0).partitions == ("rmq3",)


def test_depths_that_no_source_knows_yet_are_not_summed_to_zero() -> None:
    unknown = replace(quorum("orders"), ready=None, unacked=None)
    some = replace(quorum("bills"), ready=7, unacked=None)
    assert assemble(cluster_state(unknown), T0).totals.ready is None
    assert assemble(cluster_state(unknown, some), T0).totals.ready == 7
    assert assemble(cluster_state(unknown, some), T0).totals.unacked is None
    assert assemble(cluster_state(), T0).totals.ready == 0
