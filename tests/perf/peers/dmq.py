"""dmq's own cores: one thread that calls `send` for each message, and a consumer that acknowledges each."""

from __future__ import annotations

import struct
import threading
import time

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.consuming.subscription import Subscription, SubscriptionOptions
from dmq_core.messaging.delivery.delivery import Delivery
from dmq_core.messaging.messages import Outcome
from dmq_core.messaging.publishing.publish_future import PublishFuture
from dmq_core.messaging.publishing.publisher import Publisher
from tests.perf.peers.task import LIMIT_S, PREFETCH, WARM_UP, Meter, Task, asked


def publish(connection: Connection, task: Task) -> None:
    """Every handle is kept, and every outcome looked at once the clock has stopped."""
    producer, queue, body = Publisher(connection), task.queue, task.body
    for _ in range(WARM_UP):
        producer.send("", queue, body)
    producer.flush(LIMIT_S)
    meter = Meter(task.count)
    handles = [producer.send("", queue, body) for _ in range(task.count)]
    producer.flush(LIMIT_S)
    meter.tell()
    assert all(handle.result(0).outcome is Outcome.CONFIRMED for handle in handles)


def latency(connection: Connection, task: Task) -> None:
    """The body carries the number of the message, by which its confirm finds when it was due."""
    due = [0.0] * task.count
    waits: list[float] = []

    def settled(handle: PublishFuture) -> None:
        assert handle.result(0).outcome is Outcome.CONFIRMED
        waits.append(time.perf_counter() - due[struct.unpack_from(">I", handle.body)[0]])

    producer = Publisher(connection, on_publish_ended=settled)
    for _ in range(WARM_UP):
        producer.send("", task.queue, bytes(task.size))
    producer.flush(LIMIT_S)
    waits.clear()
    meter = Meter(task.count)
    began = time.perf_counter()
    for number in range(task.count):
        due[number] = began + number / task.rate
        early = due[number] - time.perf_counter()
        if early > 0:
            time.sleep(early)
        producer.send("", task.queue, struct.pack(">I", number).ljust(task.size))
    producer.flush(LIMIT_S)
    meter.tell(waits)
    assert len(waits) == task.count


def consume(connection: Connection, task: Task) -> None:
    """The clock runs from the subscription to the last ack's handing over."""
    done = threading.Event()
    left = task.count

    def handle(deliveries: tuple[Delivery, ...]) -> None:
        nonlocal left
        for delivery in deliveries:
            delivery.ack()
        left -= len(deliveries)
        if left <= 0:
            done.set()

    meter = Meter(task.count)
    consumer = Subscription(connection, task.queue, handle, SubscriptionOptions(prefetch=PREFETCH))
    if not done.wait(LIMIT_S):
        raise TimeoutError(f"{left} messages did not come")
    meter.tell()
    consumer.stop()


def main() -> None:
    """Does what the command line asks."""
    task = asked()
    connection = Connection([NodeEndpoint(task.host, task.port, None)], Credentials(), "dmq perf")
    connection.wait_open()
    {"publish": publish, "latency": latency, "consume": consume}[task.role](connection, task)
    connection.close()


if __name__ == "__main__":
    main()
