"""Work is shared twice: a queue shares its messages among consumers, and a cluster shares queues and clients."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders, Policy, Queue

JOBS = tuple(f"job {number}" for number in range(1, 11))
LONGEST_JOB_S = 60.0
# From here on RabbitMQ places leaders at random, for counting them would take too long.
MANY = 1000


class Workshop(DemoContext):
    """Ten jobs for two workers, of whom one is slow; and queues and clients that use every node."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.jobs = self.named("jobs")
        self.queues = tuple(self.named(f"jobs.{number}") for number in (1, 2, 3))
        self.workers: list[DirectConsumer] = []
        self.done: list[tuple[str, object]] = []
        self.tortoise_may_finish = threading.Event()
        self.outcomes: list[str] = []
        self.shop: BrokerConnectionManager | None = None
        self.on_close(self.dismiss)

    def begin(self) -> None:
        self.done = []
        self.tortoise_may_finish.set()

    def work_of(self, name: str) -> Callable[[object, MessageHeaders], bool]:
        """The handler of a worker."""

        def work(message: object, _headers: MessageHeaders) -> bool:
            if name == "Tortoise":
                self.tortoise_may_finish.wait(LONGEST_JOB_S)
            self.done.append((name, message))
            return True

        return work

    def hire(self, prefetch: int) -> None:
        """Has two workers, each of whom may hold so many jobs."""
        self.dismiss()
        for name in ("Hare", "Tortoise"):
            worker = DirectConsumer(self.jobs, self.manager, prefetch=prefetch)
            self.workers.append(worker.start_consuming(self.work_of(name)))
            self.wait_subscribed(worker)

    def dismiss(self) -> None:
        """Has nobody work."""
        self.tortoise_may_finish.set()
        for worker in self.workers:
            worker.close()
        self.workers = []

    def publish_ten(self) -> None:
        self.publish(*JOBS)

    def publish(self, *jobs: str) -> None:
        with DirectProducer(self.manager) as producer:
            for job in jobs:
                producer.publish(self.jobs, job)
            producer.flush(10)

    def done_by(self, name: str) -> int:
        """How many jobs a worker has finished."""
        return Counter(by for by, _ in self.done)[name]

    @property
    def backlog(self) -> tuple[int, int]:
        """How many jobs wait, and how many a worker holds, as the broker tells it; -1 where it does not."""
        told = self.figures.queue(self.key(self.jobs))
        ready, passed = (None, None) if told is None else (told.ready, told.unacked)
        return -1 if ready is None else ready, -1 if passed is None else passed

    @property
    def all_are_done_once(self) -> bool:
        """Whether each of the jobs is done, at last, and none twice."""
        self.tortoise_may_finish.set()
        self.until(lambda: len(self.done) >= len(JOBS))
        return sorted(str(job) for _, job in self.done) == sorted(JOBS)

    def do_one_again(self) -> None:
        """Has a job done twice."""
        self.publish("job 1")
        self.until(lambda: [job for _, job in self.done].count("job 1") > 1)

    def let_go(self) -> None:
        """Has Tortoise finish, until the broker says so."""
        self.tortoise_may_finish.set()
        self.until_told(lambda: self.backlog == (0, 0))

    @property
    def led(self) -> dict[str, int]:
        """How many quorum queues each node leads, as the broker tells it."""
        leaders = Counter(queue.leader for queue in self.figures.queues() if queue.type == "quorum")
        return {node.name: leaders[node.erlang_name] for node in self.running}

    @property
    def running(self) -> list[NodeInfo]:
        return [node for node in self.cluster.nodes() if node.state is NodeState.RUNNING]

    def lose_second(self) -> None:
        self.delete(self.queues[1])

    def leave_shop(self) -> None:
        """Has the shop end, until the broker says so."""
        if self.shop is not None:
            self.shop.close()
            self.until_told(lambda: not any(self.spread("shop").values()))

    def look(self) -> Focus:
        return Focus(queue=self.jobs)

    def look_at_leaders(self) -> Focus:
        return Focus(queue=self.queues[0])

    def share(self) -> None:
        self.manager.declare(Queue(self.jobs, "quorum"))
        for name in ("Hare", "Tortoise"):
            worker = DirectConsumer(self.jobs, self.manager)
            self.workers.append(worker.start_consuming(self.work_of(name)))
            self.wait_subscribed(worker)
        self.publish_ten()

    def both_worked(self) -> CheckResult:
        once = self.all_are_done_once
        shares = self.done_by("Hare"), self.done_by("Tortoise")
        return CheckResult(once and min(shares) > 0, f"Hare did {shares[0]}, Tortoise did {shares[1]}")

    def hold_one_each(self) -> None:
        self.hire(prefetch=1)
        self.tortoise_may_finish.clear()
        self.publish_ten()

    def hare_did_nine(self) -> CheckResult:
        told = self.until_told(lambda: self.done_by("Hare") == 9 and self.backlog == (0, 1))
        text = f"Hare did {self.done_by('Hare')} while Tortoise had {self.backlog[1]} in hand"
        return CheckResult(told and self.all_are_done_once, text)

    def hold_several(self) -> None:
        self.hire(prefetch=int(self.answer))
        self.tortoise_may_finish.clear()
        self.publish_ten()

    def tortoise_hoards(self) -> CheckResult:
        most = int(self.answer)

        def idle() -> bool:
            ready, passed = self.backlog
            return ready == 0 and passed > 1 and len(JOBS) - passed <= self.done_by("Hare") >= len(JOBS) - most

        told = self.until_told(idle)
        sits_on = len(JOBS) - self.done_by("Hare")
        text = f"Hare did {self.done_by('Hare')} and had nothing left to do; Tortoise sat on {sits_on}"
        return CheckResult(told and not self.done_by("Tortoise") and self.all_are_done_once, text)

    def spread_leaders(self) -> None:
        self.manager.declare(*(Queue(name, "quorum") for name in self.queues))

    def leaders_are_spread(self) -> CheckResult:
        known = self.until_told(lambda: all(self.leader(queue) for queue in self.queues))
        leaders, led = [self.leader(queue) or "nobody" for queue in self.queues], self.led
        least = min(led.values(), default=0)
        even = sum(led.values()) >= MANY or all(led.get(leader, 0) <= least + 1 for leader in leaders)
        counts = ", ".join(f"{node} leads {count}" for node, count in led.items())
        return CheckResult(known and even, f"the three are led by {', '.join(leaders)}; in all {counts}")

    def spread_clients(self) -> None:
        self.shop = self.client("shop", Policy(self.answer))
        for queue in self.queues:
            producer = DirectProducer(self.shop)
            producer.publish(queue, "a job").wait(10)

    def clients_are_spread(self) -> CheckResult:
        policy, nodes = Policy(self.answer), {node.name for node in self.running}
        wanted = min(len(self.queues), len(self.cluster.nodes())) if policy.spreads else 1

        def fits() -> bool:
            counts = [count for node, count in self.spread("shop").items() if node in nodes]
            return sum(counts) == wanted and max(counts) - min(counts) <= 1

        passed = self.until_told(fits)
        return CheckResult(
            passed, f"{policy}: " + ", ".join(f"{node} has {n}" for node, n in self.spread("shop").items())
        )

    def repair(self) -> None:
        """Has empty queues, and nobody at them."""
        self.dismiss()
        self.delete(self.jobs)
        self.manager.declare(Queue(self.jobs, "quorum"))
        self.spread_leaders()


DEMO = Demo(
    title="Load balancing",
    summary="Consumers share a queue, and prefetch says how fairly; queues and connections are spread over the nodes.",
    context=Workshop,
    steps=(
        DemoStep(
            title="Two workers, one queue",
            explanation=(
                "Every message of a queue goes to one of its consumers, in turn. Whoever wants the work done sooner "
                "starts another consumer, and nobody else has to know."
            ),
            terms=("queue", "consumer", "delivery"),
            prepare=Workshop.dismiss,
            run=Workshop.share,
            command="dmq publish --key {jobs} --count 10 'a job'\ndmq consume {jobs}",
            claim="Both workers did some of the ten jobs, and each job was done once.",
            check=Workshop.both_worked,
            sabotage=Workshop.do_one_again,
        ),
        DemoStep(
            title="One in hand: who is ready gets the next",
            explanation=(
                "With a prefetch of 1 a worker is sent the next job once it is done with the one in hand. Tortoise is "
                "slow: her first job takes her until all others are done."
            ),
            terms=("prefetch", "acknowledgement"),
            run=Workshop.hold_one_each,
            command="dmq consume {jobs} --prefetch 1",
            claim="Hare did nine jobs while Tortoise had one in hand, and none waited for her.",
            check=Workshop.hare_did_nine,
            sabotage=Workshop.let_go,
        ),
        DemoStep(
            title="Many in hand: the slow one hoards",
            explanation=(
                "The broker sends in turn as long as a worker has room, and does not ask who is quick. What Tortoise "
                "was sent, Hare cannot have, even when he has nothing to do."
            ),
            ask=DemoQuestion("How many jobs may each worker hold?", usual="5", choices=("2", "5", "10")),
            run=Workshop.hold_several,
            command="dmq consume {jobs} --prefetch {answer}",
            claim="The queue is empty and Hare idle, and Tortoise sits on several jobs that he could have done.",
            check=Workshop.tortoise_hoards,
            sabotage=Workshop.let_go,
        ),
        DemoStep(
            title="Queues on every node",
            explanation=(
                "All messages of a quorum queue pass through its leader, so one queue takes no more than one node can "
                "do. Several queues together do. RabbitMQ places each new leader where the fewest are, if it is asked "
                "to; dmq asks."
            ),
            terms=("quorum queue", "leader", "member"),
            run=Workshop.spread_leaders,
            command="dmq queue list",
            claim="The leaders went where the fewest were: no node that got one leads two more than another.",
            check=Workshop.leaders_are_spread,
            sabotage=Workshop.lose_second,
            focus=Workshop.look_at_leaders,
        ),
        DemoStep(
            title="Connections to every node",
            explanation=(
                "A client may connect to any node. With the policy 'ordered' everything of a program goes over the "
                "first one that answers. The others keep up to a connection of each kind for every node."
            ),
            ask=DemoQuestion(
                "By which policy shall three producers connect?",
                usual="least connections",
                choices=("ordered", "round robin", "least connections"),
            ),
            prepare=Workshop.leave_shop,
            run=Workshop.spread_clients,
            command="dmq connection list",
            claim="With 'ordered' the three producers share a connection to one node; else each node has one of three.",
            check=Workshop.clients_are_spread,
            sabotage=Workshop.leave_shop,
            focus=Workshop.look_at_leaders,
        ),
    ),
    seen="A queue gave its messages to whoever had room. With one in hand the quick worker did most; with many in "
    "hand the slow one kept jobs from the quick one. Leaders and connections were spread over the nodes.",
    when="Few and heavy jobs: a prefetch of 1. Many small ones: more, so that nobody waits for the network; dmq takes "
    "200. Where one queue is not enough, publish to several, and let every consumer read its own.",
    code="""
from threading import Event

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, Policy

with BrokerConnectionManager(Policy.LEAST_CONNECTIONS) as manager:
    for number, port in enumerate((5672, 5673, 5674), start=1):
        manager.register_broker(number, "localhost", port)
    done, finished = [], Event()

    def worker(name):
        consumer = DirectConsumer("jobs", manager, prefetch=1)
        consumer.declare_queue()

        def handle(message, headers):
            done.append(message)
            print(name, message)
            if len(done) == 10:
                finished.set()
            return True

        return consumer.start_consuming(handle)

    workers = worker("Hare"), worker("Tortoise")
    with DirectProducer(manager) as producer:
        for number in range(1, 11):
            producer.publish("jobs", f"job {number}")
        producer.flush(10)
    finished.wait(10)
    for info in manager.connections:
        print(info.role, "over broker", info.broker)
    for each in workers:
        each.close()
""",
    to_try="Start 'dmq consume QUEUE --prefetch 1' in two terminals, stop one with Ctrl-Z, and publish. Who gets what?",
    takes_s=8,
    repair=Workshop.repair,
    focus=Workshop.look,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
