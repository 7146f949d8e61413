"""What demos of node faults share: messages go through a quorum queue all the time."""

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
from dmq_core.messaging import DirectProducer, Outcome, ProducerLimits, PublishFuture

if TYPE_CHECKING:
    from dmq_core.messaging import DirectConsumer

_PACE_S: Final = 0.01
_ENOUGH: Final = 10
_ENDS_WITHIN_S: Final = 20.0
# Ten minutes; every one is remembered for the account.
_AT_MOST: Final = 60_000


class TrafficContext(DemoContext, ABC):
    """A quorum queue that a hundred messages a second go through, from `start_sending` to `stop_sending`.

    For ten minutes at most; a step that is repeated later begins with a new queue. `sent` and `arrived` are all
    messages since the queue was declared; `node` is the one that the step is about. A demo declares the queue and
    starts its `consumer` in `start_traffic`, over the connections of `clients`. The queue is called after `word`.
    """

    word: ClassVar[str]

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.queue = self.unique_name(f"{self.word}s")
        self.clients = self.client("clients")
        self.node = next((node.name for node in self.cluster.nodes()), "")
        self.sent: list[PublishFuture] = []
        self.arrived = Inbox()
        self.before = 0
        self.consumer: DirectConsumer | None = None
        self._ended = threading.Event()
        self._sending: threading.Thread | None = None
        self.on_close(self.stop_traffic)

    def before_step(self) -> None:
        """Notes how many were sent before the act."""
        self.before = len(self.sent)

    @abstractmethod
    def start_traffic(self) -> None:
        """Declares the queue, starts a consumer and begins to send."""

    def focus_on(self) -> Focus:
        """What the console shows during a step."""
        return Focus(queue=self.queue, node=self.node)

    # Traffic.

    def start_sending(self) -> None:
        """Publishes one message after the other in the background."""
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
        """Ends the publishing."""
        self._ended.set()
        if self._sending is not None:
            self._sending.join(_ENDS_WITHIN_S)
            self._sending = None

    @property
    def is_sending(self) -> bool:
        """Whether messages are being published."""
        return self._sending is not None and self._sending.is_alive()

    @property
    def messages_flow(self) -> bool:
        """Whether a message arrives that is published from now on; redeliveries do not count."""
        number = len(self.sent) + _ENOUGH
        return self.wait_until(
            lambda: not {one.body.decode() for one in self.sent[number:]}.isdisjoint(self.arrived_texts)
        )

    @property
    def arrived_texts(self) -> set[str]:
        """The bodies of all messages that arrived."""
        return set(map(str, self.arrived.messages))

    @property
    def longest_s(self) -> float:
        """How long a message of this step waited for its confirm at most, in seconds."""
        results = [one.result(0) for one in self.sent[self.before :] if one.done()]
        return max((one.seconds or 0.0 for one in results), default=0.0)

    @property
    def longest_wait_text(self) -> str:
        """`longest_s` in words."""
        return f"the longest wait for a confirm was {self.longest_s:.2f} s"

    # Preparing and breaking.

    def stop_traffic(self) -> None:
        """Ends publisher and consumer, whether all messages arrived or not."""
        self.stop_sending()
        if self.consumer is not None:
            self.consumer.close()
            self.consumer = None

    def reset_traffic(self) -> None:
        """Deletes the queue and forgets what was sent."""
        self.stop_traffic()
        self.delete(self.queue)
        self.sent.clear()
        self.arrived.clear()
        self._ended.clear()

    def ensure_traffic(self) -> None:
        """Makes sure that every node runs and messages arrive."""
        self.restore_cluster()
        if not self.is_sending:
            self.reset_traffic()
            self.start_traffic()
        self.wait_until_reported(lambda: self.is_replicated(self.queue))
        self.wait_until(lambda: len(self.arrived.received) >= _ENOUGH)

    def prepare_leader(self) -> None:
        """Makes sure that every node runs, and chooses the one that leads the queue."""
        self.ensure_traffic()
        self.note_leader()

    def note_leader(self) -> None:
        """Chooses the node that leads the queue, if one does."""
        self.node = self.leader(self.queue) or self.node

    def stop_node(self) -> None:
        """Stops the node and waits until the broker reports its member as offline."""
        self.perform(NodeAction.STOP, self.node)
        self.wait_until_reported(lambda: not self.is_replicated(self.queue))

    def lose_message(self) -> None:
        """Loses a confirmed message on purpose."""
        with DirectProducer(self.manager) as producer:
            self.sent.append(producer.publish(self.queue, f"a lost {self.word}"))
        self.delete(self.queue)

    def repair(self) -> None:
        """Restores every node and restarts the traffic."""
        self.stop_sending()
        self.ensure_traffic()

    # Checks.

    def all_are_online(self) -> CheckResult:
        """Whether every node has an online member of the queue, and messages are delivered."""
        passed = self.wait_until_reported(lambda: self.is_replicated(self.queue)) and self.messages_flow
        self.note_leader()
        arrived_texts = len(self.arrived.received)
        return CheckResult(
            passed, f"online: {self.online(self.queue)}; {self.node} leads; {arrived_texts} messages came"
        )

    def finish_traffic(self) -> None:
        """Ends the publishing and waits until everything that was confirmed arrived."""
        self.stop_sending()
        self.wait_until(lambda: self.confirmed <= self.arrived_texts)
        self.stop_traffic()

    @property
    def confirmed(self) -> set[str]:
        """The bodies of all messages that the broker confirmed."""
        return {one.body.decode() for one in self.sent if one.done() and one.result(0).outcome is Outcome.CONFIRMED}

    def nothing_was_lost(self) -> CheckResult:
        """Whether all that was confirmed arrived, and the queue is empty."""
        outcomes = Counter("open" if not one.done() else str(one.result(0).outcome) for one in self.sent)
        told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
        confirmed, arrived_texts = self.confirmed, self.arrived_texts
        missing, again = len(confirmed - arrived_texts), len(self.arrived.messages) - len(arrived_texts)
        passed = bool(confirmed) and not missing and self.wait_until(lambda: self.ready(self.queue) == 0)
        text = f"of {len(self.sent)} sent: {told}; {missing} of the confirmed missing, {again} came twice"
        return CheckResult(passed, f"{text}; {self.ready(self.queue)} wait")
