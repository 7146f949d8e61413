"""A fanout exchange copies every message to every queue that is bound to it."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, DirectConsumer, Exchange, FanoutConsumer, FanoutProducer, Queue


class FanoutDemo(DemoContext):
    """News for every consumer that listens, and an archive queue that keeps them."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.news = self.unique_name("news")
        self.archive = self.unique_name("archive")
        self.outcome = ""
        self.kept_before = 0
        self.received_before = (0, 0)
        self.by_radio, self.by_phone, self.by_latecomer, self.from_archive = Inbox(), Inbox(), Inbox(), Inbox()
        self.radio = self.phone = self.latecomer = self.listener()
        self.on_close(self.close_consumers)

    def listener(self) -> FanoutConsumer:
        return FanoutConsumer(self.manager, self.news)

    def before_step(self) -> None:
        self.kept_before = self.ready(self.archive)
        self.received_before = self.received

    @property
    def received(self) -> tuple[int, int]:
        """How many messages radio and phone received."""
        return len(self.by_radio.received), len(self.by_phone.received)

    def close_consumers(self) -> None:
        """Closes the consumers."""
        for listener in (self.radio, self.phone, self.latecomer):
            listener.close()

    def close_latecomer(self) -> None:
        """Closes the late consumer, so that it can be late again."""
        self.latecomer.close()
        self.by_latecomer.clear()

    def ensure_phone(self) -> None:
        """Makes sure that the phone consumes, so that it can stop."""
        if not self.phone.status.consuming:
            self.phone = self.listener().start_consuming(self.by_phone.handle)
            self.wait_until(lambda: self.phone.status.consuming)

    def ensure_archive_filled(self) -> None:
        """Makes sure that the archive holds something, and forgets what was consumed before."""
        self.from_archive.clear()
        if not self.ready(self.archive):
            self.publish_news()

    def archive_got_one(self) -> bool:
        return self.wait_until(lambda: self.ready(self.archive) == self.kept_before + 1)

    def received_text(self) -> str:
        radio, phone = (now - before for now, before in zip(self.received, self.received_before, strict=True))
        kept = self.ready(self.archive) - self.kept_before
        return f"{self.outcome}; radio received {radio}, phone {phone}, the archive {kept}"

    def focus_on(self) -> Focus:
        return Focus(exchange=self.news, queue=self.archive, tail=self.news)

    def open(self) -> None:
        self.manager.declare(
            Exchange(self.news, "fanout"),
            Queue(self.archive, "quorum"),
            Binding(self.news, self.archive),
        )

    def archive_is_there(self) -> CheckResult:
        kept = self.ready(self.archive)
        return CheckResult(kept >= 0, f"the archive holds {kept} messages")

    def start_listeners(self) -> None:
        self.radio = FanoutConsumer(self.manager, self.news)
        self.radio.start_consuming(self.by_radio.handle)
        self.phone = FanoutConsumer(self.manager, self.news)
        self.phone.start_consuming(self.by_phone.handle)

    def each_has_a_queue(self) -> CheckResult:
        listeners = (self.radio, self.phone)
        passed = self.wait_until(lambda: all(listener.status.consuming for listener in listeners))
        queues = [listener.status.queue for listener in listeners]
        return CheckResult(passed and queues[0] != queues[1], f"their queues are {' and '.join(queues)}")

    def publish_news(self) -> None:
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("It rains.")
            self.outcome = handle.result(10).outcome

    def all_received_one(self) -> CheckResult:
        wanted = tuple(before + 1 for before in self.received_before)
        passed = self.wait_until(lambda: self.received == wanted) and self.archive_got_one()
        return CheckResult(passed, self.received_text())

    def start_late(self) -> None:
        self.latecomer = FanoutConsumer(self.manager, self.news)
        self.latecomer.start_consuming(self.by_latecomer.handle)
        self.wait_until(lambda: self.latecomer.status.consuming)
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("It snows.")
            self.outcome = handle.result(10).outcome

    def latecomer_received_the_last_only(self) -> CheckResult:
        arrived = self.by_latecomer.wait_for(1, self.patience_s)
        passed = self.archive_got_one() and arrived and self.by_latecomer.messages == ("It snows.",)
        received = " ".join(str(message) for message in self.by_latecomer.messages) or "nothing"
        return CheckResult(
            passed, f"the late consumer received: {received} The archive holds {self.ready(self.archive)} messages"
        )

    def bind_with_own_key(self) -> None:
        self.manager.declare(Binding(self.news, self.archive, self.answer))
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("News without a key.")
            self.outcome = handle.result(10).outcome

    def archive_got_one_copy(self) -> CheckResult:
        passed = self.archive_got_one() and self.outcome == "confirmed"
        return CheckResult(passed, f"also bound with {self.answer!r}: {self.received_text()}")

    def stop_phone(self) -> None:
        self.phone.stop_consuming()
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("The sun is out.")
            self.outcome = handle.result(10).outcome

    def phone_missed_it(self) -> CheckResult:
        wanted = (self.received_before[0] + 1, self.received_before[1])
        passed = self.wait_until(lambda: self.received == wanted) and self.archive_got_one()
        gone = self.wait_until(lambda: self.depth(self.phone.status.queue) is None)
        return CheckResult(
            passed and gone, f"{self.received_text()}; the phone's queue is {'deleted' if gone else 'still there'}"
        )

    def consume_archive(self) -> None:
        consumer = DirectConsumer(self.manager, self.archive)
        consumer.start_consuming(self.from_archive.handle)
        self.from_archive.wait_for(self.kept_before, 10)
        consumer.stop_consuming()

    def archive_delivered_all(self) -> CheckResult:
        consumed = self.from_archive.messages
        passed = self.wait_until(lambda: self.ready(self.archive) == 0) and len(consumed) == self.kept_before > 0
        first = f", the first is {consumed[0]!r}" if consumed else ""
        left = self.ready(self.archive)
        return CheckResult(passed, f"{len(consumed)} of {self.kept_before} messages consumed{first}; {left} are left")

    def repair(self) -> None:
        """Restores the archive and the radio."""
        self.open()
        if not self.radio.status.consuming:
            self.radio = self.listener().start_consuming(self.by_radio.handle)
            self.wait_until(lambda: self.radio.status.consuming)

    def delete_archive(self) -> None:
        self.delete(self.archive)

    def close_radio(self) -> None:
        self.radio.close()


DEMO = Demo(
    title="Fanout exchange",
    summary=(
        "Every queue that is bound gets a copy of every message; a consumer that wants them has a queue of its own."
    ),
    context=FanoutDemo,
    steps=(
        DemoStep(
            title="An exchange and an archive",
            explanation=(
                "A fanout exchange ignores routing keys: each queue that is bound to it gets a copy of every message. "
                "The archive is a queue that exists whether it has consumers or not."
            ),
            terms=("exchange", "queue", "binding", "quorum queue"),
            run=FanoutDemo.open,
            command="dmq exchange list\ndmq queue list",
            claim="The archive queue exists.",
            check=FanoutDemo.archive_is_there,
            sabotage=FanoutDemo.delete_archive,
        ),
        DemoStep(
            title="Two consumers with private queues",
            explanation=(
                "A consumer that names no queue gets a private one with a unique name. The broker deletes it when that "
                "consumer ends."
            ),
            terms=("consumer",),
            prepare=FanoutDemo.close_consumers,
            run=FanoutDemo.start_listeners,
            command="dmq queue list",
            claim="Radio and phone consume, each from a queue of its own.",
            check=FanoutDemo.each_has_a_queue,
            sabotage=FanoutDemo.close_radio,
        ),
        DemoStep(
            title="One message, three copies",
            explanation="The publisher publishes once, and does not know which queues are bound.",
            terms=("publisher confirm",),
            run=FanoutDemo.publish_news,
            command="dmq publish --exchange {news} 'It rains.'",
            claim="Radio and phone received it once, and the archive has one copy.",
            check=FanoutDemo.all_received_one,
            sabotage=FanoutDemo.delete_archive,
        ),
        DemoStep(
            title="A consumer that starts late",
            explanation=(
                "An exchange stores nothing. A queue holds what was published since it was bound, and a private queue "
                "is bound when its consumer starts."
            ),
            prepare=FanoutDemo.close_latecomer,
            run=FanoutDemo.start_late,
            command="dmq publish --exchange {news} 'It snows.'",
            claim="The late consumer received only the new message. The archive has that one and all before it.",
            check=FanoutDemo.latecomer_received_the_last_only,
            sabotage=FanoutDemo.delete_archive,
        ),
        DemoStep(
            title="Routing keys are ignored",
            explanation=(
                "A binding may have a routing key, and so may a message. A fanout exchange ignores both. However often "
                "a queue is bound, it gets one copy."
            ),
            terms=("routing key",),
            ask=DemoQuestion("With which routing key shall the archive be bound once more?", usual="weather"),
            run=FanoutDemo.bind_with_own_key,
            command="dmq publish --exchange {news} 'News without a key.'",
            claim="The message has another key than the binding, and the archive still got it, once.",
            check=FanoutDemo.archive_got_one_copy,
            sabotage=FanoutDemo.delete_archive,
        ),
        DemoStep(
            title="A consumer stops",
            explanation=(
                "When the phone stops, its private queue is deleted. It gets nothing that is published from then on."
            ),
            prepare=FanoutDemo.ensure_phone,
            run=FanoutDemo.stop_phone,
            command="dmq publish --exchange {news} 'The sun is out.'",
            claim=(
                "The phone missed the message and its queue is deleted; the radio received it, and so did the archive."
            ),
            check=FanoutDemo.phone_missed_it,
            sabotage=FanoutDemo.delete_archive,
        ),
        DemoStep(
            title="The archive is consumed",
            explanation="The archive had no consumer so far, and it has every message.",
            terms=("acknowledgement",),
            prepare=FanoutDemo.ensure_archive_filled,
            run=FanoutDemo.consume_archive,
            command="dmq consume {archive}",
            claim="It delivers every message that it got, and is empty then.",
            check=FanoutDemo.archive_delivered_all,
            sabotage=FanoutDemo.delete_archive,
        ),
    ),
    seen=(
        "The publisher published every message once. Each queue that was bound at that time got a copy, whatever the "
        "keys were; consumers without a queue at that time missed it; and the archive kept everything until it was "
        "consumed."
    ),
    when=(
        "Messages for every consumer: a changed setting, a cache to be cleared, prices. Private queues are for "
        "consumers that need only current messages. A consumer that must miss nothing needs a durable queue with a "
        "name."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import FanoutConsumer, FanoutProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = FanoutConsumer(manager, "news", "archive")
    consumer.declare_queue()

    def handle(message, headers):
        print(message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with FanoutProducer(manager, "news") as producer:
        print(producer.publish("It rains.").result().outcome)
    consumer.wait(10)
""",
    to_try="Delete the archive with 'dmq queue delete' and stop all consumers. What becomes of the next message?",
    takes_s=4,
    repair=FanoutDemo.repair,
    focus=FanoutDemo.focus_on,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
