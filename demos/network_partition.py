"""A node is cut off from its peers while clients still reach it: it confirms nothing, the others go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, Handle, ProducerLimits, Queue

LIMITS = ProducerLimits(republish=True)
SETTLES_WITHIN_S = 15.0
ALONE_FOR_S = 3.0
RECONNECTS_WITHIN_S = 60.0


class Islands(DemoContext):
    """Letters from three islands, when the bridge to one of them is down."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.letters = self.named("letters")
        self.nodes = [node.name for node in self.cluster.nodes()]
        self.people: dict[str, BrokerConnectionManager] = {
            name: self.client(f"at {name}", node=name) for name in self.nodes
        }
        self.node = self.nodes[0] if self.nodes else ""
        self.posted: list[Handle] = []
        self.here: list[Handle] = []
        self.there: list[Handle] = []
        self.read = Inbox()

    def begin(self) -> None:
        self.here, self.there = [], []

    # What is said of it.

    @property
    def others(self) -> list[str]:
        """The nodes that are not cut off."""
        return [name for name in self.nodes if name != self.node]

    @property
    def is_cut(self) -> bool:
        return self.state(self.node) == NodeState.ISOLATED

    @property
    def is_whole(self) -> bool:
        return self.is_replicated(self.letters)

    @property
    def another_leads(self) -> bool:
        return self.leader(self.letters) in self.others

    @property
    def confirmed(self) -> set[object]:
        """All letters that were confirmed since there is a queue."""
        return {handle.body.decode() for handle in self.posted if handle_is("confirmed", handle)}

    def picked(self) -> str:
        """The node that the answer means."""
        led = self.leader(self.letters) or self.node
        return led if self.answer == "leader" else next(name for name in self.nodes if name != led)

    # How things get where they have to be.

    def begin_anew(self) -> None:
        """Has no queue, and nothing posted."""
        self.delete(self.letters)
        self.posted.clear()
        self.read.clear()

    def unite(self) -> None:
        """Has every node reach every other, and a queue with letters from all of them."""
        self.restore_cluster()
        if not self.until_told(lambda: self.is_whole):
            self.begin_anew()
            self.post_everywhere()
        self.until_told(lambda: self.is_whole)

    def have_cut(self) -> None:
        """Has a node cut off, and another one lead, unless it is so."""
        if not self.is_cut:
            self.unite()
            self.cut_off()
        self.until_told(lambda: self.another_leads)

    def rejoin_and_post(self) -> None:
        """Has the node go on as if nothing had been."""
        self.rejoin()
        self.until_told(lambda: self.is_whole)
        self.here = self.post(self.node)

    def lose_one(self) -> None:
        """Has a letter confirmed that nobody gets."""
        self.post(self.node)
        self.delete(self.letters)

    def repair(self) -> None:
        """Has a whole cluster, and a fresh queue."""
        self.restore_cluster()
        self.begin_anew()
        self.post_everywhere()
        self.until_told(lambda: self.is_whole)

    # What the steps do and check.

    def look(self) -> Focus:
        return Focus(queue=self.letters, node=self.node)

    def post(self, *nodes: str, within_s: float = SETTLES_WITHIN_S) -> list[Handle]:
        """Posts three letters at each of the nodes; those without a confirm after so long are given up."""
        handles: list[Handle] = []
        for node in nodes:
            producer = DirectProducer(self.people[node], limits=LIMITS)
            handles += producer.publish_many(self.letters, [f"{node} {n}" for n in self.numbers])
            producer.close(within_s)
        self.posted += handles
        return handles

    @property
    def numbers(self) -> range:
        """Three that no letter has yet."""
        return range(len(self.posted) + 1, len(self.posted) + 4)

    def post_everywhere(self) -> None:
        self.manager.declare(Queue(self.letters, "quorum"))
        self.there = self.post(*self.nodes)

    def all_confirm(self) -> CheckResult:
        passed = self.until_told(lambda: self.is_whole) and all_are("confirmed", self.there)
        self.node = self.leader(self.letters) or self.node
        text = f"online: {self.online(self.letters)}; {self.node} leads"
        return CheckResult(passed, f"{text}; {counted(self.there)}")

    def cut_off(self) -> None:
        self.node = self.picked()
        self.perform(NodeAction.ISOLATE, self.node)
        self.until_told(lambda: self.another_leads)
        self.there = self.post(*self.others)

    def majority_goes_on(self) -> CheckResult:
        passed = self.until_told(lambda: self.another_leads) and all_are("confirmed", self.there)
        text = f"{self.node} is {self.state(self.node)}; the others say: {self.leader(self.letters) or 'nobody'} leads"
        return CheckResult(passed and self.is_cut, f"{text}; {counted(self.there)}")

    def post_on_both_sides(self) -> None:
        self.here = self.post(self.node, within_s=ALONE_FOR_S)
        self.there = self.post(*self.others)

    def minority_confirms_nothing(self) -> CheckResult:
        alone = bool(self.here) and not any(handle_is("confirmed", handle) for handle in self.here)
        text = f"at {self.node}: {counted(self.here)}; at the others: {counted(self.there)}"
        return CheckResult(alone and all_are("confirmed", self.there), text)

    def rejoin(self) -> None:
        self.perform(NodeAction.REJOIN, self.node)
        self.people[self.node].wait_open(RECONNECTS_WITHIN_S)

    def all_are_one(self) -> CheckResult:
        passed = self.until_told(lambda: self.is_whole)
        if passed:
            self.here = self.post(self.node)
        text = f"{self.node} is {self.state(self.node)}; {self.leader(self.letters) or 'nobody'} leads"
        confirmed = all_are("confirmed", self.here)
        return CheckResult(
            passed and confirmed, f"{text}; online: {self.online(self.letters)}; at {self.node}: {counted(self.here)}"
        )

    def read_all(self) -> None:
        with DirectConsumer(self.letters, self.people[self.node]).start_consuming(self.read.handle):
            self.until(lambda: self.confirmed <= set(self.read.messages) and self.ready(self.letters) == 0)

    def nothing_confirmed_is_lost(self) -> CheckResult:
        confirmed, read = self.confirmed, set(self.read.messages)
        missing, others = confirmed - read, {handle.body.decode() for handle in self.posted} - confirmed
        text = f"{len(confirmed)} confirmed, {len(missing)} of them missing"
        told = f"of {len(others)} without a confirm {len(others & read)} were there"
        return CheckResult(bool(confirmed) and not missing, f"{text}; {told}")


def handle_is(outcome: str, handle: Handle) -> bool:
    """Whether a message ended as `outcome`."""
    return handle.settlement is not None and handle.settlement.outcome == outcome


def all_are(outcome: str, handles: Sequence[Handle]) -> bool:
    """Whether there are messages, and all ended as `outcome`."""
    return bool(handles) and all(handle_is(outcome, handle) for handle in handles)


def counted(handles: Sequence[Handle]) -> str:
    """How many messages ended how, and how long the slowest took."""
    outcomes = [str(one.settlement.outcome) for one in handles if one.settlement is not None]
    words = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    longest = max((one.settlement.seconds or 0.0 for one in handles if one.settlement is not None), default=0.0)
    return f"{', '.join(words) or 'nothing is known'} within {longest:.2f} s"


DEMO: Demo[Islands] = Demo(
    title="Network partition",
    summary="A node is cut off from its peers, though clients reach it: it confirms nothing, and the others go on.",
    context=Islands,
    steps=(
        DemoStep(
            title="Three nodes that reach each other",
            explanation=(
                "A quorum queue confirms a message once a majority of its members has it on disk. With three members "
                "that is two: the leader and one that follows. It makes no difference at which node the publisher is. "
                "Here is a client for each node, which knows that node alone."
            ),
            terms=("quorum queue", "leader", "member", "majority", "publisher confirm"),
            prepare=Islands.begin_anew,
            run=Islands.post_everywhere,
            command="dmq queue declare {letters}\ndmq publish --key {letters} --count 3 'a letter'",
            claim="Every node has a member of the queue, and what is published at any node is confirmed.",
            check=Islands.all_confirm,
            sabotage=Islands.begin_anew,
        ),
        DemoStep(
            title="One is cut off, the others go on",
            explanation=(
                "Now nothing passes between one node and its peers, as when a switch or a cable between them fails. "
                "The node runs, and so do its clients' connections. The other two cannot tell that from a node that "
                "died, and need not: they are a majority. If the leader is among them, it goes on; if not, they elect "
                "one."
            ),
            terms=("partition", "election"),
            ask=DemoQuestion(
                "Which node shall be cut off: that of the leader, or of a follower?",
                usual="leader",
                choices=("leader", "follower"),
            ),
            prepare=Islands.unite,
            run=Islands.cut_off,
            command="dmq node isolate {node}\ndmq status",
            claim="The node is cut off, one of the others leads the queue, and what they are sent is confirmed.",
            check=Islands.majority_goes_on,
            sabotage=Islands.rejoin,
        ),
        DemoStep(
            title="The one that is alone confirms nothing",
            explanation="The node that is cut off may still take itself for the leader, but it finds nobody to make a "
            "majority with: it takes what its clients send, and confirms none of it. Our client there knows no other "
            "node, and gives up after three seconds. In RabbitMQ 4.3 that is all: the node keeps its connections, and "
            "majorities alone decide. 4.0 and 3.10 have partition strategies, and dmq sets pause_minority for them: "
            "the node sees that it is alone, some six seconds after the cut, and stops serving, so that clients "
            "cannot even connect.",
            terms=("unknown outcome",),
            prepare=Islands.have_cut,
            run=Islands.post_on_both_sides,
            command="dmq queue show {letters}",
            claim="Nothing that the node is sent is confirmed, and all that the others are sent is.",
            check=Islands.minority_confirms_nothing,
            sabotage=Islands.rejoin_and_post,
        ),
        DemoStep(
            title="Together again",
            explanation=(
                "Once they reach each other, the node hears who leads and follows. What it wrote down alone does not "
                "count: nobody had a confirm for it. Some of it the node may still pass on to the leader, as if it had "
                "just come. There is nothing to merge and nothing to choose, since only one side could confirm."
            ),
            prepare=Islands.have_cut,
            run=Islands.rejoin,
            command="dmq node rejoin {node}\ndmq queue show {letters}",
            claim="All members are online again, and what is published at the node is confirmed.",
            check=Islands.all_are_one,
            sabotage=Islands.cut_off,
        ),
        DemoStep(
            title="The account",
            explanation=(
                "Confirmed means: it is there, whatever happened to whom. Unknown means that it may be there, passed "
                "on once the node reached the others again. So whoever gets no confirm sends the message again under "
                "the same id, to another node if need be, and consumers know it by that."
            ),
            terms=("deduplication",),
            prepare=Islands.unite,
            run=Islands.read_all,
            command="dmq consume {letters} --for 5",
            claim="Every message that was confirmed is there, read at the node that was cut off.",
            check=Islands.nothing_confirmed_is_lost,
            sabotage=Islands.lose_one,
        ),
    ),
    seen="The node that was cut off confirmed nothing, though clients reached it, while the other two went on. When it "
    "was back it followed, and nothing that had been confirmed was missing.",
    when="Take quorum queues or streams with three or five members, and clients that know every node, so that one that "
    "gets no confirm can go to another. A classic queue has one member, and no majority to ask. On 4.3 it goes on at "
    "a node that is cut off, out of reach for clients at the others; with pause_minority on 4.0 or 3.10 it is out of "
    "everybody's reach until the node is back. Other strategies of those versions are ignore, where somebody has to "
    "restart one side by hand, and autoheal, which restarts the losing side.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectProducer, ProducerLimits, Queue

with BrokerConnectionManager() as one, BrokerConnectionManager() as all_three:
    one.register_broker(1, "localhost", 5672)
    for number, port in enumerate((5672, 5673, 5674), start=1):
        all_three.register_broker(number, "localhost", port)
    all_three.declare(Queue("letters", "quorum"))
    limits = ProducerLimits(republish=True)
    for name, manager in (("knows rmq1", one), ("knows all", all_three)):
        with DirectProducer(manager, limits=limits) as producer:
            handle = producer.publish("letters", "Dear Ada, ...")
            producer.close(10)
            print(name, handle.settlement.outcome)
""",
    to_try="Run the code, then 'dmq node isolate rmq1', and run it again. Which of the two gets a confirm, and how "
    "long does it take? 'dmq node rejoin rmq1' ends it.",
    takes_s=20,
    repair=Islands.repair,
    focus=Islands.look,
    breaks=True,
    impact="It cuts a node off from its peers for half a minute or so; clients at that node get no confirms meanwhile.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
