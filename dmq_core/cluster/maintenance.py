"""Whether a node is in maintenance, read from its own log: its closed ports alone do not tell why they are closed."""

from __future__ import annotations

import re
from datetime import datetime

LOG_LINES = 2000
_MARK = re.compile(
    r"^(?P<at>\S+ \S+) \[\w+\] <[\d.]+> +(?:"
    r"(?P<begun>This node is being put into maintenance|Marked this node as undergoing maintenance)"
    r"|(?:Marked this node as back from maintenance|Starting RabbitMQ ))",
    re.MULTILINE,
)


def in_maintenance(log: str, since: float = 0.0) -> bool:
    """Whether the last word of a node's log on the matter is that it was drained, and not revived or booted since.

    What it said before the epoch second `since` was said by a broker that is gone.
    """
    begun = [mark["begun"] is not None for mark in _MARK.finditer(log) if _epoch(mark["at"]) >= since]
    return bool(begun) and begun[-1]


def _epoch(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0
