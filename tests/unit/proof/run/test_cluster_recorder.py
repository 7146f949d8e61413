"""What a proof run hears: elections by term, clients by connection, and nodes as the backend tells."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.connection_manager import ConnectionEvent, Role
from dmq_core.endpoints import NodeEndpoint
from dmq_core.management.models import EntityKey
from dmq_core.messaging.connection.states import ConnectionState, ConnectionStatus
from dmq_core.observe.broker_events import LeaderElected, StreamLeaderElected
from dmq_core.proof.journal.file import Journal, read_journal
from dmq_core.proof.journal.records import ClientEvent, ClientRecord, LeaderRecord, RunSetup
from dmq_core.proof.run.cluster_recorder import ClusterRecorder
from dmq_core.testing import FakeSession

AT = NodeEndpoint("127.0.0.1", 5672, None)


class Deaf:
    """In place of the log exchange: nothing is dialled."""

    def __init__(self, *_: object) -> None:
        pass

    def use(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


class Hearing:
    """A witness, and what it wrote down."""

    def __init__(self, session: FakeSession, folder: Path) -> None:
        self.cluster = session.cluster
        self.journal = Journal.create(folder / "run.journal", RunSetup(run="r"))
        self.recorder = ClusterRecorder(self.cluster, ["q"], self.journal, consumers=2)

    def records(self) -> list[object]:
        self.journal.close()
        return list(read_journal(self.journal.path).records())

    def elected(self, node: str, term: int, queue: str = "q") -> None:
        self.recorder._news(LeaderElected(time.time(), EntityKey("/", queue), f"rabbit@{node}", term))

    def connection(self, name: str, role: Role, state: ConnectionState, node: str) -> None:
        status = ConnectionStatus(state, time.time(), AT, problem="gone")
        self.recorder.connection_changed(ConnectionEvent(1, name, role, node, status))


@pytest.fixture
def hearing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hearing]:
    monkeypatch.setattr("dmq_core.proof.run.cluster_recorder.Feeds", Deaf)
    session = FakeSession()
    heard = Hearing(session, tmp_path)
    yield heard
    heard.recorder.close()
    heard.journal.close()
    session.close()


def test_the_newest_term_tells_who_leads(hearing: Hearing) -> None:
    hearing.recorder.note_leader("q", "rmq1")
    assert hearing.recorder.leader("q") == "rmq1"
    hearing.elected("rmq3", 3)
    hearing.elected("rmq2", 2)
    hearing.elected("rmq1", 9, queue="another")
    assert hearing.recorder.leader("q") == "rmq3"
    assert [(r.node, r.term) for r in hearing.records() if isinstance(r, LeaderRecord)] == [("rmq1", 0), ("rmq3", 3)]


def test_what_was_heard_of_an_election_is_better_than_what_was_asked(hearing: Hearing) -> None:
    hearing.elected("rmq2", 2)
    hearing.recorder.note_leader("q", "rmq1")
    assert hearing.recorder.leader("q") == "rmq2"


def test_who_writes_a_stream_is_told_by_the_name_of_its_files(hearing: Hearing) -> None:
    for node, epoch, name in (
        ("rmq1", 1, "__q_17"),
        ("rmq3", 2, "__q_17"),
        ("rmq2", 3, "__q_2_17"),
        ("rmq2", 3, "_q_"),
    ):
        hearing.recorder._news(StreamLeaderElected(time.time(), name, f"rabbit@{node}", epoch))
    assert [(r.node, r.term) for r in hearing.records() if isinstance(r, LeaderRecord)] == [("rmq1", 1), ("rmq3", 2)]


def test_clients_are_followed_from_node_to_node(hearing: Hearing) -> None:
    began = time.monotonic() - 1
    for state, node in (
        (ConnectionState.CONNECTING, "rmq1"),
        (ConnectionState.OPEN, "rmq1"),
        (ConnectionState.BLOCKED, "rmq1"),
        (ConnectionState.RECOVERING, ""),
        (ConnectionState.OPEN, "rmq2"),
        (ConnectionState.CLOSING, ""),
    ):
        hearing.connection("a", Role.PUBLISHING, state, node)
    assert hearing.recorder.node_of(Role.PUBLISHING) == "rmq2"
    assert hearing.recorder.epoch(Role.PUBLISHING) == 2
    assert hearing.recorder.first_loss_at("rmq1", began) is not None
    assert hearing.recorder.first_loss_at("rmq2", began) is None
    assert hearing.recorder.node_of(Role.CONSUMING) is None
    steps = [(r.event, r.node, r.epoch) for r in hearing.records() if isinstance(r, ClientRecord)]
    assert steps == [
        (ClientEvent.CONNECTED, "rmq1", 1),
        (ClientEvent.LOST, "rmq1", 1),
        (ClientEvent.RECONNECTED, "rmq2", 2),
    ]


def test_the_consumers_share_a_connection_and_each_loses_its_channel(hearing: Hearing) -> None:
    hearing.connection("a", Role.CONSUMING, ConnectionState.OPEN, "rmq1")
    hearing.connection("a", Role.CONSUMING, ConnectionState.RECOVERING, "")
    lost = [r.number for r in hearing.records() if isinstance(r, ClientRecord) and r.event is ClientEvent.LOST]
    assert lost == [0, 1]


def test_a_change_of_a_node_is_awaited_and_no_older_one_taken(hearing: Hearing) -> None:
    assert hearing.recorder.await_change("rmq2", (NodeState.PAUSED,), 0.0, 0.05) is None
    hearing.cluster.act(NodeAction.PAUSE, "rmq2")
    change = hearing.recorder.await_change("rmq2", (NodeState.PAUSED,), 0.0, 5.0)
    assert change is not None
    assert hearing.recorder.await_change("rmq2", (NodeState.PAUSED,), change.at + 1, 0.05) is None
