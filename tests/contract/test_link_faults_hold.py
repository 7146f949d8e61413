"""Links between nodes of real clusters that are cut or slow, and every way back."""

from __future__ import annotations

import time

import pytest
from clients import await_until, drain, node, publish

from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeState
from dmq_core.cluster.readiness import running_nodes

pytestmark = pytest.mark.thorough
CUT = Fault(FaultKind.CUT_LINK, "rmq1", peer="rmq2")
SLOW = Fault(FaultKind.SLOW_LINK, "rmq1", delay_ms=300)
NOTICED_WITHIN_S = 20.0


def sees(cluster: Cluster, name: str) -> set[str]:
    info = node(cluster, name)
    seen = running_nodes(info.endpoint, cluster.credentials)
    return {n.name for n in cluster.nodes() if n.erlang_name in (seen or ())}


def whole(cluster: Cluster) -> bool:
    everybody = {n.name for n in cluster.nodes()}
    return all(sees(cluster, name) == everybody for name in everybody)


def test_a_cut_link_is_active_until_it_is_mended_and_the_cluster_is_whole_then(real_cluster: Cluster) -> None:
    publish(node(real_cluster, "rmq3").endpoint, "around-cut", ["before"])
    real_cluster.inject(CUT)
    assert real_cluster.active_faults() == (CUT,)
    await_until(lambda: not whole(real_cluster), NOTICED_WITHIN_S, "the cut is noticed")
    mend = Fault(FaultKind.MEND_LINK, "rmq1", peer="rmq2")
    real_cluster.inject(mend)
    assert whole(real_cluster)
    assert real_cluster.active_faults() == ()
    real_cluster.inject(mend)
    publish(node(real_cluster, "rmq1").endpoint, "around-cut", ["after"])
    assert drain(node(real_cluster, "rmq2").endpoint, "around-cut", 2) == ["before", "after"]


def test_a_slow_link_delays_what_passes_and_gives_nobody_up(real_cluster: Cluster) -> None:
    def seconds() -> float:
        # What is declared is agreed upon over the links of a majority.
        began = time.monotonic()
        publish(node(real_cluster, "rmq1").endpoint, "slowly", ["x"] * 5)
        drain(node(real_cluster, "rmq1").endpoint, "slowly", 5)
        return time.monotonic() - began

    before = min(seconds() for _ in range(3))
    real_cluster.inject(SLOW)
    assert {(f.kind, f.peer, f.delay_ms) for f in real_cluster.active_faults()} == {
        (FaultKind.SLOW_LINK, "rmq2", 300),
        (FaultKind.SLOW_LINK, "rmq3", 300),
    }
    assert seconds() > before + 5 * 0.1
    assert {n.state for n in real_cluster.nodes()} == {NodeState.RUNNING}
    real_cluster.inject(Fault(FaultKind.MEND_LINK, SLOW.node, peer=SLOW.peer))
    assert real_cluster.active_faults() == ()
    assert whole(real_cluster)


@pytest.mark.parametrize("restarted", ["rmq1", "rmq2"])
def test_a_restart_of_either_end_leaves_no_link_cut_or_slow(real_cluster: Cluster, restarted: str) -> None:
    for fault in (CUT, Fault(FaultKind.SLOW_LINK, "rmq1", peer="rmq2", delay_ms=300)):
        real_cluster.inject(fault)
        real_cluster.act(NodeAction.RESTART, restarted)
        assert real_cluster.active_faults() == ()
        assert whole(real_cluster)


def test_a_start_mends_what_was_left_by_a_node_that_was_killed(real_cluster: Cluster) -> None:
    real_cluster.inject(SLOW)
    real_cluster.act(NodeAction.KILL, "rmq2")
    real_cluster.start()
    assert real_cluster.active_faults() == ()
    assert whole(real_cluster)
