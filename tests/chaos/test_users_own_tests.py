"""What users of the pytest plugin get: a real cluster, faults by method call, and nothing left behind."""

from __future__ import annotations

import inspect
import re
import textwrap

import pytest

from dmq_core.cluster.discovery import docker_unavailable
from dmq_core.cluster.docker.cluster import docker_cluster_names
from dmq_core.cluster.local.state import local_cluster_names
from dmq_core.cluster.protocol import Backend
from dmq_core.testing.pytest_support import plugin as pytest_plugin

pytest_plugins = ["pytester"]
BACKEND = Backend.DOCKER if docker_unavailable() is None else Backend.LOCAL
pytestmark = [pytest.mark.real, getattr(pytest.mark, str(BACKEND)), pytest.mark.thorough]

# An application with a life of its own, and the tests that its authors wrote for it.
SHOP = '''
import threading

import pytest

from dmq_core.cluster.protocol import NodeState
from dmq_core.errors import InvalidInputError, DmqError
from dmq_core.messaging.messages import Outcome, OutgoingMessage
from dmq_core.messaging.consuming.subscription import Subscription
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.topology.model import Queue

seen = {}


class Shop:
    """Takes orders and ships them, on one manager."""

    def __init__(self, manager):
        self.shipped = set()
        self.all_shipped = threading.Event()
        manager.declare(Queue("orders", "quorum"), timeout_s=30)
        self.producer = Publisher(manager.publishing())
        self.consumer = Subscription(manager.consuming(), "orders", self.ship)
        self.consumer.wait_consuming(30)

    def ship(self, deliveries):
        for delivery in deliveries:
            self.shipped.add(delivery.body)
            delivery.ack()
            if len(self.shipped) == 300:
                self.all_shipped.set()

    def order(self, number):
        body = b"%d" % number
        assert any(self.is_taken(body) for _ in range(10_000)), number

    def is_taken(self, body):
        return self.producer.publish_and_wait(OutgoingMessage("", "orders", body), 30).outcome == Outcome.CONFIRMED


def test_every_order_is_shipped_though_the_leader_is_killed_in_the_middle(dmq_cluster):
    seen["cluster"] = dmq_cluster.cluster.name
    shop = Shop(dmq_cluster.manager())
    for number in range(300):
        if number == 100:
            seen["killed"] = dmq_cluster.leader_of("orders")
            dmq_cluster.kill(seen["killed"])
        shop.order(number)
    assert shop.all_shipped.wait(60), len(shop.shipped)
    assert dmq_cluster.leader_of("orders") != seen["killed"]


def test_the_cluster_is_whole_again_and_the_same(dmq_cluster):
    assert dmq_cluster.cluster.name == seen["cluster"]
    assert {info.state for info in dmq_cluster.cluster.nodes()} == {NodeState.RUNNING}
    assert len(dmq_cluster.nodes) == len(dmq_cluster.urls) == len(dmq_cluster.endpoints) == 3
    assert dmq_cluster.amqp_url == dmq_cluster.urls[0]
    assert dmq_cluster.credentials.username == "guest"


def test_a_proxied_link_can_be_broken(dmq_cluster):
    from dmq_core.messaging.connection.connection import Connection

    proxy = seen["proxy"] = dmq_cluster.proxy("rmq2")
    connection = Connection([proxy.endpoint], {proxy.endpoint: dmq_cluster.credentials}, "shop")
    connection.wait_open(20)
    proxy.refuse()
    proxy.reset()
    outcome = Publisher(connection).publish_and_wait(OutgoingMessage("", "orders", b""), 2).outcome
    assert outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN)
    with pytest.raises(DmqError):
        connection.wait_open(1)
    connection.close()
    seen["manager"] = dmq_cluster.manager()
    seen["manager"].wait_open(20)


def test_what_was_given_is_closed_after_the_test(dmq_cluster):
    for closed in (seen["proxy"].heal, seen["manager"].wait_open):
        with pytest.raises(DmqError, match="closed"):
            closed()


def test_a_frozen_and_a_stopped_node_can_be_told_and_brought_back(dmq_cluster):
    dmq_cluster.pause("rmq1")
    assert dmq_cluster.amqp_url == dmq_cluster.urls[1]
    dmq_cluster.unpause("rmq1")
    dmq_cluster.stop("rmq3")
    dmq_cluster.start("rmq3")
    dmq_cluster.pause("rmq2")
    dmq_cluster.heal()
    assert {info.state for info in dmq_cluster.cluster.nodes()} == {NodeState.RUNNING}


def test_names_that_are_not_there_are_refused(dmq_cluster):
    for ask in (dmq_cluster.kill, dmq_cluster.proxy, dmq_cluster.leader_of):
        with pytest.raises(InvalidInputError):
            ask("nobody")
'''

INTERRUPTED = """
import os, signal

def test_somebody_presses_ctrl_c(dmq_cluster):
    assert dmq_cluster.nodes == ("rmq1",)
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("the signal came too late")
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--dmq-backend", BACKEND, *arguments, timeout=280)


def names() -> list[str]:
    here = docker_cluster_names() if BACKEND is Backend.DOCKER else local_cluster_names()
    return [name for name in here if name.startswith("pytest-")]


def test_a_users_application_survives_the_death_of_its_queues_leader(pytester: pytest.Pytester) -> None:
    example = re.search(r"\n\n(    .*)\n\nIt comes", inspect.getdoc(pytest_plugin) or "", re.DOTALL)
    assert example is not None
    before = names()
    pytester.makepyfile(test_shop=SHOP, test_the_docstrings_example=textwrap.dedent(example[1]))
    run(pytester).assert_outcomes(passed=7)
    assert names() == before, "the cluster is gone"


def test_an_interrupted_run_leaves_no_cluster(pytester: pytest.Pytester) -> None:
    before = names()
    pytester.makepyfile(INTERRUPTED)
    result = run(pytester, "--dmq-nodes", "1")
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert names() == before
