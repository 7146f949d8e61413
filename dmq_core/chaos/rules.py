"""What a chaos proxy does to the frames of one direction, as values; pure.

Frames are known by their offsets: a type byte, a channel, a size, and for a method its class and number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

_METHOD, _BODY = 1, 3
_ACK_AND_NACK = frozenset({b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"})


class Direction(StrEnum):
    """A direction through the proxy.

    >>> from dmq_core.testing import ChaosProxy, Direction
    >>> with ChaosProxy("127.0.0.1", 5672) as proxy:
    ...     proxy.throttle(1_000, direction=Direction.TO_BROKER)    # bytes a second
    """

    TO_BROKER = "to the broker"
    TO_CLIENT = "to the client"


class Which(StrEnum):
    """The connections that a fault applies to.

    >>> from dmq_core.testing import ChaosProxy, Which
    >>> with ChaosProxy("127.0.0.1", 5672) as proxy:
    ...     proxy.drop_acks(which=Which.FUTURE)
    """

    EXISTING = "existing"
    FUTURE = "future"
    ALL = "all"


class ProtocolStep(StrEnum):
    """A step of the protocol, known by the frame that begins it: `start` and `tune` are the broker's, the next four
    the client's; `declare` is that of an exchange, a queue or a binding; `mid-body` is inside a message's body,
    whoever sends it; `connect` comes before any frame.

    >>> from dmq_core.testing import ChaosProxy, ProtocolStep
    >>> with ChaosProxy("127.0.0.1", 5672) as proxy:
    ...     proxy.cut_at(ProtocolStep.MID_BODY)
    """

    CONNECT = "connect"
    START = "start"
    TUNE = "tune"
    OPEN = "open"
    CHANNEL = "channel"
    DECLARE = "declare"
    CONSUME = "consume"
    MID_BODY = "mid-body"


_METHODS: Mapping[ProtocolStep, frozenset[bytes]] = MappingProxyType(
    {
        ProtocolStep.START: frozenset({b"\x00\x0a\x00\x0a"}),
        ProtocolStep.TUNE: frozenset({b"\x00\x0a\x00\x1e"}),
        ProtocolStep.OPEN: frozenset({b"\x00\x0a\x00\x28"}),
        ProtocolStep.CHANNEL: frozenset({b"\x00\x14\x00\x0a"}),
        ProtocolStep.DECLARE: frozenset(
            {b"\x00\x28\x00\x0a", b"\x00\x28\x00\x1e", b"\x00\x32\x00\x0a", b"\x00\x32\x00\x14"}
        ),
        ProtocolStep.CONSUME: frozenset({b"\x00\x3c\x00\x14"}),
    }
)


class ConnectionFault(StrEnum):
    """A fault of a whole connection: let it hang, send RST to both sides, or FIN."""

    STALL = "stall"
    RESET = "reset"
    DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True)
class FrameTrigger:
    """`fault`, triggered by the first frame at `step` (None: any frame) once `into` bytes of it (None.

    Half) have passed.
    """

    fault: ConnectionFault
    step: ProtocolStep | None
    into: int | None

    def is_triggered_by(self, frame: bytes) -> bool:
        """Whether this frame triggers it."""
        if self.step is None:
            return True
        if self.step is ProtocolStep.MID_BODY:
            return frame[0] == _BODY
        return frame[0] == _METHOD and frame[7:11] in _METHODS.get(self.step, frozenset())

    def bytes_passed(self, frame: bytes) -> int:
        """How many bytes of the frame are still forwarded; never all of them."""
        return len(frame) // 2 if self.into is None else min(self.into, len(frame) - 1)


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """The conditions for the bytes of one direction.

    While `stalled` nothing is read or written. Each byte comes `delay_s` and up to `jitter_s` more later, in order, and
    at most `bytes_per_s` (None: unlimited).
    """

    stalled: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    drops_acks: bool = False
    trigger: FrameTrigger | None = None


def is_answer(frame: bytes) -> bool:
    """Whether a frame is `basic.ack` or `basic.nack`."""
    return frame[0] == _METHOD and frame[7:11] in _ACK_AND_NACK
