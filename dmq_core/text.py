"""Text from outside made safe to show and to put into a URL path."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str) -> str:
    """`text` with each control, format, surrogate, private-use and line-separating character as a visible escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _HIDDEN_CATEGORIES else c for c in text)


def visible_body(body: bytes) -> str:
    """A message body as one safe line: UTF-8 made visible, or `\\xNN` escapes where it is not UTF-8."""
    try:
        return visible(body.decode())
    except UnicodeDecodeError:
        return visible(body.decode("latin-1").encode("unicode_escape").decode("ascii"))


def path_segment(name: str) -> str:
    """`name` percent-encoded as one segment of a URL path (`/` becomes `%2F`)."""
    return quote(name, safe="")


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
