"""What clients felt is told once, in words, with the node's name made safe."""

from __future__ import annotations

from dmq_core.connection_manager import Role
from dmq_core.messaging.connection.states import ConnectionState, ConnectionStatus
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Event, Origin, Severity
from dmq_core.proof.run.client_events import QUIET_S, ClientEventDetector

ONE, TWO = "rmq1", "rmq\x1b2"
PUBLISHING, CONSUMING = Role.PUBLISHING, Role.CONSUMING


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told() -> tuple[ClientEventDetector, Clock]:
    clock = Clock()
    return ClientEventDetector(rate=500.0, clock=clock), clock


def change(
    story: ClientEventDetector,
    role: Role,
    state: ConnectionState,
    node: str | None = None,
    problem: str = "",
    reason: str = "",
) -> list[Event]:
    why = CloseReason(RecoveryAction.RECOVER, reason) if reason else None
    return story.client(role, node, ConnectionStatus(state, 1000.0, problem=problem, reason=why))


def words(events: list[Event]) -> list[tuple[str, str]]:
    return [(e.kind, event_text(e)) for e in events]


def test_a_publisher_is_followed_from_node_to_node() -> None:
    story, _ = told()
    assert change(story, PUBLISHING, ConnectionState.CONNECTING) == []
    assert words(change(story, PUBLISHING, ConnectionState.OPEN, TWO)) == [
        ("publisher_connected", "publisher on rmq\\x1b2")
    ]
    assert story.node_of(PUBLISHING) == "rmq\x1b2"
    lost = change(story, PUBLISHING, ConnectionState.RECOVERING, reason="silent for 2.1 s")
    assert words(lost) == [("publisher_lost", "publisher lost rmq\\x1b2: silent for 2.1 s")]
    assert (lost[0].origin, lost[0].severity, lost[0].subject) == (Origin.CLIENT, Severity.BAD, "rmq\x1b2")
    assert story.node_of(PUBLISHING) is None
    assert change(story, PUBLISHING, ConnectionState.RECOVERING, reason="connection refused") == []
    assert words(change(story, PUBLISHING, ConnectionState.OPEN, ONE)) == [
        ("publisher_resumed", "publisher now on rmq1")
    ]


def test_an_alarm_blocks_and_releases_the_publisher() -> None:
    story, _ = told()
    change(story, PUBLISHING, ConnectionState.OPEN, ONE)
    blocked = change(story, PUBLISHING, ConnectionState.BLOCKED, ONE, "the broker blocks publishers: low on memory")
    assert words(blocked) == [("publisher_blocked", "publisher: the broker blocks publishers: low on memory")]
    assert words(change(story, PUBLISHING, ConnectionState.OPEN, ONE)) == [
        ("publisher_released", "publisher released by the broker")
    ]


def test_closing_on_purpose_is_no_loss() -> None:
    story, _ = told()
    change(story, PUBLISHING, ConnectionState.OPEN, ONE)
    assert change(story, PUBLISHING, ConnectionState.CLOSING, ONE) == []
    assert change(story, PUBLISHING, ConnectionState.CLOSED) == []


def test_a_consumer_is_followed_too_and_no_alarm_holds_it() -> None:
    story, _ = told()
    assert words(change(story, CONSUMING, ConnectionState.OPEN, ONE)) == [("consumer_connected", "consumer on rmq1")]
    assert change(story, CONSUMING, ConnectionState.BLOCKED, ONE) == []
    lost = change(story, CONSUMING, ConnectionState.RECOVERING, reason="connection reset")
    assert words(lost) == [("consumer_lost", "consumer lost rmq1: connection reset")]
    assert words(change(story, CONSUMING, ConnectionState.OPEN, TWO)) == [
        ("consumer_resumed", "consumer now on rmq\\x1b2")
    ]


def test_a_rush_of_redeliveries_is_one_event_once_it_is_over() -> None:
    story, clock = told()
    for _ in range(53):
        story.redelivered()
        clock.now += 0.01
    assert story.due() == []
    clock.now += QUIET_S
    (event,) = story.due()
    assert (event.kind, event_text(event), event.at) == ("redelivered", "53 messages redelivered", 1000.0)
    assert story.due() == []


def test_unknown_outcomes_and_their_resolution_are_told_apart() -> None:
    story, clock = told()
    story.unknown(2)
    story.recovered(1)
    story.recovered(0)
    clock.now += 1
    assert words(story.due()) == [
        ("unknown", "2 messages with unknown outcome"),
        ("unknown_resolved", "1 message with unknown outcome delivered after all"),
    ]


def test_a_gap_is_told_when_it_is_unusual() -> None:
    story, clock = told()
    assert story.confirmed(0.2, longest=True) == []
    assert words(story.confirmed(0.43, longest=True)) == [
        ("first_confirm", "first confirm after 0.43 s, the longest gap so far")
    ]
    assert story.confirmed(0.43, longest=False) == [], "twice the same is usual"
    clock.now += 60
    assert words(story.confirmed(0.43, longest=False)) == [("first_confirm", "first confirm after 0.43 s")]


def test_after_a_loss_the_first_confirm_is_told_though_gaps_are_usual() -> None:
    story, _ = told()
    change(story, PUBLISHING, ConnectionState.OPEN, ONE)
    story.confirmed(0.5, longest=True)
    change(story, PUBLISHING, ConnectionState.RECOVERING, problem="x: gone")
    assert words(story.confirmed(0.08, longest=False)) == [("first_confirm", "first confirm after 0.08 s")]
    assert story.confirmed(0.08, longest=False) == []
