"""One node after the other is drained, restarted and waited for, as in an upgrade, while messages go on."""

from __future__ import annotations

import itertools
import sys
import threading

from dmq_core.cluster.base import NodeAction, NodeState
from dmq_core.guide.form import Demo, Focus, Question, Seen, Step
from dmq_core.guide.inbox import Inbox
from dmq_core.guide.play import play
from dmq_core.guide.scene import Backdrop, Scene
from dmq_core.messaging import DirectConsumer, DirectProducer, Handle, ProducerLimits, Queue

PACE_S = 0.01
ENOUGH = 10
LONGEST_WAIT_S = 5.0
BACK_WITHIN_S = 60.0
ENDS_WITHIN_S = 20.0


class Road(Scene):
    """Cars that have to get through while one lane after the other is renewed."""

    def __init__(self, backdrop: Backdrop) -> None:
        super().__init__(backdrop)
        self.cars = self.named("cars")
        self.drivers = self.client("drivers")
        self.node = next((node.name for node in self.cluster.nodes()), "")
        self.renewed: list[str] = []
        self.sent: list[Handle] = []
        self.arrived = Inbox()
        self.before = 0
        self.closed = threading.Event()
        self.traffic: threading.Thread | None = None
        self.consumer: DirectConsumer | None = None
        self.at_the_end(self.leave_road)

    def begin(self) -> None:
        self.renewed = []
        self.before = len(self.sent)

    # What goes on.

    def drive(self) -> None:
        """Sends one car after the other, until the road is closed."""
        with DirectProducer(self.drivers, limits=ProducerLimits(republish=True)) as producer:
            for number in itertools.count(1):
                if self.closed.wait(PACE_S):
                    break
                self.sent.append(producer.publish(self.cars, f"car {number}"))

    def stop_driving(self) -> None:
        """Has no more cars sent."""
        self.closed.set()
        if self.traffic is not None:
            self.traffic.join(ENDS_WITHIN_S)
            self.traffic = None

    @property
    def flows(self) -> bool:
        """Whether cars arrive that were sent from now on."""
        enough = len(self.sent) + ENOUGH
        return self.until(lambda: len(self.arrived.received) >= enough)

    @property
    def others(self) -> list[str]:
        """The nodes that are still to be renewed."""
        return [node.name for node in self.cluster.nodes() if node.name != self.node]

    @property
    def state(self) -> str:
        return next((str(node.state) for node in self.cluster.nodes() if node.name == self.node), "gone")

    @property
    def is_whole(self) -> bool:
        """Whether every node runs, and the broker says that each has a member of the queue, which is online."""
        told, nodes = self.figures.queue(self.key(self.cars)), self.cluster.nodes()
        names = {node.erlang_name for node in nodes}
        runs = all(node.state is NodeState.RUNNING for node in nodes)
        return told is not None and runs and set(told.members) == set(told.online) == names

    @property
    def online(self) -> str:
        """Which members are online, in words."""
        told = self.figures.queue(self.key(self.cars))
        online = () if told is None else told.online
        return ", ".join(node.name for node in self.cluster.nodes() if node.erlang_name in online) or "none"

    @property
    def longest_s(self) -> float:
        """How long a car of this step waited for its confirm at most, in seconds."""
        settlements = [car.settlement for car in self.sent[self.before :]]
        return max((one.seconds or 0.0 for one in settlements if one is not None), default=0.0)

    @property
    def waited(self) -> str:
        return f"the longest wait for a confirm was {self.longest_s:.2f} s"

    # How things get where they have to be.

    def leave_road(self) -> None:
        """Has nobody on the road, whether all arrived or not."""
        self.stop_driving()
        if self.consumer is not None:
            self.consumer.close()
            self.consumer = None

    def begin_anew(self) -> None:
        """Has a road that nobody is on."""
        self.leave_road()
        self.delete(self.cars)
        self.sent.clear()
        self.arrived.clear()
        self.closed.clear()

    def carry_on(self) -> None:
        """Has every node run, and cars arrive."""
        self.make_whole()
        if self.traffic is None:
            self.begin_anew()
            self.open_road()
        self.until_told(lambda: self.is_whole)
        self.until(lambda: len(self.arrived.received) >= ENOUGH)

    def lead(self) -> None:
        """Has every node run, and takes the one that leads the queue."""
        self.carry_on()
        self.note_leader()

    def note_leader(self) -> None:
        self.node = self.leader(self.cars) or self.node

    def have_drained(self) -> None:
        """Has the node drained, unless it is."""
        if self.traffic is None or self.state != NodeState.DRAINING:
            self.lead()
            self.drain()

    def keep_it_down(self) -> None:
        """Has the node stopped, until the broker says that its member is gone."""
        self.perform(NodeAction.STOP, self.node)
        self.until_told(lambda: not self.is_whole)

    def lose_one(self) -> None:
        """Has a car confirmed that does not arrive."""
        with DirectProducer(self.manager) as producer:
            self.sent.append(producer.publish(self.cars, "a car that nobody saw"))
        self.delete(self.cars)

    def look(self) -> Focus:
        return Focus(queue=self.cars, node=self.node)

    # What the steps do and check.

    def open_road(self) -> None:
        self.manager.declare(Queue(self.cars, "quorum"))
        self.consumer = DirectConsumer(self.cars, self.drivers)
        self.consumer.start_consuming(self.arrived.handle)
        self.traffic = threading.Thread(target=self.drive, daemon=True)
        self.traffic.start()

    def all_are_online(self) -> Seen:
        held = self.until_told(lambda: self.is_whole) and self.flows
        self.note_leader()
        return Seen(held, f"online: {self.online}; {self.node} leads; {len(self.arrived.received)} messages came")

    def drain(self) -> None:
        self.perform(NodeAction.DRAIN, self.node)

    def leads_and_serves_nothing(self) -> Seen:
        def is_free() -> bool:
            return self.leader(self.cars) not in ("", self.node) and self.spread("drivers").get(self.node) == 0

        held = self.until_told(is_free) and self.flows and self.state == NodeState.DRAINING
        clients = self.spread("drivers").get(self.node)
        text = f"{self.node} is {self.state} and has {clients} of our connections, {self.leader(self.cars)} leads"
        return Seen(held, f"{text}; {self.waited}")

    def restart(self) -> None:
        self.perform(NodeAction.RESTART, self.node)

    def is_back(self) -> Seen:
        held = self.until_told(lambda: self.is_whole) and self.flows
        return Seen(held, f"{self.node} is {self.state}; online: {self.online}; {self.waited}")

    def renew_others(self) -> None:
        for node in self.others:
            if self.answer == "drained":
                self.perform(NodeAction.DRAIN, node)
            self.perform(NodeAction.RESTART, node)
            if not self.until_told(lambda: self.is_whole, BACK_WITHIN_S):
                break
            self.renewed.append(node)

    def all_are_renewed(self) -> Seen:
        held = self.until_told(lambda: self.is_whole) and self.flows
        text = f"{', '.join(self.renewed) or 'none'} restarted, {self.answer}; online: {self.online}"
        return Seen(held and self.renewed == self.others and self.longest_s < LONGEST_WAIT_S, f"{text}; {self.waited}")

    def close_road(self) -> None:
        self.stop_driving()
        self.until(lambda: len(set(self.arrived.messages)) == len(self.sent))
        self.leave_road()

    def nothing_was_lost(self) -> Seen:
        settled = [(car.body.decode(), car.settlement) for car in self.sent]
        confirmed = {car for car, one in settled if one is not None and one.outcome == "confirmed"}
        arrived = [str(car) for car in self.arrived.messages]
        missing, again = confirmed.difference(arrived), len(arrived) - len(set(arrived))
        text = f"{len(self.sent)} sent, {len(confirmed)} confirmed, {len(missing)} of them missing, {again} came twice"
        held = bool(confirmed) and not missing and self.until(lambda: self.ready(self.cars) == 0)
        return Seen(held, f"{text}; {self.ready(self.cars)} wait")

    def mend(self) -> None:
        """Has every node run, and fresh traffic."""
        self.stop_driving()
        self.carry_on()


DEMO = Demo(
    title="Rolling upgrade",
    summary="Each node in turn is drained, restarted and waited for, under load: short waits, and nothing lost.",
    scene=Road,
    steps=(
        Step(
            title="Traffic, and a member on every node",
            know="A cluster is upgraded one node at a time, so that the others go on serving. That works for queues "
            "that have members on several nodes: a majority of these is enough to go on, so of three one may be away. "
            "So first look whether all are there. This demo publishes and consumes a hundred messages a second, from "
            "now to the end.",
            terms=("quorum queue", "member", "majority"),
            prepare=Road.begin_anew,
            play=Road.open_road,
            command="dmq load --rate 100 --for 120\ndmq queue show {cars}",
            claim="Every node has a member of the queue, all are online, and messages come through.",
            check=Road.all_are_online,
            spoil=Road.stop_driving,
        ),
        Step(
            title="Drain: the leader leaves first",
            know="When a node just stops, the others have to notice that, and elect new leaders. One that is drained "
            "first hands its leaders over, closes its clients' connections and takes no new ones, and runs on with "
            "nothing to do. Clients have to connect elsewhere by themselves, as those of dmq do. Here the node that "
            "leads our queue goes first.",
            terms=("leader", "drain"),
            prepare=Road.lead,
            play=Road.drain,
            command="dmq node drain {node}",
            claim="The drained node leads our queue no more and has no connection of ours, and messages come through.",
            check=Road.leads_and_serves_nothing,
            spoil=Road.stop_driving,
        ),
        Step(
            title="Restart, and wait until all is whole",
            know="Now the node may stop. In an upgrade the new version is installed here, as a new package, or as a "
            "container of the new image on the old data; this demo starts the same version again. The next node has to "
            "wait until every member is online: with two of three away, the queue would stand still. A restart ends "
            "the drain; without one, 'dmq node revive' does.",
            terms=("rolling restart",),
            prepare=Road.have_drained,
            play=Road.restart,
            command="dmq node restart {node}\ndmq queue show {cars}",
            claim="The node runs, all members are online again, and messages come through.",
            check=Road.is_back,
            spoil=Road.keep_it_down,
        ),
        Step(
            title="The others, one after the other",
            know="In an upgrade, nodes of two versions now work together, by feature flags: what is new stays off as "
            "long as one node does not know it. Before the first node goes, all flags of the old version have to be "
            "enabled, or the new one may refuse to start; RabbitMQ's release notes tell which version may follow on "
            "which. The command does the whole round of all nodes, and before each it waits by 'rabbitmq-upgrade "
            "await_online_quorum_plus_one'.",
            terms=("feature flag",),
            ask=Question("How shall each of the others go?", usual="drained", choices=("drained", "at once")),
            prepare=Road.carry_on,
            play=Road.renew_others,
            command="dmq fault do rolling-restart",
            claim="All others were restarted, all members are online, and no message waited five seconds for its "
            "confirm.",
            check=Road.all_are_renewed,
            spoil=Road.stop_driving,
        ),
        Step(
            title="The account",
            know="What was under way when a connection broke has no confirm, and may have arrived or not; the producer "
            "sends it again, so some may come twice. After an upgrade one act is left, once all is well: to enable the "
            "new feature flags with 'rabbitmqctl enable_feature_flag all'. None of them can be disabled again, and a "
            "node that does not know them can no longer join.",
            terms=("publisher confirm", "unknown outcome"),
            prepare=Road.carry_on,
            play=Road.close_road,
            command="dmq queue show {cars}",
            claim="Every message that was confirmed arrived, and the queue is empty.",
            check=Road.nothing_was_lost,
            spoil=Road.lose_one,
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
    mend=Road.mend,
    focus=Road.look,
    breaks=True,
    impact="It drains and restarts every node, one after the other; clients of a node have to connect to another one.",
)

if __name__ == "__main__":
    sys.exit(play(__file__))
