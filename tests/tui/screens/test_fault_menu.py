"""What the menu of faults offers for a cluster as it is: whom it hits, its way back, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.cells import cell_len

from dmq_core.actions.impact import Margin
from dmq_core.actions.node_operation import NodeOperation
from dmq_core.cluster.faults.model import Fault, FaultKind, notes_of
from dmq_core.cluster.protocol import NodeAction
from dmq_core.management.models import EntityKey
from dmq_core.testing import HOSTILE_NAMES, FakeSession
from dmq_tui.deeds import Deed, Mending, addition, mending, of_fault, of_node, removal
from dmq_tui.screens.faults.menu import ADD, REMOVE, Aim, Offer, alarms_of, line_of, offers, peers

AIM = Aim("rmq3", queue=EntityKey("/", "orders"))
ALARM = Fault(FaultKind.MEMORY_ALARM, "rmq2")
CUT = Fault(FaultKind.CUT_LINK, "rmq1", peer="rmq3")


@pytest.fixture
def session() -> Iterator[FakeSession]:
    opened = FakeSession()
    yield opened
    opened.close()


def offered(session: FakeSession, aim: Aim = AIM, standing: tuple[Fault, ...] = ()) -> dict[str, Offer]:
    return {offer.id: offer for offer in offers(session.snapshot(), aim, standing)}


def test_it_offers_every_fault_for_the_node_and_queue_in_the_cores_words(session: FakeSession) -> None:
    found = offered(session, replace(AIM, delay_ms=500))
    assert [offer.title for offer in found.values()] == [
        "Memory alarm at rmq3",
        "Disk alarm at rmq3",
        "Cut link of rmq3 and rmq1",
        "Slow link of rmq3 and all its peers by 500 ms",
        "Move leader of orders to rmq3",
        "Rebalance",
        "Rolling restart",
        "Add a node",
        "Remove rmq3",
    ]
    assert all(offer.deed is not None and not offer.objection for offer in found.values())
    for kind in {*found} - {ADD, REMOVE}:
        notes = notes_of(FaultKind(kind))
        assert (found[kind].expected, found[kind].within_s) == (notes.expected, notes.limit_s)


def test_what_stands_comes_first_with_its_way_back(session: FakeSession) -> None:
    first, second, *_ = offers(session.snapshot(), AIM, (ALARM, CUT))
    assert (first.title, first.stands) == ("Memory alarm at rmq2", True)
    assert first.deed == of_fault(Fault(FaultKind.CLEAR_MEMORY_ALARM, "rmq2"))
    assert second.deed == of_fault(Fault(FaultKind.MEND_LINK, "rmq1", peer="rmq3"))


def test_what_stands_is_not_offered_again(session: FakeSession) -> None:
    found = offered(session, Aim("rmq3", "rmq1"), (CUT,))
    assert found["cut-link"].objection == "It stands already."
    assert not found["memory-alarm"].objection
    assert not found["slow-link"].objection


@pytest.mark.parametrize(
    ("aim", "kind", "why_not"),
    [
        (Aim("rmq2"), "memory-alarm", "rmq2 is stopped."),
        (Aim("rmq1", "rmq2"), "cut-link", "rmq2 is stopped."),
        (Aim("gone"), "slow-link", "No such node is there now."),
        (Aim("rmq1"), "rolling-restart", "It takes three nodes or more that all run."),
        (Aim("rmq1"), ADD, "A node joins only a cluster that is whole: rmq2 is stopped."),
        (Aim("gone"), REMOVE, "There is no node 'gone' to remove."),
        (Aim("rmq1"), "move-leader", "Choose a quorum queue in pane 3 first."),
        (Aim("rmq1", queue=EntityKey("/", "audit")), "move-leader", "audit is no quorum queue; choose one in pane 3."),
        (Aim("rmq3", queue=EntityKey("/", "orders.eu")), "move-leader", "rmq3 leads orders.eu now."),
        (Aim("rmq1", queue=EntityKey("/", "small")), "move-leader", "small is no quorum queue; choose one in pane 3."),
    ],
)
def test_what_cannot_be_done_says_why(session: FakeSession, aim: Aim, kind: str, why_not: str) -> None:
    session.cluster.act(NodeAction.KILL, "rmq2")
    offer = offered(session, aim)[kind]
    assert (offer.deed, offer.objection) == (None, why_not)


def test_peers_that_run_come_first_and_a_cut_needs_one(session: FakeSession) -> None:
    session.cluster.act(NodeAction.KILL, "rmq1")
    snapshot = session.snapshot()
    assert peers(snapshot, "rmq2") == ("rmq3", "rmq1")
    assert offered(session, Aim("rmq2"))["cut-link"].title == "Cut link of rmq2 and rmq3"
    assert offered(session, Aim("rmq2", "rmq2"))["slow-link"].title.startswith("Slow link of rmq2 and all its peers")


def test_the_figures_tell_of_alarms_before_the_nodes_do(session: FakeSession) -> None:
    assert alarms_of(None) == ()
    session.cluster.cause(ALARM)
    assert alarms_of(session.snapshot()) == (ALARM,)


def test_all_that_stands_is_taken_back_in_one_deed() -> None:
    assert mending(()) is None
    assert mending((ALARM,)) == of_fault(Fault(FaultKind.CLEAR_MEMORY_ALARM, "rmq2"))
    both = mending((ALARM, CUT))
    assert both is not None
    assert (both.title, both.nodes) == ("Take back 2 faults", {"rmq1", "rmq2", "rmq3"})
    assert isinstance(both.act, Mending)
    assert not both.destructive


@pytest.mark.parametrize(
    ("deed", "margin", "words"),
    [
        (of_node(NodeOperation(NodeAction.KILL, "rmq2")), Margin.NO_MARGIN, "rmq2 leads 3 queues"),
        (of_fault(ALARM), Margin.SAFE, "Every publisher of the cluster is blocked"),
        (of_fault(Fault(FaultKind.ROLLING_RESTART)), Margin.NO_MARGIN, "One node after the other"),
        (addition(), Margin.SAFE, "4 of 4 nodes will run"),
        (removal("rmq3"), Margin.NO_MARGIN, "2 of 2 nodes remain"),
        (mending((ALARM, CUT)), Margin.SAFE, "Publishers go on within a second"),
    ],
)
def test_each_deed_says_what_it_will_cause(session: FakeSession, deed: Deed | None, margin: Margin, words: str) -> None:
    assert deed is not None
    impact = deed.impact(session.snapshot())
    assert impact.margin is margin
    assert any(words in sentence for sentence in impact.sentences)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("width", [74, 128])
def test_a_line_is_as_wide_as_it_may_be_and_safe(session: FakeSession, name: str, width: int) -> None:
    for stands in (True, False):
        offer = Offer("x", name, name, 1.0, None, stands=stands)
        text = "".join(cell.text for cell in line_of(offer, width))
        assert cell_len(text) == width
        assert not set(text) & {"\x1b", "\x07", "\u202e", "\n"}
