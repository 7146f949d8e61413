"""A stream is a log: reading removes nothing, so anybody reads it from any place, as often as they like."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders, Queue

PAGES = ("home", "books", "basket", "payment", "thanks")
LATE_PAGES = ("home again", "more books")


class Visits(DemoContext):
    """The pages of a shop that were looked at, in the order in which they were."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.visits = self.named("visits")
        self.written: tuple[str, ...] = ()
        self.anna, self.otto, self.report, self.alarm = Inbox(), Inbox(), Inbox(), Inbox()
        self.morning, self.evening = Inbox(), Inbox()

    def begin(self) -> None:
        for inbox in (self.anna, self.otto, self.report, self.alarm, self.morning, self.evening):
            inbox.clear()

    def read(self, inbox: Inbox, offset: int | str, most: int) -> None:
        """Reads so many messages from a place on, and stops."""
        consumer = DirectConsumer(self.visits, self.manager)

        def handle(message: object, headers: MessageHeaders) -> bool:
            if len(inbox.received) + 1 >= most:
                consumer.stop_consuming()
            return inbox.handle(message, headers)

        consumer.start_consuming(handle, offset=offset)
        self.until(lambda: len(inbox.received) >= most)
        consumer.stop_consuming()

    def last_offset(self, inbox: Inbox) -> int:
        """The offset of the message that was read last; -1 if there is none."""
        return max((offset for offset in self.offsets(inbox) if offset is not None), default=-1)

    def offsets(self, inbox: Inbox) -> list[int | None]:
        return [one.delivery.offset for one in inbox.received]

    @property
    def all_is_there(self) -> bool:
        """Whether somebody who comes now and begins at the first gets everything."""
        inbox = Inbox()
        self.read(inbox, "first", len(self.written))
        return inbox.messages == self.written and self.offsets(inbox) == list(range(len(self.written)))

    def look(self) -> Focus:
        return Focus(queue=self.visits)

    def append(self) -> None:
        stream = DirectConsumer(self.visits, self.manager)
        stream.declare_queue(queue_type="stream", dead_letter=False)
        with DirectProducer(self.manager) as producer:
            for page in PAGES:
                producer.publish(self.visits, page)
            producer.flush(10)
        self.written += PAGES

    def all_are_in_order(self) -> CheckResult:
        passed = self.all_is_there
        return CheckResult(
            passed, f"{len(self.written)} written" + (f", offsets 0 to {len(self.written) - 1}" if passed else "")
        )

    def read_twice(self) -> None:
        for reader in (self.anna, self.otto):
            consumer = DirectConsumer(self.visits, self.manager)
            consumer.start_consuming(reader.handle, offset="first")
            reader.wait_for(len(self.written), 10)
            consumer.stop_consuming()

    def both_read_all(self) -> CheckResult:
        both = self.anna.messages, self.otto.messages
        passed = both == (self.written, self.written) and self.all_is_there
        kept = "a third reader gets it all again" if passed else "a third reader does not get what was written"
        return CheckResult(passed, f"Anna read {len(both[0])}, Otto read {len(both[1])}; {kept}")

    def read_from_offset(self) -> None:
        consumer = DirectConsumer(self.visits, self.manager)
        consumer.start_consuming(self.anna.handle, offset=int(self.answer))
        self.anna.wait_for(len(self.written) - int(self.answer), 10)
        consumer.stop_consuming()

    def began_there(self) -> CheckResult:
        first = int(self.answer)
        passed = self.anna.messages == self.written[first:] and self.all_is_there
        offsets = self.offsets(self.anna)
        came = f"{len(offsets)} came, offsets {offsets[0]} to {offsets[-1]}" if offsets else "nothing came"
        return CheckResult(passed and offsets == list(range(first, len(self.written))), came)

    def read_at_two_places(self) -> None:
        clerk = DirectConsumer(self.visits, self.manager)
        clerk.start_consuming(self.report.handle, offset="first")
        guard = DirectConsumer(self.visits, self.manager)
        guard.start_consuming(self.alarm.handle, offset="next")
        self.wait_subscribed(guard)
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
        return CheckResult(passed, f"the report read {len(read[0])} of {len(self.written)}, the alarm {len(read[1])}")

    def stop_and_go_on(self) -> None:
        self.read(self.morning, offset="first", most=2)
        place = self.last_offset(self.morning) + 1
        self.read(self.evening, offset=place, most=len(self.written) - 2)

    def nothing_twice_nothing_missing(self) -> CheckResult:
        offsets = self.offsets(self.morning) + self.offsets(self.evening)
        passed = offsets == list(range(len(self.written))) and self.all_is_there
        told = [", ".join(map(str, self.offsets(inbox))) or "nothing" for inbox in (self.morning, self.evening)]
        return CheckResult(passed, f"offsets in the morning: {told[0]}; in the evening: {told[1]}")

    def repair(self) -> None:
        """Has the stream back, with something in it."""
        self.written = ()
        self.append()

    def empty(self) -> None:
        """Has somebody delete the stream and make another of its name."""
        self.delete(self.visits)
        self.manager.declare(Queue(self.visits, "stream"))


DEMO = Demo(
    title="Streams",
    summary="A stream keeps what was read: anybody reads it from the first message, from an offset, or from now on.",
    context=Visits,
    steps=(
        DemoStep(
            title="A log instead of a queue",
            explanation=(
                "A queue forgets a message once a consumer is done with it. A stream keeps it: what is published is "
                "written behind everything that is there, and counted. One publishes to it as to any queue."
            ),
            terms=("queue", "stream", "offset", "publisher confirm"),
            run=Visits.append,
            command="dmq queue declare {visits} --type stream --argument x-queue-leader-locator=balanced\n"
            "dmq publish --key {visits} home",
            claim="Everything that was written is there, in its order, and counted from offset 0.",
            check=Visits.all_are_in_order,
            sabotage=Visits.empty,
        ),
        DemoStep(
            title="Read it, and read it again",
            explanation=(
                "Who reads a stream says where to begin; 'first' is the oldest message that it still has. Readers "
                "acknowledge so that more is sent to them. Nothing is removed by that."
            ),
            terms=("consumer", "acknowledgement"),
            run=Visits.read_twice,
            command="dmq consume {visits} --offset first --limit 5\ndmq consume {visits} --offset first --limit 5",
            claim="Anna read everything, Otto read everything after her, and it is all still there.",
            check=Visits.both_read_all,
            sabotage=Visits.empty,
        ),
        DemoStep(
            title="From an offset on",
            explanation=(
                "An offset is a place for good: message 3 is message 3 for everybody, today and tomorrow. One can also "
                "begin at a time, or at an age such as 1h."
            ),
            ask=DemoQuestion("From which offset shall Anna read?", usual="3", choices=tuple("01234")),
            run=Visits.read_from_offset,
            command="dmq consume {visits} --offset {answer} --limit 1",
            claim="The first message that came is the one with that offset, and all behind it followed.",
            check=Visits.began_there,
            sabotage=Visits.empty,
        ),
        DemoStep(
            title="Two readers at two places",
            explanation=(
                "The report is about everything, so it begins at the first. The alarm cares about what comes from now "
                "on; that is 'next'. Then two more visits are written."
            ),
            run=Visits.read_at_two_places,
            command="dmq consume {visits} --offset next",
            claim="The report read everything, old and new; the alarm, at the same time, the new ones alone.",
            check=Visits.each_read_its_own,
            sabotage=Visits.empty,
        ),
        DemoStep(
            title="Stop, and go on later",
            explanation=(
                "Over AMQP a stream does not note how far anybody has read: whoever wants to go on later keeps the "
                "offset of the last message that was done, and begins at the one behind it. Keep it with the work."
            ),
            run=Visits.stop_and_go_on,
            command="dmq consume {visits} --offset first --limit 2\ndmq consume {visits} --offset 2 --limit 3",
            claim="Morning and evening together read everything, nothing twice and nothing left out.",
            check=Visits.nothing_twice_nothing_missing,
            sabotage=Visits.empty,
        ),
    ),
    seen="One log was read by several, from the first, from an offset and from now on, one after the other and at the "
    "same time. None took anything from another, and everything is still there.",
    when="Events that many read, each at their own pace, or that are read again: an audit, a new report over last "
    "week, a program whose mistake is mended. Bound it by x-max-age or x-max-length-bytes, for reading does not make "
    "it shorter. Work that one of many consumers must do once belongs in a queue.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = DirectConsumer("visits", manager)
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
    to_try="Run the code twice: which offset comes first the second time, and how many messages are there then?",
    takes_s=4,
    repair=Visits.repair,
    focus=Visits.look,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
