"""What a publisher hears of each message: confirmed, returned, refused, or nothing; and what it can do about that."""

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

ROOM = 2


class Post(DemoContext):
    """Letters on their way, and a box with room for two."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.letters = self.named("letters")
        self.nowhere = self.named("nowhere")
        self.box = self.named("box")
        self.outcomes: tuple[str, ...] = ()
        self.sends = self.before = self.copies = 0
        self.read = Inbox()
        self._link: LossyLink | None = None

    def begin(self) -> None:
        self.read.clear()
        self.before = max(0, self.ready(self.letters))

    @property
    def link(self) -> LossyLink:
        """A link on which confirms can get lost."""
        if self._link is None:
            self._link = self.environment.link(self.cluster, self.client_name("link"))
            self.on_close(self._link.close)
        return self._link

    @contextlib.contextmanager
    def losing_confirms(self) -> Iterator[None]:
        """Inside, no confirm comes through the link; once one got lost, the link breaks, and is mended."""
        lost = self.link.lost
        self.link.lose_confirms()
        try:
            yield
            self.until(lambda: self.link.lost > lost)
        finally:
            self.link.break_off()

    @property
    def heard(self) -> str:
        return ", ".join(self.outcomes)

    def look_at_letters(self) -> Focus:
        return Focus(queue=self.letters)

    def look_at_box(self) -> Focus:
        return Focus(queue=self.box)

    def got(self, count: int) -> bool:
        return self.until(lambda: self.ready(self.letters) == self.before + count)

    @property
    def more(self) -> str:
        """What the queue got, in words."""
        return f"letters: {self.ready(self.letters) - self.before:+d}"

    def publish(self) -> None:
        self.manager.declare(Queue(self.letters, "quorum"))
        with DirectProducer(self.manager) as producer:
            handle = producer.publish(self.letters, "a letter")
            self.outcomes = (handle.wait(10).outcome,)

    def was_confirmed(self) -> CheckResult:
        return CheckResult(self.got(1) and self.outcomes == ("confirmed",), f"{self.heard}; {self.more}")

    def publish_to_nobody(self) -> None:
        with DirectProducer(self.manager) as producer:
            asked = producer.publish(self.nowhere, "tell me")
            unasked = producer.publish(self.nowhere, "never mind", mandatory=False)
            self.outcomes = (asked.wait(10).outcome, unasked.wait(10).outcome)

    def one_came_back(self) -> CheckResult:
        passed = self.outcomes == ("returned", "confirmed") and self.depth(self.nowhere) is None
        return CheckResult(passed, f"mandatory: {self.outcomes[0]}; not mandatory: {self.outcomes[1]}")

    def open_nowhere(self) -> None:
        """Makes the queue that nobody has."""
        self.manager.declare(Queue(self.nowhere, "classic"))

    def take_box_away(self) -> None:
        self.delete(self.box)

    def fill(self) -> None:
        limit = {"x-max-length": 2, "x-overflow": "reject-publish"}
        self.manager.declare(Queue(self.box, "classic", arguments=limit))
        with DirectProducer(self.manager) as producer:
            handles = producer.publish_many(self.box, ["a postcard"] * int(self.answer))
            self.outcomes = tuple(handle.wait(10).outcome for handle in handles)

    def what_has_no_room_was_refused(self) -> CheckResult:
        count = int(self.answer)
        taken = min(count, ROOM)
        wanted = ("confirmed",) * taken + ("nacked",) * (count - taken)
        passed = self.outcomes == wanted and self.until(lambda: self.ready(self.box) == taken)
        return CheckResult(passed, f"{self.heard}; the box holds {self.ready(self.box)}")

    def lose_the_confirm(self) -> None:
        with DirectProducer(self.link.manager) as producer:
            with self.losing_confirms():
                handle = producer.publish(self.letters, "did you get me?")
            self.outcomes = (handle.wait(10).outcome,)

    def is_unknown_and_there(self) -> CheckResult:
        return CheckResult(self.got(1) and self.outcomes == ("unknown",), f"{self.heard}; {self.more}")

    def send_again(self) -> None:
        with DirectProducer(self.link.manager, limits=ProducerLimits(republish=True)) as producer:
            with self.losing_confirms():
                handle = producer.publish(self.letters, "I come twice")
            settlement = handle.wait(10)
        self.outcomes, self.sends = (settlement.outcome,), settlement.sends

    def came_twice(self) -> CheckResult:
        passed = self.got(self.sends) and self.sends > 1 and self.outcomes == ("confirmed",)
        return CheckResult(passed, f"{self.heard}, sent {self.sends} times; {self.more}")

    def have_copies(self) -> None:
        """Has something to read."""
        if self.ready(self.letters) < 1:
            self.send_again()

    def read_once(self) -> None:
        reader = DirectConsumer(self.letters, self.manager, deduplicate=1000)
        with reader.start_consuming(self.read.handle):
            self.until(lambda: reader.stats.acked + reader.stats.duplicates == self.before)
        self.copies = reader.stats.duplicates

    def each_was_read_once(self) -> CheckResult:
        ids = [one.delivery.properties.message_id for one in self.read.received]
        once = len(set(ids)) == len(ids) > 0 and len(ids) + self.copies == self.before
        passed = self.until(lambda: self.ready(self.letters) == 0) and once
        told = f"{self.before} came, {len(ids)} were handled, {self.copies} recognised as copies"
        return CheckResult(passed, f"{told}; {self.ready(self.letters)} wait")

    def take_letters(self) -> None:
        """Has somebody else read what is there."""
        self.take_all(self.letters)

    def add_one(self) -> None:
        with DirectProducer(self.manager) as producer:
            producer.publish(self.letters, "I come late").wait(10)

    def repair(self) -> None:
        """Has nobody get what is for nobody, and nothing left to read."""
        self.delete(self.nowhere)
        self.take_letters()


DEMO = Demo(
    title="Publisher confirms",
    summary="Each message has one outcome: confirmed, returned, nacked or unknown; an unknown one may be sent again.",
    context=Post,
    steps=(
        DemoStep(
            title="Confirmed",
            explanation=(
                "To publish means to write to a connection, and that says nothing of what becomes of a message. So the "
                "broker answers: once it has taken over a message, it confirms it. A quorum queue does so when a "
                "majority of its members has it on disk. The publisher goes on meanwhile, and looks at the outcomes "
                "later."
            ),
            terms=("publisher confirm", "quorum queue"),
            run=Post.publish,
            command="dmq publish --key {letters} 'a letter'",
            claim="The letter is confirmed, and the queue has one more.",
            check=Post.was_confirmed,
            sabotage=Post.take_letters,
            focus=Post.look_at_letters,
        ),
        DemoStep(
            title="Returned",
            explanation=(
                "A confirm does not say that anybody got the message. Where no queue wants it, the broker is done with "
                "it at once and confirms that, unless the message is mandatory: then it comes back. With dmq every "
                "message is mandatory if you do not say otherwise, as the second of these does."
            ),
            terms=("mandatory",),
            run=Post.publish_to_nobody,
            command="dmq publish --key {nowhere} 'tell me'",
            claim="There is no such queue. The mandatory message came back; the other is confirmed, and gone.",
            check=Post.one_came_back,
            sabotage=Post.open_nowhere,
            focus=Post.look_at_letters,
        ),
        DemoStep(
            title="Refused",
            explanation=(
                "A queue can have a length limit, and refuse what is beyond it. The broker then answers with a nack, "
                "and the publisher still has the message: it may wait, send it elsewhere, or tell somebody. This box "
                "has room for two."
            ),
            terms=("nack", "classic queue"),
            ask=DemoQuestion("How many postcards shall be sent?", usual="3", choices=("1", "2", "3", "4", "5")),
            prepare=Post.take_box_away,
            run=Post.fill,
            command="dmq queue declare {box} --type classic --argument x-max-length=2 "
            "--argument x-overflow=reject-publish\n"
            "dmq publish --key {box} --count {answer} 'a postcard'",
            claim="The first two are confirmed, any further one is nacked, and the box holds no more than two.",
            check=Post.what_has_no_room_was_refused,
            sabotage=Post.take_box_away,
            focus=Post.look_at_box,
        ),
        DemoStep(
            title="Unknown",
            explanation=(
                "Between client and node stands a proxy, which swallows the confirm and then breaks the link. From "
                "where the publisher stands, that looks just as if the link had broken before the message was there. "
                "dmq does not guess: the outcome is unknown."
            ),
            terms=("unknown outcome",),
            run=Post.lose_the_confirm,
            command="dmq queue show {letters}",
            claim="The publisher does not know, and the queue has the letter.",
            check=Post.is_unknown_and_there,
            sabotage=Post.take_letters,
            focus=Post.look_at_letters,
        ),
        DemoStep(
            title="Sent again",
            explanation=(
                "Who must lose nothing sends again what is unknown, with the same message id. With republish the "
                "producer does so itself, once it has a connection again. Had the first not arrived, this would have "
                "saved it. It had arrived, so there are two."
            ),
            run=Post.send_again,
            command="dmq queue show {letters}",
            claim="It is confirmed in the end, and the queue has it as often as it was sent: more than once.",
            check=Post.came_twice,
            sabotage=Post.take_letters,
            focus=Post.look_at_letters,
        ),
        DemoStep(
            title="Handled once",
            explanation=(
                "Nothing lost means that something may come twice; that holds for redeliveries as well. The consumer "
                "has to make good for it. With deduplicate it remembers the ids of what it handled, and acknowledges a "
                "copy without handling it. It forgets them when it ends, so what must never happen twice is best made "
                "harmless where it happens: under a key of its own in a database, for one."
            ),
            terms=("deduplication", "acknowledgement"),
            prepare=Post.have_copies,
            run=Post.read_once,
            command="dmq consume {letters}",
            claim="Every letter was handled once, however often it came, and the queue is empty.",
            check=Post.each_was_read_once,
            sabotage=Post.add_one,
            focus=Post.look_at_letters,
        ),
    ),
    seen="Each message had one outcome. Confirmed: the broker answers for it. Returned: no queue wanted it. Nacked: a "
    "queue refused it. Unknown: nobody can tell; sent again it is safe, and may come twice.",
    when="Wherever a lost message would matter, look at every outcome. Without confirms a publisher learns nothing of "
    "what a broken link took with it.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    DirectConsumer("letters", manager).declare_queue()
    with DirectProducer(manager, limits=ProducerLimits(republish=True)) as producer:
        handles = producer.publish_many("letters", [f"letter {number}" for number in range(1000)])
        handles.append(producer.publish("nowhere", "a letter for nobody"))
        for handle in handles:
            settlement = handle.wait()
            if settlement.outcome != "confirmed":
                print(handle.body, settlement.outcome, settlement.reason)
""",
    to_try="Start 'dmq publish --count 100000' and kill a node meanwhile with 'dmq node kill'. How many are unknown?",
    takes_s=4,
    repair=Post.repair,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
