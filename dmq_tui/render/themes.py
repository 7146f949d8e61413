"""Two themes of our own: dark for the night shift, light for bright rooms; text contrast at least 4.5 to 1 in both."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="dmq-dark",
    primary="#5cb0f0",
    secondary="#9aa7b5",
    accent="#7fd1c7",
    foreground="#d9e0e8",
    background="#0e1318",
    surface="#141a21",
    panel="#1e2731",
    success="#6fcf8e",
    warning="#f2c14e",
    error="#ff6b74",
    dark=True,
    variables={
        "quiet": "#8896a5",
        "faint": "#526170",
        "edge": "#3a4653",
        "cursor": "#27435c",
        "cursor-idle": "#202a35",
    },
)
LIGHT = Theme(
    name="dmq-light",
    primary="#0f62a8",
    secondary="#4c5863",
    accent="#0b6b66",
    foreground="#1b2229",
    background="#fbfbf8",
    surface="#f4f4f0",
    panel="#e7e8e3",
    success="#17713a",
    warning="#855300",
    error="#b01627",
    dark=False,
    variables={
        "quiet": "#5b6670",
        "faint": "#9aa39d",
        "edge": "#b9beb9",
        "cursor": "#cfe3f5",
        "cursor-idle": "#e6e9e6",
    },
)
THEMES = (DARK, LIGHT)


def other_theme(name: str) -> str:
    """The theme to switch to from the one called `name`."""
    return LIGHT.name if name == DARK.name else DARK.name


def theme_name(choice: str) -> str:
    """The theme for `dark` or `light` as users say it."""
    return LIGHT.name if choice == "light" else DARK.name
