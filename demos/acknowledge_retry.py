"""A message is gone only once a consumer says so; what fails is tried again later, and at last laid aside."""

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
# Broker and client count milliseconds each by a clock of their own.
TICK_S = 0.01


class Shop(DemoContext):
    """A shop whose desk takes orders, and whose payments depend on a bank that does not always answer."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.orders = self.named("orders")
        self.dead = self.named("orders.dead")
        self.payments = self.named("payments")
        self.parked = self.named("payments.parked")
        for delay in DELAYS:
            self.named(f"payments.retry.{delay * 1000:.0f}")
        self.desk, self.bank = Inbox(), Inbox()
        self.dead_before = self.parked_before = 0

    def begin(self) -> None:
        self.clear()
        self.dead_before = max(0, self.ready(self.dead))
        self.parked_before = max(0, self.ready(self.parked))

    def clear(self) -> None:
        """Takes what nobody took, and forgets what came."""
        for queue in (self.orders, self.payments):
            self.take_all(queue)
        self.desk.clear()
        self.bank.clear()

    def is_empty(self, queue: str) -> bool:
        return self.until(lambda: self.ready(queue) == 0)

    def grew_by(self, queue: str, before: int, count: int) -> bool:
        return self.until(lambda: self.ready(queue) == before + count)

    def look_at_orders(self) -> Focus:
        return Focus(queue=self.orders)

    def look_at_payments(self) -> Focus:
        return Focus(queue=self.payments)

    def look_at_parked(self) -> Focus:
        return Focus(queue=self.parked)

    def acknowledge(self) -> None:
        def handle(message: object, headers: MessageHeaders) -> bool:
            self.desk.handle(message, headers)
            return True

        consumer = DirectConsumer(self.orders, self.manager)
        consumer.declare_queue()
        with DirectProducer(self.manager) as producer:
            producer.publish(self.orders, "a book").wait(10)
        with consumer.start_consuming(handle):
            self.desk.wait_for(1, 10)

    def handled_once_and_gone(self) -> CheckResult:
        passed = self.is_empty(self.orders) and self.desk.messages == ("a book",)
        return CheckResult(passed, f"{self.handled}; {self.ready(self.orders)} wait")

    @property
    def handled(self) -> str:
        """What the desk got, in words."""
        return "handled: " + (", ".join(f"{one}" for one in self.desk.messages) or "nothing")

    def die(self) -> None:
        def die(message: object, headers: MessageHeaders) -> bool:
            raise SystemExit("the worker dies with the message in its hand")

        with DirectProducer(self.manager) as producer:
            producer.publish(self.orders, "a lamp").wait(10)
        worker = DirectConsumer(self.orders, self.manager).start_consuming(die)
        with contextlib.suppress(MessagingError):
            worker.wait(10)
        with DirectConsumer(self.orders, self.manager).start_consuming(self.desk.handle):
            self.desk.wait_for(1, 10)

    def came_again(self) -> CheckResult:
        flags = [one.redelivered for one in self.desk.received]
        passed = self.is_empty(self.orders) and flags == [True]
        marked = "marked as redelivered" if any(flags) else "not marked"
        return CheckResult(passed, f"{self.handled}, {marked}; {self.ready(self.orders)} wait")

    def reject(self) -> None:
        def refuse(message: object, headers: MessageHeaders) -> bool:
            self.desk.handle(message, headers)
            headers.delivery.reject(requeue=False)
            return True

        with DirectProducer(self.manager) as producer:
            producer.publish(self.orders, "a book without a title").wait(10)
        with DirectConsumer(self.orders, self.manager).start_consuming(refuse):
            self.desk.wait_for(1, 10)

    def went_to_the_dead_letters(self) -> CheckResult:
        passed = self.grew_by(self.dead, self.dead_before, 1) and self.is_empty(self.orders)
        dead = self.ready(self.dead) - self.dead_before
        return CheckResult(passed, f"dead letters: {dead} more; {self.ready(self.orders)} wait in orders")

    def retry(self) -> None:
        consumer = DirectConsumer(self.payments, self.manager, retry=Retry(delays=(0.2, 0.5, 1.0), mode="ladder"))
        consumer.declare_queue()

        def pay(message: object, headers: MessageHeaders) -> bool:
            self.bank.handle(message, headers)
            return headers.get("x-dmq-attempts", 0) == int(self.answer)

        with consumer.start_consuming(pay), DirectProducer(self.manager) as producer:
            producer.publish(self.payments, "pay for the lamp")
            self.bank.wait_for(int(self.answer) + 1, 10)

    def came_later_and_later(self) -> CheckResult:
        gaps = [later.delivery.at - one.delivery.at for one, later in pairwise(self.bank.received)]
        waited = all(gap > delay - TICK_S for gap, delay in zip(gaps, DELAYS, strict=False))
        passed = waited and len(gaps) == int(self.answer) and self.is_empty(self.payments)
        told = ", ".join(f"{gap:.2f}" for gap in gaps) or "0"
        return CheckResult(passed, f"came {len(gaps) + 1} times, after {told} s; {self.ready(self.payments)} wait")

    def give_up(self) -> None:
        consumer = DirectConsumer(self.payments, self.manager, retry=Retry(delays=(0.2, 0.5, 1.0), mode="ladder"))
        consumer.declare_queue()

        def pay(message: object, headers: MessageHeaders) -> bool:
            self.bank.handle(message, headers)
            raise ConnectionError("the bank does not answer")

        with consumer.start_consuming(pay), DirectProducer(self.manager) as producer:
            producer.publish(self.payments, "pay for the book")
            self.until(lambda: self.ready(self.parked) > self.parked_before)

    def was_parked(self) -> CheckResult:
        parked = self.grew_by(self.parked, self.parked_before, 1) and self.is_empty(self.payments)
        tries = len(self.bank.received)
        passed = parked and tries == len(DELAYS) + 1
        more = self.ready(self.parked) - self.parked_before
        return CheckResult(
            passed, f"tried {tries} times; parked: {more} more; {self.ready(self.payments)} wait in payments"
        )

    def park_one(self) -> None:
        """Has something to play again."""
        if self.ready(self.parked) < 1:
            self.begin()
            self.give_up()

    def replay(self) -> None:
        def again(message: object, headers: MessageHeaders) -> bool:
            queue, properties = str(headers["x-dmq-queue"]), headers.delivery.properties
            return producer.publish(queue, headers.delivery.body, properties).wait(10).outcome == "confirmed"

        worker = DirectConsumer(self.payments, self.manager)
        keeper = DirectConsumer(self.parked, self.manager)
        with (
            DirectProducer(self.manager) as producer,
            worker.start_consuming(self.bank.handle),
            keeper.start_consuming(again),
        ):
            self.bank.wait_for(self.parked_before, 10)

    def was_paid(self) -> CheckResult:
        gone = self.is_empty(self.parked) and self.is_empty(self.payments)
        paid = self.bank.received
        passed = gone and len(paid) == self.parked_before > 0
        history = f", failed before: {paid[0].headers.get('x-dmq-error')}" if paid else ""
        left = f"{self.ready(self.parked)} parked, {self.ready(self.payments)} wait"
        return CheckResult(passed, f"paid {len(paid)} of {self.parked_before}{history}; {left}")

    def leave_one(self) -> None:
        """Publishes one more that nobody takes."""
        with DirectProducer(self.manager) as producer:
            for queue in (self.orders, self.payments):
                producer.publish(queue, "nobody takes me").wait(10)


DEMO = Demo(
    title="Acknowledge and retry",
    summary="A message is gone only once its consumer says so; what fails comes again later and is parked at last.",
    context=Shop,
    steps=(
        DemoStep(
            title="Done",
            explanation=(
                "A queue hands a message out and keeps it until the consumer acknowledges it. With dmq that is what a "
                "handler says by returning True. A message that is not acknowledged goes back to its queue as soon as "
                "the consumer's channel is closed, so a queue that stays empty after that has nothing open."
            ),
            terms=("queue", "consumer", "delivery", "acknowledgement"),
            run=Shop.acknowledge,
            command="dmq publish --key {orders} 'a book'\ndmq consume {orders} --limit 1",
            claim="The message was handled once; the consumer is gone, and the queue is empty.",
            check=Shop.handled_once_and_gone,
            sabotage=Shop.leave_one,
            focus=Shop.look_at_orders,
        ),
        DemoStep(
            title="A worker dies",
            explanation=(
                "A worker takes a message and dies before it is done: it runs out of memory, or its machine goes. It "
                "acknowledged nothing, so the message is still the queue's, and the next worker gets it. The flag that "
                "it carries says only that it may have been handled, wholly or in part. Here SystemExit stands for the "
                "death: it ends the consumer, and the message has no answer."
            ),
            terms=("redelivery",),
            run=Shop.die,
            command="dmq publish --key {orders} 'a lamp'\ndmq consume {orders} --limit 1",
            claim="The next worker got the same message, marked as redelivered, and the queue is empty.",
            check=Shop.came_again,
            sabotage=Shop.leave_one,
            focus=Shop.look_at_orders,
        ),
        DemoStep(
            title="Refused for good",
            explanation=(
                "Some messages will never do, however often they are tried. A consumer rejects such a message, and the "
                "queue sends it to where its dead letters go: dmq declares a queue with '.dead' behind the name for "
                "them. A queue without such a place drops what is rejected."
            ),
            terms=("dead letter",),
            run=Shop.reject,
            command="dmq publish --key {orders} 'a book without a title'\ndmq consume {orders} --limit 1 --reject",
            claim="The queue is empty, and the queue for dead letters has got one more.",
            check=Shop.went_to_the_dead_letters,
            sabotage=Shop.leave_one,
            focus=Shop.look_at_orders,
        ),
        DemoStep(
            title="Tried again, later and later",
            explanation="Most failures pass: the bank does not answer now, and will in a moment. A handler says so by "
            "returning False or raising. Left to the queue, the message would come again at once, and fail as fast. "
            "Retry lets it wait in queues of its own, one for each delay, from which it comes back when the time is "
            "over: here after 0.2 s, then 0.5 s, then 1 s. The header x-dmq-attempts tells how often it failed.",
            terms=("back-off",),
            ask=DemoQuestion("How often shall the bank not answer?", usual="3", choices=("1", "2", "3")),
            run=Shop.retry,
            command="dmq publish --key {payments} 'pay for the lamp'\ndmq queue list",
            claim="It came again that many times, never before its delay was over, and then it was paid.",
            check=Shop.came_later_and_later,
            sabotage=Shop.leave_one,
            focus=Shop.look_at_payments,
        ),
        DemoStep(
            title="Laid aside",
            explanation=(
                "Three delays make four attempts. What fails then is parked: it goes to a queue where it waits for a "
                "person, with its failures told in its headers. It is in nobody's way there, and it is not lost."
            ),
            run=Shop.give_up,
            command="dmq publish --key {payments} 'pay for the book'\ndmq queue show {parked}",
            claim="It was tried four times, the queue is empty, and one more is parked.",
            check=Shop.was_parked,
            sabotage=Shop.leave_one,
            focus=Shop.look_at_parked,
        ),
        DemoStep(
            title="Replayed",
            explanation="Once the bank is back, somebody sends what was parked to its queue again. The copy has to be "
            "confirmed before the parked message is acknowledged: whatever dies in between, there is one too many "
            "rather than none. It begins anew, with all its attempts.",
            terms=("publisher confirm",),
            prepare=Shop.park_one,
            run=Shop.replay,
            command="dmq consume {parked} --limit 1\ndmq publish --key {payments} 'pay for the book'",
            claim="Everything that was parked is paid, and nothing is left in either queue.",
            check=Shop.was_paid,
            sabotage=Shop.leave_one,
            focus=Shop.look_at_parked,
        ),
    ),
    seen="Nothing was lost on the way: not with the worker that died, not while the bank was silent, not after the "
    "last attempt. Each message was in some queue until somebody said that it was done.",
    when="Acknowledge always after the work, never before. Reject what can never succeed, retry what may, and look "
    "at what is parked. A handler may see a message twice: make sure that this does no harm.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, Retry

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer("payments", manager, retry=Retry(delays=(0.2, 0.5, 1.0)))
    consumer.declare_queue()

    def pay(message, headers):
        failures = headers.get("x-dmq-attempts", 0)
        print(message, "failed", failures, "times before")
        if failures == 2:
            consumer.stop_consuming()
        return failures == 2

    consumer.start_consuming(pay)
    with DirectProducer(manager) as producer:
        print(producer.publish("payments", "pay for the lamp").wait().outcome)
    consumer.wait(10)
""",
    to_try="Have a handler return False always, without a Retry. How often does it see the message, and where does it "
    "go?",
    takes_s=6,
    repair=Shop.clear,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
