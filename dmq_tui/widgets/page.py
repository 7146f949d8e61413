"""A page of prose that scrolls, and below it a question with a field for its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input

from dmq_core.demo.model import DemoQuestion
from dmq_core.presentation import Tone
from dmq_tui.render.format import Line
from dmq_tui.widgets.prose import Prose, words


class AnswerInput(Input):
    """The one-line field for an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "answer"),
        Binding("escape", "screen.back", "do not answer"),
    ]

    def __init__(self) -> None:
        super().__init__(compact=True)
        self.display = False


class ReadingPage(Vertical):
    """Shows lines of prose; a new page begins at its top, and what is added to one is scrolled into sight."""

    def __init__(self, *, id: str) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self.scroll = VerticalScroll()
        self.prose = Prose()
        self.question = Prose(id="question")
        self.question.display = False
        self.field = AnswerInput()
        self._page = ""

    def compose(self) -> ComposeResult:
        """The page over the question and its field."""
        with self.scroll:
            yield self.prose
        yield self.question
        yield self.field

    def show(self, page: str, lines: Sequence[Line]) -> None:
        """Shows `lines` of the page called `page`, in plain safe text."""
        new = page != self._page
        self._page = page
        self.border_title = Content(page)
        before = self.prose.text
        self.prose.show(lines)
        if new:
            self.scroll.scroll_home(animate=False)
        elif self.prose.text != before:
            self.scroll.scroll_end(animate=False)

    def ask(self, question: DemoQuestion) -> None:
        """Lets the person answer."""
        choices = f" ({', '.join(question.choices)})" if question.choices else ""
        self.question.show([words(f"{question.text}{choices}", Tone.WARN)])
        self.question.display = True
        self.field.value = question.usual
        self.field.max_length = question.most
        self.field.display = True
        self.field.focus()

    @property
    def is_asking(self) -> bool:
        """Whether an answer is awaited."""
        return self.field.display

    def end_asking(self) -> None:
        """Puts the question away."""
        self.question.display = self.field.display = False
        self.scroll.focus()
