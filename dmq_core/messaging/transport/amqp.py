"""The transport that programs use unless they are given another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from dmq_core.messaging.transport.protocol import Link, LinkListener, Loop, LoopOwner, Network

if TYPE_CHECKING:
    from dmq_core.endpoints import Credentials, NodeEndpoint


class _Amqp:
    """AMQP 0-9-1 over TCP and TLS; pika is loaded with the first loop."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def loop(self, owner: LoopOwner) -> Loop:
        from dmq_core.messaging.transport.pika_transport import PikaLoop

        return PikaLoop(owner.crashed)

    def link(
        self, loop: Loop, endpoint: NodeEndpoint, credentials: Credentials, name: str, listener: LinkListener
    ) -> Link:
        from dmq_core.messaging.transport.pika_transport import PikaLink, PikaLoop

        if not isinstance(loop, PikaLoop):
            raise TypeError("the loop is another network's")
        return PikaLink(loop, endpoint, credentials, name, listener)


AMQP: Final[Network] = _Amqp()
