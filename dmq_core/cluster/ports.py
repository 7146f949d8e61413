"""Ports for the nodes of a cluster: the usual ones where they are free, others that nobody has."""

from __future__ import annotations

import random
import socket

from dmq_core.cluster.node_config import NODE_NAME_PREFIX
from dmq_core.errors import ClusterError
from dmq_core.settings.settings import DEFAULT_CLUSTER

DEFAULT_AMQP_PORT = 5672
DEFAULT_MANAGEMENT_PORT = 15672
_FREE_PORTS = range(21000, 31000)


def default_port(first: int, cluster: str, node: str) -> int | None:
    """The port that a node of the usual cluster should have, where `first` is that of rmq1; None: any will do."""
    return first + int(node.removeprefix(NODE_NAME_PREFIX)) - 1 if cluster == DEFAULT_CLUSTER else None


class PortChooser:
    """Hands out ports of 127.0.0.1 that nobody listens on and that are not `taken`, each once."""

    def __init__(self, taken: frozenset[int] = frozenset()) -> None:
        self._taken = set(taken)

    def take(self, wanted: int | None = None) -> int:
        """`wanted` if it can be had, else another; `ClusterError` if this machine has none left."""
        first = random.choice(_FREE_PORTS)
        others = (p for part in (range(first, _FREE_PORTS.stop), range(_FREE_PORTS.start, first)) for p in part)
        candidates = others if wanted is None else (port for part in ((wanted,), others) for port in part)
        for port in candidates:
            if port not in self._taken and port_is_free(port):
                self._taken.add(port)
                return port
        raise ClusterError("no free port is left on 127.0.0.1", "Stop what listens on so many of them.")


def port_is_free(port: int) -> bool:
    """Whether a program could listen on `port` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
