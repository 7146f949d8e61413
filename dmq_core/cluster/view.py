"""The nodes of a cluster at one moment: whom to ask, and what each of them is called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dmq_core.cluster.protocol import Cluster, NodeInfo, NodeState
from dmq_core.endpoints import Credentials
from dmq_core.management.client import TIMEOUT_S, ManagementClient
from dmq_core.management.endpoints import ManagementEndpoint, management_endpoints

# A stopped or paused node does not answer, nor does one in maintenance. One that is cut off does, but tells of a
# cluster of which it is the last node.
UNFIT = frozenset({NodeState.STOPPED, NodeState.PAUSED, NodeState.ISOLATED, NodeState.DRAINING})


class NodeNames:
    """Both names of each node: ours, which is short (`rmq1`), and Erlang's (`rabbit@rmq1`)."""

    def __init__(self, nodes: Iterable[NodeInfo]) -> None:
        self._long = {node.name: node.erlang_name for node in nodes}
        self._short = {erlang_name: name for name, erlang_name in self._long.items()}

    def short(self, erlang_name: str) -> str:
        """Our name of a node; a node that is not ours to name keeps Erlang's."""
        return self._short.get(erlang_name, erlang_name)

    def all_short(self, erlang_names: Iterable[str]) -> tuple[str, ...]:
        """Our names of some nodes, in order."""
        return tuple(sorted(map(self.short, erlang_names)))

    def long(self, name: str) -> str:
        """Erlang's name of a node that we call `name`."""
        return self._long.get(name, name)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The nodes of a cluster as its backend just listed them, and the user to ask them as."""

    nodes: tuple[NodeInfo, ...]
    credentials: Credentials

    @classmethod
    def of(cls, cluster: Cluster) -> ClusterView:
        """The view of `cluster` now."""
        return cls(cluster.nodes(), cluster.credentials)

    @property
    def running(self) -> tuple[NodeInfo, ...]:
        """The nodes that run."""
        return tuple(node for node in self.nodes if node.state is NodeState.RUNNING)

    @property
    def fit(self) -> tuple[NodeInfo, ...]:
        """The nodes that may know how the cluster is, those that run first."""
        fit = (node for node in self.nodes if node.state not in UNFIT)
        return tuple(sorted(fit, key=lambda node: node.state is not NodeState.RUNNING))

    @property
    def names(self) -> NodeNames:
        """What the nodes are called."""
        return NodeNames(self.nodes)

    def without(self, node: str) -> ClusterView:
        """The same without one node, which is not to be asked."""
        return ClusterView(tuple(other for other in self.nodes if other.name != node), self.credentials)

    def endpoints(self) -> tuple[ManagementEndpoint, ...]:
        """Where to ask: the nodes that are fit for it; all of them where none is, so that a node says why not."""
        return management_endpoints((node.name, node.endpoint) for node in self.fit or self.nodes)

    def management(self, timeout_s: float = TIMEOUT_S) -> ManagementClient:
        """A client of their management API, to be closed by whoever takes it."""
        return ManagementClient(self.endpoints(), self.credentials, timeout_s=timeout_s)
