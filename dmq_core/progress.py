"""One line of progress, and who listens to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of progress: what is under way, for which node (None: the cluster), how far (0..1, None: unknown)."""

    text: str
    node: str | None = None
    fraction: float | None = None


ProgressListener = Callable[[Progress], None]


def no_progress(_progress: Progress) -> None:
    """A progress listener that ignores what it hears."""
