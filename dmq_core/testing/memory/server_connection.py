"""The broker's end of a connection: what waits to be read, what waits to be sent, and its channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction
from dmq_core.testing.memory.queue import MemoryConsumer, MemoryQueue
from dmq_core.testing.memory.refusal import Refusal
from dmq_core.testing.memory.server_channel import ServerChannel

if TYPE_CHECKING:
    from dmq_core.testing.memory.broker import MemoryBroker
    from dmq_core.testing.memory.node import MemoryNode
    from dmq_core.testing.memory.transport import MemoryChannel, MemoryLink
    from dmq_core.testing.memory.virtual_host import VirtualHost

ALARM = "low on memory"
HUNG_UP = CloseReason(RecoveryAction.RECOVER, "the peer closed the connection")


class ServerConnection:
    """A client's connection as its node sees it. Everything happens in the broker's turn."""

    def __init__(self, broker: MemoryBroker, node: MemoryNode, host: VirtualHost, link: MemoryLink, user: str) -> None:
        self.broker = broker
        self.node = node
        self.host = host
        self.user = user
        self.link = link
        self.exclusive: list[MemoryQueue] = []
        self.gone = False
        self._channels: list[ServerChannel] = []
        self._unread: deque[Callable[[], None]] = deque()
        self._unsent: deque[Callable[[], None]] = deque()
        self._blocked = False

    @property
    def reads(self) -> bool:
        """Whether what is sent to it is read."""
        return not (self.node.frozen or self._blocked)

    def receive(self, action: Callable[[], None]) -> None:
        """Does what the client sent, as soon as it is read."""
        if self.gone:
            return
        if self.reads:
            action()
        else:
            self._unread.append(action)

    def reply(self, callback: Callable[[], None]) -> None:
        """Has the client's loop call `callback`, unless the node is frozen: then once it is not."""
        if self.gone:
            return
        if self.node.frozen:
            self._unsent.append(callback)
        else:
            self.link.arrived(callback)

    def open_channel(self, channel: MemoryChannel) -> ServerChannel:
        """Opens a channel."""
        opened = ServerChannel(self, channel)
        self._channels.append(opened)
        return opened

    def subscriptions(self) -> list[MemoryConsumer]:
        """Every consumer of this connection."""
        return [subscription for opened in self._channels for subscription in opened.subscriptions]

    def holds_back(self, publish: Callable[[], None]) -> bool:
        """Whether an alarm has a message wait, and with it everything else from whoever publishes."""
        if not self.broker.alarmed:
            return False
        self._blocked = True
        self._unread.append(publish)
        self.reply(lambda: self.link.listener.blocked(ALARM))
        return True

    def unblock(self) -> None:
        """The alarm is over."""
        if self._blocked:
            self._blocked = False
            self.reply(lambda: self.link.listener.blocked(None))
            self.catch_up()

    def catch_up(self) -> None:
        """Reads what waited to be read and sends what waited to be sent."""
        while self._unsent and not self.node.frozen:
            self.link.arrived(self._unsent.popleft())
        while self._unread and self.reads and not self.gone:
            self._unread.popleft()()

    def detach(self) -> None:
        """The other nodes have lost sight of this one."""
        for opened in tuple(self._channels):
            opened.detach()

    def close(self, refusal: Refusal) -> None:
        """Closes the connection on the client."""
        denied = refusal.code == 403
        reason = CloseReason(
            RecoveryAction.GIVE_UP if denied else RecoveryAction.RECOVER, refusal.text, refusal.code, denied
        )
        self.reply(lambda: self.link.ended(reason))
        self.hung_up()

    def hung_up(self) -> None:
        """The client is gone."""
        self._end(ServerChannel.close)

    def killed(self) -> None:
        """The node died under it."""
        if not self.gone:
            self.link.arrived(lambda: self.link.ended(HUNG_UP))
        self._end(ServerChannel.suspend)

    def _end(self, end: Callable[[ServerChannel], None]) -> None:
        if self.gone:
            return
        self.gone = True
        self.node.clients.remove(self)
        self._unread.clear()
        for opened in tuple(self._channels):
            end(opened)
        for queue in tuple(self.exclusive):
            self.host.drop(queue)
