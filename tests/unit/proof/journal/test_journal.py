"""What a journal was told can be read back, and nothing else is taken for a journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import (
    AttemptRecord,
    DamageRecord,
    DeliveryRecord,
    EndRecord,
    OutcomeRecord,
    RunSetup,
    head_of,
    setup_of,
)

SETUP = RunSetup(run="6f0c", nodes=("rmq1", "rmq2"), queues=("proof",), keys=("k0", "k1"))


def test_what_was_put_down_is_read_back(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal", SETUP) as journal:
        journal.append_attempts(0, range(1, 4), [0, 1, 0])
        journal.append_deliveries(1, 2, "proof", [1, 3], [0, 0], redelivered=[1], at=5.0)
        journal.append_outcome(1, Outcome.CONFIRMED)
        journal.append_outcome(2, Outcome.RETURNED, reason="NO_ROUTE (312)")
    reading = read_journal(tmp_path / "journal")
    assert reading.setup == SETUP
    attempted, delivered, first, second, ended = reading.records()
    assert isinstance(attempted, AttemptRecord)
    assert (attempted.numbers, attempted.keys) == ((1, 2, 3), (0, 1, 0))
    assert delivered == DeliveryRecord(5.0, delivered.wall, 1, 2, "proof", (1, 3), (0, 0), (1,))
    assert attempted.wall - attempted.at == pytest.approx(delivered.wall - 5.0, abs=0.1)
    assert first == OutcomeRecord(first.at, first.wall, Outcome.CONFIRMED, (1,))
    assert second == OutcomeRecord(second.at, second.wall, Outcome.RETURNED, (2,), reason="NO_ROUTE (312)")
    assert ended == EndRecord(ended.at, ended.wall, lines=6)


def test_a_cut_tail_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, SETUP) as journal:
        journal.append_attempts(0, [1], [0])
    path.write_bytes(path.read_bytes()[:-3])
    attempted, *damage = read_journal(path).records()
    assert isinstance(attempted, AttemptRecord)
    assert all(isinstance(record, DamageRecord) and record.torn for record in damage)


@pytest.mark.parametrize("content", [b"", b"hello", b'["dmq-journal",2,{}]\n', b"\x00" * 5000, b"[" * 100_000, b"{}"])
def test_foreign_files_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="journal"):
        read_journal(path)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_journal(tmp_path)


def test_a_setting_that_no_run_could_have_is_no_setting() -> None:
    crowd = replace(SETUP, workload=replace(SETUP.workload, queue_type="stream", consumers=10**9))
    with pytest.raises(ValueError, match="not a setting"):
        setup_of(head_of(crowd).encode())
