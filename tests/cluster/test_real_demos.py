"""Demos on real nodes: every claim holds, nothing is left behind, and the code at the end of each runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from clients import await_until

from dmq_core.cluster.protocol import Cluster, NodeState
from dmq_core.cluster.view import ClusterView
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.demo.context import PREFIX, DemoEnvironment
from dmq_core.demo.discovery import demo_names, find_demo
from dmq_core.demo.runner import DemoRun
from dmq_core.management.client import ManagementClient
from dmq_core.messaging.connection.topology_commands import delete_exchange, delete_queue

pytestmark = [pytest.mark.real, pytest.mark.thorough, pytest.mark.timeout(600)]


@pytest.fixture
def management(real_cluster: Cluster) -> Iterator[ManagementClient]:
    client = ClusterView.of(real_cluster).management()
    yield client
    client.close()


def entities(client: ManagementClient) -> set[str]:
    return {thing.name for thing in (*client.queues(), *client.exchanges())}


@pytest.mark.parametrize("name", demo_names())
def test_every_claim_holds_and_nothing_is_left(real_cluster: Cluster, management: ManagementClient, name: str) -> None:
    with DemoRun(name, find_demo(name), DemoEnvironment(real_cluster)) as demo_run:
        for index in range(len(demo_run.demo.steps)):
            result = demo_run.do(index)
            assert result.passed, f"{result.title}: {result.seen}"
    assert demo_run.close().passed
    assert all(node.state is NodeState.RUNNING for node in real_cluster.nodes())
    await_until(lambda: not [n for n in entities(management) if n.startswith(PREFIX)], 20, "nothing is left")


@pytest.fixture
def unchanged(real_cluster: Cluster, management: ManagementClient) -> Iterator[None]:
    """What is made meanwhile is removed."""
    before = entities(management)
    yield
    made = [queue.name for queue in management.queues() if queue.name not in before]
    exchanges = [exchange.name for exchange in management.exchanges() if exchange.name not in before]
    with BrokerConnectionManager() as manager:
        manager.register_nodes(real_cluster.nodes(), real_cluster.credentials)
        connection = manager.publishing()
        for queue in made:
            delete_queue(connection, queue)
        for exchange in exchanges:
            delete_exchange(connection, exchange)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", demo_names())
def test_the_code_at_its_end_runs_as_it_stands(real_cluster: Cluster, name: str) -> None:
    """Its ports alone are those of a cluster of the tests."""
    code = find_demo(name).code
    for usual, node in zip((5672, 5673, 5674), real_cluster.nodes(), strict=True):
        code = re.sub(rf"\b{usual}\b", str(node.endpoint.amqp_port), code)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr
