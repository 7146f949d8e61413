"""Which broker a connection should go to: pure decisions, given who is where."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dmq_core.endpoints import NodeEndpoint


class Policy(StrEnum):
    """How connections are spread over the brokers of a cluster.

    ORDERED the first that answers, in the order of registration; ROUND_ROBIN each connection begins one broker further;
    RANDOM by chance; LEAST_CONNECTIONS where this manager has the fewest.

    >>> from dmq_core.connection_manager import BrokerConnectionManager
    >>> cm = BrokerConnectionManager(policy=Policy.LEAST_CONNECTIONS)
    >>> Policy.LEAST_CONNECTIONS.spreads, Policy.ORDERED.spreads
    (True, False)
    """

    ORDERED = "ordered"
    ROUND_ROBIN = "round robin"
    RANDOM = "random"
    LEAST_CONNECTIONS = "least connections"

    @property
    def spreads(self) -> bool:
        """Whether several connections are kept, so that every broker can have one."""
        return self is not Policy.ORDERED

    @property
    def evens_out(self) -> bool:
        """Whether connections move when one broker has two more than another."""
        return self in (Policy.ROUND_ROBIN, Policy.LEAST_CONNECTIONS)


@dataclass(frozen=True, slots=True)
class Load:
    """How many connections of this manager are at a broker: of the role in question, and in all."""

    of_role: int = 0
    in_all: int = 0


def order(
    policy: Policy,
    endpoints: Sequence[NodeEndpoint],
    loads: Mapping[NodeEndpoint, Load],
    turn: int,
    shuffled: Callable[[Sequence[NodeEndpoint]], list[NodeEndpoint]] = lambda items: random.sample(items, len(items)),
) -> list[NodeEndpoint]:
    """`endpoints` in the order to try them; `turn` counts the attempts of a manager."""
    match policy:
        case Policy.ORDERED:
            return list(endpoints)
        case Policy.RANDOM:
            return shuffled(endpoints)
        case Policy.ROUND_ROBIN:
            first = turn % len(endpoints)
            return [*endpoints[first:], *endpoints[:first]]
        case Policy.LEAST_CONNECTIONS:
            return sorted(endpoints, key=lambda e: _weight(loads.get(e, Load())))


def rebalance_target(
    here: NodeEndpoint, endpoints: Sequence[NodeEndpoint], loads: Mapping[NodeEndpoint, Load]
) -> NodeEndpoint | None:
    """Where a connection at `here` should move so that brokers differ by one at most; None if it should stay."""
    if here not in endpoints:
        return None
    best = min(endpoints, key=lambda e: _weight(loads.get(e, Load())))
    gain = loads.get(here, Load()).of_role - loads.get(best, Load()).of_role
    return best if gain > 1 else None


def _weight(load: Load) -> tuple[int, int]:
    return load.of_role, load.in_all
