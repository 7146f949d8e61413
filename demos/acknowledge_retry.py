"""A queue keeps a message until a consumer acknowledges it; what fails is retried later, and parked in the end."""

from __future__ import annotations

import contextlib
import sys
from itertools import pairwise

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.errors import MessagingError
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders, Retry

DELAYS = (0.2, 0.5, 1.0)
# Broker and client measure milliseconds with different clocks.
TICK_S = 0.01


class RetryDemo(DemoContext):
    """Orders that are handled or fail, and payments that depend on a bank that does not always answer."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.orders = self.unique_name("orders")
        self.dead = self.unique_name("orders.dead")
        self.payments = self.unique_name("payments")
        self.parked = self.unique_name("payments.parked")
        for delay in DELAYS:
            self.unique_name(f"payments.retry.{delay * 1000:.0f}")
        self.orders_inbox, self.bank = Inbox(), Inbox()
        self.dead_before = self.parked_before = 0

    def before_step(self) -> None:
        self.clear()
        self.dead_before = max(0, self.ready(self.dead))
        self.parked_before = max(0, self.ready(self.parked))

    def clear(self) -> None:
        """Empties the queues and forgets what was handled."""
        for queue in (self.orders, self.payments):
            self.drain_queue(queue)
        self.orders_inbox.clear()
        self.bank.clear()

    def is_empty(self, queue: str) -> bool:
        return self.wait_until(lambda: self.ready(queue) == 0)

    def has_grown_by(self, queue: str, before: int, count: int) -> bool:
        return self.wait_until(lambda: self.ready(queue) == before + count)

    def focus_on_orders(self) -> Focus:
        return Focus(queue=self.orders)

    def focus_on_payments(self) -> Focus:
        return Focus(queue=self.payments)

    def focus_on_parked(self) -> Focus:
        return Focus(queue=self.parked)

    def acknowledge(self) -> None:
        def handle(message: object, headers: MessageHeaders) -> bool:
            self.orders_inbox.handle(message, headers)
            return True

        consumer = DirectConsumer(self.manager, self.orders)
        consumer.declare_queue()
        with DirectProducer(self.manager) as producer:
            producer.publish(self.orders, "a book").result(10)
        with consumer.start_consuming(handle):
            self.orders_inbox.wait_for(1, 10)

    def handled_once_and_gone(self) -> CheckResult:
        passed = self.is_empty(self.orders) and self.orders_inbox.messages == ("a book",)
        return CheckResult(passed, f"{self.handled_text}; {self.ready(self.orders)} wait")

    @property
    def handled_text(self) -> str:
        """What was handled, in words."""
        return "handled: " + (", ".join(f"{one}" for one in self.orders_inbox.messages) or "nothing")

    def crash(self) -> None:
        def crash(message: object, headers: MessageHeaders) -> bool:
            raise SystemExit("the consumer ends while it holds the message")

        with DirectProducer(self.manager) as producer:
            producer.publish(self.orders, "a lamp").result(10)
        consumer = DirectConsumer(self.manager, self.orders).start_consuming(crash)
        with contextlib.suppress(MessagingError):
            consumer.wait(10)
        with DirectConsumer(self.manager, self.orders).start_consuming(self.orders_inbox.handle):
            self.orders_inbox.wait_for(1, 10)

    def was_redelivered(self) -> CheckResult:
        flags = [one.redelivered for one in self.orders_inbox.received]
        passed = self.is_empty(self.orders) and flags == [True]
        marked = "marked as redelivered" if any(flags) else "not marked"
        return CheckResult(passed, f"{self.handled_text}, {marked}; {self.ready(self.orders)} wait")

    def reject(self) -> None:
        def reject_it(message: object, headers: MessageHeaders) -> bool:
            self.orders_inbox.handle(message, headers)
            headers.delivery.reject(requeue=False)
            return True

        with DirectProducer(self.manager) as producer:
            producer.publish(self.orders, "a book without a title").result(10)
        with DirectConsumer(self.manager, self.orders).start_consuming(reject_it):
            self.orders_inbox.wait_for(1, 10)

    def was_dead_lettered(self) -> CheckResult:
        passed = self.has_grown_by(self.dead, self.dead_before, 1) and self.is_empty(self.orders)
        dead = self.ready(self.dead) - self.dead_before
        return CheckResult(passed, f"dead letters: {dead} more; {self.ready(self.orders)} wait in orders")

    def retry(self) -> None:
        consumer = DirectConsumer(self.manager, self.payments, retry=Retry(delays=(0.2, 0.5, 1.0), mode="ladder"))
        consumer.declare_queue()

        def pay(message: object, headers: MessageHeaders) -> bool:
            self.bank.handle(message, headers)
            return headers.get("x-dmq-attempts", 0) == int(self.answer)

        with consumer.start_consuming(pay), DirectProducer(self.manager) as producer:
            producer.publish(self.payments, "pay for the lamp")
            self.bank.wait_for(int(self.answer) + 1, 10)

    def was_retried_after_delays(self) -> CheckResult:
        gaps = [later.delivery.at - one.delivery.at for one, later in pairwise(self.bank.received)]
        longest_wait_text = all(gap > delay - TICK_S for gap, delay in zip(gaps, DELAYS, strict=False))
        passed = longest_wait_text and len(gaps) == int(self.answer) and self.is_empty(self.payments)
        told = ", ".join(f"{gap:.2f}" for gap in gaps) or "0"
        return CheckResult(passed, f"delivered {len(gaps) + 1} times, after {told} s; {self.ready(self.payments)} wait")

    def fail_every_attempt(self) -> None:
        consumer = DirectConsumer(self.manager, self.payments, retry=Retry(delays=(0.2, 0.5, 1.0), mode="ladder"))
        consumer.declare_queue()

        def pay(message: object, headers: MessageHeaders) -> bool:
            self.bank.handle(message, headers)
            raise ConnectionError("the bank does not answer")

        with consumer.start_consuming(pay), DirectProducer(self.manager) as producer:
            producer.publish(self.payments, "pay for the book")
            self.wait_until(lambda: self.ready(self.parked) > self.parked_before)

    def was_parked(self) -> CheckResult:
        parked = self.has_grown_by(self.parked, self.parked_before, 1) and self.is_empty(self.payments)
        tries = len(self.bank.received)
        passed = parked and tries == len(DELAYS) + 1
        more = self.ready(self.parked) - self.parked_before
        return CheckResult(
            passed, f"tried {tries} times; parked: {more} more; {self.ready(self.payments)} wait in payments"
        )

    def ensure_parked(self) -> None:
        """Makes sure that a message is parked."""
        if self.ready(self.parked) < 1:
            self.before_step()
            self.fail_every_attempt()

    def replay(self) -> None:
        def again(message: object, headers: MessageHeaders) -> bool:
            queue, properties = str(headers["x-dmq-queue"]), headers.delivery.properties
            return producer.publish(queue, headers.delivery.body, properties).result(10).outcome == "confirmed"

        consumer = DirectConsumer(self.manager, self.payments)
        from_parked = DirectConsumer(self.manager, self.parked)
        with (
            DirectProducer(self.manager) as producer,
            consumer.start_consuming(self.bank.handle),
            from_parked.start_consuming(again),
        ):
            self.bank.wait_for(self.parked_before, 10)

    def was_paid(self) -> CheckResult:
        gone = self.is_empty(self.parked) and self.is_empty(self.payments)
        paid = self.bank.received
        passed = gone and len(paid) == self.parked_before > 0
        history = f", failed before: {paid[0].headers.get('x-dmq-error')}" if paid else ""
        left = f"{self.ready(self.parked)} parked, {self.ready(self.payments)} wait"
        return CheckResult(passed, f"paid {len(paid)} of {self.parked_before}{history}; {left}")

    def publish_unhandled(self) -> None:
        """Publishes one more message that is not handled."""
        with DirectProducer(self.manager) as producer:
            for queue in (self.orders, self.payments):
                producer.publish(queue, "not handled").result(10)


DEMO = Demo(
    title="Acknowledge and retry",
    summary=(
        "A queue keeps a message until its consumer acknowledges it; what fails is retried later and parked in the end."
    ),
    context=RetryDemo,
    steps=(
        DemoStep(
            title="Acknowledged",
            explanation=(
                "A queue delivers a message and keeps it until the consumer acknowledges it. With dmq a handler does "
                "so by returning True. A message that is not acknowledged returns to its queue as soon as the "
                "consumer's channel is closed, so a queue that stays empty after that has no message left."
            ),
            terms=("queue", "consumer", "delivery", "acknowledgement"),
            run=RetryDemo.acknowledge,
            command="dmq publish --key {orders} 'a book'\ndmq consume {orders} --limit 1",
            claim="The message was handled once; the consumer has ended, and the queue is empty.",
            check=RetryDemo.handled_once_and_gone,
            sabotage=RetryDemo.publish_unhandled,
            focus=RetryDemo.focus_on_orders,
        ),
        DemoStep(
            title="A consumer crashes",
            explanation=(
                "A consumer gets a message and crashes before it is done: it runs out of memory, or its machine fails. "
                "It acknowledged nothing, so the queue still has the message and delivers it to the next consumer. The "
                "redelivered flag says only that it may have been handled, wholly or in part. Here SystemExit stands "
                "for the crash: it ends the consumer without an acknowledgement."
            ),
            terms=("redelivery",),
            run=RetryDemo.crash,
            command="dmq publish --key {orders} 'a lamp'\ndmq consume {orders} --limit 1",
            claim="The next consumer got the same message, marked as redelivered, and the queue is empty.",
            check=RetryDemo.was_redelivered,
            sabotage=RetryDemo.publish_unhandled,
            focus=RetryDemo.focus_on_orders,
        ),
        DemoStep(
            title="Rejected",
            explanation=(
                "Some messages can never be handled, however often they are tried. A consumer rejects such a message, "
                "and the queue dead-letters it: dmq declares a queue for dead letters whose name ends in '.dead'. "
                "Without a dead letter exchange a queue drops what is rejected."
            ),
            terms=("dead letter",),
            run=RetryDemo.reject,
            command="dmq publish --key {orders} 'a book without a title'\ndmq consume {orders} --limit 1 --reject",
            claim="The queue is empty, and the queue for dead letters has one more message.",
            check=RetryDemo.was_dead_lettered,
            sabotage=RetryDemo.publish_unhandled,
            focus=RetryDemo.focus_on_orders,
        ),
        DemoStep(
            title="Retried after growing delays",
            explanation=(
                "Most failures are temporary: the bank does not answer now, and will in a moment. A handler reports a "
                "failure by returning False or raising. Requeued, the message would be delivered at once and fail "
                "again. Retry keeps it in delay queues, one for each delay, from which it returns when the delay is "
                "over: here after 0.2 s, then 0.5 s, then 1 s. The header x-dmq-attempts counts its failures."
            ),
            terms=("back-off",),
            ask=DemoQuestion("How often shall the payment fail?", usual="3", choices=("1", "2", "3")),
            run=RetryDemo.retry,
            command="dmq publish --key {payments} 'pay for the lamp'\ndmq queue list",
            claim="It was retried that many times, never before its delay was over, and then it was paid.",
            check=RetryDemo.was_retried_after_delays,
            sabotage=RetryDemo.publish_unhandled,
            focus=RetryDemo.focus_on_payments,
        ),
        DemoStep(
            title="Parked",
            explanation=(
                "Three delays make four attempts. A message that fails the fourth time is parked: it goes to a queue "
                "where it waits for a person, with its failures in its headers. It holds up no other message there, "
                "and it is not lost."
            ),
            run=RetryDemo.fail_every_attempt,
            command="dmq publish --key {payments} 'pay for the book'\ndmq queue show {parked}",
            claim="It was tried four times, the queue is empty, and one more is parked.",
            check=RetryDemo.was_parked,
            sabotage=RetryDemo.publish_unhandled,
            focus=RetryDemo.focus_on_parked,
        ),
        DemoStep(
            title="Replayed",
            explanation=(
                "Once the bank answers again, the parked messages are published to their queue again. Each copy has to "
                "be confirmed before the parked message is acknowledged: whatever crashes in between, there are two "
                "rather than none. A replayed message has all its attempts again."
            ),
            terms=("publisher confirm",),
            prepare=RetryDemo.ensure_parked,
            run=RetryDemo.replay,
            command="dmq consume {parked} --limit 1\ndmq publish --key {payments} 'pay for the book'",
            claim="Everything that was parked is paid, and both queues are empty.",
            check=RetryDemo.was_paid,
            sabotage=RetryDemo.publish_unhandled,
            focus=RetryDemo.focus_on_parked,
        ),
    ),
    seen=(
        "No message was lost: not with the consumer that crashed, not while the bank did not answer, not after the "
        "last attempt. Each message was in some queue until a consumer acknowledged it."
    ),
    when=(
        "Always acknowledge after the work, never before. Reject what can never succeed, retry what may, and check "
        "what is parked. A handler may get a message twice: make sure that this does no harm."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, Retry

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer(manager, "payments", retry=Retry(delays=(0.2, 0.5, 1.0)))
    consumer.declare_queue()

    def pay(message, headers):
        failures = headers.get("x-dmq-attempts", 0)
        print(message, "failed", failures, "times before")
        if failures == 2:
            consumer.stop_consuming()
        return failures == 2

    consumer.start_consuming(pay)
    with DirectProducer(manager) as producer:
        print(producer.publish("payments", "pay for the lamp").result().outcome)
    consumer.wait(10)
""",
    to_try="Let a handler always return False, without a Retry. How often does it get the message, and where does the "
    "message go?",
    takes_s=6,
    repair=RetryDemo.clear,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
