"""A node is killed under load: a new leader, clients that move, what they held once more, and nothing lost."""

from __future__ import annotations

import sys
import threading

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.connection_manager import Role
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep
from dmq_core.demo.traffic_context import TrafficContext
from dmq_core.messaging import DirectConsumer, MessageHeaders, Queue

PREFETCH = 20
LONGEST_PAUSE_S = 60.0


class Relay(TrafficContext):
    """Letters that are passed on, while one of those who pass them on drops out."""

    word = "letter"

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.led = ""
        self.passed = 0
        self.came_before = 0
        self.may_read = threading.Event()
        self.may_read.set()
        self.on_close(self.may_read.set)

    def begin(self) -> None:
        super().begin()
        self.led = self.leader(self.queue)
        self.came_before = len(self.arrived.received)

    # What goes on.

    def read(self, message: object, headers: MessageHeaders) -> bool:
        """Handles a letter, once that is allowed."""
        self.may_read.wait(LONGEST_PAUSE_S)
        return self.arrived.handle(message, headers)

    @property
    def reader_at(self) -> str:
        """The node that our consumer is connected to."""
        infos = [info for info in self.clients.connections if info.role is Role.CONSUMING]
        return next((str(info.broker) for info in infos if info.broker is not None), "")

    def picked(self) -> str:
        """The node that the answer means."""
        match self.answer:
            case "connected":
                return self.reader_at or self.node
            case "follower":
                names = [node.name for node in self.cluster.nodes() if node.name != self.led]
                return next((name for name in names if name != self.reader_at), self.node)
            case _:
                return self.led or self.node

    @property
    def unacknowledged(self) -> int:
        """How many letters consumers hold, as the broker tells it."""
        told = self.figures.queue(self.key(self.queue))
        return 0 if told is None else told.unacked or 0

    @property
    def came_again(self) -> int:
        """How many letters were delivered once more in this step."""
        return sum(one.redelivered for one in self.arrived.received[self.came_before :])

    @property
    def goes_on(self) -> bool:
        """Whether a node that was not killed leads the queue, and letters come through."""
        return self.until_told(lambda: self.leader(self.queue) not in ("", self.node)) and self.flows

    # How things get where they have to be.

    def have_killed(self) -> None:
        """Has the node down, unless it is."""
        if not self.is_sending or self.state(self.node) != NodeState.STOPPED:
            self.lead()
            self.perform(NodeAction.KILL, self.node)
            self.until_told(lambda: self.leader(self.queue) not in ("", self.node))

    # What the steps do and check.

    def open_up(self) -> None:
        self.manager.declare(Queue(self.queue, "quorum"))
        self.consumer = DirectConsumer(self.queue, self.clients, prefetch=PREFETCH)
        self.consumer.start_consuming(self.read)
        self.send_on()

    def kill(self) -> None:
        self.node = self.picked()
        self.perform(NodeAction.KILL, self.node)

    def another_leads(self) -> CheckResult:
        passed = self.goes_on and self.state(self.node) == NodeState.STOPPED
        text = f"{self.led} led, {self.node} is {self.state(self.node)}, {self.leader(self.queue)} leads"
        return CheckResult(passed, f"{text}; our clients are at {self.reader_at or 'no node'}; {self.waited}")

    def start(self) -> None:
        self.perform(NodeAction.START, self.node)

    def follows(self) -> CheckResult:
        passed = self.until_told(lambda: self.is_replicated(self.queue)) and self.goes_on
        text = f"{self.node} is {self.state(self.node)}, {self.leader(self.queue)} leads"
        return CheckResult(passed, f"{text}; online: {self.online(self.queue)}; {self.waited}")

    def kill_at_work(self) -> None:
        self.may_read.clear()
        self.until_told(lambda: self.unacknowledged == PREFETCH)
        self.passed, self.node = self.unacknowledged, self.reader_at
        self.perform(NodeAction.KILL, self.node)
        self.may_read.set()

    def come_again(self) -> CheckResult:
        passed = self.until(lambda: self.came_again >= self.passed > 0) and self.flows
        moved = self.reader_at not in ("", self.node)
        text = f"the consumer held {self.passed} letters at {self.node}, and went to {self.reader_at or 'no node'}"
        return CheckResult(passed and moved, f"{text}; {self.came_again} came again; {self.waited}")


DEMO: Demo[Relay] = Demo(
    title="Node failover",
    summary="A node is killed under load: others elect a leader, clients move, and every confirmed message arrives.",
    context=Relay,
    steps=(
        DemoStep(
            title="Traffic, a leader and its followers",
            explanation=(
                "A quorum queue has a member on each of several nodes. One of them leads: it takes what is published "
                "and hands messages out, on whichever node the clients are. The others follow: they write down what "
                "the leader sends them, and a message is confirmed once a majority has it on disk. This demo publishes "
                "and consumes a hundred messages a second, from now to the end."
            ),
            terms=("quorum queue", "leader", "member", "majority", "publisher confirm"),
            prepare=Relay.begin_anew,
            run=Relay.open_up,
            command="dmq load --rate 100 --for 120\ndmq queue show {queue}",
            claim="Every node has a member of the queue, all are online, and messages come through.",
            check=Relay.all_are_online,
            sabotage=Relay.stop_sending,
        ),
        DemoStep(
            title="A node is killed",
            explanation=(
                "Kill means SIGKILL: no farewell, nothing handed over. If the leader goes, the followers notice it and "
                "elect one of them, usually within a second; it takes a majority, so no two can win. Until then "
                "nothing is confirmed, and publishers wait; RabbitMQ 3.10 nacks what comes meanwhile. If a follower "
                "goes, two of three are enough to go on. Clients of the node lose their connections, and those of dmq "
                "connect to another node that they know."
            ),
            terms=("election", "nack"),
            ask=DemoQuestion(
                "Which node shall be killed: that of the leader, of a follower, or the one our clients are at?",
                usual="leader",
                choices=("leader", "follower", "connected"),
            ),
            prepare=Relay.lead,
            run=Relay.kill,
            command="dmq node kill {node}",
            claim="The node is down, another one leads the queue, and messages come through.",
            check=Relay.another_leads,
            sabotage=Relay.stop_sending,
        ),
        DemoStep(
            title="It comes back, and follows",
            explanation=(
                "The node still has on disk what it had written. Its member gets from the leader what it missed; what "
                "it alone has is dropped, and nobody had a confirm for it. It does not lead again just because it did "
                "before: the leader stays where it is until somebody moves it. 'dmq fault do rebalance' spreads the "
                "leaders over the nodes again."
            ),
            prepare=Relay.have_killed,
            run=Relay.start,
            command="dmq node start {node}\ndmq queue show {queue}",
            claim="All members are online again, the node follows another one, and messages come through.",
            check=Relay.follows,
            sabotage=Relay.keep_it_down,
        ),
        DemoStep(
            title="What the consumer held comes again",
            explanation=(
                "Now the node goes that our consumer is connected to, while it holds as many messages as its prefetch "
                "allows. None of them is acknowledged, so the queue still has them, and delivers them again, marked as "
                "redelivered. RabbitMQ 4.3 first waits whether the node comes back: a minute, unless "
                "consumer_disconnected_timeout says otherwise; in clusters that dmq makes it is a second. A handler "
                "must bear to see a message twice, or know it by its id, which dmq's consumers do if you ask for it."
            ),
            terms=("consumer", "acknowledgement", "prefetch", "redelivery"),
            prepare=Relay.carry_on,
            run=Relay.kill_at_work,
            command="dmq proof run --fault kill --target connected",
            claim="The consumer is at another node, and all that it held came again.",
            check=Relay.come_again,
            sabotage=Relay.stop_sending,
        ),
        DemoStep(
            title="The account",
            explanation=(
                "Two nodes were killed in turn, and nobody told the clients beforehand. A publisher whose connection "
                "broke does not know what became of a message without a confirm; ours sends it again, so some may be "
                "there twice. Of a nacked one it knows that it is not there, and may send it again. So there are two "
                "promises to check: nothing that was confirmed is missing, and nothing stays behind. 'dmq proof run' "
                "checks them for every message, with a report."
            ),
            terms=("unknown outcome", "deduplication"),
            prepare=Relay.carry_on,
            run=Relay.finish,
            command="dmq queue show {queue}",
            claim="Every message that was confirmed was delivered, and the queue is empty.",
            check=Relay.nothing_was_lost,
            sabotage=Relay.lose_one,
        ),
    ),
    seen="A node was killed, and others led the queue and served its clients after a short wait; it came back and "
    "followed. What a consumer held when its node died came again, marked as redelivered, and nothing that was "
    "confirmed is missing.",
    when="Quorum queues on three nodes bear the loss of any one node, on five nodes of any two. It takes clients that "
    "know every node, publish with confirms, send again what has none, acknowledge after the work, and bear to see a "
    "message twice. A classic queue is gone with its node until that node comes back.",
    code="""
from time import sleep

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits

with BrokerConnectionManager() as manager:
    for number, port in enumerate((5672, 5673, 5674), start=1):
        manager.register_broker(number, "localhost", port)
    manager.listen(lambda event: print(event.role, event.status.state, event.broker))
    consumer = DirectConsumer("letters", manager, deduplicate=10_000)
    consumer.declare_queue()
    came = set()

    def handle(message, headers):
        came.add(message)
        return True

    limits = ProducerLimits(republish=True)
    with consumer.start_consuming(handle), DirectProducer(manager, limits=limits) as producer:
        handles = []
        for number in range(1000):
            handles.append(producer.publish("letters", f"letter {number}"))
            sleep(0.01)
        producer.flush(30)
        confirmed = {one.body.decode() for one in handles if one.settlement.outcome == "confirmed"}
        for _ in range(100):
            if confirmed <= came:
                break
            sleep(0.1)
        print(len(confirmed), "confirmed,", len(confirmed - came), "of them did not come")
""",
    to_try="Run the code, and meanwhile 'dmq node kill rmq1' in another terminal. Who moves where, and is anything "
    "missing at the end? What if you kill a second node before the first is back?",
    takes_s=45,
    repair=Relay.repair,
    focus=Relay.look,
    breaks=True,
    impact="It kills nodes, one at a time, and starts each again; clients of a node have to connect to another one.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
