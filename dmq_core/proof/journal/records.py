"""What a journal of a proof run holds, as values, and each as one line of text; pure.

Every record has `at`, monotonic seconds, and `wall`, epoch seconds, both taken at one moment, to the microsecond.
Messages are numbered from 1 within their run; `message_id` and `number_of` turn numbers into ids and back. Records of
messages speak of many at once, whatever one call put down. `line_of` and `record_of` are each other's inverse; the
latter raises `ValueError` for anything that no writer wrote.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import Outcome
from dmq_core.messaging.topology.queue_arguments import STREAM
from dmq_core.proof.result import Workload
from dmq_core.proof.scenario import checked_workload

MAGIC: Final = "dmq-journal"
VERSION: Final = 1
MOST_NUMBER: Final = 100_000_000
LONGEST_TEXT: Final = 500
_CREDENTIALS = re.compile(r"//[^/@\s]*@")
_INT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class FaultStage(StrEnum):
    """How far a fault or its undoing is: ASKED for, BEGAN, HOLDS by the cluster's own evidence, or FAILED."""

    ASKED = "asked"
    BEGAN = "began"
    HOLDS = "holds"
    FAILED = "failed"


class ClientEvent(StrEnum):
    """What a client went through; LOST ends an epoch, CONNECTED begins the first, RECONNECTED every later one."""

    CONNECTED = "connected"
    LOST = "lost"
    RECONNECTED = "reconnected"


class RunPhase(StrEnum):
    """The stages of a run; DRAINED is the runner's belief, which depths prove; INTERRUPTED by its user or an error."""

    BEGAN = "load began"
    PUBLISHED = "publishing ended"
    DRAINED = "drained"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class RunSetup:
    """What a run set out to do, known before it begins: the first line of its journal.

    `run` is the prefix of its messages' ids, without `-`. `nodes` and `queues` are those whose depths must be known in
    the end, `keys` the routing keys that records name by position. `ordered`: order per publisher and key is promised.
    `every_queue`: each message is owed to every queue (a fanout), not to one of them. `fault` is `none` where nothing
    is to be broken. `cluster` is the name of a cluster that dmq made.
    """

    run: str
    backend: str = ""
    rabbitmq: str = ""
    fault: str = "none"
    target: str = ""
    nodes: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    workload: Workload = field(default_factory=Workload)
    seed: int = 0
    ordered: bool = False
    every_queue: bool = False
    cluster: str = ""

    @property
    def exchange(self) -> str:
        """Where its publishers publish: an exchange with the name of the first queue."""
        return self.queues[0]

    @property
    def reads_streams(self) -> bool:
        """Whether its queues are streams, which each consumer reads whole."""
        return self.workload.queue_type == STREAM

    @property
    def read_by(self) -> tuple[str, ...]:
        """The queue of each consumer."""
        return tuple(queue for queue in self.queues for _ in range(self.workload.consumers))

    @property
    def places(self) -> tuple[str, ...]:
        """Where every message has to come out, each by the name that `place_of` gives it."""
        if self.reads_streams:
            return tuple(self.place_of(queue, number) for number, queue in enumerate(self.read_by))
        return self.queues if self.every_queue else (self.place_of("", 0),)

    def place_of(self, queue: str, consumer: int) -> str:
        """Where a message comes out that `consumer` gets from `queue`."""
        if self.reads_streams:
            return f"{queue} by {consumer}"
        return queue if self.every_queue else ""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """`publisher` is about to send `numbers`; `keys` are the positions of their routing keys, one each.

    The same number again is a republish.
    """

    at: float
    wall: float
    publisher: int
    numbers: tuple[int, ...]
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """The publishes of `numbers` ended alike; `sends` counts how often each was put on the wire."""

    at: float
    wall: float
    outcome: Outcome
    numbers: tuple[int, ...]
    sends: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """`numbers` came to `consumer` from `queue`, before any handler saw them.

    `epoch` counts the consumer's channels. `keys` are positions of routing keys, -1 for a strange one. `redelivered`,
    `republished` and `retried` are positions in `numbers`: with the broker's flag, marked as sent again by their
    publisher, copies made by a retry.
    """

    at: float
    wall: float
    consumer: int
    epoch: int
    queue: str
    numbers: tuple[int, ...]
    keys: tuple[int, ...]
    redelivered: tuple[int, ...] = ()
    republished: tuple[int, ...] = ()
    retried: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignRecord:
    """Messages came whose ids are none of this run's."""

    at: float
    wall: float
    consumer: int
    epoch: int
    queue: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """Answers to deliveries went out on a channel that was alive."""

    at: float
    wall: float
    consumer: int
    epoch: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """A fault (`undo`: what ends it) came to a stage.

    `action` is the verb, `text` the cluster's evidence or the error.
    """

    at: float
    wall: float
    undo: bool
    stage: FaultStage
    action: str
    node: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client (`role` is publisher or consumer) was lost or came to `node`; `epoch` is the one that ended or began."""

    at: float
    wall: float
    role: str
    number: int
    event: ClientEvent
    node: str
    epoch: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    """`node` leads `queue` (empty: nobody does) since `term` (0: not known)."""

    at: float
    wall: float
    queue: str
    node: str
    term: int = 0


@dataclass(frozen=True, slots=True)
class CountersRecord:
    """A broker's own counters, asked for at `at` and told at most ten seconds later.

    `epoch` is any text that changes when the node starts anew, as its start time does.
    """

    at: float
    wall: float
    node: str
    epoch: str
    published: int
    confirmed: int
    delivered: int
    acknowledged: int


@dataclass(frozen=True, slots=True)
class DepthRecord:
    """What `node` says of `queue` when it is asked; None: no answer, or not known."""

    at: float
    wall: float
    node: str
    queue: str
    ready: int | None
    unacked: int | None


@dataclass(frozen=True, slots=True)
class HealthRecord:
    """Which nodes run, and what is wrong with the cluster, in whole sentences."""

    at: float
    wall: float
    running: tuple[str, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """The run came to a phase; `text` says why, where it was interrupted."""

    at: float
    wall: float
    phase: RunPhase
    text: str = ""


@dataclass(frozen=True, slots=True)
class EndRecord:
    """The journal was closed in good order after `lines` lines, this one included."""

    at: float
    wall: float
    lines: int


@dataclass(frozen=True, slots=True)
class DamageRecord:
    """No record: what the reader says in place of one that cannot be read; `torn`: the tail was cut, no more."""

    at: float
    wall: float
    why: str
    torn: bool = False


MessageRecord = AttemptRecord | OutcomeRecord | DeliveryRecord | ForeignRecord | AnswerRecord
Record = (
    MessageRecord
    | FaultRecord
    | ClientRecord
    | LeaderRecord
    | CountersRecord
    | DepthRecord
    | HealthRecord
    | PhaseRecord
    | EndRecord
    | DamageRecord
)
_LETTERS: Final[dict[str, type[Any]]] = {
    "A": AttemptRecord,
    "S": OutcomeRecord,
    "D": DeliveryRecord,
    "X": ForeignRecord,
    "K": AnswerRecord,
    "F": FaultRecord,
    "C": ClientRecord,
    "L": LeaderRecord,
    "B": CountersRecord,
    "Q": DepthRecord,
    "H": HealthRecord,
    "P": PhaseRecord,
    "E": EndRecord,
}
_LETTER_OF: Final = {kind: letter for letter, kind in _LETTERS.items()}


def message_id(run: str, number: int) -> str:
    """The id of a run's message."""
    return f"{run}-{number}"


def number_of(run: str, an_id: str | None) -> int | None:
    """The number in an id that `message_id` may have made; None for any other."""
    head, _, tail = (an_id or "").rpartition("-")
    number = int(tail) if head == run and _INT.fullmatch(tail) else 0
    return number if 0 < number <= MOST_NUMBER else None


def line_of(record: Record) -> str:
    """The record as one line, with its end."""
    values = [getattr(record, field.name) for field in fields(record)]
    safe = [_safe(value) for value in values]
    return json.dumps([_LETTER_OF[type(record)], *safe], separators=(",", ":")) + "\n"


def head_of(setup: RunSetup) -> str:
    """The first line of a journal."""
    return json.dumps([MAGIC, VERSION, asdict(setup)], separators=(",", ":")) + "\n"


@lru_cache(maxsize=4096)
def text_json(text: str) -> str:
    """`text` as JSON, cut to a bound and without credentials of addresses."""
    return json.dumps(_safe(text))


def record_of(line: bytes) -> Record:
    """The record that a line holds."""
    try:
        letter, *values = json.loads(line)
        kind = _LETTERS[letter]
        checks = _CHECKS[kind]
        if not len(_required(kind)) <= len(values) <= len(checks):
            raise ValueError("wrong number of fields")
        record: Record = kind(*(check(value) for check, value in zip(checks, values, strict=False)))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a record") from error
    if isinstance(record, AttemptRecord | DeliveryRecord) and len(record.keys) != len(record.numbers):
        raise ValueError("not a key each")
    if isinstance(record, DeliveryRecord):
        positions = (*record.redelivered, *record.republished, *record.retried)
        if positions and not 0 <= min(positions) <= max(positions) < len(record.numbers):
            raise ValueError("not a position of a number")
    return record


def setup_of(line: bytes) -> RunSetup:
    """The setting in the first line of a journal."""
    try:
        magic, version, fields_read = json.loads(line)
        if magic != MAGIC or version != VERSION:
            raise ValueError("another format")
        workload = checked_workload(Workload(**fields_read.pop("workload")), "workload")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields_read.items()}
        return RunSetup(**values, workload=workload)
    except (AttributeError, InvalidInputError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a setting") from error


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return _CREDENTIALS.sub("//…@", value[:LONGEST_TEXT])
    if isinstance(value, tuple):
        return [_safe(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    if not math.isfinite(value):
        raise ValueError("no moment")
    return float(value)


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def _int_or_none(value: Any) -> int | None:
    return None if value is None else _int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def _ints(value: Any, least: int, most: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(part) is int for part in value):
        raise TypeError("not whole numbers")
    if value and not (min(value) >= least and max(value) <= most):
        raise ValueError("out of range")
    return tuple(value)


def _numbers(value: Any) -> tuple[int, ...]:
    return _ints(value, 1, MOST_NUMBER)


def _positions(value: Any) -> tuple[int, ...]:
    return _ints(value, -1, MOST_NUMBER)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(part) for part in value)


_CHECK_OF: Final[dict[str, Callable[[Any], Any]]] = {
    "float": _number,
    "int": _int,
    "int | None": _int_or_none,
    "str": _text,
    "bool": _flag,
    "tuple[str, ...]": _texts,
    "tuple[int, ...]": _positions,
    "Outcome": Outcome,
    "FaultStage": FaultStage,
    "ClientEvent": ClientEvent,
    "RunPhase": RunPhase,
}


def _checks(kind: type[Any]) -> Sequence[Callable[[Any], Any]]:
    return tuple(_numbers if f.name == "numbers" else _CHECK_OF[str(f.type)] for f in fields(kind))


def _required(kind: type[Any]) -> Sequence[str]:
    return [f.name for f in fields(kind) if f.default is MISSING]


_CHECKS: Final = {kind: _checks(kind) for kind in _LETTERS.values()}
