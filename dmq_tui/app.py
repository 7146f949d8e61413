"""The console: opens the session off the UI thread, decides what to show first, and ends everything it began."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from dmq_core.cli.running import signals_ignored
from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.errors import DmqError
from dmq_core.session.protocol import Proof, Session
from dmq_core.text import visible
from dmq_tui.background.messages import SessionFailed, SessionReady
from dmq_tui.background.work import as_dmq_error, in_background
from dmq_tui.commands import key_name
from dmq_tui.render.themes import DARK, THEMES
from dmq_tui.screens.main.screen import MainScreen
from dmq_tui.shutdown import LastingDriver, end_demos, end_proof

if TYPE_CHECKING:
    from dmq_core.demo.runner import DemoRun

CLOSE_WITHIN_S = 6.0
# What the first paint can do without; imported in the background, so that no key has to wait for it.
_LATER = (
    "dmq_tui.screens.start.screen",
    "dmq_tui.screens.confirm.screen",
    "dmq_tui.screens.publish.screen",
    "dmq_tui.screens.proof.screen",
    "dmq_tui.screens.details.screen",
    "dmq_tui.screens.message.screen",
    "dmq_tui.screens.help.screen",
    "dmq_tui.screens.main.palette",
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DmqApp(App[None], inherit_bindings=False):
    """The console on the session that `open_session` gives; opening may block, so it happens in the background."""

    TITLE = "dmq"
    CSS_PATH: ClassVar[list[str | PurePath]] = ["app.tcss", "screens/main/screen.tcss"]
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "leave(130)", show=False, priority=True)]

    def __init__(
        self,
        open_session: Callable[[], Session],
        *,
        theme: str = DARK.name,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._open_session = open_session
        self._main = MainScreen(clock)
        self.session: Session | None = None
        for known in THEMES:
            self.register_theme(known)
        self.theme = theme

    @property
    def running_demos(self) -> Sequence[DemoRun[Any]]:
        """The demos whose end is not reached."""
        return tuple(self._main.running_demos)

    @property
    def proof(self) -> Proof | None:
        """The proof run under way."""
        return self._main.proof

    def get_default_screen(self) -> MainScreen:
        """The main screen is always at the bottom."""
        return self._main

    def get_driver_class(self) -> type[Driver]:
        """Textual's choice, but one that outlasts its terminal."""
        driver = super().get_driver_class()
        return LastingDriver if driver is LinuxDriver else driver

    def get_key_display(self, binding: Binding) -> str:
        """The key as people write it."""
        return binding.key_display or key_name(binding.key)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Colours that our style sheets use beyond Textual's own."""
        return dict(DARK.variables)

    def on_mount(self) -> None:
        """Opens the session and minds the signals that end programs."""
        if not self.is_headless:
            loop = asyncio.get_running_loop()
            for number in _SIGNALS:
                loop.add_signal_handler(number, self.action_leave, 128 + number)
        self._main.wait_for("looking for the cluster")
        self.call_after_refresh(self._open_in_background)

    def on_session_ready(self, message: SessionReady) -> None:
        """Shows the cluster."""
        self.session = message.session
        if message.nodes_up:
            self._main.attach(message.session)
        else:
            self._offer_start(message.session)

    def on_session_failed(self, message: SessionFailed) -> None:
        """Shows why there is no session, and the ways on."""
        self._offer_start(None, message.error)

    def _offer_start(self, session: Session | None, error: DmqError | None = None) -> None:
        from dmq_tui.screens.start.screen import StartScreen

        self.push_screen(StartScreen(self._open_session, session, error), self._started)

    def _started(self, session: Session | None) -> None:
        if session is not None:
            self.session = session
            self._main.attach(session)

    def action_leave(self, status: int = 0) -> None:
        """Ends the console with that exit status."""
        self.exit(return_code=status)

    def _handle_exception(self, error: Exception) -> None:
        """Ends the console with a line of what and one of what to do where Textual would show a traceback."""
        if self.is_headless or os.environ.get("DMQ_DEBUG"):
            super()._handle_exception(error)
            return
        self._return_code = 1
        what = visible(" ".join(f"unexpected {type(error).__name__}: {error}".split()))
        self.panic(Text(f"dmq-tui: {what}\nThis is a fault of dmq; DMQ_DEBUG=1 shows where it happened."))

    def _open_in_background(self) -> None:
        in_background(self.post_message, "Open", self._open)

    def _open(self) -> Message:
        for name in _LATER:
            importlib.import_module(name)
        try:
            session = self._open_session()
            cluster = session.cluster
            up = cluster.backend is Backend.ATTACHED or any(n.state is not NodeState.STOPPED for n in cluster.nodes())
        except Exception as error:
            return SessionFailed(as_dmq_error(error))
        return SessionReady(session, up)


def run_console(app: DmqApp) -> int:
    """Runs `app` until it ends and closes its session, within bounds; the exit status."""
    gc.freeze()  # what was imported is here to stay: a full collection over it would stop the UI for 70 ms
    try:
        app.run()
    finally:
        with signals_ignored():
            end_proof(app.proof)
            end_demos(app.running_demos)
            session = app.session
            if session is not None:
                closing = threading.Thread(target=session.close, name="dmq-tui close", daemon=True)
                closing.start()
                closing.join(CLOSE_WITHIN_S)
    return app.return_code or 0
