"""Which process of a fork this is: threads, locks and sockets do not survive one."""

from __future__ import annotations

import os

from dmq_core.errors import MessagingFailed

generation = 0


def _forked() -> None:
    global generation
    generation += 1


os.register_at_fork(after_in_child=_forked)


def refuse_after_fork(made_in: int, what: str) -> None:
    """Raises `MessagingFailed` if `what` was made in generation `made_in` and this is a later one."""
    if made_in != generation:
        raise MessagingFailed(f"{what} was made in another process", "Make a manager after the fork.")
