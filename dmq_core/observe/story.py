"""The story of a cluster: one time line of what we did, what the broker did and what clients felt. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Event, Origin, Severity

LONGEST = 500
SAME_WITHIN_S = 2.0
ANSWERS_FAULT_S = 10.0
_FAULTS_KEPT = 100
_CAUSE_FIRST = (Origin.YOU, Origin.BROKER, Origin.CLIENT)
# What takes a node away: told without a fault just before it, it is the fault itself, whoever caused it.
_FALLS = frozenset({"node_down", "node_paused", "node_isolated"})
_MARKS = {
    Severity.FAULT: "✗",
    Severity.BAD: "!",
    Severity.NOTICE: "★",
    Severity.PLAIN: " ",
    Severity.GOOD: "✓",
}


@dataclass(frozen=True, slots=True)
class StoryLine:
    """An event with its distance in seconds from the last fault (None: there was none before it)."""

    event: Event
    since_fault_s: float | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """The last five hundred lines, oldest first, and the moments (epoch seconds) and subjects of the last faults."""

    lines: tuple[StoryLine, ...] = ()
    faults: tuple[tuple[float, str], ...] = ()

    def told(self, events: Iterable[Event]) -> Story:
        """The story with `events` in their places; what it has already heard is not told twice."""
        known = [line.event for line in self.lines]
        faults = list(self.faults)
        for event in sorted(events, key=lambda e: e.at):
            if any(_same(event, other) for other in known):
                continue
            known.append(event)
            if _begins_fault(event, faults):
                faults = sorted([*faults, (event.at, event.subject)])[-_FAULTS_KEPT:]
        if len(known) == len(self.lines):
            return self
        known.sort(key=_place)
        moments = [at for at, _subject in faults]
        return Story(tuple(StoryLine(e, _distance(e, moments)) for e in known[-LONGEST:]), tuple(faults))


def as_text(story: Story, title: str = "") -> str:
    """The story as plain text for an incident report: date, then time (UTC), distance, mark, whose doing, sentence."""
    rows = [title] if title else []
    day = ""
    for line in story.lines:
        moment = datetime.fromtimestamp(line.event.at, UTC)
        if (today := f"{moment:%Y-%m-%d} UTC") != day:
            rows.append(today)
            day = today
        distance = "" if line.since_fault_s is None else f"+{line.since_fault_s:.2f}"
        at = f"{moment:%H:%M:%S}.{moment.microsecond // 10_000:02}"
        rows.append(
            f"{at}  {distance:>8}  {_MARKS[line.event.severity]}  {line.event.origin:<6}  {event_text(line.event)}"
        )
    return "\n".join(rows) + "\n" if rows else ""


def _place(event: Event) -> tuple[float, int]:
    """At one moment cause comes before effect: what we did, then the broker, then its clients."""
    return event.at, _CAUSE_FIRST.index(event.origin)


def _same(event: Event, other: Event) -> bool:
    return abs(event.at - other.at) < SAME_WITHIN_S and replace(event, at=other.at) == other


def _begins_fault(event: Event, faults: list[tuple[float, str]]) -> bool:
    if event.severity is Severity.FAULT:
        return True
    if event.kind not in _FALLS:
        return False
    return not any(s == event.subject and -1.0 <= event.at - at <= ANSWERS_FAULT_S for at, s in faults)


def _distance(event: Event, moments: list[float]) -> float | None:
    last = max((at for at in moments if at <= event.at), default=None)
    return None if last is None else event.at - last
