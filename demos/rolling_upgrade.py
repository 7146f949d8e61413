"""One node after the other is drained and restarted, as in an upgrade, while messages are delivered."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep
from dmq_core.demo.traffic_context import TrafficContext
from dmq_core.messaging import DirectConsumer, Queue

LONGEST_WAIT_S = 10.0
BACK_WITHIN_S = 60.0


class UpgradeDemo(TrafficContext):
    """Messages that go through a quorum queue while one node after the other is restarted."""

    word = "message"

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.restarted: list[str] = []

    def before_step(self) -> None:
        super().before_step()
        self.restarted = []

    @property
    def others(self) -> list[str]:
        """The nodes that are still to be restarted."""
        return [node.name for node in self.cluster.nodes() if node.name != self.node]

    @property
    def is_whole(self) -> bool:
        """Whether all members of the queue are online."""
        return self.is_replicated(self.queue)

    def ensure_drained(self) -> None:
        """Makes sure that the node is drained."""
        if not self.is_sending or self.state(self.node) != NodeState.DRAINING:
            self.prepare_leader()
            self.drain()

    # Steps and checks.

    def start_traffic(self) -> None:
        self.manager.declare(Queue(self.queue, "quorum"))
        self.consumer = DirectConsumer(self.clients, self.queue)
        self.consumer.start_consuming(self.arrived.handle)
        self.start_sending()

    def drain(self) -> None:
        self.perform(NodeAction.DRAIN, self.node)

    def leads_and_serves_nothing(self) -> CheckResult:
        def is_free() -> bool:
            return self.leader(self.queue) not in ("", self.node) and self.spread("clients").get(self.node) == 0

        passed = (
            self.wait_until_reported(is_free) and self.messages_flow and self.state(self.node) == NodeState.DRAINING
        )
        clients, leader = self.spread("clients").get(self.node), self.leader(self.queue)
        text = f"{self.node} is {self.state(self.node)} and has {clients} of our connections, {leader} leads"
        return CheckResult(passed, f"{text}; {self.longest_wait_text}")

    def restart(self) -> None:
        self.perform(NodeAction.RESTART, self.node)

    def is_back(self) -> CheckResult:
        passed = self.wait_until_reported(lambda: self.is_whole) and self.messages_flow
        return CheckResult(
            passed,
            f"{self.node} is {self.state(self.node)}; online: {self.online(self.queue)}; {self.longest_wait_text}",
        )

    def restart_others(self) -> None:
        for node in self.others:
            if self.answer == "drained":
                self.perform(NodeAction.DRAIN, node)
            self.perform(NodeAction.RESTART, node)
            if not self.wait_until_reported(lambda: self.is_whole, BACK_WITHIN_S):
                break
            self.restarted.append(node)

    def all_are_restarted(self) -> CheckResult:
        passed = self.wait_until_reported(lambda: self.is_whole) and self.messages_flow
        text = f"{', '.join(self.restarted) or 'none'} restarted, {self.answer}; online: {self.online(self.queue)}"
        return CheckResult(
            passed and self.restarted == self.others and self.longest_s < LONGEST_WAIT_S,
            f"{text}; {self.longest_wait_text}",
        )


DEMO: Demo[UpgradeDemo] = Demo(
    title="Rolling upgrade",
    summary="Each node in turn is drained and restarted under load: short waits, and no message is lost.",
    context=UpgradeDemo,
    steps=(
        DemoStep(
            title="Traffic, and a member on every node",
            explanation=(
                "A cluster is upgraded one node at a time, so that the others stay available. That works for queues "
                "that have members on several nodes: a majority of them is enough, so of three one may be down. So "
                "first check that all are online. This demo publishes and consumes a hundred messages a second from "
                "now to the end."
            ),
            terms=("quorum queue", "member", "majority"),
            prepare=UpgradeDemo.reset_traffic,
            run=UpgradeDemo.start_traffic,
            command="dmq load --rate 100 --for 120\ndmq queue show {queue}",
            claim="Every node has a member of the queue, all are online, and messages are delivered.",
            check=UpgradeDemo.all_are_online,
            sabotage=UpgradeDemo.stop_sending,
        ),
        DemoStep(
            title="Drain the leader's node first",
            explanation=(
                "When a node just stops, the others have to notice that and elect new leaders. A node that is drained "
                "first transfers its leaders, closes its clients' connections, accepts no new ones, and runs on "
                "without work. Clients have to reconnect to another node by themselves, as those of dmq do. Here the "
                "node that leads our queue is drained first."
            ),
            terms=("leader", "drain"),
            prepare=UpgradeDemo.prepare_leader,
            run=UpgradeDemo.drain,
            command="dmq node drain {node}",
            claim=(
                "The drained node no longer leads our queue, has none of our connections, and messages are delivered."
            ),
            check=UpgradeDemo.leads_and_serves_nothing,
            sabotage=UpgradeDemo.stop_sending,
        ),
        DemoStep(
            title="Restart it, and wait until every member is online",
            explanation=(
                "Now the node may stop. In an upgrade the new version is installed here, as a package, or as a "
                "container of the new image on the old data; this demo starts the same version again. The next node "
                "has to wait until every member is online: with two of three down, the queue would be unavailable. A "
                "restart ends the drain; without one, 'dmq node revive' does."
            ),
            terms=("rolling restart",),
            prepare=UpgradeDemo.ensure_drained,
            run=UpgradeDemo.restart,
            command="dmq node restart {node}\ndmq queue show {queue}",
            claim="The node runs, all members are online again, and messages are delivered.",
            check=UpgradeDemo.is_back,
            sabotage=UpgradeDemo.stop_node,
        ),
        DemoStep(
            title="The others, one after the other",
            explanation=(
                "In an upgrade, nodes of two versions now work together by feature flags: a new feature stays off as "
                "long as one node does not know it. Before the first node is upgraded, all flags of the old version "
                "have to be enabled, or the new one may refuse to start; RabbitMQ's release notes list which version "
                "may follow which. The command restarts all nodes in turn, and before each it waits with "
                "'rabbitmq-upgrade await_online_quorum_plus_one'."
            ),
            terms=("feature flag",),
            ask=DemoQuestion(
                "How shall each of the others be restarted?", usual="drained", choices=("drained", "at once")
            ),
            prepare=UpgradeDemo.ensure_traffic,
            run=UpgradeDemo.restart_others,
            command="dmq fault do rolling-restart",
            claim="All others were restarted, all members are online, and no message waited ten seconds for its "
            "confirm.",
            check=UpgradeDemo.all_are_restarted,
            sabotage=UpgradeDemo.stop_sending,
        ),
        DemoStep(
            title="Every message accounted for",
            explanation=(
                "A message whose connection broke before its confirm may have arrived or not; the producer publishes "
                "it again, so some may arrive twice. After an upgrade, once the cluster is healthy, enable the new "
                "feature flags with 'rabbitmqctl enable_feature_flag all'. None of them can be disabled again, and a "
                "node that does not know them can no longer join."
            ),
            terms=("publisher confirm", "unknown outcome"),
            prepare=UpgradeDemo.ensure_traffic,
            run=UpgradeDemo.finish_traffic,
            command="dmq queue show {queue}",
            claim="Every confirmed message arrived, and the queue is empty.",
            check=UpgradeDemo.nothing_was_lost,
            sabotage=UpgradeDemo.lose_message,
        ),
    ),
    seen=(
        "Every node was restarted while messages were delivered, each only once all members were online again. The "
        "first one led no queue of ours and had no clients when it was restarted. Confirms took a little longer at "
        "times, and no confirmed message is missing."
    ),
    when=(
        "For upgrades, settings that need a restart, or repairs. The queues have to be quorum queues or streams on "
        "three nodes or more, and the clients have to reconnect and to publish with confirms. A classic queue is "
        "unavailable while its node is down."
    ),
    code="""
from threading import Event

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits

with BrokerConnectionManager() as manager:
    for number, port in enumerate((5672, 5673, 5674), start=1):
        manager.register_broker(number, "localhost", port)
    manager.listen(lambda event: print(event.role, event.status.state, event.broker))
    arrived, all_arrived = set(), Event()
    consumer = DirectConsumer(manager, "messages", deduplicate=10_000)
    consumer.declare_queue()

    def handle(message, headers):
        arrived.add(message)
        if len(arrived) == 2000:
            all_arrived.set()
        return True

    limits = ProducerLimits(republish=True)
    with consumer.start_consuming(handle), DirectProducer(manager, limits=limits) as producer:
        handles = producer.publish_many("messages", [f"message {number}" for number in range(2000)])
        producer.flush(60)
        all_arrived.wait(60)
        confirmed = sum(handle.result().outcome == "confirmed" for handle in handles)
        print(confirmed, "confirmed,", len(arrived), "arrived")
""",
    to_try="Run 'dmq load' in one terminal and 'dmq fault do rolling-restart' in another. How long is the longest gap, "
    "and does any message arrive twice? What changes with 'dmq node kill' instead?",
    takes_s=60,
    repair=UpgradeDemo.repair,
    focus=UpgradeDemo.focus_on,
    breaks=True,
    impact="It drains and restarts every node, one after the other; clients of a node have to connect to another one.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
