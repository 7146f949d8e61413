"""From values to lines of cells: header, brief nodes, tabs, tail, story, load and footer, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from dmq_core.actions.wording import quorum_words
from dmq_core.cluster.protocol import NodeState
from dmq_core.majority import Margin, margin_left
from dmq_core.messaging.messages import SeenMessage
from dmq_core.observe.event_text import event_text
from dmq_core.observe.events import Severity
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.observe.story import StoryLine
from dmq_core.presentation import UNKNOWN, Tone, age, clock, count, distance, duration, rate, size
from dmq_core.proof.progress import LoadAccount
from dmq_core.text import visible, visible_body
from dmq_tui.commands import Command, PaneId, Situation, footer_commands, label_of
from dmq_tui.render.chart import bars
from dmq_tui.render.format import Cell, Line, event_mark, event_tone, fit, name, state_cell

MANAGEMENT = "management"
STALE_AFTER_S = 4.0
PANE_NAMES = {
    PaneId.NODES: "Nodes",
    PaneId.EXCHANGES: "Exchanges",
    PaneId.QUEUES: "Queues",
    PaneId.TAIL: "Tail",
    PaneId.STORY: "Story",
    PaneId.LOAD: "Load",
}
_FAULT_MARK = "▲"
_LABEL = 14
_RATE = 8
_LEAST_CHART = 20
_MOST_SLICES = 120


def width_of(line: Sequence[Cell]) -> int:
    """How many cells of the terminal a line takes."""
    return sum(cell_len(c.text) for c in line)


def lateness(snapshot: ClusterSnapshot, now: float, source: str = MANAGEMENT) -> str:
    """Why the figures of `source` are old, as a few words; empty: they are fresh."""
    status = next((s for s in snapshot.sources if s.name == source), None)
    if status is None:
        return ""
    old = snapshot.age_s(source, now)
    if old is not None and old <= STALE_AFTER_S and not status.problem:
        return ""
    said = "no figures yet" if old is None else f"figures {age(old)} old"
    return f"{said}: {visible(status.problem)}" if status.problem else said


def header(snapshot: ClusterSnapshot | None, now: float, width: int, *, read_only: bool, waiting: str) -> Line:
    """The first line: cluster, nodes up, majority, alarms, whom it asks, and where help is."""
    if snapshot is None:
        return (Cell(" dmq ", Tone.ACCENT), Cell(" " + waiting, Tone.QUIET))
    left = [Cell(" dmq ", Tone.ACCENT), Cell(f" {visible(snapshot.cluster)}", Tone.STRONG)]
    if width >= 100:
        version = visible(snapshot.rabbitmq) if snapshot.rabbitmq else UNKNOWN
        left.append(Cell(f" · {snapshot.backend} · RabbitMQ {version}", Tone.QUIET))
    elif snapshot.rabbitmq:
        left.append(Cell(f" {visible(snapshot.rabbitmq)}", Tone.QUIET))
    gap = Cell("   " if width >= 100 else "  ")
    left += [gap, *_nodes_up(snapshot), gap, majority(snapshot)]
    for warning in warnings(snapshot):
        left += [gap, warning]
    if read_only:
        left += [gap, Cell("read-only", Tone.WARN)]
    for right in _header_ends(snapshot, now):
        room = width - width_of(left) - width_of(right) - 1
        if room >= 1:
            return (*left, Cell(" " * room), *right)
    return tuple(left)


def majority(snapshot: ClusterSnapshot) -> Cell:
    """Whether enough nodes run, in words."""
    total, voting = len(snapshot.nodes), snapshot.voting
    if not total:
        return Cell("no nodes", Tone.BAD)
    margin, words = margin_left(voting, total), quorum_words(voting, total)
    if margin is Margin.NO_MAJORITY:
        return Cell(f"✗ {words}", Tone.BAD)
    if total == 1:
        return Cell("single node", Tone.QUIET)
    return Cell(f"▲ {words}", Tone.WARN) if margin is Margin.NO_MARGIN else Cell(words, Tone.QUIET)


def warnings(snapshot: ClusterSnapshot) -> tuple[Cell, ...]:
    """Alarms and partitions, which nobody may overlook."""
    found = []
    resources = sorted({visible(a.resource) for a in snapshot.alarms})
    if resources:
        found.append(Cell(f"! {' and '.join(resources)} alarm: publishers blocked", Tone.BAD))
    if snapshot.partitions:
        found.append(Cell("! partition", Tone.BAD))
    return tuple(found)


def node_brief(node: NodeView, *, chosen: bool) -> Line:
    """One node on one line, for narrow screens."""
    leads = UNKNOWN if node.leads is None else count(node.leads)
    connections = UNKNOWN if node.connections is None else count(node.connections)
    figures = node.figures if node.state in (NodeState.RUNNING, NodeState.DRAINING) else None
    line = [
        Cell("›" if chosen else " ", Tone.ACCENT),
        Cell(fit(visible(node.name), 12), Tone.STRONG),
        state_cell(node.state, 14),
        Cell(f"leaders {leads:>4} "),
        Cell(f"conns {connections:>4}  "),
        Cell(f"mem {size(figures.memory_bytes if figures else None):>7}", Tone.QUIET),
    ]
    if node.alarms:
        line.append(Cell("  ! " + " ".join(visible(a.resource) for a in node.alarms), Tone.BAD))
    return tuple(line)


def tabs(current: PaneId) -> tuple[tuple[PaneId, Cell], ...]:
    """The names of the panes with their keys; the current one stands out."""
    return tuple(
        (pane, Cell(f" {int(pane)} {title} ", Tone.ACCENT if pane is current else Tone.QUIET))
        for pane, title in PANE_NAMES.items()
    )


def tail_line(message: SeenMessage, width: int, *, exchange: bool = True) -> Line:
    """A message that passed: when, whether again, from which `exchange` (unless that is plain), key, queue and body."""
    path = visible(message.routing_key) or "(no key)"
    if exchange:
        path = f"{name(message.exchange)} → {path}"
    if message.queue:
        path += f" ⇒ {visible(message.queue)}"
    room = max(12, min(cell_len(path), (width - 16) // 2))
    again = Cell("↻ ", Tone.WARN) if message.redelivered else Cell("  ")
    line = [Cell(f"{clock(message.at)} ", Tone.QUIET), again, Cell(fit(path, room), Tone.STRONG), Cell("  ")]
    if message.size > len(message.body):
        line.append(Cell(f"[{size(message.size)}] ", Tone.QUIET))
    line.append(Cell(visible_body(message.body)) if message.body else Cell("(empty)", Tone.QUIET))
    return tuple(line)


def story_line(entry: StoryLine, width: int) -> Line:
    """An entry of the story: when, glyph, sentence, and the distance from the last fault at the right."""
    event = entry.event
    far = distance(entry.since_fault_s)
    room = max(8, width - 14 - (9 if far else 0))
    tone = Tone.STRONG if event.severity is Severity.FAULT else event_tone(event)
    return (
        Cell(f"{clock(event.at, 2)} ", Tone.QUIET),
        event_mark(event),
        Cell(" "),
        Cell(fit(event_text(event), room), tone),
        Cell(f" {far:>8}" if far else "", Tone.ACCENT if event.severity is Severity.FAULT else Tone.QUIET),
    )


def tail_text(messages: Sequence[SeenMessage]) -> str:
    """The tail as plain text."""
    return "\n".join("".join(c.text for c in tail_line(m, 200)) for m in messages)


def load_figures(account: LoadAccount) -> tuple[tuple[str, Cell], ...]:
    """What became of the messages, in the order of worth: word and figure; trouble is coloured."""
    gap = max(account.longest_confirm_gap_s, account.longest_delivery_gap_s)
    return (
        ("lost", _trouble(account.lost, Tone.BAD)),
        ("confirmed", Cell(count(account.confirmed), Tone.STRONG)),
        ("delivered", Cell(count(account.delivered), Tone.STRONG)),
        ("redelivered", _trouble(account.redelivered, Tone.WARN)),
        ("unknown", _trouble(account.unknown, Tone.WARN)),
        ("longest gap", Cell(duration(gap), Tone.WARN if gap >= 1 else Tone.STRONG)),
        ("in flight", Cell(count(account.in_flight))),
        ("nacked", _trouble(account.nacked, Tone.WARN)),
        ("returned", _trouble(account.returned, Tone.WARN)),
        ("duplicates", _trouble(account.duplicates, Tone.WARN)),
    )


def load_summary(account: LoadAccount, width: int) -> tuple[Line, Line]:
    """The account on two lines, first what matters most; where room is short whole figures go from the end."""
    figures = dict(load_figures(account))
    return (
        _facts(figures, ("confirmed", "delivered", "lost", "in flight", "duplicates"), width),
        _facts(figures, ("redelivered", "unknown", "longest gap", "nacked", "returned"), width),
    )


def load_lines(account: LoadAccount, width: int, height: int, faults: Sequence[float]) -> tuple[Line, ...]:
    """Pane 6: confirms and deliveries a second as two charts on one scale, the marks of faults below, the account.

    Where it is wide the account stands beside the charts, else below them; then the charts use the height.
    """
    facts = _load_facts(account)
    beside = width >= _LABEL + _LEAST_CHART + _RATE + 2 + max(width_of(f) for f in facts)
    room = width - _LABEL - _RATE - (2 + max(width_of(f) for f in facts) if beside else 1)
    chart = max(0, min(_MOST_SLICES, room))
    both = (*account.confirm_history[-chart:], *account.delivery_history[-chart:]) if chart else ()
    top = max(account.rate, max(both, default=0.0))
    tall = 1 if beside else max(1, min(6, (height - 6) // 2))
    charts = (
        *_chart("confirms/s", account.confirm_history, chart, tall, top),
        *_chart("deliveries/s", account.delivery_history, chart, tall, top),
        (Cell(" " * _LABEL), *_marks(account, chart, faults)),
    )
    if beside:
        return tuple((*line, Cell("  "), *fact) for line, fact in zip(charts, facts, strict=True))
    return (*charts, (), *_load_columns(account))


def keys(now: Situation, widths: Sequence[int]) -> tuple[tuple[tuple[Command, Line], ...], ...]:
    """The footer's lines of those `widths`: keys that work here, in table order.

    Where room is short those of the lowest priority go.
    """
    parts = [(c, (Cell(c.key, Tone.ACCENT), Cell(f" {label_of(c, now)}  ", Tone.QUIET))) for c in footer_commands(now)]
    while (laid := _in_lines(parts, widths)) is None:
        parts.remove(min(reversed(parts), key=lambda part: part[0].priority))
    return laid


def _in_lines(
    parts: Sequence[tuple[Command, Line]], widths: Sequence[int]
) -> tuple[tuple[tuple[Command, Line], ...], ...] | None:
    """`parts` on lines of those widths; None where there is no room for all."""
    lines: list[list[tuple[Command, Line]]] = [[] for _ in widths]
    at, used = 0, 0
    for part in parts:
        width = width_of(part[1])
        while at < len(widths) and used + width > widths[at]:
            at, used = at + 1, 0
        if at == len(widths):
            return None
        lines[at].append(part)
        used += width
    return tuple(map(tuple, lines))


def _nodes_up(snapshot: ClusterSnapshot) -> Line:
    total, up = len(snapshot.nodes), len(snapshot.running)
    tone = Tone.GOOD if up == total else Tone.WARN if snapshot.has_majority else Tone.BAD
    return (Cell("●" if up == total else "◐" if up else "✗", tone), Cell(f" {up}/{total} nodes", Tone.STRONG))


def _header_ends(snapshot: ClusterSnapshot, now: float) -> tuple[Line, ...]:
    old = snapshot.age_s(MANAGEMENT, now)
    late = bool(lateness(snapshot, now))
    tone = Tone.WARN if late else Tone.QUIET
    if old is None:
        return ((Cell("no figures yet", tone), Cell(" ")),)
    via = f"via {visible(snapshot.asks)}, " if snapshot.asks else ""
    return ((Cell(f"{via}{age(old)} old", tone), Cell(" ")), (Cell(age(old), tone), Cell(" ")))


def _trouble(number: int, tone: Tone) -> Cell:
    return Cell(count(number), tone if number else Tone.PLAIN)


def _facts(figures: dict[str, Cell], words: Sequence[str], width: int) -> Line:
    line: list[Cell] = [Cell(" ")]
    for word in words:
        fact = (Cell(f"{word} ", Tone.QUIET), figures[word])
        if width_of(line) + width_of(fact) <= width:
            line += [*fact, Cell("  ")]
    return tuple(line)


def _load_facts(account: LoadAccount) -> tuple[Line, ...]:
    figures = dict(load_figures(account))

    def fact(*words: str) -> Line:
        return tuple(c for w in words for c in (Cell(f"{w} ", Tone.QUIET), _padded(figures[w]), Cell("  ")))

    return (
        fact("confirmed", "unknown", "nacked", "returned"),
        fact("delivered", "in flight", "redelivered", "lost"),
        _gaps(account),
    )


def _load_columns(account: LoadAccount) -> tuple[Line, ...]:
    figures = dict(load_figures(account))

    def fact(*words: str) -> Line:
        cells = [(Cell(f" {w:<12}", Tone.QUIET), Cell(f"{figures[w].text:>10}", figures[w].tone)) for w in words]
        return tuple(c for pair in cells for c in pair)

    return (
        fact("confirmed", "delivered", "in flight"),
        fact("unknown", "redelivered", "lost"),
        fact("nacked", "returned", "duplicates"),
        (Cell(" "), *_gaps(account)),
    )


def _gaps(account: LoadAccount) -> Line:
    return (
        Cell("longest gap  confirm ", Tone.QUIET),
        _gap(account.longest_confirm_gap_s),
        Cell("  delivery ", Tone.QUIET),
        _gap(account.longest_delivery_gap_s),
    )


def _padded(cell: Cell) -> Cell:
    return Cell(f"{cell.text:>3}", cell.tone)


def _gap(number: float) -> Cell:
    return Cell(duration(number), Tone.WARN if number >= 1 else Tone.STRONG)


def _chart(title: str, history: tuple[float, ...], width: int, height: int, top: float) -> tuple[Line, ...]:
    last = rate(history[-1]) if history else UNKNOWN
    rows = bars(history, width, height, top)
    return tuple(
        (
            Cell(fit(f" {title}" if i == height - 1 else "", _LABEL), Tone.QUIET),
            Cell(row, Tone.ACCENT),
            Cell(f" {last:>{_RATE - 1}}" if i == height - 1 else " " * _RATE, Tone.STRONG),
        )
        for i, row in enumerate(rows)
    )


def _marks(account: LoadAccount, width: int, faults: Sequence[float]) -> Line:
    places = [" "] * width
    for at in faults:
        slot = width - 1 - int((account.taken_at - at) / account.slice_s)
        if 0 <= slot < width and at <= account.taken_at:
            places[slot] = _FAULT_MARK
    said = "fault" if _FAULT_MARK in places else ""
    return (Cell("".join(places), Tone.BAD), Cell(f" {said:>{_RATE - 1}}", Tone.QUIET))
