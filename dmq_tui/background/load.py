"""The one load of the console: begun, followed to its verdict, and ended in the background."""

from __future__ import annotations

from textual.message import Message

from dmq_core.proof.progress import LoadAccount, ProofReport
from dmq_core.session.protocol import Proof, Session
from dmq_tui.background.messages import LoadEnded, LoadStarted
from dmq_tui.background.work import Post, in_background

RATE = 500.0
LOAD = "Load"


class LoadRunner:
    """At most one load at a time. For the UI thread only."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._load: Proof | None = None
        self._last: LoadAccount | None = None
        self.report: ProofReport | None = None
        self.doing = ""

    @property
    def active(self) -> bool:
        """Whether a load runs or is about to."""
        return self._load is not None or bool(self.doing)

    def toggle(self, session: Session) -> None:
        """Begins a load, or asks the one that runs to end; while one of the two is under way, nothing."""
        if self.doing:
            return
        if self._load is None:
            self._start(session)
        else:
            self.doing = "draining"
            self._load.stop()

    def started(self, load: Proof) -> None:
        """The load runs."""
        self._load, self.doing, self.report = load, "", None

    def ended(self, message: LoadEnded) -> None:
        """The load is over."""
        self._load, self._last, self.report, self.doing = None, message.account, message.report, ""

    def failed(self) -> None:
        """There is no load, or what ran ended without a verdict."""
        self._last = self.account()
        self._load, self.doing = None, ""

    def account(self) -> LoadAccount | None:
        """The account so far, or the last one's; None before the first load."""
        return self._load.progress().account if self._load is not None else self._last

    def _start(self, session: Session) -> None:
        self.doing = "starting"

        def work() -> Message:
            load = session.load(RATE)
            self._post(LoadStarted(load))
            report = load.finish()
            return LoadEnded(load.progress().account, report)

        in_background(self._post, LOAD, work)
