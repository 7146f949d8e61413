"""The fake's load: a publisher and a consumer that lose their node and come back, message by message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dmq_core.cluster.protocol import NodeState
from dmq_core.messaging.messages import MessageProperties, OutgoingMessage
from dmq_core.observe.events import Origin, Severity
from dmq_core.proof.progress import LoadAccount
from dmq_core.testing.simulation.broker import ROUNDING_S, SimBroker, SimMessage

LOAD_QUEUE = "dmq.load"
RECONNECT_S = 0.25
SILENCE_S = 2.0
PREFETCH = 200
WINDOW = 1000
HANDLING_S = 0.1
SLICE_S = 0.5
SLICES = 120
DRAIN_S = 10.0
_MESSAGE = OutgoingMessage("", LOAD_QUEUE, b"load", MessageProperties(app_id="dmq-load"))


class _Client:
    """A connection that knows where it is: leaves a dead node at once and a silent one after 2 s."""

    def __init__(
        self,
        role: str,
        broker: SimBroker,
        choose: Callable[[tuple[str, ...]], str],
        say: Callable[[Severity, str, str], None],
    ) -> None:
        self.role = role
        self.at: str | None = None
        self._broker = broker
        self._choose = choose
        self._say = say
        self._back_at = broker.now
        self._silent_since: float | None = None
        self._been_at: str | None = None

    @property
    def answered(self) -> bool:
        """Whether it is connected to a node that answers."""
        return self.at is not None and self._broker.nodes[self.at].serves

    def step(self, now: float) -> bool:
        """Moves on to `now`; True when it has just lost its node."""
        if self.at is None:
            if now >= self._back_at:
                self._connect()
            return False
        if self._broker.nodes[self.at].serves:
            self._silent_since = None
            return False
        if self._broker.nodes[self.at].state in (NodeState.PAUSED, NodeState.ISOLATED):
            self._silent_since = self._silent_since or now
            if now - self._silent_since < SILENCE_S:
                return False
        return self._lose(now)

    def _connect(self) -> None:
        serving = tuple(n.name for n in self._broker.serving())
        if not serving:
            return
        self.at = self._choose(serving)
        if self._been_at is None:
            self._say(Severity.PLAIN, f"{self.role}_connected", f"{self.role} on {self.at}")
        else:
            self._say(Severity.GOOD, f"{self.role}_resumed", f"{self.role} now on {self.at}")

    def _lose(self, now: float) -> bool:
        self._say(Severity.BAD, f"{self.role}_lost", f"{self.role} lost {self.at}")
        self._been_at, self.at, self._silent_since = self.at, None, None
        self._back_at = now + RECONNECT_S
        return True


class SimLoad:
    """A steady load inside the simulation; what its clients feel is part of the broker's story."""

    def __init__(self, broker: SimBroker, rate: float) -> None:
        self._broker = broker
        self._rate = rate
        self._running = True
        self._ended = False
        self._due = 0.0
        self._attempted = 0
        self._outstanding: deque[float] = deque()
        self._confirmed = self._unknown = self._nacked = self._returned = 0
        self._delivered = self._redelivered = self._duplicates = self._in_flight = self._lost = 0
        self._unacked: deque[tuple[float, SimMessage]] = deque()
        self._awaiting_first: set[str] = set()
        self._told_redelivered = 0
        self._gaps = {"confirm": 0.0, "delivery": 0.0}
        self._last = {"confirm": broker.now, "delivery": broker.now}
        self._slice_ends = broker.now + SLICE_S
        self._slice = {"confirm": 0, "delivery": 0}
        self._history: dict[str, deque[float]] = {k: deque(maxlen=SLICES) for k in self._slice}
        with broker.lock:
            home = next((n.name for n in broker.serving()), None)
            self._queue = broker.declare_queue(LOAD_QUEUE, leader=home)
            self._publisher = _Client("publisher", broker, self._away_from_consumer, self._say)
            self._consumer = _Client("consumer", broker, self._at_the_leader, self._say)
            broker.steppers.append(self)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The roles of its connected clients and their nodes."""
        clients = (self._publisher, self._consumer)
        return tuple((c.role, c.at) for c in clients if c.at is not None)

    def account(self) -> LoadAccount:
        """The account so far."""
        with self._broker.lock:
            now = self._broker.now
            return LoadAccount(
                running=self._running,
                queue=LOAD_QUEUE,
                rate=self._rate,
                taken_at=now,
                attempted=self._attempted,
                outstanding=len(self._outstanding),
                confirmed=self._confirmed,
                nacked=self._nacked,
                returned=self._returned,
                unknown=self._unknown,
                delivered=self._delivered,
                redelivered=self._redelivered,
                duplicates=self._duplicates,
                in_flight=self._in_flight,
                lost=self._lost,
                longest_confirm_gap_s=self._gaps["confirm"],
                longest_delivery_gap_s=self._gaps["delivery"],
                current_confirm_gap_s=now - self._last["confirm"] if self._running else 0.0,
                current_delivery_gap_s=now - self._last["delivery"] if self._running else 0.0,
                publisher_at=self._publisher.at,
                consumer_at=self._consumer.at,
                slice_s=SLICE_S,
                confirm_history=tuple(self._history["confirm"]),
                delivery_history=tuple(self._history["delivery"]),
            )

    def stop(self) -> LoadAccount:
        """Stops publishing, drains for at most 10 simulated seconds, and gives the final account."""
        with self._broker.lock:  # never in the middle of a step of time, which would end at another moment each time
            self._running = False
        waited = 0.0
        while waited < DRAIN_S and not self._ended and (self._outstanding or self._in_flight):
            self._broker.wait(SLICE_S)
            waited += SLICE_S
        self.close()
        return self.account()

    def close(self) -> None:
        """Ends it at once; messages that are out end as unknown."""
        with self._broker.lock:
            if self._ended:
                return
            self._running, self._ended = False, True
            self._abandon_outstanding()
            self._give_back()
            self._broker.steppers.remove(self)
            self._queue.consumers = 0
            self._publisher.at = self._consumer.at = None

    def step(self, now: float, elapsed_s: float) -> None:
        """Moves the load on to `now`."""
        if self._publisher.step(now):
            self._awaiting_first.add("confirm")
            self._abandon_outstanding()
        if self._consumer.step(now):
            self._awaiting_first.add("delivery")
            self._give_back()
        available = self._broker.available(self._queue)
        if not available:
            self._awaiting_first |= {"confirm", "delivery"}
        self._publish(now, elapsed_s)
        if available and not self._broker.alarms and self._publisher.answered:
            self._confirm(now)
        self._queue.consumers = 1 if self._consumer.answered else 0
        if available and self._consumer.answered:
            self._deliver(now)
        self._close_slice(now)

    def _at_the_leader(self, serving: tuple[str, ...]) -> str:
        return self._queue.leader if self._queue.leader in serving else serving[-1]

    def _away_from_consumer(self, serving: tuple[str, ...]) -> str:
        others = [name for name in serving if name not in (self._consumer.at, self._queue.leader)]
        return (others or list(serving))[0]

    def _publish(self, now: float, elapsed_s: float) -> None:
        if not self._running or self._publisher.at is None:
            return
        self._due = min(self._due + self._rate * elapsed_s, self._rate)
        count = min(int(self._due), WINDOW - len(self._outstanding))
        self._due -= count
        self._attempted += count
        self._outstanding.extend([now] * count)

    def _confirm(self, now: float) -> None:
        count = sum(1 for sent in self._outstanding if sent < now - ROUNDING_S)
        for _ in range(count):
            self._outstanding.popleft()
            stored = SimMessage(_MESSAGE)
            if self._broker.lose_confirmed > 0:
                self._broker.lose_confirmed -= 1
                self._lost += 1
            else:
                self._queue.messages.append(stored)
                self._in_flight += 1
        self._confirmed += count
        self._queue.published += count
        self._felt("confirm", count, now)

    def _deliver(self, now: float) -> None:
        while self._unacked and self._unacked[0][0] <= now - HANDLING_S:
            self._unacked.popleft()
        count = 0
        while self._queue.messages and len(self._unacked) < PREFETCH:
            stored = self._queue.messages.popleft()
            self._count_delivery(stored)
            self._unacked.append((now, stored))
            count += 1
        self._queue.unacked = len(self._unacked)
        self._queue.delivered += count
        self._felt("delivery", count, now)

    def _count_delivery(self, stored: SimMessage) -> None:
        if stored.redelivered:
            self._redelivered += 1
            self._queue.redelivered += 1
        if stored.message is not _MESSAGE:
            return
        if stored.seen:
            self._duplicates += 1
            return
        stored.seen = True
        self._delivered += 1
        if stored.confirmed:
            self._in_flight -= 1

    def _felt(self, what: str, count: int, now: float) -> None:
        gap = now - self._last[what]
        if self._running:
            self._gaps[what] = max(self._gaps[what], gap)
        if count == 0:
            return
        self._last[what] = now
        self._slice[what] += count
        if what in self._awaiting_first:
            self._awaiting_first.discard(what)
            noun = "confirm" if what == "confirm" else "delivery"
            self._say(Severity.GOOD, f"first_{what}", f"first {noun} after {gap:.2f} s")
            if what == "delivery" and self._redelivered > self._told_redelivered:
                rush = self._redelivered - self._told_redelivered
                self._told_redelivered = self._redelivered
                self._say(Severity.NOTICE, "redelivered", f"{rush} messages redelivered")

    def _close_slice(self, now: float) -> None:
        if now < self._slice_ends - ROUNDING_S:
            return
        self._slice_ends = max(self._slice_ends + SLICE_S, now)
        for what, count in self._slice.items():
            self._history[what].append(count / SLICE_S)
        self._slice = dict.fromkeys(self._slice, 0)

    def _abandon_outstanding(self) -> None:
        """Half of what was out has reached the queue and half has not; nobody will ever tell the publisher which."""
        arrived = len(self._outstanding) // 2
        if self._outstanding:
            text = f"{len(self._outstanding)} messages with unknown outcome"
            self._say(Severity.NOTICE, "unknown", text)
        self._unknown += len(self._outstanding)
        self._outstanding.clear()
        self._queue.messages.extend(SimMessage(_MESSAGE, confirmed=False) for _ in range(arrived))

    def _give_back(self) -> None:
        back = [stored for _, stored in self._unacked]
        for stored in back:
            stored.redelivered = True
        self._queue.messages.extendleft(reversed(back))
        self._unacked.clear()
        self._queue.unacked = 0

    def _say(self, severity: Severity, kind: str, text: str) -> None:
        self._broker.say(Origin.CLIENT, severity, kind, LOAD_QUEUE, text)
