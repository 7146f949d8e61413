"""When what happened: moments after the fault, marks, curves and gaps, from records alone."""

from __future__ import annotations

import pytest
from judged_records import history_of

from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.records import (
    AttemptRecord,
    ClientEvent,
    ClientRecord,
    DeliveryRecord,
    FaultRecord,
    FaultStage,
    LeaderRecord,
    OutcomeRecord,
    PhaseRecord,
    Record,
    RunPhase,
)
from dmq_core.proof.judging.timeline import MOST_SLICES, RunHistory
from dmq_core.proof.result import Timeline, TimelineMark

WALL = 1_790_000_000.0
BEGAN = PhaseRecord(10.0, WALL, RunPhase.BEGAN)


def attempted(at: float, *numbers: int) -> AttemptRecord:
    return AttemptRecord(at, WALL + at, 0, numbers, (0,) * len(numbers))


def settled(at: float, *numbers: int, outcome: Outcome = Outcome.CONFIRMED) -> OutcomeRecord:
    return OutcomeRecord(at, WALL + at, outcome, numbers)


def delivered(at: float, *numbers: int) -> DeliveryRecord:
    return DeliveryRecord(at, WALL + at, 0, 1, "proof", numbers, (0,) * len(numbers))


def fault(at: float, stage: FaultStage, undo: bool = False, action: str = "kill", text: str = "") -> FaultRecord:
    return FaultRecord(at, WALL + at, undo, stage, action, "rmq2", text)


def client(at: float, event: ClientEvent, node: str, role: str = "publisher", number: int = 0) -> ClientRecord:
    return ClientRecord(at, WALL + at, role, number, event, node, 1, "closed" if event is ClientEvent.LOST else "")


def build(*records: Record) -> RunHistory:
    return history_of([BEGAN, *records])


def killed() -> RunHistory:
    return build(
        LeaderRecord(10.0, WALL, "proof", "rmq2", 1),
        attempted(11.0, 1, 2),
        settled(11.1, 1),
        delivered(11.2, 1),
        fault(12.0, FaultStage.ASKED),
        attempted(12.05, 3),
        # The cluster's news of the kill comes after what clients saw of it.
        client(12.11, ClientEvent.LOST, "rmq2"),
        settled(12.12, 2, 3, outcome=Outcome.UNKNOWN),
        fault(12.1, FaultStage.BEGAN),
        client(12.2, ClientEvent.LOST, "rmq2", "consumer"),
        client(12.3, ClientEvent.RECONNECTED, "rmq3"),
        LeaderRecord(12.4, WALL, "proof", "rmq3", 2),
        fault(12.45, FaultStage.HOLDS, text="exited"),
        attempted(12.5, 4),
        settled(12.6, 4),
        client(12.7, ClientEvent.RECONNECTED, "rmq1", "consumer"),
        delivered(12.8, 2, 4),
        fault(14.0, FaultStage.ASKED, undo=True, action="start"),
        fault(14.5, FaultStage.BEGAN, undo=True, action="start"),
        client(14.6, ClientEvent.LOST, "rmq3"),
        client(14.7, ClientEvent.RECONNECTED, "rmq2"),
        LeaderRecord(14.8, WALL, "proof", "rmq2", 3),
    )


def test_each_moment_is_counted_from_the_fault_and_what_undoing_it_does_is_none_of_it() -> None:
    assert killed().timeline == Timeline(
        fault_s=2.1,
        noticed_s=0.01,
        reconnected_s=0.6,
        leader_elected_s=0.3,
        first_confirm_s=0.5,
        first_delivery_s=0.7,
        unknowns_resolved_s=0.02,
    )
    assert killed().node == "rmq2"


def test_marks_say_what_happened_in_the_words_of_the_report() -> None:
    assert killed().marks == (
        TimelineMark(2.1, "fault", "rmq2 killed"),
        TimelineMark(2.11, "client", "publisher 1 lost rmq2: closed"),
        TimelineMark(2.2, "client", "consumer 1 lost rmq2: closed"),
        TimelineMark(2.3, "client", "publisher 1 now on rmq3"),
        TimelineMark(2.4, "leader", "rmq3 leads proof (term 2)"),
        TimelineMark(2.7, "client", "consumer 1 now on rmq1"),
        TimelineMark(4.5, "undo", "rmq2 started"),
        TimelineMark(4.6, "client", "publisher 1 lost rmq3: closed"),
        TimelineMark(4.7, "client", "publisher 1 now on rmq2"),
        TimelineMark(4.8, "leader", "rmq2 leads proof (term 3)"),
    )


def test_a_fault_that_failed_has_no_moment_but_a_mark() -> None:
    found = build(fault(12.0, FaultStage.ASKED), fault(12.5, FaultStage.FAILED, text="no such container"))
    assert found.timeline == Timeline()
    assert found.marks == (TimelineMark(2.5, "fault", "kill of rmq2 failed: no such container"),)


def test_a_client_that_never_comes_back_and_an_outcome_that_never_comes_have_no_moment() -> None:
    found = build(
        attempted(11.0, 1),
        fault(12.0, FaultStage.ASKED),
        fault(12.0, FaultStage.HOLDS),
        client(12.1, ClientEvent.LOST, "rmq2"),
        client(12.1, ClientEvent.LOST, "rmq2", "consumer"),
        client(12.3, ClientEvent.RECONNECTED, "rmq3"),
    )
    assert found.timeline == Timeline(fault_s=2.0, noticed_s=0.1)


def test_a_message_sent_before_the_fault_is_not_the_first_one_after_it() -> None:
    found = build(
        attempted(11.0, 1),
        fault(12.0, FaultStage.ASKED),
        fault(12.2, FaultStage.HOLDS),
        settled(12.3, 1),
        delivered(12.3, 1),
        attempted(12.4, 2),
        settled(12.5, 2),
        delivered(12.6, 2),
    )
    assert (found.timeline.first_confirm_s, found.timeline.first_delivery_s) == pytest.approx((0.3, 0.4))
    assert found.timeline.unknowns_resolved_s == pytest.approx(0.1)


def test_a_gap_counts_only_while_something_is_due() -> None:
    found = build(
        attempted(11.0, 1),
        settled(11.1, 1),
        delivered(11.3, 1),
        # Nothing is on offer for a whole minute.
        attempted(71.0, 2, 3),
        settled(71.2, 2),
        delivered(71.2, 2),
        settled(72.2, 3),
        delivered(74.2, 3),
        delivered(99.0, 3),
    )
    assert found.max_confirm_gap_s == pytest.approx(1.0)
    assert found.max_delivery_gap_s == pytest.approx(3.0)


def test_messages_that_fail_at_once_do_not_hide_an_outage() -> None:
    failing = [
        record
        for n in range(1, 101)
        for record in (attempted(11.0 + n / 10, n), settled(11.0 + n / 10, n, outcome=Outcome.NOT_SENT))
    ]
    found = build(*failing, attempted(21.5, 101), settled(21.6, 101), delivered(21.7, 101))
    assert found.max_confirm_gap_s == pytest.approx(10.5)
    assert found.max_delivery_gap_s == pytest.approx(10.6)


def test_what_is_due_in_the_end_has_waited_until_then() -> None:
    found = build(attempted(11.0, 1), settled(11.5, 1), fault(15.0, FaultStage.ASKED))
    assert found.max_confirm_gap_s == pytest.approx(0.5)
    assert found.max_delivery_gap_s == pytest.approx(4.0)


def test_curves_are_rates_in_slices_from_the_load_s_beginning() -> None:
    found = build(
        attempted(10.0, 1, 2, 3), settled(10.1, 1, 2), settled(10.6, 3), delivered(10.3, 1), delivered(10.9, 2)
    )
    assert found.curves.slice_s == 0.25
    assert found.curves.confirms == (8.0, 0.0, 4.0, 0.0)
    assert found.curves.deliveries == (0.0, 4.0, 0.0, 4.0)


def test_long_runs_have_wider_slices_and_no_message_is_lost_in_them() -> None:
    records: list[Record] = []
    for n in range(1, 4001):
        records += [attempted(10.0 + n, n), settled(10.0 + n, n), delivered(10.2 + n, n)]
    curves = build(*records).curves
    assert curves.slice_s == 2.0
    assert len(curves.confirms) == len(curves.deliveries) <= MOST_SLICES
    assert sum(curves.confirms) * curves.slice_s == sum(curves.deliveries) * curves.slice_s == 4000


def test_nothing_makes_an_empty_course() -> None:
    found = history_of([])
    assert (found.timeline, found.marks, found.max_confirm_gap_s) == (Timeline(), (), 0.0)
