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
from dmq_core.messaging.messages import MessageProperties, Outcome, Settlement
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.messaging.publishing.handle import Handle

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
LOOK_S: Final = 0.25
STUBBORN_TRIES: Final = 3
RENEW_PAUSE_S: Final = 1.0
_LOG = logging.getLogger("dmq.messaging")


class Publishes(Protocol):
    """What a hand-off asks of a `Producer`."""

    def send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: MessageProperties,
        mandatory: bool,
        room_s: float | None,
    ) -> Handle:
        """Takes a message on without waiting."""
        ...

    def settle(self, handle: Handle, timeout_s: float) -> Settlement:
        """Gives up on a message that has no outcome in time."""
        ...

    def close(self, timeout_s: float) -> None:
        """Ends it."""
        ...


Opens = Callable[[Callable[["Handle"], None]], Publishes]
"""Makes a producer that tells each outcome to what it is given."""


@dataclass(eq=False, slots=True)
class Errand:
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


class HandOff:
    """Hands messages on over producers that `opens` makes, each until its copy is confirmed or its delivery is stale.

    Whoever drives it calls `turn`, and `close` in the end, always from the same thread; the rest may be called from
    any.
    """

    def __init__(self, opens: Opens, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self._opens = opens
        self._producer = opens(self._tell)
        self._now = now
        self._wake = wake
        self._order = count()
        self._left: set[Errand] = set()
        self._inbox: deque[Errand] = deque()
        self._settled: deque[Handle] = deque()
        self._waiting: list[tuple[float, int, Errand]] = []
        self._under_way: dict[Handle, Errand] = {}
        self._stuck = False
        self._renewed_at = now()

    @property
    def left(self) -> int:
        """How many messages are not dealt with."""
        return len(self._left)

    def take(self, errand: Errand) -> None:
        """Takes a message on; returns at once."""
        self._left.add(errand)
        self._inbox.append(errand)
        self._wake()

    def turn(self) -> float:
        """Does what is due; the seconds until there may be more to do, at most `LOOK_S`."""
        while self._settled:
            self._end(self._settled.popleft())
        for handle, errand in tuple(self._under_way.items()):
            if not errand.delivery.is_current:
                # The broker delivers it again: a copy that has not left by now had better not leave at all.
                self._producer.settle(handle, 0.0)
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

    def _tell(self, handle: Handle) -> None:
        self._settled.append(handle)
        self._wake()

    def _renew(self, now: float) -> None:
        # On RabbitMQ 3 a channel that published to a quorum queue while it had no leader is refused for ever.
        self._producer.close(0.0)
        self._producer = self._opens(self._tell)
        self._stuck, self._renewed_at = False, now

    def _publish(self, errand: Errand) -> None:
        delivery = errand.delivery
        if not delivery.is_current:
            self._over(errand)
            return
        errand.tries += 1
        try:
            handle = self._producer.send("", errand.target, delivery.body, errand.properties, True, 0.0)
        except InvalidInputError as error:
            # It never will be sendable; the queue's own limit gives it up, and a stream has it still.
            _LOG.error("a message of %s cannot be handed on: %s", visible(delivery.queue), visible(error.what))
            delivery.reject(requeue=delivery.offset is None)
            self._over(errand)
        except DmqError as error:
            self._again(errand, error.what)
        else:
            self._under_way[handle] = errand

    def _end(self, handle: Handle) -> None:
        errand = self._under_way.pop(handle, None)
        settlement = handle.settlement
        if errand is None or settlement is None:
            return
        if settlement.outcome is Outcome.CONFIRMED:
            errand.delivery.ack()
            self._over(errand)
        else:
            self._stuck |= settlement.outcome is Outcome.NACKED and errand.tries >= STUBBORN_TRIES
            self._again(errand, f"{settlement.outcome}: {settlement.reason}")

    def _over(self, errand: Errand) -> None:
        self._left.discard(errand)
        errand.over.set()

    def _again(self, errand: Errand, why: str) -> None:
        if errand.tries == 1:
            _LOG.warning(
                "a message of %s is kept back, %s did not take it: %s",
                visible(errand.delivery.queue),
                visible(errand.target),
                visible(why),
            )
        heapq.heappush(self._waiting, (self._now() + pause_s(errand.tries), next(self._order), errand))


class HandOffThread:
    """A `HandOff` with a thread of its own, named for the queue that it serves."""

    def __init__(self, queue: str) -> None:
        self._changed = threading.Condition()
        self._woken = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"retry {queue}", daemon=True)
        self.handoff: HandOff | None = None

    def start(self, opens: Opens) -> HandOff:
        """Begins to hand on over producers that `opens` makes."""
        self.handoff = HandOff(opens, time.monotonic, self._wake)
        self._thread.start()
        return self.handoff

    def close(self, timeout_s: float) -> int:
        """Waits `timeout_s` until all is handed on, and ends; how many messages are left."""
        with self._changed:
            self._changed.wait_for(lambda: self.handoff is None or not self.handoff.left, timeout_s)
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(LOOK_S * 4)
        return 0 if self.handoff is None else self.handoff.left

    def _wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _run(self) -> None:
        handoff = self.handoff
        while handoff is not None:
            patience = handoff.turn()
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._woken or self._closing, patience)
                self._woken = False
                if self._closing:
                    break
        if handoff is not None:
            handoff.close()
