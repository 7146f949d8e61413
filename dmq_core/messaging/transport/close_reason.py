"""Why a connection or channel closed, and what that asks for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dmq_core.errors import AccessDeniedError, DmqError, MessagingError, NotReachableError


class RecoveryAction(StrEnum):
    """What a close asks for: connect again, or give up because trying again cannot help."""

    RECOVER = "recover"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a connection or channel closed; `code` is AMQP's where the broker gave one."""

    action: RecoveryAction
    text: str
    code: int | None = None
    denied: bool = False

    def error(self, subject: str) -> DmqError:
        """The reason as the error to raise about `subject`."""
        if self.denied:
            return AccessDeniedError(f"{subject}: {self.text}", "Check user, password, virtual host and permissions.")
        if self.action is RecoveryAction.GIVE_UP:
            return MessagingError(f"{subject}: {self.text}")
        return NotReachableError(
            f"{subject}: {self.text}", "Check that a node runs there and that the port is its AMQP port."
        )
