"""What became of every message of a run, by set algebra over its journal; pure, at about six bytes a message.

A message is what its number says, however often it was attempted: it is confirmed if any attempt was, of unknown
outcome if none was and any had no answer (or none yet, where the journal ends too early), and only else nacked,
returned or not sent, so that nothing is called a leak or a phantom which an attempt could have brought.

A second delivery without the broker's flag stands explained if the first one's channel ended with it unanswered, if it
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
_ATTEMPTED, _OPEN = 1, 2
_BIT: Final = {
    Outcome.CONFIRMED: 4,
    Outcome.UNKNOWN: 8,
    Outcome.NACKED: 16,
    Outcome.RETURNED: 32,
    Outcome.NOT_SENT: 64,
}
_CONFIRMED, _UNKNOWN = _BIT[Outcome.CONFIRMED], _BIT[Outcome.UNKNOWN]
_DELIVERED, _ANSWERED = 1, 2
_MOST_INDEX: Final = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class AccountedJournal:
    """The account, and what speaks against the journal that it was made from, as ids.

    `contradicting` have more outcomes than attempts, `unrecorded` were answered before any delivery was on record,
    `unsettled` counts messages that never got an outcome (they are among the unknown ones). Lists of ids, also those
    of the account, hold the first 100,000.
    """

    account: Account
    contradicting: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    unsettled: int = 0


class _Destination:
    """What has come out of one queue, or of all together where a message is owed to one of them only."""

    def __init__(self) -> None:
        self.marks = bytearray()
        self.epochs = array("H")
        self.newest: dict[int, int] = {}
        # Of what came more than once: the epochs of deliveries that are not answered, oldest first.
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
        """A later one; the epoch of an earlier delivery whose place it may take, since that one was not answered."""
        earlier = self._unanswered.get(number)
        if earlier is None:
            earlier = [] if self.marks[number] & _ANSWERED else [self.epochs[number]]
            self._unanswered[number] = earlier
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
    """Small numbers for things of which there are few; those beyond 65,535 share the last one."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}

    def of(self, thing: tuple[int, int]) -> int:
        return self._known.setdefault(thing, min(len(self._known), _MOST_INDEX))


class Accounting:
    """Takes the records of one journal in order and keeps the account; not thread-safe."""

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._seen = bytearray(1)
        self._order_keys = array("H", [0])
        self._order_key_of, self._epoch_of = _Indices(), _Indices()
        self._places = {place: _Destination() for place in setup.places}
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
        """Notes a record; those that are not about messages or consumers change nothing."""

    @add.register
    def _attempted(self, record: AttemptRecord) -> None:
        self._grow(max(record.numbers, default=0))
        seen, order_keys = self._seen, self._order_keys
        for number, key in zip(record.numbers, record.keys, strict=True):
            if seen[number]:
                self._open_again[number] += 1
                self._attempted_again[number] += 1
            else:
                seen[number] = _ATTEMPTED | _OPEN
                order_keys[number] = self._order_key_of.of((record.publisher, key))

    @add.register
    def _settled(self, record: OutcomeRecord) -> None:
        bit = _BIT[record.outcome]
        for number in record.numbers:
            if not self._was_attempted(number):
                _note(self._contradicting, number)
                continue
            if self._seen[number] & _OPEN:
                self._seen[number] &= ~_OPEN
            elif self._open_again[number] > 0:
                self._open_again[number] -= 1
            else:
                _note(self._contradicting, number)
                continue
            self._seen[number] |= bit
            if record.sends > 1:
                self._sent_again[number] += record.sends - 1

    @add.register
    def _delivered(self, record: DeliveryRecord) -> None:
        epoch = self._epoch_of.of((record.consumer, record.epoch))
        place = self._read_by[epoch] = self._place(record.queue, record.consumer)
        place.grow(len(self._seen))
        flagged, retried = frozenset(record.redelivered), frozenset(record.retried)
        self._redelivered += len(flagged)
        for position, number in enumerate(record.numbers):
            if not self._was_attempted(number):
                self._note_unexpected(message_id(self._setup.run, number))
            elif place.marks[number] & _DELIVERED:
                is_copy = position in retried and position not in flagged
                self._again(number, place.delivered_again(number, epoch, is_copy), position in flagged, is_copy)
            else:
                place.delivered(number, epoch)
                self._check_order(place, number, position in flagged or position in retried)

    @add.register
    def _foreign(self, record: ForeignRecord) -> None:
        for an_id in record.ids:
            self._note_unexpected(an_id)

    @add.register
    def _answered(self, record: AnswerRecord) -> None:
        epoch = self._epoch_of.of((record.consumer, record.epoch))
        place = self._read_by.get(epoch)
        for number in record.numbers:
            if not self._was_attempted(number):
                # Whether it was recorded is said by what is unexpected.
                continue
            if place is None or number >= len(place.marks) or not place.marks[number] & _DELIVERED:
                _note(self._unrecorded, number)
            else:
                place.answered(number, epoch)

    @add.register
    def _client(self, record: ClientRecord) -> None:
        if record.role == "consumer" and record.event is ClientEvent.LOST:
            self._ended.add(self._epoch_of.of((record.number, record.epoch)))

    def accounted(self) -> AccountedJournal:
        """The account as far as it goes."""
        states = self._states()
        for place in self._places.values():
            place.grow(len(states))
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
        return 0 < number < len(self._seen) and bool(self._seen[number])

    def _grow(self, number: int) -> None:
        """Room for messages up to `number`, and some more, so that it need not grow for each."""
        if number >= len(self._seen):
            missing = min(max(number + 1, len(self._seen) * 5 // 4), MOST_NUMBER + 1) - len(self._seen)
            self._seen.extend(bytes(missing))
            self._order_keys.frombytes(bytes(missing * self._order_keys.itemsize))

    def _place(self, queue: str, consumer: int) -> _Destination:
        return self._places.setdefault(self._setup.place_of(queue, consumer), _Destination())

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
            # The end of the earlier one's channel, or the outcome of a message sent again, may be told only later.
            self._undecided.append((number, replaced))

    def _check_order(self, place: _Destination, number: int, may_be_late: bool) -> None:
        order_key = self._order_keys[number]
        newest = place.newest.get(order_key, 0)
        if number > newest:
            place.newest[order_key] = number
        elif not may_be_late:
            self._late.append(number)

    # Accounting.

    def _states(self) -> bytes:
        """For each number the bit of its outcome; 0: never attempted."""
        table = bytes(_state(seen) for seen in range(256))
        states = bytearray(self._seen.translate(table))
        for number in +self._open_again:
            states[number] = _state(self._seen[number] | _OPEN)
        return bytes(states)

    def _delivered_anywhere(self) -> bytes:
        parts = [place.marks.translate(bytes(m & _DELIVERED for m in range(256))) for place in self._places.values()]
        if len(parts) == 1:
            return bytes(parts[0])
        return bytes(max(marks) for marks in zip(*parts, strict=True))

    def _lost(self, states: bytes) -> tuple[str, ...]:
        owed = [self._places[name] for name in self._setup.places] or list(self._places.values())
        lost: set[int] = set()
        for place in owed:
            pairs = enumerate(zip(states, place.marks, strict=True))
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
        # A producer sends again only what was on the wire of a lost channel; others may do so for no reason.
        unanswered = self._seen[number] & (_UNKNOWN | _OPEN) or self._open_again[number]
        return self._sent_again[number] + (self._attempted_again[number] if unanswered else 0)

    def _unsettled(self) -> int:
        first_attempts = self._seen.translate(bytes(seen & _OPEN for seen in range(256))).count(_OPEN)
        return first_attempts + sum(1 for number in +self._open_again if not self._seen[number] & _OPEN)

    def _ids(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(message_id(self._setup.run, number) for number in islice(numbers, KEPT_IDS))


def _state(seen: int) -> int:
    if not seen:
        return 0
    if seen & _OPEN and not seen & _CONFIRMED:
        return _UNKNOWN
    return next((bit for bit in _BIT.values() if seen & bit), _UNKNOWN)


def _note(numbers: dict[int, None], number: int) -> None:
    if len(numbers) < KEPT_IDS:
        numbers[number] = None
