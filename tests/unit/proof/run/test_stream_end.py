"""A stream is known to be read to its end by marks that every reader on every node finds next to each other."""

from __future__ import annotations

import threading

import pytest

from dmq_core.proof.run.stream_end import EndMarks


def test_marks_next_to_each_other_have_nothing_between() -> None:
    marks = EndMarks("r")
    assert [marks.note("rmq1", f"r-end-{n}", 10 + n) for n in (1, 2, 3)] == [True] * 3
    assert [marks.between("rmq1", number) for number in (1, 2, 3, 4)] == [0, 0, 0, None]
    assert marks.between("rmq2", 1) is None


def test_what_comes_between_two_marks_counts_for_the_later_one_alone() -> None:
    marks = EndMarks("r")
    for number, offset in ((1, 10), (2, 14), (3, 15)):
        marks.note("rmq1", f"r-end-{number}", offset)
    assert [marks.between("rmq1", number) for number in (1, 2, 3)] == [0, 3, 0]


@pytest.mark.parametrize("name", ["r-1", "r-probe", "s-end-1", "r-end-", "r-end-x", "xr-end-1", None])
def test_other_messages_are_no_marks(name: str | None) -> None:
    assert not EndMarks("r").note("rmq1", name, 1)


def test_a_mark_that_one_reader_misses_is_not_found_by_all() -> None:
    marks = EndMarks("r")
    marks.note(0, "r-end-1", 5)
    assert marks.await_found([0], 1, 0.0)
    assert not marks.await_found([0, 1], 1, 0.0)
    threading.Timer(0.01, marks.note, (1, "r-end-1", 5)).start()
    assert marks.await_found([0, 1], 1, 10.0)
