"""Links that are cut, slow and mended: as values, as what nodes evaluate, and on nodes that only take notes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from dmq_core.actions.action import Action, action_of
from dmq_core.actions.impact import impact_of
from dmq_core.actions.wording import text_of
from dmq_core.cluster.faults import erlang_links as links
from dmq_core.cluster.faults.injector import FaultWorks
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import NodeAction, NodeInfo, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import ClusterError, InvalidInputError, OperationTimeoutError
from dmq_core.majority import Margin
from dmq_core.progress import Progress, no_progress
from dmq_core.testing import FakeSession

PEERS = ("rabbit@rmq2", "rabbit@rmq3")
CUT = Fault(FaultKind.CUT_LINK, "rmq1", peer="rmq2")
SLOW = Fault(FaultKind.SLOW_LINK, "rmq1", peer="rmq2", delay_ms=250)
EXPRESSIONS = (
    links.cut_expression(PEERS),
    links.noted(links.cut_expression(PEERS)),
    links.slow_expression(PEERS, 20),
    links.mend_expression(PEERS, PEERS, forget=True),
    links.active_expression(PEERS),
)


class Nodes:
    """Three nodes that note what they evaluate, and say to it what they are told by name."""

    def __init__(self, says: Mapping[str, str] | None = None, state: NodeState = NodeState.RUNNING) -> None:
        self.says = says or {}
        self.ran: dict[str, str] = {}
        self.settled: list[tuple[str, ...]] = []
        endpoint = NodeEndpoint("127.0.0.1", 5672, 15672)
        states = (NodeState.RUNNING, state, NodeState.RUNNING)
        self.infos = tuple(NodeInfo(f"rmq{i}", f"rabbit@rmq{i}", s, endpoint) for i, s in enumerate(states, 1))
        self._lock = threading.Lock()
        self.works = FaultWorks(
            lambda: self.infos, self.run, lambda *_: None, lambda nodes, _progress: self.settled.append(nodes)
        )

    def run(self, node: str, tool: str, words: tuple[str, ...], limit_s: float) -> str:
        assert (tool, words[0], limit_s > 0) == ("rabbitmqctl", "eval", True)
        with self._lock:
            self.ran[node] = words[1]
        if self.says.get(node) == "fails":
            raise ClusterError("no such luck")
        return self.says.get(node, "[]\n")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_peer_is_named_in_one_line_and_quoted(expression: str) -> None:
    assert "['rabbit@rmq2', 'rabbit@rmq3']" in expression
    assert expression.isprintable()
    assert expression.endswith(".")
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": FaultKind.CUT_LINK, "node": "rmq1"},
        {"kind": FaultKind.CUT_LINK, "peer": "rmq1"},
        {"kind": FaultKind.CUT_LINK, "node": "rmq1", "peer": "rmq1"},
        {"kind": FaultKind.CUT_LINK, "node": "rmq1", "peer": "rmq2", "delay_ms": 5},
        {"kind": FaultKind.SLOW_LINK},
        {"kind": FaultKind.SLOW_LINK, "node": "rmq1", "delay_ms": 0},
        {"kind": FaultKind.SLOW_LINK, "node": "rmq1", "delay_ms": 5001},
        {"kind": FaultKind.MEND_LINK, "peer": "rmq1"},
        {"kind": FaultKind.MEMORY_ALARM, "node": "rmq1", "peer": "rmq2"},
    ],
)
def test_a_link_needs_its_ends_and_a_delay_its_range(given: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        Action(**given)  # type: ignore[arg-type]


def test_a_link_is_named_by_its_ends_and_mended_between_them() -> None:
    cut, slow, every = action_of(CUT), action_of(SLOW), Action(FaultKind.SLOW_LINK, "rmq1")
    assert cut.title == "Cut link of rmq1 and rmq2"
    assert slow.title == "Slow link of rmq1 and rmq2 by 250 ms"
    assert every.title == "Slow link of rmq1 and all its peers by 100 ms"
    assert cut.undo == slow.undo == Action(FaultKind.MEND_LINK, "rmq1", peer="rmq2")
    mend = every.undo
    assert mend == Action(FaultKind.MEND_LINK, "rmq1")
    assert mend.undo is None
    assert (cut.destructive, slow.destructive, mend.destructive) == (True, True, False)
    assert slow.spec.needs == ("node",)
    assert slow.spec.takes == ("peer", "delay")


def test_a_cut_is_asked_of_one_end_and_mended_at_both() -> None:
    nodes = Nodes({"rmq1": "ok"})
    nodes.works.inject(CUT, no_progress)
    assert list(nodes.ran) == ["rmq1"]
    assert "'rabbit@rmq3'" not in nodes.ran["rmq1"]
    nodes.works.inject(Fault(FaultKind.MEND_LINK, "rmq1", peer="rmq2"), no_progress)
    assert "Peers = ['rabbit@rmq2']" in nodes.ran["rmq1"]
    assert "Peers = ['rabbit@rmq1']" in nodes.ran["rmq2"]
    assert "Peers = []" in nodes.ran["rmq3"]
    assert nodes.settled == [("rmq1", "rmq2", "rmq3")]


def test_while_another_link_is_cut_a_mend_does_not_wait_for_a_whole_cluster_and_says_so() -> None:
    nodes = Nodes({"rmq3": "[{cut,rabbit@rmq1}]"})
    heard: list[Progress] = []
    nodes.works.inject(Fault(FaultKind.MEND_LINK, "rmq1", peer="rmq2"), heard.append)
    assert [p.text for p in heard] == ["the link of rmq1 and rmq3 is still cut"]
    assert nodes.settled == []


def test_a_slow_link_needs_an_answer_and_a_link() -> None:
    Nodes({"rmq1": "['rabbit@rmq2']"}).works.inject(SLOW, no_progress)
    with pytest.raises(OperationTimeoutError):
        Nodes({"rmq1": "late"}).works.inject(SLOW, no_progress)
    with pytest.raises(InvalidInputError, match="no link"):
        Nodes({"rmq1": "[]"}).works.inject(SLOW, no_progress)


@pytest.mark.parametrize("fault", [CUT, SLOW])
def test_both_ends_of_a_link_must_run(fault: Fault) -> None:
    nodes = Nodes(state=NodeState.PAUSED)
    with pytest.raises(InvalidInputError, match="paused"):
        nodes.works.inject(fault, no_progress)
    assert nodes.ran == {}


@pytest.mark.parametrize("state", [NodeState.UNREACHABLE, NodeState.DRAINING])
def test_a_node_that_paused_itself_is_mended_too(state: NodeState) -> None:
    nodes = Nodes(state=state)
    nodes.works.inject(Fault(FaultKind.MEND_LINK, "rmq2"), no_progress)
    assert set(nodes.ran) == {"rmq1", "rmq2", "rmq3"}


def test_active_faults_are_asked_of_every_node_and_each_link_told_once() -> None:
    nodes = Nodes(
        {
            "rmq1": "[{alarm,memory},\n {cut,'rabbit@rmq2'},{slow,rabbit@rmq3,\n  250}]\n",
            "rmq3": "[{slow,rabbit@rmq1,250}]",
        }
    )
    assert nodes.works.active_faults() == (
        Fault(FaultKind.MEMORY_ALARM, "rmq1"),
        CUT,
        Fault(FaultKind.SLOW_LINK, "rmq1", peer="rmq3", delay_ms=250),
    )


def test_a_restart_mends_every_link_of_the_node_though_another_node_fails() -> None:
    nodes = Nodes({"rmq3": "fails"})
    nodes.works.mend_links(["rmq1"])
    assert "Peers = ['rabbit@rmq2', 'rabbit@rmq3']" in nodes.ran["rmq1"]
    assert [("file:delete" in nodes.ran[n]) for n in ("rmq1", "rmq2", "rmq3")] == [True, False, False]
    assert "Peers = ['rabbit@rmq1']" in nodes.ran["rmq2"]


@pytest.mark.parametrize(
    ("version", "running", "margin", "words"),
    [
        ("3.10.8", 3, Margin.NO_MAJORITY, "may then pause one, both or all"),
        ("4.0.5", 3, Margin.NO_MAJORITY, "may then pause one, both or all"),
        ("4.3.6", 3, Margin.SAFE, "Every node stays up"),
        ("4.3.6", 2, Margin.NO_MAJORITY, "is then alone"),
    ],
)
def test_what_a_cut_costs_is_said_by_version(version: str, running: int, margin: Margin, words: str) -> None:
    session = FakeSession()
    if running == 2:
        session.cluster.act(NodeAction.KILL, "rmq3")
    impact = impact_of(action_of(CUT), replace(session.snapshot(), rabbitmq=version))
    assert impact.margin is margin
    assert words in text_of(impact)


def test_an_act_that_brings_a_node_back_leaves_no_link_of_it_cut_or_slow() -> None:
    cluster = FakeSession().cluster
    for bring_back in (NodeAction.RESTART, NodeAction.START, NodeAction.REJOIN):
        cluster.inject(CUT)
        cluster.inject(Fault(FaultKind.SLOW_LINK, "rmq2", peer="rmq3"))
        assert len(cluster.active_faults()) == 2
        cluster.act(bring_back, "rmq1")
        assert [f.kind for f in cluster.active_faults()] == [FaultKind.SLOW_LINK]
    cluster.start()
    assert cluster.active_faults() == ()
