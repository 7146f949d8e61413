"""Fakes of `Cluster` and `Session` that behave like the real ones, for tests of whatever is built on them."""

from dmq_core.testing.broker import SimBroker
from dmq_core.testing.cluster import FakeCluster
from dmq_core.testing.samples import HOSTILE_NAMES, hostile, nothing, shop, thousand_queues
from dmq_core.testing.script import Script
from dmq_core.testing.session import FakeSession

__all__ = [
    "HOSTILE_NAMES",
    "FakeCluster",
    "FakeSession",
    "Script",
    "SimBroker",
    "hostile",
    "nothing",
    "shop",
    "thousand_queues",
]
