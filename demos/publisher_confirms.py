"""Each message has one outcome: confirmed, returned, nacked or unknown; and what a publisher can do about it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.lossy_link import LossyLink
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits, Queue

LIMIT = 2


class ConfirmsDemo(DemoContext):
    """A queue, one that does not exist, and one with a length limit of two."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.messages = self.unique_name("messages")
        self.nowhere = self.unique_name("nowhere")
        self.limited = self.unique_name("limited")
        self.outcomes: tuple[str, ...] = ()
        self.sends = self.before = self.copies = 0
        self.handled = Inbox()
        self._link: LossyLink | None = None

    def before_step(self) -> None:
        self.handled.clear()
        self.before = max(0, self.ready(self.messages))

    @property
    def link(self) -> LossyLink:
        """A connection through a proxy that can drop confirms."""
        if self._link is None:
            self._link = self.environment.link(self.cluster, self.client_name("link"))
            self.on_close(self._link.close)
        return self._link

    @contextlib.contextmanager
    def losing_confirms(self) -> Iterator[None]:
        """Inside, the link drops confirms; once one was dropped, the link is cut and works again."""
        lost = self.link.lost
        self.link.lose_confirms()
        try:
            yield
            self.wait_until(lambda: self.link.lost > lost)
        finally:
            self.link.break_off()

    @property
    def outcomes_text(self) -> str:
        return ", ".join(self.outcomes)

    def focus_on_messages(self) -> Focus:
        return Focus(queue=self.messages)

    def focus_on_limited(self) -> Focus:
        return Focus(queue=self.limited)

    def got(self, count: int) -> bool:
        return self.wait_until(lambda: self.ready(self.messages) == self.before + count)

    @property
    def more(self) -> str:
        """How many messages the queue got, in words."""
        return f"messages: {self.ready(self.messages) - self.before:+d}"

    def publish(self) -> None:
        self.manager.declare(Queue(self.messages, "quorum"))
        with DirectProducer(self.manager) as producer:
            handle = producer.publish(self.messages, "a message")
            self.outcomes = (handle.result(10).outcome,)

    def was_confirmed(self) -> CheckResult:
        return CheckResult(self.got(1) and self.outcomes == ("confirmed",), f"{self.outcomes_text}; {self.more}")

    def publish_unroutable(self) -> None:
        with DirectProducer(self.manager) as producer:
            asked = producer.publish(self.nowhere, "mandatory")
            unasked = producer.publish(self.nowhere, "not mandatory", mandatory=False)
            self.outcomes = (asked.result(10).outcome, unasked.result(10).outcome)

    def one_was_returned(self) -> CheckResult:
        passed = self.outcomes == ("returned", "confirmed") and self.depth(self.nowhere) is None
        return CheckResult(passed, f"mandatory: {self.outcomes[0]}; not mandatory: {self.outcomes[1]}")

    def declare_nowhere(self) -> None:
        """Declares the queue that should not exist."""
        self.manager.declare(Queue(self.nowhere, "classic"))

    def delete_limited(self) -> None:
        self.delete(self.limited)

    def fill(self) -> None:
        limit = {"x-max-length": 2, "x-overflow": "reject-publish"}
        self.manager.declare(Queue(self.limited, "classic", arguments=limit))
        with DirectProducer(self.manager) as producer:
            handles = producer.publish_many(self.limited, ["a message"] * int(self.answer))
            self.outcomes = tuple(handle.result(10).outcome for handle in handles)

    def above_the_limit_was_nacked(self) -> CheckResult:
        count = int(self.answer)
        taken = min(count, LIMIT)
        wanted = ("confirmed",) * taken + ("nacked",) * (count - taken)
        passed = self.outcomes == wanted and self.wait_until(lambda: self.ready(self.limited) == taken)
        return CheckResult(passed, f"{self.outcomes_text}; the limited queue holds {self.ready(self.limited)}")

    def lose_the_confirm(self) -> None:
        with DirectProducer(self.link.manager) as producer:
            with self.losing_confirms():
                handle = producer.publish(self.messages, "confirm lost")
            self.outcomes = (handle.result(10).outcome,)

    def is_unknown_and_in_the_queue(self) -> CheckResult:
        return CheckResult(self.got(1) and self.outcomes == ("unknown",), f"{self.outcomes_text}; {self.more}")

    def republish(self) -> None:
        with DirectProducer(self.link.manager, limits=ProducerLimits(republish=True)) as producer:
            with self.losing_confirms():
                handle = producer.publish(self.messages, "sent twice")
            settlement = handle.result(10)
        self.outcomes, self.sends = (settlement.outcome,), settlement.sends

    def is_there_twice(self) -> CheckResult:
        passed = self.got(self.sends) and self.sends > 1 and self.outcomes == ("confirmed",)
        return CheckResult(passed, f"{self.outcomes_text}, sent {self.sends} times; {self.more}")

    def ensure_copies(self) -> None:
        """Makes sure that there are copies to consume."""
        if self.ready(self.messages) < 1:
            self.republish()

    def consume_once(self) -> None:
        consumer = DirectConsumer(self.manager, self.messages, deduplicate=1000)
        with consumer.start_consuming(self.handled.handle):
            self.wait_until(lambda: consumer.stats.acked + consumer.stats.duplicates == self.before)
        self.copies = consumer.stats.duplicates

    def each_was_handled_once(self) -> CheckResult:
        ids = [one.delivery.properties.message_id for one in self.handled.received]
        once = len(set(ids)) == len(ids) > 0 and len(ids) + self.copies == self.before
        passed = self.wait_until(lambda: self.ready(self.messages) == 0) and once
        text = f"{self.before} delivered, {len(ids)} handled, {self.copies} recognised as copies"
        return CheckResult(passed, f"{text}; {self.ready(self.messages)} wait")

    def consume_all(self) -> None:
        """Consumes what is in the queue."""
        self.drain_queue(self.messages)

    def add_one(self) -> None:
        with DirectProducer(self.manager) as producer:
            producer.publish(self.messages, "one more").result(10)

    def repair(self) -> None:
        """Deletes the queue that should not exist and empties the other."""
        self.delete(self.nowhere)
        self.consume_all()


DEMO = Demo(
    title="Publisher confirms",
    summary="Each message has one outcome: confirmed, returned, nacked or unknown; an unknown one may be republished.",
    context=ConfirmsDemo,
    steps=(
        DemoStep(
            title="Confirmed",
            explanation=(
                "Publishing writes to a connection, which does not show what becomes of a message. So the broker sends "
                "a confirm once it is responsible for the message. With a quorum queue, that is when a majority of its "
                "members has it on disk. The publisher goes on meanwhile and checks the outcomes later."
            ),
            terms=("publisher confirm", "quorum queue"),
            run=ConfirmsDemo.publish,
            command="dmq publish --key {messages} 'a message'",
            claim="The message is confirmed, and the queue has one more.",
            check=ConfirmsDemo.was_confirmed,
            sabotage=ConfirmsDemo.consume_all,
            focus=ConfirmsDemo.focus_on_messages,
        ),
        DemoStep(
            title="Returned",
            explanation=(
                "A confirm does not say that a queue got the message. If it is routed to no queue, the broker discards "
                "it and confirms it, unless the message is mandatory: then it is returned. With dmq every message is "
                "mandatory unless you say otherwise, as for the second message here."
            ),
            terms=("mandatory",),
            run=ConfirmsDemo.publish_unroutable,
            command="dmq publish --key {nowhere} 'mandatory'",
            claim=(
                "The queue does not exist. The mandatory message was returned; the other was confirmed and discarded."
            ),
            check=ConfirmsDemo.one_was_returned,
            sabotage=ConfirmsDemo.declare_nowhere,
            focus=ConfirmsDemo.focus_on_messages,
        ),
        DemoStep(
            title="Nacked",
            explanation=(
                "A queue can have a length limit and reject what is above it. The broker then answers with a nack, and "
                "the publisher still has the message: it may wait, publish it elsewhere, or report an error. This "
                "queue takes two messages."
            ),
            terms=("nack", "classic queue"),
            ask=DemoQuestion("How many messages shall be published?", usual="3", choices=("1", "2", "3", "4", "5")),
            prepare=ConfirmsDemo.delete_limited,
            run=ConfirmsDemo.fill,
            command="dmq queue declare {limited} --type classic --argument x-max-length=2 "
            "--argument x-overflow=reject-publish\n"
            "dmq publish --key {limited} --count {answer} 'a message'",
            claim="The first two are confirmed, any further one is nacked, and the queue holds no more than two.",
            check=ConfirmsDemo.above_the_limit_was_nacked,
            sabotage=ConfirmsDemo.delete_limited,
            focus=ConfirmsDemo.focus_on_limited,
        ),
        DemoStep(
            title="Unknown",
            explanation=(
                "A proxy between client and node drops the confirm and then cuts the connection. To the publisher that "
                "looks the same as a connection that was cut before the message arrived. dmq does not guess: the "
                "outcome is unknown."
            ),
            terms=("unknown outcome",),
            run=ConfirmsDemo.lose_the_confirm,
            command="dmq queue show {messages}",
            claim="The outcome is unknown, and the queue has the message.",
            check=ConfirmsDemo.is_unknown_and_in_the_queue,
            sabotage=ConfirmsDemo.consume_all,
            focus=ConfirmsDemo.focus_on_messages,
        ),
        DemoStep(
            title="Republished",
            explanation=(
                "A publisher that must lose nothing publishes a message of unknown outcome again, with the same "
                "message id. With republish the producer does so itself once it is connected again. If the first one "
                "had not arrived, this would have saved the message. It had arrived, so there are two."
            ),
            run=ConfirmsDemo.republish,
            command="dmq queue show {messages}",
            claim="It is confirmed in the end, and the queue has it as often as it was published: more than once.",
            check=ConfirmsDemo.is_there_twice,
            sabotage=ConfirmsDemo.consume_all,
            focus=ConfirmsDemo.focus_on_messages,
        ),
        DemoStep(
            title="Handled once",
            explanation=(
                "If nothing may be lost, a message may arrive twice; redeliveries have the same effect. The consumer "
                "has to tolerate that. With deduplicate it remembers the ids of what it handled, and acknowledges a "
                "copy without handling it. It forgets the ids when it ends, so make the work itself idempotent where "
                "it must never be done twice: with a unique key in a database, for example."
            ),
            terms=("deduplication", "acknowledgement"),
            prepare=ConfirmsDemo.ensure_copies,
            run=ConfirmsDemo.consume_once,
            command="dmq consume {messages}",
            claim="Every message was handled once, however often it was delivered, and the queue is empty.",
            check=ConfirmsDemo.each_was_handled_once,
            sabotage=ConfirmsDemo.add_one,
            focus=ConfirmsDemo.focus_on_messages,
        ),
    ),
    seen=(
        "Each message had one outcome. Confirmed: the broker is responsible for it. Returned: it was routed to no "
        "queue. Nacked: a queue rejected it. Unknown: published again it is safe, and may arrive twice."
    ),
    when=(
        "Wherever a lost message matters, check every outcome. Without confirms a publisher cannot know which messages "
        "a broken connection lost."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    DirectConsumer(manager, "messages").declare_queue()
    with DirectProducer(manager, limits=ProducerLimits(republish=True)) as producer:
        handles = producer.publish_many("messages", [f"message {number}" for number in range(1000)])
        handles.append(producer.publish("nowhere", "a message for no queue"))
        for handle in handles:
            settlement = handle.result()
            if settlement.outcome != "confirmed":
                print(handle.body, settlement.outcome, settlement.reason)
""",
    to_try="Start 'dmq publish --count 100000' and kill a node meanwhile with 'dmq node kill'. How many are unknown?",
    takes_s=4,
    repair=ConfirmsDemo.repair,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
