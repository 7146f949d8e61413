"""A client's link to a node on which the broker's confirms can get lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dmq_core.chaos.proxy import LOOPBACK, ChaosProxy
from dmq_core.cluster.protocol import NodeState
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import InvalidInputError, NotReachableError

if TYPE_CHECKING:
    from dmq_core.cluster.protocol import Cluster, NodeInfo


class LossyLink(Protocol):
    """A link to one node of a cluster; every client of its `manager` takes it."""

    @property
    def manager(self) -> BrokerConnectionManager:
        """Knows no other way to the cluster."""
        ...

    @property
    def lost(self) -> int:
        """How many confirms got lost so far."""
        ...

    def lose_confirms(self) -> None:
        """Lets none through, from now on."""
        ...

    def break_off(self) -> None:
        """Breaks the connections that are there; on later ones nothing gets lost."""
        ...

    def close(self) -> None:
        """Ends the clients and the link."""
        ...


class ProxyLink:
    """A link through a proxy on this machine to the first node of `cluster` that runs; its clients are called `name`.

    `NotReachableError` if none runs, `InvalidInputError` if it takes encrypted connections alone, into which no proxy
    can look.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        node = _running(cluster)
        at = node.endpoint
        if at.tls is not None:
            raise InvalidInputError(f"the link to {node.name} is encrypted", "Play this step on a cluster without TLS.")
        self._proxy = ChaosProxy(at.host, at.amqp_port or 0)
        self.manager = BrokerConnectionManager(name=name)
        self.manager.register_broker(
            node.name,
            LOOPBACK,
            self._proxy.port,
            username=cluster.credentials.username,
            password=cluster.credentials.password,
            virtual_host=at.virtual_host,
        )

    @property
    def lost(self) -> int:
        """How many confirms got lost so far."""
        return self._proxy.counts.dropped

    def lose_confirms(self) -> None:
        """Lets none through, from now on."""
        self._proxy.drop_acks()

    def break_off(self) -> None:
        """Breaks the connections that are there; on later ones nothing gets lost."""
        self._proxy.heal()
        self._proxy.reset()

    def close(self) -> None:
        """Ends the clients and the proxy."""
        self.manager.close()
        self._proxy.close()


def _running(cluster: Cluster) -> NodeInfo:
    for node in cluster.nodes():
        if node.state is NodeState.RUNNING and node.endpoint.amqp_port is not None:
            return node
    raise NotReachableError(f"no node of {cluster.name} runs", "Start one with 'dmq start'.")
