"""RabbitMQ versions as values that can be compared."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dmq_core.errors import InvalidInputError

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A RabbitMQ version, ordered."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def parse_version(text: str) -> Version:
    """The version in `text` (`4.3.6`, `4.0`, `4.3.6-1+b1`); `InvalidInputError` if there is none."""
    match = _VERSION.search(text)
    if match is None:
        raise InvalidInputError(f"{text!r} is no RabbitMQ version", "Give one like 4.3 or 4.0.")
    return Version(int(match[1]), int(match[2]), int(match[3] or 0))
