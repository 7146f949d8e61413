"""How the broker says no."""

from __future__ import annotations

from typing import NoReturn

_NAMES = {
    311: "CONTENT_TOO_LARGE",
    320: "CONNECTION_FORCED",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    503: "COMMAND_INVALID",
    540: "NOT_IMPLEMENTED",
}
_ENDS_CONNECTIONS = frozenset({320, 503, 540})


class Refusal(Exception):
    """The broker closes a channel, or for some codes the connection, with `code` and `text`."""

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        self.text = f"{_NAMES[code]} - {words}"
        super().__init__(self.text)

    @property
    def ends_connection(self) -> bool:
        """Whether the whole connection is closed."""
        return self.code in _ENDS_CONNECTIONS


def refuse(code: int, words: str) -> NoReturn:
    """Raises the refusal."""
    raise Refusal(code, words)
