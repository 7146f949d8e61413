"""Whom to ask of a cluster, and what its nodes are called."""

from __future__ import annotations

import contextlib

import pytest

from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.view import UNFIT, ClusterView
from dmq_core.endpoints import Credentials, NodeEndpoint


def view(*states: NodeState) -> ClusterView:
    nodes = (
        NodeInfo(f"rmq{i}", f"rabbit@rmq{i}", state, NodeEndpoint("127.0.0.1", 5671 + i, 15671 + i))
        for i, state in enumerate(states, 1)
    )
    return ClusterView(tuple(nodes), Credentials())


def asked(some: ClusterView) -> list[str]:
    with contextlib.closing(some.management()) as client:
        return [endpoint.name for endpoint in client.endpoints]


@pytest.mark.parametrize("state", sorted(UNFIT))
def test_a_node_that_cannot_know_how_the_cluster_is_is_not_asked(state: NodeState) -> None:
    assert asked(view(state, NodeState.RUNNING, NodeState.RUNNING)) == ["rmq2", "rmq3"]


def test_nodes_that_run_are_asked_before_those_that_may_not_answer() -> None:
    some = view(NodeState.STARTING, NodeState.UNREACHABLE, NodeState.RUNNING)
    assert asked(some) == ["rmq3", "rmq1", "rmq2"]
    assert [node.name for node in some.running] == ["rmq3"]


def test_where_no_node_is_fit_all_are_asked_so_that_the_error_names_them() -> None:
    some = view(NodeState.STOPPED, NodeState.ISOLATED)
    assert some.fit == ()
    assert asked(some) == ["rmq1", "rmq2"]


def test_a_node_can_be_left_out() -> None:
    some = view(NodeState.RUNNING, NodeState.RUNNING)
    assert asked(some.without("rmq1")) == ["rmq2"]
    assert some.without("").nodes == some.nodes


def test_each_node_has_two_names_and_a_stranger_keeps_the_one_it_has() -> None:
    names = view(NodeState.RUNNING, NodeState.STOPPED).names
    assert (names.short("rabbit@rmq2"), names.long("rmq2")) == ("rmq2", "rabbit@rmq2")
    assert (names.short("rabbit@far"), names.long("far")) == ("rabbit@far", "far")
    assert names.all_short(["rabbit@rmq2", "rabbit@rmq1"]) == ("rmq1", "rmq2")
