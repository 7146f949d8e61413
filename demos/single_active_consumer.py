"""A queue with a single active consumer serves one consumer alone; when that one goes, the next takes over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders

BEFORE_A_BREAK = 10.0


class Ledger(DemoContext):
    """Bookings to one account, which must be made one after the other, and three clerks who could make them."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.bookings = self.named("bookings")
        self.programs = {name: self.client(name) for name in ("Ann", "Ben", "Cid")}
        self.clerks: dict[str, DirectConsumer] = {}
        self.leaves_after: dict[str, int] = {}
        self.book: list[tuple[str, object]] = []
        self.at_work = threading.Event()
        self.at_work.set()
        self.on_close(self.send_home)

    def begin(self) -> None:
        self.book = []
        self.leaves_after = {}

    def pen(self, name: str) -> Callable[[object, MessageHeaders], bool]:
        """The handler of a clerk, who writes into the common book and leaves when it is time."""

        def write(message: object, _headers: MessageHeaders) -> bool:
            self.at_work.wait(BEFORE_A_BREAK)
            self.book.append((name, message))
            if [by for by, _ in self.book].count(name) == self.leaves_after.get(name):
                self.clerks[name].stop_consuming()
            return True

        return write

    @property
    def line(self) -> tuple[str, ...]:
        """Who stands at the queue, in the order in which they came."""
        return tuple(name for name, clerk in self.clerks.items() if clerk.status.consuming)

    def stand(self, name: str) -> None:
        """Has a clerk come to the queue, behind those who are there."""
        clerk = DirectConsumer(self.bookings, self.programs[name], order="strict")
        clerk.declare_queue(dead_letter=False)
        clerk.start_consuming(self.pen(name))
        self.wait_subscribed(clerk)
        self.clerks.pop(name, None)
        self.clerks[name] = clerk

    def send_home(self) -> None:
        """Has nobody stand there."""
        self.at_work.set()
        for clerk in self.clerks.values():
            clerk.close()

    def arrange(self, *names: str) -> None:
        """Has these clerks stand there, in this order, unless they do."""
        if self.line != names:
            self.send_home()
            for name in names:
                self.stand(name)

    def all_three(self) -> None:
        self.arrange("Ann", "Ben", "Cid")

    def without_ann(self) -> None:
        self.arrange("Ben", "Cid")

    def cid_alone(self) -> None:
        self.arrange("Cid")

    def publish(self, first: int, last: int) -> None:
        """Publishes bookings with these numbers, and those between."""
        with DirectProducer(self.manager) as producer:
            for number in range(first, last + 1):
                producer.publish(self.bookings, f"booking {number}")
            producer.flush(10)

    def book_another(self) -> None:
        """Has a booking made that is none of those that were wanted."""
        self.publish(0, 0)
        self.until(lambda: "booking 0" in [message for _, message in self.book])

    def first_goes(self) -> None:
        """Has whoever is active go, until the broker says so."""
        name = self.line[0]
        self.clerks[name].close()
        self.until_told(lambda: name not in self.activity(self.bookings))

    def told(self) -> str:
        """Who is active, in the broker's words."""
        words = (
            f"{name} {'is active' if active else 'waits'}" for name, active in self.activity(self.bookings).items()
        )
        return "the broker says: " + (", ".join(words) or "nobody is there")

    def are_told(self, active: str, *waiting: str) -> bool:
        """Whether the broker says, at last, that one is active and the others wait."""
        wanted = {active: True, **dict.fromkeys(waiting, False)}
        return self.until_told(lambda: self.activity(self.bookings) == wanted)

    def written(self, *wanted: tuple[str, int, int]) -> CheckResult:
        """Whether the book holds, at last and in this order, the bookings from first to last of each of these."""
        lines = [(name, f"booking {number}") for name, first, last in wanted for number in range(first, last + 1)]
        passed = self.until(lambda: len(self.book) >= len(lines)) and self.book == lines
        by = {name: [str(message).split()[-1] for who, message in self.book if who == name] for name in self.programs}
        return CheckResult(
            passed, "; ".join(f"{name} made {', '.join(of)}" for name, of in by.items() if of) or "no bookings"
        )

    def look(self) -> Focus:
        return Focus(queue=self.bookings)

    def line_up(self) -> None:
        for name in ("Ann", "Ben", "Cid"):
            clerk = DirectConsumer(self.bookings, self.programs[name], order="strict")
            clerk.declare_queue(dead_letter=False)
            clerk.start_consuming(self.pen(name))
            self.wait_subscribed(clerk)
            self.clerks[name] = clerk

    def first_alone_is_active(self) -> CheckResult:
        return CheckResult(self.are_told("Ann", "Ben", "Cid"), self.told())

    def publish_six(self) -> None:
        with DirectProducer(self.manager) as producer:
            for number in range(1, 7):
                producer.publish(self.bookings, f"booking {number}")
            producer.flush(10)

    def ann_made_all_in_order(self) -> CheckResult:
        return self.written(("Ann", 1, 6))

    def ann_goes(self) -> None:
        self.clerks["Ann"].stop_consuming()
        self.publish(7, 9)

    def ben_is_next(self) -> CheckResult:
        seen = self.written(("Ben", 7, 9))
        return CheckResult(seen.passed and self.are_told("Ben", "Cid"), f"{seen.text}; {self.told()}")

    def ben_goes_in_the_middle(self) -> None:
        self.leaves_after["Ben"] = int(self.answer)
        self.at_work.clear()
        self.publish(10, 17)
        self.at_work.set()

    def cid_went_on_where_ben_stopped(self) -> CheckResult:
        last = 9 + int(self.answer)
        seen = self.written(("Ben", 10, last), ("Cid", last + 1, 17))
        return CheckResult(seen.passed and self.are_told("Cid"), f"{seen.text}; {self.told()}")

    def ann_comes_back(self) -> None:
        self.stand("Ann")
        self.publish(18, 20)

    def cid_stays_active(self) -> CheckResult:
        seen = self.written(("Cid", 18, 20))
        return CheckResult(seen.passed and self.are_told("Cid", "Ann"), f"{seen.text}; {self.told()}")

    def repair(self) -> None:
        """Has an empty queue, and nobody at it."""
        self.send_home()
        self.delete(self.bookings)
        self.all_three()


DEMO = Demo(
    title="Single active consumer",
    summary="Several consumers stand at a queue, one is served; when it goes the next takes over, and order is kept.",
    context=Ledger,
    steps=(
        DemoStep(
            title="Three at a queue, one at work",
            explanation=(
                "Consumers of a queue usually share its messages and work at the same time, so that nobody knows who "
                "is done first. A queue with the argument x-single-active-consumer serves the one that came first, and "
                "keeps the others waiting. In dmq that is order='strict'."
            ),
            terms=("queue", "quorum queue", "consumer", "single active consumer"),
            prepare=Ledger.send_home,
            run=Ledger.line_up,
            command="dmq queue show {bookings}",
            claim="Three consumers stand there, and the broker calls the first of them active, and no other.",
            check=Ledger.first_alone_is_active,
            sabotage=Ledger.first_goes,
        ),
        DemoStep(
            title="One gets everything",
            explanation=(
                "Messages wait in a queue in the order in which they came. As one consumer alone is served, and "
                "handles one message after the other, they are done in that order, too."
            ),
            terms=("delivery", "acknowledgement"),
            prepare=Ledger.all_three,
            run=Ledger.publish_six,
            command="dmq publish --key {bookings} --count 6 'booking'",
            claim="Ann made all six bookings in their order, and the others made none.",
            check=Ledger.ann_made_all_in_order,
            sabotage=Ledger.book_another,
        ),
        DemoStep(
            title="The next one takes over",
            explanation=(
                "Nobody has to be told that Ann is gone, and nobody elects anybody: the queue itself begins to serve "
                "the one that has waited longest."
            ),
            prepare=Ledger.all_three,
            run=Ledger.ann_goes,
            command="dmq publish --key {bookings} --count 3 'booking'",
            claim="Ben is the active one now, and made the three bookings that came after Ann had gone.",
            check=Ledger.ben_is_next,
            sabotage=Ledger.first_goes,
        ),
        DemoStep(
            title="Gone in the middle of it",
            explanation=(
                "A consumer is sent more than it has in hand, up to its prefetch: Ben has all eight bookings before he "
                "makes the first. What he has not made when he goes returns to its old place in the queue."
            ),
            terms=("prefetch", "redelivery"),
            ask=DemoQuestion("After how many of eight bookings shall Ben go?", usual="3", choices=tuple("1234567")),
            prepare=Ledger.without_ann,
            run=Ledger.ben_goes_in_the_middle,
            command="dmq consume {bookings} --limit {answer}",
            claim="Cid went on where Ben stopped: each booking was made once, and all in their order.",
            check=Ledger.cid_went_on_where_ben_stopped,
            sabotage=Ledger.book_another,
        ),
        DemoStep(
            title="Who comes back waits",
            explanation=(
                "Ann was active first, but a place in the line is lost with the consumer that had it. A switch is made "
                "only when the active one goes, not when another comes."
            ),
            prepare=Ledger.cid_alone,
            run=Ledger.ann_comes_back,
            command="dmq queue show {bookings}",
            claim="Cid stays the active one and made the new bookings, and Ann waits.",
            check=Ledger.cid_stays_active,
            sabotage=Ledger.first_goes,
        ),
    ),
    seen="Three consumers were ready all the time and one worked. Whenever it went, in the middle of its work or not, "
    "the next went on with the very next message, so that the bookings were made in the order of their publishing.",
    when="Work whose order matters and that must not stop with one program: changes of an account, steps of a plan. "
    "The price is that one works while the others wait. One that dies may have done a message and not said so; then "
    "the next does it again. Where order matters only within a customer or a document, "
    "use several such queues, or order='key', which handles different keys at the same time.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    handled = []

    def clerk(name, bookings):
        consumer = DirectConsumer("bookings", manager, order="strict")
        consumer.declare_queue()

        def handle(message, headers):
            handled.append(message)
            print(name, message)
            if len(handled) >= bookings:
                consumer.stop_consuming()
            return True

        return consumer.start_consuming(handle)

    with DirectProducer(manager) as producer:
        ann = clerk("Ann", 3)
        for number in range(1, 7):
            producer.publish("bookings", f"booking {number}")
        producer.flush(10)
    ann.wait(10)
    clerk("Ben", 6).wait(10)
""",
    to_try="Run the code in two terminals at once. Who makes which bookings?",
    takes_s=6,
    repair=Ledger.repair,
    focus=Ledger.look,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
