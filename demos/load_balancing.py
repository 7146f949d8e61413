"""A queue distributes its messages to its consumers, and a cluster distributes queues and clients to its nodes."""

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


class LoadBalancingDemo(DemoContext):
    """Ten jobs for two consumers, one of them slow; and queues and connections on every node."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.jobs = self.unique_name("jobs")
        self.queues = tuple(self.unique_name(f"jobs.{number}") for number in (1, 2, 3))
        self.workers: list[DirectConsumer] = []
        self.done: list[tuple[str, object]] = []
        self.slow_may_finish = threading.Event()
        self.outcomes: list[str] = []
        self.producer_connections: BrokerConnectionManager | None = None
        self.on_close(self.close_consumers)

    def before_step(self) -> None:
        self.done = []
        self.slow_may_finish.set()

    def handler_of(self, name: str) -> Callable[[object, MessageHeaders], bool]:
        """The handler of a consumer."""

        def work(message: object, _headers: MessageHeaders) -> bool:
            if name == "slow":
                self.slow_may_finish.wait(LONGEST_JOB_S)
            self.done.append((name, message))
            return True

        return work

    def start_consumers(self, prefetch: int) -> None:
        """Starts two consumers with that prefetch."""
        self.close_consumers()
        for name in ("fast", "slow"):
            worker = DirectConsumer(self.manager, self.jobs, prefetch=prefetch)
            self.workers.append(worker.start_consuming(self.handler_of(name)))
            self.wait_consuming(worker)

    def close_consumers(self) -> None:
        """Closes the consumers."""
        self.slow_may_finish.set()
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
        """How many jobs a consumer has finished."""
        return Counter(by for by, _ in self.done)[name]

    @property
    def backlog(self) -> tuple[int, int]:
        """How many jobs are ready and how many unacknowledged, as the broker reports; -1 where it does not."""
        reported = self.figures.queue(self.key(self.jobs))
        ready, unacked = (None, None) if reported is None else (reported.ready, reported.unacked)
        return -1 if ready is None else ready, -1 if unacked is None else unacked

    @property
    def all_are_done_once(self) -> bool:
        """Whether each of the jobs is done once, in the end."""
        self.slow_may_finish.set()
        self.wait_until(lambda: len(self.done) >= len(JOBS))
        return sorted(str(job) for _, job in self.done) == sorted(JOBS)

    def do_one_again(self) -> None:
        """Does a job twice."""
        self.publish("job 1")
        self.wait_until(lambda: [job for _, job in self.done].count("job 1") > 1)

    def finish_slow(self) -> None:
        """Lets the slow consumer finish and waits until the broker reports that."""
        self.slow_may_finish.set()
        self.wait_until_reported(lambda: self.backlog == (0, 0))

    @property
    def led(self) -> dict[str, int]:
        """How many quorum queues each node leads, as the broker reports."""
        leaders = Counter(queue.leader for queue in self.figures.queues() if queue.type == "quorum")
        return {node.name: leaders[node.erlang_name] for node in self.running}

    @property
    def running(self) -> list[NodeInfo]:
        return [node for node in self.cluster.nodes() if node.state is NodeState.RUNNING]

    def delete_second(self) -> None:
        self.delete(self.queues[1])

    def close_producers(self) -> None:
        """Closes the connections of the producers and waits until the broker reports that."""
        if self.producer_connections is not None:
            self.producer_connections.close()
            self.wait_until_reported(lambda: not any(self.spread("producers").values()))

    def focus_on(self) -> Focus:
        return Focus(queue=self.jobs)

    def focus_on_leaders(self) -> Focus:
        return Focus(queue=self.queues[0])

    def consume_side_by_side(self) -> None:
        self.manager.declare(Queue(self.jobs, "quorum"))
        for name in ("fast", "slow"):
            worker = DirectConsumer(self.manager, self.jobs)
            self.workers.append(worker.start_consuming(self.handler_of(name)))
            self.wait_consuming(worker)
        self.publish_ten()

    def both_worked(self) -> CheckResult:
        once = self.all_are_done_once
        shares = self.done_by("fast"), self.done_by("slow")
        return CheckResult(once and min(shares) > 0, f"the fast consumer did {shares[0]}, the slow one {shares[1]}")

    def use_prefetch_one(self) -> None:
        self.start_consumers(prefetch=1)
        self.slow_may_finish.clear()
        self.publish_ten()

    def fast_did_nine(self) -> CheckResult:
        reported = self.wait_until_reported(lambda: self.done_by("fast") == 9 and self.backlog == (0, 1))
        text = f"the fast consumer did {self.done_by('fast')} while the slow one held {self.backlog[1]}"
        return CheckResult(reported and self.all_are_done_once, text)

    def use_larger_prefetch(self) -> None:
        self.start_consumers(prefetch=int(self.answer))
        self.slow_may_finish.clear()
        self.publish_ten()

    def slow_holds_several(self) -> CheckResult:
        most = int(self.answer)

        def idle() -> bool:
            ready, unacked = self.backlog
            return ready == 0 and unacked > 1 and len(JOBS) - unacked <= self.done_by("fast") >= len(JOBS) - most

        reported = self.wait_until_reported(idle)
        held_by_slow = len(JOBS) - self.done_by("fast")
        text = f"the fast consumer did {self.done_by('fast')} and was idle; the slow one held {held_by_slow}"
        return CheckResult(reported and not self.done_by("slow") and self.all_are_done_once, text)

    def spread_leaders(self) -> None:
        self.manager.declare(*(Queue(name, "quorum") for name in self.queues))

    def leaders_are_spread(self) -> CheckResult:
        known = self.wait_until_reported(lambda: all(self.leader(queue) for queue in self.queues))
        leaders, led = [self.leader(queue) or "no node" for queue in self.queues], self.led
        least = min(led.values(), default=0)
        even = sum(led.values()) >= MANY or all(led.get(leader, 0) <= least + 1 for leader in leaders)
        counts = ", ".join(f"{node} leads {count}" for node, count in led.items())
        return CheckResult(known and even, f"the three are led by {', '.join(leaders)}; in all {counts}")

    def spread_clients(self) -> None:
        self.producer_connections = self.client("producers", Policy(self.answer))
        for queue in self.queues:
            producer = DirectProducer(self.producer_connections)
            producer.publish(queue, "a job").result(10)

    def clients_are_spread(self) -> CheckResult:
        policy, nodes = Policy(self.answer), {node.name for node in self.running}
        wanted = min(len(self.queues), len(self.cluster.nodes())) if policy.spreads else 1

        def fits() -> bool:
            counts = [count for node, count in self.spread("producers").items() if node in nodes]
            return sum(counts) == wanted and max(counts) - min(counts) <= 1

        passed = self.wait_until_reported(fits)
        return CheckResult(
            passed,
            f"{policy}: " + ", ".join(f"{node} has {n}" for node, n in self.spread("producers").items()),
        )

    def repair(self) -> None:
        """Restores empty queues without consumers."""
        self.close_consumers()
        self.delete(self.jobs)
        self.manager.declare(Queue(self.jobs, "quorum"))
        self.spread_leaders()


DEMO = Demo(
    title="Load balancing",
    summary=(
        "Consumers share a queue, and prefetch decides how evenly; leaders and connections are spread over the nodes."
    ),
    context=LoadBalancingDemo,
    steps=(
        DemoStep(
            title="Two consumers, one queue",
            explanation=(
                "Every message of a queue goes to one of its consumers, in turn. To finish the work sooner, start "
                "another consumer; nothing else has to change."
            ),
            terms=("queue", "consumer", "delivery"),
            prepare=LoadBalancingDemo.close_consumers,
            run=LoadBalancingDemo.consume_side_by_side,
            command="dmq publish --key {jobs} --count 10 'a job'\ndmq consume {jobs}",
            claim="Both consumers did some of the ten jobs, and each job was done once.",
            check=LoadBalancingDemo.both_worked,
            sabotage=LoadBalancingDemo.do_one_again,
        ),
        DemoStep(
            title="A prefetch of 1: an idle consumer gets the next job",
            explanation=(
                "With a prefetch of 1 a consumer is sent the next job once it has acknowledged the one before. One "
                "consumer is slow: its first job takes until all others are done."
            ),
            terms=("prefetch", "acknowledgement"),
            run=LoadBalancingDemo.use_prefetch_one,
            command="dmq consume {jobs} --prefetch 1",
            claim="The fast consumer did nine jobs while the slow one held one, and no job waited for it.",
            check=LoadBalancingDemo.fast_did_nine,
            sabotage=LoadBalancingDemo.finish_slow,
        ),
        DemoStep(
            title="A large prefetch: jobs wait with the slow consumer",
            explanation=(
                "The broker sends messages in turn as long as the prefetch allows, whichever consumer is fast. A job "
                "that was sent to the slow consumer cannot go to the fast one, even when that is idle."
            ),
            ask=DemoQuestion("How many jobs may each consumer hold?", usual="5", choices=("2", "5", "10")),
            run=LoadBalancingDemo.use_larger_prefetch,
            command="dmq consume {jobs} --prefetch {answer}",
            claim="The queue is empty and the fast consumer idle, while the slow one holds several jobs.",
            check=LoadBalancingDemo.slow_holds_several,
            sabotage=LoadBalancingDemo.finish_slow,
        ),
        DemoStep(
            title="Queues on every node",
            explanation=(
                "All messages of a quorum queue go through its leader, so one queue handles no more than one node can. "
                "Several queues together do. RabbitMQ places a new leader on the node that leads the fewest queues, if "
                "the client asks for that; dmq does."
            ),
            terms=("quorum queue", "leader", "member"),
            run=LoadBalancingDemo.spread_leaders,
            command="dmq queue list",
            claim="Each leader is on a node that leads few queues: at most one more than any other node.",
            check=LoadBalancingDemo.leaders_are_spread,
            sabotage=LoadBalancingDemo.delete_second,
            focus=LoadBalancingDemo.focus_on_leaders,
        ),
        DemoStep(
            title="Connections to every node",
            explanation=(
                "A client may connect to any node. With the policy 'ordered' a program connects to the first node that "
                "answers. The other policies keep up to a connection of each kind for every node."
            ),
            ask=DemoQuestion(
                "By which policy shall three producers connect?",
                usual="least connections",
                choices=("ordered", "round robin", "least connections"),
            ),
            prepare=LoadBalancingDemo.close_producers,
            run=LoadBalancingDemo.spread_clients,
            command="dmq connection list",
            claim=("With 'ordered' the three producers share one connection; else each node has one of three."),
            check=LoadBalancingDemo.clients_are_spread,
            sabotage=LoadBalancingDemo.close_producers,
            focus=LoadBalancingDemo.focus_on_leaders,
        ),
    ),
    seen=(
        "A queue sent its messages to the consumers whose prefetch allowed it. With a prefetch of 1 the fast consumer "
        "did most of the jobs; with a larger one, jobs waited with the slow consumer. Leaders and connections were "
        "spread over the nodes."
    ),
    when="For few and long jobs use a prefetch of 1. For many short ones use more, so that no consumer waits for the "
    "network; dmq uses 200. Where one queue is not enough, publish to several, each with its own consumers.",
    code="""
from threading import Event

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, Policy

with BrokerConnectionManager(Policy.LEAST_CONNECTIONS) as manager:
    for number, port in enumerate((5672, 5673, 5674), start=1):
        manager.register_broker(number, "localhost", port)
    done, finished = [], Event()

    def worker(name):
        consumer = DirectConsumer(manager, "jobs", prefetch=1)
        consumer.declare_queue()

        def handle(message, headers):
            done.append(message)
            print(name, message)
            if len(done) == 10:
                finished.set()
            return True

        return consumer.start_consuming(handle)

    workers = worker("first"), worker("second")
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
    to_try=(
        "Start 'dmq consume QUEUE --prefetch 1' in two terminals, stop one with Ctrl-Z, and publish. Which terminal "
        "gets which messages?"
    ),
    takes_s=8,
    repair=LoadBalancingDemo.repair,
    focus=LoadBalancingDemo.focus_on,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
