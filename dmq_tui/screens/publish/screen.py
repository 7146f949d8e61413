"""The form that publishes one message: where it would go is shown before, its fate after; the form stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Button, Input, Label, TextArea

from dmq_core.errors import DmqError, InvalidInputError
from dmq_core.messaging.messages import OutgoingMessage, PublishResult
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.session.protocol import Session
from dmq_core.text import visible
from dmq_tui.background.work import as_dmq_error, in_background
from dmq_tui.render.format import Cell
from dmq_tui.screens.publish import form as publish_form
from dmq_tui.screens.publish.form import MessageForm, VirtualHostView
from dmq_tui.widgets.entry import LineEntry, TextEntry
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import Prose, words

SnapshotSource = Callable[[], ClusterSnapshot | None]
_LOOK_EVERY_S = 0.25
_KEPT_OUTCOMES = 5


@dataclass
class PublishEnded(Message):
    """The publish with this number ended, or was not possible."""

    number: int
    settlement: PublishResult | None = None
    error: DmqError | None = None


class _Completion(Suggester):
    def __init__(self, options: Callable[[], Iterable[str]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._options = options

    async def get_suggestion(self, value: str) -> str | None:
        return publish_form.completion(value, self._options())


class PublishScreen(ModalScreen[None]):
    """Publishes messages one after the other, each mandatory and confirmed."""

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", priority=True),
        Binding("ctrl+s,ctrl+enter", "send", "Send", priority=True),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(
        self,
        session: Session,
        snapshot: SnapshotSource,
        exchange: str = "",
        routing_key: str = "",
        virtual_host: str = "/",
    ) -> None:
        super().__init__()
        self._session = session
        self._snapshot = snapshot
        self._virtual_host = virtual_host
        self._first = MessageForm(visible(exchange), visible(routing_key))
        self._view: VirtualHostView | None = None
        self._sent = 0
        self._waiting_for: int | None = None
        self._outcomes: list[Line] = []

    def compose(self) -> ComposeResult:
        """The form from top to bottom."""
        with Vertical(id="form"):
            with Horizontal(id="address"):
                with Vertical():
                    with Horizontal(classes="caption"):
                        yield Label("Exchange ")
                        yield Prose(id="exchange-note")
                    yield LineEntry(
                        self._first.exchange,
                        placeholder="(default)",
                        suggester=_Completion(self._exchange_options),
                        id="exchange",
                        compact=True,
                    )
                with Vertical():
                    yield Label("Routing key", classes="caption")
                    yield LineEntry(
                        self._first.routing_key, suggester=_Completion(self._key_options), id="key", compact=True
                    )
            with Horizontal(id="extras"):
                with Vertical():
                    yield Label("Headers", classes="caption")
                    yield TextEntry(id="headers", compact=True, show_line_numbers=False)
                    yield Prose(id="headers-note")
                with Vertical():
                    yield Label("Properties", classes="caption")
                    yield TextEntry(id="properties", compact=True, show_line_numbers=False)
                    yield Prose(id="properties-note")
            with Horizontal(classes="caption"):
                yield Label("Body ")
                yield Prose(id="body-note")
            yield TextEntry(id="body", compact=True, show_line_numbers=False)
            yield Prose(id="destination")
            yield Prose(id="outcomes")
            with Horizontal(id="keys"):
                yield Prose(_KEYS, id="hint")
                yield Button(" Send ", id="send", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Judges the form now and whenever it or the cluster changes."""
        self.query_one("#form").border_title = "Publish"
        first = "key" if self._first.exchange else "exchange"
        self.query_one(f"#{'body' if self._first.routing_key else first}").focus()
        self._look()
        self._judge()
        self.set_interval(_LOOK_EVERY_S, self._look)

    @property
    def form(self) -> MessageForm:
        """What the fields say now."""
        return MessageForm(
            self.query_one("#exchange", LineEntry).value,
            self.query_one("#key", LineEntry).value,
            self.query_one("#headers", TextEntry).text,
            self.query_one("#properties", TextEntry).text,
            self.query_one("#body", TextEntry).text,
        )

    # -- what the person does -----------------------------------------------------------------------------------------

    def action_close(self) -> None:
        """Closes the form; a publish under way still ends on its own."""
        self.dismiss(None)

    def action_send(self) -> None:
        """Publishes what the form says, one message at a time."""
        if self._waiting_for is not None:
            self._note(
                words("… the message before still waits for its confirm; not sent a second time", Tone.WARN), keep=False
            )
            return
        try:
            message = publish_form.message_of(self.form, self._view)
        except InvalidInputError as error:
            self._note((Cell("✗ not sent: ", Tone.BAD), Cell(f"{error.what}. {error.hint}")), keep=False)
            return
        self._sent += 1
        number = self._waiting_for = self._sent
        self._note(words(f"… message {number} is on its way", Tone.QUIET), keep=False)
        in_background(self.post_message, "Publish", lambda: self._publish(number, message))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Send, by mouse."""
        event.stop()
        self.action_send()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Judges the form anew."""
        event.stop()
        self._judge()

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Judges the form anew."""
        event.stop()
        self._judge()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in a line goes to the next field; it never sends."""
        event.stop()
        self.focus_next()

    # -- what the thread says -----------------------------------------------------------------------------------------

    def _publish(self, number: int, message: OutgoingMessage) -> Message:
        try:
            return PublishEnded(number, settlement=self._session.publish(message))
        except Exception as error:
            return PublishEnded(number, error=as_dmq_error(error))

    def on_publish_ended(self, event: PublishEnded) -> None:
        """Shows how it ended; the form is ready for the next one."""
        event.stop()
        if event.number == self._waiting_for:
            self._waiting_for = None
        prefix = Cell(f"{event.number}  ", Tone.QUIET)
        if event.settlement is not None:
            self._note((prefix, *publish_form.outcome_line(event.settlement, self._snapshot())))
        elif event.error is not None:
            text = f"{visible(event.error.what)}. {visible(event.error.hint)}".rstrip()
            self._note((prefix, Cell("✗ not possible: ", Tone.BAD), Cell(text)))

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def _note(self, line: Line, *, keep: bool = True) -> None:
        if keep:
            self._outcomes = [line, *self._outcomes][:_KEPT_OUTCOMES]
        self.query_one("#outcomes", Prose).show(self._outcomes if keep else [line, *self._outcomes])

    def _look(self) -> None:
        snapshot = self._snapshot()
        if snapshot is None or (self._view is not None and snapshot is self._view.snapshot):
            return
        self._view = VirtualHostView.of(snapshot, self._virtual_host)
        self._judge()

    def _judge(self) -> None:
        now, view = self.form, self._view
        self.query_one("#exchange-note", Prose).show([publish_form.exchange_note(now, view)])
        self.query_one("#headers-note", Prose).show([publish_form.header_notes(now)])
        self.query_one("#properties-note", Prose).show([publish_form.property_notes(now)])
        self.query_one("#body-note", Prose).show([publish_form.body_notes(now)])
        self.query_one("#destination", Prose).show([publish_form.destination(now, view)])

    def _exchange_options(self) -> Iterable[str]:
        return self._view.exchanges.values() if self._view else ()

    def _key_options(self) -> Iterable[str]:
        return publish_form.key_options(self.form, self._view) if self._view else ()


_KEYS: tuple[Line, ...] = (
    tuple(
        cell
        for key, does in (
            ("Ctrl+S", " or "),
            ("Ctrl+Enter", " send · "),
            ("Tab", " next · "),
            ("→", " complete · "),
            ("Esc", " close"),
        )
        for cell in (Cell(key, Tone.ACCENT), Cell(does))
    ),
)
