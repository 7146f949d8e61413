"""Which process of a fork this is: threads, locks and sockets do not survive one."""

from __future__ import annotations

import os
from typing import NoReturn

from dmq_core.errors import MessagingError

generation = 0


def _forked() -> None:
    global generation
    generation += 1


os.register_at_fork(after_in_child=_forked)


def refuse(what: str) -> NoReturn:
    """Raises `MessagingError`: `what` was made before the fork, when `generation` was another."""
    raise MessagingError(f"{what} was made in another process", "Make a manager after the fork.")
