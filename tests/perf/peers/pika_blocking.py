"""Pika's `BlockingConnection`: a confirm, or an acknowledgement, for each message."""

from __future__ import annotations

import pika

from tests.perf.peers.task import LIMIT_S, PREFETCH, Meter, Task, asked

WARM_UP = 20


def publish(connection: pika.BlockingConnection, task: Task) -> None:
    """Waits for each confirm, as `confirm_delivery` has it."""
    channel = connection.channel()
    channel.confirm_delivery()
    properties, body = pika.BasicProperties(delivery_mode=2), task.body
    for _ in range(WARM_UP):
        channel.basic_publish("", task.queue, body, properties, mandatory=True)
    meter = Meter(task.count)
    for _ in range(task.count):
        channel.basic_publish("", task.queue, body, properties, mandatory=True)
    meter.tell()


def consume(connection: pika.BlockingConnection, task: Task) -> None:
    """Acknowledges each delivery in its callback."""
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    left = task.count

    def handle(
        on: pika.adapters.blocking_connection.BlockingChannel, method: pika.spec.Basic.Deliver, *_: object
    ) -> None:
        nonlocal left
        on.basic_ack(method.delivery_tag)
        left -= 1
        if left == 0:
            on.stop_consuming()

    meter = Meter(task.count)
    channel.basic_consume(task.queue, handle)
    channel.start_consuming()
    meter.tell()


def main() -> None:
    """Does what the command line asks."""
    task = asked()
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(task.host, task.port, blocked_connection_timeout=LIMIT_S)
    )
    {"publish": publish, "consume": consume}[task.role](connection, task)
    connection.close()


if __name__ == "__main__":
    main()
