"""A queue with a single active consumer delivers to one consumer only; when that one ends, the next takes over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders

LONGEST_PAUSE_S = 10.0


class SingleActiveDemo(DemoContext):
    """Bookings to one account, which must be made in order, and three consumers that could make them."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.bookings = self.unique_name("bookings")
        self.connections = {name: self.client(name) for name in ("Ann", "Ben", "Cid")}
        self.consumers: dict[str, DirectConsumer] = {}
        self.stops_after: dict[str, int] = {}
        self.made: list[tuple[str, object]] = []
        self.may_work = threading.Event()
        self.may_work.set()
        self.on_close(self.close_consumers)

    def before_step(self) -> None:
        self.made = []
        self.stops_after = {}

    def handler_of(self, name: str) -> Callable[[object, MessageHeaders], bool]:
        """The handler of a consumer, which records the booking and stops after the set number."""

        def write(message: object, _headers: MessageHeaders) -> bool:
            self.may_work.wait(LONGEST_PAUSE_S)
            self.made.append((name, message))
            if [by for by, _ in self.made].count(name) == self.stops_after.get(name):
                self.consumers[name].stop_consuming()
            return True

        return write

    @property
    def subscribed(self) -> tuple[str, ...]:
        """The consumers of the queue, in the order in which they subscribed."""
        return tuple(name for name, consumer in self.consumers.items() if consumer.status.consuming)

    def subscribe(self, name: str) -> None:
        """Starts a consumer, behind those that consume already."""
        consumer = DirectConsumer(self.connections[name], self.bookings, order="strict")
        consumer.declare_queue(dead_letter=False)
        consumer.start_consuming(self.handler_of(name))
        self.wait_consuming(consumer)
        self.consumers.pop(name, None)
        self.consumers[name] = consumer

    def close_consumers(self) -> None:
        """Closes the consumers."""
        self.may_work.set()
        for consumer in self.consumers.values():
            consumer.close()

    def ensure_consumers(self, *names: str) -> None:
        """Makes sure that these consumers consume, in this order."""
        if self.subscribed != names:
            self.close_consumers()
            for name in names:
                self.subscribe(name)

    def ensure_all_three(self) -> None:
        self.ensure_consumers("Ann", "Ben", "Cid")

    def ensure_ben_and_cid(self) -> None:
        self.ensure_consumers("Ben", "Cid")

    def ensure_cid_only(self) -> None:
        self.ensure_consumers("Cid")

    def publish(self, first: int, last: int) -> None:
        """Publishes bookings with these numbers, and those between."""
        with DirectProducer(self.manager) as producer:
            for number in range(first, last + 1):
                producer.publish(self.bookings, f"booking {number}")
            producer.flush(10)

    def make_unexpected_booking(self) -> None:
        """Makes a booking that is none of the expected ones."""
        self.publish(0, 0)
        self.wait_until(lambda: "booking 0" in [message for _, message in self.made])

    def close_active(self) -> None:
        """Closes the active consumer and waits until the broker reports that."""
        name = self.subscribed[0]
        self.consumers[name].close()
        self.wait_until_reported(lambda: name not in self.activity(self.bookings))

    def reported_text(self) -> str:
        """Which consumer is active, as the broker reports."""
        words = (
            f"{name} {'is active' if active else 'waits'}" for name, active in self.activity(self.bookings).items()
        )
        return "the broker reports: " + (", ".join(words) or "no consumer")

    def is_reported(self, active: str, *waiting: str) -> bool:
        """Whether the broker reports, in the end, that one is active and the others wait."""
        wanted = {active: True, **dict.fromkeys(waiting, False)}
        return self.wait_until_reported(lambda: self.activity(self.bookings) == wanted)

    def bookings_made(self, *wanted: tuple[str, int, int]) -> CheckResult:
        """Whether, in the end, exactly these bookings were made, in this order: consumer, first and last number."""
        lines = [(name, f"booking {number}") for name, first, last in wanted for number in range(first, last + 1)]
        passed = self.wait_until(lambda: len(self.made) >= len(lines)) and self.made == lines
        by = {
            name: [str(message).split()[-1] for who, message in self.made if who == name] for name in self.connections
        }
        return CheckResult(
            passed, "; ".join(f"{name} made {', '.join(of)}" for name, of in by.items() if of) or "no bookings"
        )

    def focus_on(self) -> Focus:
        return Focus(queue=self.bookings)

    def subscribe_three(self) -> None:
        for name in ("Ann", "Ben", "Cid"):
            consumer = DirectConsumer(self.connections[name], self.bookings, order="strict")
            consumer.declare_queue(dead_letter=False)
            consumer.start_consuming(self.handler_of(name))
            self.wait_consuming(consumer)
            self.consumers[name] = consumer

    def only_first_is_active(self) -> CheckResult:
        return CheckResult(self.is_reported("Ann", "Ben", "Cid"), self.reported_text())

    def publish_six(self) -> None:
        with DirectProducer(self.manager) as producer:
            for number in range(1, 7):
                producer.publish(self.bookings, f"booking {number}")
            producer.flush(10)

    def ann_made_all_in_order(self) -> CheckResult:
        return self.bookings_made(("Ann", 1, 6))

    def stop_ann(self) -> None:
        self.consumers["Ann"].stop_consuming()
        self.publish(7, 9)

    def ben_is_next(self) -> CheckResult:
        seen = self.bookings_made(("Ben", 7, 9))
        return CheckResult(seen.passed and self.is_reported("Ben", "Cid"), f"{seen.text}; {self.reported_text()}")

    def stop_ben_in_the_middle(self) -> None:
        self.stops_after["Ben"] = int(self.answer)
        self.may_work.clear()
        self.publish(10, 17)
        self.may_work.set()

    def cid_went_on_where_ben_ended(self) -> CheckResult:
        last = 9 + int(self.answer)
        seen = self.bookings_made(("Ben", 10, last), ("Cid", last + 1, 17))
        return CheckResult(seen.passed and self.is_reported("Cid"), f"{seen.text}; {self.reported_text()}")

    def subscribe_ann_again(self) -> None:
        self.subscribe("Ann")
        self.publish(18, 20)

    def cid_stays_active(self) -> CheckResult:
        seen = self.bookings_made(("Cid", 18, 20))
        return CheckResult(seen.passed and self.is_reported("Cid", "Ann"), f"{seen.text}; {self.reported_text()}")

    def repair(self) -> None:
        """Restores an empty queue with three consumers."""
        self.close_consumers()
        self.delete(self.bookings)
        self.ensure_all_three()


DEMO = Demo(
    title="Single active consumer",
    summary="Of several consumers only one is active; when it ends the next takes over, and the order is kept.",
    context=SingleActiveDemo,
    steps=(
        DemoStep(
            title="Three consumers, one active",
            explanation=(
                "Consumers of a queue usually share its messages and work at the same time, so the order in which they "
                "finish is not known. A queue with the argument x-single-active-consumer delivers only to the consumer "
                "that subscribed first, and keeps the others waiting. In dmq that is order='strict'."
            ),
            terms=("queue", "quorum queue", "consumer", "single active consumer"),
            prepare=SingleActiveDemo.close_consumers,
            run=SingleActiveDemo.subscribe_three,
            command="dmq queue show {bookings}",
            claim="Of the three consumers the broker reports the first as active, and no other.",
            check=SingleActiveDemo.only_first_is_active,
            sabotage=SingleActiveDemo.close_active,
        ),
        DemoStep(
            title="One consumer gets everything",
            explanation=(
                "A queue keeps its messages in the order in which they were published. As only one consumer gets them, "
                "and handles one after the other, they are handled in that order, too."
            ),
            terms=("delivery", "acknowledgement"),
            prepare=SingleActiveDemo.ensure_all_three,
            run=SingleActiveDemo.publish_six,
            command="dmq publish --key {bookings} --count 6 'booking'",
            claim="Ann made all six bookings in their order, and the others made none.",
            check=SingleActiveDemo.ann_made_all_in_order,
            sabotage=SingleActiveDemo.make_unexpected_booking,
        ),
        DemoStep(
            title="The next consumer takes over",
            explanation=(
                "When the consumer Ann ends, no client has to do anything: the queue itself begins to deliver to the "
                "consumer that has waited longest."
            ),
            prepare=SingleActiveDemo.ensure_all_three,
            run=SingleActiveDemo.stop_ann,
            command="dmq publish --key {bookings} --count 3 'booking'",
            claim="Ben is active now, and made the three bookings that were published after Ann had ended.",
            check=SingleActiveDemo.ben_is_next,
            sabotage=SingleActiveDemo.close_active,
        ),
        DemoStep(
            title="A consumer ends in the middle of its work",
            explanation=(
                "A consumer is sent messages up to its prefetch: Ben has all eight bookings before the first one is "
                "made. Those that are not made when Ben ends return to their old places in the queue."
            ),
            terms=("prefetch", "redelivery"),
            ask=DemoQuestion("After how many of eight bookings shall Ben end?", usual="3", choices=tuple("1234567")),
            prepare=SingleActiveDemo.ensure_ben_and_cid,
            run=SingleActiveDemo.stop_ben_in_the_middle,
            command="dmq consume {bookings} --limit {answer}",
            claim="Cid went on where Ben ended: each booking was made once, and all in order.",
            check=SingleActiveDemo.cid_went_on_where_ben_ended,
            sabotage=SingleActiveDemo.make_unexpected_booking,
        ),
        DemoStep(
            title="A consumer that returns waits",
            explanation=(
                "Ann was active first, but lost its place when it ended. The queue switches to another consumer only "
                "when the active one ends, not when another subscribes."
            ),
            prepare=SingleActiveDemo.ensure_cid_only,
            run=SingleActiveDemo.subscribe_ann_again,
            command="dmq queue show {bookings}",
            claim="Cid stays active and made the new bookings, and Ann waits.",
            check=SingleActiveDemo.cid_stays_active,
            sabotage=SingleActiveDemo.close_active,
        ),
    ),
    seen=(
        "Three consumers were subscribed all the time and one was active. Whenever it ended, in the middle of its work "
        "or not, the next went on with the next message, so that the bookings were made in the order of publishing."
    ),
    when="Work whose order matters and that must not stop with one program: changes of an account, steps of a plan. "
    "The price is that one consumer works while the others wait. A consumer that crashes may have handled a message "
    "without acknowledging it; then the next one handles it again. Where order matters only within a customer or a "
    "document, use several such queues, or order='key', which handles different keys at the same time.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    handled = []

    def start(name, bookings):
        consumer = DirectConsumer(manager, "bookings", order="strict")
        consumer.declare_queue()

        def handle(message, headers):
            handled.append(message)
            print(name, message)
            if len(handled) >= bookings:
                consumer.stop_consuming()
            return True

        return consumer.start_consuming(handle)

    with DirectProducer(manager) as producer:
        ann = start("Ann", 3)
        for number in range(1, 7):
            producer.publish("bookings", f"booking {number}")
        producer.flush(10)
    ann.wait(10)
    start("Ben", 6).wait(10)
""",
    to_try="Run the code in two terminals at once. Which terminal makes which bookings?",
    takes_s=6,
    repair=SingleActiveDemo.repair,
    focus=SingleActiveDemo.focus_on,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
