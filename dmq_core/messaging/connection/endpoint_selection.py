"""Which endpoint to try next and how long to wait before: pure decisions, given the time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import InvalidInputError
from dmq_core.text import visible

PENALTY_S = 10.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


def label(endpoint: NodeEndpoint) -> str:
    """`host:port`."""
    return f"{endpoint.host}:{endpoint.amqp_port}"


def describe(endpoint: NodeEndpoint) -> str:
    """`host:port`, and the virtual host if it is not `/`."""
    where = label(endpoint)
    return where if endpoint.virtual_host == "/" else f"{where} ({visible(endpoint.virtual_host)})"


class EndpointSelector:
    """Chooses endpoints: preferred ones first, one that just failed only if there is no other.

    Pauses grow with each round in which every endpoint failed, full jitter below 0.1 s doubled up to 2 s. `penalties`
    (until which monotonic second each endpoint is avoided) may be shared, so that what one learns serves all.
    """

    def __init__(
        self,
        endpoints: Sequence[NodeEndpoint],
        prefer: Callable[[], Sequence[NodeEndpoint]] | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        penalties: dict[NodeEndpoint, float] | None = None,
    ) -> None:
        self._endpoints = tuple(e for e in endpoints if e.amqp_port is not None)
        if not self._endpoints:
            raise InvalidInputError(
                "there is no AMQP endpoint to connect to", "Give at least one host with an AMQP port."
            )
        self._prefer = prefer
        self._uniform = uniform
        self._penalties = {} if penalties is None else penalties
        self._failures = 0

    def add(self, endpoint: NodeEndpoint) -> None:
        """Adds an endpoint."""
        if endpoint not in self._endpoints:
            self._endpoints = (*self._endpoints, endpoint)

    def next(self, now: float) -> NodeEndpoint:
        """The endpoint to try at `now` (monotonic seconds)."""
        preferred = tuple(self._prefer()) if self._prefer else ()
        order = [e for e in preferred if e in self._endpoints]
        order += [e for e in self._endpoints if e not in order]
        return min(order, key=lambda e: max(0.0, self._penalties.get(e, 0.0) - now))

    def has_better(self, endpoint: NodeEndpoint, now: float) -> bool:
        """Whether there is another endpoint that did not just fail."""
        return any(e != endpoint and self._penalties.get(e, 0.0) <= now for e in self._endpoints)

    def failed(self, endpoint: NodeEndpoint, now: float) -> float:
        """Notes that `endpoint` failed; the seconds to wait before the next attempt."""
        self.penalize(endpoint, now)
        self._failures += 1
        rounds = (self._failures - 1) // len(self._endpoints)
        if rounds == 0 and self._failures < len(self._endpoints):
            return 0.0
        return self._uniform(0.0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(rounds, 10)))

    def penalize(self, endpoint: NodeEndpoint, now: float) -> None:
        """Avoids `endpoint` for ten seconds where there is another."""
        self._penalties[endpoint] = now + PENALTY_S

    def succeeded(self, endpoint: NodeEndpoint) -> None:
        """Notes that `endpoint` let us in."""
        self._penalties.pop(endpoint, None)
        self._failures = 0
