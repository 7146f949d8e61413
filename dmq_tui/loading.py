"""The one load of the console: switched on and off in the background."""

from __future__ import annotations

from textual.message import Message

from dmq_core.observe.events import Event
from dmq_core.proof.account import LoadAccount
from dmq_core.session import Load, Session
from dmq_tui.messages import EventsArrived, LoadEnded, LoadStarted
from dmq_tui.work import Post, in_background

RATE = 500.0
LOAD = "Load"
END_LOAD = "End load"


class Loading:
    """At most one load at a time. For the UI thread only."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._load: Load | None = None
        self._last: LoadAccount | None = None
        self.doing = ""

    @property
    def active(self) -> bool:
        """Whether a load runs or is about to."""
        return self._load is not None or bool(self.doing)

    def toggle(self, session: Session) -> None:
        """Switches the load on or off; while one of the two is under way, nothing."""
        if self.doing:
            return
        if self._load is None:
            self._start(session)
        else:
            self._stop(self._load)

    def started(self, load: Load) -> None:
        """The load runs."""
        self._load, self.doing = load, ""

    def ended(self, account: LoadAccount) -> None:
        """The load is over."""
        self._load, self._last, self.doing = None, account, ""

    def failed(self) -> None:
        """Switching did not work; a load that ran is left as it is."""
        self.doing = ""

    def account(self) -> LoadAccount | None:
        """The account so far, or the last one's; None before the first load."""
        return self._load.account() if self._load is not None else self._last

    def _start(self, session: Session) -> None:
        self.doing = "starting"

        def heard(event: Event) -> None:
            self._post(EventsArrived((event,)))

        def work() -> Message:
            return LoadStarted(session.load(RATE, heard))

        in_background(self._post, LOAD, work)

    def _stop(self, load: Load) -> None:
        self.doing = "draining"

        def work() -> Message:
            return LoadEnded(load.stop())

        in_background(self._post, END_LOAD, work)
