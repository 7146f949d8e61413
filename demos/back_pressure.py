"""What keeps publishers and consumers from more than they can take: alarms, full queues, and prefetch."""

from __future__ import annotations

import itertools
import sys
import threading

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import NodeState
from dmq_core.connection_manager import Role
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import (
    ConnectionState,
    DirectConsumer,
    DirectProducer,
    Handle,
    MessageHeaders,
    Policy,
    ProducerLimits,
    Queue,
)

ORDERS = tuple(f"order {number}" for number in range(1, 11))
ROOM = 5
LONGEST_DISH_S = 60.0


class Kitchen(DemoContext):
    """A waiter at every node, who brings orders, and a kitchen that cannot always take them."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.orders = self.named("orders")
        self.rail = self.named("rail")
        self.node = next((node.name for node in self.cluster.nodes()), "")
        self.house = self.client("waiters", Policy.LEAST_CONNECTIONS)
        self.waiters: list[DirectProducer] = []
        self.waiter: DirectProducer | None = None
        self.cook: DirectConsumer | None = None
        self.slips: list[Handle] = []
        self.pending: list[Handle] = []
        self.on_hand = self.turned_away = 0
        self.cooked = Inbox()
        self.may_serve = threading.Event()
        self.on_close(self.go_home)

    def begin(self) -> None:
        self.cooked.clear()
        self.may_serve.clear()
        self.turned_away = 0
        self.on_hand = max(0, self.ready(self.orders))
        self.pending = [slip for slip in self.slips if slip.settlement is None]

    # What stands where.

    @property
    def running(self) -> list[str]:
        return [node.name for node in self.cluster.nodes() if node.state is NodeState.RUNNING]

    @property
    def blocked(self) -> list[str]:
        """Where publishers are that the broker said to be blocked."""
        told = [info for info in self.house.connections if info.status.state is ConnectionState.BLOCKED]
        return sorted(str(info.broker) for info in told if info.role is Role.PUBLISHING)

    @property
    def all_are_blocked(self) -> bool:
        """Whether the publishers at all nodes are blocked."""
        return set(self.blocked) == set(self.running)

    @property
    def told(self) -> str:
        """Who is blocked, and why, in words."""
        problems = [info.status.problem for info in self.house.connections if info.status.problem]
        return "; ".join([f"publishers blocked at {', '.join(self.blocked) or 'no node'}", *problems[:1]])

    @property
    def backlog(self) -> tuple[int, int]:
        """How many orders wait, and how many a cook holds, as the broker tells it; -1 where it does not."""
        told = self.figures.queue(self.key(self.orders))
        ready, passed = (None, None) if told is None else (told.ready, told.unacked)
        return -1 if ready is None else ready, -1 if passed is None else passed

    # How things get where they have to be.

    def end_alarm(self) -> None:
        """Has no alarm, and nothing under way any more."""
        if self.blocked:
            self.relieve()
        for waiter in self.waiters:
            waiter.flush(self.patience_s)

    def stock(self) -> None:
        """Has a waiter at every node, ten orders in the queue, and no alarm."""
        self.dismiss()
        self.end_alarm()
        if not self.waiters:
            self.manager.declare(Queue(self.orders, "quorum"))
            self.waiters = [DirectProducer(self.house) for _ in self.running]
        self.clear()
        for waiter, order in zip(itertools.cycle(self.waiters), ORDERS, strict=False):
            waiter.publish(self.orders, order).wait(self.patience_s)

    def clear(self) -> None:
        """Has the queue with nothing in it."""
        self.delete(self.orders)
        self.manager.declare(Queue(self.orders, "quorum"))

    def have_alarm(self) -> None:
        """Has ten orders or more, the alarm, and the publishers blocked, unless that is so."""
        if not (self.all_are_blocked and self.ready(self.orders) >= len(ORDERS)):
            self.stock()
            self.run_short()
            self.until(lambda: self.all_are_blocked)

    def have_room_for_none(self) -> None:
        """Has the alarm, the publishers blocked, and none who waits with an armful of slips."""
        self.let_waiter_go()
        if not self.all_are_blocked:
            self.have_alarm()

    def have_slips(self) -> None:
        """Has somebody wait with slips, unless somebody does."""
        if self.waiter is None or not (self.waiter.outstanding and self.all_are_blocked):
            self.have_room_for_none()
            self.pile_up()

    def let_waiter_go(self) -> None:
        """Has the one with the slips go, who takes with him what was not sent."""
        if self.waiter is not None:
            self.waiter.close(0)
            self.waiter = None

    def take_rail_down(self) -> None:
        self.let_waiter_go()
        self.end_alarm()
        self.delete(self.rail)

    def dismiss(self) -> None:
        """Has no cook who holds orders."""
        self.may_serve.set()
        if self.cook is not None:
            self.cook.close()
            self.cook = None

    def go_home(self) -> None:
        """Has nobody work."""
        self.dismiss()
        self.let_waiter_go()

    # What the steps do, check and spoil.

    def look(self) -> Focus:
        return Focus(queue=self.orders, node=self.node)

    def look_at_rail(self) -> Focus:
        return Focus(queue=self.rail)

    def run_short(self) -> None:
        self.cause(Fault(FaultKind.MEMORY_ALARM, self.node))
        for waiter in self.waiters:
            self.slips.append(waiter.publish(self.orders, "a cake"))

    def one_alarm_blocks_all(self) -> CheckResult:
        passed = self.until(lambda: self.all_are_blocked)
        alarms = [str(fault.node) for fault in self.cluster.standing() if fault.kind is FaultKind.MEMORY_ALARM]
        return CheckResult(
            passed and alarms == [self.node], f"memory alarm at {', '.join(alarms) or 'no node'}; {self.told}"
        )

    def let_go_on(self) -> None:
        """Has the alarm over, until the publishers go on."""
        self.relieve()
        self.until(lambda: not self.blocked)

    def cook_all(self) -> None:
        with DirectConsumer(self.orders, self.manager).start_consuming(self.cooked.handle):
            self.cooked.wait_for(self.on_hand, 10)

    def consumer_goes_on(self) -> CheckResult:
        cooked = len(self.cooked.messages)
        passed = self.until(lambda: self.ready(self.orders) == 0) and cooked == self.on_hand > 0
        text = f"{cooked} of {self.on_hand} orders came to the cook; {self.told}"
        return CheckResult(passed and self.all_are_blocked, text)

    def pile_up(self) -> None:
        limits = ProducerLimits(messages=int(self.answer))
        self.waiter = DirectProducer(self.house, limits=limits)
        for number in range(1, 21):
            self.slips.append(self.waiter.publish(self.orders, f"order {number}", timeout_s=0))

    def holds_what_it_may(self) -> CheckResult:
        most = int(self.answer)
        last = self.slips[-20:]
        waiting = sum(slip.settlement is None for slip in last)
        unsent = sum(slip.settlement is not None and slip.settlement.outcome == "not_sent" for slip in last)
        arrived = self.ready(self.orders) - self.on_hand
        text = f"{waiting} wait with the publisher, {unsent} were not sent, {arrived} came to the queue"
        return CheckResult((waiting, unsent, arrived) == (most, 20 - most, 0), text)

    def relieve(self) -> None:
        self.cause(Fault(FaultKind.CLEAR_MEMORY_ALARM, self.node))

    def nothing_was_lost(self) -> CheckResult:
        wanted = self.on_hand + len(self.pending)
        passed = self.until(lambda: self.ready(self.orders) == wanted and not self.blocked)
        settlements = [slip.settlement for slip in self.pending]
        confirmed = [one for one in settlements if one is not None and one.outcome == "confirmed"]
        longest = max((one.seconds or 0.0 for one in confirmed), default=0.0)
        text = f"{len(confirmed)} of {len(self.pending)} that waited are confirmed, after {longest:.1f} s at most"
        got = f"the queue got {self.ready(self.orders) - self.on_hand}; {self.told}"
        return CheckResult(passed and len(confirmed) == len(self.pending) > 0, f"{text}; {got}")

    def hang_up(self) -> None:
        room = {"x-max-length": 5, "x-overflow": "reject-publish"}
        self.manager.declare(Queue(self.rail, "classic", arguments=room))
        with DirectProducer(self.manager) as producer:
            handles = {order: producer.publish(self.rail, order) for order in ORDERS}
            refused = [order for order, handle in handles.items() if handle.wait(10).outcome == "nacked"]
            with DirectConsumer(self.rail, self.manager).start_consuming(self.cooked.handle):
                self.until(lambda: self.ready(self.rail) == 0)
                producer.publish_many(self.rail, refused)
                self.cooked.wait_for(10)
        self.turned_away = len(refused)

    def refused_and_taken_once(self) -> CheckResult:
        cooked = [str(order) for order in self.cooked.messages]
        passed = self.until(lambda: self.ready(self.rail) == 0)
        once = sorted(cooked) == sorted(ORDERS)
        text = f"{self.turned_away} of 10 refused at first; {len(cooked)} were taken, {len(set(cooked))} different ones"
        return CheckResult(
            passed and once and self.turned_away == len(ORDERS) - ROOM,
            f"{text}; the rail holds {self.ready(self.rail)}",
        )

    def hang_one_more(self) -> None:
        with DirectProducer(self.manager) as producer:
            producer.publish(self.rail, "order 1").wait(self.patience_s)

    def cook_slowly(self) -> None:
        def prepare_dish(message: object, headers: MessageHeaders) -> bool:
            self.may_serve.wait(LONGEST_DISH_S)
            return self.cooked.handle(message, headers)

        self.cook = DirectConsumer(self.orders, self.manager, prefetch=int(self.answer))
        self.cook.start_consuming(prepare_dish)

    def cook_holds_what_he_may(self) -> CheckResult:
        most = int(self.answer)
        passed = self.until_told(lambda: self.backlog == (len(ORDERS) - most, most))
        return CheckResult(passed, "the broker says: {} wait in the queue, the cook holds {}".format(*self.backlog))

    def serve(self) -> None:
        """Has the cook finish, until the broker says so."""
        self.may_serve.set()
        self.until_told(lambda: self.backlog == (0, 0))

    def repair(self) -> None:
        """Has no alarm, and orders in the queue."""
        self.restore_cluster()
        self.let_waiter_go()
        self.stock()


DEMO = Demo(
    title="Back-pressure",
    summary="A node short of memory blocks every publisher, a full queue refuses, and prefetch spares the consumer.",
    context=Kitchen,
    steps=(
        DemoStep(
            title="One node is short of memory: no node takes messages",
            explanation=(
                "A node that uses more memory than it is allowed raises an alarm, and then no node of the cluster "
                "reads from a connection that publishes, since what any of them takes may end up on that one. Whoever "
                "publishes is told so by connection.blocked; dmq shows such a connection as blocked. Here the limit is "
                "lowered, so that the node is above it at once."
            ),
            terms=("alarm", "back-pressure"),
            prepare=Kitchen.stock,
            run=Kitchen.run_short,
            command="dmq fault do memory-alarm --node {node}\ndmq connection list",
            claim="The alarm is at one node, and the publishers at all nodes are blocked.",
            check=Kitchen.one_alarm_blocks_all,
            sabotage=Kitchen.let_go_on,
        ),
        DemoStep(
            title="Consumers go on",
            explanation=(
                "Consuming makes room, so the broker lets it go on; it lists such a connection as blocking, not as "
                "blocked. But a connection is blocked as a whole: a consumer that shared one with a publisher would "
                "not get its acknowledgements through. So dmq keeps publishing and consuming connections apart."
            ),
            terms=("consumer", "acknowledgement"),
            prepare=Kitchen.have_alarm,
            run=Kitchen.cook_all,
            command="dmq consume {orders} --limit 10",
            claim="While the publishers are blocked, a consumer gets all that is in the queue.",
            check=Kitchen.consumer_goes_on,
            sabotage=Kitchen.let_go_on,
        ),
        DemoStep(
            title="What waits, waits with the publisher",
            explanation=(
                "While it is blocked, a dmq producer sends nothing, and keeps what it is given up to a limit: 4,000 "
                "messages unless you say otherwise. Beyond it, publish waits for room, for 30 seconds or as long as "
                "you say. Here it does not wait, and each message that finds no room ends as not_sent at once. So the "
                "program learns that it is too fast, and can slow down, keep the message elsewhere, or say no to its "
                "own client."
            ),
            ask=DemoQuestion("How many orders may wait with the publisher?", usual="5", choices=("5", "10", "15")),
            prepare=Kitchen.have_room_for_none,
            run=Kitchen.pile_up,
            command="dmq publish --key {orders} --count 20 --timeout 5 'a cake'",
            claim="Of twenty orders as many as it may keep wait with the publisher, the others end as not_sent, and "
            "none reaches the queue.",
            check=Kitchen.holds_what_it_may,
            sabotage=Kitchen.let_go_on,
        ),
        DemoStep(
            title="The alarm ends",
            explanation=(
                "Once the node has room again, the broker says connection.unblocked, and reads on. What had been "
                "written to the connection before it was blocked is read now; what waited in the producer is sent now."
            ),
            terms=("publisher confirm",),
            prepare=Kitchen.have_slips,
            run=Kitchen.relieve,
            command="dmq fault undo memory-alarm --node {node}",
            claim="Everything that waited is confirmed and in the queue, and nobody is blocked.",
            check=Kitchen.nothing_was_lost,
            sabotage=Kitchen.clear,
        ),
        DemoStep(
            title="One queue is full: it refuses",
            explanation="An alarm stops everybody because of one. A length limit concerns one queue alone: with "
            "reject-publish it answers what it has no room for with a nack. The publisher still has the message, and "
            "sends it again when there is room. Without that setting a full queue drops its oldest messages instead, "
            "and whoever published them has had a confirm.",
            terms=("nack", "classic queue"),
            prepare=Kitchen.take_rail_down,
            run=Kitchen.hang_up,
            command="dmq queue declare {rail} --type classic --argument x-max-length=5 "
            "--argument x-overflow=reject-publish\n"
            "dmq publish --key {rail} --count 10 'a cake'",
            claim="Five of ten orders are refused, and once there is room they go in: each order is taken once.",
            check=Kitchen.refused_and_taken_once,
            sabotage=Kitchen.hang_one_more,
            focus=Kitchen.look_at_rail,
        ),
        DemoStep(
            title="Prefetch: the consumer's own limit",
            explanation=(
                "Without a limit the broker sends a consumer everything that it has, however slow the consumer is. "
                "Prefetch is the limit: so many messages it may hold without an answer. The others stay in the queue, "
                "where another consumer can get them."
            ),
            terms=("prefetch",),
            ask=DemoQuestion("How many orders may the cook hold at once?", usual="2", choices=("1", "2", "4")),
            prepare=Kitchen.stock,
            run=Kitchen.cook_slowly,
            command="dmq consume {orders} --prefetch {answer}",
            claim="The cook was sent as many as he may hold, and the rest waits in the queue.",
            check=Kitchen.cook_holds_what_he_may,
            sabotage=Kitchen.serve,
        ),
    ),
    seen="One alarm blocked the publishers at every node, while a consumer went on. What was published meanwhile "
    "waited with the producer, up to its limit, and was confirmed after the alarm; a full queue refused what it had "
    "no room for; a consumer was sent no more than its prefetch.",
    when="Always have an answer to 'too fast': bound what a publisher keeps, look at not_sent and nacked, give queues "
    "a length limit, and consumers a prefetch. An alarm is the last resort and hits everybody; 'dmq doctor' names the "
    "node that has one.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectProducer, ProducerLimits, Queue

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    manager.listen(lambda event: print(event.role, event.status.state, event.status.problem))
    manager.declare(Queue("orders", "quorum"))
    with DirectProducer(manager, limits=ProducerLimits(messages=100, room_s=30)) as producer:
        for number in range(1, 1001):
            handle = producer.publish("orders", f"order {number}")
            if handle.settlement is not None and handle.settlement.outcome == "not_sent":
                print("no room for order", number, "within 30 s")
                break
""",
    to_try="Do 'dmq fault do memory-alarm --node rmq2', then run the code. What does it print, and what changes if you "
    "do 'dmq fault undo memory-alarm --node rmq2' within half a minute?",
    takes_s=25,
    repair=Kitchen.repair,
    focus=Kitchen.look,
    breaks=True,
    keeps_nodes=True,
    impact="It puts a node under a memory alarm for some seconds; meanwhile nobody can publish anything.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
