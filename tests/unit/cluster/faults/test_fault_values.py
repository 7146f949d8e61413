"""Faults of a whole cluster: values, the undo of each, and how they are done by RabbitMQ's own tools."""

from __future__ import annotations

import pytest

from dmq_core.actions.action import Action, undo_of
from dmq_core.actions.catalog import CATALOG
from dmq_core.actions.gate import perform
from dmq_core.actions.impact import impact_of
from dmq_core.actions.wording import text_of
from dmq_core.cluster.faults.injector import FaultWorks
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Backend, NodeAction, NodeInfo, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import InvalidInputError, OperationTimeoutError, RefusedError
from dmq_core.majority import Margin
from dmq_core.management.models import EntityKey
from dmq_core.messaging.messages import Outcome, OutgoingMessage
from dmq_core.progress import Progress, no_progress
from dmq_core.testing import FakeSession

ENDPOINT = NodeEndpoint("127.0.0.1", 5672, 15672)
ORDER = OutgoingMessage("orders", "order.eu.new", b"x")


def action(kind: FaultKind) -> Action:
    given = {"node": "rmq2", "queue": "orders", "peer": "rmq3"}
    return Action(kind, **{need: given[need] for need in CATALOG[kind].needs})


class Tools:
    """Nodes that note what is run in them and say what they are told to."""

    def __init__(self, *answers: str, states: tuple[NodeState, ...] = (NodeState.RUNNING,) * 3) -> None:
        self.answers = list(answers)
        self.ran: list[tuple[str, str, tuple[str, ...]]] = []
        self.acts: list[tuple[NodeAction, str]] = []
        self.infos = tuple(NodeInfo(f"rmq{i}", f"rabbit@rmq{i}", s, ENDPOINT) for i, s in enumerate(states, 1))
        self.settled: list[tuple[str, ...]] = []
        self.works = FaultWorks(lambda: self.infos, self.run, self.act, self.settle)

    def run(self, node: str, tool: str, words: tuple[str, ...], limit_s: float) -> str:
        assert limit_s > 0
        self.ran.append((node, tool, words))
        return self.answers.pop(0) if self.answers else ""

    def act(self, action: NodeAction, node: str, _progress: object) -> None:
        self.acts.append((action, node))

    def settle(self, nodes: tuple[str, ...], _progress: object) -> None:
        self.settled.append(nodes)


@pytest.mark.parametrize("kind", FaultKind)
def test_every_fault_tells_what_it_will_do_and_how_long_it_may_take(kind: FaultKind) -> None:
    assert CATALOG[kind].expected.endswith(".")
    assert CATALOG[kind].within_s == kind.limit_s > 0
    assert action(kind).title[0].isupper()


@pytest.mark.parametrize(
    ("kind", "node", "queue"),
    [
        (FaultKind.MEMORY_ALARM, None, None),
        (FaultKind.MEMORY_ALARM, "rmq1", "orders"),
        (FaultKind.MOVE_LEADER, "rmq1", None),
        (FaultKind.MOVE_LEADER, None, "orders"),
        (FaultKind.REBALANCE, "rmq1", None),
    ],
)
def test_a_fault_is_given_what_it_needs_and_nothing_else(kind: FaultKind, node: str | None, queue: str | None) -> None:
    with pytest.raises(InvalidInputError, match=str(kind)):
        Action(kind, node, queue)


def test_alarms_and_moves_can_be_undone() -> None:
    assert Action(FaultKind.DISK_ALARM, "rmq1").undo == Action(FaultKind.CLEAR_DISK_ALARM, "rmq1")
    move = Action(FaultKind.MOVE_LEADER, "rmq1", "q", "shop")
    assert undo_of(move, "rmq3") == Action(FaultKind.MOVE_LEADER, "rmq3", "q", "shop")
    assert undo_of(move, "rmq1") is None
    assert Action(FaultKind.REBALANCE).undo is None


@pytest.mark.parametrize("kind", FaultKind)
def test_read_only_and_attached_refuse_every_fault(kind: FaultKind) -> None:
    with pytest.raises(RefusedError, match="read-only"):
        perform(FakeSession().cluster, action(kind), read_only=True)
    with pytest.raises(RefusedError, match="did not make"):
        perform(FakeSession(backend=Backend.ATTACHED).cluster, action(kind), read_only=False)


@pytest.mark.parametrize("kind", FaultKind)
def test_the_fake_does_every_fault_and_undoes_it(kind: FaultKind) -> None:
    session = FakeSession()
    before = session.snapshot()
    undo = perform(session.cluster, action(kind), read_only=False)
    if kind in (FaultKind.MEMORY_ALARM, FaultKind.DISK_ALARM):
        assert [a.node for a in session.snapshot().alarms] == ["rabbit@rmq2"]
        assert session.publish(ORDER, timeout_s=1.0).outcome is Outcome.UNKNOWN
    if undo is not None:
        perform(session.cluster, undo, read_only=False)
    after = session.snapshot()
    assert after.alarms == ()
    assert {n.state for n in after.nodes} == {NodeState.RUNNING}
    if undo is not None:
        key = EntityKey("/", "orders")
        assert [q.leader for q in (before.queue(key), after.queue(key)) if q] == [
            q.leader for q in [before.queue(key)] * 2 if q
        ]
    assert session.publish(ORDER).outcome is Outcome.CONFIRMED


def test_an_alarm_concerns_every_connection_and_a_rolling_restart_one_node_at_a_time() -> None:
    snapshot = FakeSession().snapshot()
    alarm = impact_of(Action(FaultKind.MEMORY_ALARM, "rmq1"), snapshot)
    assert alarm.margin is Margin.SAFE
    assert (alarm.clients, "of the cluster" in text_of(alarm)) == (len(snapshot.connections), True)
    assert impact_of(Action(FaultKind.ROLLING_RESTART), snapshot).margin is Margin.NO_MARGIN


def test_an_alarm_is_awaited_in_the_node_itself() -> None:
    tools = Tools("done\n", "late\n")
    tools.works.inject(Fault(FaultKind.MEMORY_ALARM, "rmq2"), no_progress)
    [(node, tool, words)] = tools.ran
    assert (node, tool, words[0]) == ("rmq2", "rabbitmqctl", "eval")
    with pytest.raises(OperationTimeoutError):
        tools.works.inject(Fault(FaultKind.DISK_ALARM, "rmq2"), no_progress)


def test_a_queue_name_never_becomes_erlang() -> None:
    tools = Tools("{done,rabbit@rmq1}\n")
    name = 'q">>), halt(), <<"'
    assert tools.works.inject(Fault(FaultKind.MOVE_LEADER, "rmq3", name), no_progress) == "rmq1"
    assert "halt" not in tools.ran[0][2][1]


@pytest.mark.parametrize(
    ("said", "error"),
    [("no_queue", InvalidInputError), ("no_quorum_queue", InvalidInputError), ("{late,a}", OperationTimeoutError)],
)
def test_a_leader_that_does_not_move_is_an_error(said: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Tools(said).works.inject(Fault(FaultKind.MOVE_LEADER, "rmq3", "q"), no_progress)


def test_a_rolling_restart_drains_each_node_once_its_replicas_can_be_spared() -> None:
    tools = Tools()
    heard: list[Progress] = []
    assert tools.works.inject(Fault(FaultKind.ROLLING_RESTART), heard.append) is None
    assert tools.acts == [(a, n.name) for n in tools.infos for a in (NodeAction.DRAIN, NodeAction.RESTART)]
    assert [words[0] for _, _, words in tools.ran] == ["await_online_quorum_plus_one"] * 3 + ["rebalance"]
    assert [p.node for p in heard] == ["rmq1", "rmq2", "rmq3", None]


@pytest.mark.parametrize("state", [NodeState.STOPPED, NodeState.ISOLATED, NodeState.DRAINING])
def test_nothing_is_done_to_a_node_that_is_not_in_service(state: NodeState) -> None:
    tools = Tools(states=(NodeState.RUNNING, state, NodeState.RUNNING))
    for each in (Fault(FaultKind.MEMORY_ALARM, "rmq2"), Fault(FaultKind.ROLLING_RESTART)):
        with pytest.raises(InvalidInputError):
            tools.works.inject(each, no_progress)
    assert (tools.ran, tools.acts) == ([], [])
    with pytest.raises(InvalidInputError, match="rmq9"):
        tools.works.inject(Fault(FaultKind.MEMORY_ALARM, "rmq9"), no_progress)
