"""What outlives a stop of every node: durable queues with their persistent messages, and quorum queues with all."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.protocol import NodeState
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, Queue

INK = ("ink 1", "ink 2", "ink 3")
CHALK = ("chalk 1", "chalk 2", "chalk 3")


class Slates(DemoContext):
    """Notes in ink and in chalk, on two queues, when the lights go out."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.classic = self.named("classic")
        self.quorum = self.named("quorum")
        self.outcomes: list[str] = []
        self.down: tuple[str, ...] = ()
        self.from_classic, self.from_quorum = Inbox(), Inbox()

    def begin(self) -> None:
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
        """Has both queues, with nothing in them."""
        self.delete(self.classic)
        self.delete(self.quorum)
        self.declare()

    def fill(self) -> None:
        """Has both queues with six messages each, unless they do."""
        if self.waiting != (6, 6):
            self.repair()

    def survive(self) -> None:
        """Has both queues with what is left of six messages each after a stop, unless they do."""
        if self.waiting != (3, 6):
            self.repair()
            self.stop_and_start()
            self.until(lambda: self.waiting == (3, 6))

    def lose_quorum(self) -> None:
        """Has the quorum queue gone, until the broker says so."""
        self.delete(self.quorum)
        self.until_told(lambda: not self.durable(self.quorum))

    def look(self) -> Focus:
        return Focus(queue=self.classic)

    def declare(self) -> None:
        self.manager.declare(Queue(self.classic, "classic", durable=True), Queue(self.quorum, "quorum"))

    def both_are_durable(self) -> CheckResult:
        passed = self.until_told(lambda: self.durable(self.classic) and self.durable(self.quorum))
        words = [
            f"{name} is {'' if self.durable(self.named(name)) else 'not '}durable" for name in ("classic", "quorum")
        ]
        return CheckResult(passed, f"the broker says: {', '.join(words)}")

    def write(self) -> None:
        with DirectProducer(self.manager) as producer:
            for queue in (self.classic, self.quorum):
                handles = [producer.publish(queue, note) for note in INK]
                handles += [producer.publish(queue, note, {"delivery_mode": 1}) for note in CHALK]
                self.outcomes += [handle.wait(10).outcome for handle in handles]

    def all_is_confirmed(self) -> CheckResult:
        passed = self.until(lambda: self.waiting == (6, 6))
        confirmed = self.outcomes.count("confirmed")
        return CheckResult(passed and confirmed == 12, f"{confirmed} of 12 confirmed; {self.told()}")

    def stop_and_start(self) -> None:
        self.stop_cluster()
        self.down = tuple(node.name for node in self.cluster.nodes() if node.state is NodeState.STOPPED)
        self.start_cluster()

    def ink_alone_outlived_classic(self) -> CheckResult:
        passed = self.until(lambda: self.waiting == (3, 6))
        every = len(self.down) == len(self.cluster.nodes())
        return CheckResult(
            passed and every, f"{', '.join(self.down) or 'nobody'} went down; {self.told()}; you said {self.answer}"
        )

    def read(self) -> None:
        for queue, inbox, kept in ((self.classic, self.from_classic, 3), (self.quorum, self.from_quorum, 6)):
            consumer = DirectConsumer(queue, self.manager)
            consumer.start_consuming(inbox.handle)
            inbox.wait_for(kept, 10)
            consumer.stop_consuming()

    def read_what_was_written(self) -> CheckResult:
        passed = self.until(lambda: self.waiting == (0, 0))
        read = self.from_classic.messages, self.from_quorum.messages
        words = [", ".join(map(str, messages)) or "nothing" for messages in read]
        return CheckResult(passed and read == (INK, INK + CHALK), f"classic: {words[0]}; quorum: {words[1]}")

    def repair(self) -> None:
        """Has a whole cluster and both queues, with six messages each."""
        self.restore_cluster()
        self.empty()
        self.write()


DEMO = Demo(
    title="Message persistence",
    summary="Every node is stopped and started: which queues and which messages are still there?",
    context=Slates,
    steps=(
        DemoStep(
            title="Two durable queues",
            explanation=(
                "A durable queue is still there after its broker was restarted. That is said when it is declared, and "
                "says nothing of what it holds. Quorum queues and streams are always durable; a classic queue is so if "
                "its client asks for it, as dmq does."
            ),
            terms=("durable", "classic queue", "quorum queue"),
            run=Slates.declare,
            command="dmq queue declare {classic} --type classic\ndmq queue show {classic}",
            claim="The broker says that both queues are durable.",
            check=Slates.both_are_durable,
            sabotage=Slates.lose_quorum,
        ),
        DemoStep(
            title="In ink and in chalk",
            explanation=(
                "A message is persistent or not, too: its publisher says so by delivery_mode, 2 for persistent and 1 "
                "for not. dmq says 2 unless it is told to say 1. A confirm does not tell them apart."
            ),
            terms=("persistent", "publisher confirm"),
            prepare=Slates.empty,
            run=Slates.write,
            command="dmq publish --key {classic} 'ink 1'\n"
            "dmq publish --key {classic} --property delivery_mode=1 'chalk 1'",
            claim="All are confirmed, and each queue holds three in ink and three in chalk.",
            check=Slates.all_is_confirmed,
            sabotage=Slates.lose_quorum,
        ),
        DemoStep(
            title="Every node stops, and starts again",
            explanation=(
                "Nobody serves for a while, and whatever was only in memory is gone. A classic queue then has what it "
                "wrote to disk to keep: the persistent messages. A quorum queue writes everything to disk to keep, "
                "whatever the message says."
            ),
            ask=DemoQuestion(
                "How many of its six messages will the classic queue still have?",
                usual="3",
                choices=("0", "3", "6"),
            ),
            prepare=Slates.fill,
            run=Slates.stop_and_start,
            command="dmq stop\ndmq start",
            claim="Every node was down. Both queues are back: the classic one with three messages, the other with six.",
            check=Slates.ink_alone_outlived_classic,
            sabotage=Slates.lose_quorum,
        ),
        DemoStep(
            title="What is left",
            explanation="A message that is kept is kept whole, and in its place: the order is the one before the stop.",
            terms=("consumer",),
            prepare=Slates.survive,
            run=Slates.read,
            command="dmq consume {classic} --limit 3\ndmq consume {quorum} --limit 6",
            claim="The classic queue gives what was in ink, the quorum queue everything, in the order of writing.",
            check=Slates.read_what_was_written,
            sabotage=Slates.lose_quorum,
        ),
    ),
    seen="All nodes were down and came back. The durable classic queue kept what its publisher had called persistent, "
    "and nothing else, though everything had been confirmed. The quorum queue kept all.",
    when="Take quorum queues for what must not get lost: they also live on when a node does not come back, which no "
    "classic queue does. Chalk, on a classic queue, is for what is worth nothing after a restart, such as the price "
    "of this second.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectProducer, Queue

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    manager.declare(Queue("letters", "quorum"), Queue("prices", "classic"))
    with DirectProducer(manager) as producer:
        kept = producer.publish("letters", "Dear Ada, ...")
        lost = producer.publish("prices", "12.50", {"delivery_mode": 1})
        print(kept.wait().outcome, lost.wait().outcome)
""",
    to_try="Run the code, then 'dmq stop' and 'dmq start'. What does 'dmq queue list' show for letters and prices?",
    takes_s=60,
    repair=Slates.repair,
    focus=Slates.look,
    breaks=True,
    loses_majority=True,
    impact="It stops every node and starts all of them again; nobody is served for half a minute or so.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
