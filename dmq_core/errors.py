"""Everything that dmq raises on purpose.

    DmqError                    exit status 1
    ├── BadInput                2   what was asked makes no sense; nothing was tried
    ├── NotReachable            3
    │   ├── NoSuchCluster           no cluster of that name exists here
    │   └── AccessDenied            the broker knows us not, or forbids
    ├── Refused                 6   read-only, or not confirmed
    ├── BackendUnavailable      1   Docker or rabbitmq-server is missing or not permitted
    ├── ClusterFailed           1   a cluster or node could not be made, started or stopped
    │   └── NodeBootFailed          the node's own log says why
    ├── MessagingFailed         1   a connection, channel, publish or consume failed
    └── TimedOut                1   a bound ran out

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


class BadInput(DmqError):
    """What was asked makes no sense; nothing was tried."""

    exit_status = 2


class NotReachable(DmqError):
    """The cluster does not answer."""

    exit_status = 3


class NoSuchCluster(NotReachable):
    """No cluster of that name exists here."""


class AccessDenied(NotReachable):
    """The broker refuses these credentials, or they may not do this."""


class Refused(DmqError):
    """Read-only mode forbids it, or a destructive act was not confirmed."""

    exit_status = 6


class BackendUnavailable(DmqError):
    """Docker or rabbitmq-server is missing, silent, or not permitted to this user."""


class ClusterFailed(DmqError):
    """A cluster or one of its nodes could not be made, started, stopped or removed."""


class NodeBootFailed(ClusterFailed):
    """A node stopped while it booted; `what` holds the reason that its log gives."""


class MessagingFailed(DmqError):
    """A connection, channel, declaration, publish or consume failed."""


class TimedOut(DmqError):
    """A bound ran out before the thing waited for happened."""
