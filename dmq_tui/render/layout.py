"""How the main screen is laid out for a size of terminal, as a pure function."""

from __future__ import annotations

from enum import StrEnum

SMALLEST = (60, 16)
WIDE = (110, 30)


class Layout(StrEnum):
    """All panes side by side, one at a time, or nothing but the word that there is no room."""

    WIDE = "wide"
    SINGLE = "single"
    SMALL = "small"


def layout_for(width: int, height: int, *, maximised: bool) -> Layout:
    """The layout for a terminal of that many cells."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return Layout.SMALL
    if maximised or width < WIDE[0] or height < WIDE[1]:
        return Layout.SINGLE
    return Layout.WIDE
