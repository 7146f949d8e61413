"""The first screen where no cluster runs: what this machine has, the ways on, and a cluster as it comes up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Button

from dmq_core.cluster import prerequisites
from dmq_core.cluster.prerequisites import DockerState, Prerequisites
from dmq_core.cluster.protocol import Backend
from dmq_core.errors import DmqError
from dmq_core.presentation import Tone, duration
from dmq_core.progress import Progress
from dmq_core.session.protocol import Session
from dmq_core.text import visible
from dmq_tui.background.work import as_dmq_error, in_background
from dmq_tui.render.format import Cell, fit
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import Prose, words

_TICK_S = 0.2
_BAR = 30
_ATTACH: tuple[Line, ...] = (
    words("To attach, leave with q and give the address, or several:", Tone.STRONG),
    words("  dmq-tui --url http://user@host:15672     its management API"),
    words("  dmq-tui --url amqp://user@host:5672      AMQP"),
    words("  dmq-tui --profile NAME                   as the config file says"),
    words("The password comes from DMQ_PASSWORD. An attached cluster is never broken.", Tone.QUIET),
)


class StartPhase(Enum):
    """What the screen is at: nothing, looking, installing, starting, or after a failure."""

    IDLE = auto()
    INSTALLING = auto()
    STARTING = auto()


@dataclass
class PrerequisitesFound(Message):
    """This machine was looked at."""

    found: Prerequisites


@dataclass
class StartAdvanced(Message):
    """The installation or start of `epoch` goes on."""

    epoch: int
    progress: Progress


@dataclass
class StartEnded(Message):
    """The installation or start of `epoch` is over: the session whose cluster runs, or the error."""

    epoch: int
    session: Session | None = None
    error: DmqError | None = None


@dataclass(slots=True)
class StartProgress:
    """How a start goes: the newest word of the whole and of each node, and how far it is (0..1, None: unknown)."""

    began: float
    headline: str = ""
    fraction: float | None = None
    nodes: dict[str, str] = field(default_factory=dict)

    def add(self, progress: Progress) -> None:
        """Takes in one line of progress."""
        text = visible(progress.text)
        if progress.node is None:
            self.headline = text
        else:
            self.nodes[progress.node] = text
        if progress.fraction is not None:
            self.fraction = min(1.0, max(progress.fraction, self.fraction or 0.0))


class StartScreen(Screen[Session]):
    """Offers to start a cluster, shows how that goes, and is dismissed with the session whose cluster runs.

    Without a `session` one is opened by `open_session` on a background thread. `error` is why there is none yet.
    """

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start"),
        Binding("i", "install", "Install"),
        Binding("a", "attach", "Attach"),
        Binding("r", "look", "Refresh"),
        Binding("q,ctrl+q", "leave", "Quit", priority=True),
        Binding("down,right", "app.focus_next", show=False),
        Binding("up,left", "app.focus_previous", show=False),
    ]

    def __init__(
        self,
        open_session: Callable[[], Session],
        session: Session | None = None,
        error: DmqError | None = None,
        *,
        inspect: Callable[[], Prerequisites] = prerequisites.inspect,
    ) -> None:
        super().__init__()
        self._open_session = open_session
        self._session = session
        self._error = error
        self._inspect = inspect
        self._found: Prerequisites | None = None
        self._phase = StartPhase.IDLE
        self._progress = StartProgress(0.0)
        self._epoch = 0
        self._explains_attaching = False
        self._leaving = False

    @property
    def phase(self) -> StartPhase:
        """What it is at."""
        return self._phase

    def compose(self) -> ComposeResult:
        """One column: findings, ways on, progress or error."""
        with VerticalScroll(id="page", can_focus=False):
            yield Prose(id="head")
            yield Prose(id="findings")
            with Vertical(id="ways"):
                yield Button("", id="start", compact=True)
                yield Button("", id="install", compact=True)
                yield Button(_way("a", "Attach to a cluster that runs already: how"), id="attach", compact=True)
                yield Button(_way("r", "Refresh"), id="look", compact=True)
                yield Button(_way("q", "Quit"), id="leave", compact=True)
            yield Prose(id="progress")
            yield Prose(id="trouble")

    def on_mount(self) -> None:
        """Looks at this machine while the first frame is already there."""
        self.query_one("#start", Button).focus()
        self.set_interval(_TICK_S, self._show_progress)
        self._show()
        self.action_look()

    # -- what the person does -----------------------------------------------------------------------------------------

    def action_look(self) -> None:
        """Looks again at what this machine has."""
        if self._phase is StartPhase.IDLE:
            self._found = None
            self._show()
            in_background(self.post_message, "Look at this machine", lambda: PrerequisitesFound(self._inspect()))

    def action_start(self) -> None:
        """Starts the cluster, once at a time."""
        if self._phase is not StartPhase.IDLE or self._obstacle():
            return
        self._begin(StartPhase.STARTING, self._start)

    def action_install(self) -> None:
        """Installs what is missing, then starts the cluster."""
        if self._phase is not StartPhase.IDLE or not self._may_install():
            return
        self._begin(StartPhase.INSTALLING, self._install_and_start)

    def action_attach(self) -> None:
        """Shows, or hides, how to attach."""
        self._explains_attaching = not self._explains_attaching
        self._show()

    def action_leave(self) -> None:
        """Leaves; while a cluster comes up, only at the second time."""
        if self._phase is StartPhase.IDLE or self._leaving:
            self.app.exit()
            return
        self._leaving = True
        self._show()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The same as its key."""
        event.stop()
        acts = {
            "start": self.action_start,
            "install": self.action_install,
            "attach": self.action_attach,
            "look": self.action_look,
            "leave": self.action_leave,
        }
        acts[event.button.id or "look"]()

    # -- what the threads say -----------------------------------------------------------------------------------------

    def on_prerequisites_found(self, event: PrerequisitesFound) -> None:
        """Shows what was found."""
        event.stop()
        self._found = event.found
        self._show()

    def on_start_advanced(self, event: StartAdvanced) -> None:
        """Shows how it goes."""
        event.stop()
        if event.epoch == self._epoch:
            self._progress.add(event.progress)
            self._show_progress()

    def on_start_ended(self, event: StartEnded) -> None:
        """Goes on to the main screen, or shows the error and offers everything again."""
        event.stop()
        if event.epoch != self._epoch:
            return
        self._phase, self._leaving = StartPhase.IDLE, False
        if event.session is not None:
            self.dismiss(event.session)
            return
        self._error = event.error
        self.action_look()

    # -- on the background thread -------------------------------------------------------------------------------------

    def _begin(self, phase: StartPhase, work: Callable[[int], Session]) -> None:
        self._epoch += 1
        epoch = self._epoch
        self._phase, self._error, self._explains_attaching = phase, None, False
        self._progress = StartProgress(time.monotonic())
        self._show()

        def run() -> Message:
            try:
                return StartEnded(epoch, session=work(epoch))
            except Exception as error:
                return StartEnded(epoch, error=as_dmq_error(error))

        in_background(self.post_message, "Start the cluster", run)

    def _start(self, epoch: int) -> Session:
        session = self._session or self._open_session()
        self._session = session
        session.start_cluster(lambda progress: self._report(epoch, progress))
        return session

    def _install_and_start(self, epoch: int) -> Session:
        missing = self._found.missing if self._found else ()
        prerequisites.install(missing, lambda progress: self._report(epoch, progress))
        self._session = None
        return self._start(epoch)

    def _report(self, epoch: int, progress: Progress) -> None:
        self.post_message(StartAdvanced(epoch, progress))

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def _obstacle(self) -> str:
        if self._session is not None and self._session.read_only:
            return "this session is read-only"
        if self._session is not None and self._session.cluster.backend is Backend.ATTACHED:
            return "dmq did not make this cluster; whoever runs it starts it"
        if self._found is not None and not self._found.can_start:
            return "it needs a Docker engine or rabbitmq-server"
        return ""

    def _may_install(self) -> bool:
        return self._found is not None and bool(self._found.missing) and self._found.installable

    def _show(self) -> None:
        idle = self._phase is StartPhase.IDLE
        name = self._session.cluster.name if self._session is not None else ""
        self.query_one("#head", Prose).show(_head(name, running=not idle))
        self.query_one("#findings", Prose).show(_findings(self._found))
        self.query_one("#ways").display = idle
        self.query_one("#progress").display = not idle
        self.query_one("#findings").display = idle
        obstacle = self._obstacle()
        start = self.query_one("#start", Button)
        start.label = _way("s", "Start a three-node cluster here")
        start.disabled = bool(obstacle)
        install = self.query_one("#install", Button)
        install.label = _way(
            "i", f"Install {' '.join(self._found.missing if self._found else ())} with apt, then start"
        )
        install.display = self._may_install()
        self._show_progress()
        self.query_one("#trouble", Prose).show(self._trouble())

    def _show_progress(self) -> None:
        if self._phase is StartPhase.IDLE:
            self.query_one("#progress", Prose).show(())
        else:
            self.query_one("#progress", Prose).show(
                _progress_lines(self._progress, time.monotonic() - self._progress.began)
            )

    def _trouble(self) -> list[Line]:
        lines: list[Line] = []
        if self._error is not None:
            lines += [(Cell("✗ ", Tone.BAD), Cell(visible(self._error.what), Tone.BAD))]
            lines += [(Cell("  "), Cell(visible(self._error.hint)))] if self._error.hint else []
            lines += [(Cell("  s tries again.", Tone.QUIET),)] if not self._obstacle() else []
        elif self._phase is StartPhase.IDLE and self._obstacle():
            lines += [(Cell("▲ ", Tone.WARN), Cell(f"It cannot be started from here: {self._obstacle()}.", Tone.WARN))]
        if self._phase is StartPhase.IDLE and self._error is None and self._found is not None:
            lines += [(Cell("→ ", Tone.ACCENT), Cell(visible(advice))) for advice in self._found.advice]
        if self._leaving:
            lines += [
                words("The cluster is coming up. q again leaves now; 'dmq start' finishes what is begun.", Tone.WARN)
            ]
        if self._explains_attaching:
            lines += [(), *_ATTACH] if lines else list(_ATTACH)
        return lines


def _way(key: str, text: str) -> str:
    return f"  {key}   {text}  "


def _head(name: str, *, running: bool) -> list[Line]:
    title = (
        f"The cluster {visible(name)} is coming up."
        if running
        else f"No cluster{' ' + visible(name) if name else ''} runs here."
    )
    return [
        (Cell("dmq", Tone.ACCENT), Cell("  a RabbitMQ cluster to watch, to break, and to trust", Tone.QUIET)),
        (),
        words(title, Tone.STRONG),
    ]


def _findings(found: Prerequisites | None) -> list[Line]:
    if found is None:
        return [words("Looking for Docker, rabbitmq-server and port 5672 …", Tone.QUIET)]
    docker_tone = {DockerState.ANSWERS: Tone.GOOD, DockerState.ABSENT: Tone.QUIET}.get(found.docker, Tone.WARN)
    detail = f" ({visible(found.docker_detail)})" if found.docker_detail else ""
    rabbitmq = str(found.rabbitmq) if found.rabbitmq else "not installed"
    port = "taken; the cluster takes other ports" if found.amqp_port_taken else "free"
    return [
        _finding("Docker engine", f"{found.docker}{detail}", docker_tone),
        _finding("rabbitmq-server", rabbitmq, Tone.GOOD if found.rabbitmq else Tone.QUIET),
        _finding("port 5672", port, Tone.WARN if found.amqp_port_taken else Tone.GOOD),
    ]


def _finding(what: str, found: str, tone: Tone) -> Line:
    glyph = {Tone.GOOD: "●", Tone.WARN: "▲"}.get(tone, "○")
    return (
        Cell(f"{glyph} ", tone),
        Cell(fit(what, 18), Tone.QUIET),
        Cell(found, Tone.PLAIN if tone is Tone.GOOD else tone),
    )


def _progress_lines(progress: StartProgress, elapsed_s: float) -> list[Line]:
    if progress.fraction is None:
        phase = int(elapsed_s / _TICK_S) % _BAR
        bar = "".join("█" if (i - phase) % _BAR < 4 else "░" for i in range(_BAR))
        share = ""
    else:
        full = round(progress.fraction * _BAR)
        bar = "█" * full + "░" * (_BAR - full)
        share = f"{progress.fraction:.0%}".rjust(5)
    lines: list[Line] = [(Cell(bar, Tone.ACCENT), Cell(share), Cell(f"   {duration(elapsed_s)}", Tone.QUIET))]
    if progress.headline:
        lines.append(words(progress.headline))
    lines += [
        (Cell(f"  {fit(visible(node), 8)}", Tone.QUIET), Cell(text)) for node, text in sorted(progress.nodes.items())
    ]
    return lines
