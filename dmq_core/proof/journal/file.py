"""The journal of a proof run: an append-only file that tells every message's story even if the tool is killed.

It is JSON lines and not SQLite: one `write` of one line makes a whole batch safe from `kill -9`, while a database
needs a transaction, and a row for each message, which at 20,000 messages a second takes a processor core of its own.

What has to precede an action is handed to the operating system before its method returns: attempts before they are
published, deliveries before they are handled and acknowledged, and whatever happened to the cluster. Outcomes and
answers precede nothing; a thread writes them within some 20 ms, and a kill in between leaves their messages without
outcome, which the account calls unknown. Nothing is synced to the disk: the journal outlives its process, not its
machine.

    >>> journal = Journal.create(path, RunSetup(run="6f0c", nodes=("rmq1", "rmq2", "rmq3"), queues=("proof",)))
    >>> journal.append_attempts(publisher=0, numbers=range(1, 21), keys=[0] * 20)     # then publish the twenty
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dmq_core.errors import DmqError, InvalidInputError
from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.records import (
    MAGIC,
    ClientEvent,
    ClientRecord,
    CountersRecord,
    DamageRecord,
    DepthRecord,
    EndRecord,
    FaultRecord,
    FaultStage,
    ForeignRecord,
    HealthRecord,
    LeaderRecord,
    PhaseRecord,
    Record,
    RunPhase,
    RunSetup,
    head_of,
    line_of,
    record_of,
    setup_of,
    text_json,
)
from dmq_core.text import visible

FLUSH_S: Final = 0.02
JOIN_S: Final = 5.0
ALIKE_S: Final = 0.001
LONGEST_BATCH: Final = 5_000
_HEAD_BYTES: Final = 1 << 20
_Outcome = tuple[float, Outcome, int, int, str]
_Answers = tuple[float, int, int, Sequence[int]]


class JournalError(DmqError):
    """The journal cannot be written on: what happens from now on is on no record."""


@dataclass(frozen=True, slots=True)
class JournalClock:
    """Where moments come from: `mono` seconds that never step, `wall` epoch seconds that may."""

    mono: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Journal:
    """Writes one run's journal; every method may be called from any thread.

    Methods that put down attempts and deliveries raise `JournalError` where that fails (a full disk), so that nobody
    goes on; the others never raise, since a fault has to be undone all the same: they note it in `failure` and call
    `on_failure` once, from whichever thread finds out. After a failure nothing more is written, and the file ends with
    its last whole line. `at` is the monotonic second of what is put down, for what was seen earlier; None: now.
    """

    def __init__(
        self, descriptor: int, path: Path, clock: JournalClock, on_failure: Callable[[JournalError], None] | None
    ) -> None:
        self.path = path
        self._descriptor = descriptor
        self._mono, self._wall = clock.mono, clock.wall
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._failure: JournalError | None = None
        self._closed = False
        self._lines = 0
        self._bytes = 0
        self._outcomes: deque[_Outcome] = deque()
        self._answers: deque[_Answers] = deque()
        self._ending = threading.Event()
        self._writer = threading.Thread(target=self._write_deferred, name="dmq-journal", daemon=True)

    @classmethod
    def create(
        cls,
        path: Path,
        setup: RunSetup,
        clock: JournalClock | None = None,
        on_failure: Callable[[JournalError], None] | None = None,
    ) -> Journal:
        """Makes the file, which must not exist, for its owner alone; `JournalError` if that cannot be."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(path, error) from error
        journal = cls(descriptor, path, clock or JournalClock(), on_failure)
        try:
            journal._append(head_of(setup), required=True)
        except JournalError:
            os.close(descriptor)
            raise
        journal._writer.start()
        return journal

    @property
    def failure(self) -> JournalError | None:
        """Why it cannot be written on; None: it can."""
        return self._failure

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._bytes

    def append_attempts(self, publisher: int, numbers: Sequence[int], keys: Sequence[int]) -> None:
        """Before messages are sent: their numbers, and the position of each one's routing key in the setting's `keys`.

        Numbers rise per publisher; one that was there before says that it is sent again.
        """
        self._append(f'["A",{self._now()},{publisher},{list(numbers)},{list(keys)}]\n', required=True)

    def append_outcome(self, number: int, outcome: Outcome, sends: int = 1, reason: str = "") -> None:
        """A message's outcome; as `PublishResult` has it. Costs next to nothing: the writer does the rest."""
        self._outcomes.append((self._mono(), outcome, number, sends, reason))

    def append_deliveries(
        self,
        consumer: int,
        epoch: int,
        queue: str,
        numbers: Sequence[int],
        keys: Sequence[int],
        redelivered: Sequence[int] = (),
        at: float | None = None,
    ) -> None:
        """Before messages are handled and acknowledged; `redelivered` holds positions in `numbers`.

        `epoch` counts the consumer's channels; see `DeliveryRecord`.
        """
        self._append(
            f'["D",{self._now(at)},{consumer},{epoch},{text_json(queue)},{list(numbers)},{list(keys)},'
            f"{list(redelivered)}]\n",
            required=True,
        )

    def append_foreign(self, consumer: int, epoch: int, queue: str, ids: Sequence[str]) -> None:
        """Messages whose ids are none of this run's came; before they are acknowledged."""
        self._append(line_of(ForeignRecord(*self._clocks(), consumer, epoch, queue, tuple(ids))), required=True)

    def append_answers(self, consumer: int, epoch: int, numbers: Sequence[int]) -> None:
        """Deliveries were answered, and the answer taken on; after that, and as cheap as `append_outcome`."""
        self._answers.append((self._mono(), consumer, epoch, numbers))

    def append_fault(self, stage: FaultStage, action: str, node: str, text: str = "", at: float | None = None) -> None:
        """A fault's progress; for HOLDS `text` is the cluster's own evidence, for FAILED what went wrong."""
        self._append(line_of(FaultRecord(*self._clocks(at), False, stage, action, node, text)))

    def append_undo(self, stage: FaultStage, action: str, node: str, text: str = "", at: float | None = None) -> None:
        """The progress of undoing a fault; HOLDS: the node serves again."""
        self._append(line_of(FaultRecord(*self._clocks(at), True, stage, action, node, text)))

    def append_client(
        self, role: str, number: int, event: ClientEvent, node: str, epoch: int, text: str = "", at: float | None = None
    ) -> None:
        """A client came to a node or lost it; `role` is `publisher` or `consumer`, `text` why it was lost."""
        self._append(line_of(ClientRecord(*self._clocks(at), role, number, event, node, epoch, text)))

    def append_leader(self, queue: str, node: str, term: int = 0, at: float | None = None) -> None:
        """`node` leads `queue` (empty: nobody does); also once before the load begins."""
        self._append(line_of(LeaderRecord(*self._clocks(at), queue, node, term)))

    def append_counters(
        self,
        node: str,
        epoch: str,
        published: int,
        confirmed: int,
        delivered: int,
        acknowledged: int,
        at: float | None = None,
    ) -> None:
        """A broker's counters: before the load begins, now and then, and after the drain; `at`: it was asked then."""
        self._append(
            line_of(CountersRecord(*self._clocks(at), node, epoch, published, confirmed, delivered, acknowledged))
        )

    def append_depth(self, node: str, queue: str, ready: int | None, unacked: int | None) -> None:
        """What a node says of a queue; after the drain three times each, a second apart."""
        self._append(line_of(DepthRecord(*self._clocks(), node, queue, ready, unacked)))

    def append_health(self, running: Sequence[str], problems: Sequence[str] = ()) -> None:
        """Which nodes run, and what is wrong with the cluster; before the load begins and at the end."""
        self._append(line_of(HealthRecord(*self._clocks(), tuple(running), tuple(problems))))

    def append_phase(self, phase: RunPhase, text: str = "") -> None:
        """The run came to a phase."""
        self._append(line_of(PhaseRecord(*self._clocks(), phase, text)))

    def close(self) -> None:
        """Writes what is left and the line that says that nothing is missing; a second call does nothing."""
        self._ending.set()
        self._writer.join(JOIN_S)
        with self._lock:
            if self._closed:
                return
        self._append(self._deferred_lines())
        self._append(line_of(EndRecord(*self._clocks(), self._lines + 1)))
        with self._lock:
            self._closed = True
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _clocks(self, at: float | None = None) -> tuple[float, float]:
        now, wall = self._mono(), self._wall()
        return (now, wall) if at is None else (at, wall - (now - at))

    def _now(self, at: float | None = None) -> str:
        mono, wall = self._clocks(at)
        return f"{mono:.6f},{wall:.6f}"

    def _append(self, lines: str, required: bool = False) -> None:
        """Hands whole lines to the operating system; after a failure nothing more is ever written."""
        found: JournalError | None = None
        with self._lock:
            if self._failure is None:
                found = self._failure = self._write(lines.encode())
                if found is None:
                    self._lines += lines.count("\n")
            failure = self._failure
        if found is not None and self._on_failure is not None:
            self._on_failure(found)
        if failure is not None and required:
            raise JournalError(failure.what, failure.hint)

    def _write(self, data: bytes) -> JournalError | None:
        if self._closed:
            return JournalError(f"the journal {visible(str(self.path))} is closed")
        left = data
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            # Half a line would look like the end of a run that was killed.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._bytes)
            return _failed(self.path, error)
        self._bytes += len(data)
        return None

    # What may be written later.

    def _write_deferred(self) -> None:
        while not self._ending.wait(FLUSH_S):
            lines = self._deferred_lines()
            if lines:
                self._append(lines)

    def _deferred_lines(self) -> str:
        offset = self._wall() - self._mono()
        outcomes = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        answers = [self._answers.popleft() for _ in range(len(self._answers))]
        return "".join((*_outcome_lines(outcomes, offset), *_answer_lines(answers, offset)))


class JournalReading:
    """A journal that somebody left behind: its `setup`, and its records as often as they are asked for."""

    def __init__(self, path: Path, setup: RunSetup) -> None:
        self.path = path
        self.setup = setup

    def records(self) -> Iterator[Record]:
        """Every record, in the order of the file; what cannot be read comes as `DamageRecord`.

        The last one is `EndRecord`, or a `DamageRecord` that says that the tail is missing.
        """
        lines, mono, wall = 1, 0.0, 0.0
        fields_read = False
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                lines += 1
                record = _record(line, lines, mono, wall)
                mono, wall = record.at, record.wall
                fields_read = isinstance(record, EndRecord) or (isinstance(record, DamageRecord) and record.torn)
                if isinstance(record, EndRecord) and record.lines != lines:
                    yield DamageRecord(
                        mono, wall, f"lines are missing: {record.lines} were written and {lines} are there"
                    )
                yield record
        if not fields_read:
            yield DamageRecord(mono, wall, f"the journal ends in the middle of the run, at line {lines}", torn=True)


def read_journal(path: Path) -> JournalReading:
    """Opens a journal; `InvalidInputError` if the file is none, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.readline(_HEAD_BYTES)
        setup = setup_of(head)
    except OSError as error:
        raise InvalidInputError(f"{visible(str(path))} cannot be read: {error.strerror}") from error
    except ValueError as error:
        name = visible(str(path))
        if head.startswith(f'["{MAGIC}"'.encode()):
            raise InvalidInputError(
                f"{name} is a journal of another version of dmq, or ends in its first line"
            ) from error
        raise InvalidInputError(
            f"{name} is no journal of a proof run", "Give the file that `dmq proof run` named."
        ) from error
    return JournalReading(path, setup)


def _record(line: bytes, number: int, mono: float, wall: float) -> Record:
    try:
        return record_of(line)
    except ValueError:
        torn = not line.endswith(b"\n")
        return DamageRecord(mono, wall, f"line {number} {'is cut off' if torn else 'cannot be read'}", torn)


def _outcome_lines(outcomes: Sequence[_Outcome], offset: float) -> Iterator[str]:
    """Outcomes that are alike and came within a millisecond share a line."""
    begin = 0
    for end in range(1, len(outcomes) + 1):
        first = outcomes[begin]
        if end < len(outcomes) and end - begin < LONGEST_BATCH:
            at, outcome, _, sends, reason = outcomes[end]
            if at - first[0] < ALIKE_S and (outcome, sends, reason) == (first[1], first[3], first[4]):
                continue
        numbers = [fate[2] for fate in outcomes[begin:end]]
        at, outcome, _, sends, reason = first
        moment = f"{at:.6f},{at + offset:.6f}"
        yield f'["S",{moment},"{outcome.value}",{numbers},{sends},{text_json(reason)}]\n'
        begin = end


def _answer_lines(answers: Sequence[_Answers], offset: float) -> Iterator[str]:
    for at, consumer, epoch, numbers in answers:
        yield f'["K",{at:.6f},{at + offset:.6f},{consumer},{epoch},{list(numbers)}]\n'


def _failed(path: Path, error: OSError) -> JournalError:
    what = f"the journal {visible(str(path))} cannot be written: {error.strerror}"
    return JournalError(what, "Give it a disk with room, and run again.")
