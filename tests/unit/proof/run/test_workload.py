"""The clients of a proof run, on a broker in memory: every message is on record before it is sent and acknowledged."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from judged_records import account_of

from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging.consuming.decoding import MessageHeaders
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import RunSetup, message_id
from dmq_core.proof.judging.accounting import AccountedJournal
from dmq_core.proof.result import Workload
from dmq_core.proof.run.workload import Handler, HandlerWrapper, Traffic, entities_of, unwrapped
from dmq_core.testing import MemoryBroker

KEYS = ("proof.0", "proof.1", "proof.2")
TICK_S = 0.005
ENOUGH = 60


class Stage:
    """A broker in memory whose time goes by, and the traffic on it."""

    def __init__(self, broker: MemoryBroker, manager: BrokerConnectionManager, folder: Path) -> None:
        self.broker = broker
        self._manager = manager
        self._path = folder / "run.journal"
        self.setup = RunSetup(run="r")

    def run(self, workload: Workload, wrap_handler: HandlerWrapper = unwrapped, kill: str = "") -> AccountedJournal:
        """What became of the messages of a short run; `kill` names a node that dies in the middle."""
        fanout = workload.exchange_type == "fanout"
        queues = ("q", "q.2") if fanout else ("q",)
        self.setup = RunSetup(run="r", queues=queues, keys=KEYS, workload=workload, every_queue=fanout)
        with Journal.create(self._path, self.setup) as journal:
            self._manager.declare(*entities_of(self.setup, members=3))
            traffic = Traffic(self._manager, self.setup, journal, wrap_handler)
            traffic.open()
            traffic.begin()
            self._until(lambda: traffic.progress().counts.delivered >= ENOUGH)
            if kill:
                self.broker.kill(kill)
                reached = traffic.progress().counts.delivered
                self._until(lambda: traffic.progress().counts.delivered >= reached + ENOUGH)
            traffic.stop_publishing(10)
            # A message that was dropped on purpose never comes.
            with contextlib.suppress(TimeoutError):
                self._until(lambda: traffic.undelivered == 0, 2.0)
            self._await_all_queues(traffic)
            traffic.stop_consuming()
            assert traffic.error is None
        return account_of(read_journal(self._path).records(), self.setup)

    def _await_all_queues(self, traffic: Traffic) -> None:
        """What the traffic counts are the deliveries of one queue; the others may be behind."""
        if self.setup.reads_streams:
            readers = range(len(self.setup.read_by))
            assert traffic.publish_end_mark(traffic.end_marks.message_id(1))
            assert traffic.end_marks.await_found(readers, 1, 20.0)
        else:
            self._until(lambda: all(self.broker.depth(queue).ready == 0 for queue in self.setup.queues))

    def _until(self, holds: object, limit_s: float = 20.0) -> None:
        assert callable(holds)
        deadline = time.monotonic() + limit_s
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    over = threading.Event()
    with MemoryBroker(nodes=3) as broker, BrokerConnectionManager(network=broker.network) as manager:
        for number, at in enumerate(broker.endpoints, start=1):
            manager.register_broker(number, at.host, at.amqp_port)

        def tick() -> None:
            while not over.wait(TICK_S / 2):
                broker.advance(TICK_S)

        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        yield Stage(broker, manager, tmp_path)
        manager.close()
        over.set()
        clock.join(10)


@pytest.mark.parametrize(
    "workload",
    [
        Workload(rate=200),
        Workload(rate=200, exchange_type="topic", publishers=3, consumers=2),
        Workload(rate=200, exchange_type="fanout"),
        Workload(rate=200, exchange_type="headers"),
        Workload(rate=200, queue_type="classic", handler_s=0.001),
        Workload(rate=200, queue_type="stream", consumers=2),
        Workload(rate=200, queue_type="stream", exchange_type="fanout"),
    ],
    ids=["direct", "topic", "fanout", "headers", "classic", "stream", "fanout to streams"],
)
def test_every_kind_of_workload_is_delivered_whole(stage: Stage, workload: Workload) -> None:
    accounted = stage.run(workload)
    account = accounted.account
    assert account.attempted >= ENOUGH
    assert account.attempted == account.confirmed == account.delivered
    assert (account.lost, account.unexpected) == ((), ())
    # Two consumers take messages in turns, and either may be the quicker one.
    assert account.order_violations == 0 or (workload.consumers > 1 and workload.queue_type != "stream")
    assert (accounted.contradicting, accounted.unrecorded, accounted.unsettled) == ((), (), 0)


@pytest.mark.parametrize("queue_type", ["quorum", "stream"])
def test_a_node_that_dies_costs_nothing_that_was_confirmed(stage: Stage, queue_type: str) -> None:
    account = stage.run(Workload(rate=200, queue_type=queue_type), kill="rmq1").account
    assert account.lost == ()
    assert account.duplicates.unexplained == 0
    assert account.delivered >= 2 * ENOUGH


def test_a_handler_that_drops_a_delivery_is_found_out(stage: Stage) -> None:
    def careless(handler: Handler) -> Handler:
        def handle(message: object, headers: MessageHeaders) -> bool | None:
            if headers.delivery.properties.message_id == message_id("r", 7):
                return True
            return handler(message, headers)

        return handle

    assert stage.run(Workload(rate=200), careless).account.lost == (message_id("r", 7),)


def test_each_reader_of_a_stream_has_to_get_every_message(stage: Stage) -> None:
    readers: list[Handler] = []

    def second_is_careless(handler: Handler) -> Handler:
        readers.append(handler)

        def handle(message: object, headers: MessageHeaders) -> bool | None:
            if [handler] == readers[1:] and headers.delivery.properties.message_id == message_id("r", 7):
                return True
            return handler(message, headers)

        return handle

    assert stage.run(Workload(rate=200, queue_type="stream", consumers=2), second_is_careless).account.lost == (
        message_id("r", 7),
    )


def test_a_handler_that_sees_a_message_twice_is_found_out(stage: Stage) -> None:
    def twice(handler: Handler) -> Handler:
        def handle(message: object, headers: MessageHeaders) -> bool | None:
            if headers.delivery.properties.message_id == message_id("r", 7):
                handler(message, headers)
            return handler(message, headers)

        return handle

    account = stage.run(Workload(rate=200), twice).account
    assert account.duplicates.unexplained == 1
    assert account.lost == ()


def test_messages_that_nobody_of_the_run_sent_are_on_record(stage: Stage) -> None:
    def forging(handler: Handler) -> Handler:
        def handle(message: object, headers: MessageHeaders) -> bool | None:
            if headers.delivery.properties.message_id == message_id("r", 7):
                headers.delivery._properties = replaced(headers)
            return handler(message, headers)

        return handle

    def replaced(headers: MessageHeaders) -> object:
        from dataclasses import replace

        return replace(headers.delivery.properties, message_id="forged")

    account = stage.run(Workload(rate=200), forging).account
    assert account.unexpected == ("forged",)
    assert account.lost == (message_id("r", 7),)
