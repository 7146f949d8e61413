"""Whether a node still reaches the queues that consumers wait for: pure decisions, given the time and the answers."""

from __future__ import annotations

from collections.abc import Sequence

from dmq_core.text import visible

ASK_EVERY_S = 2.0
ASK_AGAIN_S = 0.5
LOST_AFTER_S = 1.0
REPLY_LIMIT_S = 3.0
SUSPICION_S = 3.0
CALM_S = 10.0
LONGEST_CALM_S = 80.0


class PartitionDetector:
    """Finds out whether a node that answers its clients is cut off from its peers, as idle consumers cannot tell.

    Every two seconds one of the queues that are waited for is asked how many consumers it has. A queue that counted
    some before, and for a second counts none, has a leader that the node does not reach; so has one that once answered
    and now does not for three seconds. Streams count no consumers, ever. Somebody else's doubt about the node counts as
    well, for three seconds. A queue without a leader anywhere looks the same, so each flight in a row is followed by
    twice as long a rest, from 10 s up to 80 s, until a queue counts its consumers again.
    """

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._counted: set[str] = set()
        self._asked = ""
        self._asked_at = 0.0
        self._ask_at = 0.0
        self._turn = 0
        self._unreachable = ""
        self._unreachable_since = 0.0
        self._suspicion = ""
        self._suspicion_until = 0.0
        self._calm_s = CALM_S
        self._calm_until = 0.0

    def opened(self, now: float) -> None:
        """A node let us in at `now` (monotonic seconds); what was learnt of the one before says nothing of it."""
        self._asked = self._unreachable = self._suspicion = ""
        self._ask_at = now + ASK_EVERY_S

    def is_due(self, now: float) -> bool:
        """Whether a queue is to be asked at `now`."""
        return not self._asked and now >= self._ask_at

    def question(self, waited_for: Sequence[str], now: float) -> str:
        """The queue to ask, of those that are waited for; empty if none is."""
        if self._unreachable not in waited_for:
            self._unreachable = ""
        self._turn += 1
        queue = self._unreachable or (waited_for[self._turn % len(waited_for)] if waited_for else "")
        self._asked, self._asked_at = queue, now
        self._ask_at = now + (ASK_AGAIN_S if self._unreachable else ASK_EVERY_S)
        return queue

    def answered(self, queue: str, consumers: int, now: float) -> None:
        """A queue told how many consumers it has."""
        if queue != self._asked:
            return
        self._asked = ""
        self._answered.add(queue)
        if consumers:
            self._counted.add(queue)
            self._unreachable = ""
            self._calm_s = CALM_S
        elif queue in self._counted and not self._unreachable:
            self._unreachable, self._unreachable_since = queue, self._asked_at
            self._ask_at = self._asked_at + ASK_AGAIN_S

    def refused(self) -> None:
        """The question could not be answered: the queue is gone, or not to be asked about."""
        self._answered.discard(self._asked)
        self._counted.discard(self._asked)
        self._asked = self._unreachable = ""

    def suspect(self, why: str, now: float) -> None:
        """Somebody else left the node for good reason."""
        self._suspicion, self._suspicion_until = why, now + SUSPICION_S

    def why_leave(self, now: float) -> str:
        """Why the node should be left at `now` if nothing is under way there (empty: it should not)."""
        if now < self._calm_until:
            return ""
        if self._suspicion and now <= self._suspicion_until:
            return self._suspicion
        late = self._asked in self._answered and now - self._asked_at >= REPLY_LIMIT_S
        lost = bool(self._unreachable) and not self._asked and self._asked_at - self._unreachable_since >= LOST_AFTER_S
        return f"it no longer reaches the queue {visible(self._asked or self._unreachable)!r}" if late or lost else ""

    def left(self, now: float) -> None:
        """The node is left for what was found."""
        self._calm_until = now + self._calm_s
        self._calm_s = min(LONGEST_CALM_S, 2 * self._calm_s)
