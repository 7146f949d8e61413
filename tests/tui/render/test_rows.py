"""Rows of the tables: filter, sort, and which columns a width has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dmq_core.cluster.protocol import NodeState
from dmq_core.management.models import EntityKey, QueueFigures
from dmq_core.observe.snapshot import QueueView
from dmq_core.presentation import Tone
from dmq_core.testing import HOSTILE_NAMES, FakeSession, hostile
from dmq_tui.render.rows import (
    EXCHANGE_COLUMNS,
    GAP,
    NODE_COLUMNS,
    QUEUE_COLUMNS,
    Column,
    Filter,
    QueueRow,
    Sort,
    arranged,
    exchange_rows,
    node_rows,
    plan,
    queue_rows,
    queue_text,
)

ALL_COLUMNS: list[Sequence[Column[Any]]] = [NODE_COLUMNS, EXCHANGE_COLUMNS, QUEUE_COLUMNS]


def queue(name: str, ready: int | None = 0, **more: Any) -> QueueRow:
    figures = QueueFigures("/", name, "quorum", ready=ready, **more)
    view = QueueView(figures, "rmq1", ("rmq1", "rmq2", "rmq3"), ("rmq1", "rmq2"))
    return QueueRow(view.key, view, leader_up=True)


def column(name: str) -> Column[QueueRow]:
    return next(c for c in QUEUE_COLUMNS if c.id == name)


@pytest.mark.parametrize("columns", ALL_COLUMNS)
@given(width=st.integers(20, 200), need=st.integers(0, 60))
def test_a_plan_never_takes_more_room_than_there_is(columns: Sequence[Column[Any]], width: int, need: int) -> None:
    planned = plan(columns, width, need)
    assert sum(w for _, w in planned) + GAP * (len(planned) - 1) <= max(width, planned[0][1])


@pytest.mark.parametrize("columns", ALL_COLUMNS)
@given(width=st.integers(20, 200))
def test_a_narrow_table_drops_whole_columns_the_least_worth_first(columns: Sequence[Column[Any]], width: int) -> None:
    kept = [c for c, _ in plan(columns, width)]
    dropped = [c for c in columns if c not in kept]
    assert all(w == c.width for c, w in plan(columns, width) if not c.flex)
    assert max((c.rank for c in kept), default=0) < min((c.rank for c in dropped), default=99)


def test_the_name_is_never_dropped() -> None:
    assert [c.id for c, _ in plan(QUEUE_COLUMNS, 8)] == ["queue"]


@pytest.mark.parametrize("columns", ALL_COLUMNS)
def test_every_worth_is_its_own_so_that_the_order_of_dropping_is_clear(columns: Sequence[Column[Any]]) -> None:
    assert len({c.rank for c in columns}) == len(columns)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ["orders", "orders.eu", "mail"]),
        ("orders", ["orders", "orders.eu"]),
        ("ORD eu", ["orders.eu"]),
        ("!orders", ["mail"]),
        ("!", ["orders", "orders.eu", "mail"]),
        ("nothing", []),
    ],
)
def test_a_filter_keeps_what_holds_every_word_and_inverts_with_an_exclamation_mark(text: str, kept: list[str]) -> None:
    rows = [queue(n) for n in ("orders", "orders.eu", "mail")]
    assert [r.key.name for r in rows if Filter(text).matches(queue_text(r))] == kept


@given(st.lists(st.text(), unique=True), st.text())
def test_a_filter_and_its_inverse_part_the_rows(names: list[str], text: str) -> None:
    word = text.removeprefix("!")
    if not word.strip():
        return
    straight, inverse = Filter(word.lstrip("!") or "x"), Filter("!" + (word.lstrip("!") or "x"))
    assert all(straight.matches(n) is not inverse.matches(n) for n in names)


@given(st.lists(st.tuples(st.text(min_size=1), st.none() | st.integers(0, 5)), unique_by=lambda p: p[0]), st.booleans())
def test_unknown_figures_stand_last_whichever_way_the_sort_goes(
    pairs: list[tuple[str, int | None]], descending: bool
) -> None:
    rows = arranged([queue(n, r) for n, r in pairs], column("ready"), descending=descending, key=lambda r: r.key)
    known = [r.view.figures.ready for r in rows if r.view.figures.ready is not None]
    assert known == sorted(known, reverse=descending)
    assert [r.view.figures.ready is None for r in rows] == sorted(r.view.figures.ready is None for r in rows)


@given(st.permutations(["a", "b", "c", "d"]))
def test_equal_figures_stand_by_name_so_that_a_quiet_list_does_not_move(names: list[str]) -> None:
    rows = arranged([queue(n) for n in names], column("ready"), descending=True, key=lambda r: r.key)
    assert [r.key.name for r in rows] == ["a", "b", "c", "d"]


def test_a_sort_says_what_it_does() -> None:
    assert Sort("ready", descending=True).title(QUEUE_COLUMNS) == "by READY ↓"


def test_hostile_names_become_one_safe_line_each() -> None:
    snapshot = FakeSession(hostile).snapshot()
    for row in queue_rows(snapshot):
        for some in QUEUE_COLUMNS:
            assert some.cell(row).text.isprintable()
    for exchange in exchange_rows(snapshot):
        assert all(c.cell(exchange).text.isprintable() for c in EXCHANGE_COLUMNS)
    assert len(queue_rows(snapshot)) == len(HOSTILE_NAMES)


def test_a_queue_whose_leader_is_down_is_marked_even_without_colour() -> None:
    up = queue("a")
    down = QueueRow(up.key, up.view, leader_up=False)
    none = QueueRow(up.key, QueueView(up.view.figures, None, (), ()), leader_up=None)
    cell = column("leader").cell
    assert (cell(up).text, cell(down).text, cell(none).text) == ("rmq1", "rmq1 !", "none !")
    assert cell(down).tone is cell(none).tone is Tone.BAD


def test_figures_of_a_node_that_does_not_serve_are_unknown() -> None:
    session = FakeSession()
    session.broker.set_state("rmq2", NodeState.STOPPED)
    node = next(n for n in node_rows(session.snapshot()) if n.name == "rmq2")
    shown = {c.id: c.cell(node).text for c in NODE_COLUMNS}
    assert shown["memory"] == shown["disk"] == shown["alarm"] == "–"


def test_bindings_are_counted_by_the_exchange_that_they_leave() -> None:
    rows = {r.key: r.bound for r in exchange_rows(FakeSession().snapshot())}
    assert rows[EntityKey("/", "orders")] == 3


def test_every_cell_of_a_right_aligned_column_fits_its_width() -> None:
    big = queue("big", 9_999_999_999, unacked=10**8, publish_rate=54321.0, deliver_rate=0.1, consumers=200)
    for some in QUEUE_COLUMNS:
        if some.right:
            assert cell_len(some.cell(big).text) <= some.width
