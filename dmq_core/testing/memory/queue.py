"""One queue of the in-memory broker: what waits in it and in which order, who gets it, and what becomes of returns."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from dmq_core.messaging.topology.model import Queue
from dmq_core.testing.memory.message import Message, Reason
from dmq_core.testing.memory.rules import QueueRules, VersionRules

if TYPE_CHECKING:
    from dmq_core.testing.memory.clock import MemoryClock

Confirm = Callable[[bool], None]
"""Called once with whether the queue takes responsibility."""


@dataclass(slots=True, eq=False)
class Stored:
    """A message in a queue; `number` is its place, `due` when it expires, `returned` whether it came back."""

    message: Message
    number: int
    due: float | None = None
    returned: bool = False

    def __lt__(self, other: Stored) -> bool:
        return self.number < other.number


class Receiver(Protocol):
    """The channel that a consumer stands on."""

    def deliver(self, subscription: MemoryConsumer, stored: Stored, redelivered: bool) -> None:
        """Sends a message to the consumer."""
        ...

    def cancelled(self, subscription: MemoryConsumer) -> None:
        """Tells that the broker ended the consumer."""
        ...


@dataclass(slots=True, eq=False)
class MemoryConsumer:
    """A consumer: how many it may hold unacknowledged (0: any number), how many it holds, and its place in a stream.

    One that is `suspended` keeps its place and what it holds, and gets nothing: its node is gone.
    """

    receiver: Receiver
    tag: str
    queue: MemoryQueue
    prefetch: int
    exclusive: bool
    place: int = 0
    held: int = 0
    suspended: bool = False

    @property
    def has_room(self) -> bool:
        """Whether it may get another message."""
        return not self.suspended and (self.prefetch == 0 or self.held < self.prefetch)


class QueueBroker(Protocol):
    """What a queue asks of the broker around it."""

    @property
    def clock(self) -> MemoryClock:
        """The time."""
        ...

    def is_available(self, queue: MemoryQueue) -> bool:
        """Whether the queue takes and gives messages."""
        ...

    def is_lost(self, queue: MemoryQueue) -> bool:
        """Whether the one node that holds the queue is down."""
        ...

    def dead_letter(self, queue: MemoryQueue, message: Message, reason: Reason, done: Confirm | None) -> None:
        """Sends `message` on to the dead-letter exchange; `done` hears whether every target took it."""
        ...

    def vanish(self, queue: MemoryQueue) -> None:
        """The queue is to be deleted, for nobody uses it any more."""
        ...


class MemoryQueue:
    """A classic or quorum queue. Everything happens in the broker's turn."""

    is_stream = False

    def __init__(self, spec: Queue, members: tuple[str, ...], rules: VersionRules, broker: QueueBroker) -> None:
        self.spec = spec
        self.is_quorum = spec.all_arguments.get("x-queue-type") == "quorum"
        self.members = members
        self.leader: str | None = members[0]
        self.subscriptions: list[MemoryConsumer] = []
        self.settings = QueueRules.of(spec.all_arguments, self.is_quorum, rules)
        self.gone = False
        self._rules = rules
        self._broker = broker
        self._clock = broker.clock
        self._numbers = 0
        self._returns: deque[Stored] = deque()
        self._waiting: deque[Stored] = deque()
        self._delayed: list[tuple[float, Stored]] = []
        self._dying: list[Stored] = []
        self._undecided: deque[tuple[Message, Confirm]] = deque()
        self._turn = 0
        self._wake_at: float | None = None
        self._touched_at = self._clock.now
        self.touch()

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def is_replicated(self) -> bool:
        """Whether several nodes hold it."""
        return self.is_quorum or self.is_stream

    @property
    def ready(self) -> int:
        """Messages that wait to be delivered, those whose retry is delayed among them."""
        return len(self._returns) + len(self._waiting) + len(self._delayed)

    def messages(self) -> tuple[Message, ...]:
        """What waits, in the order of delivery."""
        delayed = [stored for _, stored in sorted(self._delayed)]
        return tuple(stored.message for stored in (*self._returns, *self._waiting, *delayed))

    # Publishing.

    def publish(self, message: Message, confirm: Confirm) -> None:
        """Takes a message, now or once there is a leader."""
        if not self._broker.is_available(self):
            if self._broker.is_lost(self):
                confirm(False)
            else:
                self._undecided.append((message, confirm))
            return
        if self._is_full():
            confirm(False)
            return
        self._numbers += 1
        if not self._rules.counts_tries:
            message = replace(message, acquired=0, failed=0)
        stored = Stored(message, self._numbers, self._due(message))
        self._waiting.append(stored)
        self.pump()
        self._drop_excess()
        confirm(True)

    def resume(self) -> None:
        """There is a leader again: takes what waited for it, and delivers."""
        undecided, self._undecided = self._undecided, deque()
        for message, confirm in undecided:
            self.publish(message, confirm)
        self.pump()

    def _is_full(self) -> bool:
        if not self.settings.rejects:
            return False
        count, size = self.ready + len(self._dying), self._bytes()
        # A quorum queue tells its publishers once it is over the bound, not when it has reached it.
        slack = 0 if self.is_quorum else 1
        over_length = self.settings.max_length is not None and count + slack > self.settings.max_length
        return over_length or (self.settings.max_bytes is not None and size + slack > self.settings.max_bytes)

    def _drop_excess(self) -> None:
        if self.settings.rejects:
            return
        while self._returns or self._waiting:
            over_length = self.settings.max_length is not None and self.ready > self.settings.max_length
            if not over_length and (self.settings.max_bytes is None or self._bytes() <= self.settings.max_bytes):
                return
            self._die(self._pop(), Reason.MAXLEN)

    def _bytes(self) -> int:
        if self.settings.max_bytes is None:
            return 0
        return sum(len(message.body) for message in self.messages())

    def _due(self, message: Message) -> float | None:
        bounds = [s for s in (self.settings.ttl_s, message.expiration_s) if s is not None]
        return self._clock.now + min(bounds) if bounds else None

    # Consuming.

    def subscribe(self, subscription: MemoryConsumer) -> None:
        """Adds a consumer."""
        self.subscriptions.append(subscription)
        self.pump()

    def unsubscribe(self, subscription: MemoryConsumer) -> None:
        """Takes a consumer away; an auto-delete queue goes with its last one."""
        if subscription not in self.subscriptions:
            return
        self.subscriptions.remove(subscription)
        self.touch()
        if self.spec.auto_delete and not self.subscriptions:
            self._broker.vanish(self)
        else:
            self.pump()

    def acknowledge(self, subscription: MemoryConsumer) -> None:
        """A delivery is done: there is room for another."""
        subscription.held -= 1
        self.pump()

    def refuse(self, subscription: MemoryConsumer, stored: Stored) -> None:
        """A consumer rejected a delivery for good."""
        subscription.held -= 1
        self._count(stored, failed=True)
        self._die(stored, Reason.REJECTED)
        self.pump()

    def requeue(self, subscription: MemoryConsumer, deliveries: Iterable[Stored], *, failed: bool, told: bool) -> None:
        """Deliveries return; `failed`: they count as tried, `told`: the consumer said so itself."""
        for stored in deliveries:
            subscription.held -= 1
            stored.returned = True
            self._count(stored, failed)
            if self.is_quorum:
                self._return_to_quorum(stored, failed, told)
            else:
                self._insert(stored)
        self._drop_excess()
        self.pump()

    def pump(self) -> None:
        """Delivers what can be delivered, lets expire what is due, and sees that it is called again in time."""
        if self.gone or not self._broker.is_available(self):
            return
        self._promote_delayed()
        self._expire(before=self._clock.now)
        while self._returns or self._waiting:
            subscription = self._next_subscription()
            if subscription is None:
                break
            stored = self._pop()
            subscription.held += 1
            subscription.receiver.deliver(subscription, stored, self._is_redelivered(stored))
        # What a consumer could take at the last moment was taken.
        self._expire(before=None)
        self._set_alarm()

    def is_active(self, subscription: MemoryConsumer) -> bool:
        """Whether the queue would serve this consumer."""
        return subscription in self._candidates

    @property
    def _candidates(self) -> list[MemoryConsumer]:
        return self.subscriptions[:1] if self.settings.single_active else self.subscriptions

    def _next_subscription(self) -> MemoryConsumer | None:
        candidates = self._candidates
        for offset in range(len(candidates)):
            index = (self._turn + offset) % len(candidates)
            if candidates[index].has_room:
                self._turn = index + 1
                return candidates[index]
        return None

    def _is_redelivered(self, stored: Stored) -> bool:
        message = stored.message
        if self.is_quorum:
            return message.acquired > 0 or message.failed > 0
        return stored.returned or (self._rules.marks_delivered and message.delivered)

    # Returns.

    def _count(self, stored: Stored, failed: bool) -> None:
        message = stored.message
        if self.is_quorum:
            tries = message.failed + (1 if failed or not self._rules.counts_tries else 0)
            message = replace(message, acquired=message.acquired + 1, failed=tries)
        stored.message = replace(message, delivered=True)

    def _return_to_quorum(self, stored: Stored, failed: bool, told: bool) -> None:
        limit = self.settings.delivery_limit
        if limit is not None and stored.message.failed > limit:
            self._die(stored, Reason.DELIVERY_LIMIT)
            return
        retry = self.settings.retry
        pause = None if retry is None else retry.seconds(failed, stored.message.failed)
        if pause is not None:
            heapq.heappush(self._delayed, (self._clock.now + pause, stored))
        elif limit is None and told and self._rules.returns_to_the_end:
            self._waiting.append(stored)
        else:
            self._returns.append(stored)

    def _insert(self, stored: Stored) -> None:
        after = 0
        for other in self._waiting:
            if other.number > stored.number:
                break
            after += 1
        self._waiting.insert(after, stored)

    def _promote_delayed(self) -> None:
        while self._delayed and self._delayed[0][0] <= self._clock.now:
            self._returns.append(heapq.heappop(self._delayed)[1])

    # Leaving.

    def _pop(self) -> Stored:
        return (self._returns or self._waiting).popleft()

    def _expire(self, before: float | None) -> None:
        """Drops the expired at the head: those due before `before`, or (None) by this moment."""
        while self._returns or self._waiting:
            due = (self._returns or self._waiting)[0].due
            if due is None or (due > self._clock.now if before is None else due >= before):
                return
            self._die(self._pop(), Reason.EXPIRED)

    def _die(self, stored: Stored, reason: Reason) -> None:
        if self.settings.dead_letter_exchange is None:
            return
        message = stored.message.died(self.name, reason, self._clock.wall)
        if not self.settings.at_least_once:
            self._broker.dead_letter(self, message, reason, None)
            return
        self._dying.append(stored)
        self._pass_on(stored, message, reason)

    def _pass_on(self, stored: Stored, message: Message, reason: Reason) -> None:
        def answered(taken: bool) -> None:
            if self.gone:
                return
            if taken:
                self._dying.remove(stored)
            else:
                self._clock.later(PASS_ON_AGAIN_S, lambda: self._pass_on(stored, message, reason))

        if not self.gone:
            self._broker.dead_letter(self, message, reason, answered)

    def lose_node(self) -> None:
        """Its one node died: messages that are not persistent are gone, and consumers are told."""
        subscriptions, self.subscriptions = self.subscriptions, []
        for subscription in subscriptions:
            subscription.receiver.cancelled(subscription)
        self._waiting = deque(stored for stored in self._waiting if stored.message.is_persistent)

    def end(self) -> None:
        """It is deleted: consumers are told, nothing waits for it any more."""
        self.gone = True
        for subscription in tuple(self.subscriptions):
            subscription.receiver.cancelled(subscription)
        self.subscriptions.clear()
        undecided, self._undecided = self._undecided, deque()
        for _, confirm in undecided:
            confirm(True)

    # Time.

    def touch(self) -> None:
        """It was declared or a consumer left: its time until `x-expires` begins anew."""
        self._touched_at = self._clock.now
        if self.settings.expires_s is not None:
            self._clock.later(self.settings.expires_s, self._expire_itself)

    def _expire_itself(self) -> None:
        expires = self.settings.expires_s
        unused = not self.subscriptions and expires is not None and self._clock.now >= self._touched_at + expires
        if unused and not self.gone:
            self._broker.vanish(self)

    def _set_alarm(self) -> None:
        heads = [queue[0].due for queue in (self._returns, self._waiting) if queue]
        moments = [due for due in heads if due is not None] + [at for at, _ in self._delayed[:1]]
        if moments and (self._wake_at is None or min(moments) < self._wake_at):
            self._wake_at = min(moments)
            self._clock.later(self._wake_at - self._clock.now, self._woken)

    def _woken(self) -> None:
        self._wake_at = None
        self.pump()


PASS_ON_AGAIN_S = 180.0


@dataclass(slots=True)
class Verdicts:
    """Gathers the answers of several queues to one message and tells the whole."""

    missing: int
    told: Confirm
    taken: bool = field(default=True)

    def __call__(self, taken: bool) -> None:
        """Hears one queue."""
        self.taken &= taken
        self.missing -= 1
        if self.missing == 0:
            self.told(self.taken)
