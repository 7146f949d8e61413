"""Everything that dmq raises on purpose; each error is also the built-in that a Python programmer would catch.

    DmqError                            exit status 1
    ├── InvalidInputError               2   ValueError: what was asked makes no sense; nothing was tried
    ├── NotReachableError               3   ConnectionError
    │   ├── ClusterNotFoundError            no cluster of that name exists here
    │   └── AccessDeniedError               PermissionError: the broker does not know the user, or forbids
    ├── RefusedError                    6   PermissionError: read-only, or not confirmed
    ├── BackendUnavailableError         1   Docker or rabbitmq-server is missing or not permitted
    ├── ClusterError                    1   a cluster or node could not be made, started or stopped
    │   └── NodeBootError                   the node's own log says why
    ├── MessagingError                  1   a connection, channel, publish or consume failed
    └── OperationTimeoutError           1   TimeoutError: the time for it ran out

Every error carries one line of what happened and one of what to do; front ends print the two and nothing else.
"""

from __future__ import annotations

from typing import ClassVar


class DmqError(Exception):
    """An error with a sentence of what happened (`what`) and a sentence of what to do (`hint`, may be empty)."""

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class InvalidInputError(DmqError, ValueError):
    """What was asked makes no sense; nothing was tried."""

    exit_status = 2


class NotReachableError(DmqError, ConnectionError):
    """The cluster does not answer."""

    exit_status = 3


class ClusterNotFoundError(NotReachableError):
    """No cluster of that name exists here."""


class AccessDeniedError(NotReachableError, PermissionError):
    """The broker refuses these credentials, or they may not do this."""


class RefusedError(DmqError, PermissionError):
    """Read-only mode forbids it, or a destructive act was not confirmed."""

    exit_status = 6


class BackendUnavailableError(DmqError):
    """Docker or rabbitmq-server is missing, silent, or not permitted to this user."""


class ClusterError(DmqError):
    """A cluster or one of its nodes could not be made, started, stopped or removed."""


class NodeBootError(ClusterError):
    """A node stopped while it booted; `what` holds the reason that its log gives."""


class MessagingError(DmqError):
    """A connection, channel, declaration, publish or consume failed."""


class OperationTimeoutError(DmqError, TimeoutError):
    """A bound ran out before the thing waited for happened."""
