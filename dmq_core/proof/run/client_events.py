"""What the clients of a run noticed: statuses and counts become events. Pure but for its clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dmq_core.connection_manager import ConnectionEvent, Role
from dmq_core.messaging.connection.states import LIVE_STATES, ConnectionState, ConnectionStatus
from dmq_core.observe.events import ClientDetails, CountDetails, Details, Event, GapDetails, Origin, Severity

QUIET_S: Final = 0.5
NOTABLE_GAP_S: Final = 0.25
FORGOTTEN_S: Final = 10.0
_MOST_NOT_TAKEN: Final = 10_000


@dataclass(slots=True)
class _Burst:
    """Events of one kind that come in quick succession and are reported as one number once it is quiet."""

    number: int = 0
    first_at: float = 0.0
    last_at: float = 0.0

    def add(self, number: int, now: float) -> None:
        if not number:
            return
        if not self.number:
            self.first_at = now
        self.number += number
        self.last_at = now

    def is_over(self, now: float) -> bool:
        return bool(self.number) and now - self.last_at >= QUIET_S


class _UsualGap:
    """The usual gap, the longest of some ten seconds, so that only unusual ones are reported."""

    def __init__(self, notable_s: float) -> None:
        self._notable_s = notable_s
        self._usual_s = 0.0
        self._noted_at = 0.0

    def is_notable(self, gap_s: float, now: float, after_loss: bool) -> bool:
        usual = self._usual_s * 0.5 ** (max(0.0, now - self._noted_at) / FORGOTTEN_S)
        self._usual_s, self._noted_at = max(gap_s, usual), now
        return after_loss or (gap_s >= self._notable_s and gap_s >= 2 * usual)


@dataclass(slots=True)
class _RoleConnection:
    """The connection of one role, as far as it was followed."""

    role: str
    node: str | None = None
    state: ConnectionState = ConnectionState.NEW
    was_lost: bool = False


class ClientEventDetector:
    """Detects what happened to publishers and consumers. Times are epoch seconds.

    A gap is told if it follows the loss of a node, or is twice as long as has lately been usual and lasted a quarter
    second or five times the pause between two messages at `rate`.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        notable_s = max(NOTABLE_GAP_S, 5.0 / rate)
        self._usual_confirm_gap, self._usual_delivery_gap = _UsualGap(notable_s), _UsualGap(notable_s)
        self._clients = {Role.PUBLISHING: _RoleConnection("publisher"), Role.CONSUMING: _RoleConnection("consumer")}
        self._redelivered = _Burst()
        self._recovered = _Burst()
        self._unknown = _Burst()

    def node_of(self, role: Role) -> str | None:
        """Where the clients of that role are; None: nowhere."""
        client = self._clients[role]
        return client.node if client.state in LIVE_STATES else None

    def client(self, role: Role, node: str | None, status: ConnectionStatus) -> list[Event]:
        """What the new status of a role's connection means; `node` is our name for where it is (None: nowhere)."""
        client = self._clients[role]
        before, client.state = client.state, status.state
        old, new, name = before in LIVE_STATES, status.state in LIVE_STATES, client.role
        if new and not old and node is not None:
            first, client.node = client.node is None, node
            severity, kind = (Severity.PLAIN, "connected") if first else (Severity.GOOD, "resumed")
            return [self._event(severity, f"{name}_{kind}", node, ClientDetails(name, node), status.at)]
        at = client.node or ""
        if old and not new and status.state not in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            client.was_lost = True
            why = status.problem if status.reason is None else status.reason.text
            return [self._event(Severity.BAD, f"{name}_lost", at, ClientDetails(name, at, why), status.at)]
        if role is Role.PUBLISHING and status.state is ConnectionState.BLOCKED:
            details = ClientDetails(name, at, status.problem)
            return [self._event(Severity.BAD, f"{name}_blocked", at, details, status.at)]
        if role is Role.PUBLISHING and before is ConnectionState.BLOCKED and new:
            return [self._event(Severity.GOOD, f"{name}_released", at, ClientDetails(name, at), status.at)]
        return []

    def confirmed(self, gap_s: float, longest: bool) -> list[Event]:
        """A confirm ended a gap, maybe the longest so far."""
        lost = self._is_first_since_loss(Role.PUBLISHING)
        if not self._usual_confirm_gap.is_notable(gap_s, self._clock(), lost):
            return []
        return [self._event(Severity.GOOD, "first_confirm", "", GapDetails(gap_s, longest))]

    def delivered(self, gap_s: float, longest: bool) -> list[Event]:
        """A delivery ended a gap, maybe the longest so far."""
        lost = self._is_first_since_loss(Role.CONSUMING)
        if not self._usual_delivery_gap.is_notable(gap_s, self._clock(), lost):
            return []
        return [self._event(Severity.GOOD, "first_delivery", "", GapDetails(gap_s, longest))]

    def redelivered(self, number: int = 1) -> None:
        """Deliveries with the flag came."""
        self._redelivered.add(number, self._clock())

    def recovered(self, number: int = 1) -> None:
        """Messages with an unknown outcome were delivered."""
        self._recovered.add(number, self._clock())

    def unknown(self, number: int = 1) -> None:
        """Publishes ended with an unknown outcome."""
        self._unknown.add(number, self._clock())

    def due(self) -> list[Event]:
        """The bursts that are over, as one event each."""
        now = self._clock()
        events = []
        if self._unknown.is_over(now):
            burst, self._unknown = self._unknown, _Burst()
            events.append(self._event(Severity.NOTICE, "unknown", "", CountDetails(burst.number), burst.first_at))
        if self._redelivered.is_over(now):
            burst, self._redelivered = self._redelivered, _Burst()
            details = CountDetails(burst.number)
            events.append(self._event(Severity.NOTICE, "redelivered", "", details, burst.first_at))
        if self._recovered.is_over(now):
            burst, self._recovered = self._recovered, _Burst()
            details = CountDetails(burst.number)
            events.append(self._event(Severity.GOOD, "unknown_resolved", "", details, burst.first_at))
        return events

    def _is_first_since_loss(self, role: Role) -> bool:
        client = self._clients[role]
        was_lost, client.was_lost = client.was_lost, False
        return was_lost

    def _event(self, severity: Severity, kind: str, subject: str, details: Details, at: float | None = None) -> Event:
        return Event(self._clock() if at is None else at, Origin.CLIENT, severity, kind, subject, details)


class ClientEventLog:
    """What the clients of one run noticed; added from any thread, taken by a front end."""

    def __init__(self, rate: float) -> None:
        self._lock = threading.Lock()
        self._story = ClientEventDetector(rate)
        self._not_taken: deque[Event] = deque(maxlen=_MOST_NOT_TAKEN)

    def connection_changed(self, event: ConnectionEvent) -> None:
        """Hears a change of a client's connection."""
        node = None if event.broker is None else str(event.broker)
        with self._lock:
            self._not_taken.extend(self._story.client(event.role, node, event.status))

    def confirmed(self, gap_s: float, longest: bool) -> None:
        """A confirm ended a gap, maybe the longest so far."""
        with self._lock:
            self._not_taken.extend(self._story.confirmed(gap_s, longest))

    def delivered(self, gap_s: float, longest: bool, *, redelivered: bool, recovered: int) -> None:
        """A delivery ended a gap; `recovered` messages of unknown outcome came with it."""
        with self._lock:
            self._story.recovered(recovered)
            self._story.redelivered(int(redelivered))
            self._not_taken.extend(self._story.delivered(gap_s, longest))

    def unknown(self) -> None:
        """A publish ended with an unknown outcome."""
        with self._lock:
            self._story.unknown()

    def node_of(self, role: Role) -> str | None:
        """Where the clients of that role are; None: nowhere."""
        with self._lock:
            return self._story.node_of(role)

    def take(self) -> tuple[Event, ...]:
        """What has not been taken yet, in the order in which it was noticed."""
        with self._lock:
            self._not_taken.extend(self._story.due())
            events = tuple(self._not_taken)
            self._not_taken.clear()
        return events
