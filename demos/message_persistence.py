"""What survives a stop of every node: durable queues with persistent messages, and quorum queues with all theirs."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.protocol import NodeState
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, Queue

PERSISTENT = ("persistent 1", "persistent 2", "persistent 3")
TRANSIENT = ("transient 1", "transient 2", "transient 3")


class PersistenceDemo(DemoContext):
    """A classic and a quorum queue with persistent and transient messages, while every node is stopped and started."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.classic = self.unique_name("classic")
        self.quorum = self.unique_name("quorum")
        self.outcomes: list[str] = []
        self.down: tuple[str, ...] = ()
        self.from_classic, self.from_quorum = Inbox(), Inbox()

    def before_step(self) -> None:
        self.outcomes = []
        self.down = ()
        self.from_classic.clear()
        self.from_quorum.clear()

    @property
    def waiting(self) -> tuple[int, int]:
        """How many messages wait in the classic and in the quorum queue; -1 where there is no such queue."""
        return self.ready(self.classic), self.ready(self.quorum)

    def told(self) -> str:
        return "the classic queue holds {}, the quorum queue {}".format(*self.waiting)

    def durable(self, queue: str) -> bool:
        """Whether the broker says that a queue is durable."""
        figures = self.figures.queue(self.key(queue))
        return figures is not None and figures.durable

    def empty(self) -> None:
        """Makes both queues empty."""
        self.delete(self.classic)
        self.delete(self.quorum)
        self.declare()

    def fill(self) -> None:
        """Makes sure that both queues hold six messages."""
        if self.waiting != (6, 6):
            self.repair()

    def ensure_restarted(self) -> None:
        """Makes sure that both queues hold what a stop of all nodes leaves of six messages."""
        if self.waiting != (3, 6):
            self.repair()
            self.stop_and_start()
            self.wait_until(lambda: self.waiting == (3, 6))

    def delete_quorum(self) -> None:
        """Deletes the quorum queue and waits until the broker reports that."""
        self.delete(self.quorum)
        self.wait_until_reported(lambda: not self.durable(self.quorum))

    def focus_on(self) -> Focus:
        return Focus(queue=self.classic)

    def declare(self) -> None:
        self.manager.declare(Queue(self.classic, "classic", durable=True), Queue(self.quorum, "quorum"))

    def both_are_durable(self) -> CheckResult:
        passed = self.wait_until_reported(lambda: self.durable(self.classic) and self.durable(self.quorum))
        words = [
            f"{name} is {'' if self.durable(self.unique_name(name)) else 'not '}durable"
            for name in ("classic", "quorum")
        ]
        return CheckResult(passed, f"the broker reports: {', '.join(words)}")

    def write(self) -> None:
        with DirectProducer(self.manager) as producer:
            for queue in (self.classic, self.quorum):
                handles = [producer.publish(queue, message) for message in PERSISTENT]
                handles += [producer.publish(queue, message, {"delivery_mode": 1}) for message in TRANSIENT]
                self.outcomes += [handle.result(10).outcome for handle in handles]

    def all_is_confirmed(self) -> CheckResult:
        passed = self.wait_until(lambda: self.waiting == (6, 6))
        confirmed = self.outcomes.count("confirmed")
        return CheckResult(passed and confirmed == 12, f"{confirmed} of 12 confirmed; {self.told()}")

    def stop_and_start(self) -> None:
        self.stop_cluster()
        self.down = tuple(node.name for node in self.cluster.nodes() if node.state is NodeState.STOPPED)
        self.start_cluster()

    def only_persistent_messages_survived_in_classic(self) -> CheckResult:
        passed = self.wait_until(lambda: self.waiting == (3, 6))
        every = len(self.down) == len(self.cluster.nodes())
        return CheckResult(
            passed and every,
            f"{', '.join(self.down) or 'no node'} stopped; {self.told()}; your answer was {self.answer}",
        )

    def read(self) -> None:
        for queue, inbox, kept in ((self.classic, self.from_classic, 3), (self.quorum, self.from_quorum, 6)):
            consumer = DirectConsumer(self.manager, queue)
            consumer.start_consuming(inbox.handle)
            inbox.wait_for(kept, 10)
            consumer.stop_consuming()

    def read_what_was_written(self) -> CheckResult:
        passed = self.wait_until(lambda: self.waiting == (0, 0))
        read = self.from_classic.messages, self.from_quorum.messages
        words = [", ".join(map(str, messages)) or "nothing" for messages in read]
        return CheckResult(
            passed and read == (PERSISTENT, PERSISTENT + TRANSIENT), f"classic: {words[0]}; quorum: {words[1]}"
        )

    def repair(self) -> None:
        """Restores the cluster and both queues with six messages each."""
        self.restore_cluster()
        self.empty()
        self.write()


DEMO = Demo(
    title="Message persistence",
    summary="Every node is stopped and started: which queues and which messages are still there?",
    context=PersistenceDemo,
    steps=(
        DemoStep(
            title="Two durable queues",
            explanation=(
                "A durable queue still exists after its broker was restarted. Durability is set when the queue is "
                "declared, and says nothing about its messages. Quorum queues and streams are always durable; a "
                "classic queue is durable if its client asks for it, as dmq does."
            ),
            terms=("durable", "classic queue", "quorum queue"),
            run=PersistenceDemo.declare,
            command="dmq queue declare {classic} --type classic\ndmq queue show {classic}",
            claim="The broker reports that both queues are durable.",
            check=PersistenceDemo.both_are_durable,
            sabotage=PersistenceDemo.delete_quorum,
        ),
        DemoStep(
            title="Persistent and transient messages",
            explanation=(
                "A message is persistent or transient: its publisher says which by delivery_mode, 2 for persistent and "
                "1 for transient. dmq sends 2 unless you set 1. A confirm is the same for both."
            ),
            terms=("persistent", "publisher confirm"),
            prepare=PersistenceDemo.empty,
            run=PersistenceDemo.write,
            command="dmq publish --key {classic} 'persistent 1'\n"
            "dmq publish --key {classic} --property delivery_mode=1 'transient 1'",
            claim="All are confirmed, and each queue holds three persistent and three transient messages.",
            check=PersistenceDemo.all_is_confirmed,
            sabotage=PersistenceDemo.delete_quorum,
        ),
        DemoStep(
            title="Every node stops, and starts again",
            explanation=(
                "No node is available for a while, and whatever was only in memory is lost. A classic queue keeps its "
                "persistent messages, since it wrote them to disk. A quorum queue writes every message to disk, "
                "whatever its delivery_mode."
            ),
            ask=DemoQuestion(
                "How many of its six messages will the classic queue still have?",
                usual="3",
                choices=("0", "3", "6"),
            ),
            prepare=PersistenceDemo.fill,
            run=PersistenceDemo.stop_and_start,
            command="dmq stop\ndmq start",
            claim="Every node was stopped. Both queues exist: the classic one with three messages, the other with six.",
            check=PersistenceDemo.only_persistent_messages_survived_in_classic,
            sabotage=PersistenceDemo.delete_quorum,
        ),
        DemoStep(
            title="What survived",
            explanation="The messages that survived are complete, and in the same order as before the stop.",
            terms=("consumer",),
            prepare=PersistenceDemo.ensure_restarted,
            run=PersistenceDemo.read,
            command="dmq consume {classic} --limit 3\ndmq consume {quorum} --limit 6",
            claim=(
                "The classic queue delivers the persistent messages, the quorum queue all of them, in the order of "
                "publishing."
            ),
            check=PersistenceDemo.read_what_was_written,
            sabotage=PersistenceDemo.delete_quorum,
        ),
    ),
    seen="All nodes were stopped and started. The durable classic queue kept only its persistent messages, though all "
    "messages had been confirmed. The quorum queue kept all of them.",
    when=(
        "Use quorum queues for messages that must not be lost: they also survive a node that never comes "
        "back, which no classic queue does. Transient messages on a classic queue are for data that is worthless after "
        "a restart, such as the current price."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectProducer, Queue

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    manager.declare(Queue("letters", "quorum"), Queue("prices", "classic"))
    with DirectProducer(manager) as producer:
        kept = producer.publish("letters", "Dear Ada, ...")
        lost = producer.publish("prices", "12.50", {"delivery_mode": 1})
        print(kept.result().outcome, lost.result().outcome)
""",
    to_try="Run the code, then 'dmq stop' and 'dmq start'. What does 'dmq queue list' show for letters and prices?",
    takes_s=60,
    repair=PersistenceDemo.repair,
    focus=PersistenceDemo.focus_on,
    breaks=True,
    loses_majority=True,
    impact="It stops every node and starts all of them again; no client can connect for about half a minute.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
