"""One message of the tail as a page: where it came from, its properties, headers and whole body."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from dmq_core.messaging.messages import SeenMessage
from dmq_core.presentation import Tone, clock, count
from dmq_core.text import visible, visible_body
from dmq_tui.render.format import Cell, Line, name
from dmq_tui.widgets.footer import keys_text
from dmq_tui.widgets.prose import Prose, words

_LABEL = 16


class MessageScreen(ModalScreen[None]):
    """Shows a message until Esc."""

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,backspace", "close", "back"),
        Binding("c", "copy", "copy the body"),
    ]

    def __init__(self, message: SeenMessage) -> None:
        super().__init__()
        self._message = message

    def compose(self) -> ComposeResult:
        """One scrolling page."""
        with VerticalScroll(id="sheet") as sheet:
            sheet.border_title = "Message"
            sheet.border_subtitle = Content(keys_text(self))
            yield Prose(message_page(self._message))

    def action_close(self) -> None:
        """Back to the tail."""
        self.dismiss(None)

    def action_copy(self) -> None:
        """Copies the body as it is shown."""
        self.app.copy_to_clipboard("\n".join(body_lines(self._message.body)))
        self.notify("Copied the body.", markup=False, timeout=3)


def message_page(message: SeenMessage) -> list[Line]:
    """Everything that is known of a message, as lines."""
    again = {True: "yes", False: "no", None: "not known by this way of looking"}[message.redelivered]
    lines = [
        _fact("seen at", clock(message.at)),
        _fact("exchange", name(message.exchange)),
        _fact("routing key", visible(message.routing_key) or "(empty)"),
        *([_fact("queue", visible(message.queue))] if message.queue else []),
        _fact("redelivered", again),
        _fact("size", f"{count(message.size)} bytes"),
    ]
    properties = [
        _fact(f.name, visible(str(value)))
        for f in fields(message.properties)
        if f.name != "headers" and (value := getattr(message.properties, f.name)) is not None
    ]
    headers = [_fact(visible(k), visible(repr(v))) for k, v in message.properties.headers.items()]
    for title, block in (("Properties", properties), ("Headers", headers)):
        if block:
            lines += [(), words(title, Tone.ACCENT), *block]
    cut = f", the first {count(len(message.body))} bytes" if message.size > len(message.body) else ""
    lines += [(), words(f"Body{cut}", Tone.ACCENT), *(words(line) for line in body_lines(message.body))]
    return lines


def body_lines(body: bytes) -> list[str]:
    """A body as lines that are safe to show: JSON laid out, other text line by line, anything else as escapes."""
    if not body:
        return ["(empty)"]
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return [visible_body(body)]
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return [visible(line.expandtabs(4)) for line in text.split("\n")]


def _fact(label: str, value: str) -> Line:
    return (Cell(f"{label:<{_LABEL}}", Tone.QUIET), Cell(value))
