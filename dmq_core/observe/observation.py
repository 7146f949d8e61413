"""A snapshot and what happened since the one before."""

from __future__ import annotations

from dataclasses import dataclass

from dmq_core.observe.events import Event
from dmq_core.observe.snapshot import ClusterSnapshot


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A snapshot and the events since the one before, in time order."""

    snapshot: ClusterSnapshot
    events: tuple[Event, ...] = ()
