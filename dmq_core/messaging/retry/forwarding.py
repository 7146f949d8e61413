"""Handing messages on: a copy is published, and only when it is confirmed the original is acknowledged."""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

from dmq_core.errors import DmqError, InvalidInputError
from dmq_core.messaging.messages import MessageProperties, Outcome, PublishResult
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.messaging.publishing.publish_future import PublishFuture

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
LOOK_S: Final = 0.25
STUBBORN_TRIES: Final = 3
RENEW_PAUSE_S: Final = 1.0
_LOG = logging.getLogger("dmq.messaging")


class ForwardPublisher(Protocol):
    """What a forwarder asks of a `Publisher`."""

    def send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: MessageProperties,
        mandatory: bool,
        capacity_timeout_s: float | None,
    ) -> PublishFuture:
        """Takes a message on without waiting."""
        ...

    def result_or_give_up(self, future: PublishFuture, timeout_s: float) -> PublishResult:
        """Gives up on a message that has no outcome in time."""
        ...

    def close(self, timeout_s: float) -> None:
        """Ends it."""
        ...


OpenPublisher = Callable[[Callable[["PublishFuture"], None]], ForwardPublisher]
"""Makes a producer that tells each outcome to what it is given."""


@dataclass(eq=False, slots=True)
class Forward:
    """One message to hand on to the queue `target`; `over` is set once nothing is left to do for it."""

    delivery: Delivery
    target: str
    properties: MessageProperties
    tries: int = 0
    over: threading.Event = field(default_factory=threading.Event)


def pause_s(tries: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """The seconds to wait after so many tries in vain, from 1: from 0.1 doubled up to 5, the half of it by chance."""
    whole = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10))
    return uniform(whole / 2, whole)


class Forwarder:
    """Hands messages on over producers that `opens` makes, each until its copy is confirmed or its delivery is stale.

    Whoever drives it calls `turn`, and `close` in the end, always from the same thread; the rest may be called from
    any. The original stays unanswered until its copy is confirmed: to acknowledge first would lose the message with
    this process, and in this order the worst is that it comes twice.
    """

    def __init__(self, opens: OpenPublisher, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self._opens = opens
        self._producer = opens(self._tell)
        self._now = now
        self._wake = wake
        self._order = count()
        self._left: set[Forward] = set()
        self._inbox: deque[Forward] = deque()
        self._settled: deque[PublishFuture] = deque()
        self._waiting: list[tuple[float, int, Forward]] = []
        self._under_way: dict[PublishFuture, Forward] = {}
        self._stuck = False
        self._renewed_at = now()

    @property
    def left(self) -> int:
        """How many messages are not dealt with."""
        return len(self._left)

    def take(self, forward: Forward) -> None:
        """Takes a message on; returns at once."""
        self._left.add(forward)
        self._inbox.append(forward)
        self._wake()

    def turn(self) -> float:
        """Does what is due; the seconds until there may be more to do, at most `LOOK_S`."""
        while self._settled:
            self._end(self._settled.popleft())
        for future, forward in tuple(self._under_way.items()):
            if not forward.delivery.is_current:
                # The broker delivers it again: a copy that has not left by now had better not leave at all.
                self._producer.result_or_give_up(future, 0.0)
        now = self._now()
        if self._stuck and not self._under_way and now - self._renewed_at >= RENEW_PAUSE_S:
            self._renew(now)
        if self._stuck:
            return LOOK_S
        while self._inbox:
            self._publish(self._inbox.popleft())
        while self._waiting and self._waiting[0][0] <= now:
            self._publish(heapq.heappop(self._waiting)[2])
        return LOOK_S if not self._waiting else max(0.0, min(LOOK_S, self._waiting[0][0] - now))

    def close(self) -> None:
        """Closes the producer; what is under way stays unanswered."""
        self._producer.close(0.0)

    def _tell(self, future: PublishFuture) -> None:
        self._settled.append(future)
        self._wake()

    def _renew(self, now: float) -> None:
        # On RabbitMQ 3 a channel that published to a quorum queue while it had no leader is refused for ever.
        self._producer.close(0.0)
        self._producer = self._opens(self._tell)
        self._stuck, self._renewed_at = False, now

    def _publish(self, forward: Forward) -> None:
        delivery = forward.delivery
        if not delivery.is_current:
            self._over(forward)
            return
        forward.tries += 1
        try:
            future = self._producer.send("", forward.target, delivery.body, forward.properties, True, 0.0)
        except InvalidInputError as error:
            # It never will be sendable; the queue's own limit gives it up, and a stream has it still.
            _LOG.error("a message of %s cannot be handed on: %s", visible(delivery.queue), visible(error.what))
            delivery.reject(requeue=delivery.offset is None)
            self._over(forward)
        except DmqError as error:
            self._again(forward, error.what)
        else:
            self._under_way[future] = forward

    def _end(self, future: PublishFuture) -> None:
        forward = self._under_way.pop(future, None)
        if forward is None:
            return
        result = future.result(0)
        if result.outcome is Outcome.CONFIRMED:
            forward.delivery.ack()
            self._over(forward)
        else:
            self._stuck |= result.outcome is Outcome.NACKED and forward.tries >= STUBBORN_TRIES
            self._again(forward, f"{result.outcome}: {result.reason}")

    def _over(self, forward: Forward) -> None:
        self._left.discard(forward)
        forward.over.set()

    def _again(self, forward: Forward, why: str) -> None:
        if forward.tries == 1:
            _LOG.warning(
                "a message of %s is kept back, %s did not take it: %s",
                visible(forward.delivery.queue),
                visible(forward.target),
                visible(why),
            )
        heapq.heappush(self._waiting, (self._now() + pause_s(forward.tries), next(self._order), forward))


class ForwarderThread:
    """A `Forwarder` with a thread of its own, named for the queue that it serves."""

    def __init__(self, queue: str) -> None:
        self._changed = threading.Condition()
        self._woken = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"retry {queue}", daemon=True)
        self.forwarder: Forwarder | None = None

    def start(self, opens: OpenPublisher) -> Forwarder:
        """Begins to hand on over producers that `opens` makes."""
        self.forwarder = Forwarder(opens, time.monotonic, self._wake)
        self._thread.start()
        return self.forwarder

    def close(self, timeout_s: float) -> int:
        """Waits `timeout_s` until all is handed on, and ends; how many messages are left."""
        with self._changed:
            self._changed.wait_for(lambda: self.forwarder is None or not self.forwarder.left, timeout_s)
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(LOOK_S * 4)
        return 0 if self.forwarder is None else self.forwarder.left

    def _wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _run(self) -> None:
        forwarder = self.forwarder
        while forwarder is not None:
            patience = forwarder.turn()
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._woken or self._closing, patience)
                self._woken = False
                if self._closing:
                    break
        if forwarder is not None:
            forwarder.close()
