"""What slows publishers and consumers down: alarms, full queues, and prefetch."""

from __future__ import annotations

import itertools
import sys
import threading

from dmq_core.cli.run_demo import run_demo
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import NodeState
from dmq_core.connection_manager import Role
from dmq_core.demo.context import DemoContext, DemoEnvironment
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import (
    ConnectionState,
    DirectConsumer,
    DirectProducer,
    MessageHeaders,
    Policy,
    ProducerLimits,
    PublishFuture,
    Queue,
)

ORDERS = tuple(f"order {number}" for number in range(1, 11))
LIMIT = 5
LONGEST_ORDER_S = 60.0


class BackPressureDemo(DemoContext):
    """A publisher at every node, a queue of orders, and limits that hold them up."""

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.orders = self.unique_name("orders")
        self.limited = self.unique_name("limited")
        self.node = next((node.name for node in self.cluster.nodes()), "")
        self.publisher_connections = self.client("publishers", Policy.LEAST_CONNECTIONS)
        self.publishers: list[DirectProducer] = []
        self.limited_publisher: DirectProducer | None = None
        self.slow_consumer: DirectConsumer | None = None
        self.handles: list[PublishFuture] = []
        self.pending: list[PublishFuture] = []
        self.ready_before = self.nacked = 0
        self.consumed = Inbox()
        self.may_finish = threading.Event()
        self.on_close(self.close_clients)

    def before_step(self) -> None:
        self.consumed.clear()
        self.may_finish.clear()
        self.nacked = 0
        self.ready_before = max(0, self.ready(self.orders))
        self.pending = [handle for handle in self.handles if not handle.done()]

    # State.

    @property
    def running(self) -> list[str]:
        return [node.name for node in self.cluster.nodes() if node.state is NodeState.RUNNING]

    @property
    def blocked(self) -> list[str]:
        """The nodes whose publishing connections the broker reports as blocked."""
        publishing = [info for info in self.publisher_connections.connections if info.role is Role.PUBLISHING]
        return sorted(str(info.broker) for info in publishing if info.status.state is ConnectionState.BLOCKED)

    @property
    def all_are_blocked(self) -> bool:
        """Whether the publishers at all nodes are blocked."""
        return set(self.blocked) == set(self.running)

    @property
    def blocked_text(self) -> str:
        """Where publishers are blocked, and why."""
        problems = [info.status.problem for info in self.publisher_connections.connections if info.status.problem]
        return "; ".join([f"publishers blocked at {', '.join(self.blocked) or 'no node'}", *problems[:1]])

    @property
    def backlog(self) -> tuple[int, int]:
        """How many orders are ready and how many unacknowledged, as the broker reports; -1 where it does not."""
        queue = self.figures.queue(self.key(self.orders))
        ready, unacked = (None, None) if queue is None else (queue.ready, queue.unacked)
        return -1 if ready is None else ready, -1 if unacked is None else unacked

    # Preparing.

    def clear_alarm(self) -> None:
        """Clears the alarm and waits until everything is sent."""
        if self.blocked:
            self.clear_memory_alarm()
        for publisher in self.publishers:
            publisher.flush(self.patience_s)

    def prepare_orders(self) -> None:
        """Prepares a publisher at every node, ten orders in the queue, and no alarm."""
        self.close_slow_consumer()
        self.clear_alarm()
        if not self.publishers:
            self.manager.declare(Queue(self.orders, "quorum"))
            self.publishers = [DirectProducer(self.publisher_connections) for _ in self.running]
        self.clear()
        for publisher, order in zip(itertools.cycle(self.publishers), ORDERS, strict=False):
            publisher.publish(self.orders, order).result(self.patience_s)

    def clear(self) -> None:
        """Makes the queue empty."""
        self.delete(self.orders)
        self.manager.declare(Queue(self.orders, "quorum"))

    def ensure_alarm(self) -> None:
        """Makes sure that there are ten orders, the alarm is set, and the publishers are blocked."""
        if not (self.all_are_blocked and self.ready(self.orders) >= len(ORDERS)):
            self.prepare_orders()
            self.raise_alarm()
            self.wait_until(lambda: self.all_are_blocked)

    def ensure_blocked(self) -> None:
        """Makes sure that the alarm is set, and that no publisher keeps messages."""
        self.close_limited_publisher()
        if not self.all_are_blocked:
            self.ensure_alarm()

    def ensure_kept_messages(self) -> None:
        """Makes sure that a publisher keeps messages."""
        if self.limited_publisher is None or not (self.limited_publisher.outstanding and self.all_are_blocked):
            self.ensure_blocked()
            self.publish_while_blocked()

    def close_limited_publisher(self) -> None:
        """Closes the publisher with a limit, with what it did not send."""
        if self.limited_publisher is not None:
            self.limited_publisher.close(0)
            self.limited_publisher = None

    def remove_limited_queue(self) -> None:
        self.close_limited_publisher()
        self.clear_alarm()
        self.delete(self.limited)

    def close_slow_consumer(self) -> None:
        """Closes the slow consumer."""
        self.may_finish.set()
        if self.slow_consumer is not None:
            self.slow_consumer.close()
            self.slow_consumer = None

    def close_clients(self) -> None:
        """Closes the clients."""
        self.close_slow_consumer()
        self.close_limited_publisher()

    # Steps, checks, and what breaks them.

    def focus_on(self) -> Focus:
        return Focus(queue=self.orders, node=self.node)

    def focus_on_limited(self) -> Focus:
        return Focus(queue=self.limited)

    def raise_alarm(self) -> None:
        self.perform(FaultKind.MEMORY_ALARM, self.node)
        for publisher in self.publishers:
            self.handles.append(publisher.publish(self.orders, "an order"))

    def one_alarm_blocks_all(self) -> CheckResult:
        passed = self.wait_until(lambda: self.all_are_blocked)
        alarms = [str(fault.node) for fault in self.cluster.active_faults() if fault.kind is FaultKind.MEMORY_ALARM]
        return CheckResult(
            passed and alarms == [self.node], f"memory alarm at {', '.join(alarms) or 'no node'}; {self.blocked_text}"
        )

    def end_alarm(self) -> None:
        """Clears the alarm and waits until no publisher is blocked."""
        self.clear_memory_alarm()
        self.wait_until(lambda: not self.blocked)

    def consume_all(self) -> None:
        with DirectConsumer(self.manager, self.orders).start_consuming(self.consumed.handle):
            self.consumed.wait_for(self.ready_before, 10)

    def consumer_goes_on(self) -> CheckResult:
        consumed = len(self.consumed.messages)
        passed = self.wait_until(lambda: self.ready(self.orders) == 0) and consumed == self.ready_before > 0
        text = f"{consumed} of {self.ready_before} orders were delivered to the consumer; {self.blocked_text}"
        return CheckResult(passed and self.all_are_blocked, text)

    def publish_while_blocked(self) -> None:
        limits = ProducerLimits(messages=int(self.answer))
        self.limited_publisher = DirectProducer(self.publisher_connections, limits=limits)
        for number in range(1, 21):
            self.handles.append(self.limited_publisher.publish(self.orders, f"order {number}", timeout_s=0))

    def keeps_up_to_its_limit(self) -> CheckResult:
        most = int(self.answer)
        last = self.handles[-20:]
        waiting = sum(not handle.done() for handle in last)
        unsent = sum(handle.done() and handle.result(0).outcome == "not_sent" for handle in last)
        arrived = self.ready(self.orders) - self.ready_before
        text = f"{waiting} are kept by the publisher, {unsent} were not sent, {arrived} reached the queue"
        return CheckResult((waiting, unsent, arrived) == (most, 20 - most, 0), text)

    def clear_memory_alarm(self) -> None:
        self.perform(FaultKind.CLEAR_MEMORY_ALARM, self.node)

    def nothing_was_lost(self) -> CheckResult:
        wanted = self.ready_before + len(self.pending)
        passed = self.wait_until(lambda: self.ready(self.orders) == wanted and not self.blocked)
        results = [handle.result(0) for handle in self.pending if handle.done()]
        confirmed = [one for one in results if one.outcome == "confirmed"]
        longest = max((one.seconds or 0.0 for one in confirmed), default=0.0)
        text = f"{len(confirmed)} of {len(self.pending)} kept messages are confirmed, after {longest:.1f} s at most"
        got = f"the queue got {self.ready(self.orders) - self.ready_before}; {self.blocked_text}"
        return CheckResult(passed and len(confirmed) == len(self.pending) > 0, f"{text}; {got}")

    def fill_limited_queue(self) -> None:
        limit = {"x-max-length": 5, "x-overflow": "reject-publish"}
        self.manager.declare(Queue(self.limited, "classic", arguments=limit))
        with DirectProducer(self.manager) as producer:
            handles = {order: producer.publish(self.limited, order) for order in ORDERS}
            rejected = [order for order, handle in handles.items() if handle.result(10).outcome == "nacked"]
            with DirectConsumer(self.manager, self.limited).start_consuming(self.consumed.handle):
                self.wait_until(lambda: self.ready(self.limited) == 0)
                producer.publish_many(self.limited, rejected)
                self.consumed.wait_for(10)
        self.nacked = len(rejected)

    def nacked_and_consumed_once(self) -> CheckResult:
        consumed = [str(order) for order in self.consumed.messages]
        passed = self.wait_until(lambda: self.ready(self.limited) == 0)
        once = sorted(consumed) == sorted(ORDERS)
        text = (
            f"{self.nacked} of 10 nacked at first; {len(consumed)} were consumed, {len(set(consumed))} different ones"
        )
        return CheckResult(
            passed and once and self.nacked == len(ORDERS) - LIMIT,
            f"{text}; the queue holds {self.ready(self.limited)}",
        )

    def publish_again(self) -> None:
        with DirectProducer(self.manager) as producer:
            producer.publish(self.limited, "order 1").result(self.patience_s)

    def consume_slowly(self) -> None:
        def handle_slowly(message: object, headers: MessageHeaders) -> bool:
            self.may_finish.wait(LONGEST_ORDER_S)
            return self.consumed.handle(message, headers)

        self.slow_consumer = DirectConsumer(self.manager, self.orders, prefetch=int(self.answer))
        self.slow_consumer.start_consuming(handle_slowly)

    def consumer_holds_its_prefetch(self) -> CheckResult:
        most = int(self.answer)
        passed = self.wait_until_reported(lambda: self.backlog == (len(ORDERS) - most, most))
        return CheckResult(passed, "the broker reports: {} ready, {} unacknowledged".format(*self.backlog))

    def finish_slow_consumer(self) -> None:
        """Lets the consumer finish and waits until the broker reports that."""
        self.may_finish.set()
        self.wait_until_reported(lambda: self.backlog == (0, 0))

    def repair(self) -> None:
        """Clears the alarm and fills the queue."""
        self.restore_cluster()
        self.close_limited_publisher()
        self.prepare_orders()


DEMO = Demo(
    title="Back-pressure",
    summary="A node short of memory blocks every publisher, a full queue rejects messages, prefetch limits a consumer.",
    context=BackPressureDemo,
    steps=(
        DemoStep(
            title="One node is short of memory: every publisher is blocked",
            explanation=(
                "A node that uses more memory than its limit raises an alarm, and then no node of the cluster reads "
                "from a connection that publishes, since any message may end up on that node. The broker tells "
                "publishers so by connection.blocked; dmq shows such a connection as blocked. Here the limit is "
                "lowered, so that the node exceeds it at once."
            ),
            terms=("alarm", "back-pressure"),
            prepare=BackPressureDemo.prepare_orders,
            run=BackPressureDemo.raise_alarm,
            command="dmq fault do memory-alarm --node {node}\ndmq connection list",
            claim="One node has the alarm, and the publishers at all nodes are blocked.",
            check=BackPressureDemo.one_alarm_blocks_all,
            sabotage=BackPressureDemo.end_alarm,
        ),
        DemoStep(
            title="Consumers go on",
            explanation=(
                "Consuming frees memory, so the broker does not block consumers; it lists their connections as "
                "blocking, not as blocked. But a connection is blocked as a whole: the acknowledgements of a consumer "
                "that shared one with a publisher would not be read. So dmq uses separate connections for publishing "
                "and consuming."
            ),
            terms=("consumer", "acknowledgement"),
            prepare=BackPressureDemo.ensure_alarm,
            run=BackPressureDemo.consume_all,
            command="dmq consume {orders} --limit 10",
            claim="While the publishers are blocked, a consumer gets every message of the queue.",
            check=BackPressureDemo.consumer_goes_on,
            sabotage=BackPressureDemo.end_alarm,
        ),
        DemoStep(
            title="The publisher keeps what it cannot send",
            explanation=(
                "While its connection is blocked, a dmq producer sends nothing, and keeps messages up to a limit: "
                "4,000 unless you set another. Above the limit, publish waits for room, 30 seconds unless you set "
                "another time. Here it does not wait, and each message above the limit ends as not_sent at once. So "
                "the program learns that it is too fast, and can slow down, store the message elsewhere, or refuse its "
                "own client's request."
            ),
            ask=DemoQuestion("How many orders may the publisher keep?", usual="5", choices=("5", "10", "15")),
            prepare=BackPressureDemo.ensure_blocked,
            run=BackPressureDemo.publish_while_blocked,
            command="dmq publish --key {orders} --count 20 --timeout 5 'an order'",
            claim="Of twenty orders the publisher keeps as many as its limit, the others end as not_sent, and none "
            "reaches the queue.",
            check=BackPressureDemo.keeps_up_to_its_limit,
            sabotage=BackPressureDemo.end_alarm,
        ),
        DemoStep(
            title="The alarm ends",
            explanation=(
                "Once the node is below its limit again, the broker sends connection.unblocked and reads on. What was "
                "written to the connection before it was blocked is read now; what the producer kept is sent now."
            ),
            terms=("publisher confirm",),
            prepare=BackPressureDemo.ensure_kept_messages,
            run=BackPressureDemo.clear_memory_alarm,
            command="dmq fault undo memory-alarm --node {node}",
            claim="Everything that was kept is confirmed and in the queue, and no publisher is blocked.",
            check=BackPressureDemo.nothing_was_lost,
            sabotage=BackPressureDemo.clear,
        ),
        DemoStep(
            title="One queue is full: it rejects messages",
            explanation=(
                "An alarm blocks every publisher because of one node. A length limit concerns one queue only: with "
                "reject-publish the broker nacks what is above the limit. The publisher still has the message, and "
                "publishes it again when there is room. Without that setting a full queue drops its oldest messages "
                "instead, though their publishers got a confirm."
            ),
            terms=("nack", "classic queue"),
            prepare=BackPressureDemo.remove_limited_queue,
            run=BackPressureDemo.fill_limited_queue,
            command="dmq queue declare {limited} --type classic --argument x-max-length=5 "
            "--argument x-overflow=reject-publish\n"
            "dmq publish --key {limited} --count 10 'an order'",
            claim="Five of ten orders are nacked, and accepted once there is room: each order is consumed once.",
            check=BackPressureDemo.nacked_and_consumed_once,
            sabotage=BackPressureDemo.publish_again,
            focus=BackPressureDemo.focus_on_limited,
        ),
        DemoStep(
            title="Prefetch: the consumer's limit",
            explanation=(
                "Without a limit the broker sends a consumer every message of the queue, however slow the consumer is. "
                "Prefetch is the limit: how many unacknowledged messages it may hold. The others stay in the queue, "
                "where another consumer can get them."
            ),
            terms=("prefetch",),
            ask=DemoQuestion("How many orders may the consumer hold at once?", usual="2", choices=("1", "2", "4")),
            prepare=BackPressureDemo.prepare_orders,
            run=BackPressureDemo.consume_slowly,
            command="dmq consume {orders} --prefetch {answer}",
            claim="The consumer was sent as many as its prefetch allows, and the others stay in the queue.",
            check=BackPressureDemo.consumer_holds_its_prefetch,
            sabotage=BackPressureDemo.finish_slow_consumer,
        ),
    ),
    seen=(
        "One alarm blocked the publishers at every node, while a consumer went on. What was published meanwhile was "
        "kept by the producer, up to its limit, and confirmed after the alarm; a full queue rejected what was above "
        "its limit; a consumer was sent no more than its prefetch."
    ),
    when=(
        "Plan for publishers that are too fast: limit what a publisher keeps, handle not_sent and nacked, give queues "
        "a length limit and consumers a prefetch. An alarm is the last resort and affects every publisher; 'dmq "
        "doctor' names the node that has one."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectProducer, ProducerLimits, Queue

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    manager.listen(lambda event: print(event.role, event.status.state, event.status.problem))
    manager.declare(Queue("orders", "quorum"))
    with DirectProducer(manager, limits=ProducerLimits(messages=100, capacity_timeout_s=30)) as producer:
        for number in range(1, 1001):
            handle = producer.publish("orders", f"order {number}")
            if handle.done() and handle.result().outcome == "not_sent":
                print("no room for order", number, "within 30 s")
                break
""",
    to_try="Do 'dmq fault do memory-alarm --node rmq2', then run the code. What does it print, and what changes if you "
    "do 'dmq fault undo memory-alarm --node rmq2' within half a minute?",
    takes_s=25,
    repair=BackPressureDemo.repair,
    focus=BackPressureDemo.focus_on,
    breaks=True,
    keeps_nodes=True,
    impact="It raises a memory alarm at a node for some seconds; meanwhile no client can publish.",
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
