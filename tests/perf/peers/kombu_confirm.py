"""Kombu over py-amqp with `confirm_publish`: each publish waits for its confirm."""

from __future__ import annotations

import kombu

from tests.perf.peers.task import LIMIT_S, Meter, Task, asked

WARM_UP = 20


def publish(connection: kombu.Connection, task: Task) -> None:
    """One producer on one channel."""
    producer = kombu.Producer(connection.channel())
    body = task.body

    def once() -> None:
        producer.publish(
            body,
            routing_key=task.queue,
            exchange="",
            delivery_mode=2,
            mandatory=True,
            content_type="application/octet-stream",
            content_encoding="binary",
        )

    for _ in range(WARM_UP):
        once()
    meter = Meter(task.count)
    for _ in range(task.count):
        once()
    meter.tell()


def main() -> None:
    """Does what the command line asks."""
    task = asked()
    options = {"confirm_publish": True, "confirm_timeout": LIMIT_S}
    with kombu.Connection(f"amqp://guest:guest@{task.host}:{task.port}//", transport_options=options) as connection:
        publish(connection, task)


if __name__ == "__main__":
    main()
