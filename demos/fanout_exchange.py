"""A fanout exchange copies every message to every queue that is bound to it."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, DirectConsumer, Exchange, FanoutConsumer, FanoutProducer, Queue


class News(DemoContext):
    """News for everybody who listens, and an archive that keeps them."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.news = self.named("news")
        self.archive = self.named("archive")
        self.outcome = ""
        self.kept_before = 0
        self.heard_before = (0, 0)
        self.by_radio, self.by_phone, self.by_latecomer, self.by_reader = Inbox(), Inbox(), Inbox(), Inbox()
        self.radio = self.phone = self.latecomer = self.listener()
        self.on_close(self.silence)

    def listener(self) -> FanoutConsumer:
        return FanoutConsumer(self.news, connection_manager=self.manager)

    def begin(self) -> None:
        self.kept_before = self.ready(self.archive)
        self.heard_before = self.heard

    @property
    def heard(self) -> tuple[int, int]:
        """How many messages came by radio and by phone."""
        return len(self.by_radio.received), len(self.by_phone.received)

    def silence(self) -> None:
        """Has nobody listen."""
        for listener in (self.radio, self.phone, self.latecomer):
            listener.close()

    def hang_up(self) -> None:
        """Has the latecomer be late once more."""
        self.latecomer.close()
        self.by_latecomer.clear()

    def call_again(self) -> None:
        """Has the phone listen, so that it can stop."""
        if not self.phone.status.consuming:
            self.phone = self.listener().start_consuming(self.by_phone.handle)
            self.until(lambda: self.phone.status.consuming)

    def fill_archive(self) -> None:
        """Has something to read, and forgets what was read before."""
        self.by_reader.clear()
        if not self.ready(self.archive):
            self.say()

    def kept_one(self) -> bool:
        return self.until(lambda: self.ready(self.archive) == self.kept_before + 1)

    def told(self) -> str:
        radio, phone = (now - before for now, before in zip(self.heard, self.heard_before, strict=True))
        kept = self.ready(self.archive) - self.kept_before
        return f"{self.outcome}; radio heard {radio}, phone {phone}, archive got {kept}"

    def look(self) -> Focus:
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

    def listen(self) -> None:
        self.radio = FanoutConsumer(self.news, connection_manager=self.manager)
        self.radio.start_consuming(self.by_radio.handle)
        self.phone = FanoutConsumer(self.news, connection_manager=self.manager)
        self.phone.start_consuming(self.by_phone.handle)

    def each_has_a_queue(self) -> CheckResult:
        listeners = (self.radio, self.phone)
        passed = self.until(lambda: all(listener.status.consuming for listener in listeners))
        queues = [listener.status.queue for listener in listeners]
        return CheckResult(passed and queues[0] != queues[1], f"they read {' and '.join(queues)}")

    def say(self) -> None:
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("It rains.")
            self.outcome = handle.wait(10).outcome

    def all_got_one(self) -> CheckResult:
        wanted = tuple(before + 1 for before in self.heard_before)
        passed = self.until(lambda: self.heard == wanted) and self.kept_one()
        return CheckResult(passed, self.told())

    def come_late(self) -> None:
        self.latecomer = FanoutConsumer(self.news, connection_manager=self.manager)
        self.latecomer.start_consuming(self.by_latecomer.handle)
        self.until(lambda: self.latecomer.status.consuming)
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("It snows.")
            self.outcome = handle.wait(10).outcome

    def latecomer_heard_the_last_alone(self) -> CheckResult:
        came = self.by_latecomer.wait_for(1, self.patience_s)
        passed = self.kept_one() and came and self.by_latecomer.messages == ("It snows.",)
        heard = " ".join(str(message) for message in self.by_latecomer.messages) or "nothing"
        return CheckResult(
            passed, f"the latecomer heard: {heard} The archive holds {self.ready(self.archive)} messages"
        )

    def bind_by_own_key(self) -> None:
        self.manager.declare(Binding(self.news, self.archive, self.answer))
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("Your own news, without a key.")
            self.outcome = handle.wait(10).outcome

    def archive_got_one_copy(self) -> CheckResult:
        passed = self.kept_one() and self.outcome == "confirmed"
        return CheckResult(passed, f"bound by {self.answer!r} too: {self.told()}")

    def stop_listening(self) -> None:
        self.phone.stop_consuming()
        with FanoutProducer(self.manager, self.news) as producer:
            handle = producer.publish("The sun is out.")
            self.outcome = handle.wait(10).outcome

    def phone_missed_it(self) -> CheckResult:
        wanted = (self.heard_before[0] + 1, self.heard_before[1])
        passed = self.until(lambda: self.heard == wanted) and self.kept_one()
        gone = self.until(lambda: self.depth(self.phone.status.queue) is None)
        return CheckResult(passed and gone, f"{self.told()}; the phone's queue is {'gone' if gone else 'still there'}")

    def read_archive(self) -> None:
        reader = DirectConsumer(self.archive, self.manager)
        reader.start_consuming(self.by_reader.handle)
        self.by_reader.wait_for(self.kept_before, 10)
        reader.stop_consuming()

    def reader_got_all(self) -> CheckResult:
        read = self.by_reader.messages
        passed = self.until(lambda: self.ready(self.archive) == 0) and len(read) == self.kept_before > 0
        first = f", the first is {read[0]!r}" if read else ""
        left = self.ready(self.archive)
        return CheckResult(passed, f"{len(read)} of {self.kept_before} messages read{first}; {left} are left")

    def repair(self) -> None:
        """Has the archive and the radio back."""
        self.open()
        if not self.radio.status.consuming:
            self.radio = self.listener().start_consuming(self.by_radio.handle)
            self.until(lambda: self.radio.status.consuming)

    def lose_archive(self) -> None:
        self.delete(self.archive)

    def lose_radio(self) -> None:
        self.radio.close()


DEMO = Demo(
    title="Fanout exchange",
    summary="Every queue that is bound gets a copy of every message; who listens decides by having a queue, or none.",
    context=News,
    steps=(
        DemoStep(
            title="An exchange and an archive",
            explanation=(
                "A fanout exchange asks nothing of a message: each queue that is bound to it gets a copy. The archive "
                "is a queue that stays, whether somebody reads it or not."
            ),
            terms=("exchange", "queue", "binding", "quorum queue"),
            run=News.open,
            command="dmq exchange list\ndmq queue list",
            claim="The archive is there.",
            check=News.archive_is_there,
            sabotage=News.lose_archive,
        ),
        DemoStep(
            title="Two who listen",
            explanation=(
                "A consumer that names no queue gets a private one, under a name that nobody else has. The broker "
                "deletes it when that consumer goes."
            ),
            terms=("consumer",),
            prepare=News.silence,
            run=News.listen,
            command="dmq queue list",
            claim="Radio and phone listen, each with a queue of its own.",
            check=News.each_has_a_queue,
            sabotage=News.lose_radio,
        ),
        DemoStep(
            title="One message, three copies",
            explanation="The publisher sends once, and does not know who listens.",
            terms=("publisher confirm",),
            run=News.say,
            command="dmq publish --exchange {news} 'It rains.'",
            claim="Radio and phone heard it once, and the archive keeps one copy.",
            check=News.all_got_one,
            sabotage=News.lose_archive,
        ),
        DemoStep(
            title="Who comes late",
            explanation=(
                "An exchange keeps nothing. A queue holds what was published since it was bound, and a private queue "
                "is bound when its consumer comes."
            ),
            prepare=News.hang_up,
            run=News.come_late,
            command="dmq publish --exchange {news} 'It snows.'",
            claim="The latecomer heard the new message alone. The archive keeps that one and those before.",
            check=News.latecomer_heard_the_last_alone,
            sabotage=News.lose_archive,
        ),
        DemoStep(
            title="Keys say nothing here",
            explanation=(
                "A binding may have a routing key, and so may a message. A fanout exchange looks at neither. However "
                "often a queue is bound, it gets one copy."
            ),
            terms=("routing key",),
            ask=DemoQuestion("By which routing key shall the archive be bound once more?", usual="weather"),
            run=News.bind_by_own_key,
            command="dmq publish --exchange {news} 'Your own news, without a key.'",
            claim="The message has another key than the binding, and the archive got it all the same, once.",
            check=News.archive_got_one_copy,
            sabotage=News.lose_archive,
        ),
        DemoStep(
            title="One stops listening",
            explanation="When the phone stops, its private queue goes. What is said from then on is not for it.",
            prepare=News.call_again,
            run=News.stop_listening,
            command="dmq publish --exchange {news} 'The sun is out.'",
            claim="The phone missed it and its queue is gone; the radio heard it, and the archive keeps it.",
            check=News.phone_missed_it,
            sabotage=News.lose_archive,
        ),
        DemoStep(
            title="The archive is read",
            explanation="Nobody listened to the archive so far, and it missed nothing.",
            terms=("acknowledgement",),
            prepare=News.fill_archive,
            run=News.read_archive,
            command="dmq consume {archive}",
            claim="It gives every message that it got, and is empty then.",
            check=News.reader_got_all,
            sabotage=News.lose_archive,
        ),
    ),
    seen="The publisher said everything once. Who had a queue at that time got a copy, whatever the keys were; who "
    "came later or had gone missed it; and a queue that stayed kept everything until it was read.",
    when="News for everybody: a changed setting, a cache to be emptied, prices. Private queues are for those who care "
    "about the present alone. Who must miss nothing needs a queue with a name, which stays.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import FanoutConsumer, FanoutProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = FanoutConsumer("news", "archive", manager)
    consumer.declare_queue()

    def handle(message, headers):
        print(message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with FanoutProducer(manager, "news") as producer:
        print(producer.publish("It rains.").wait().outcome)
    consumer.wait(10)
""",
    to_try="Delete the archive with 'dmq queue delete' and stop all who listen. What becomes of the next message?",
    takes_s=4,
    repair=News.repair,
    focus=News.look,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
