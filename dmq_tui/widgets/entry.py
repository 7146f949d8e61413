"""Text fields that take no control characters from a paste, so that none can reach the terminal."""

from __future__ import annotations

from textual.events import Paste
from textual.widgets import Input, TextArea

from dmq_core.text import visible


def clean(text: str, *, lines: bool) -> str:
    """`text` without characters that have no visible form; with `lines`, line ends and tabs stay."""
    kept = "\n\t" if lines else ""
    return "".join(c for c in text.replace("\r\n", "\n").replace("\r", "\n") if c in kept or visible(c) == c)


class LineEntry(Input):
    """A one-line field."""

    def on_paste(self, event: Paste) -> None:
        """Cleans what is about to be pasted."""
        event.text = clean(event.text.partition("\n")[0], lines=False)


class TextEntry(TextArea):
    """A field of several lines; Tab leaves it."""

    def on_paste(self, event: Paste) -> None:
        """Cleans what is about to be pasted."""
        event.text = clean(event.text, lines=True)
