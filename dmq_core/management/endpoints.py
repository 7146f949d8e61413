"""Where the management API of each node of a cluster is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dmq_core.cluster.protocol import NodeInfo
from dmq_core.endpoints import TlsSettings


@dataclass(frozen=True, slots=True)
class ManagementEndpoint:
    """One node's management API: the node's name (ours) and its base URL without credentials."""

    name: str
    url: str
    tls: TlsSettings | None = None


def management_endpoints(nodes: Iterable[NodeInfo]) -> tuple[ManagementEndpoint, ...]:
    """The endpoints of the nodes that offer one, in their order."""
    urls = ((node, node.endpoint.management_url) for node in nodes)
    return tuple(ManagementEndpoint(node.name, url, node.endpoint.tls) for node, url in urls if url is not None)
