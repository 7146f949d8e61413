"""For tests: fakes of `Cluster` and `Session` that behave like the real ones, an in-memory RabbitMQ, a TCP proxy
that breaks links, and a real cluster whose nodes a test may kill (the pytest fixture `dmq_cluster`).

Each name is loaded when it is first used, so that the pytest plugin costs nothing at start-up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmq_core.chaos.proxy import ChaosProxy, ProxyCounts
    from dmq_core.chaos.rules import Direction, ProtocolStep, Which
    from dmq_core.testing.memory.broker import MemoryBroker
    from dmq_core.testing.pytest_support.cluster_under_test import ClusterUnderTest
    from dmq_core.testing.simulation.broker import SimBroker
    from dmq_core.testing.simulation.cluster import FakeCluster
    from dmq_core.testing.simulation.samples import HOSTILE_NAMES, hostile, nothing, shop, thousand_queues
    from dmq_core.testing.simulation.scripted_failures import ScriptedFailures
    from dmq_core.testing.simulation.session import FakeSession

__all__ = [
    "HOSTILE_NAMES",
    "ChaosProxy",
    "ClusterUnderTest",
    "Direction",
    "FakeCluster",
    "FakeSession",
    "MemoryBroker",
    "ProtocolStep",
    "ProxyCounts",
    "ScriptedFailures",
    "SimBroker",
    "Which",
    "hostile",
    "nothing",
    "shop",
    "thousand_queues",
]

_HOMES = {
    "dmq_core.chaos.proxy": (
        "ChaosProxy",
        "ProxyCounts",
    ),
    "dmq_core.chaos.rules": (
        "Direction",
        "ProtocolStep",
        "Which",
    ),
    "dmq_core.testing.memory.broker": ("MemoryBroker",),
    "dmq_core.testing.pytest_support.cluster_under_test": ("ClusterUnderTest",),
    "dmq_core.testing.simulation.broker": ("SimBroker",),
    "dmq_core.testing.simulation.cluster": ("FakeCluster",),
    "dmq_core.testing.simulation.samples": (
        "HOSTILE_NAMES",
        "hostile",
        "nothing",
        "shop",
        "thousand_queues",
    ),
    "dmq_core.testing.simulation.scripted_failures": ("ScriptedFailures",),
    "dmq_core.testing.simulation.session": ("FakeSession",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
