"""What happened, as data: the entries of the story. `dmq_core.observe.event_text` has the words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from dmq_core.cluster.protocol import NodeState
from dmq_core.management.models import EntityKey


class Origin(StrEnum):
    """Whose doing an event is."""

    YOU = "you"
    BROKER = "broker"
    CLIENT = "client"


class Severity(StrEnum):
    """How much an event matters: a fault begins, something is bad, worth a look, plain, or good again."""

    FAULT = "fault"
    BAD = "bad"
    NOTICE = "notice"
    PLAIN = "plain"
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class NodeDetails:
    """A node came, went, or is now in `state`; `resumed` if it was paused before."""

    node: str
    state: NodeState | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class LeaderDetails:
    """The leader of `queue` was `previous` and is `leader` (None: there is none); `term` is 0 where nobody told it."""

    queue: EntityKey
    previous: str | None
    leader: str | None
    term: int = 0


@dataclass(frozen=True, slots=True)
class QueueDetails:
    """A queue appeared, of which type and with which leader, or is gone."""

    queue: EntityKey
    type: str = ""
    leader: str | None = None


@dataclass(frozen=True, slots=True)
class ConsumerDetails:
    """So many consumers joined `queue` or left it; it has `total` now."""

    queue: EntityKey
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class MemberDetails:
    """The members on `node` of `queues` went offline or came back; of the first one, `online` of `total` are online."""

    node: str
    queues: tuple[EntityKey, ...]
    online: int
    total: int


@dataclass(frozen=True, slots=True)
class AlarmDetails:
    """A memory or disk alarm of `node` was raised or cleared."""

    node: str
    resource: str


@dataclass(frozen=True, slots=True)
class ManagementDetails:
    """Figures come from `node` now, before from `previous`, or from nobody because of `problem`."""

    node: str | None = None
    previous: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ActionDetails:
    """What we did: `done` names it (`rmq2 killed`); one that is over took `took_s` seconds, or failed with `error`."""

    node: str
    done: str
    took_s: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ClientDetails:
    """The connection of a `publisher` or `consumer` came to `node`, was lost there or is blocked, and why."""

    role: str
    node: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GapDetails:
    """A confirm or a delivery ended a gap, maybe the longest so far."""

    seconds: float
    is_longest: bool = False


@dataclass(frozen=True, slots=True)
class CountDetails:
    """So many messages, or so many more events of the kind than are told one by one."""

    number: int


@dataclass(frozen=True, slots=True)
class LoadDetails:
    """How a load ended, in a line, and where its report is."""

    headline: str
    report: str = ""


Details: TypeAlias = (
    NodeDetails
    | LeaderDetails
    | QueueDetails
    | ConsumerDetails
    | MemberDetails
    | AlarmDetails
    | ManagementDetails
    | ActionDetails
    | ClientDetails
    | GapDetails
    | CountDetails
    | LoadDetails
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened at `at` (epoch seconds).

    `kind` is a stable word for programs (`node_down`, `leader_moved`, `first_confirm`), `subject` what it happened to
    (a node's or queue's name). Names and reasons, here and in `details`, are raw text from outside.
    """

    at: float
    origin: Origin
    severity: Severity
    kind: str
    subject: str
    details: Details | None = None
