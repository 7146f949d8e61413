"""One node of the in-memory broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dmq_core.endpoints import NodeEndpoint

if TYPE_CHECKING:
    from dmq_core.testing.memory.server_connection import ServerConnection


@dataclass(slots=True, eq=False)
class MemoryNode:
    """A node: whether it is up, whether it is frozen, and who is connected to it."""

    name: str
    endpoint: NodeEndpoint
    up: bool = True
    frozen: bool = False
    clients: list[ServerConnection] = field(default_factory=list)

    @property
    def serves(self) -> bool:
        """Whether it answers clients and other nodes."""
        return self.up and not self.frozen
