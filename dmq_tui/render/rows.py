"""From a snapshot to the rows of each table: filtering, sorting and columns as pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dmq_core.cluster.protocol import NodeState
from dmq_core.management.models import EntityKey, ExchangeFigures
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView, QueueView
from dmq_core.presentation import UNKNOWN, Tone, rate, short_count, size
from dmq_core.text import visible
from dmq_tui.render.chart import spark
from dmq_tui.render.format import Cell, members, name, state_cell

T = TypeVar("T")
Value = float | str | None
GAP = 1
_UNKNOWN_CELL = Cell(UNKNOWN, Tone.QUIET)
_SERVING = (NodeState.RUNNING, NodeState.DRAINING)


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column: `cell` shows an item, `value` sorts it (None: unknown, always last).

    `width` is in cells, without the gap. The one `flex` column takes what is left and is never dropped; of the others
    the highest `worth` number goes first where room is short.
    """

    id: str
    title: str
    width: int
    rank: int
    cell: Callable[[T], Cell]
    value: Callable[[T], Value]
    right: bool = False
    flex: bool = False


@dataclass(frozen=True, slots=True)
class Sort:
    """By which column the rows stand, and which way."""

    column: str
    descending: bool = False

    def title(self, columns: Sequence[Column[T]]) -> str:
        """`by READY ↓`."""
        title = next((c.title for c in columns if c.id == self.column), self.column)
        return f"by {title} {self.arrow}"

    @property
    def arrow(self) -> str:
        """The way it goes."""
        return "↓" if self.descending else "↑"


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps what holds every word of `text`, letter case aside; a leading `!` keeps the others."""

    text: str = ""

    def matches(self, haystack: str) -> bool:
        """Whether a row with that text stays."""
        inverse = self.text.startswith("!")
        words = self.text.removeprefix("!").casefold().split()
        if not words:
            return True
        folded = haystack.casefold()
        return all(w in folded for w in words) is not inverse

    @property
    def title(self) -> str:
        """`/orders`, or nothing."""
        return f"/{visible(self.text)}" if self.text.removeprefix("!").strip() else ""


@dataclass(frozen=True, slots=True)
class ExchangeRow:
    """An exchange and the number of bindings that leave it."""

    figures: ExchangeFigures
    bound: int

    @property
    def key(self) -> EntityKey:
        """What identifies the exchange."""
        return self.figures.key


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue by its key, and whether its leader's node serves (None: no leader is known)."""

    key: EntityKey
    view: QueueView
    leader_up: bool | None


def plan(columns: Sequence[Column[T]], width: int, need: int = 0) -> tuple[tuple[Column[T], int], ...]:
    """Which columns fit into `width` cells and how wide each is; `need` is what the flex column would like."""
    kept = list(columns)
    flexible = next(c for c in columns if c.flex)
    wish = max(flexible.width, need)
    while len(kept) > 1 and _fixed(kept) + wish > width:
        kept.remove(max((c for c in kept if not c.flex), key=lambda c: c.rank))
    rest = max(0, width - _fixed(kept))
    return tuple((c, rest if c.flex else c.width) for c in kept)


def arranged(items: Iterable[T], column: Column[T], *, descending: bool, key: Callable[[T], Hashable]) -> list[T]:
    """`items` sorted by `column`; equal ones by key, unknown values last whichever way it goes."""
    known: list[tuple[Value, T]] = []
    unknown: list[T] = []
    for item in sorted(items, key=lambda i: _orderable(key(i))):
        value = column.value(item)
        if value is None:
            unknown.append(item)
        else:
            known.append((value, item))
    known.sort(key=_first, reverse=descending)
    return [item for _, item in known] + unknown


def node_rows(snapshot: ClusterSnapshot) -> tuple[NodeView, ...]:
    """The rows of pane 1."""
    return snapshot.nodes


def exchange_rows(snapshot: ClusterSnapshot) -> tuple[ExchangeRow, ...]:
    """The rows of pane 2."""
    bound = Counter((b.vhost, b.source) for b in snapshot.bindings)
    return tuple(ExchangeRow(e, bound[(e.vhost, e.name)]) for e in snapshot.exchanges)


def queue_rows(snapshot: ClusterSnapshot) -> tuple[QueueRow, ...]:
    """The rows of pane 3."""
    serving = {n.name for n in snapshot.running}
    return tuple(QueueRow(q.key, q, None if q.leader is None else q.leader in serving) for q in snapshot.queues)


def node_text(node: NodeView) -> str:
    """What the filter looks at."""
    return f"{node.name} {node.erlang_name} {node.state} {' '.join(a.resource for a in node.alarms)}"


def exchange_text(row: ExchangeRow) -> str:
    """What the filter looks at."""
    return f"{entity_name(row.figures.vhost, row.figures.name)} {row.figures.type}"


def queue_text(row: QueueRow) -> str:
    """What the filter looks at."""
    f = row.view.figures
    return f"{entity_name(f.vhost, f.name)} {f.type} {row.view.leader or ''} {f.state or ''}"


def entity_name(vhost: str, entity: str) -> str:
    """A queue's or exchange's name, with its virtual host where that is not `/`."""
    return name(entity) if vhost == "/" else f"{name(entity)} @{visible(vhost)}"


def _state_cell(node: NodeView) -> Cell:
    return state_cell(node.state)


def _number(value: int | None, *, worry: bool = False) -> Cell:
    if value is None:
        return _UNKNOWN_CELL
    return Cell(short_count(value), Tone.WARN if worry and value else Tone.PLAIN if value else Tone.QUIET)


def _rate(value: float | None) -> Cell:
    if value is None:
        return _UNKNOWN_CELL
    return Cell(rate(value), Tone.PLAIN if value else Tone.QUIET)


def _memory(node: NodeView) -> int | None:
    return node.figures.memory_bytes if node.figures and node.state in _SERVING else None


def _disk(node: NodeView) -> int | None:
    return node.figures.disk_free_bytes if node.figures and node.state in _SERVING else None


def _memory_cell(node: NodeView) -> Cell:
    used, limit = _memory(node), node.figures.memory_limit_bytes if node.figures else None
    if used is None:
        return _UNKNOWN_CELL
    if node.figures and node.figures.memory_alarm:
        return Cell(size(used), Tone.BAD)
    return Cell(size(used), Tone.WARN if limit and used > 0.8 * limit else Tone.PLAIN)


def _memory_history(node: NodeView) -> Cell:
    if _memory(node) is None:
        return Cell("")
    return Cell(spark(tuple(float(b) for b in node.memory_history), 8), Tone.FAINT)


def _disk_cell(node: NodeView) -> Cell:
    free, limit = _disk(node), node.figures.disk_limit_bytes if node.figures else None
    if free is None:
        return _UNKNOWN_CELL
    if node.figures and node.figures.disk_alarm:
        return Cell(size(free), Tone.BAD)
    return Cell(size(free), Tone.WARN if limit and free < 2 * limit else Tone.PLAIN)


def _alarm_cell(node: NodeView) -> Cell:
    if node.alarms:
        return Cell("! " + " ".join(visible(a.resource) for a in node.alarms), Tone.BAD)
    return Cell("none", Tone.QUIET) if node.state in _SERVING and node.figures else _UNKNOWN_CELL


def _version_cell(node: NodeView) -> Cell:
    version = node.figures.version if node.figures else None
    return Cell(visible(version), Tone.QUIET) if version else _UNKNOWN_CELL


def _leader_cell(row: QueueRow) -> Cell:
    if row.view.leader is None:
        return Cell("none !", Tone.BAD)
    leader = visible(row.view.leader)
    return Cell(leader) if row.leader_up else Cell(f"{leader} !", Tone.BAD)


def _queue_cell(row: QueueRow) -> Cell:
    f = row.view.figures
    broken = f.state is not None and f.state in ("down", "minority", "crashed", "stopped", "terminated")
    return Cell(entity_name(f.vhost, f.name), Tone.BAD if broken else Tone.STRONG)


def _members_value(row: QueueRow) -> float | None:
    total = len(row.view.members)
    return len(row.view.online) / total if total else None


NODE_COLUMNS: tuple[Column[NodeView], ...] = (
    Column("node", "NODE", 6, 0, lambda n: Cell(visible(n.name), Tone.STRONG), lambda n: n.name, flex=True),
    Column("state", "STATE", 13, 1, _state_cell, lambda n: n.state.value),
    Column("leads", "LEADERS", 7, 2, lambda n: _number(n.leads), lambda n: n.leads, right=True),
    Column("follows", "FOLLOWERS", 9, 6, lambda n: _number(n.follows), lambda n: n.follows, right=True),
    Column("connections", "CONNS", 6, 3, lambda n: _number(n.connections), lambda n: n.connections, right=True),
    Column("memory", "MEMORY", 7, 4, _memory_cell, _memory, right=True),
    Column("history", "", 8, 8, _memory_history, _memory),
    Column("disk", "DISK", 7, 7, _disk_cell, _disk, right=True),
    Column("alarm", "ALARM", 8, 5, _alarm_cell, lambda n: float(len(n.alarms))),
    Column("version", "VERSION", 8, 9, _version_cell, lambda n: n.figures.version if n.figures else None),
)
EXCHANGE_COLUMNS: tuple[Column[ExchangeRow], ...] = (
    Column(
        "exchange",
        "EXCHANGE",
        12,
        0,
        lambda r: Cell(entity_name(r.figures.vhost, r.figures.name), Tone.STRONG),
        lambda r: r.figures.name.casefold(),
        flex=True,
    ),
    Column("type", "TYPE", 8, 1, lambda r: Cell(visible(r.figures.type)), lambda r: r.figures.type),
    Column("bound", "BINDINGS", 8, 3, lambda r: _number(r.bound), lambda r: r.bound, right=True),
    Column(
        "in", "IN/s", 7, 2, lambda r: _rate(r.figures.publish_in_rate), lambda r: r.figures.publish_in_rate, right=True
    ),
    Column(
        "out",
        "OUT/s",
        7,
        4,
        lambda r: _rate(r.figures.publish_out_rate),
        lambda r: r.figures.publish_out_rate,
        right=True,
    ),
)
QUEUE_COLUMNS: tuple[Column[QueueRow], ...] = (
    Column("queue", "QUEUE", 12, 0, _queue_cell, lambda r: r.view.figures.name.casefold(), flex=True),
    Column("type", "TYPE", 7, 8, lambda r: Cell(visible(r.view.figures.type)), lambda r: r.view.figures.type),
    Column("leader", "LEADER", 7, 2, _leader_cell, lambda r: r.view.leader),
    Column(
        "members",
        "MEMBERS",
        8,
        3,
        lambda r: members(len(r.view.online), len(r.view.members)),
        _members_value,
        right=True,
    ),
    Column("ready", "READY", 7, 1, lambda r: _number(r.view.figures.ready), lambda r: r.view.figures.ready, right=True),
    Column(
        "unacked",
        "UNACK",
        7,
        5,
        lambda r: _number(r.view.figures.unacked),
        lambda r: r.view.figures.unacked,
        right=True,
    ),
    Column(
        "consumers",
        "CONS",
        5,
        9,
        lambda r: _number(r.view.figures.consumers),
        lambda r: r.view.figures.consumers,
        right=True,
    ),
    Column(
        "in",
        "IN/s",
        6,
        4,
        lambda r: _rate(r.view.figures.publish_rate),
        lambda r: r.view.figures.publish_rate,
        right=True,
    ),
    Column(
        "out",
        "OUT/s",
        6,
        6,
        lambda r: _rate(r.view.figures.deliver_rate),
        lambda r: r.view.figures.deliver_rate,
        right=True,
    ),
    Column(
        "history",
        "",
        8,
        7,
        lambda r: Cell(spark(r.view.history, 8), Tone.FAINT),
        lambda r: r.view.figures.publish_rate,
    ),
)


def _fixed(columns: Sequence[Column[T]]) -> int:
    return sum(c.width for c in columns if not c.flex) + GAP * (len(columns) - 1)


def _first(pair: tuple[Value, T]) -> tuple[bool, float, str]:
    value = pair[0]
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value or 0), "")


def _orderable(key: Hashable) -> tuple[str, ...]:
    return tuple(str(part) for part in key) if isinstance(key, tuple) else (str(key),)
