"""A killed writer loses nothing that it called written, a torn tail is read, and a full disk is told."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.file import Journal, JournalError, _outcome_lines, read_journal
from dmq_core.proof.journal.records import (
    LONGEST_TEXT,
    MOST_NUMBER,
    AnswerRecord,
    AttemptRecord,
    ClientEvent,
    ClientRecord,
    CountersRecord,
    DamageRecord,
    DeliveryRecord,
    DepthRecord,
    EndRecord,
    FaultRecord,
    FaultStage,
    ForeignRecord,
    HealthRecord,
    LeaderRecord,
    OutcomeRecord,
    PhaseRecord,
    Record,
    RunPhase,
    RunSetup,
    head_of,
    line_of,
    record_of,
)
from dmq_core.proof.judging.judge import judge
from dmq_core.proof.result import Verdict

SETUP = RunSetup(run="6f0c", nodes=("rmq1",), queues=("proof",), keys=("k0",))
WRITER = """
import sys, threading
from pathlib import Path
from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.file import Journal
from dmq_core.proof.journal.records import RunSetup
journal = Journal.create(Path(sys.argv[1]), RunSetup(run="6f0c"))
lock = threading.Lock()
def publish(publisher):
    for number in range(1 + publisher, 10_000_000, 4):
        journal.append_attempts(publisher, [number], [0])
        with lock:
            sys.stdout.write(f"A{number}\\n")
            sys.stdout.flush()
        journal.append_outcome(number, Outcome.CONFIRMED)
        journal.append_deliveries(0, 1, "proof", [number], [0])
        with lock:
            sys.stdout.write(f"D{number}\\n")
            sys.stdout.flush()
for publisher in range(4):
    threading.Thread(target=publish, args=(publisher,)).start()
"""

MOMENTS = st.floats(0, 2e9, allow_nan=False).map(lambda at: round(at, 6))
TEXTS = st.text(max_size=LONGEST_TEXT).filter(lambda text: "//" not in text)
NUMBERS = st.lists(st.integers(1, MOST_NUMBER), max_size=8).map(tuple)
SMALL = st.integers(0, 1 << 40)
KEYS = st.integers(-1, 100)


@st.composite
def deliveries(draw: st.DrawFn) -> DeliveryRecord:
    numbers = draw(NUMBERS)
    keys = tuple(draw(KEYS) for _ in numbers)
    places = st.lists(st.integers(0, max(0, len(numbers) - 1)), max_size=len(numbers), unique=True).map(tuple)
    moment = draw(MOMENTS), draw(MOMENTS), draw(SMALL), draw(SMALL), draw(TEXTS)
    return DeliveryRecord(*moment, numbers, keys, draw(places), draw(places), draw(places))


RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        lambda at, wall, who, ns: AttemptRecord(at, wall, who, ns, (0,) * len(ns)), MOMENTS, MOMENTS, SMALL, NUMBERS
    ),
    st.builds(OutcomeRecord, MOMENTS, MOMENTS, st.sampled_from(Outcome), NUMBERS, SMALL, TEXTS),
    deliveries(),
    st.builds(ForeignRecord, MOMENTS, MOMENTS, SMALL, SMALL, TEXTS, st.lists(TEXTS, max_size=3).map(tuple)),
    st.builds(AnswerRecord, MOMENTS, MOMENTS, SMALL, SMALL, NUMBERS),
    st.builds(FaultRecord, MOMENTS, MOMENTS, st.booleans(), st.sampled_from(FaultStage), TEXTS, TEXTS, TEXTS),
    st.builds(ClientRecord, MOMENTS, MOMENTS, TEXTS, SMALL, st.sampled_from(ClientEvent), TEXTS, SMALL, TEXTS),
    st.builds(LeaderRecord, MOMENTS, MOMENTS, TEXTS, TEXTS, SMALL),
    st.builds(CountersRecord, MOMENTS, MOMENTS, TEXTS, TEXTS, SMALL, SMALL, SMALL, SMALL),
    st.builds(DepthRecord, MOMENTS, MOMENTS, TEXTS, TEXTS, st.none() | SMALL, st.none() | SMALL),
    st.builds(HealthRecord, MOMENTS, MOMENTS, st.lists(TEXTS).map(tuple), st.lists(TEXTS, max_size=2).map(tuple)),
    st.builds(PhaseRecord, MOMENTS, MOMENTS, st.sampled_from(RunPhase), TEXTS),
    st.builds(EndRecord, MOMENTS, MOMENTS, SMALL),
)


@given(RECORDS)
def test_every_record_comes_back_from_its_one_line(record: Record) -> None:
    line = line_of(record)
    assert line.count("\n") == 1
    assert line.isascii()
    assert record_of(line.encode()) == record


@given(RECORDS, st.data())
def test_a_torn_record_is_never_taken_for_a_whole_one(record: Record, data: st.DataObject) -> None:
    line = line_of(record).encode()
    with pytest.raises(ValueError, match=r"."):
        record_of(line[: data.draw(st.integers(0, len(line) - 2))])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        record_of(line)


@pytest.mark.parametrize(
    "line",
    [
        '["A",1,2,0,[1],[]]',
        '["A",1,2,0,[0],[0]]',
        '["A",1,2,0,[true],[0]]',
        '["A",1,2,0,[999999999999],[0]]',
        '["A",NaN,2,0,[1],[0]]',
        '["A",1,2,0,[1],[0],1]',
        '["D",1,2,0,1,"q",[1],[0],[1],[],[]]',
        '["D",1,2,0,1,"q",[1],[0],[-1],[],[]]',
        '["S",1,2,"maybe",[1],1,""]',
        '["Z",1,2]',
        "[" * 100_000,
    ],
)
def test_lines_that_no_writer_wrote_are_errors(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        record_of(line.encode())


@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.4])
def test_what_a_killed_writer_called_written_is_in_the_file(tmp_path: Path, after_s: float) -> None:
    path = tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        killer = threading.Timer(after_s, writer.send_signal, [signal.SIGKILL])
        killer.start()
        fields_read = (first + writer.stdout.read()).split(b"\n")[:-1]
    assert writer.returncode == -signal.SIGKILL
    found: dict[str, set[int]] = {"A": set(), "D": set()}
    *records, last = read_journal(path).records()
    for record in records:
        if isinstance(record, AttemptRecord | DeliveryRecord):
            found["A" if isinstance(record, AttemptRecord) else "D"].update(record.numbers)
    assert len(fields_read) > 10
    assert {int(line[1:]) for line in fields_read if line[:1] == b"A"} <= found["A"]
    assert {int(line[1:]) for line in fields_read if line[:1] == b"D"} <= found["D"]
    assert isinstance(last, DamageRecord)
    assert last.torn
    result = judge(read_journal(path))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert (result.account.attempted, result.account.unexpected) == (len(found["A"]), ())


def test_late_records_reach_the_file_without_being_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, SETUP) as journal:
        journal.append_attempts(0, [1, 2, 3], [0, 0, 0])
        for number in (1, 2, 3):
            journal.append_outcome(number, Outcome.CONFIRMED)
        journal.append_answers(0, 1, [1])
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and path.read_bytes().count(b"\n") < 4:
            time.sleep(0.01)
        kinds = [type(record) for record in read_journal(path).records()]
    assert kinds[0] is AttemptRecord
    assert {OutcomeRecord, AnswerRecord} <= set(kinds)


def test_outcomes_that_are_alike_share_a_line_and_others_do_not() -> None:
    sent_twice, unknown = (2.0006, Outcome.CONFIRMED, 4, 2, ""), (2.0007, Outcome.UNKNOWN, 5, 2, "lost")
    outcomes = [(2.0 + n / 10_000, Outcome.CONFIRMED, n, 1, "") for n in (1, 2, 3)]
    later = [(3.0, Outcome.UNKNOWN, 6, 2, "lost"), (3.0, Outcome.UNKNOWN, 7, 2, "timed out")]
    lines = list(_outcome_lines([*outcomes, sent_twice, unknown, *later], offset=1000.0))
    assert [record_of(line.encode()) for line in lines] == [
        OutcomeRecord(2.0001, 1002.0001, Outcome.CONFIRMED, (1, 2, 3)),
        OutcomeRecord(2.0006, 1002.0006, Outcome.CONFIRMED, (4,), 2),
        OutcomeRecord(2.0007, 1002.0007, Outcome.UNKNOWN, (5,), 2, "lost"),
        OutcomeRecord(3.0, 1003.0, Outcome.UNKNOWN, (6,), 2, "lost"),
        OutcomeRecord(3.0, 1003.0, Outcome.UNKNOWN, (7,), 2, "timed out"),
    ]


def test_no_credentials_get_into_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, SETUP) as journal:
        journal.append_client("publisher", 0, ClientEvent.LOST, "rmq1", 1, "amqp://guest:hunter2@127.0.0.1 is gone")
        journal.append_outcome(1, Outcome.UNKNOWN, reason="lost http://admin:hunter2@rmq1:15672/api")
    assert b"hunter2" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def full(_descriptor: int, _data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_stops_whoever_is_about_to_send_and_lets_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    fields_read: list[JournalError] = []
    journal = Journal.create(path, SETUP, on_failure=fields_read.append)
    journal.append_attempts(0, [1], [0])
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        with pytest.raises(JournalError, match="No space left on device"):
            journal.append_attempts(0, [2], [0])
    with pytest.raises(JournalError):
        journal.append_deliveries(0, 1, "proof", [1], [0])
    journal.append_undo(FaultStage.HOLDS, "start", "rmq1")
    journal.append_outcome(1, Outcome.CONFIRMED)
    journal.close()
    assert journal.failure is not None
    assert len(fields_read) == 1
    attempted, end = read_journal(path).records()
    assert isinstance(attempted, AttemptRecord)
    assert isinstance(end, DamageRecord)
    result = judge(read_journal(path), trouble=journal.failure.what)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert any("No space left on device" in reason for reason in result.reasons)


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path: Path) -> None:
    """The limit of a file's size stands in for the disk's; it belongs to the process, so another one meets it."""
    program = (
        "import sys; from pathlib import Path; from dmq_core.proof.journal.file import Journal, JournalError;"
        "from dmq_core.proof.journal.records import RunSetup;"
        "journal = Journal.create(Path(sys.argv[1]), RunSetup(run='r'));"
        "n = 0\n"
        "try:\n"
        "    while n < 100_000:\n"
        "        journal.append_attempts(0, [n + 1], [0]); n += 1\n"
        "except JournalError as error:\n"
        "    print(n, error.what)\n"
        "journal.close()\n"
    )
    path = tmp_path / "journal"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    number, _, what = done.stdout.partition(" ")
    assert "File too large" in what
    *attempts, end = read_journal(path).records()
    assert [record.numbers for record in attempts if isinstance(record, AttemptRecord)] == [
        (n + 1,) for n in range(int(number))
    ]
    assert isinstance(end, DamageRecord)
    assert path.read_bytes().endswith(b"\n")


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("mine")
    with pytest.raises(JournalError, match="File exists"):
        Journal.create(path, SETUP)
    assert path.read_text() == "mine"
    with pytest.raises(JournalError, match="No such file"):
        Journal.create(tmp_path / "nowhere" / "journal", SETUP)


def test_a_closed_journal_takes_nothing_more(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", SETUP)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append_attempts(0, [1], [0])
    *_, end = read_journal(tmp_path / "journal").records()
    assert isinstance(end, EndRecord)


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, SETUP) as journal:

        def write(publisher: int) -> None:
            for number in range(publisher * 1000 + 1, publisher * 1000 + 1001):
                journal.append_attempts(publisher, [number], [0])
                journal.append_outcome(number, Outcome.CONFIRMED)

        threads = [threading.Thread(target=write, args=(publisher,)) for publisher in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    *records, end = read_journal(path).records()
    assert isinstance(end, EndRecord)
    assert not [record for record in records if isinstance(record, DamageRecord)]
    for kind in (AttemptRecord, OutcomeRecord):
        numbers = [n for record in records if isinstance(record, kind) for n in record.numbers]
        assert sorted(numbers) == list(range(1, 4001))


def test_a_head_alone_is_a_run_that_was_killed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(head_of(SETUP))
    assert judge(read_journal(path)).verdict is Verdict.INCONCLUSIVE
