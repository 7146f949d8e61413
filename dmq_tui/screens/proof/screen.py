"""A proof run on one screen: its form, the question, every message while it lasts, and the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.message import Message
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget

from dmq_core.actions.catalog import PROOF_NAMES, PROOF_USES
from dmq_core.actions.gate import guard
from dmq_core.actions.impact import Impact
from dmq_core.cluster.protocol import NodeAction
from dmq_core.errors import DmqError
from dmq_core.majority import Margin
from dmq_core.management.models import EntityKey
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.proof.progress import ProofProgress, ProofReport, final_account
from dmq_core.proof.result import Verdict
from dmq_core.proof.scenario import QUEUE_TYPES
from dmq_core.session.protocol import Proof, Session
from dmq_core.text import visible
from dmq_tui.background.work import as_dmq_error, in_background
from dmq_tui.render.layout import Layout, layout_for
from dmq_tui.render.lines import lateness
from dmq_tui.screens.confirm.screen import Confirmation, ConfirmScreen
from dmq_tui.screens.proof import lines as proof_lines
from dmq_tui.screens.proof.form import (
    DURATIONS,
    RATES,
    TARGET_WORDS,
    ProofForm,
    queue_types,
    target_words,
    targets,
)
from dmq_tui.screens.proof.widgets import ChartView, LinesView, doing_line, impact_lines, progress_line, trouble
from dmq_tui.widgets.bars import HeaderLine
from dmq_tui.widgets.choice import Choice
from dmq_tui.widgets.footer import KeysFooter
from dmq_tui.widgets.prose import Prose, words

SnapshotSource = Callable[[], ClusterSnapshot | None]
_TICK_S = 0.25
_CHART = "Confirms and deliveries a second"
_ENDING = Impact(
    Margin.SAFE,
    0,
    0,
    summary="Every fault is undone first: the nodes are back before anything else happens.",
    ending="Then the queue is drained, and the verdict is about what was sent until now.",
)


class ProofPhase(Enum):
    """What the screen is at."""

    IDLE = auto()
    RUNNING = auto()
    OVER = auto()


_IDLE, _RUNNING, _OVER = (frozenset({phase}) for phase in ProofPhase)
_PHASES = {
    "begin": _IDLE,
    "begin_again": _OVER,
    "change": _OVER,
    "end": _RUNNING,
    "leave": _IDLE | _OVER,
    "focus_choice": _IDLE,
}


@dataclass
class ProofBegan(Message):
    """The run of `epoch` goes on."""

    epoch: int
    proof: Proof


@dataclass
class ProofEnded(Message):
    """The run of `epoch` is over: what it leaves, or the error."""

    epoch: int
    report: ProofReport | None = None
    error: DmqError | None = None


class ProofScreen(Screen[None]):
    """Chooses, asks, runs and judges; leaving is asked about while a run goes on. `keep` hears of the run under way."""

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,r", "begin", "run it"),
        Binding("r,enter", "begin_again", "run it again"),
        Binding("n", "change", "change it"),
        Binding("up,shift+tab", "focus_choice(-1)", "choose", key_display="↑↓"),
        Binding("down,tab", "focus_choice(1)", show=False),
        Binding("escape", "end", "end the run: faults are undone first"),
        Binding("escape", "leave", "back"),
    ]

    # What it is at decides which of the keys work.
    phase: reactive[ProofPhase] = reactive(ProofPhase.IDLE, bindings=True)

    def __init__(
        self,
        session: Session,
        snapshot: SnapshotSource,
        *,
        keep: Callable[[Proof | None], None] = lambda _proof: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._session = session
        self._snapshot = snapshot
        self._keep = keep
        self._clock = clock
        self._epoch = 0
        self._asked = ProofForm()
        self._proof: Proof | None = None
        self._progress: ProofProgress | None = None
        self._report: ProofReport | None = None
        self._error: DmqError | None = None

    @property
    def form(self) -> ProofForm:
        """What is chosen now."""
        value = {choice.id: choice.value for choice in self.query(Choice)}
        return ProofForm(value["fault"], value["target"], value["rate"], value["duration"], value["queue-type"])

    def compose(self) -> ComposeResult:
        """Recipe and nodes at the left; verdict, chart and account at the right."""
        yield HeaderLine()
        with Horizontal(id="body"):
            with Vertical(id="left"):
                with Vertical(id="form"):
                    yield Choice("Fault", list(PROOF_NAMES.items()), NodeAction.KILL, id="fault")
                    yield Choice("Target", _target_options(None), "leader", id="target")
                    yield Choice("Rate", [(r, f"{r:,}/s") for r in RATES], ProofForm().rate, id="rate")
                    yield Choice("Duration", [(d, _duration_words(d)) for d in DURATIONS], None, id="duration")
                    yield Choice("Queue", [(q, q) for q in QUEUE_TYPES], QUEUE_TYPES[0], id="queue-type")
                    yield Prose(id="means")
                yield LinesView(id="nodes")
                yield LinesView(id="timeline")
            with Vertical(id="right"):
                with VerticalScroll(id="say"):
                    yield Prose(id="verdict")
                    yield Prose(id="why")
                yield ChartView(id="chart")
                yield LinesView(id="account")
        yield KeysFooter()

    def on_mount(self) -> None:
        """Shows what is chosen, and looks from now on."""
        for box, title in (("#form", "What to break"), ("#chart", _CHART), ("#timeline", "Timeline")):
            self.query_one(box).border_title = Content(title)
        self.query_one("#fault").focus()
        self._show()
        self.set_interval(_TICK_S, self._look)

    def on_resize(self, event: Resize) -> None:
        """Stacks what has no room side by side."""
        self._lay_out()

    # -- what the person does -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether an action goes with what the screen is at."""
        phases = _PHASES.get(action)
        return phases is None or self.phase in phases

    def action_focus_choice(self, by: int) -> None:
        """Goes to the next choice, or the one before."""
        if by > 0:
            self.focus_next()
        else:
            self.focus_previous()

    def action_begin(self) -> None:
        """Asks whether to run the form, unless that is refused at once."""
        form = self.form
        try:
            guard(self._session.cluster, form.title, read_only=self._session.read_only)
        except DmqError as error:
            self.phase, self._error, self._report = ProofPhase.IDLE, error, None
            self._show()
            return
        nodes = [value for value, _ in _target_options(self._snapshot())][len(TARGET_WORDS) :]
        named = form.targeted and form.target in nodes
        name, noun = (form.target, "node") if named else (self._session.cluster.name, "cluster")
        confirmation = Confirmation(form.title, form.command(self._snapshot()), name, noun, True, form.impact)
        screen = ConfirmScreen(confirmation, self._snapshot)

        def answered(yes: bool | None) -> None:
            if yes:
                self._begin(form, allow_majority_loss=screen.strict)

        self.app.push_screen(screen, answered)

    def action_begin_again(self) -> None:
        """Asks whether to run the same once more."""
        self.action_begin()

    def action_change(self) -> None:
        """Goes back from a verdict to the form."""
        self.phase, self._report, self._progress = ProofPhase.IDLE, None, None
        self._show()
        self.query_one("#fault").focus()

    def action_leave(self) -> None:
        """Leaves."""
        self.dismiss(None)

    def action_end(self) -> None:
        """Asks whether to end the run."""
        if self._proof is None or (self._progress is not None and self._progress.is_stopping):
            return
        proof = self._proof

        def answered(yes: bool | None) -> None:
            if yes:
                proof.stop()
                self._look()

        confirmation = Confirmation("End the run", "", "", "", False, lambda _snapshot: _ENDING)
        self.app.push_screen(ConfirmScreen(confirmation, self._snapshot), answered)

    def on_choice_changed(self, event: Choice.Changed) -> None:
        """Says what the new choice means."""
        event.stop()
        self._error = None
        if self.phase is ProofPhase.OVER:
            self.phase, self._report, self._progress = ProofPhase.IDLE, None, None
        self._show()

    # -- what the thread says -----------------------------------------------------------------------------------------

    def on_proof_began(self, event: ProofBegan) -> None:
        """Follows the run."""
        event.stop()
        if event.epoch == self._epoch:
            self._proof = event.proof
            self._keep(event.proof)
            self._look()

    def on_proof_ended(self, event: ProofEnded) -> None:
        """Shows the verdict, or why there is none."""
        event.stop()
        if event.epoch != self._epoch:
            return
        self._keep(None)
        self._proof, self._report, self._error = None, event.report, event.error
        self.phase = ProofPhase.OVER if event.report is not None else ProofPhase.IDLE
        self._show()
        # So that the arrow keys scroll a long reason, where there is little room.
        self.query_one("#say" if event.report is not None else "#fault").focus()

    def _begin(self, form: ProofForm, *, allow_majority_loss: bool) -> None:
        self._epoch += 1
        epoch, self._asked = self._epoch, form
        self.phase, self._progress, self._report, self._error = ProofPhase.RUNNING, None, None, None
        self._show()

        def run() -> Message:
            try:
                proof = self._session.prove(form.scenario, allow_majority_loss=allow_majority_loss)
                self.post_message(ProofBegan(epoch, proof))
                return ProofEnded(epoch, report=proof.finish())
            except Exception as error:
                return ProofEnded(epoch, error=as_dmq_error(error))

        in_background(self.post_message, "Proof", run)

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._proof is not None:
            self._progress = self._proof.progress()
        self._show()

    def _show(self) -> None:
        snapshot = self._snapshot()
        header = self.query_one(HeaderLine)
        header.snapshot, header.now, header.read_only = snapshot, self._clock(), self._session.read_only
        header.waiting = "waiting for figures"
        header.refresh()
        self._show_form(snapshot)
        self._show_nodes(snapshot)
        self._show_words(snapshot)
        chart = self.query_one("#chart", ChartView)
        chart.progress, chart.report = self._progress, self._report
        chart.refresh()
        self._show_account()
        marks = self._report.result.marks if self._report else self._progress.marks if self._progress else ()
        timeline = self.query_one("#timeline", LinesView)
        timeline.show(lambda _width: proof_lines.timeline(marks, timeline.size.height))
        self._lay_out()

    def _show_form(self, snapshot: ClusterSnapshot | None) -> None:
        form = self.form
        target = self.query_one("#target", Choice)
        target.offer(_target_options(snapshot))
        use = PROOF_USES[form.fault]
        if (target.disabled, target.note) != (not use.targeted, use.victims):
            target.disabled, target.note = not use.targeted, use.victims
            target.refresh()
        self.query_one("#queue-type", Choice).offer([(q, q) for q in queue_types(form.fault)])
        means = [words(use.hint, Tone.QUIET)]
        means += [words(target_words(form.fault, form.target), Tone.QUIET)] if use.targeted else []
        self.query_one("#means", Prose).show(means)
        self.query_one("#form").disabled = self.phase is ProofPhase.RUNNING

    def _show_nodes(self, snapshot: ClusterSnapshot | None) -> None:
        leader = None
        if self.phase is ProofPhase.RUNNING and snapshot is not None and self._progress is not None:
            view = snapshot.queue(EntityKey("/", self._progress.account.queue))
            leader = None if view is None else view.leader
        box = self.query_one("#nodes", LinesView)
        late = lateness(snapshot, self._clock()) if snapshot is not None else ""
        box.border_title = Content(" · ".join(t for t in ("Nodes", late) if t))
        inline = self.has_class("-single")
        box.show(lambda width: proof_lines.nodes(snapshot, leader, width, inline=inline))
        lines = proof_lines.nodes(snapshot, leader, self.size.width, inline=inline)
        box.styles.height = len(lines) + (0 if inline else 2)

    def _show_words(self, snapshot: ClusterSnapshot | None) -> None:
        box, verdict, why = self.query_one("#say"), self.query_one("#verdict", Prose), self.query_one("#why", Prose)
        title = self._asked.title if self.phase is not ProofPhase.IDLE else "What will happen"
        box.border_title = Content(visible(title))
        of = self._report.result.verdict if self._report is not None else None
        for known in Verdict:
            box.set_class(of is known, f"-{known.lower()}")
        box.set_class(self.phase is ProofPhase.RUNNING, "-running")
        if self._report is not None:
            verdict.show([proof_lines.verdict_line(self._report.result)])
            why.show(proof_lines.verdict_lines(self._report))
        elif self.phase is ProofPhase.RUNNING:
            verdict.show([progress_line(self._progress, self._asked)])
            why.show([doing_line(self._progress)])
        else:
            verdict.show(trouble(self._error) or [words(visible(self.form.scenario.title), Tone.STRONG)])
            why.show(impact_lines(self.form, snapshot))

    def _show_account(self) -> None:
        box = self.query_one("#account", LinesView)
        live = self._report is None
        account = None
        if self._report is not None:
            account = final_account(self._report.result)
        elif self._progress is not None:
            account = self._progress.account
        box.border_title = Content(f"Account · {proof_lines.total(account)}" if account is not None else "Account")
        if account is None:
            box.show(lambda _width: (words(" Nothing sent yet.", Tone.QUIET),))
        else:
            shown = account
            box.show(lambda width: proof_lines.figures(shown, width, live=live))

    def _lay_out(self) -> None:
        single = layout_for(self.size.width, self.size.height, maximised=False) is not Layout.WIDE
        self.set_class(single, "-single")
        idle, over = self.phase is ProofPhase.IDLE, self.phase is ProofPhase.OVER
        shown: dict[str, bool] = {
            "#form": idle or not single,
            "#nodes": not single or not over,
            "#left": not (single and over),
            "#timeline": not single,
            "#chart": not (single and idle),
            "#account": not (single and idle),
        }
        for selector, display in shown.items():
            part: Widget = self.query_one(selector)
            if part.display is not display:
                part.display = display


def _target_options(snapshot: ClusterSnapshot | None) -> list[tuple[str, str]]:
    names = tuple(n.name for n in snapshot.nodes) if snapshot is not None else ()
    return [(target, visible(target)) for target in targets(names)]


def _duration_words(duration_s: float | None) -> str:
    return "auto" if duration_s is None else f"{duration_s:g} s"
