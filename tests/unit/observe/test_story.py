"""The story: one time line with the distance from the last fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.protocol import NodeState
from dmq_core.management.models import EntityKey
from dmq_core.observe.events import ActionDetails, CountDetails, Event, LeaderDetails, NodeDetails, Origin, Severity
from dmq_core.observe.story import LONGEST, Story, as_text

T0 = 1_790_000_000.0


def event(at: float, kind: str = "leader_moved", severity: Severity = Severity.NOTICE) -> Event:
    return Event(T0 + at, Origin.BROKER, severity, kind, "rmq2", CountDetails(int(at * 100)))


KILLED = Event(T0, Origin.YOU, Severity.FAULT, "node_killed", "rmq2", ActionDetails("rmq2", "rmq2 killed"))
DOWN = Event(T0 + 0.04, Origin.BROKER, Severity.BAD, "node_down", "rmq2", NodeDetails("rmq2", NodeState.STOPPED))


def distances(story: Story) -> list[float | None]:
    return [None if line.since_fault_s is None else round(line.since_fault_s, 2) for line in story.lines]


def test_each_line_tells_how_long_after_the_last_fault_it_was() -> None:
    story = Story().told([event(-5.0)]).told([KILLED]).told([DOWN, event(0.41)]).told([event(0.6)])
    assert distances(story) == [None, 0.0, 0.04, 0.41, 0.6]


def test_a_node_that_falls_without_our_doing_is_a_fault_itself() -> None:
    assert distances(Story().told([DOWN, event(0.44)])) == [0.0, 0.4]


def test_what_arrives_late_takes_its_place_and_the_distances_follow() -> None:
    story = Story().told([event(0.41)]).told([KILLED])
    assert [line.event.kind for line in story.lines] == ["node_killed", "leader_moved"]
    assert distances(story) == [0.0, 0.41]


def test_the_same_thing_told_by_two_sources_is_told_once() -> None:
    again = Event(DOWN.at + 0.3, DOWN.origin, DOWN.severity, DOWN.kind, DOWN.subject, DOWN.details)
    assert len(Story().told([DOWN]).told([again]).lines) == 1
    much_later = Event(DOWN.at + 60, DOWN.origin, DOWN.severity, DOWN.kind, DOWN.subject, DOWN.details)
    assert len(Story().told([DOWN]).told([much_later]).lines) == 2


def test_nothing_new_gives_the_same_story() -> None:
    story = Story().told([DOWN])
    assert story.told([]) is story
    assert story.told([DOWN]) is story


def test_the_story_keeps_its_last_five_hundred_lines_and_still_knows_the_fault() -> None:
    story = Story().told([KILLED]).told([event(float(i)) for i in range(1, LONGEST + 100)])
    assert len(story.lines) == LONGEST
    assert story.lines[-1].since_fault_s == pytest.approx(LONGEST + 99)


def test_the_text_for_a_report_has_date_time_distance_and_sentence() -> None:
    moved = LeaderDetails(EntityKey("/", "orders"), "rmq2", "rmq3")
    led = Event(T0 + 0.41, Origin.BROKER, Severity.NOTICE, "leader_moved", "orders", moved)
    text = as_text(Story().told([event(-5.0, "unknown"), KILLED, led]), "Shop")
    assert text.splitlines() == [
        "Shop",
        "2026-09-21 UTC",
        "14:13:15.00            ★  broker  -500 messages with unknown outcome",
        "14:13:20.00     +0.00  ✗  you     rmq2 killed (you)",
        "14:13:20.41     +0.41  ★  broker  orders: leader rmq2 → rmq3",
    ]
    assert as_text(Story()) == ""


EVENTS = st.lists(
    st.builds(
        lambda at, severity, kind: Event(T0 + at, Origin.BROKER, severity, kind, "q"),
        st.floats(0, 50),
        st.sampled_from(Severity),
        st.sampled_from(["a", "b", "node_down"]),
    ),
    max_size=30,
)


@given(batches=st.lists(EVENTS, max_size=4))
def test_lines_are_in_time_order_and_no_distance_is_negative(batches: list[list[Event]]) -> None:
    story = Story()
    for batch in batches:
        story = story.told(batch)
    moments = [line.event.at for line in story.lines]
    assert moments == sorted(moments)
    assert all(line.since_fault_s is None or line.since_fault_s >= 0 for line in story.lines)
