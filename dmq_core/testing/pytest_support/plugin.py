"""The pytest plugin: `dmq_cluster`, a real RabbitMQ cluster whose nodes a test may kill.

    from dmq_core.messaging import DirectProducer, Queue

    def test_orders_outlive_the_node_that_leads_them(dmq_cluster):
        manager = dmq_cluster.manager()
        manager.declare(Queue("orders", "quorum"), timeout_s=30)
        producer = DirectProducer(connection_manager=manager)
        dmq_cluster.kill(dmq_cluster.leader_of("orders"))

        def is_confirmed():
            return producer.publish_and_wait(routing_key="orders", message="Hello World!").outcome == "confirmed"

        # A queue between two leaders may refuse a message: an application tries again.
        assert any(is_confirmed() for _ in range(10_000))

It comes with `pip install dmq-tui` and costs nothing until a test asks for the fixture.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dmq_core.cluster.protocol import Cluster
    from dmq_core.testing.pytest_support.cluster_under_test import ClusterUnderTest

_UNDER_TEST: pytest.StashKey[ClusterUnderTest] = pytest.StashKey()
_WHY_NOT: pytest.StashKey[str] = pytest.StashKey()
_OPTIONS = (
    ("backend", "auto", "who runs the nodes: auto (docker, else local, else the tests are skipped), docker or local"),
    ("nodes", "3", "how many nodes the cluster has"),
    ("rabbitmq", "", "the RabbitMQ version, such as 4.0 (default: what 'dmq start' takes)"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--dmq-backend`, `--dmq-nodes`, `--dmq-rabbitmq` and their equivalents for the ini file."""
    group = parser.getgroup("dmq", "the RabbitMQ cluster of the fixture dmq_cluster")
    for name, default, what in _OPTIONS:
        group.addoption(f"--dmq-{name}", metavar=name.upper(), help=what)
        parser.addini(f"dmq_{name}", what, default=default)


@pytest.fixture(scope="session")
def dmq_cluster(pytestconfig: pytest.Config) -> Iterator[ClusterUnderTest]:
    """A real RabbitMQ cluster with faults by method call, made for this run alone and removed at its end.

    Before each test that uses it every node runs and is unpaused; queues and messages stay from test to test. What
    `manager()` and `proxy()` gave is closed after each test. Where nothing can run a cluster the test is skipped,
    unless a backend was asked for by name.

    >>> def test_the_service_outlives_a_node(dmq_cluster):
    ...     with dmq_cluster.manager() as manager:
    ...         dmq_cluster.kill("rmq1")
    ...         assert len(manager.brokers) == 3
    >>> test_the_service_outlives_a_node(dmq_cluster)
    """
    from dmq_core.testing.pytest_support.cluster_under_test import ClusterUnderTest

    cluster = _cluster(pytestconfig)
    under_test = ClusterUnderTest(cluster)
    pytestconfig.stash[_UNDER_TEST] = under_test
    try:
        cluster.start()
        yield under_test
    finally:
        del pytestconfig.stash[_UNDER_TEST]
        under_test.close_clients()
        _destroy(cluster)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Heals the cluster before a test that uses it, ahead of every fixture of that test."""
    under_test = item.config.stash.get(_UNDER_TEST, None)
    if under_test is not None and "dmq_cluster" in getattr(item, "fixturenames", ()):
        under_test.heal()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Closes what a test was given, once its own fixtures are done with it."""
    try:
        yield
    finally:
        under_test = item.config.stash.get(_UNDER_TEST, None)
        if under_test is not None:
            under_test.close_clients()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says why there was no cluster, which pytest itself tells only to those who ask with `-rs`."""
    reason = config.stash.get(_WHY_NOT, None)
    if reason is not None:
        terminalreporter.write_line(f"dmq_cluster: tests were skipped: {reason}", yellow=True)


def _cluster(config: pytest.Config) -> Cluster:
    from dmq_core.cluster.discovery import AUTO, open_cluster
    from dmq_core.errors import BackendUnavailableError

    backend, nodes, rabbitmq = (_option(config, name) for name, _, _ in _OPTIONS)
    if not nodes.isdecimal():
        raise pytest.UsageError(f"--dmq-nodes is {nodes!r}, which is no whole number")
    name = f"pytest-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        return open_cluster(name, backend, nodes=int(nodes), rabbitmq=rabbitmq or None)
    except BackendUnavailableError as error:
        if backend != AUTO:
            raise
        config.stash[_WHY_NOT] = error.what
        pytest.skip(f"{error.what} ({error.hint})")


def _option(config: pytest.Config, name: str) -> str:
    given = config.getoption(f"dmq_{name}")
    return str(config.getini(f"dmq_{name}") if given is None else given)


def _destroy(cluster: Cluster) -> None:
    try:
        cluster.destroy()
    except KeyboardInterrupt:
        # An impatient second Ctrl-C must not leave nodes behind.
        cluster.destroy()
        raise
