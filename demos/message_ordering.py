"""What keeps messages in order, what breaks the order, and how to keep it with several handlers."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders, Retry

CHANGES = ("open", "pay in", "pay out", "close")


class OrderingDemo(DemoContext):
    """Changes of bank accounts, which must be made in the order in which they were published."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.changes = self.unique_name("changes")
        self.retried = self.unique_name("retried")
        self.strict = self.unique_name("strict")
        self.dead = self.unique_name("strict.dead")
        self.accounts = self.unique_name("accounts")
        for word in ("changes.dead", "accounts.dead", "retried.parked", "retried.retry.200"):
            self.unique_name(word)
        self.handled = Inbox()
        self.dead_before = 0

    def before_step(self) -> None:
        self.clear()
        self.dead_before = max(0, self.ready(self.dead))

    def clear(self) -> None:
        """Empties the queues and forgets what was handled."""
        for queue in (self.changes, self.retried, self.strict, self.accounts):
            self.drain_queue(queue)
        self.handled.clear()

    @property
    def handled_text(self) -> str:
        """The changes that were handled, in order."""
        return ", ".join(str(change) for change in self.handled.messages) or "nothing"

    def exactly(self, queue: str, wanted: tuple[str, ...]) -> CheckResult:
        """Whether exactly these changes were handled, in this order, and the queue is empty."""
        passed = self.wait_until(lambda: self.ready(queue) == 0) and self.handled.messages == wanted
        return CheckResult(passed, f"{self.handled_text}; {self.ready(queue)} wait")

    def first_was_last(self, queue: str) -> CheckResult:
        """Whether the first change was made once, after all others, and the queue is empty."""
        done = self.handled.messages
        passed = self.wait_until(lambda: self.ready(queue) == 0) and len(done) == len(CHANGES)
        return CheckResult(passed and set(done) == set(CHANGES) and done[-1] == "open", self.handled_text)

    def focus_on_changes(self) -> Focus:
        return Focus(queue=self.changes)

    def focus_on_retried(self) -> Focus:
        return Focus(queue=self.retried)

    def focus_on_strict(self) -> Focus:
        return Focus(queue=self.strict)

    def focus_on_accounts(self) -> Focus:
        return Focus(queue=self.accounts)

    def one_by_one(self) -> None:
        consumer = DirectConsumer(self.manager, self.changes)
        consumer.declare_queue()
        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.changes, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(self.handled.handle):
            self.handled.wait_for(4)

    def in_order(self) -> CheckResult:
        return self.exactly(self.changes, CHANGES)

    def with_four_handlers(self) -> None:
        def handle(message: object, headers: MessageHeaders) -> bool:
            if message == "open":
                self.handled.wait_for(3)
            return self.handled.handle(message, headers)

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.changes, ("open", "pay in", "pay out", "close"))
        with DirectConsumer(self.manager, self.changes, concurrency=4).start_consuming(handle):
            self.handled.wait_for(4)

    def slow_change_was_last(self) -> CheckResult:
        return self.first_was_last(self.changes)

    def retry(self) -> None:
        consumer = DirectConsumer(self.manager, self.retried, retry=Retry(delays=(0.2,), mode="ladder"))
        consumer.declare_queue()

        def handle(message: object, headers: MessageHeaders) -> bool:
            if message == "open" and "x-dmq-attempts" not in headers:
                return False
            return self.handled.handle(message, headers)

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.retried, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(handle):
            self.handled.wait_for(4)

    def retried_change_was_last(self) -> CheckResult:
        return self.first_was_last(self.retried)

    def keep_strict_order(self) -> None:
        consumer = DirectConsumer(self.manager, self.strict, order="strict")
        consumer.declare_queue(delivery_limit=2)

        def handle(message: object, headers: MessageHeaders) -> bool:
            self.handled.handle(message, headers)
            return message != self.answer or headers.delivery.attempts == 2

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.strict, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(handle):
            self.handled.wait_for(5)

    def failed_change_was_retried_first(self) -> CheckResult:
        place = CHANGES.index(self.answer)
        return self.exactly(self.strict, (*CHANGES[:place], self.answer, *CHANGES[place:]))

    def dead_letter_in_order(self) -> None:
        consumer = DirectConsumer(self.manager, self.strict, order="strict")
        consumer.declare_queue(delivery_limit=2)

        def handle(message: object, headers: MessageHeaders) -> bool:
            self.handled.handle(message, headers)
            return message != "pay in"

        with DirectProducer(self.manager) as producer:
            producer.publish_many(self.strict, ("open", "pay in", "pay out", "close"))
        with consumer.start_consuming(handle):
            self.handled.wait_for(6)

    def was_dead_lettered(self) -> CheckResult:
        seen = self.exactly(self.strict, ("open", "pay in", "pay in", "pay in", "pay out", "close"))
        passed = self.wait_until(lambda: self.ready(self.dead) == self.dead_before + 1)
        more = self.ready(self.dead) - self.dead_before
        return CheckResult(seen.passed and passed, f"{seen.text}; dead letters: {more} more")

    def keep_order_by_account(self) -> None:
        consumer = DirectConsumer(self.manager, self.accounts, order="key", key="account", concurrency=4)
        consumer.declare_queue()

        def handle(message: object, headers: MessageHeaders) -> bool:
            if headers["account"] == "ada" and message == "open":
                self.handled.wait_for(4)
            return self.handled.handle(message, headers)

        with DirectProducer(self.manager) as producer:
            for change in ("open", "pay in", "pay out", "close"):
                for account in ("ada", "bob"):
                    producer.publish(self.accounts, change, {"headers": {"account": account}})
        with consumer.start_consuming(handle):
            self.handled.wait_for(8)

    def each_account_in_order(self) -> CheckResult:
        done = [(one.headers.get("account"), one.message) for one in self.handled.received]
        empty = self.wait_until(lambda: self.ready(self.accounts) == 0)
        passed = done == [(account, change) for account in ("bob", "ada") for change in CHANGES]
        text = ", ".join(f"{account} {change}" for account, change in done)
        return CheckResult(empty and passed, f"{text}; {self.ready(self.accounts)} wait")

    def open_again(self) -> None:
        """Makes the first change again, after all others."""
        count = len(self.handled.received)
        consumer = DirectConsumer(self.manager, self.changes)
        with consumer.start_consuming(self.handled.handle), DirectProducer(self.manager) as producer:
            producer.publish(self.changes, "open")
            self.handled.wait_for(count + 1, 10)


DEMO = Demo(
    title="Message ordering",
    summary="A queue delivers in order until several handlers or a failure break it; two ways of consuming keep it.",
    context=OrderingDemo,
    steps=(
        DemoStep(
            title="One consumer, one handler",
            explanation=(
                "A queue delivers its messages in the order in which they were published. With one publisher, one "
                "queue and one consumer that handles one message after the other, that order is kept as long as "
                "nothing fails."
            ),
            terms=("queue", "consumer"),
            run=OrderingDemo.one_by_one,
            command="dmq publish --key {changes} open\ndmq publish --key {changes} 'pay in'\n"
            "dmq consume {changes} --limit 2",
            claim="The four changes were made in the order in which they were published.",
            check=OrderingDemo.in_order,
            sabotage=OrderingDemo.open_again,
            focus=OrderingDemo.focus_on_changes,
        ),
        DemoStep(
            title="Several handlers break it",
            explanation=(
                "Four handlers take four messages in order and handle them at the same time. Which one is done first "
                "depends on how long each takes. Several consumers of one queue have the same effect. In the code, "
                "opening the account takes until the other three are done."
            ),
            run=OrderingDemo.with_four_handlers,
            command="dmq queue show {changes}",
            claim="The account was opened last, though that message was the first.",
            check=OrderingDemo.slow_change_was_last,
            sabotage=OrderingDemo.open_again,
            focus=OrderingDemo.focus_on_changes,
        ),
        DemoStep(
            title="A failure breaks it",
            explanation=(
                "There is one handler again, and opening the account fails the first time. Retry keeps that message "
                "for 0.2 s in another queue. The three messages behind it were delivered to the consumer already, as "
                "its prefetch allows, and are not delayed."
            ),
            terms=("prefetch",),
            run=OrderingDemo.retry,
            command="dmq queue list",
            claim="The account was opened last, after its message was retried.",
            check=OrderingDemo.retried_change_was_last,
            sabotage=OrderingDemo.open_again,
            focus=OrderingDemo.focus_on_retried,
        ),
        DemoStep(
            title="Strict order",
            explanation=(
                "With order='strict' the queue serves one consumer at a time, and the consumer holds later messages "
                "back until a failed one was delivered again. The queue has to be declared for this: with a single "
                "active consumer, and with a delivery limit, which makes a quorum queue put returned messages in "
                "front."
            ),
            terms=("single active consumer", "quorum queue", "delivery limit"),
            ask=DemoQuestion("Which change shall fail the first time?", usual="pay in", choices=CHANGES),
            run=OrderingDemo.keep_strict_order,
            command="dmq queue show {strict}",
            claim="The change that failed was tried again before any later one was.",
            check=OrderingDemo.failed_change_was_retried_first,
            sabotage=OrderingDemo.open_again,
            focus=OrderingDemo.focus_on_strict,
        ),
        DemoStep(
            title="A message that always fails is dead-lettered",
            explanation=(
                "One bad message must not hold up all others for ever. After two returns the queue dead-letters it to "
                "the queue for dead letters. The messages behind it go on without it: whether that is right depends on "
                "your handler."
            ),
            terms=("dead letter",),
            run=OrderingDemo.dead_letter_in_order,
            command="dmq consume {dead} --limit 1",
            claim="Paying in was tried three times and is a dead letter now; the others were made in order.",
            check=OrderingDemo.was_dead_lettered,
            sabotage=OrderingDemo.open_again,
            focus=OrderingDemo.focus_on_strict,
        ),
        DemoStep(
            title="Order by key",
            explanation=(
                "Often order matters only among messages about the same thing: one account, one customer. With "
                "order='key' the messages of one key are handled one after the other, those of different keys at the "
                "same time. In the code, opening Ada's account takes until Bob's changes are done."
            ),
            run=OrderingDemo.keep_order_by_account,
            command="dmq publish --key {accounts} --header account=ada open\ndmq consume {accounts} --limit 1",
            claim="Ada's slow change did not delay Bob's, and the changes of each account were made in order.",
            check=OrderingDemo.each_account_in_order,
            sabotage=OrderingDemo.open_again,
            focus=OrderingDemo.focus_on_accounts,
        ),
    ),
    seen=(
        "The queue delivered its messages in order each time. Several handlers, and a failed message that waited in "
        "another queue, broke that order. order='strict' kept the order of all messages, order='key' that of each key."
    ),
    when=(
        "First decide whether order matters, and among which messages: often only within a key. Use strict order where "
        "one handler is fast enough. Use a separate queue, with its own dead letters, for each kind of order."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer(manager, "accounts", order="key", key="account", concurrency=4)
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
    "stops?",
    takes_s=3,
    repair=OrderingDemo.clear,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
