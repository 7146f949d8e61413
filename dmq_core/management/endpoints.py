"""Where the management API of each node of a cluster is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dmq_core.endpoints import NodeEndpoint, TlsSettings


@dataclass(frozen=True, slots=True)
class ManagementEndpoint:
    """One node's management API: the node's name (ours) and its base URL without credentials."""

    name: str
    url: str
    tls: TlsSettings | None = None


def management_endpoints(nodes: Iterable[tuple[str, NodeEndpoint]]) -> tuple[ManagementEndpoint, ...]:
    """The endpoints of the nodes that offer one, in their order; each node as its name and where it is."""
    urls = ((name, endpoint.management_url, endpoint.tls) for name, endpoint in nodes)
    return tuple(ManagementEndpoint(name, url, tls) for name, url, tls in urls if url is not None)
