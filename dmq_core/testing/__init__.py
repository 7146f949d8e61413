"""For tests: fakes of `Cluster` and `Session` that behave like the real ones, an in-memory RabbitMQ, a TCP proxy
that breaks links, and a real cluster whose nodes a test may kill (the pytest fixture `dmq_cluster`).

Each name is loaded when it is first used, so that the pytest plugin costs nothing at start-up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmq_core.testing.broker import SimBroker
    from dmq_core.testing.cluster import FakeCluster
    from dmq_core.testing.memory.broker import MemoryBroker
    from dmq_core.testing.proxy import ChaosProxy, ProxyCounts
    from dmq_core.testing.proxy_rules import Step, Way, Which
    from dmq_core.testing.samples import HOSTILE_NAMES, hostile, nothing, shop, thousand_queues
    from dmq_core.testing.script import Script
    from dmq_core.testing.session import FakeSession
    from dmq_core.testing.under_test import ClusterUnderTest

__all__ = [
    "HOSTILE_NAMES",
    "ChaosProxy",
    "ClusterUnderTest",
    "FakeCluster",
    "FakeSession",
    "MemoryBroker",
    "ProxyCounts",
    "Script",
    "SimBroker",
    "Step",
    "Way",
    "Which",
    "hostile",
    "nothing",
    "shop",
    "thousand_queues",
]

_HOMES = {
    "broker": ("SimBroker",),
    "cluster": ("FakeCluster",),
    "memory.broker": ("MemoryBroker",),
    "proxy": (
        "ChaosProxy",
        "ProxyCounts",
    ),
    "proxy_rules": (
        "Step",
        "Way",
        "Which",
    ),
    "samples": (
        "HOSTILE_NAMES",
        "hostile",
        "nothing",
        "shop",
        "thousand_queues",
    ),
    "script": ("Script",),
    "session": ("FakeSession",),
    "under_test": ("ClusterUnderTest",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
