"""A direct exchange routes a message to every queue that is bound with the message's routing key."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.exchange_context import ExchangeContext
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, DirectConsumer, DirectProducer, Exchange, Queue


class DirectDemo(ExchangeContext):
    """A direct exchange that routes orders by their state."""

    queues = ("billing", "audit")

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.shop = self.unique_name("shop")
        self.billing = self.unique_name("billing")
        self.audit = self.unique_name("audit")
        self.inbox = Inbox()

    def focus_on(self) -> Focus:
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
            self.outcome = handle.result(10).outcome

    def both_got_one(self) -> CheckResult:
        return self.got("billing", "audit")

    def publish_cancelled(self) -> None:
        with DirectProducer(self.manager, self.shop) as producer:
            handle = producer.publish("cancelled", "order 2 is cancelled")
            self.outcome = handle.result(10).outcome

    def only_audit_got_one(self) -> CheckResult:
        return self.got("audit")

    def publish_own(self) -> None:
        with DirectProducer(self.manager, self.shop) as producer:
            handle = producer.publish(self.answer, "your own message")
            self.outcome = handle.result(10).outcome

    def was_routed_by_its_key(self) -> CheckResult:
        names = {"paid": ("billing", "audit"), "cancelled": ("audit",)}.get(self.answer, ())
        seen = self.got(*names)
        outcome = "confirmed" if names else "returned"
        return CheckResult(seen.passed and self.outcome == outcome, f"key {self.answer!r}: {seen.text}")

    def consume(self) -> None:
        self.inbox.clear()
        consumer = DirectConsumer(self.manager, self.billing)
        consumer.start_consuming(self.inbox.handle)
        self.inbox.wait_for(self.before["billing"], 10)
        consumer.stop_consuming()

    def billing_is_empty_and_audit_is_not(self) -> CheckResult:
        kept = self.before["audit"]
        passed = self.wait_until(lambda: self.waiting == {"billing": 0, "audit": kept}) and kept > 0
        keys = sorted({one.routing_key for one in self.inbox.received})
        received = f"{len(self.inbox.received)} received, routing keys {', '.join(keys) or 'none'}"
        return CheckResult(passed, f"{received}; audit still holds {self.waiting['audit']}")

    def repair(self) -> None:
        """Restores the queue audit with a message in it."""
        self.bind()
        self.publish_cancelled()

    def delete_audit(self) -> None:
        self.delete(self.audit)


DEMO = Demo(
    title="Direct exchange",
    summary="A message is routed by its routing key: exactly the queues that are bound with that key get a copy.",
    context=DirectDemo,
    steps=(
        DemoStep(
            title="An exchange, two queues, three bindings",
            explanation="Publishers send to an exchange, not to queues. Its bindings say which queues get a copy.",
            terms=("exchange", "queue", "binding", "routing key"),
            run=DirectDemo.bind,
            command="dmq exchange list\ndmq queue list",
            claim="Both queues exist.",
            check=DirectDemo.queues_are_there,
            sabotage=DirectDemo.delete_audit,
        ),
        DemoStep(
            title="One message, two copies",
            explanation=(
                "Both queues are bound with the key 'paid', so each gets its own copy, independent of the other."
            ),
            terms=("publisher confirm",),
            run=DirectDemo.publish_paid,
            command="dmq publish --exchange {shop} --key paid 'order 1 is paid'",
            claim="The message is confirmed, and each queue got one copy.",
            check=DirectDemo.both_got_one,
            sabotage=DirectDemo.delete_audit,
        ),
        DemoStep(
            title="Another routing key, another queue",
            explanation=("A direct exchange compares the whole routing key. Billing is not bound with 'cancelled'."),
            run=DirectDemo.publish_cancelled,
            command="dmq publish --exchange {shop} --key cancelled 'order 2 is cancelled'",
            claim="Only audit got a copy.",
            check=DirectDemo.only_audit_got_one,
            sabotage=DirectDemo.delete_audit,
        ),
        DemoStep(
            title="Your own key",
            explanation=(
                "No queue is bound with any other key. A message that is routed to no queue is discarded silently, "
                "unless its publisher sets the mandatory flag. dmq always sets it, unless you say otherwise."
            ),
            terms=("mandatory",),
            ask=DemoQuestion("Which routing key shall the message have?", usual="refunded"),
            run=DirectDemo.publish_own,
            command="dmq publish --exchange {shop} --key {answer} 'your own message'",
            claim="With 'paid' both queues get a copy, with 'cancelled' audit does; with any other it is returned.",
            check=DirectDemo.was_routed_by_its_key,
            sabotage=DirectDemo.delete_audit,
        ),
        DemoStep(
            title="A consumer empties only its own queue",
            explanation=(
                "The broker delivers the messages of a queue to its consumer; once acknowledged, a message is removed."
            ),
            terms=("consumer", "delivery", "acknowledgement"),
            run=DirectDemo.consume,
            command="dmq consume {billing}",
            claim="Billing is empty now, and audit still has every message.",
            check=DirectDemo.billing_is_empty_and_audit_is_not,
            sabotage=DirectDemo.delete_audit,
        ),
    ),
    seen=(
        "The routing key of each message decided which queues got a copy: both, one or none. A message for no queue "
        "was returned to its publisher."
    ),
    when=(
        "Messages that are routed by one word: the kind of a task, a tenant, a region. The default exchange is a "
        "direct exchange to which every queue is bound with its own name, so you can publish straight to a queue."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer(manager, "billing", exchange_name="shop", routing_keys="paid")
    consumer.declare_queue()

    def handle(message, headers):
        print(headers.delivery.routing_key, message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with DirectProducer(manager, "shop") as producer:
        print(producer.publish("paid", "order 1 is paid").result().outcome)
    consumer.wait(10)
""",
    to_try="Bind a third queue with 'cancelled' (step 1 shows how) and publish again: which queue gets what?",
    takes_s=3,
    repair=DirectDemo.repair,
    focus=DirectDemo.focus_on,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
