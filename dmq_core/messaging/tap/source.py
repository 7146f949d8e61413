"""What a tap looks at, and how it does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TailSource:
    """What a tail looks at: an exchange with a binding pattern, or (exchange None) every delivery by the firehose.

    `queue` copies what is routed to that queue, by binding the tap like the queue is bound.

    >>> TailSource("shop", "order.#").queue is None
    True
    """

    exchange: str | None = None
    pattern: str = "#"
    queue: str | None = None
    virtual_host: str = "/"


@dataclass(frozen=True, slots=True)
class TailStatus:
    """How a tail looks (`method`), what it cannot see (`blind_spots`), what it dropped, and why it is silent.

    `seen` and `dropped` count messages.

    >>> manager.declare(Exchange("shop", "topic"))
    >>> tap = Tap(manager.consuming(), TailSource("shop", "order.#"), print)
    >>> tap.status().method, tap.status().seen, tap.status().dropped
    ('tap', 0, 0)
    >>> tap.close()
    """

    method: str
    blind_spots: tuple[str, ...]
    seen: int = 0
    dropped: int = 0
    problem: str = ""
