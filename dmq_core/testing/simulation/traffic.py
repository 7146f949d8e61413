"""The traffic of a simulated run: a publisher and a consumer that lose their node and come back, message by message.

Who carries the messages is made up; what they go through is not accounted for here. It is put down as the records of a
journal, for the real judge, counted by the real `LiveAccount`, and told as events by the real `ClientEventDetector`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from dmq_core.cluster.protocol import NodeState
from dmq_core.connection_manager import Role
from dmq_core.messaging.connection.states import ConnectionState, ConnectionStatus
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage
from dmq_core.observe.events import Event
from dmq_core.proof.gauges import GapMeter
from dmq_core.proof.journal.records import (
    AnswerRecord,
    AttemptRecord,
    ClientEvent,
    ClientRecord,
    DeliveryRecord,
    OutcomeRecord,
    Record,
)
from dmq_core.proof.run.client_events import ClientEventDetector
from dmq_core.proof.run.live_account import LiveAccount
from dmq_core.proof.run.workload import TrafficProgress
from dmq_core.testing.simulation.broker import ROUNDING_S, SimBroker, SimMessage

LOAD_QUEUE: Final = "dmq.load"
RECONNECT_S: Final = 0.25
SILENCE_S: Final = 2.0
PREFETCH: Final = 200
WINDOW: Final = 1000
HANDLING_S: Final = 0.1
_MESSAGE: Final = OutgoingMessage("", LOAD_QUEUE, b"load", MessageProperties(app_id="dmq-load"))
_NAMES: Final = {Role.PUBLISHING: "publisher", Role.CONSUMING: "consumer"}


class SimConnection:
    """A client's connection, which knows where it is: it leaves a dead node at once and a silent one after 2 s.

    `heard` is told of each change: where it is or was, and what its status is now.
    """

    def __init__(
        self,
        role: Role,
        broker: SimBroker,
        choose: Callable[[tuple[str, ...]], str],
        heard: Callable[[Role, str, ConnectionStatus], None],
    ) -> None:
        self.role = role
        self.at: str | None = None
        self.epoch = 0
        self._broker = broker
        self._choose = choose
        self._heard = heard
        self._back_at = broker.now
        self._silent_since: float | None = None

    @property
    def answered(self) -> bool:
        """Whether it is connected to a node that answers."""
        return self.at is not None and self._broker.nodes[self.at].serves

    def step(self, now: float) -> bool:
        """Moves on to `now`; True when it has just lost its node."""
        if self.at is None:
            if now >= self._back_at:
                self._connect(now)
            return False
        node = self._broker.nodes.get(self.at)
        if node is not None and node.serves:
            self._silent_since = None
            return False
        if node is not None and node.state in (NodeState.PAUSED, NodeState.ISOLATED):
            self._silent_since = self._silent_since or now
            if now - self._silent_since < SILENCE_S:
                return False
        self._lose(now, "it does not answer" if self._silent_since else "connection closed by the node")
        return True

    def _connect(self, now: float) -> None:
        serving = tuple(node.name for node in self._broker.serving())
        if serving:
            self.at = self._choose(serving)
            self.epoch += 1
            self._heard(self.role, self.at, ConnectionStatus(ConnectionState.OPEN, now, epoch=self.epoch))

    def _lose(self, now: float, problem: str) -> None:
        lost, self.at, self._silent_since = self.at or "", None, None
        self._back_at = now + RECONNECT_S
        self._heard(self.role, lost, ConnectionStatus(ConnectionState.RECOVERING, now, None, self.epoch, problem))


class SimTraffic:
    """A steady load inside the simulation, into `records`; `tell` hears of what its clients went through."""

    def __init__(self, broker: SimBroker, rate: float, records: list[Record], tell: Callable[[Event], None]) -> None:
        self._broker = broker
        self._rate = rate
        self._records = records
        self._tell = tell
        self._publishing = True
        self._ended = False
        self._due = 0.0
        self._account = LiveAccount()
        self._confirm_gap, self._delivery_gap = GapMeter(), GapMeter()
        self._client_events = ClientEventDetector(rate, lambda: broker.now)
        self._outstanding: deque[tuple[float, int]] = deque()
        self._unacked: deque[tuple[float, SimMessage]] = deque()
        home = next((node.name for node in broker.serving()), None)
        self._queue = broker.declare_queue(LOAD_QUEUE, leader=home)
        self._publisher = SimConnection(Role.PUBLISHING, broker, self._away_from_consumer, self._changed)
        self._consumer = SimConnection(Role.CONSUMING, broker, self._at_the_leader, self._changed)

    @property
    def leader(self) -> str | None:
        """The node that leads its queue."""
        return self._queue.leader

    @property
    def depth(self) -> int:
        """The messages in its queue."""
        return len(self._queue.messages)

    @property
    def undelivered(self) -> int:
        """Messages that have been confirmed and not delivered, or are on their way."""
        return self._account.undelivered

    def node_of(self, role: Role) -> str | None:
        """Where the client of that role is; None: nowhere."""
        return (self._publisher if role is Role.PUBLISHING else self._consumer).at

    def progress(self) -> TrafficProgress:
        """How it does."""
        gaps = (self._confirm_gap.longest_so_far(self._broker.now), self._delivery_gap.longest_so_far(self._broker.now))
        return TrafficProgress(self._account.counts(), *gaps)

    def stop_publishing(self) -> None:
        """Publishes no more."""
        self._publishing = False

    def end(self) -> None:
        """Ends it: messages that are out end as unknown, what the consumer holds is answered."""
        if self._ended:
            return
        self._publishing, self._ended = False, True
        self._abandon_outstanding()
        self._answer(self._broker.now + HANDLING_S)
        self._queue.consumers = 0
        self._publisher.at = self._consumer.at = None

    def step(self, now: float, elapsed_s: float) -> None:
        """Moves on to `now`."""
        if self._ended:
            return
        if self._publisher.step(now):
            self._abandon_outstanding()
        if self._consumer.step(now):
            self._give_back()
        available = self._broker.available(self._queue)
        self._publish(now, elapsed_s)
        if available and not self._broker.alarms and self._publisher.answered:
            self._confirm(now)
        self._queue.consumers = 1 if self._consumer.answered else 0
        if available and self._consumer.answered:
            self._answer(now)
            self._deliver(now)
        for event in self._client_events.due():
            self._tell(event)

    def _at_the_leader(self, serving: tuple[str, ...]) -> str:
        return self._queue.leader if self._queue.leader in serving else serving[-1]

    def _away_from_consumer(self, serving: tuple[str, ...]) -> str:
        others = [name for name in serving if name not in (self._consumer.at, self._queue.leader)]
        return (others or list(serving))[0]

    def _changed(self, role: Role, node: str, status: ConnectionStatus) -> None:
        """A client came to a node or lost it."""
        if status.state is ConnectionState.RECOVERING:
            step = ClientEvent.LOST
        else:
            step = ClientEvent.CONNECTED if status.epoch == 1 else ClientEvent.RECONNECTED
        at = status.at
        self._records.append(ClientRecord(at, at, _NAMES[role], 0, step, node, status.epoch, status.problem))
        for event in self._client_events.client(role, node, status):
            self._tell(event)

    def _publish(self, now: float, elapsed_s: float) -> None:
        if not self._publishing or self._publisher.at is None:
            return
        self._due = min(self._due + self._rate * elapsed_s, self._rate)
        count = min(int(self._due + ROUNDING_S), WINDOW - len(self._outstanding))
        if count <= 0:
            return
        self._due -= count
        numbers = tuple(self._account.attempt() for _ in range(count))
        self._confirm_gap.expect(now)
        self._delivery_gap.expect(now)
        self._records.append(AttemptRecord(now, now, 0, numbers, (0,) * count))
        self._outstanding.extend((now, number) for number in numbers)

    def _confirm(self, now: float) -> None:
        numbers = []
        while self._outstanding and self._outstanding[0][0] < now - ROUNDING_S:
            numbers.append(self._outstanding.popleft()[1])
        if not numbers:
            return
        for number in numbers:
            if self._broker.lose_confirmed > 0:
                self._broker.lose_confirmed -= 1
            else:
                self._queue.messages.append(SimMessage(_MESSAGE, number))
        self._settle(now, Outcome.CONFIRMED, numbers)
        self._queue.published += len(numbers)
        longest_s = self._confirm_gap.longest_s
        gap_s = self._confirm_gap.arrived(now, more=self._account.outstanding > 0)
        for event in self._client_events.confirmed(gap_s, gap_s > longest_s):
            self._tell(event)

    def _settle(self, now: float, outcome: Outcome, numbers: list[int]) -> None:
        self._records.append(OutcomeRecord(now, now, outcome, tuple(numbers)))
        for number in numbers:
            self._account.settled(number, outcome)

    def _deliver(self, now: float) -> None:
        came: list[SimMessage] = []
        while self._queue.messages and len(self._unacked) < PREFETCH:
            stored = self._queue.messages.popleft()
            self._unacked.append((now, stored))
            came.append(stored)
        self._queue.unacked = len(self._unacked)
        self._queue.delivered += len(came)
        self._queue.redelivered += sum(stored.redelivered for stored in came)
        if own := [stored for stored in came if stored.number]:
            self._count(now, own)

    def _count(self, now: float, came: list[SimMessage]) -> None:
        numbers, flagged = tuple(m.number for m in came), tuple(i for i, m in enumerate(came) if m.redelivered)
        keys = (0,) * len(came)
        self._records.append(
            DeliveryRecord(now, now, 0, self._consumer.epoch, LOAD_QUEUE, numbers, keys, redelivered=flagged)
        )
        recovered, longest_s = self._account.recovered, self._delivery_gap.longest_s
        for message in came:
            self._account.delivered(message.number, message.redelivered, now)
        gap_s = self._delivery_gap.arrived(now, more=self._account.undelivered > 0)
        self._client_events.recovered(self._account.recovered - recovered)
        self._client_events.redelivered(len(flagged))
        for event in self._client_events.delivered(gap_s, gap_s > longest_s):
            self._tell(event)

    def _answer(self, now: float) -> None:
        """Acknowledges what was handled."""
        numbers = []
        while self._unacked and self._unacked[0][0] <= now - HANDLING_S:
            numbers.append(self._unacked.popleft()[1].number)
        self._queue.unacked = len(self._unacked)
        if own := tuple(number for number in numbers if number):
            self._records.append(AnswerRecord(now, now, 0, self._consumer.epoch, own))

    def _abandon_outstanding(self) -> None:
        """Half of what was out has reached the queue and half has not; nobody will ever tell the publisher which."""
        numbers = [number for _, number in self._outstanding]
        self._outstanding.clear()
        if not numbers:
            return
        self._queue.messages.extend(SimMessage(_MESSAGE, number) for number in numbers[: len(numbers) // 2])
        self._settle(self._broker.now, Outcome.UNKNOWN, numbers)
        self._client_events.unknown(len(numbers))

    def _give_back(self) -> None:
        back = [stored for _, stored in self._unacked]
        for stored in back:
            stored.redelivered = True
        self._queue.messages.extendleft(reversed(back))
        self._unacked.clear()
        self._queue.unacked = 0
