"""What changed, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snapshots import NAMES, T0, cluster_state, node, quorum, snapshot

from dmq_core.cluster.protocol import NodeChange, NodeState
from dmq_core.management.models import Alarm, EntityKey, QueueFigures
from dmq_core.observe.diff import MOST_OF_A_KIND, KnownChanges, diff
from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Event, Severity
from dmq_core.observe.snapshot import ClusterSnapshot, SourceStatus
from dmq_core.observe.state import MANAGEMENT

ORDERS = EntityKey("/", "orders")


def told(
    before: ClusterSnapshot | None, after: ClusterSnapshot, known: KnownChanges | None = None
) -> list[tuple[str, str]]:
    return [(e.kind, event_text(e)) for e in diff(before, after, known or KnownChanges())]


def in_state(state: NodeState, *queues: QueueFigures, at: float = T0, name: str = "rmq2") -> ClusterSnapshot:
    return snapshot(*queues, at=at, nodes=tuple(node(n, state if n == name else NodeState.RUNNING) for n in NAMES))


def test_the_first_snapshot_has_no_events() -> None:
    assert diff(None, snapshot(quorum("orders"))) == ()


def test_what_a_source_tells_for_the_first_time_is_no_event() -> None:
    blank = replace(snapshot(), nodes=(), queues=(), queues_total=None, asks=None, sources=())
    assert diff(blank, snapshot(quorum("orders"))) == ()


@pytest.mark.parametrize(
    ("state", "kind", "text", "severity"),
    [
        (NodeState.STOPPED, "node_down", "rmq2 is down", Severity.BAD),
        (NodeState.PAUSED, "node_paused", "rmq2 is frozen", Severity.BAD),
        (NodeState.ISOLATED, "node_isolated", "rmq2 is cut off from its peers", Severity.BAD),
        (NodeState.UNREACHABLE, "node_down", "rmq2 does not answer its peers", Severity.BAD),
        (NodeState.DRAINING, "node_draining", "rmq2 is in maintenance", Severity.NOTICE),
        (NodeState.STARTING, "node_starting", "rmq2 is starting", Severity.PLAIN),
    ],
)
def test_a_node_that_changes_is_told(state: NodeState, kind: str, text: str, severity: Severity) -> None:
    (event,) = diff(snapshot(), in_state(state, at=T0 + 1))
    assert (event.kind, event_text(event), event.severity, event.subject) == (kind, text, severity, "rmq2")


def test_a_node_that_comes_back_is_told() -> None:
    assert told(in_state(NodeState.STARTING), snapshot(at=T0 + 1)) == [("node_up", "rmq2 is up")]
    assert told(in_state(NodeState.PAUSED), snapshot(at=T0 + 1)) == [("node_up", "rmq2 goes on")]


def test_a_change_bears_the_moment_that_the_backend_told() -> None:
    known = KnownChanges(nodes={"rmq2": NodeChange(T0 + 0.7, "rmq2", NodeState.STOPPED)})
    (event,) = diff(snapshot(), in_state(NodeState.STOPPED, at=T0 + 1), known)
    assert event.at == T0 + 0.7


def test_a_moment_of_another_change_is_not_borrowed() -> None:
    known = KnownChanges(nodes={"rmq2": NodeChange(T0 + 0.7, "rmq2", NodeState.RUNNING)})
    (event,) = diff(snapshot(), in_state(NodeState.UNREACHABLE, at=T0 + 1), known)
    assert event.at == T0 + 1.2


def test_the_majority_is_lost_and_regained() -> None:
    two_down = snapshot(at=T0 + 1, nodes=(node("rmq1"), *(node(n, NodeState.STOPPED) for n in NAMES[1:])))
    one_down = in_state(NodeState.STOPPED)
    assert ("majority_lost", "the cluster has lost its majority") in told(one_down, two_down)
    back = in_state(NodeState.STOPPED, at=T0 + 2)
    assert ("majority_regained", "the cluster has its majority again") in told(two_down, back)


def test_a_leader_that_moved_is_told_with_its_term_and_moment() -> None:
    before, after = snapshot(quorum("orders", "rmq1")), snapshot(quorum("orders", "rmq3"), at=T0 + 1)
    assert told(before, after) == [("leader_moved", "orders: leader rmq1 → rmq3")]
    known = KnownChanges(leaders={ORDERS: (T0 + 0.6, "rabbit@rmq3", 4)})
    (event,) = diff(before, after, known)
    assert (event_text(event), event.at) == ("orders: leader rmq1 → rmq3 (term 4)", T0 + 0.6)


def test_a_term_of_another_election_is_not_borrowed() -> None:
    before, after = snapshot(quorum("orders", "rmq1")), snapshot(quorum("orders", "rmq2"), at=T0 + 1)
    known = KnownChanges(leaders={ORDERS: (T0 + 0.6, "rabbit@rmq3", 4)})
    assert told(before, after, known) == [("leader_moved", "orders: leader rmq1 → rmq2")]


def test_queues_that_come_and_go_are_told() -> None:
    assert told(snapshot(), snapshot(quorum("orders"), at=T0 + 1)) == [
        ("queue_appeared", "queue orders appeared (quorum, leader rmq1)")
    ]
    assert told(snapshot(quorum("orders")), snapshot(at=T0 + 1)) == [("queue_gone", "queue orders is gone")]


def test_queues_of_one_connection_only_are_not_worth_a_word() -> None:
    private = replace(quorum("amq.gen-x"), exclusive=True)
    assert told(snapshot(), snapshot(private, at=T0 + 1)) == []


def test_consumers_that_come_and_go_are_told() -> None:
    none, two = snapshot(quorum("orders", consumers=0)), snapshot(quorum("orders", consumers=2), at=T0 + 1)
    assert told(none, two) == [("consumer_joined", "orders: 2 consumers joined, 2 now")]
    one = snapshot(quorum("orders", consumers=1), at=T0 + 2)
    assert told(two, one) == [("consumer_lost", "orders: consumer lost, 1 left")]


def test_a_figure_that_is_not_known_is_no_change() -> None:
    unknown = snapshot(quorum("orders", consumers=None), at=T0 + 1)
    assert told(snapshot(quorum("orders", consumers=2)), unknown) == []


def test_members_are_told_by_node_while_every_node_runs() -> None:
    before = snapshot(quorum("a"), quorum("b"))
    after = snapshot(quorum("a", online=NAMES[:2]), quorum("b", online=NAMES[:2]), at=T0 + 1)
    assert told(before, after) == [("member_offline", "rmq3: its members of 2 queues are offline")]
    half = snapshot(quorum("a"), quorum("b", online=NAMES[:2]), at=T0 + 2)
    assert told(after, half) == [("member_online", "a: member rmq3 is online again, 3 of 3 online")]


def test_members_of_a_node_that_is_down_are_not_told_twice() -> None:
    after = in_state(NodeState.STOPPED, quorum("a", online=("rmq1", "rmq3")), at=T0 + 1)
    assert [kind for kind, _ in told(snapshot(quorum("a")), after)] == ["node_down"]


def test_alarms_are_told() -> None:
    before = snapshot()
    after = replace(snapshot(at=T0 + 1), alarms=(Alarm("rabbit@rmq2", "memory"),))
    assert told(before, after) == [("alarm_set", "rmq2: memory alarm, every publisher is blocked")]
    assert told(after, replace(before, taken_at=T0 + 3)) == [("alarm_cleared", "rmq2: memory alarm cleared")]


def test_partitions_are_told() -> None:
    split = replace(snapshot(at=T0 + 1), partitions=("rmq3",))
    assert told(snapshot(), split) == [("partition", "rmq3 is partitioned from the others")]
    assert told(split, snapshot(at=T0 + 2)) == [("partition_healed", "rmq3 is no longer partitioned")]


def test_whom_we_ask_and_when_nobody_answers_is_told() -> None:
    after = replace(snapshot(at=T0 + 1), asks="rmq3")
    assert told(snapshot(), after) == [("management_switched", "management: now asks rmq3, no longer rmq1")]
    silent = replace(after, sources=(SourceStatus(MANAGEMENT, None, T0, "no\x1b answer"),))
    assert told(after, silent) == [("management_silent", "no figures: no\\x1b answer")]
    assert told(silent, after) == [("management_back", "figures again, from rmq3")]


def test_names_from_outside_are_shown_harmless() -> None:
    evil = replace(quorum("x\x1b[2J[bold]"), vhost="v\n")
    (event,) = diff(snapshot(), snapshot(evil, at=T0 + 1))
    assert event_text(event) == "queue v\\n/x\\x1b[2J[bold] appeared (quorum, leader rmq1)"
    assert event.subject == "x\x1b[2J[bold]"


def test_a_thousand_changes_of_a_kind_are_summed_up() -> None:
    before = snapshot(*(quorum(f"q{i:04}", "rmq1") for i in range(1000)))
    after = snapshot(*(quorum(f"q{i:04}", "rmq2") for i in range(1000)), at=T0 + 1)
    events = diff(before, after)
    assert len(events) == MOST_OF_A_KIND + 1
    assert event_text(events[-1]) == f"leader moved: {1000 - MOST_OF_A_KIND} more"


QUEUES = st.lists(
    st.builds(
        lambda name, leader, consumers, online: quorum(name, leader, consumers=consumers, online=tuple(online)),
        st.sampled_from(["a", "b", "c", "\x1b", "\u202e"]),
        st.sampled_from(NAMES),
        st.none() | st.integers(0, 3),
        st.lists(st.sampled_from(NAMES), unique=True),
    ),
    unique_by=lambda q: q.key,
    max_size=5,
)
SNAPSHOTS = st.builds(
    lambda queues, states, at: snapshot(
        *queues, at=T0 + at, nodes=tuple(node(n, s) for n, s in zip(NAMES, states, strict=True))
    ),
    QUEUES,
    st.tuples(*(st.sampled_from(NodeState) for _ in NAMES)),
    st.floats(0, 100),
)


@given(one=SNAPSHOTS)
def test_between_a_snapshot_and_its_like_nothing_happened(one: ClusterSnapshot) -> None:
    assert diff(one, one) == ()
    assert diff(one, replace(one, taken_at=one.taken_at + 1)) == ()


@given(one=SNAPSHOTS, other=SNAPSHOTS)
def test_events_are_in_order_harmless_and_lead_from_one_to_the_other(
    one: ClusterSnapshot, other: ClusterSnapshot
) -> None:
    events = diff(one, other)
    assert list(events) == sorted(events, key=lambda e: e.at)
    assert all(event_text(e).isprintable() for e in events)
    assert _applied(_facts(one), events) == _facts(other)


def _facts(one: ClusterSnapshot) -> dict[str, str | None]:
    """The leader of each queue by the queue's name."""
    return {q.figures.name: q.leader for q in one.queues}


def _applied(facts: dict[str, str | None], events: tuple[Event, ...]) -> dict[str, str | None]:
    """What is left of `facts` after the queue and leader events, read from their sentences as a person would."""
    left = dict(facts)
    for event in events:
        if event.kind == "queue_gone":
            del left[event.subject]
        elif event.kind == "queue_appeared":
            left[event.subject] = event_text(event).rpartition("leader ")[2].rstrip(")")
        elif event.kind == "leader_moved":
            left[event.subject] = event_text(event).rpartition("→ ")[2]
    return left


def test_a_picture_of_the_same_figures_tells_nothing_twice() -> None:
    same = cluster_state(quorum("orders"))
    assert same.figures is not None
    assert diff(snapshot(quorum("orders")), snapshot(quorum("orders"), at=T0 + 1)) == ()
