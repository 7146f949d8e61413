"""The one rule of majority: of nodes, or of the members of a queue, more than half."""

from __future__ import annotations

from enum import StrEnum


class Margin(StrEnum):
    """How safe a majority is."""

    SAFE = "safe"
    NO_MARGIN = "no further margin"
    NO_MAJORITY = "no majority"


def spare(present: int, total: int) -> int:
    """How many of `present` may still be lost before fewer than a majority of `total` is left; negative: it is gone."""
    return present - (total // 2 + 1)


def is_majority(present: int, total: int) -> bool:
    """Whether `present` are more than half of `total`."""
    return spare(present, total) >= 0


def margin_left(present: int, total: int) -> Margin:
    """How safe the majority of `total` is while so many are `present`."""
    left = spare(present, total)
    return Margin.NO_MAJORITY if left < 0 else Margin.SAFE if left else Margin.NO_MARGIN
