"""One node after the other is drained, restarted and waited for, as in an upgrade, while messages go on."""

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


class Road(TrafficContext):
    """Cars that have to get through while one lane after the other is renewed."""

    word = "car"

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.renewed: list[str] = []

    def begin(self) -> None:
        super().begin()
        self.renewed = []

    @property
    def others(self) -> list[str]:
        """The nodes that are still to be renewed."""
        return [node.name for node in self.cluster.nodes() if node.name != self.node]

    @property
    def is_whole(self) -> bool:
        """Whether all members of the queue are there."""
        return self.is_replicated(self.queue)

    def have_drained(self) -> None:
        """Has the node drained, unless it is."""
        if not self.is_sending or self.state(self.node) != NodeState.DRAINING:
            self.lead()
            self.drain()

    # What the steps do and check.

    def open_up(self) -> None:
        self.manager.declare(Queue(self.queue, "quorum"))
        self.consumer = DirectConsumer(self.queue, self.clients)
        self.consumer.start_consuming(self.arrived.handle)
        self.send_on()

    def drain(self) -> None:
        self.perform(NodeAction.DRAIN, self.node)

    def leads_and_serves_nothing(self) -> CheckResult:
        def is_free() -> bool:
            return self.leader(self.queue) not in ("", self.node) and self.spread("clients").get(self.node) == 0

        passed = self.until_told(is_free) and self.flows and self.state(self.node) == NodeState.DRAINING
        clients, leader = self.spread("clients").get(self.node), self.leader(self.queue)
        text = f"{self.node} is {self.state(self.node)} and has {clients} of our connections, {leader} leads"
        return CheckResult(passed, f"{text}; {self.waited}")

    def restart(self) -> None:
        self.perform(NodeAction.RESTART, self.node)

    def is_back(self) -> CheckResult:
        passed = self.until_told(lambda: self.is_whole) and self.flows
        return CheckResult(
            passed, f"{self.node} is {self.state(self.node)}; online: {self.online(self.queue)}; {self.waited}"
        )

    def renew_others(self) -> None:
        for node in self.others:
            if self.answer == "drained":
                self.perform(NodeAction.DRAIN, node)
            self.perform(NodeAction.RESTART, node)
            if not self.until_told(lambda: self.is_whole, BACK_WITHIN_S):
                break
            self.renewed.append(node)

    def all_are_renewed(self) -> CheckResult:
        passed = self.until_told(lambda: self.is_whole) and self.flows
        text = f"{', '.join(self.renewed) or 'none'} restarted, {self.answer}; online: {self.online(self.queue)}"
        return CheckResult(
            passed and self.renewed == self.others and self.longest_s < LONGEST_WAIT_S, f"{text}; {self.waited}"
        )


DEMO: Demo[Road] = Demo(
    title="Rolling upgrade",
    summary="Each node in turn is drained, restarted and waited for, under load: short waits, and nothing lost.",
    context=Road,
    steps=(
        DemoStep(
            title="Traffic, and a member on every node",
            explanation=(
                "A cluster is upgraded one node at a time, so that the others go on serving. That works for queues "
                "that have members on several nodes: a majority of these is enough to go on, so of three one may be "
                "away. So first look whether all are there. This demo publishes and consumes a hundred messages a "
                "second, from now to the end."
            ),
            terms=("quorum queue", "member", "majority"),
            prepare=Road.begin_anew,
            run=Road.open_up,
            command="dmq load --rate 100 --for 120\ndmq queue show {queue}",
            claim="Every node has a member of the queue, all are online, and messages come through.",
            check=Road.all_are_online,
            sabotage=Road.stop_sending,
        ),
        DemoStep(
            title="Drain: the leader leaves first",
            explanation=(
                "When a node just stops, the others have to notice that, and elect new leaders. One that is drained "
                "first hands its leaders over, closes its clients' connections and takes no new ones, and runs on with "
                "nothing to do. Clients have to connect elsewhere by themselves, as those of dmq do. Here the node "
                "that leads our queue goes first."
            ),
            terms=("leader", "drain"),
            prepare=Road.lead,
            run=Road.drain,
            command="dmq node drain {node}",
            claim="The drained node leads our queue no more and has no connection of ours, and messages come through.",
            check=Road.leads_and_serves_nothing,
            sabotage=Road.stop_sending,
        ),
        DemoStep(
            title="Restart, and wait until all is whole",
            explanation=(
                "Now the node may stop. In an upgrade the new version is installed here, as a new package, or as a "
                "container of the new image on the old data; this demo starts the same version again. The next node "
                "has to wait until every member is online: with two of three away, the queue would stand still. A "
                "restart ends the drain; without one, 'dmq node revive' does."
            ),
            terms=("rolling restart",),
            prepare=Road.have_drained,
            run=Road.restart,
            command="dmq node restart {node}\ndmq queue show {queue}",
            claim="The node runs, all members are online again, and messages come through.",
            check=Road.is_back,
            sabotage=Road.keep_it_down,
        ),
        DemoStep(
            title="The others, one after the other",
            explanation=(
                "In an upgrade, nodes of two versions now work together, by feature flags: what is new stays off as "
                "long as one node does not know it. Before the first node goes, all flags of the old version have to "
                "be enabled, or the new one may refuse to start; RabbitMQ's release notes tell which version may "
                "follow on which. The command does the whole round of all nodes, and before each it waits by "
                "'rabbitmq-upgrade await_online_quorum_plus_one'."
            ),
            terms=("feature flag",),
            ask=DemoQuestion("How shall each of the others go?", usual="drained", choices=("drained", "at once")),
            prepare=Road.carry_on,
            run=Road.renew_others,
            command="dmq fault do rolling-restart",
            claim="All others were restarted, all members are online, and no message waited ten seconds for its "
            "confirm.",
            check=Road.all_are_renewed,
            sabotage=Road.stop_sending,
        ),
        DemoStep(
            title="The account",
            explanation=(
                "What was under way when a connection broke has no confirm, and may have arrived or not; the producer "
                "sends it again, so some may come twice. After an upgrade one act is left, once all is well: to enable "
                "the new feature flags with 'rabbitmqctl enable_feature_flag all'. None of them can be disabled again, "
                "and a node that does not know them can no longer join."
            ),
            terms=("publisher confirm", "unknown outcome"),
            prepare=Road.carry_on,
            run=Road.finish,
            command="dmq queue show {queue}",
            claim="Every message that was confirmed arrived, and the queue is empty.",
            check=Road.nothing_was_lost,
            sabotage=Road.lose_one,
        ),
    ),
    seen="Every node was restarted while messages went on, and none before all members were online again. The first "
    "had no leader of ours and no clients any more when it went. Whoever waited, waited shortly, and nothing that was "
    "confirmed is missing.",
    when="For upgrades, new settings that need a restart, or repairs. The queues have to be quorum queues or streams "
    "on three nodes or more, and the clients have to reconnect and to publish with confirms. A classic queue is away "
    "as long as its node is.",
    code="""
from threading import Event

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, ProducerLimits

with BrokerConnectionManager() as manager:
    for number, port in enumerate((5672, 5673, 5674), start=1):
        manager.register_broker(number, "localhost", port)
    manager.listen(lambda event: print(event.role, event.status.state, event.broker))
    came, all_came = set(), Event()
    consumer = DirectConsumer("cars", manager, deduplicate=10_000)
    consumer.declare_queue()

    def handle(message, headers):
        came.add(message)
        if len(came) == 2000:
            all_came.set()
        return True

    limits = ProducerLimits(republish=True)
    with consumer.start_consuming(handle), DirectProducer(manager, limits=limits) as producer:
        handles = producer.publish_many("cars", [f"car {number}" for number in range(2000)])
        producer.flush(60)
        all_came.wait(60)
        print(sum(handle.settlement.outcome == "confirmed" for handle in handles), "confirmed,", len(came), "came")
""",
    to_try="Run 'dmq load' in one terminal and 'dmq fault do rolling-restart' in another. How long is the longest gap, "
    "and does anything come twice? What changes with 'dmq node kill' instead?",
    takes_s=60,
    repair=Road.repair,
    focus=Road.look,
    breaks=True,
    impact="It drains and restarts every node, one after the other; clients of a node have to connect to another one.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
