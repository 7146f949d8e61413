"""What is said to be wrong with a cluster, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.protocol import Backend, NodeAction, NodeState
from dmq_core.management.models import Alarm
from dmq_core.observe.events import Severity
from dmq_core.observe.health import findings
from dmq_core.observe.snapshot import ClusterSnapshot, SourceStatus
from dmq_core.testing import FakeSession, hostile, nothing


def after(*acts: tuple[NodeAction, str], node_count: int = 3) -> ClusterSnapshot:
    session = FakeSession(node_count=node_count)
    for action, node in acts:
        session.cluster.act(action, node)
    session.advance(3.0)
    return session.snapshot()


def kinds(snapshot: ClusterSnapshot) -> list[str]:
    return [finding.kind for finding in findings(snapshot)]


def test_a_whole_cluster_has_no_findings() -> None:
    assert findings(after()) == ()


def test_a_killed_node_is_told_with_the_command_that_brings_it_back() -> None:
    found = {finding.kind: finding for finding in findings(after((NodeAction.KILL, "rmq2")))}
    assert found["node_down"].advice == "Start it: 'dmq node start rmq2'."
    assert found["node_down"].severity is Severity.BAD
    assert found["no_margin"].severity is Severity.NOTICE
    assert found["member_offline"].severity is Severity.NOTICE


def test_a_command_names_its_cluster_unless_that_is_the_usual_one() -> None:
    (down,) = [f for f in findings(replace(after((NodeAction.KILL, "rmq2")), cluster="shop")) if f.kind == "node_down"]
    assert down.advice == "Start it: 'dmq node start rmq2 --cluster shop'."


def test_a_lost_majority_comes_before_what_merely_takes_a_margin() -> None:
    snapshot = after((NodeAction.KILL, "rmq2"), (NodeAction.PAUSE, "rmq3"))
    found = findings(snapshot)
    assert {"no_majority", "node_down", "node_paused", "queue_unavailable"} <= set(kinds(snapshot))
    assert "no_margin" not in kinds(snapshot)
    severities = [finding.severity for finding in found]
    assert severities == sorted(severities, key=lambda severity: severity is not Severity.BAD)


def test_one_node_of_five_lost_leaves_a_margin() -> None:
    assert "no_margin" not in kinds(after((NodeAction.KILL, "rmq2"), node_count=5))
    assert "no_margin" in kinds(after((NodeAction.KILL, "rmq2"), (NodeAction.KILL, "rmq3"), node_count=5))


def test_a_cluster_without_a_running_node_says_how_to_start_it() -> None:
    session = FakeSession(nothing)
    session.cluster.stop()
    found = findings(session.snapshot())
    assert found[0].kind == "no_node"
    assert "dmq start" in found[0].advice


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm_blocks_every_publisher_and_is_told(resource: str) -> None:
    snapshot = replace(after(), alarms=(Alarm("rabbit@rmq1", resource),))
    (finding,) = findings(snapshot)
    assert finding.kind == "alarm"
    assert f"rmq1 has a {resource} alarm" in finding.text


def test_a_partition_and_a_silent_api_are_told() -> None:
    snapshot = replace(after(), partitions=("rmq3",), sources=(SourceStatus("management", problem="no answer in 4 s"),))
    assert kinds(snapshot) == ["partition", "management_silent"]


def test_of_somebody_elses_cluster_no_command_of_ours_is_advised() -> None:
    snapshot = replace(after((NodeAction.KILL, "rmq1")), backend=Backend.ATTACHED)
    assert all("dmq node" not in finding.advice for finding in findings(snapshot))


def test_names_from_outside_are_safe_in_findings() -> None:
    session = FakeSession(hostile)
    session.cluster.act(NodeAction.KILL, "rmq1")
    session.cluster.act(NodeAction.KILL, "rmq2")
    session.advance(2.0)
    found = findings(session.snapshot())
    assert found
    assert all("\x1b" not in finding.text + finding.advice for finding in found)


@given(st.lists(st.sampled_from(NodeState), min_size=1, max_size=7))
def test_every_state_but_running_is_told_and_only_those(states: list[NodeState]) -> None:
    """A node that merely starts or drains is worth a look; every other state hurts now."""
    session = FakeSession(nothing, node_count=len(states))
    whole = session.snapshot()
    nodes = tuple(replace(node, state=state) for node, state in zip(whole.nodes, states, strict=True))
    found = findings(replace(whole, nodes=nodes))
    told = {finding.subject for finding in found if finding.kind.startswith("node_")}
    assert told == {node.name for node in nodes if node.state is not NodeState.RUNNING}
