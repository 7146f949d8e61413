"""The brokers' own counters: read from what nodes tell, told apart by life, and never waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.protocol import Cluster, NodeAction
from dmq_core.errors import NotReachableError
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import CountersRecord, RunSetup
from dmq_core.proof.run.broker_counters import BrokerEpochs, CounterReader, NodeCounters, parse_counters
from dmq_core.testing import FakeSession

TOLD = """\
# TYPE rabbitmq_erlang_uptime_seconds gauge
rabbitmq_erlang_uptime_seconds 232.472
rabbitmq_global_messages_acknowledged_total{protocol="amqp091",queue_type="rabbit_quorum_queue"} 7
rabbitmq_global_messages_confirmed_total{protocol="amqp091"} 10172.0
rabbitmq_global_messages_confirmed_total{protocol="amqp10"} 9
rabbitmq_global_messages_delivered_consume_auto_ack_total{protocol="amqp091",queue_type="rabbit_stream_queue"} 99
rabbitmq_global_messages_delivered_total{protocol="amqp091",queue_type="rabbit_classic_queue"} 3
rabbitmq_global_messages_delivered_total{protocol="amqp091",queue_type="rabbit_quorum_queue"} 1.0619e4
rabbitmq_global_messages_received_confirm_total{protocol="amqp091"} 5
rabbitmq_global_messages_received_total{protocol="amqp091"} 10180
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    session = FakeSession()
    yield session.cluster
    session.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "run.journal", RunSetup(run="r")) as opened:
        yield opened


def read_from(journal: Journal) -> list[str]:
    journal.close()
    return [r.node for r in read_journal(journal.path).records() if isinstance(r, CountersRecord)]


def test_the_counters_of_our_protocol_are_summed_over_queue_types() -> None:
    assert parse_counters(TOLD) == NodeCounters(232.472, 10180, 10172, 10622, 7)


@given(st.text())
def test_whatever_a_node_tells_is_counters_or_not_reachable(text: str) -> None:
    with pytest.raises(NotReachableError):
        parse_counters(text)


def test_a_broker_that_began_anew_has_another_epoch() -> None:
    epochs = BrokerEpochs()
    first = epochs.of(NodeCounters(100.0, 5, 5, 5, 5), at=1000.0)
    assert epochs.of(NodeCounters(109.0, 5, 5, 5, 5), at=1010.5) == first
    second = epochs.of(NodeCounters(4.0, 50, 50, 50, 50), at=1020.0)
    assert second != first
    assert epochs.of(NodeCounters(14.0, 50, 49, 50, 50), at=1030.0) not in (first, second)


def test_every_node_is_read_when_that_is_waited_for(cluster: Cluster, journal: Journal) -> None:
    with CounterReader(cluster, journal) as reader:
        reader.wait_read()
        reader.wait_read()
    assert sorted(read_from(journal)) == ["rmq1", "rmq1", "rmq2", "rmq2", "rmq3", "rmq3"]


def test_a_node_that_is_gone_is_passed_over(cluster: Cluster, journal: Journal) -> None:
    cluster.act(NodeAction.KILL, "rmq2")
    with CounterReader(cluster, journal) as reader:
        reader.wait_read()
    assert sorted(read_from(journal)) == ["rmq1", "rmq3"]


def test_a_node_that_never_answers_keeps_nobody_waiting_for_long(
    cluster: Cluster, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, forever = cluster.metrics, threading.Event()

    def silent(node: str) -> str:
        if node == "rmq2":
            forever.wait(10)
        return metrics(node)

    monkeypatch.setattr(cluster, "metrics", silent)
    monkeypatch.setattr("dmq_core.proof.run.broker_counters.READS_WITHIN_S", 0.3)
    began = time.monotonic()
    with CounterReader(cluster, journal) as reader:
        reader.read()
        reader.wait_read()
    assert time.monotonic() - began < 2
    assert set(read_from(journal)) == {"rmq1", "rmq3"}
    forever.set()


def test_a_node_that_answers_after_the_end_does_not_come_to_a_journal_that_is_closed(
    cluster: Cluster, tmp_path: Path
) -> None:
    asked, may_answer = threading.Event(), threading.Event()
    answer = cluster.metrics

    def late(node: str) -> str:
        asked.set()
        may_answer.wait(5)
        return answer(node)

    with Journal.create(tmp_path / "late.journal", RunSetup(run="r")) as opened:
        cluster.metrics = late  # type: ignore[method-assign]  # a node that takes its time
        with CounterReader(cluster, opened) as reader:
            reader.read()
            assert asked.wait(5)
            threading.Timer(0.1, may_answer.set).start()
        opened.close()
        for thread in threading.enumerate():
            if thread.name.startswith("proof counters"):
                thread.join(5)
        assert read_from(opened) == []
        assert opened.failure is None
