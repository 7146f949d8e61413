"""The lines around the panes: header, brief nodes, tabs, load summary and footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.events import Click
from textual.message import Message

from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.proof.progress import LoadAccount
from dmq_tui.commands import Command, PaneId, Situation
from dmq_tui.render.format import Cell, Line
from dmq_tui.render.lines import header, keys, load_summary, node_brief, tabs, width_of
from dmq_tui.widgets.paint import Painted

_MOST = 5


@dataclass
class CommandClicked(Message):
    """A click asks for the command with that id."""

    command: str


class HeaderLine(Painted):
    """The first line of the screen."""

    snapshot: ClusterSnapshot | None = None
    now = 0.0
    read_only = False
    waiting = ""

    def lines(self, width: int) -> Sequence[Line]:
        """The header for what is known now."""
        return (header(self.snapshot, self.now, width, read_only=self.read_only, waiting=self.waiting),)


class NodesBrief(Painted):
    """Each node on one line, for narrow screens; at most five."""

    snapshot: ClusterSnapshot | None = None
    chosen: str | None = None

    def show(self, snapshot: ClusterSnapshot | None) -> None:
        """Shows the nodes of `snapshot`."""
        self.snapshot = snapshot
        height = min(_MOST, len(snapshot.nodes)) if snapshot is not None else 0
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height
        self.refresh()

    def lines(self, width: int) -> Sequence[Line]:
        """One line a node."""
        nodes = self.snapshot.nodes if self.snapshot is not None else ()
        return tuple(node_brief(n, chosen=n.name == self.chosen) for n in nodes)


class TabLine(Painted):
    """The names of the panes, of which one is shown."""

    current = PaneId.NODES

    def lines(self, width: int) -> Sequence[Line]:
        """The names on one line."""
        return (tuple(cell for _, cell in tabs(self.current)),)

    def on_click(self, event: Click) -> None:
        """A click goes to that pane."""
        left = 0
        for pane, cell in tabs(self.current):
            left += len(cell.text)
            if event.x < left:
                self.post_message(CommandClicked(PANE_COMMANDS[pane]))
                return


PANE_COMMANDS = {
    PaneId.NODES: "nodes",
    PaneId.EXCHANGES: "exchanges",
    PaneId.QUEUES: "queues",
    PaneId.TAIL: "messages",
    PaneId.STORY: "story",
    PaneId.LOAD: "account",
}


class LoadLine(Painted):
    """The account of the load on two lines, for narrow screens."""

    account: LoadAccount | None = None

    def show(self, account: LoadAccount | None) -> None:
        """Shows the account as it is now."""
        if (account is None) is not (self.account is None):
            self.styles.height = 1 if account is None else 2
        self.account = account
        self.refresh()

    def lines(self, width: int) -> Sequence[Line]:
        """The account, or that there is none."""
        if self.account is None:
            return ((Cell(" no load; l starts one", Tone.QUIET),),)
        return load_summary(self.account, width)


class KeyLine(Painted):
    """The last lines: what an action is doing, then the keys that work here.

    Not Textual's footer, which shows one line in the order of the bindings: where room is short this one keeps what
    matters most, and a label says what its key would do to the node under the cursor.
    """

    situation: Situation | None = None
    status: Line = ()

    def lines(self, width: int) -> Sequence[Line]:
        """Status and keys, on as many lines as the widget has."""
        found = [tuple(cell for _, cells in line for cell in cells) for line in self._keys(width)]
        first, *others = found or [()]
        return ((*self._status(), *first), *((Cell(" "), *line) for line in others))

    def on_click(self, event: Click) -> None:
        """A click on a key does what the key does."""
        lines = self._keys(self.size.width)
        left = 1 if event.y else width_of(self._status())
        for command, cells in lines[event.y] if event.y < len(lines) else ():
            left += width_of(cells)
            if event.x < left:
                self.post_message(CommandClicked(command.id))
                return

    def _status(self) -> Line:
        return (Cell(" "), *self.status, Cell("  ")) if self.status else (Cell(" "),)

    def _keys(self, width: int) -> Sequence[Sequence[tuple[Command, Line]]]:
        if self.situation is None:
            return ()
        others = [width - 1] * (max(1, self.size.height) - 1)
        return keys(self.situation, [width - width_of(self._status()), *others])
