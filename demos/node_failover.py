"""A node is killed under load: a leader is elected, clients reconnect, and no confirmed message is lost."""

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


class FailoverDemo(TrafficContext):
    """Messages that go through a quorum queue while one of its nodes is killed."""

    word = "message"

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.led_before = ""
        self.held_by_consumer = 0
        self.arrived_before = 0
        self.may_handle = threading.Event()
        self.may_handle.set()
        self.on_close(self.may_handle.set)

    def before_step(self) -> None:
        super().before_step()
        self.led_before = self.leader(self.queue)
        self.arrived_before = len(self.arrived.received)

    # Consuming.

    def read(self, message: object, headers: MessageHeaders) -> bool:
        """Handles a message once that is allowed."""
        self.may_handle.wait(LONGEST_PAUSE_S)
        return self.arrived.handle(message, headers)

    @property
    def connected_node(self) -> str:
        """The node that our consumer is connected to (empty: none)."""
        infos = [info for info in self.clients.connections if info.role is Role.CONSUMING]
        return next((str(info.broker) for info in infos if info.broker is not None), "")

    def chosen_node(self) -> str:
        """The node that the answer means."""
        match self.answer:
            case "connected":
                return self.connected_node or self.node
            case "follower":
                names = [node.name for node in self.cluster.nodes() if node.name != self.led_before]
                return next((name for name in names if name != self.connected_node), self.node)
            case _:
                return self.led_before or self.node

    @property
    def unacknowledged(self) -> int:
        """How many messages consumers hold, as the broker reports."""
        told = self.figures.queue(self.key(self.queue))
        return 0 if told is None else told.unacked or 0

    @property
    def redelivered(self) -> int:
        """How many messages were redelivered in this step."""
        return sum(one.redelivered for one in self.arrived.received[self.arrived_before :])

    @property
    def another_node_works(self) -> bool:
        """Whether a node that was not killed leads the queue, and messages are delivered."""
        return self.wait_until_reported(lambda: self.leader(self.queue) not in ("", self.node)) and self.messages_flow

    # Preparing.

    def ensure_killed(self) -> None:
        """Makes sure that the node is killed."""
        if not self.is_sending or self.state(self.node) != NodeState.STOPPED:
            self.prepare_leader()
            self.perform(NodeAction.KILL, self.node)
            self.wait_until_reported(lambda: self.leader(self.queue) not in ("", self.node))

    # Steps and checks.

    def start_traffic(self) -> None:
        self.manager.declare(Queue(self.queue, "quorum"))
        self.consumer = DirectConsumer(self.clients, self.queue, prefetch=PREFETCH)
        self.consumer.start_consuming(self.read)
        self.start_sending()

    def kill(self) -> None:
        self.node = self.chosen_node()
        self.perform(NodeAction.KILL, self.node)

    def another_leads(self) -> CheckResult:
        passed = self.another_node_works and self.state(self.node) == NodeState.STOPPED
        text = f"{self.led_before} led before, {self.node} is {self.state(self.node)}, {self.leader(self.queue)} leads"
        return CheckResult(
            passed, f"{text}; our consumer is connected to {self.connected_node or 'no node'}; {self.longest_wait_text}"
        )

    def start(self) -> None:
        self.perform(NodeAction.START, self.node)

    def follows(self) -> CheckResult:
        passed = self.wait_until_reported(lambda: self.is_replicated(self.queue)) and self.another_node_works
        text = f"{self.node} is {self.state(self.node)}, {self.leader(self.queue)} leads"
        return CheckResult(passed, f"{text}; online: {self.online(self.queue)}; {self.longest_wait_text}")

    def kill_connected(self) -> None:
        self.may_handle.clear()
        self.wait_until_reported(lambda: self.unacknowledged == PREFETCH)
        self.held_by_consumer, self.node = self.unacknowledged, self.connected_node
        self.perform(NodeAction.KILL, self.node)
        self.may_handle.set()

    def was_redelivered(self) -> CheckResult:
        passed = self.wait_until(lambda: self.redelivered >= self.held_by_consumer > 0) and self.messages_flow
        moved = self.connected_node not in ("", self.node)
        now_at = self.connected_node or "no node"
        text = f"the consumer held {self.held_by_consumer} messages at {self.node} and is now at {now_at}"
        return CheckResult(passed and moved, f"{text}; {self.redelivered} redelivered; {self.longest_wait_text}")


DEMO: Demo[FailoverDemo] = Demo(
    title="Node failover",
    summary="A node is killed under load: another leads, clients reconnect, and every confirmed message arrives.",
    context=FailoverDemo,
    steps=(
        DemoStep(
            title="Traffic, a leader and its followers",
            explanation=(
                "A quorum queue has a member on each of several nodes. One of them is the leader: it accepts publishes "
                "and delivers messages, whichever node the clients are connected to. The others are followers: they "
                "write what the leader sends them, and a message is confirmed once a majority has it on disk. This "
                "demo publishes and consumes a hundred messages a second from now to the end."
            ),
            terms=("quorum queue", "leader", "member", "majority", "publisher confirm"),
            prepare=FailoverDemo.reset_traffic,
            run=FailoverDemo.start_traffic,
            command="dmq load --rate 100 --for 120\ndmq queue show {queue}",
            claim="Every node has a member of the queue, all are online, and messages are delivered.",
            check=FailoverDemo.all_are_online,
            sabotage=FailoverDemo.stop_sending,
        ),
        DemoStep(
            title="A node is killed",
            explanation=(
                "Kill means SIGKILL: the node cannot hand anything over. If the leader is lost, the followers notice "
                "it and elect one of them, usually within a second; that takes a majority, so there is never more than "
                "one winner. Until then nothing is confirmed, and publishers wait; RabbitMQ 3.10 nacks what is "
                "published meanwhile. If a follower is lost, two of three are enough to go on. Clients of the node "
                "lose their connections, and those of dmq connect to another node that they know."
            ),
            terms=("election", "nack"),
            ask=DemoQuestion(
                "Which node shall be killed: the leader's, a follower's, or the one that our clients are connected to?",
                usual="leader",
                choices=("leader", "follower", "connected"),
            ),
            prepare=FailoverDemo.prepare_leader,
            run=FailoverDemo.kill,
            command="dmq node kill {node}",
            claim="The node is stopped, another one leads the queue, and messages are delivered.",
            check=FailoverDemo.another_leads,
            sabotage=FailoverDemo.stop_sending,
        ),
        DemoStep(
            title="It starts again, as a follower",
            explanation=(
                "The node still has its data on disk. Its member gets from the leader what it missed; what it alone "
                "has is dropped, and no publisher had a confirm for that. It does not become the leader again just "
                "because it was before: the leader stays where it is until it is moved. 'dmq fault do rebalance' "
                "spreads the leaders over the nodes again."
            ),
            prepare=FailoverDemo.ensure_killed,
            run=FailoverDemo.start,
            command="dmq node start {node}\ndmq queue show {queue}",
            claim="All members are online again, the node follows another one, and messages are delivered.",
            check=FailoverDemo.follows,
            sabotage=FailoverDemo.stop_node,
        ),
        DemoStep(
            title="Unacknowledged messages are redelivered",
            explanation=(
                "Now the node is killed that our consumer is connected to, while the consumer holds as many messages "
                "as its prefetch allows. None of them is acknowledged, so the queue still has them and delivers them "
                "again, marked as redelivered. RabbitMQ 4.3 first waits whether the node returns: a minute, unless "
                "consumer_disconnected_timeout says otherwise; in clusters that dmq makes it is a second. A handler "
                "must tolerate a message twice, or recognise it by its id, which dmq's consumers do if you ask for it."
            ),
            terms=("consumer", "acknowledgement", "prefetch", "redelivery"),
            prepare=FailoverDemo.ensure_traffic,
            run=FailoverDemo.kill_connected,
            command="dmq proof run --fault kill --target connected",
            claim="The consumer is connected to another node, and everything that it held was redelivered.",
            check=FailoverDemo.was_redelivered,
            sabotage=FailoverDemo.stop_sending,
        ),
        DemoStep(
            title="Every message accounted for",
            explanation=(
                "Two nodes were killed in turn, without warning. A publisher whose connection broke does not know what "
                "became of a message without a confirm; ours publishes it again, so some may arrive twice. A nacked "
                "message is not in the queue, and may be published again. So there are two things to check: no "
                "confirmed message is missing, and none is left in the queue. 'dmq proof run' checks this for every "
                "message, with a report."
            ),
            terms=("unknown outcome", "deduplication"),
            prepare=FailoverDemo.ensure_traffic,
            run=FailoverDemo.finish_traffic,
            command="dmq queue show {queue}",
            claim="Every confirmed message was delivered, and the queue is empty.",
            check=FailoverDemo.nothing_was_lost,
            sabotage=FailoverDemo.lose_message,
        ),
    ),
    seen=(
        "A node was killed, and after a short wait another node led the queue and served its clients; it was started "
        "again and followed. What a consumer held when its node was killed was redelivered, and no confirmed message "
        "is missing."
    ),
    when=(
        "Quorum queues on three nodes survive the loss of any one node, on five nodes of any two. Clients have to know "
        "every node, publish with confirms, publish again what has none, acknowledge after the work, and tolerate a "
        "message twice. A classic queue is unavailable while its node is down."
    ),
    code="""
from time import sleep

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits

with BrokerConnectionManager() as manager:
    for number, port in enumerate((5672, 5673, 5674), start=1):
        manager.register_broker(number, "localhost", port)
    manager.listen(lambda event: print(event.role, event.status.state, event.broker))
    consumer = DirectConsumer(manager, "messages", deduplicate=10_000)
    consumer.declare_queue()
    came = set()

    def handle(message, headers):
        came.add(message)
        return True

    limits = ProducerLimits(republish=True)
    with consumer.start_consuming(handle), DirectProducer(manager, limits=limits) as producer:
        handles = []
        for number in range(1000):
            handles.append(producer.publish("messages", f"message {number}"))
            sleep(0.01)
        producer.flush(30)
        confirmed = {one.body.decode() for one in handles if one.result().outcome == "confirmed"}
        for _ in range(100):
            if confirmed <= came:
                break
            sleep(0.1)
        print(len(confirmed), "confirmed,", len(confirmed - came), "of them did not arrive")
""",
    to_try=(
        "Run the code, and meanwhile 'dmq node kill rmq1' in another terminal. Which client reconnects to which node, "
        "and is anything missing at the end? What if you kill a second node before the first is started again?"
    ),
    takes_s=45,
    repair=FailoverDemo.repair,
    focus=FailoverDemo.focus_on,
    breaks=True,
    impact="It kills nodes, one at a time, and starts each again; clients of a node have to connect to another one.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
