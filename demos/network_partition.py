"""A node is cut off from its peers while clients still reach it: it confirms nothing, and the others go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits, PublishFuture, Queue

LIMITS = ProducerLimits(republish=True)
SETTLES_WITHIN_S = 15.0
ALONE_FOR_S = 3.0
RECONNECTS_WITHIN_S = 60.0


class PartitionDemo(DemoContext):
    """A publisher at each of three nodes, one of which is cut off from the others."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.messages = self.unique_name("messages")
        self.nodes = [node.name for node in self.cluster.nodes()]
        self.clients: dict[str, BrokerConnectionManager] = {
            name: self.client(f"at {name}", node=name) for name in self.nodes
        }
        self.node = self.nodes[0] if self.nodes else ""
        self.published: list[PublishFuture] = []
        self.at_isolated: list[PublishFuture] = []
        self.at_others: list[PublishFuture] = []
        self.read = Inbox()

    def before_step(self) -> None:
        self.at_isolated, self.at_others = [], []

    # State.

    @property
    def others(self) -> list[str]:
        """The nodes that are not cut off."""
        return [name for name in self.nodes if name != self.node]

    @property
    def is_isolated(self) -> bool:
        return self.state(self.node) == NodeState.ISOLATED

    @property
    def is_whole(self) -> bool:
        return self.is_replicated(self.messages)

    @property
    def another_leads(self) -> bool:
        return self.leader(self.messages) in self.others

    @property
    def confirmed(self) -> set[object]:
        """All messages that were confirmed since the queue was declared."""
        return {handle.body.decode() for handle in self.published if handle_is("confirmed", handle)}

    def chosen_node(self) -> str:
        """The node that the answer means."""
        led = self.leader(self.messages) or self.node
        return led if self.answer == "leader" else next(name for name in self.nodes if name != led)

    # Preparing and breaking.

    def reset(self) -> None:
        """Deletes the queue and forgets what was published."""
        self.delete(self.messages)
        self.published.clear()
        self.read.clear()

    def ensure_whole(self) -> None:
        """Restores the cluster, with a queue that has messages from every node."""
        self.restore_cluster()
        if not self.wait_until_reported(lambda: self.is_whole):
            self.reset()
            self.publish_at_every_node()
        self.wait_until_reported(lambda: self.is_whole)

    def ensure_cut(self) -> None:
        """Makes sure that a node is cut off and another one leads."""
        if not self.is_isolated:
            self.ensure_whole()
            self.cut_off()
        self.wait_until_reported(lambda: self.another_leads)

    def rejoin_and_publish(self) -> None:
        """Rejoins the node and publishes at it."""
        self.rejoin()
        self.wait_until_reported(lambda: self.is_whole)
        self.at_isolated = self.publish_at(self.node)

    def lose_message(self) -> None:
        """Loses confirmed messages on purpose."""
        self.publish_at(self.node)
        self.delete(self.messages)

    def repair(self) -> None:
        """Restores the cluster and starts with a new queue."""
        self.restore_cluster()
        self.reset()
        self.publish_at_every_node()
        self.wait_until_reported(lambda: self.is_whole)

    # Steps and checks.

    def focus_on(self) -> Focus:
        return Focus(queue=self.messages, node=self.node)

    def publish_at(self, *nodes: str, within_s: float = SETTLES_WITHIN_S) -> list[PublishFuture]:
        """Publishes three messages at each of the nodes; those without a confirm after `within_s` are given up."""
        handles: list[PublishFuture] = []
        for node in nodes:
            producer = DirectProducer(self.clients[node], limits=LIMITS)
            handles += producer.publish_many(self.messages, [f"{node} {n}" for n in self.numbers])
            producer.close(within_s)
        self.published += handles
        return handles

    @property
    def numbers(self) -> range:
        """The numbers of the next three messages."""
        return range(len(self.published) + 1, len(self.published) + 4)

    def publish_at_every_node(self) -> None:
        self.manager.declare(Queue(self.messages, "quorum"))
        self.at_others = self.publish_at(*self.nodes)

    def all_confirm(self) -> CheckResult:
        passed = self.wait_until_reported(lambda: self.is_whole) and all_are("confirmed", self.at_others)
        self.node = self.leader(self.messages) or self.node
        text = f"online: {self.online(self.messages)}; {self.node} leads"
        return CheckResult(passed, f"{text}; {counted(self.at_others)}")

    def cut_off(self) -> None:
        self.node = self.chosen_node()
        self.perform(NodeAction.ISOLATE, self.node)
        self.wait_until_reported(lambda: self.another_leads)
        self.at_others = self.publish_at(*self.others)

    def majority_goes_on(self) -> CheckResult:
        passed = self.wait_until_reported(lambda: self.another_leads) and all_are("confirmed", self.at_others)
        leader = self.leader(self.messages) or "no node"
        text = f"{self.node} is {self.state(self.node)}; the others report: {leader} leads"
        return CheckResult(passed and self.is_isolated, f"{text}; {counted(self.at_others)}")

    def publish_on_both_sides(self) -> None:
        self.at_isolated = self.publish_at(self.node, within_s=ALONE_FOR_S)
        self.at_others = self.publish_at(*self.others)

    def minority_confirms_nothing(self) -> CheckResult:
        alone = bool(self.at_isolated) and not any(handle_is("confirmed", handle) for handle in self.at_isolated)
        text = f"at {self.node}: {counted(self.at_isolated)}; at the others: {counted(self.at_others)}"
        return CheckResult(alone and all_are("confirmed", self.at_others), text)

    def rejoin(self) -> None:
        self.perform(NodeAction.REJOIN, self.node)
        self.clients[self.node].wait_open(RECONNECTS_WITHIN_S)

    def all_are_one(self) -> CheckResult:
        passed = self.wait_until_reported(lambda: self.is_whole)
        if passed:
            self.at_isolated = self.publish_at(self.node)
        text = f"{self.node} is {self.state(self.node)}; {self.leader(self.messages) or 'no node'} leads"
        confirmed = all_are("confirmed", self.at_isolated)
        return CheckResult(
            passed and confirmed,
            f"{text}; online: {self.online(self.messages)}; at {self.node}: {counted(self.at_isolated)}",
        )

    def read_all(self) -> None:
        with DirectConsumer(self.clients[self.node], self.messages).start_consuming(self.read.handle):
            self.wait_until(lambda: self.confirmed <= set(self.read.messages) and self.ready(self.messages) == 0)

    def nothing_confirmed_is_lost(self) -> CheckResult:
        confirmed, read = self.confirmed, set(self.read.messages)
        missing, others = confirmed - read, {handle.body.decode() for handle in self.published} - confirmed
        text = f"{len(confirmed)} confirmed, {len(missing)} of them missing"
        told = f"of {len(others)} without a confirm, {len(others & read)} were in the queue"
        return CheckResult(bool(confirmed) and not missing, f"{text}; {told}")


def handle_is(outcome: str, handle: PublishFuture) -> bool:
    """Whether a message ended as `outcome`."""
    return handle.done() and handle.result(0).outcome == outcome


def all_are(outcome: str, handles: Sequence[PublishFuture]) -> bool:
    """Whether there are messages, and all ended as `outcome`."""
    return bool(handles) and all(handle_is(outcome, handle) for handle in handles)


def counted(handles: Sequence[PublishFuture]) -> str:
    """How many messages ended how, and how long the slowest took."""
    outcomes = [str(one.result(0).outcome) for one in handles if one.done()]
    words = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    longest = max((one.result(0).seconds or 0.0 for one in handles if one.done()), default=0.0)
    return f"{', '.join(words) or 'no outcome'} within {longest:.2f} s"


DEMO: Demo[PartitionDemo] = Demo(
    title="Network partition",
    summary="A node is cut off from its peers, though clients reach it: it confirms nothing, and the others go on.",
    context=PartitionDemo,
    steps=(
        DemoStep(
            title="Three nodes that reach each other",
            explanation=(
                "A quorum queue confirms a message once a majority of its members has it on disk. With three members "
                "that is two: the leader and one follower. It makes no difference which node the publisher is "
                "connected to. This demo has a client for each node, which connects to that node only."
            ),
            terms=("quorum queue", "leader", "member", "majority", "publisher confirm"),
            prepare=PartitionDemo.reset,
            run=PartitionDemo.publish_at_every_node,
            command="dmq queue declare {messages}\ndmq publish --key {messages} --count 3 'a message'",
            claim="Every node has a member of the queue, and what is published at any node is confirmed.",
            check=PartitionDemo.all_confirm,
            sabotage=PartitionDemo.reset,
        ),
        DemoStep(
            title="One is cut off, the others go on",
            explanation=(
                "Now one node cannot reach its peers, as when a switch or a cable between them fails. The node runs, "
                "and its clients stay connected. The other two cannot tell this from a node that died, and need not: "
                "they are a majority. If the leader is one of them, it goes on; if not, they elect one."
            ),
            terms=("partition", "election"),
            ask=DemoQuestion(
                "Which node shall be cut off: the leader's, or a follower's?",
                usual="leader",
                choices=("leader", "follower"),
            ),
            prepare=PartitionDemo.ensure_whole,
            run=PartitionDemo.cut_off,
            command="dmq node isolate {node}\ndmq status",
            claim="The node is cut off, one of the others leads the queue, and what is published at them is confirmed.",
            check=PartitionDemo.majority_goes_on,
            sabotage=PartitionDemo.rejoin,
        ),
        DemoStep(
            title="The isolated node confirms nothing",
            explanation="The isolated node may still consider itself the leader, but it has no majority: it accepts "
            "what its clients publish and confirms none of it. Our client at this node knows no other node, and gives "
            "up after three seconds. In RabbitMQ 4.3 that is all: the node keeps its connections, and majorities "
            "alone decide. 4.0 and 3.10 have partition strategies, and dmq sets pause_minority for them: some six "
            "seconds after the cut the node notices that it is alone and pauses itself, so that clients cannot even "
            "connect.",
            terms=("unknown outcome",),
            prepare=PartitionDemo.ensure_cut,
            run=PartitionDemo.publish_on_both_sides,
            command="dmq queue show {messages}",
            claim="Nothing that is published at the isolated node is confirmed; everything published at the others is.",
            check=PartitionDemo.minority_confirms_nothing,
            sabotage=PartitionDemo.rejoin_and_publish,
        ),
        DemoStep(
            title="The node rejoins",
            explanation=(
                "Once the nodes reach each other, the node learns who leads, and follows. What it wrote alone does not "
                "count: no client had a confirm for it. The node may still forward some of it to the leader, as if it "
                "had just been published. There is nothing to merge, since only one side could confirm."
            ),
            prepare=PartitionDemo.ensure_cut,
            run=PartitionDemo.rejoin,
            command="dmq node rejoin {node}\ndmq queue show {messages}",
            claim="All members are online again, and what is published at the node is confirmed.",
            check=PartitionDemo.all_are_one,
            sabotage=PartitionDemo.cut_off,
        ),
        DemoStep(
            title="Every message accounted for",
            explanation=(
                "Confirmed means that the message is in the queue, whatever happened to a node. Unknown means that it "
                "may be there, forwarded once the node reached the others again. So a publisher that gets no "
                "confirm publishes the message again with the same id, to another node if need be, and consumers "
                "recognise a copy by that id."
            ),
            terms=("deduplication",),
            prepare=PartitionDemo.ensure_whole,
            run=PartitionDemo.read_all,
            command="dmq consume {messages} --for 5",
            claim="Every confirmed message is in the queue, read at the node that was cut off.",
            check=PartitionDemo.nothing_confirmed_is_lost,
            sabotage=PartitionDemo.lose_message,
        ),
    ),
    seen=(
        "The isolated node confirmed nothing, though clients reached it, while the other two went on. After it "
        "rejoined it followed the leader, and no confirmed message was missing."
    ),
    when="Use quorum queues or streams with three or five members, and clients that know every node, so that a client "
    "without confirms can connect to another node. A classic queue is on one node and has no majority. On 4.3 it stays "
    "available on an isolated node, but not to clients of the others; with pause_minority on 4.0 or 3.10 no client "
    "reaches it until the node rejoins. Other strategies of those versions are ignore, where one side has to be "
    "restarted by hand, and autoheal, which restarts the losing side.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectProducer, ProducerLimits, Queue

with BrokerConnectionManager() as one, BrokerConnectionManager() as all_three:
    one.register_broker(1, "localhost", 5672)
    for number, port in enumerate((5672, 5673, 5674), start=1):
        all_three.register_broker(number, "localhost", port)
    all_three.declare(Queue("messages", "quorum"))
    limits = ProducerLimits(republish=True)
    for name, manager in (("knows rmq1", one), ("knows all", all_three)):
        with DirectProducer(manager, limits=limits) as producer:
            handle = producer.publish("messages", "a message")
            producer.close(10)
            print(name, handle.result().outcome)
""",
    to_try="Run the code, then 'dmq node isolate rmq1', and run it again. Which of the two gets a confirm, and how "
    "long does it take? 'dmq node rejoin rmq1' ends it.",
    takes_s=20,
    repair=PartitionDemo.repair,
    focus=PartitionDemo.focus_on,
    breaks=True,
    impact=(
        "It isolates a node from its peers for about half a minute; clients connected to it get no confirms meanwhile."
    ),
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
