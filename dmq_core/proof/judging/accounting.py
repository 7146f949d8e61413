"""What became of every message of a run, from its journal; pure, at about six bytes a message.

A message is identified by its number, however often it was attempted: it is confirmed if any attempt was, of unknown
outcome if none was and any had no answer (or none yet, where the journal ends too early), and only else nacked,
returned or not sent, so that no delivery is called a leak or a phantom that an attempt explains.

A second delivery without the redelivered flag is explained if the first one's channel ended with it unanswered, if it
is a copy that a retry made, or if the message was sent again after an unknown outcome, once for each time.

Order is that of first deliveries against attempts, per publisher and key; what was redelivered, sent again, retried or
is of unknown outcome may come late, since it did not travel on the channel that overtook it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import singledispatchmethod
from itertools import islice
from typing import Final

from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.records import (
    MOST_NUMBER,
    AnswerRecord,
    AttemptRecord,
    ClientEvent,
    ClientRecord,
    DeliveryRecord,
    ForeignRecord,
    OutcomeRecord,
    Record,
    RunSetup,
    message_id,
)
from dmq_core.proof.result import Account, Duplicates

KEPT_IDS: Final = 100_000
# A byte of flags for each message: the outcomes that its attempts had, whether it was attempted, and whether the first
# attempt still waits for its outcome.
_ATTEMPTED, _OPEN = 1, 2
_BIT: Final = {
    Outcome.CONFIRMED: 4,
    Outcome.UNKNOWN: 8,
    Outcome.NACKED: 16,
    Outcome.RETURNED: 32,
    Outcome.NOT_SENT: 64,
}
_CONFIRMED, _UNKNOWN = _BIT[Outcome.CONFIRMED], _BIT[Outcome.UNKNOWN]
# A byte of flags for each message and destination.
_DELIVERED, _ANSWERED = 1, 2
_MOST_INDEX: Final = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class AccountedJournal:
    """The account, and the ids that show that its journal is not complete or not consistent.

    `contradicting` have more outcomes than attempts, `unrecorded` were answered before any delivery was on record,
    `unsettled` counts messages that never got an outcome (they are among the unknown ones). Lists of ids, also those
    of the account, hold the first 100,000.
    """

    account: Account
    contradicting: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    unsettled: int = 0


class _Destination:
    """What was delivered from one queue, or from all together where each message goes to only one of them."""

    def __init__(self) -> None:
        self.marks = bytearray()
        self.epochs = array("H")
        self.newest: dict[int, int] = {}
        # Few messages are delivered more than once; only for those are the epochs of all open deliveries kept.
        self._unanswered: dict[int, list[int]] = {}

    def grow(self, size: int) -> None:
        missing = size - len(self.marks)
        if missing > 0:
            self.marks.extend(bytes(missing))
            self.epochs.frombytes(bytes(missing * self.epochs.itemsize))

    def delivered(self, number: int, epoch: int) -> None:
        """The first delivery of a message."""
        self.marks[number] = _DELIVERED
        self.epochs[number] = epoch

    def delivered_again(self, number: int, epoch: int, is_copy: bool) -> int | None:
        """A later delivery; the epoch of an earlier, unanswered one that it may replace, if that channel ended."""
        earlier = self._unanswered.get(number)
        if earlier is None:
            earlier = [] if self.marks[number] & _ANSWERED else [self.epochs[number]]
            self._unanswered[number] = earlier
        # Within one channel a broker never delivers a message twice: such a delivery replaces none and needs a reason.
        replaced = None if is_copy else next((e for e in earlier if e != epoch), None)
        if replaced is not None:
            earlier.remove(replaced)
        earlier.append(epoch)
        return replaced

    def answered(self, number: int, epoch: int) -> None:
        """A delivery of that epoch was answered."""
        several = self._unanswered.get(number)
        if several is None:
            self.marks[number] |= _ANSWERED if self.epochs[number] == epoch else 0
        elif epoch in several:
            several.remove(epoch)


class _Indices:
    """Numbers in two bytes for pairs of which there are few; those beyond 65,535 share the last number."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}

    def of(self, thing: tuple[int, int]) -> int:
        return self._known.setdefault(thing, min(len(self._known), _MOST_INDEX))


class Accounting:
    """Takes the records of one journal in order and keeps the account; not thread-safe."""

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._flags = bytearray(1)
        self._order_keys = array("H", [0])
        self._order_key_of, self._epoch_of = _Indices(), _Indices()
        self._destinations = {destination: _Destination() for destination in setup.places}
        self._read_by: dict[int, _Destination] = {}
        self._ended: set[int] = set()
        self._open_again: Counter[int] = Counter()
        self._attempted_again: Counter[int] = Counter()
        self._sent_again: Counter[int] = Counter()
        self._late = array("L")
        self._undecided: list[tuple[int, int | None]] = []
        self._redelivered = 0
        self._explained: Counter[str] = Counter()
        self._unexpected: dict[str, None] = {}
        self._contradicting: dict[int, None] = {}
        self._unrecorded: dict[int, None] = {}

    @singledispatchmethod
    def add(self, record: Record) -> None:
        """Adds a record; those that are not about messages or consumers change nothing."""

    @add.register
    def _attempted(self, record: AttemptRecord) -> None:
        self._grow(max(record.numbers, default=0))
        flags, order_keys = self._flags, self._order_keys
        for number, key in zip(record.numbers, record.keys, strict=True):
            if flags[number]:
                self._open_again[number] += 1
                self._attempted_again[number] += 1
            else:
                flags[number] = _ATTEMPTED | _OPEN
                order_keys[number] = self._order_key_of.of((record.publisher, key))

    @add.register
    def _settled(self, record: OutcomeRecord) -> None:
        bit = _BIT[record.outcome]
        for number in record.numbers:
            if not self._was_attempted(number):
                _note(self._contradicting, number)
                continue
            if self._flags[number] & _OPEN:
                self._flags[number] &= ~_OPEN
            elif self._open_again[number] > 0:
                self._open_again[number] -= 1
            else:
                _note(self._contradicting, number)
                continue
            self._flags[number] |= bit
            if record.sends > 1:
                self._sent_again[number] += record.sends - 1

    @add.register
    def _delivered(self, record: DeliveryRecord) -> None:
        epoch = self._epoch_of.of((record.consumer, record.epoch))
        destination = self._read_by[epoch] = self._destination(record.queue, record.consumer)
        destination.grow(len(self._flags))
        flagged, retried = frozenset(record.redelivered), frozenset(record.retried)
        self._redelivered += len(flagged)
        for position, number in enumerate(record.numbers):
            if not self._was_attempted(number):
                self._note_unexpected(message_id(self._setup.run, number))
            elif destination.marks[number] & _DELIVERED:
                is_copy = position in retried and position not in flagged
                self._again(number, destination.delivered_again(number, epoch, is_copy), position in flagged, is_copy)
            else:
                destination.delivered(number, epoch)
                self._check_order(destination, number, position in flagged or position in retried)

    @add.register
    def _foreign(self, record: ForeignRecord) -> None:
        for an_id in record.ids:
            self._note_unexpected(an_id)

    @add.register
    def _answered(self, record: AnswerRecord) -> None:
        epoch = self._epoch_of.of((record.consumer, record.epoch))
        destination = self._read_by.get(epoch)
        for number in record.numbers:
            if not self._was_attempted(number):
                # What nobody attempted is among the unexpected ones.
                continue
            if destination is None or number >= len(destination.marks) or not destination.marks[number] & _DELIVERED:
                _note(self._unrecorded, number)
            else:
                destination.answered(number, epoch)

    @add.register
    def _client(self, record: ClientRecord) -> None:
        if record.role == "consumer" and record.event is ClientEvent.LOST:
            self._ended.add(self._epoch_of.of((record.number, record.epoch)))

    def accounted(self) -> AccountedJournal:
        """The account as far as it goes."""
        states = self._states()
        for destination in self._destinations.values():
            destination.grow(len(states))
        delivered = self._delivered_anywhere()
        counts = {outcome: states.count(bit) for outcome, bit in _BIT.items()}
        account = Account(
            attempted=sum(counts.values()),
            **{outcome.value: count for outcome, count in counts.items()},
            delivered=delivered.count(1),
            redelivered=self._redelivered,
            recovered=sum(1 for s, d in zip(states, delivered, strict=True) if d and s == _UNKNOWN),
            duplicates=self._duplicates(),
            lost=self._lost(states),
            unexpected=tuple(self._unexpected),
            leak=self._delivered_though(Outcome.RETURNED, states, delivered),
            phantom=self._delivered_though(Outcome.NOT_SENT, states, delivered),
            order_violations=sum(1 for n in self._late if states[n] != _UNKNOWN and not self._resends(n)),
        )
        return AccountedJournal(account, self._ids(self._contradicting), self._ids(self._unrecorded), self._unsettled())

    # Taking.

    def _was_attempted(self, number: int) -> bool:
        return 0 < number < len(self._flags) and bool(self._flags[number])

    def _grow(self, number: int) -> None:
        """Room for messages up to `number`, and some more, so that it need not grow for each."""
        if number >= len(self._flags):
            missing = min(max(number + 1, len(self._flags) * 5 // 4), MOST_NUMBER + 1) - len(self._flags)
            self._flags.extend(bytes(missing))
            self._order_keys.frombytes(bytes(missing * self._order_keys.itemsize))

    def _destination(self, queue: str, consumer: int) -> _Destination:
        return self._destinations.setdefault(self._setup.place_of(queue, consumer), _Destination())

    def _note_unexpected(self, an_id: str) -> None:
        if len(self._unexpected) < KEPT_IDS:
            self._unexpected[an_id] = None

    def _again(self, number: int, replaced: int | None, flagged: bool, is_copy: bool) -> None:
        if flagged:
            self._explained["redelivery"] += 1
        elif is_copy:
            self._explained["retry_handoff"] += 1
        elif len(self._undecided) == KEPT_IDS:
            self._explained["unexplained"] += 1
        else:
            # The end of the earlier channel, or the outcome of a republished message, may be recorded only later.
            self._undecided.append((number, replaced))

    def _check_order(self, destination: _Destination, number: int, may_be_late: bool) -> None:
        order_key = self._order_keys[number]
        newest = destination.newest.get(order_key, 0)
        if number > newest:
            destination.newest[order_key] = number
        elif not may_be_late:
            self._late.append(number)

    # Accounting.

    def _states(self) -> bytes:
        """For each number the bit of its outcome; 0: never attempted."""
        table = bytes(_state(flags) for flags in range(256))
        states = bytearray(self._flags.translate(table))
        for number in +self._open_again:
            states[number] = _state(self._flags[number] | _OPEN)
        return bytes(states)

    def _delivered_anywhere(self) -> bytes:
        parts = [
            destination.marks.translate(bytes(m & _DELIVERED for m in range(256)))
            for destination in self._destinations.values()
        ]
        if len(parts) == 1:
            return bytes(parts[0])
        return bytes(max(marks) for marks in zip(*parts, strict=True))

    def _lost(self, states: bytes) -> tuple[str, ...]:
        owed = [self._destinations[name] for name in self._setup.places] or list(self._destinations.values())
        lost: set[int] = set()
        for destination in owed:
            pairs = enumerate(zip(states, destination.marks, strict=True))
            lost.update(n for n, (state, mark) in pairs if state == _CONFIRMED and not mark & _DELIVERED)
        return self._ids(sorted(lost))

    def _delivered_though(self, outcome: Outcome, states: bytes, delivered: bytes) -> tuple[str, ...]:
        bit = _BIT[outcome]
        return self._ids(n for n, (s, d) in enumerate(zip(states, delivered, strict=True)) if d and s == bit)

    def _duplicates(self) -> Duplicates:
        explained = Counter(self._explained)
        used: Counter[int] = Counter()
        for number, epoch in self._undecided:
            if epoch is not None and epoch in self._ended:
                explained["redelivery"] += 1
            elif used[number] < self._resends(number):
                used[number] += 1
                explained["republish"] += 1
            else:
                explained["unexplained"] += 1
        return Duplicates(**explained)

    def _resends(self, number: int) -> int:
        """How often a message was sent again since an earlier send had no answer."""
        # A producer republishes only what was unanswered on a lost channel; other clients may do so for no reason.
        unanswered = self._flags[number] & (_UNKNOWN | _OPEN) or self._open_again[number]
        return self._sent_again[number] + (self._attempted_again[number] if unanswered else 0)

    def _unsettled(self) -> int:
        first_attempts = self._flags.translate(bytes(flags & _OPEN for flags in range(256))).count(_OPEN)
        return first_attempts + sum(1 for number in +self._open_again if not self._flags[number] & _OPEN)

    def _ids(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(message_id(self._setup.run, number) for number in islice(numbers, KEPT_IDS))


def _state(flags: int) -> int:
    if not flags:
        return 0
    if flags & _OPEN and not flags & _CONFIRMED:
        return _UNKNOWN
    return next((bit for bit in _BIT.values() if flags & bit), _UNKNOWN)


def _note(numbers: dict[int, None], number: int) -> None:
    if len(numbers) < KEPT_IDS:
        numbers[number] = None
