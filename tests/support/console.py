"""The whole console on a fake session whose clock only the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from one_screen import until
from textual.pilot import Pilot

from dmq_core.observe.event_text import event_text
from dmq_core.testing import FakeSession
from dmq_tui.app import DmqApp
from dmq_tui.commands import PaneId
from dmq_tui.render.format import Line
from dmq_tui.render.themes import DARK
from dmq_tui.screens.main.screen import MainScreen

WIDE = (140, 45)
NARROW = (80, 24)


@dataclass
class Console:
    """A running console: its pilot, app, main screen and session."""

    pilot: Pilot[None]
    app: DmqApp
    session: FakeSession

    @property
    def main(self) -> MainScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, MainScreen)
        return screen

    @property
    def toasts(self) -> list[str]:
        return [n.message for n in self.app._notifications]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await until(self.pilot, condition, what)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def advance(self, seconds: float) -> None:
        """Moves the session's clock in steps, letting the console follow."""
        for _ in range(int(seconds / 0.25)):
            self.session.advance(0.25)
            await self.pilot.pause()
        now = self.session.broker.now
        self.main.refresh_now()
        self.session.settle()
        await self.until(lambda: self.main.newest is not None and self.main.newest.taken_at >= now, "a new snapshot")

    def story(self) -> list[str]:
        return [event_text(e.event) for e in self.main.story.entries]

    def screen_text(self) -> str:
        """Every cell of the screen as plain text."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    def footer(self) -> str:
        return "\n".join(text_of(line) for line in self.main.key_line.lines(self.main.size.width))

    def header(self) -> str:
        return text_of(self.main.header.lines(self.main.size.width)[0])

    def shown(self) -> list[PaneId]:
        """The panes in sight, in order."""
        return [p for p, pane in self.main.panes.items() if pane.display]


@asynccontextmanager
async def console(
    session: FakeSession | None = None, size: tuple[int, int] = WIDE, theme: str = DARK.name
) -> AsyncIterator[Console]:
    """A console that has its first snapshot."""
    session = session or FakeSession()
    app = DmqApp(lambda: session, theme=theme, clock=lambda: session.broker.now)
    async with app.run_test(size=size, notifications=True) as pilot:
        it = Console(pilot, app, session)
        await it.until(lambda: it.main.snapshot is not None, "the first snapshot")
        await pilot.pause()
        yield it
    session.close()


def text_of(line: Line) -> str:
    return "".join(cell.text for cell in line)
