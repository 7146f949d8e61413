"""A stream under load whose nodes die: all of it is handled, in order, and what comes twice says so."""

from __future__ import annotations

import threading

import pytest
from clients import await_until

from dmq_core.cluster.protocol import Cluster, NodeAction
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import DirectConsumer, DirectProducer, MessageHeaders, Outcome, ProducerLimits
from dmq_core.messaging.connection.topology_commands import delete_queue

STREAM = "stream.failover"


def port_of(consumer: DirectConsumer) -> int | None:
    """Where it consumes."""
    endpoint = consumer.status.endpoint
    return None if endpoint is None else endpoint.amqp_port


@pytest.mark.thorough
@pytest.mark.real
@pytest.mark.parametrize("concurrency", [1, 4])
def test_all_of_a_stream_is_handled_in_order_though_the_consumers_node_dies(
    real_cluster: Cluster, concurrency: int
) -> None:
    seen: list[tuple[str, int, bool]] = []

    def handle(message: object, headers: MessageHeaders) -> bool:
        delivery = headers.delivery
        assert delivery.offset is not None
        seen.append((str(message), delivery.offset, delivery.redelivered))
        return True

    with BrokerConnectionManager() as manager:
        for node in real_cluster.nodes():
            at, user = node.endpoint, real_cluster.credentials
            manager.register_broker(node.name, at.host, at.amqp_port, username=user.username, password=user.password)
        consumer = DirectConsumer(manager, STREAM, concurrency=concurrency)
        consumer.declare_queue(queue_type="stream")
        consumer.start_consuming(handle)
        await_until(lambda: consumer.status.consuming, 20, "it consumes")
        producer = DirectProducer(manager, limits=ProducerLimits(republish=True))
        over = threading.Event()
        handles = []

        def publish() -> None:
            while not over.wait(0.005):
                handles.append(producer.publish(STREAM, str(len(handles))))

        publishing = threading.Thread(target=publish)
        publishing.start()
        try:
            for _ in range(2):
                flown = len(seen)
                await_until(lambda: len(seen) > flown + 300, 60, "messages flow")  # noqa: B023  # called in this turn
                left = port_of(consumer)
                node = next(n.name for n in real_cluster.nodes() if n.endpoint.amqp_port == left)
                real_cluster.act(NodeAction.KILL, node)
                await_until(lambda: port_of(consumer) not in (None, left), 60, "it moved")  # noqa: B023
                real_cluster.act(NodeAction.START, node)
        finally:
            over.set()
            publishing.join(30)
        producer.flush(60)
        sent = {str(n) for n, handle in enumerate(handles) if handle.result(1).outcome is Outcome.CONFIRMED}
        await_until(lambda: sent <= {message for message, *_ in seen}, 60, "all is handled")
        consumer.close()
        delete_queue(manager.consuming(), STREAM)
    once: set[int] = set()
    for _, offset, redelivered in seen:
        assert redelivered or offset not in once, "what comes twice says so"
        once.add(offset)
    assert len(once) == max(once) - min(once) + 1, "no offset is left out"
    if concurrency == 1:
        assert [offset for _, offset, _ in seen] == sorted(once)
