"""Confirmed publishing beside pika's own: `python tests/perf/publish.py HOST:PORT [--rounds 5] [--queue-type quorum]`.

Both publish 100-byte persistent mandatory messages to one queue, in paired rounds on the same node, so that only their
ratio counts: one producer with pipelined confirms, and `BlockingConnection` with `confirm_delivery`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pika

from dmq_core.cluster.base import Credentials, NodeEndpoint
from dmq_core.messaging.connection import Connection
from dmq_core.messaging.messages import Outcome, OutgoingMessage
from dmq_core.messaging.producer import Producer
from dmq_core.messaging.topology import Queue, declare, delete_queue

QUEUE = "dmq.perf.publish"
BODY = b"x" * 100


def rate(publish: Callable[[int], None], count: int) -> float:
    """Messages a second of publishing `count`, confirmed."""
    began = time.perf_counter()
    publish(count)
    return count / (time.perf_counter() - began)


def pipelined(producer: Producer) -> Callable[[int], None]:
    """Publishes with many confirms under way."""
    message = OutgoingMessage("", QUEUE, BODY)

    def publish(count: int) -> None:
        handles = [producer.publish(message) for _ in range(count)]
        producer.flush(120)
        assert {h.wait(0).outcome for h in handles} == {Outcome.CONFIRMED}

    return publish


def one_by_one(connection: pika.BlockingConnection) -> Callable[[int], None]:
    """Publishes as pika does with confirms: each waits for its own."""
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2)

    def publish(count: int) -> None:
        for _ in range(count):
            channel.basic_publish("", QUEUE, BODY, properties, mandatory=True)

    return publish


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queue-type", default="quorum")
    options = parser.parse_args()
    host, _, port = options.endpoint.rpartition(":")
    connection = Connection([NodeEndpoint(host, int(port), None)], Credentials(), "dmq perf")
    connection.wait_open()
    declare(connection, [Queue(QUEUE, options.queue_type, arguments={"x-max-length": 50_000})])
    blocking = pika.BlockingConnection(pika.ConnectionParameters(host, int(port)))
    producer = Producer(connection)
    ours, theirs = pipelined(producer), one_by_one(blocking)
    ours(1000)
    theirs(50)
    pairs = []
    for number in range(options.rounds):
        pair = rate(ours, 10_000), rate(theirs, 500)
        pairs.append(pair)
        print(f"round {number + 1}: dmq {pair[0]:8.0f}/s   pika {pair[1]:6.0f}/s   ratio {pair[0] / pair[1]:5.1f}")
    ratios = [a / b for a, b in pairs]
    print(f"{options.queue_type}: median ratio {statistics.median(ratios):.1f} [{min(ratios):.1f}..{max(ratios):.1f}]")
    blocking.close()
    delete_queue(connection, QUEUE)
    connection.close()


if __name__ == "__main__":
    main()
