"""What keeps messages in their order, what breaks it, and how to have order and several handlers."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders, Retry

CHANGES = ("open", "pay in", "pay out", "close")


class Bank(DemoContext):
    """A bank whose accounts are opened, paid into and closed; who does that in another order comes to grief."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.changes = self.named("changes")
        self.retried = self.named("retried")
        self.strict = self.named("strict")
        self.dead = self.named("strict.dead")
        self.accounts = self.named("accounts")
        for word in ("changes.dead", "accounts.dead", "retried.parked", "retried.retry.200"):
            self.named(word)
        self.ledger = Inbox()
        self.dead_before = 0

    def begin(self) -> None:
        self.clear()
        self.dead_before = max(0, self.ready(self.dead))

    def clear(self) -> None:
        """Takes what nobody took, and begins a new page."""
        for queue in (self.changes, self.retried, self.strict, self.accounts):
            self.take_all(queue)
        self.ledger.clear()

    @property
    def written(self) -> str:
        """What the ledger says, in words."""
        return ", ".join(str(change) for change in self.ledger.messages) or "nothing"

    def seen(self, queue: str, wanted: tuple[str, ...]) -> CheckResult:
        """Whether the ledger says just this, and nothing is left in the queue."""
        passed = self.until(lambda: self.ready(queue) == 0) and self.ledger.messages == wanted
        return CheckResult(passed, f"{self.written}; {self.ready(queue)} wait")

    def seen_late(self, queue: str) -> CheckResult:
        """Whether the first change was done once, after all others, and nothing is left in the queue."""
        done = self.ledger.messages
        passed = self.until(lambda: self.ready(queue) == 0) and len(done) == len(CHANGES)
        return CheckResult(passed and set(done) == set(CHANGES) and done[-1] == "open", self.written)

    def look_at_changes(self) -> Focus:
        return Focus(queue=self.changes)

    def look_at_retried(self) -> Focus:
        return Focus(queue=self.retried)

    def look_at_strict(self) -> Focus:
        return Focus(queue=self.strict)

    def look_at_accounts(self) -> Focus:
        return Focus(queue=self.accounts)

    def one_by_one(self) -> None:
        consumer = DirectConsumer(self.changes, self.manager)
        consumer.declare_queue()
        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.changes, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(self.ledger.handle):
            self.ledger.wait_for(4)

    def in_order(self) -> CheckResult:
        return self.seen(self.changes, CHANGES)

    def side_by_side(self) -> None:
        def handle(message: object, headers: MessageHeaders) -> bool:
            if message == "open":
                self.ledger.wait_for(3)
            return self.ledger.handle(message, headers)

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.changes, ("open", "pay in", "pay out", "close"))
        with DirectConsumer(self.changes, self.manager, concurrency=4).start_consuming(handle):
            self.ledger.wait_for(4)

    def slow_one_was_passed(self) -> CheckResult:
        return self.seen_late(self.changes)

    def retry(self) -> None:
        consumer = DirectConsumer(self.retried, self.manager, retry=Retry(delays=(0.2,), mode="ladder"))
        consumer.declare_queue()

        def handle(message: object, headers: MessageHeaders) -> bool:
            if message == "open" and "x-dmq-attempts" not in headers:
                return False
            return self.ledger.handle(message, headers)

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.retried, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(handle):
            self.ledger.wait_for(4)

    def failed_one_was_passed(self) -> CheckResult:
        return self.seen_late(self.retried)

    def keep_strict_order(self) -> None:
        consumer = DirectConsumer(self.strict, self.manager, order="strict")
        consumer.declare_queue(delivery_limit=2)

        def handle(message: object, headers: MessageHeaders) -> bool:
            self.ledger.handle(message, headers)
            return message != self.answer or headers.delivery.attempts == 2

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.strict, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(handle):
            self.ledger.wait_for(5)

    def came_again_before_the_next(self) -> CheckResult:
        place = CHANGES.index(self.answer)
        return self.seen(self.strict, (*CHANGES[:place], self.answer, *CHANGES[place:]))

    def give_up_in_order(self) -> None:
        consumer = DirectConsumer(self.strict, self.manager, order="strict")
        consumer.declare_queue(delivery_limit=2)

        def handle(message: object, headers: MessageHeaders) -> bool:
            self.ledger.handle(message, headers)
            return message != "pay in"

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.strict, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(handle):
            self.ledger.wait_for(6)

    def made_way(self) -> CheckResult:
        seen = self.seen(self.strict, ("open", "pay in", "pay in", "pay in", "pay out", "close"))
        passed = self.until(lambda: self.ready(self.dead) == self.dead_before + 1)
        more = self.ready(self.dead) - self.dead_before
        return CheckResult(seen.passed and passed, f"{seen.text}; dead letters: {more} more")

    def keep_order_by_account(self) -> None:
        consumer = DirectConsumer(self.accounts, self.manager, order="key", key="account", concurrency=4)
        consumer.declare_queue()

        def handle(message: object, headers: MessageHeaders) -> bool:
            if headers["account"] == "ada" and message == "open":
                self.ledger.wait_for(4)
            return self.ledger.handle(message, headers)

        with DirectProducer(self.manager) as producer:
            for change in ("open", "pay in", "pay out", "close"):
                for account in ("ada", "bob"):
                    producer.publish(self.accounts, change, {"headers": {"account": account}})
        with consumer.start_consuming(handle):
            self.ledger.wait_for(8)

    def each_in_its_order(self) -> CheckResult:
        done = [(one.headers.get("account"), one.message) for one in self.ledger.received]
        empty = self.until(lambda: self.ready(self.accounts) == 0)
        passed = done == [(account, change) for account in ("bob", "ada") for change in CHANGES]
        told = ", ".join(f"{account} {change}" for account, change in done)
        return CheckResult(empty and passed, f"{told}; {self.ready(self.accounts)} wait")

    def open_again(self) -> None:
        """Has the first change come once more, after all others."""
        count = len(self.ledger.received)
        consumer = DirectConsumer(self.changes, self.manager)
        with consumer.start_consuming(self.ledger.handle), DirectProducer(self.manager) as producer:
            producer.publish(self.changes, "open")
            self.ledger.wait_for(count + 1, 10)


DEMO = Demo(
    title="Message ordering",
    summary="A queue keeps its order until several handlers or a failure break it; two ways of consuming keep it.",
    context=Bank,
    steps=(
        DemoStep(
            title="One consumer, one handler",
            explanation=(
                "A queue hands its messages out in the order in which they came in. One publisher, one queue and one "
                "consumer that handles one message after the other: as long as nothing fails, that order holds to the "
                "end."
            ),
            terms=("queue", "consumer"),
            run=Bank.one_by_one,
            command="dmq publish --key {changes} open\ndmq publish --key {changes} 'pay in'\n"
            "dmq consume {changes} --limit 2",
            claim="The four changes were made in the order in which they were published.",
            check=Bank.in_order,
            sabotage=Bank.open_again,
            focus=Bank.look_at_changes,
        ),
        DemoStep(
            title="Several at once break it",
            explanation=(
                "Four handlers take four messages, in order, and work on them side by side. Which one is done first "
                "depends on how long each takes. Several consumers on one queue do the same. In the code, opening the "
                "account takes until the other three are done."
            ),
            run=Bank.side_by_side,
            command="dmq queue show {changes}",
            claim="The account was opened last, though that message was the first.",
            check=Bank.slow_one_was_passed,
            sabotage=Bank.open_again,
            focus=Bank.look_at_changes,
        ),
        DemoStep(
            title="A failure breaks it",
            explanation=(
                "There is one handler again, and opening the account fails the first time. Retry has that message wait "
                "for 0.2 s in another queue. The three behind it are with the consumer already, as its prefetch "
                "allows, and do not wait."
            ),
            terms=("prefetch",),
            run=Bank.retry,
            command="dmq queue list",
            claim="The account was opened last, after its message came back.",
            check=Bank.failed_one_was_passed,
            sabotage=Bank.open_again,
            focus=Bank.look_at_retried,
        ),
        DemoStep(
            title="Strict order",
            explanation=(
                "With order='strict' the queue serves one consumer at a time, and that one holds the later messages "
                "back until a failed one has come again. The queue has to be made for it: it has a single active "
                "consumer, and a delivery limit, by which a quorum queue puts what is returned in front of what waits."
            ),
            terms=("single active consumer", "quorum queue", "delivery limit"),
            ask=DemoQuestion("Which change shall fail the first time?", usual="pay in", choices=CHANGES),
            run=Bank.keep_strict_order,
            command="dmq queue show {strict}",
            claim="The change that failed was tried again before any later one was.",
            check=Bank.came_again_before_the_next,
            sabotage=Bank.open_again,
            focus=Bank.look_at_strict,
        ),
        DemoStep(
            title="What never succeeds makes way",
            explanation=(
                "Order must not mean that one bad message holds up all others for ever. After two returns the queue "
                "gives it up, and it goes to the dead letters of this queue. What comes behind goes on without it: "
                "whether that is right, your handler has to know."
            ),
            terms=("dead letter",),
            run=Bank.give_up_in_order,
            command="dmq consume {dead} --limit 1",
            claim="Paying in was tried three times and is a dead letter now; the others were done in their order.",
            check=Bank.made_way,
            sabotage=Bank.open_again,
            focus=Bank.look_at_strict,
        ),
        DemoStep(
            title="Order by key",
            explanation=(
                "Mostly order matters only among messages about the same thing: one account, one customer. With "
                "order='key' the messages of a key are handled one after the other, those of different keys side by "
                "side. In the code, opening Ada's account takes until all is done with Bob's."
            ),
            run=Bank.keep_order_by_account,
            command="dmq publish --key {accounts} --header account=ada open\ndmq consume {accounts} --limit 1",
            claim="Bob's account was not held up by Ada's, and both had their changes made in order.",
            check=Bank.each_in_its_order,
            sabotage=Bank.open_again,
            focus=Bank.look_at_accounts,
        ),
    ),
    seen="The queue gave its messages out in order each time. Handlers side by side and a failed message that waited "
    "elsewhere broke the order behind it. Strict order kept all of it, and order by key what mattered of it.",
    when="First ask whether order matters, and among what: mostly within a key. Strict order is right where one "
    "handler is fast enough. Give each kind of order a queue of its own, with dead letters of its own.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer("accounts", manager, order="key", key="account", concurrency=4)
    consumer.declare_queue()

    def handle(message, headers):
        print(headers["account"], message)
        if message == "close":
            consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with DirectProducer(manager) as producer:
        for change in ("open", "pay in", "close"):
            producer.publish("accounts", change, {"headers": {"account": "ada"}})
    consumer.wait(10)
""",
    to_try="Two consumers with order='strict' take from one queue. What does the second get, and what when the first "
    "goes?",
    takes_s=3,
    repair=Bank.clear,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
