"""What happened, in words and as data: the entries of the story."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
class Event:
    """One thing that happened at `at` (epoch seconds).

    `kind` is a stable word for programs (`node_down`, `leader_moved`, `first_confirm`), `subject` what it happened to
    (a node's or queue's name, raw text from outside), `text` the sentence for people, already safe to show.
    """

    at: float
    origin: Origin
    severity: Severity
    kind: str
    subject: str
    text: str
