"""Panes 1 to 3: nodes, exchanges and queues as tables."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual.app import ComposeResult

from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.presentation import count
from dmq_tui.commands import PaneId
from dmq_tui.panes.pane import FilteredPane
from dmq_tui.render.rows import (
    EXCHANGE_COLUMNS,
    NODE_COLUMNS,
    QUEUE_COLUMNS,
    Column,
    ExchangeRow,
    QueueRow,
    Sort,
    arranged,
    exchange_rows,
    exchange_text,
    node_rows,
    node_text,
    queue_rows,
    queue_text,
)
from dmq_tui.widgets.table import KeyedTable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TableKind(Generic[T]):
    """What a table pane shows: how a snapshot becomes rows, what identifies one, and what a filter looks at."""

    columns: tuple[Column[T], ...]
    rows: Callable[[ClusterSnapshot], Sequence[T]]
    key: Callable[[T], Hashable]
    text: Callable[[T], str]
    sort: Sort
    lesson: tuple[str, ...]


class TablePane(FilteredPane, Generic[T]):
    """A pane that shows one kind of row as a table, filtered and sorted."""

    kind: TableKind[T]

    def __init__(self) -> None:
        super().__init__()
        self.table: KeyedTable[T] = KeyedTable(self.kind.columns, self.kind.key, lesson=self.kind.lesson)
        self.sort = self.kind.sort
        self._rows: Sequence[T] = ()
        self._total: int | None = None
        self._late = ""

    def compose(self) -> ComposeResult:
        """The table over its filter field."""
        yield self.table
        yield self._field

    def on_mount(self) -> None:
        """Names the pane."""
        self.set_title()

    @property
    def body(self) -> KeyedTable[T]:
        """The table."""
        return self.table

    @property
    def cursor_view(self) -> KeyedTable[T]:
        """The table."""
        return self.table

    @property
    def has_row(self) -> bool:
        """Whether the table has a row."""
        return self.table.cursor_item is not None

    def show(self, snapshot: ClusterSnapshot, late: str) -> None:
        """Shows the rows of `snapshot`."""
        self._rows = self.kind.rows(snapshot)
        self._total = self.total(snapshot)
        self._late = late
        self.refilter()

    def total(self, snapshot: ClusterSnapshot) -> int:
        """How many rows there are in all, shown or not."""
        return len(self._rows)

    def refilter(self) -> None:
        """Filters and sorts the rows at hand."""
        kept = self._rows
        if self.filter.title:
            kept = [r for r in self._rows if self.filter.matches(self.kind.text(r))]
        column = next(c for c in self.kind.columns if c.id == self.sort.column)
        self.table.show(
            arranged(kept, column, descending=self.sort.descending, key=self.kind.key),
            sort=self.sort,
            old=bool(self._late),
        )
        total = self._total or 0
        counted = count(total) if len(kept) == total else f"{count(len(kept))} of {count(total)}"
        by = "" if self.sort == self.kind.sort else self.sort.title(self.kind.columns)
        self.set_title(counted if self._rows else "", self.filter.title, by, self._late)

    def next_sort(self) -> None:
        """Sorts by the next column that is in sight; numbers begin with the largest."""
        columns = [c for c in self.kind.columns if c.title]
        here = next(i for i, c in enumerate(columns) if c.id == self.sort.column)
        self.sort_by(columns[(here + 1) % len(columns)].id)

    def reverse_sort(self) -> None:
        """Turns the order round."""
        self.sort = Sort(self.sort.column, not self.sort.descending)
        self.refilter()

    def sort_by(self, column_id: str) -> None:
        """Sorts by that column; the same one again turns the order round."""
        if column_id == self.sort.column:
            self.reverse_sort()
            return
        column = next(c for c in self.kind.columns if c.id == column_id)
        self.sort = Sort(column_id, descending=column.right)
        self.refilter()

    def on_keyed_table_head_clicked(self, event: KeyedTable.HeadClicked) -> None:
        """A click on a column's title sorts by it."""
        event.stop()
        self.sort_by(event.column)


class NodesPane(TablePane[NodeView]):
    """Pane 1: each node with its state, what it leads, and how it is."""

    pane: ClassVar[PaneId] = PaneId.NODES
    kind = TableKind(
        NODE_COLUMNS,
        node_rows,
        lambda n: n.name,
        node_text,
        Sort("node"),
        ("No nodes seen yet.",),
    )


class ExchangesPane(TablePane[ExchangeRow]):
    """Pane 2: each exchange with its type, bindings and rates."""

    pane: ClassVar[PaneId] = PaneId.EXCHANGES
    kind = TableKind(
        EXCHANGE_COLUMNS,
        exchange_rows,
        lambda r: r.key,
        exchange_text,
        Sort("in", descending=True),
        ("No exchanges seen yet.",),
    )


class QueuesPane(TablePane[QueueRow]):
    """Pane 3: each queue with its leader, members, depths and rates."""

    pane: ClassVar[PaneId] = PaneId.QUEUES
    kind = TableKind(
        QUEUE_COLUMNS,
        queue_rows,
        lambda r: r.key,
        queue_text,
        Sort("ready", descending=True),
        ("No queues yet.", "p publishes a message, l starts a load on a queue of its own."),
    )

    def total(self, snapshot: ClusterSnapshot) -> int:
        """The broker's own count where it knows more queues than it listed."""
        return max(len(self._rows), snapshot.queues_total or 0)
