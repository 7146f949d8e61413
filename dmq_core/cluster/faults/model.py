"""Faults of a whole cluster, as values: what there is, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What can be done to a cluster that dmq made, beside the actions on its nodes; the words are fixed for scripts."""

    MEMORY_ALARM = "memory-alarm"
    CLEAR_MEMORY_ALARM = "clear-memory-alarm"
    DISK_ALARM = "disk-alarm"
    CLEAR_DISK_ALARM = "clear-disk-alarm"
    CUT_LINK = "cut-link"
    SLOW_LINK = "slow-link"
    MEND_LINK = "mend-link"
    MOVE_LEADER = "move-leader"
    REBALANCE = "rebalance"
    ROLLING_RESTART = "rolling-restart"
    CLOSE_CONNECTIONS = "close-connections"

    @property
    def limit_s(self) -> float:
        """The seconds (a node, for a rolling restart) in which it is done."""
        return _LIMITS_S.get(self, 20.0)


_LIMITS_S = {
    FaultKind.REBALANCE: 60.0,
    FaultKind.ROLLING_RESTART: 180.0,
    FaultKind.CUT_LINK: 30.0,
    FaultKind.SLOW_LINK: 60.0,
    FaultKind.MEND_LINK: 90.0,
}
DELAY_MS = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: `node` (ours, `rmq2`) is where an alarm is or a leader goes; `queue` of `virtual_host` is moved.

    Of a link, `node` and `peer` are the ends; None is every peer. A slow one holds what arrives for up to `delay_ms`
    at each end. What it is called, what it needs and what undoes it is in `dmq_core.actions.catalog`.
    """

    kind: FaultKind
    node: str | None = None
    queue: str | None = None
    virtual_host: str = "/"
    peer: str | None = None
    delay_ms: int = DELAY_MS
