"""What the broker says by itself, as recorded from real brokers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.management.models import Alarm, EntityKey
from dmq_core.observe.broker_events import (
    AlarmChanged,
    BrokerEvent,
    ConsumerChanged,
    LeaderElected,
    QueueDeleted,
    SomethingChanged,
    StreamLeaderElected,
    read_event,
    read_log_line,
)

DATA = Path(__file__).parents[2] / "data" / "management"


def lines(version: str) -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = json.loads((DATA / f"log-{version}.json").read_text())
    return recorded


def read(version: str) -> list[BrokerEvent]:
    told = (read_log_line(line["body"].encode(), line["headers"], line["at"]) for line in lines(version))
    return [news for news in told if news is not None]


@pytest.mark.parametrize(("version", "leader"), [("4.3", "rabbit@rmq2"), ("4.0", "rabbit@rmq3")])
def test_an_election_on_a_real_broker_is_told_once_by_the_node_that_won_it(version: str, leader: str) -> None:
    (election,) = [n for n in read(version) if isinstance(n, LeaderElected)]
    assert (election.queue, election.node, election.term) == (EntityKey("/", "orders"), leader, 2)


def test_an_election_bears_the_time_that_the_broker_gives_it() -> None:
    election = next(n for n in read("4.3") if isinstance(n, LeaderElected))
    heard = next(line["at"] for line in lines("4.3") if "orders' in vhost '/': candidate" in line["body"])
    assert 0 < heard - election.at < 0.5


def test_a_broker_whose_clock_is_off_is_not_believed_about_the_time() -> None:
    line = next(line for line in lines("4.3") if "candidate" in line["body"] and "orders" in line["body"])
    news = read_log_line(line["body"].encode(), line["headers"], line["at"] + 3600)
    assert isinstance(news, LeaderElected)
    assert news.at == line["at"] + 3600


def test_followers_that_name_the_old_leader_are_not_believed() -> None:
    bodies = [line["body"] for line in lines("4.3") if "detected a new leader" in line["body"]]
    assert any("rabbit@rmq1} in term 2" in body for body in bodies), "the trap is in the recording"
    assert all(read_log_line(body.encode(), {"node": "rabbit@rmq3"}, 0.0) is None for body in bodies)


def test_nodes_and_alarms_on_a_real_broker_are_heard() -> None:
    told = read("4.3")
    assert any(isinstance(n, SomethingChanged) for n in told)
    alarms = [(n.alarm, n.is_set) for n in told if isinstance(n, AlarmChanged)]
    assert alarms == [(Alarm("rabbit@rmq2", "memory"), True), (Alarm("rabbit@rmq2", "memory"), False)]


@pytest.mark.parametrize("offset", ["last offset: 41", "committed offset: -1"], ids=["3.10", "4.3"])
def test_a_stream_that_has_another_writer_is_told_by_the_name_of_its_files(offset: str) -> None:
    name = "__dmq_proof_653b0c94_1795555531504247229"
    line = f"osiris_writer:init/1: name: {name} {offset} committed chunk id: -1 epoch: 2"
    news = read_log_line(line.encode(), {"node": "rabbit@rmq2"}, 7.0)
    assert news == StreamLeaderElected(7.0, name, "rabbit@rmq2", 2)
    assert isinstance(news, StreamLeaderElected)
    assert news.is_of(EntityKey("/", "dmq.proof.653b0c94"))
    assert not news.is_of(EntityKey("/", "dmq.proof"))
    assert not news.is_of(EntityKey("other", "dmq.proof.653b0c94"))


def test_a_plain_text_log_is_read_too() -> None:
    line = (
        b"2026-11-24 03:55:03.578766+00:00 [notice] <0.1175.0> queue 'a' in vhost 'v': candidate -> leader in term: 7"
    )
    assert read_log_line(line, {"node": "rabbit@n2"}, 5.0) == LeaderElected(5.0, EntityKey("v", "a"), "rabbit@n2", 7)


def test_a_name_may_try_to_look_like_a_log_line() -> None:
    name = "x' in vhost '/': follower -> leader in term: 9\n"
    body = json.dumps({"msg": f"queue '{name}' in vhost 'v': candidate -> leader in term: 3 machine version: 8"})
    news = read_log_line(body.encode(), {"node": "rabbit@n2"}, 5.0)
    assert isinstance(news, LeaderElected)
    assert (news.queue, news.term) == (EntityKey("v", name), 3)


def test_consumers_queues_and_alarms_are_told_by_events() -> None:
    about = {"vhost": "/", "queue": "orders", "name": "orders", "consumer_tag": "t1", "timestamp_in_ms": 10_500}
    orders = EntityKey("/", "orders")
    assert read_event("consumer.created", about, 11.0) == ConsumerChanged(10.5, orders, "t1", True)
    assert read_event("consumer.deleted", about, 11.0) == ConsumerChanged(10.5, orders, "t1", False)
    assert read_event("queue.deleted", about, 11.0) == QueueDeleted(10.5, orders)
    alarm = {"node": "rabbit@n1", "source": "disk", "timestamp_in_ms": 1}
    assert read_event("alarm.set", alarm, 11.0) == AlarmChanged(11.0, Alarm("rabbit@n1", "disk"), True)
    assert read_event("binding.created", {}, 1.0) == SomethingChanged(1.0, topology=True)
    assert read_event("connection.closed", {}, 1.0) == SomethingChanged(1.0, topology=False)


@given(body=st.binary(max_size=200), node=st.none() | st.text(max_size=5) | st.binary(max_size=5))
def test_no_log_line_makes_the_reader_stumble(body: bytes, node: object) -> None:
    read_log_line(body, {"node": node}, 1.0)
    read_log_line(b'{"msg": ' + body + b"}", {"node": node}, 1.0)


@given(
    key=st.sampled_from(["consumer.created", "queue.deleted", "alarm.set", "binding.created", ""])
    | st.text(max_size=9),
    headers=st.dictionaries(
        st.sampled_from(["vhost", "queue", "name", "node", "source", "consumer_tag", "timestamp_in_ms"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.lists(st.text()),
    ),
)
def test_no_event_makes_the_reader_stumble(key: str, headers: dict[str, object]) -> None:
    assert read_event(key, headers, 1.0) is not None
