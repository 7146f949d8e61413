"""What a test did to its cluster as a whole is taken back by `heal`."""

from __future__ import annotations

import pytest

from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.errors import InvalidInputError
from dmq_core.testing import ClusterUnderTest, FakeCluster, SimBroker


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(SimBroker("dmq", 3, backend=Backend.LOCAL, started=True, realtime=False))


def test_alarms_and_links_stand_until_they_are_healed(cluster: FakeCluster) -> None:
    under_test = ClusterUnderTest(cluster)
    under_test.memory_alarm("rmq1")
    under_test.disk_alarm("rmq2")
    under_test.cut_link("rmq1", "rmq3")
    under_test.slow_link("rmq2", "rmq3", delay_ms=50)
    assert {fault.kind for fault in cluster.active_faults()} == {
        FaultKind.MEMORY_ALARM,
        FaultKind.DISK_ALARM,
        FaultKind.CUT_LINK,
        FaultKind.SLOW_LINK,
    }
    under_test.heal()
    assert cluster.active_faults() == ()


def test_healing_brings_nodes_back_as_well(cluster: FakeCluster) -> None:
    under_test = ClusterUnderTest(cluster)
    under_test.memory_alarm("rmq1")
    under_test.kill("rmq2")
    under_test.heal()
    assert cluster.active_faults() == ()
    assert {info.state for info in cluster.nodes()} == {NodeState.RUNNING}


def test_a_cluster_is_given_a_node_more_and_one_less(cluster: FakeCluster) -> None:
    under_test = ClusterUnderTest(cluster)
    assert under_test.add_node() == "rmq4"
    under_test.remove_node("rmq1")
    assert under_test.nodes == ("rmq2", "rmq3", "rmq4")


def test_a_fault_that_makes_no_sense_leaves_nothing_to_heal(cluster: FakeCluster) -> None:
    under_test = ClusterUnderTest(cluster)
    with pytest.raises(InvalidInputError):
        under_test.cut_link("rmq1", "rmq1")
    under_test.heal()
    assert cluster.active_faults() == ()
