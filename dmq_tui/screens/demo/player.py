"""The one demo of the console: begun, played step by step and left in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textual.message import Message

from dmq_core.demo.model import AnyDemo, DemoResult, StepResult, StepText
from dmq_core.demo.runner import DemoRun
from dmq_core.errors import DmqError
from dmq_core.session.protocol import Session
from dmq_tui.background.work import Post, as_dmq_error, in_background

DEMO = "Demo"


@dataclass
class DemoBegan(Message):
    """The demo of `epoch` is there, with its first page."""

    epoch: int
    playing: DemoRun[Any]
    words: StepText


@dataclass
class DemoTurned(Message):
    """Another page is to be read."""

    epoch: int
    words: StepText


@dataclass
class DemoPlayed(Message):
    """A step was played, or `error` says why not; `words` are those of the page now."""

    epoch: int
    index: int
    words: StepText
    result: StepResult | None = None
    error: DmqError | None = None


@dataclass
class DemoEnded(Message):
    """A demo is over and everything that it made is gone, or `result.left` says what is not."""

    result: DemoResult


@dataclass
class DemosListed(Message):
    """These demos are there."""

    demos: tuple[tuple[str, AnyDemo], ...]


def list_demos(post: Post) -> None:
    """Reads the files of all demos in the background."""

    def work() -> Message:
        from dmq_core.demo.discovery import demo_names, find_demo

        return DemosListed(tuple((name, find_demo(name)) for name in demo_names()))

    in_background(post, "Demos", work)


class DemoPlayer:
    """At most one demo at a time; an epoch tells late words of an older one. For the UI thread only.

    `post_end` hears what came of each, when whoever began it may be gone; `running_demos` holds those whose end is not
    reached.
    """

    def __init__(self, post: Post, post_end: Post, running_demos: list[DemoRun[Any]]) -> None:
        self._post = post
        self._post_end = post_end
        self._running_demos = running_demos
        self._epoch = 0
        self._playing: DemoRun[Any] | None = None
        self._wanted = ""
        self.words: StepText | None = None
        self.results: dict[int, StepResult] = {}
        self.doing = ""
        self.is_last = False
        self._through = False

    @property
    def active(self) -> bool:
        """Whether a demo is played or is about to be."""
        return bool(self._wanted)

    @property
    def demo(self) -> AnyDemo | None:
        """The demo that is played."""
        return None if self._playing is None else self._playing.demo

    @property
    def prefix(self) -> str:
        """What the names of everything that the demo makes begin with; empty while there is none."""
        return "" if self._playing is None else self._playing.prefix

    @property
    def index(self) -> int:
        """The page: a step, counted from 0."""
        return 0 if self.words is None else self.words.number - 1

    @property
    def result(self) -> StepResult | None:
        """What came of the step of this page, if it was played."""
        return self.results.get(self.index)

    def start(self, session: Session, name: str) -> None:
        """Leaves the demo that is played and begins another."""
        self.leave()
        self._wanted, self.doing = name, "beginning"
        epoch = self._epoch

        def work() -> Message:
            playing = session.demo(name)
            self._running_demos.append(playing)
            return DemoBegan(epoch, playing, playing.step_text(0))

        in_background(self._post, DEMO, work)

    def began(self, message: DemoBegan) -> None:
        """The background has made it; if nobody wants it any more, it is left at once."""
        if message.epoch != self._epoch:
            self._close(message.playing)
            return
        self._playing, self.words, self.doing = message.playing, message.words, ""

    def play(self, answer: str | None = None, *, sabotage: bool = False, through: bool = False) -> None:
        """Plays the step of this page, `through`: and all after it; nothing while one is under way."""
        playing, epoch, index = self._playing, self._epoch, self.index
        if playing is None or self.doing:
            return
        self.doing, self._through = "playing the step and checking its claim", through
        self.is_last = False

        def work() -> Message:
            try:
                result = playing.do(index, answer, sabotage=sabotage)
            except Exception as error:
                return DemoPlayed(epoch, index, playing.step_text(index), error=as_dmq_error(error))
            return DemoPlayed(epoch, index, playing.step_text(index), result)

        in_background(self._post, DEMO, work)

    def played(self, message: DemoPlayed) -> None:
        """A step is over; on to the next one if all are to be played."""
        if message.epoch != self._epoch:
            return
        self.doing, self.words = "", message.words
        if message.result is not None:
            self.results[message.index] = message.result
        if self._through and message.result is not None and message.result.passed:
            self.turn(1)
        else:
            self._through = False

    def turn(self, by: int) -> None:
        """Goes to the next page or the one before; after the last step comes what to take home."""
        playing, epoch = self._playing, self._epoch
        if playing is None or self.doing:
            return
        index = self.index + by
        if self.is_last:
            index = self.index
            self.is_last = by > 0
        elif index >= len(playing.demo.steps):
            self.is_last, self._through, index = True, False, self.index
        elif index < 0 or (by > 0 and self.index not in self.results):
            return
        in_background(self._post, DEMO, lambda: DemoTurned(epoch, playing.step_text(index)))

    def turned(self, message: DemoTurned) -> None:
        """Another page is there."""
        if message.epoch == self._epoch:
            self.words = message.words
            if self._through:
                self.play(through=True)

    def leave(self) -> None:
        """Ends the demo, if there is one; what it made is removed in the background."""
        self._epoch += 1
        playing, self._playing = self._playing, None
        self._wanted, self.doing, self.words, self.results = "", "", None, {}
        self.is_last = self._through = False
        if playing is not None:
            self._close(playing)

    def failed(self) -> None:
        """It could not begin."""
        if self._playing is None:
            self._wanted, self.doing = "", ""

    def _close(self, playing: DemoRun[Any]) -> None:
        def work() -> Message:
            result = playing.close()
            self._running_demos.remove(playing)
            return DemoEnded(result)

        in_background(self._post_end, "End demo", work)
