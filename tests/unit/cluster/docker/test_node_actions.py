"""Acts on nodes in Docker, as far as they need no engine."""

from __future__ import annotations

import pytest

from dmq_core.cluster.docker.node_actions import freeze
from dmq_core.errors import ClusterError

BUSY = "could not pause the container x: OCI runtime pause failed: unable to freeze: unknown."


class Freezer:
    """Fails as often as it is told, with these words."""

    def __init__(self, failures: int, why: str = BUSY) -> None:
        self.calls = 0
        self._failures = failures
        self._why = why

    def pause(self, _container: str) -> None:
        self.calls += 1
        if self.calls <= self._failures:
            raise ClusterError(self._why)


def test_a_container_that_a_busy_kernel_does_not_freeze_is_frozen_again() -> None:
    freezer = Freezer(failures=2)
    freeze(freezer.pause, "x")
    assert freezer.calls == 3


def test_what_never_freezes_is_told() -> None:
    with pytest.raises(ClusterError, match="unable to freeze"):
        freeze(Freezer(failures=1000).pause, "x", within_s=0.3)


def test_any_other_failure_is_told_at_once() -> None:
    freezer = Freezer(failures=1, why="container x is not running")
    with pytest.raises(ClusterError, match="not running"):
        freeze(freezer.pause, "x")
    assert freezer.calls == 1
