"""What the menu of faults offers for a cluster as it is: whom it hits, its undo, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.cells import cell_len

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import CATALOG, Scaling
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import NodeAction
from dmq_core.management.models import EntityKey
from dmq_core.testing import HOSTILE_NAMES, FakeSession
from dmq_tui.background.undo_all import UndoAll, undo_all
from dmq_tui.screens.faults.menu import Aim, FaultMenuItem, alarms_of, line_of, menu_items, peers

AIM = Aim("rmq3", queue=EntityKey("/", "orders"))
ALARM = Fault(FaultKind.MEMORY_ALARM, "rmq2")
CUT = Fault(FaultKind.CUT_LINK, "rmq1", peer="rmq3")


@pytest.fixture
def session() -> Iterator[FakeSession]:
    opened = FakeSession()
    yield opened
    opened.close()


def offered(session: FakeSession, aim: Aim = AIM, active: tuple[Fault, ...] = ()) -> dict[str, FaultMenuItem]:
    return {item.id: item for item in menu_items(session.snapshot(), aim, active)}


def test_it_offers_every_fault_for_the_node_and_queue_in_the_cores_words(session: FakeSession) -> None:
    found = offered(session, replace(AIM, delay_ms=500))
    assert [item.title for item in found.values()] == [
        "Memory alarm at rmq3",
        "Disk alarm at rmq3",
        "Cut link of rmq3 and rmq1",
        "Slow link of rmq3 and all its peers by 500 ms",
        "Move leader of orders to rmq3",
        "Rebalance",
        "Rolling restart",
        "Close connections of rmq3",
        "Add a node",
        "Remove rmq3",
    ]
    assert all(item.action is not None and not item.objection for item in found.values())
    for item in found.values():
        spec = CATALOG[item.action.kind] if item.action is not None else None
        assert spec is not None
        assert (item.expected, item.within_s) == (spec.expected, spec.within_s)


def test_active_faults_come_first_with_their_undo(session: FakeSession) -> None:
    first, second, *_ = menu_items(session.snapshot(), AIM, (ALARM, CUT))
    assert (first.title, first.undoes) == ("Memory alarm at rmq2", True)
    assert first.action == Action(FaultKind.CLEAR_MEMORY_ALARM, "rmq2")
    assert second.action == Action(FaultKind.MEND_LINK, "rmq1", peer="rmq3")


def test_an_active_fault_is_not_offered_again(session: FakeSession) -> None:
    found = offered(session, Aim("rmq3", "rmq1"), (CUT,))
    assert found["cut-link"].objection == "It is active already."
    assert not found["memory-alarm"].objection
    assert not found["slow-link"].objection


@pytest.mark.parametrize(
    ("aim", "kind", "why_not"),
    [
        (Aim("rmq2"), "memory-alarm", "rmq2 is stopped."),
        (Aim("rmq1", "rmq2"), "cut-link", "rmq2 is stopped."),
        (Aim("gone"), "slow-link", "No such node is there now."),
        (Aim("rmq1"), "rolling-restart", "It takes 3 nodes or more that all run."),
        (Aim("rmq1"), Scaling.ADD, "A node joins only a cluster that is whole: rmq2 is stopped."),
        (Aim("gone"), Scaling.REMOVE, "There is no node 'gone' to remove."),
        (Aim("rmq1"), "move-leader", "Choose a quorum queue in pane 3 first."),
        (Aim("rmq1", queue=EntityKey("/", "audit")), "move-leader", "audit is no quorum queue; choose one in pane 3."),
        (Aim("rmq3", queue=EntityKey("/", "orders.eu")), "move-leader", "rmq3 leads orders.eu now."),
        (Aim("rmq1", queue=EntityKey("/", "small")), "move-leader", "small is no quorum queue; choose one in pane 3."),
    ],
)
def test_what_cannot_be_done_says_why(session: FakeSession, aim: Aim, kind: str, why_not: str) -> None:
    session.cluster.act(NodeAction.KILL, "rmq2")
    item = offered(session, aim)[kind]
    assert (item.action, item.objection) == (None, why_not)


def test_peers_that_run_come_first_and_a_cut_needs_one(session: FakeSession) -> None:
    session.cluster.act(NodeAction.KILL, "rmq1")
    snapshot = session.snapshot()
    assert peers(snapshot, "rmq2") == ("rmq3", "rmq1")
    assert offered(session, Aim("rmq2"))["cut-link"].title == "Cut link of rmq2 and rmq3"
    assert offered(session, Aim("rmq2", "rmq2"))["slow-link"].title.startswith("Slow link of rmq2 and all its peers")


def test_the_figures_tell_of_alarms_before_the_nodes_do(session: FakeSession) -> None:
    assert alarms_of(None) == ()
    session.cluster.inject(ALARM)
    assert alarms_of(session.snapshot()) == (ALARM,)


def test_all_active_faults_are_undone_in_one_go() -> None:
    assert undo_all(()) is None
    assert undo_all((ALARM,)) == Action(FaultKind.CLEAR_MEMORY_ALARM, "rmq2")
    both = undo_all((ALARM, CUT))
    assert isinstance(both, UndoAll)
    assert (both.title, both.nodes, both.destructive) == ("Undo 2 faults", {"rmq1", "rmq2", "rmq3"}, False)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("width", [74, 128])
def test_a_line_is_as_wide_as_it_may_be_and_safe(session: FakeSession, name: str, width: int) -> None:
    for undoes in (True, False):
        item = FaultMenuItem("x", name, name, 1.0, None, undoes=undoes)
        text = "".join(cell.text for cell in line_of(item, width))
        assert cell_len(text) == width
        assert not set(text) & {"\x1b", "\x07", "\u202e", "\n"}
