"""A direct exchange copies a message to every queue that is bound by the message's routing key."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.exchange_context import ExchangeContext
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, DirectConsumer, DirectProducer, Exchange, Queue


class Shop(ExchangeContext):
    """A shop whose exchange sorts orders by what became of them."""

    queues = ("billing", "audit")

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.shop = self.named("shop")
        self.billing = self.named("billing")
        self.audit = self.named("audit")
        self.inbox = Inbox()

    def look(self) -> Focus:
        return Focus(exchange=self.shop, queue=self.audit, tail=self.shop)

    def bind(self) -> None:
        self.manager.declare(
            Exchange(self.shop, "direct"),
            Queue(self.billing, "quorum"),
            Queue(self.audit, "quorum"),
            Binding(self.shop, self.billing, "paid"),
            Binding(self.shop, self.audit, "paid"),
            Binding(self.shop, self.audit, "cancelled"),
        )

    def publish_paid(self) -> None:
        with DirectProducer(self.manager, self.shop) as producer:
            handle = producer.publish("paid", "order 1 is paid")
            self.outcome = handle.wait(10).outcome

    def both_got_one(self) -> CheckResult:
        return self.got("billing", "audit")

    def publish_cancelled(self) -> None:
        with DirectProducer(self.manager, self.shop) as producer:
            handle = producer.publish("cancelled", "order 2 is cancelled")
            self.outcome = handle.wait(10).outcome

    def audit_alone_got_one(self) -> CheckResult:
        return self.got("audit")

    def publish_own(self) -> None:
        with DirectProducer(self.manager, self.shop) as producer:
            handle = producer.publish(self.answer, "your own message")
            self.outcome = handle.wait(10).outcome

    def went_by_its_key_alone(self) -> CheckResult:
        names = {"paid": ("billing", "audit"), "cancelled": ("audit",)}.get(self.answer, ())
        seen = self.got(*names)
        outcome = "confirmed" if names else "returned"
        return CheckResult(seen.passed and self.outcome == outcome, f"key {self.answer!r}: {seen.text}")

    def consume(self) -> None:
        self.inbox.clear()
        consumer = DirectConsumer(self.billing, self.manager)
        consumer.start_consuming(self.inbox.handle)
        self.inbox.wait_for(self.before["billing"], 10)
        consumer.stop_consuming()

    def billing_is_empty_and_audit_is_not(self) -> CheckResult:
        kept = self.before["audit"]
        passed = self.until(lambda: self.waiting == {"billing": 0, "audit": kept}) and kept > 0
        keys = sorted({one.routing_key for one in self.inbox.received})
        received = f"{len(self.inbox.received)} received, keys {', '.join(keys) or 'none'}"
        return CheckResult(passed, f"{received}; audit still holds {self.waiting['audit']}")

    def repair(self) -> None:
        """Has audit back, with something in it."""
        self.bind()
        self.publish_cancelled()

    def lose_audit(self) -> None:
        self.delete(self.audit)


DEMO = Demo(
    title="Direct exchange",
    summary="The routing key of a message says which queues get a copy of it: exactly those that are bound by it.",
    context=Shop,
    steps=(
        DemoStep(
            title="An exchange, two queues, three bindings",
            explanation="Publishers send to an exchange, not to queues. Its bindings say which queues get a copy.",
            terms=("exchange", "queue", "binding", "routing key"),
            run=Shop.bind,
            command="dmq exchange list\ndmq queue list",
            claim="Both queues are there.",
            check=Shop.queues_are_there,
            sabotage=Shop.lose_audit,
        ),
        DemoStep(
            title="One message, two copies",
            explanation=(
                "Both queues are bound by the key 'paid', so each gets a copy of its own: what one does with it does "
                "not concern the other."
            ),
            terms=("publisher confirm",),
            run=Shop.publish_paid,
            command="dmq publish --exchange {shop} --key paid 'order 1 is paid'",
            claim="The message is confirmed, and each queue got one copy.",
            check=Shop.both_got_one,
            sabotage=Shop.lose_audit,
        ),
        DemoStep(
            title="Another key, another way",
            explanation=(
                "A direct exchange compares the whole key, letter by letter. Billing is not bound by 'cancelled'."
            ),
            run=Shop.publish_cancelled,
            command="dmq publish --exchange {shop} --key cancelled 'order 2 is cancelled'",
            claim="Audit alone got a copy.",
            check=Shop.audit_alone_got_one,
            sabotage=Shop.lose_audit,
        ),
        DemoStep(
            title="Your own key",
            explanation=(
                "No queue is bound by any other key. A message that nobody wants is lost without a word, unless its "
                "publisher asked to get it back. dmq always asks."
            ),
            terms=("mandatory",),
            ask=DemoQuestion("Which routing key shall the message have?", usual="refunded"),
            run=Shop.publish_own,
            command="dmq publish --exchange {shop} --key {answer} 'your own message'",
            claim="With 'paid' both queues get a copy, with 'cancelled' audit does; with any other it comes back.",
            check=Shop.went_by_its_key_alone,
            sabotage=Shop.lose_audit,
        ),
        DemoStep(
            title="A consumer takes from its queue alone",
            explanation=(
                "A consumer is sent what its queue holds, and acknowledges each message; then the queue forgets it."
            ),
            terms=("consumer", "delivery", "acknowledgement"),
            run=Shop.consume,
            command="dmq consume {billing}",
            claim="Billing is empty now, and audit still has every message.",
            check=Shop.billing_is_empty_and_audit_is_not,
            sabotage=Shop.lose_audit,
        ),
    ),
    seen="One exchange, and the key of each message alone decided which queues got a copy: both, one or none. A "
    "message for none came back to its publisher.",
    when="Work that is told apart by one word: a task's kind, a tenant, a region. With the default exchange, a direct "
    "one to which every queue is bound by its own name, you address a queue straight.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer("billing", manager, exchange_name="shop", routing_keys="paid")
    consumer.declare_queue()

    def handle(message, headers):
        print(headers.delivery.routing_key, message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with DirectProducer(manager, "shop") as producer:
        print(producer.publish("paid", "order 1 is paid").wait().outcome)
    consumer.wait(10)
""",
    to_try="Bind a third queue by 'cancelled' (step 1 shows how) and publish again: who gets what?",
    takes_s=3,
    repair=Shop.repair,
    focus=Shop.look,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
