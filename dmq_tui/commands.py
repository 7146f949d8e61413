"""Everything a user can do on the main screen, declared once: bindings, footer, help and palette read it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from dmq_core.actions.action import RECOVERY
from dmq_core.actions.catalog import CATALOG
from dmq_core.cluster.protocol import NodeAction, NodeState


class PaneId(IntEnum):
    """The panes of the main screen; the value is the key that goes there."""

    NODES = 1
    EXCHANGES = 2
    QUEUES = 3
    TAIL = 4
    STORY = 5
    LOAD = 6


class Category(StrEnum):
    """The groups in which the help lists commands."""

    MOVE = "Move"
    LOOK = "Look"
    MESSAGES = "Messages"
    NODES = "Nodes and the cluster (each asks for confirmation)"
    APP = "Console"


LISTS = frozenset({PaneId.NODES, PaneId.EXCHANGES, PaneId.QUEUES, PaneId.TAIL, PaneId.STORY})
TABLES = frozenset({PaneId.NODES, PaneId.EXCHANGES, PaneId.QUEUES})
EVERYWHERE = frozenset(PaneId)
_DOWN = frozenset({NodeState.STOPPED, NodeState.UNREACHABLE})
_UP = frozenset({NodeState.RUNNING, NodeState.DRAINING, NodeState.STARTING, NodeState.ISOLATED})
# These keys undo what they did, where that is the node's state; for one that is stopped there is another key.
_SWITCHES = frozenset({NodeAction.PAUSE, NodeAction.ISOLATE, NodeAction.DRAIN})


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides whether a command is allowed now; `node` and `node_name` are of the node under pane 1's cursor."""

    pane: PaneId
    connected: bool
    read_only: bool
    attached: bool
    node: NodeState | None
    node_name: str
    row: bool
    load_running: bool
    tailing: bool
    undo: bool
    maximised: bool


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do: `id` is typed after `:`, `keys` do it at once, `label` (empty: none) stands in the footer.

    `panes` are where it works. Where the footer is short of room, the labels of the lowest `priority` go first.
    `does` is the main screen's action for it, as Textual writes actions; empty: the one that is called like `id`.
    """

    id: str
    keys: tuple[str, ...]
    title: str
    help: str
    category: Category
    label: str = ""
    panes: frozenset[PaneId] = EVERYWHERE
    priority: int = 0
    action: NodeAction | None = None
    changes: bool = False
    needs_row: bool = False
    palette: bool = True
    does: str = ""

    @property
    def textual_action(self) -> str:
        """The action of the main screen that does it."""
        return self.does or (f"operate('{self.id}')" if self.action is not None else self.id)

    @property
    def key(self) -> str:
        """Its first key as people write it (empty: only by `:`)."""
        return key_name(self.keys[0]) if self.keys else ""


_KEY_NAMES = {
    "enter": "↵",
    "escape": "Esc",
    "tab": "Tab",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "shift+tab": "Shift+Tab",
    "ctrl+p": "Ctrl+P",
    "end": "End",
}


def key_name(key: str) -> str:
    """How people write a key: `↵` for `enter`."""
    return _KEY_NAMES.get(key, key)


_M, _L, _MSG, _N, _A = Category.MOVE, Category.LOOK, Category.MESSAGES, Category.NODES, Category.APP
COMMANDS: tuple[Command, ...] = (
    Command(
        "nodes", ("1",), "Nodes", "Go to pane 1: state, leaders, memory, disk, alarms of each node", _M, does="go(1)"
    ),
    Command("exchanges", ("2",), "Exchanges", "Go to pane 2: exchanges with bindings and rates", _M, does="go(2)"),
    Command(
        "queues", ("3",), "Queues", "Go to pane 3: queues with leader, members, depths and rates", _M, does="go(3)"
    ),
    Command("messages", ("4",), "Tail", "Go to pane 4: copies of messages as they pass", _M, does="go(4)"),
    Command(
        "story", ("5",), "Story", "Go to pane 5: what we did, what the broker did, what clients felt", _M, does="go(5)"
    ),
    Command("account", ("6",), "Load", "Go to pane 6: the account of the load", _M, does="go(6)"),
    Command("up", ("up", "k"), "Up", "The row above", _M, palette=False, does="move(-1)"),
    Command("down", ("down", "j"), "Down", "The row below", _M, palette=False, does="move(1)"),
    Command("page-up", ("pageup",), "Page up", "A screen of rows up", _M, palette=False, does="move_page(-1)"),
    Command("page-down", ("pagedown",), "Page down", "A screen of rows down", _M, palette=False, does="move_page(1)"),
    Command("first", ("home", "g"), "First", "The first row", _M, palette=False, does="move_to_first"),
    Command(
        "last",
        ("end", "G"),
        "Last",
        "The last row; in the tail and the story: follow what comes",
        _M,
        palette=False,
        does="move_to_last",
    ),
    Command("next", ("tab",), "Next pane", "Go to the next pane", _M, palette=False, does="go_on(1)"),
    Command("previous", ("shift+tab",), "Previous pane", "Go to the pane before", _M, palette=False, does="go_on(-1)"),
    Command("left", ("left",), "Pane to the left", "Go one pane back", _M, palette=False, does="go_on(-1)"),
    Command("right", ("right",), "Pane to the right", "Go one pane on", _M, palette=False, does="go_on(1)"),
    Command(
        "maximise", ("m",), "Maximise", "Give this pane the whole screen, or give it back", _L, "maximise", priority=3
    ),
    Command(
        "details",
        ("enter",),
        "Details",
        "Open what is under the cursor as a page",
        _L,
        "details",
        panes=TABLES | {PaneId.TAIL},
        priority=9,
        needs_row=True,
    ),
    Command(
        "filter",
        ("/",),
        "Filter",
        "Keep rows that hold every word; begin with ! to keep the others; Esc ends it",
        _L,
        "filter",
        panes=LISTS,
        priority=8,
    ),
    Command("sort", ("s",), "Sort", "Sort by the next column", _L, "sort", panes=TABLES, priority=4),
    Command("order", ("o",), "Sort order", "Reverse the sort order", _L, panes=TABLES),
    Command("copy", ("c",), "Copy", "Copy the story, or in pane 4 the tail, to the clipboard", _L, "copy", priority=2),
    Command("refresh", ("f5", "ctrl+r"), "Refresh", "Read the figures now rather than at the next tick", _L),
    Command(
        "publish",
        ("p",),
        "Publish",
        "Write a message, see where it would go, publish it and see the confirm",
        _MSG,
        "publish",
        priority=8,
        changes=True,
    ),
    Command(
        "tail",
        ("t",),
        "Tail",
        "Copy what passes the exchange or enters the queue under the cursor; in pane 4: end the tail",
        _MSG,
        "tail",
        priority=7,
        panes=frozenset({PaneId.EXCHANGES, PaneId.QUEUES, PaneId.TAIL}),
    ),
    Command(
        "firehose",
        (),
        "Tail every delivery",
        "Copy every publish and delivery of the virtual host by the broker's firehose; it costs the broker work",
        _MSG,
        changes=True,
    ),
    Command(
        "load",
        ("l",),
        "Load on or off",
        "A steady confirmed publisher and an acknowledging consumer on one quorum queue",
        _MSG,
        "load",
        priority=7,
        changes=True,
    ),
    Command(
        "kill",
        ("K",),
        "Kill node",
        "Kill the node under the cursor of pane 1, with SIGKILL",
        _N,
        "kill",
        priority=6,
        action=NodeAction.KILL,
        changes=True,
    ),
    Command(
        "stop",
        ("S",),
        "Stop node",
        "Stop the node gracefully; its data stays",
        _N,
        "stop",
        priority=5,
        action=NodeAction.STOP,
        changes=True,
    ),
    Command(
        "start",
        ("U",),
        "Start node",
        "Bring a node up that was killed or stopped",
        _N,
        "start",
        priority=6,
        action=NodeAction.START,
        changes=True,
    ),
    Command(
        "restart",
        ("R",),
        "Restart node",
        "Stop the node gracefully and start it again",
        _N,
        "restart",
        priority=5,
        action=NodeAction.RESTART,
        changes=True,
    ),
    Command(
        "pause",
        ("F",),
        "Freeze or unfreeze node",
        "Pause the node: it keeps its connections and says nothing; again: let it go on",
        _N,
        "freeze",
        priority=5,
        action=NodeAction.PAUSE,
        changes=True,
    ),
    Command(
        "isolate",
        ("I",),
        "Isolate or rejoin node",
        "Cut the node off from its peers while clients still reach it; again: connect it",
        _N,
        "isolate",
        priority=1,
        action=NodeAction.ISOLATE,
        changes=True,
    ),
    Command(
        "drain",
        ("M",),
        "Drain or revive node",
        "Put the node into maintenance: it gives its leaders and clients away; again: take it back",
        _N,
        "drain",
        priority=1,
        action=NodeAction.DRAIN,
        changes=True,
    ),
    Command(
        "faults",
        ("B",),
        "Faults of the cluster",
        "Alarms, cut and slow links, leaders, nodes more or fewer; the active faults, and their undo",
        _N,
        "faults",
        priority=4,
        changes=True,
    ),
    Command(
        "proof",
        ("P",),
        "Proof",
        "Break something under a load of its own, and get a verdict on every message",
        _N,
        "proof",
        priority=5,
        changes=True,
    ),
    Command(
        "demos",
        ("D",),
        "Demos",
        "Learn on this cluster: short stories, step by step, that check their own claims",
        _L,
        "demos",
        priority=5,
        changes=True,
    ),
    Command("undo", ("u",), "Undo", "Undo the last action: the node is as it was before it", _N, "undo", priority=9),
    Command("palette", (":", "ctrl+p"), "Command", "Find a command by its name", _A, "command", priority=6),
    Command("help", ("?",), "Help", "The keys that work here", _A, "help", priority=10),
    Command("theme", ("T",), "Theme", "Dark or light", _A),
    Command("back", ("escape",), "Back", "End the filter, then the maximising", _A),
    Command(
        "quit",
        ("q", "ctrl+q"),
        "Quit",
        "End the load and the tail, and leave; the cluster goes on",
        _A,
        "quit",
        priority=9,
    ),
)
BY_ID = {c.id: c for c in COMMANDS}


def why_disabled(command: Command, now: Situation) -> str:
    """Why `command` is not allowed in this situation, as a sentence; empty: it is allowed."""
    if now.pane not in command.panes:
        return f"{command.title} works in {_pane_names(command.panes)}."
    if command.changes and now.read_only:
        return f"{command.title}: this session is read-only."
    if command.action is not None:
        return _why_node_disabled(command.action, now)
    if command.needs_row and not now.row:
        return f"{command.title}: nothing is under the cursor."
    if command.id in ("faults", "proof") and now.attached:
        return "Dmq did not make this cluster, so nothing is broken on it."
    if command.id == "undo" and not now.undo:
        return "There is nothing to undo."
    if command.id in ("publish", "load", "firehose", "tail", "faults", "proof", "demos") and not now.connected:
        return f"{command.title}: no figures from the cluster yet."
    if command.id == "tail" and not (now.tailing if now.pane is PaneId.TAIL else now.row):
        return "Tail: choose an exchange in pane 2 or a queue in pane 3 first."
    return ""


def footer_commands(now: Situation) -> tuple[Command, ...]:
    """The commands that the footer shows in this situation, in table order."""
    return tuple(c for c in COMMANDS if c.label and not why_disabled(c, now))


def label_of(command: Command, now: Situation) -> str:
    """The footer's word for `command`, which for a switch says what it would do now."""
    if command.id == "load" and now.load_running:
        return "end load"
    if command.id == "tail" and now.pane is PaneId.TAIL:
        return "end tail"
    if command.id == "maximise" and now.maximised:
        return "all panes"
    kind = action_now(command, now.node)
    if kind is not None and kind is not command.action:
        return str(kind)
    if command.id in ("kill", "start"):
        return f"{command.label} {now.node_name}"
    return command.label


def action_now(command: Command, node: NodeState | None) -> NodeAction | None:
    """The action that `command` stands for on a node in that state: `F` unpauses a paused one."""
    action = command.action
    if action is None or node is None or action not in _SWITCHES or CATALOG[action].state is not node:
        return action
    return RECOVERY.get(node, action)


def _why_node_disabled(action: NodeAction, now: Situation) -> str:
    if now.attached:
        return "Dmq did not make this cluster, so its nodes are only watched."
    if now.node is None:
        return "No node is under the cursor of pane 1."
    if action is NodeAction.START and now.node not in _DOWN:
        return f"The node is {now.node} already." if now.node is not NodeState.PAUSED else "Unfreeze it with F."
    if action is NodeAction.PAUSE and now.node not in _UP | {NodeState.PAUSED}:
        return f"The node is {now.node}; there is nothing to freeze."
    if action in (NodeAction.KILL, NodeAction.STOP) and now.node is NodeState.STOPPED:
        return "The node is stopped already; U starts it."
    if action in (NodeAction.STOP, NodeAction.RESTART) and now.node is NodeState.PAUSED:
        return "A frozen node cannot stop gracefully; unfreeze it with F or kill it with K."
    if action in (NodeAction.ISOLATE, NodeAction.DRAIN):
        return _why_trouble_disabled(action, now.node)
    return ""


def _why_trouble_disabled(action: NodeAction, state: NodeState) -> str:
    if state in (NodeState.STOPPED, NodeState.PAUSED):
        return f"The node is {state}; bring it back first."
    if action is NodeAction.DRAIN and state is NodeState.ISOLATED:
        return "The node is cut off from its peers; I connects it again."
    return ""


def _pane_names(panes: frozenset[PaneId]) -> str:
    return "pane " + " and ".join(str(int(p)) for p in sorted(panes))
