"""The connections to the brokers of one cluster: who has which, and where each should be; not thread-safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from dmq_core.errors import MessagingError
from dmq_core.messaging.connection.load_balancing import Load, Policy, order, rebalance_target
from dmq_core.messaging.connection.states import FINAL_STATES
from dmq_core.messaging.connection.topology_registry import TopologyRegistry

if TYPE_CHECKING:
    from dmq_core.endpoints import NodeEndpoint
    from dmq_core.messaging.connection.broker import Broker
    from dmq_core.messaging.connection.connection import Connection


class Role(StrEnum):
    """What a connection is for; a broker that blocks publishers must not keep consumers from working.

    >>> with DirectProducer(manager):
    ...     print([info.role is Role.PUBLISHING for info in manager.connections])
    [True]
    """

    PUBLISHING = "publishing"
    CONSUMING = "consuming"


@dataclass(slots=True, eq=False)
class Lease:
    """A connection of a pool with how many use it, and the broker that it is at or heads for."""

    role: Role
    cluster: str
    name: str
    connection: Connection | None = None
    place: NodeEndpoint | None = None
    users: int = 0

    @property
    def opened(self) -> Connection:
        """The connection, once it is made."""
        if self.connection is None:
            raise MessagingError(f"the connection {self.name!r} was never made")
        return self.connection

    @property
    def is_usable(self) -> bool:
        """Whether it may still come to a broker."""
        return self.connection is not None and self.connection.status.state not in FINAL_STATES


@dataclass(slots=True)
class Pool:
    """The brokers of one cluster, what all connections to them share, and the leases of these connections."""

    brokers: list[Broker] = field(default_factory=list)
    registry: TopologyRegistry = field(default_factory=TopologyRegistry)
    penalties: dict[NodeEndpoint, float] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)

    @property
    def endpoints(self) -> list[NodeEndpoint]:
        """Where the brokers are, in the order of registration."""
        return [broker.endpoint for broker in self.brokers]

    def usable(self, role: Role | None = None) -> list[Lease]:
        """The leases that may still come to a broker, of one role or (None) of both."""
        return [lease for lease in self.leases if lease.is_usable and role in (None, lease.role)]

    def places(self, lease: Lease, policy: Policy, turn: int, now: float) -> Sequence[NodeEndpoint]:
        """Where `lease` should try to go, best first; the best is taken as its place at once, so that others see it."""
        lease.place = None
        wanted = order(policy, self.endpoints, self._loads(lease.role), turn)
        wanted.sort(key=lambda endpoint: self.penalties.get(endpoint, 0.0) > now)
        lease.place = wanted[0]
        return wanted

    def rebalance_target(self, lease: Lease, here: NodeEndpoint, now: float) -> NodeEndpoint | None:
        """Where `lease` should move to, so that no broker has two connections of a role more than another."""
        offered = [e for e in self.endpoints if e == here or self.penalties.get(e, 0.0) <= now]
        target = rebalance_target(here, offered, self._loads(lease.role))
        if target is not None:
            lease.place = target
        return target

    def _loads(self, role: Role) -> dict[NodeEndpoint, Load]:
        places = [(lease.place, lease.role) for lease in self.leases if lease.place is not None]
        return {
            endpoint: Load(
                of_role=sum(place == endpoint and of is role for place, of in places),
                in_all=sum(place == endpoint for place, _ in places),
            )
            for endpoint in self.endpoints
        }
