"""What the clients of a load felt, in words: statuses and counts become events. Pure but for its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dmq_core.cluster.base import NodeEndpoint
from dmq_core.messaging.consuming.consumer import ConsumerStatus
from dmq_core.messaging.linking.states import LIVE_STATES, ConnectionState, ConnectionStatus
from dmq_core.observe.events import Event, Gravity, Origin
from dmq_core.text import visible

QUIET_S = 0.5
NOTABLE_GAP_S = 0.25
FORGOTTEN_S = 10.0


@dataclass(slots=True)
class _Burst:
    """Things of one kind that come in a rush and are told as one number once it is quiet."""

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


class _Pulse:
    """What gaps are usual, so that only unusual ones are told: the worst of the last ten seconds or so."""

    def __init__(self, notable_s: float) -> None:
        self._notable_s = notable_s
        self._usual_s = 0.0
        self._noted_at = 0.0

    def is_notable(self, gap_s: float, now: float, after_loss: bool) -> bool:
        usual = self._usual_s * 0.5 ** (max(0.0, now - self._noted_at) / FORGOTTEN_S)
        self._usual_s, self._noted_at = max(gap_s, usual), now
        return after_loss or (gap_s >= self._notable_s and gap_s >= 2 * usual)


class ClientStory:
    """Tells what a publisher and a consumer went through; `node_of` names endpoints. Times are epoch seconds.

    A gap is told if it follows the loss of a node, or is twice as long as has lately been usual and lasted a quarter
    second or five times the pause between two messages at `rate`.
    """

    def __init__(
        self, node_of: Callable[[NodeEndpoint], str], rate: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._node_of = node_of
        self._clock = clock
        notable_s = max(NOTABLE_GAP_S, 5.0 / rate)
        self._confirm_pulse, self._delivery_pulse = _Pulse(notable_s), _Pulse(notable_s)
        self._publisher_was_lost = self._consumer_was_lost = False
        self._publisher_node: str | None = None
        self._publisher_state = ConnectionState.NEW
        self._consumer_node: str | None = None
        self._consuming = False
        self._redelivered = _Burst()
        self._recovered = _Burst()
        self._unknown = _Burst()

    @property
    def publisher_node(self) -> str | None:
        """Where the publisher is; None: nowhere."""
        return self._publisher_node if self._publisher_state in LIVE_STATES else None

    @property
    def consumer_node(self) -> str | None:
        """Where the consumer receives; None: nowhere."""
        return self._consumer_node if self._consuming else None

    def publisher(self, status: ConnectionStatus) -> list[Event]:
        """What the publisher's new status means."""
        before, self._publisher_state = self._publisher_state, status.state
        old, new = before in LIVE_STATES, status.state in LIVE_STATES
        node = self._publisher_node or ""
        if new and not old and status.endpoint is not None:
            first = self._publisher_node is None
            self._publisher_node = node = self._node_of(status.endpoint)
            kind = "publisher_connected" if first else "publisher_resumed"
            text = f"publisher {'on' if first else 'now on'} {visible(node)}"
            return [self._event(Gravity.PLAIN if first else Gravity.GOOD, kind, node, text, status.at)]
        if old and not new and status.state not in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            self._publisher_was_lost = True
            text = f"publisher lost {visible(node)}: {visible(_after_colon(status.problem))}"
            return [self._event(Gravity.BAD, "publisher_lost", node, text, status.at)]
        if status.state is ConnectionState.BLOCKED:
            return [
                self._event(Gravity.BAD, "publisher_blocked", node, f"publisher: {visible(status.problem)}", status.at)
            ]
        if before is ConnectionState.BLOCKED and new:
            return [
                self._event(Gravity.GOOD, "publisher_released", node, "publisher released by the broker", status.at)
            ]
        return []

    def consumer(self, status: ConsumerStatus) -> list[Event]:
        """What the consumer's new status means."""
        was, self._consuming = self._consuming, status.consuming
        node = self._consumer_node or ""
        if status.consuming and not was and status.endpoint is not None:
            first = self._consumer_node is None
            self._consumer_node = node = self._node_of(status.endpoint)
            kind = "consumer_connected" if first else "consumer_resumed"
            text = f"consumer {'on' if first else 'now on'} {visible(node)}"
            return [self._event(Gravity.PLAIN if first else Gravity.GOOD, kind, node, text)]
        if was and not status.consuming:
            self._consumer_was_lost = True
            text = f"consumer lost {visible(node)}: {visible(status.problem)}"
            return [self._event(Gravity.BAD, "consumer_lost", node, text)]
        return []

    def confirmed(self, gap_s: float, longest: bool) -> list[Event]:
        """A confirm ended a gap, maybe the longest so far."""
        lost, self._publisher_was_lost = self._publisher_was_lost, False
        if not self._confirm_pulse.is_notable(gap_s, self._clock(), lost):
            return []
        return [self._event(Gravity.GOOD, "first_confirm", "", f"first confirm after {_gap(gap_s, longest)}")]

    def delivered(self, gap_s: float, longest: bool) -> list[Event]:
        """A delivery ended a gap, maybe the longest so far."""
        lost, self._consumer_was_lost = self._consumer_was_lost, False
        if not self._delivery_pulse.is_notable(gap_s, self._clock(), lost):
            return []
        return [self._event(Gravity.GOOD, "first_delivery", "", f"first delivery after {_gap(gap_s, longest)}")]

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
        """The rushes that are over, as one event each."""
        now = self._clock()
        events = []
        if self._unknown.is_over(now):
            burst, self._unknown = self._unknown, _Burst()
            text = f"{_messages(burst.number)} with unknown outcome"
            events.append(self._event(Gravity.NOTICE, "unknown", "", text, burst.first_at))
        if self._redelivered.is_over(now):
            burst, self._redelivered = self._redelivered, _Burst()
            text = f"{_messages(burst.number)} redelivered"
            events.append(self._event(Gravity.NOTICE, "redelivered", "", text, burst.first_at))
        if self._recovered.is_over(now):
            burst, self._recovered = self._recovered, _Burst()
            text = f"{_messages(burst.number)} with unknown outcome delivered after all"
            events.append(self._event(Gravity.GOOD, "unknown_resolved", "", text, burst.first_at))
        return events

    def _event(self, gravity: Gravity, kind: str, subject: str, text: str, at: float | None = None) -> Event:
        return Event(self._clock() if at is None else at, Origin.CLIENT, gravity, kind, subject, text)


def _gap(gap_s: float, longest: bool) -> str:
    return f"{gap_s:.2f} s" + (", the longest gap so far" if longest else "")


def _messages(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"


def _after_colon(problem: str) -> str:
    """The reason without the address in front of it, since the node is named already."""
    return problem.partition(": ")[2] or problem
