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
    """The last line: what an act is doing, then the keys that work here."""

    situation: Situation | None = None
    status: Line = ()

    def lines(self, width: int) -> Sequence[Line]:
        """Status and keys on one line."""
        line = list(self._status())
        for _, cells in self._keys(width):
            line += cells
        return (tuple(line),)

    def on_click(self, event: Click) -> None:
        """A click on a key does what the key does."""
        left = width_of(self._status())
        for command, cells in self._keys(self.size.width):
            left += width_of(cells)
            if event.x < left:
                self.post_message(CommandClicked(command.id))
                return

    def _status(self) -> Line:
        return (Cell(" "), *self.status, Cell("  ")) if self.status else (Cell(" "),)

    def _keys(self, width: int) -> Sequence[tuple[Command, Line]]:
        return keys(self.situation, width - width_of(self._status())) if self.situation is not None else ()
