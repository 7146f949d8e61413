"""A stream is a log: consuming removes nothing, so any consumer can read it from any offset, at any time."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders, Queue

PAGES = ("home", "books", "basket", "payment", "thanks")
LATE_PAGES = ("home again", "more books")


class StreamDemo(DemoContext):
    """A stream of the pages of a shop that were visited."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.visits = self.unique_name("visits")
        self.written: tuple[str, ...] = ()
        self.anna, self.otto, self.report, self.alarm = Inbox(), Inbox(), Inbox(), Inbox()
        self.morning, self.evening = Inbox(), Inbox()

    def before_step(self) -> None:
        for inbox in (self.anna, self.otto, self.report, self.alarm, self.morning, self.evening):
            inbox.clear()

    def consume_from(self, inbox: Inbox, offset: int | str, most: int) -> None:
        """Consumes so many messages from an offset on, and stops."""
        consumer = DirectConsumer(self.manager, self.visits)

        def handle(message: object, headers: MessageHeaders) -> bool:
            if len(inbox.received) + 1 >= most:
                consumer.stop_consuming()
            return inbox.handle(message, headers)

        consumer.start_consuming(handle, offset=offset)
        self.wait_until(lambda: len(inbox.received) >= most)
        consumer.stop_consuming()

    def last_offset(self, inbox: Inbox) -> int:
        """The offset of the last message that was consumed; -1 if there is none."""
        return max((offset for offset in self.offsets(inbox) if offset is not None), default=-1)

    def offsets(self, inbox: Inbox) -> list[int | None]:
        return [one.delivery.offset for one in inbox.received]

    @property
    def all_is_there(self) -> bool:
        """Whether a consumer that begins at the first message now gets everything."""
        inbox = Inbox()
        self.consume_from(inbox, "first", len(self.written))
        return inbox.messages == self.written and self.offsets(inbox) == list(range(len(self.written)))

    def focus_on(self) -> Focus:
        return Focus(queue=self.visits)

    def append(self) -> None:
        stream = DirectConsumer(self.manager, self.visits)
        stream.declare_queue(queue_type="stream", dead_letter=False)
        with DirectProducer(self.manager) as producer:
            for page in PAGES:
                producer.publish(self.visits, page)
            producer.flush(10)
        self.written += PAGES

    def all_are_in_order(self) -> CheckResult:
        passed = self.all_is_there
        return CheckResult(
            passed, f"{len(self.written)} published" + (f", offsets 0 to {len(self.written) - 1}" if passed else "")
        )

    def read_twice(self) -> None:
        for reader in (self.anna, self.otto):
            consumer = DirectConsumer(self.manager, self.visits)
            consumer.start_consuming(reader.handle, offset="first")
            reader.wait_for(len(self.written), 10)
            consumer.stop_consuming()

    def both_read_all(self) -> CheckResult:
        both = self.anna.messages, self.otto.messages
        passed = both == (self.written, self.written) and self.all_is_there
        kept = (
            "a third consumer gets everything again" if passed else "a third consumer does not get what was published"
        )
        return CheckResult(passed, f"Anna read {len(both[0])}, Otto read {len(both[1])}; {kept}")

    def read_from_offset(self) -> None:
        consumer = DirectConsumer(self.manager, self.visits)
        consumer.start_consuming(self.anna.handle, offset=int(self.answer))
        self.anna.wait_for(len(self.written) - int(self.answer), 10)
        consumer.stop_consuming()

    def began_there(self) -> CheckResult:
        first = int(self.answer)
        passed = self.anna.messages == self.written[first:] and self.all_is_there
        offsets = self.offsets(self.anna)
        arrived = (
            f"{len(offsets)} delivered, offsets {offsets[0]} to {offsets[-1]}" if offsets else "nothing was delivered"
        )
        return CheckResult(passed and offsets == list(range(first, len(self.written))), arrived)

    def read_at_two_places(self) -> None:
        clerk = DirectConsumer(self.manager, self.visits)
        clerk.start_consuming(self.report.handle, offset="first")
        guard = DirectConsumer(self.manager, self.visits)
        guard.start_consuming(self.alarm.handle, offset="next")
        self.wait_consuming(guard)
        with DirectProducer(self.manager) as producer:
            for page in LATE_PAGES:
                producer.publish(self.visits, page)
            producer.flush(10)
        self.written += LATE_PAGES
        self.report.wait_for(len(self.written), 10)
        self.alarm.wait_for(len(LATE_PAGES), 10)
        clerk.stop_consuming()
        guard.stop_consuming()

    def each_read_its_own(self) -> CheckResult:
        read = self.report.messages, self.alarm.messages
        passed = read == (self.written, LATE_PAGES) and self.all_is_there
        return CheckResult(
            passed,
            f"the report read {len(read[0])} of {len(self.written)}, the alarm {len(read[1])}",
        )

    def stop_and_go_on(self) -> None:
        self.consume_from(self.morning, offset="first", most=2)
        place = self.last_offset(self.morning) + 1
        self.consume_from(self.evening, offset=place, most=len(self.written) - 2)

    def nothing_twice_nothing_missing(self) -> CheckResult:
        offsets = self.offsets(self.morning) + self.offsets(self.evening)
        passed = offsets == list(range(len(self.written))) and self.all_is_there
        told = [", ".join(map(str, self.offsets(inbox))) or "nothing" for inbox in (self.morning, self.evening)]
        return CheckResult(passed, f"offsets in the morning: {told[0]}; in the evening: {told[1]}")

    def repair(self) -> None:
        """Restores the stream with messages in it."""
        self.written = ()
        self.append()

    def replace_by_empty_stream(self) -> None:
        """Deletes the stream and declares an empty one of the same name."""
        self.delete(self.visits)
        self.manager.declare(Queue(self.visits, "stream"))


DEMO = Demo(
    title="Streams",
    summary=(
        "A stream keeps consumed messages: consumers read it from the first message, from an offset, or from now on."
    ),
    context=StreamDemo,
    steps=(
        DemoStep(
            title="A log instead of a queue",
            explanation=(
                "A queue removes a message once a consumer has acknowledged it. A stream keeps it: each message is "
                "appended at the end and has a number, its offset. You publish to a stream as to any queue."
            ),
            terms=("queue", "stream", "offset", "publisher confirm"),
            run=StreamDemo.append,
            command="dmq queue declare {visits} --type stream --argument x-queue-leader-locator=balanced\n"
            "dmq publish --key {visits} home",
            claim="Every message that was published is there, in order, with offsets from 0 on.",
            check=StreamDemo.all_are_in_order,
            sabotage=StreamDemo.replace_by_empty_stream,
        ),
        DemoStep(
            title="Consume it twice",
            explanation=(
                "A consumer of a stream says where to begin; 'first' is the oldest message that it still has. "
                "Consumers acknowledge so that the broker sends more. That removes nothing."
            ),
            terms=("consumer", "acknowledgement"),
            run=StreamDemo.read_twice,
            command="dmq consume {visits} --offset first --limit 5\ndmq consume {visits} --offset first --limit 5",
            claim="Anna read everything, then Otto read everything, and all messages are still there.",
            check=StreamDemo.both_read_all,
            sabotage=StreamDemo.replace_by_empty_stream,
        ),
        DemoStep(
            title="From an offset on",
            explanation=(
                "An offset never changes: message 3 is message 3 for every consumer. A consumer can also begin at a "
                "point in time, or at an age such as 1h."
            ),
            ask=DemoQuestion("From which offset shall Anna read?", usual="3", choices=tuple("01234")),
            run=StreamDemo.read_from_offset,
            command="dmq consume {visits} --offset {answer} --limit 1",
            claim="The first message delivered has that offset, and all messages after it followed.",
            check=StreamDemo.began_there,
            sabotage=StreamDemo.replace_by_empty_stream,
        ),
        DemoStep(
            title="Two consumers at two offsets",
            explanation=(
                "The report needs everything, so it begins at 'first'. The alarm needs only what is published from now "
                "on; that is 'next'. Then two more visits are published."
            ),
            run=StreamDemo.read_at_two_places,
            command="dmq consume {visits} --offset next",
            claim=("The report read everything, old and new; at the same time the alarm read only the new messages."),
            check=StreamDemo.each_read_its_own,
            sabotage=StreamDemo.replace_by_empty_stream,
        ),
        DemoStep(
            title="Stop, and continue later",
            explanation=(
                "Over AMQP 0-9-1 a stream does not store how far a consumer has read: to continue later, store "
                "the offset of the last message that was handled, and begin at the next one. Store it together with "
                "the result."
            ),
            run=StreamDemo.stop_and_go_on,
            command="dmq consume {visits} --offset first --limit 2\ndmq consume {visits} --offset 2 --limit 3",
            claim="Morning and evening together read every message, none twice and none left out.",
            check=StreamDemo.nothing_twice_nothing_missing,
            sabotage=StreamDemo.replace_by_empty_stream,
        ),
    ),
    seen=(
        "Several consumers read one log, from the first message, from an offset and from now on, one after the "
        "other and at the same time. None of them removed anything, and all messages are still there."
    ),
    when=(
        "Events that many consumers read, each at its own pace, or that are read again: for an audit, "
        "a new report, or after a bug was fixed. Limit a stream by x-max-age or x-max-length-bytes, since consuming "
        "does not make it shorter. Work that one of many consumers must do once belongs in a queue."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer(manager, "visits")
    consumer.declare_queue(queue_type="stream", arguments={"x-max-age": "7D"})
    with DirectProducer(manager) as producer:
        for page in ("home", "books", "thanks"):
            producer.publish("visits", page)
        producer.flush(10)

    def handle(message, headers):
        print(headers.delivery.offset, message)
        if message == "thanks":
            consumer.stop_consuming()
        return True

    consumer.start_consuming(handle, offset="first")
    consumer.wait(10)
""",
    to_try="Run the code twice: which offset is delivered first the second time, and how many messages are there then?",
    takes_s=4,
    repair=StreamDemo.repair,
    focus=StreamDemo.focus_on,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
