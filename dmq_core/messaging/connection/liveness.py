"""Whether a node that says nothing is asked, waited for, or left: pure decisions, given the time."""

from __future__ import annotations

from enum import StrEnum

QUIET_S = 0.5
REPLY_LIMIT_S = 1.5
REPLY_LONGEST_S = 10.0
SETTLED_S = 10.0


class LivenessAction(StrEnum):
    """What a node's silence asks for."""

    WAIT = "wait"
    ASK = "ask"
    LEAVE = "leave"


class LivenessMonitor:
    """Watches a node that must answer when asked; one that is merely idle is never left.

    A node is asked once it has said nothing for 0.5 s and left if it then says nothing for 1.5 s. Each flight in a row
    waits twice as long, up to 10 s: a cluster without a majority throttles publishers, which looks like a freeze
    wherever we go, and not every two seconds' messages shall end as unknown.
    """

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._opened_at = 0.0
        self._patience_s = REPLY_LIMIT_S

    def opened(self, now: float) -> None:
        """A node let us in at `now` (monotonic seconds)."""
        self._opened_at = now
        self._asked_at = None

    def slept(self) -> None:
        """We ourselves did not listen for a while: what the node said meanwhile is still unread."""
        self._asked_at = None

    def judge(self, heard_at: float, now: float) -> LivenessAction:
        """What to do at `now` about a node that was last heard at `heard_at`; to be asked several times a second."""
        if now - heard_at < QUIET_S:
            self._asked_at = None
            if now - self._opened_at > SETTLED_S:
                self._patience_s = REPLY_LIMIT_S
            return LivenessAction.WAIT
        if self._asked_at is None:
            self._asked_at = now
            return LivenessAction.ASK
        if now - self._asked_at < self._patience_s:
            return LivenessAction.WAIT
        self._patience_s = min(REPLY_LONGEST_S, 2 * self._patience_s)
        return LivenessAction.LEAVE
