"""The one tail of the console: started and ended in the background, its messages left in a bounded mailbox."""

from __future__ import annotations

from collections.abc import Sequence

from textual.message import Message

from dmq_core.messaging.messages import SeenMessage
from dmq_core.messaging.tap.source import TailSource, TailStatus
from dmq_core.session.protocol import Session, Tail
from dmq_tui.background.messages import MessagesSeen, TailStarted
from dmq_tui.background.work import Mailbox, Post, in_background

TAIL = "Tail"
_WAITING = 2000


class TailRunner:
    """At most one tail at a time; an epoch tells late words of an older one. For the UI thread only."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._epoch = 0
        self._tail: Tail | None = None
        self._box: Mailbox[SeenMessage] = Mailbox(_WAITING)
        self._wanted = False

    @property
    def active(self) -> bool:
        """Whether a tail runs or is about to."""
        return self._wanted

    def start(self, session: Session, source: TailSource) -> None:
        """Ends the tail that runs and begins another."""
        self.end()
        self._wanted = True
        epoch, box = self._epoch, self._box

        def heard(batch: tuple[SeenMessage, ...]) -> None:
            if box.put(batch):
                self._post(MessagesSeen(epoch))

        def work() -> Message:
            return TailStarted(epoch, session.tail(source, heard))

        in_background(self._post, TAIL, work)

    def end(self) -> None:
        """Ends the tail that runs, if any; what it still says is ignored."""
        self._epoch += 1
        self._wanted = False
        self._box = Mailbox(_WAITING)
        tail, self._tail = self._tail, None
        if tail is not None:
            _close(self._post, tail)

    def started(self, message: TailStarted) -> None:
        """The background has begun the tail; if nobody wants it any more, it ends."""
        if message.epoch == self._epoch and self._wanted:
            self._tail = message.tail
        else:
            _close(self._post, message.tail)

    def failed(self) -> None:
        """The tail could not begin."""
        self._wanted = False

    def take(self, message: MessagesSeen) -> tuple[Sequence[SeenMessage], int]:
        """What waits in the mailbox, and how many messages passed too quickly to be kept."""
        return self._box.take() if message.epoch == self._epoch else ((), 0)

    def status(self) -> TailStatus | None:
        """How the tail is doing; None while there is none."""
        return self._tail.status() if self._tail is not None else None


def _close(post: Post, tail: Tail) -> None:
    def work() -> None:
        tail.close()

    in_background(post, "End tail", work)
