"""What demos of a cluster that goes on have in common: messages go through a quorum queue, whatever nodes do."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Final

from dmq_core.cluster.protocol import NodeAction
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Focus
from dmq_core.errors import DmqError
from dmq_core.messaging import DirectProducer, Handle, Outcome, ProducerLimits

if TYPE_CHECKING:
    from dmq_core.messaging import DirectConsumer

_PACE_S: Final = 0.01
_ENOUGH: Final = 10
_ENDS_WITHIN_S: Final = 20.0
# Ten minutes; every one is remembered for the account.
_AT_MOST: Final = 60_000


class TrafficContext(DemoContext, ABC):
    """A queue of what `word` names, that a hundred messages a second go through, from `send_on` to `stop_sending`.

    For ten minutes at most; a step that is played later begins with fresh ones. `sent` and `arrived` are all of them,
    since the queue was made; `node` is the one that it is about. A demo makes the queue and its `consumer` in
    `open_up`, over the connections of `clients`.
    """

    word: ClassVar[str]

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.queue = self.named(f"{self.word}s")
        self.clients = self.client("clients")
        self.node = next((node.name for node in self.cluster.nodes()), "")
        self.sent: list[Handle] = []
        self.arrived = Inbox()
        self.before = 0
        self.consumer: DirectConsumer | None = None
        self._ended = threading.Event()
        self._sending: threading.Thread | None = None
        self.on_close(self.leave_traffic)

    def begin(self) -> None:
        """Notes how many were sent before the act."""
        self.before = len(self.sent)

    @abstractmethod
    def open_up(self) -> None:
        """Has the queue, a consumer at it, and messages sent."""

    def look(self) -> Focus:
        """What to point at."""
        return Focus(queue=self.queue, node=self.node)

    # What goes on.

    def send_on(self) -> None:
        """Sends one message after the other, in the background."""
        self._sending = threading.Thread(target=self._send, daemon=True)
        self._sending.start()

    def _send(self) -> None:
        limits = ProducerLimits(republish=True)
        # Traffic that ends early is what the checks see.
        with contextlib.suppress(DmqError), DirectProducer(self.clients, limits=limits) as producer:
            for number in range(1, _AT_MOST + 1):
                if self._ended.wait(_PACE_S):
                    break
                self.sent.append(producer.publish(self.queue, f"{self.word} {number}"))

    def stop_sending(self) -> None:
        """Has no more messages sent."""
        self._ended.set()
        if self._sending is not None:
            self._sending.join(_ENDS_WITHIN_S)
            self._sending = None

    @property
    def is_sending(self) -> bool:
        """Whether messages are being sent."""
        return self._sending is not None and self._sending.is_alive()

    @property
    def flows(self) -> bool:
        """Whether a message arrives that is sent from now on; those that come again do not count."""
        number = len(self.sent) + _ENOUGH
        return self.until(lambda: not {one.body.decode() for one in self.sent[number:]}.isdisjoint(self.came))

    @property
    def came(self) -> set[str]:
        """Every message that arrived, in words."""
        return set(map(str, self.arrived.messages))

    @property
    def longest_s(self) -> float:
        """How long a message of this step waited for its confirm at most, in seconds."""
        settlements = [one.settlement for one in self.sent[self.before :]]
        return max((one.seconds or 0.0 for one in settlements if one is not None), default=0.0)

    @property
    def waited(self) -> str:
        """`longest_s` in words."""
        return f"the longest wait for a confirm was {self.longest_s:.2f} s"

    # How things get where they have to be.

    def leave_traffic(self) -> None:
        """Has nobody send or receive, whether all arrived or not."""
        self.stop_sending()
        if self.consumer is not None:
            self.consumer.close()
            self.consumer = None

    def begin_anew(self) -> None:
        """Has no queue, and nothing sent."""
        self.leave_traffic()
        self.delete(self.queue)
        self.sent.clear()
        self.arrived.clear()
        self._ended.clear()

    def carry_on(self) -> None:
        """Has every node run, and messages arrive."""
        self.restore_cluster()
        if not self.is_sending:
            self.begin_anew()
            self.open_up()
        self.until_told(lambda: self.is_replicated(self.queue))
        self.until(lambda: len(self.arrived.received) >= _ENOUGH)

    def lead(self) -> None:
        """Has every node run, and takes the one that leads the queue."""
        self.carry_on()
        self.note_leader()

    def note_leader(self) -> None:
        """Takes the node that leads the queue, if one does."""
        self.node = self.leader(self.queue) or self.node

    def keep_it_down(self) -> None:
        """Has the node stopped, until the broker says that its member is gone."""
        self.perform(NodeAction.STOP, self.node)
        self.until_told(lambda: not self.is_replicated(self.queue))

    def lose_one(self) -> None:
        """Has a message confirmed that does not arrive."""
        with DirectProducer(self.manager) as producer:
            self.sent.append(producer.publish(self.queue, f"a {self.word} that nobody saw"))
        self.delete(self.queue)

    def repair(self) -> None:
        """Has every node run, and fresh traffic."""
        self.stop_sending()
        self.carry_on()

    # What was seen.

    def all_are_online(self) -> CheckResult:
        """Whether every node has a member of the queue, which is online, and messages come through."""
        passed = self.until_told(lambda: self.is_replicated(self.queue)) and self.flows
        self.note_leader()
        came = len(self.arrived.received)
        return CheckResult(passed, f"online: {self.online(self.queue)}; {self.node} leads; {came} messages came")

    def finish(self) -> None:
        """Has no more sent, and all that was confirmed arrive."""
        self.stop_sending()
        self.until(lambda: self.confirmed <= self.came)
        self.leave_traffic()

    @property
    def confirmed(self) -> set[str]:
        """Every message that the broker confirmed, in words."""
        settled = [(one.body.decode(), one.settlement) for one in self.sent]
        return {body for body, one in settled if one is not None and one.outcome is Outcome.CONFIRMED}

    def nothing_was_lost(self) -> CheckResult:
        """Whether all that was confirmed arrived, and the queue is empty."""
        outcomes = Counter("open" if one.settlement is None else str(one.settlement.outcome) for one in self.sent)
        told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
        confirmed, came = self.confirmed, self.came
        missing, again = len(confirmed - came), len(self.arrived.messages) - len(came)
        passed = bool(confirmed) and not missing and self.until(lambda: self.ready(self.queue) == 0)
        text = f"of {len(self.sent)} sent: {told}; {missing} of the confirmed missing, {again} came twice"
        return CheckResult(passed, f"{text}; {self.ready(self.queue)} wait")
