"""What the details of a node, an exchange or a queue say, as pages of lines computed from a snapshot. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dmq_core.cluster.protocol import NodeState
from dmq_core.majority import spare
from dmq_core.management.models import Arguments, BindingFigures, EntityKey, ExchangeFigures, NodeFigures
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView, QueueView
from dmq_core.presentation import UNKNOWN, Tone, count, duration, rate, size
from dmq_core.text import visible
from dmq_tui.render.chart import scaled_bars
from dmq_tui.render.format import Cell, fit, members, name, state_cell
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import words

_LABEL = 18
_LISTED = 500
_CHART_HEIGHT = 5


class SubjectKind(StrEnum):
    """What has details."""

    NODE = "node"
    EXCHANGE = "exchange"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing by its key: a node's name (ours), or the name of an exchange or queue in a virtual host."""

    kind: SubjectKind
    name: str
    vhost: str = "/"

    @property
    def key(self) -> EntityKey:
        """Its key among exchanges or queues."""
        return EntityKey(self.vhost, self.name)

    @property
    def title(self) -> str:
        """`queue orders`, safe to show."""
        place = "" if self.kind is SubjectKind.NODE or self.vhost == "/" else f" in {visible(self.vhost)}"
        return f"{self.kind} {name(self.name)}{place}"


@dataclass(frozen=True, slots=True)
class QueueSample:
    """What the charts of a queue keep of one snapshot: depths in messages, rates in messages a second."""

    ready: float
    unacked: float
    published: float
    delivered: float


PAGES: dict[SubjectKind, tuple[str, ...]] = {
    SubjectKind.NODE: ("Figures", "Queues", "Connections", "Log"),
    SubjectKind.EXCHANGE: ("Bindings", "Settings"),
    SubjectKind.QUEUE: ("State", "Rates", "Bindings", "Settings"),
}


def exists(subject: Subject, snapshot: ClusterSnapshot) -> bool:
    """Whether the thing is still there."""
    match subject.kind:
        case SubjectKind.NODE:
            return snapshot.node(subject.name) is not None
        case SubjectKind.EXCHANGE:
            return _exchange(subject, snapshot) is not None
        case SubjectKind.QUEUE:
            return snapshot.queue(subject.key) is not None


def sample_of(subject: Subject, snapshot: ClusterSnapshot) -> QueueSample | None:
    """What the charts keep of `snapshot`; None for anything but a queue that is there."""
    view = snapshot.queue(subject.key) if subject.kind is SubjectKind.QUEUE else None
    if view is None:
        return None
    figures = view.figures
    return QueueSample(
        figures.ready or 0, figures.unacked or 0, figures.publish_rate or 0.0, figures.deliver_rate or 0.0
    )


def page(
    title: str, subject: Subject, snapshot: ClusterSnapshot, samples: Sequence[QueueSample], width: int
) -> list[Line]:
    """The lines of the page called `title`; the log of a node is not among them."""
    match subject.kind:
        case SubjectKind.NODE:
            node = snapshot.node(subject.name)
            return [] if node is None else _node_page(title, node, snapshot)
        case SubjectKind.EXCHANGE:
            exchange = _exchange(subject, snapshot)
            return [] if exchange is None else _exchange_page(title, exchange, snapshot)
        case SubjectKind.QUEUE:
            queue = snapshot.queue(subject.key)
            return [] if queue is None else _queue_page(title, queue, snapshot, samples, width)


# -- queue ------------------------------------------------------------------------------------------------------------
def _queue_page(
    title: str, queue: QueueView, snapshot: ClusterSnapshot, samples: Sequence[QueueSample], width: int
) -> list[Line]:
    match title:
        case "State":
            return _queue_state(queue, snapshot)
        case "Rates":
            return _queue_rates(queue, samples, width)
        case "Bindings":
            return _queue_bindings(queue, snapshot)
        case _:
            return _settings(queue.figures.arguments, queue.figures.policy, _queue_flags(queue), _queue_commands(queue))


def _queue_state(queue: QueueView, snapshot: ClusterSnapshot) -> list[Line]:
    figures = queue.figures
    state = figures.state or UNKNOWN
    tone = Tone.PLAIN if state in ("running", "idle", UNKNOWN) else Tone.BAD
    lines = [
        _fact("type", visible(figures.type)),
        _fact("state", visible(state), tone),
        _fact("leader", queue.leader or "none now", Tone.PLAIN if queue.leader else Tone.BAD),
        (Cell(fit("members", _LABEL), Tone.QUIET), members(len(queue.online), len(queue.members))),
        *(_member(queue, member, snapshot) for member in queue.members),
        (),
        _fact("ready", count(figures.ready)),
        _fact("unacked", count(figures.unacked)),
        _fact("consumers", count(figures.consumers)),
        _fact("memory", size(figures.memory_bytes)),
    ]
    if figures.type == "quorum" and len(queue.members) > 1:
        lines += [(), _margin(spare(len(queue.online), len(queue.members)))]
    return lines


def _member(queue: QueueView, member: str, snapshot: ClusterSnapshot) -> Line:
    node = snapshot.node(member)
    online = member in queue.online
    role = "leader" if member == queue.leader else "follower"
    state = "node not known" if node is None else str(node.state)
    word = "online" if online else f"offline, node {state}" if state != "running" else "offline"
    glyph, tone = ("●", Tone.GOOD) if online else ("✗", Tone.BAD)
    role_tone = Tone.STRONG if role == "leader" else Tone.PLAIN
    return (
        Cell(" " * _LABEL),
        Cell(f"{glyph} ", tone),
        Cell(fit(visible(member), 14)),
        Cell(fit(role, 10), role_tone),
        Cell(word, Tone.PLAIN if online else Tone.BAD),
    )


def _margin(left: int) -> Line:
    if left > 0:
        return words(f"survives the loss of {left} member{'' if left == 1 else 's'}")
    if left == 0:
        return (Cell("▲ ", Tone.WARN), Cell("does not survive the loss of another member", Tone.WARN))
    return (
        Cell("✗ ", Tone.BAD),
        Cell("It has no majority: it takes and gives no messages until members return.", Tone.BAD),
    )


def _queue_rates(queue: QueueView, samples: Sequence[QueueSample], width: int) -> list[Line]:
    figures = queue.figures
    published = [m.published for m in samples]
    if len(queue.history) > len(published):
        published = list(queue.history)
    lines: list[Line] = [
        (
            *_rate("in/s", figures.publish_rate),
            *_rate("out/s", figures.deliver_rate),
            *_rate("acked/s", figures.ack_rate),
            *_rate("redelivered/s", figures.redeliver_rate),
        )
    ]
    curves = (
        ("published a second", published, Tone.ACCENT),
        ("delivered a second", [m.delivered for m in samples], Tone.ACCENT),
        ("ready", [m.ready for m in samples], Tone.WARN),
        ("unacked", [m.unacked for m in samples], Tone.PLAIN),
    )
    for title, values, tone in curves:
        if any(values) or title == "published a second":
            lines += [
                (),
                words(title, Tone.QUIET),
                *(words(row, tone) for row in scaled_bars(values, width, _CHART_HEIGHT)),
            ]
    return lines


def _rate(label: str, value: float | None) -> tuple[Cell, Cell]:
    return Cell(f"{label} ", Tone.QUIET), Cell(f"{rate(value)}   ", Tone.STRONG)


def _queue_bindings(queue: QueueView, snapshot: ClusterSnapshot) -> list[Line]:
    mine = [
        b
        for b in snapshot.bindings
        if (b.vhost, b.destination_type, b.destination) == (queue.key.vhost, "queue", queue.key.name)
    ]
    lines: list[Line] = [words(f"{len(mine)} binding{'' if len(mine) == 1 else 's'}", Tone.QUIET), ()]
    lines += [_binding(b, f"from {name(b.source)}") for b in mine[:_LISTED]]
    return lines + _more(len(mine))


def _queue_flags(queue: QueueView) -> str:
    figures = queue.figures
    flags = ["durable" if figures.durable else "transient"]
    flags += ["exclusive"] if figures.exclusive else []
    flags += ["auto-delete"] if figures.auto_delete else []
    return ", ".join(flags)


def _queue_commands(queue: QueueView) -> tuple[str, ...]:
    quoted, kind = _quoted(queue.key.name), _quoted(queue.figures.type)
    return (
        f"dmq queue show {quoted}",
        f"dmq tail --queue {quoted}",
        f"dmq publish --key {quoted} 'Hello World!'",
        f"dmq queue declare {quoted} --type {kind}",
    )


# -- exchange ---------------------------------------------------------------------------------------------------------
def _exchange(subject: Subject, snapshot: ClusterSnapshot) -> ExchangeFigures | None:
    return next((e for e in snapshot.exchanges if e.key == subject.key), None)


def _exchange_page(title: str, exchange: ExchangeFigures, snapshot: ClusterSnapshot) -> list[Line]:
    if title == "Bindings":
        return _exchange_bindings(exchange, snapshot)
    flags = ["durable" if exchange.durable else "transient"]
    flags += ["auto-delete"] if exchange.auto_delete else []
    flags += ["internal: only other exchanges publish to it"] if exchange.internal else []
    quoted = _quoted(exchange.name)
    commands = [f"dmq publish --exchange {quoted} --key KEY 'Hello World!'"]
    if exchange.name:
        commands += [f"dmq tail --exchange {quoted}", f"dmq exchange declare {quoted} --type {_quoted(exchange.type)}"]
    return _settings(exchange.arguments, exchange.policy, ", ".join(flags), tuple(commands))


def _exchange_bindings(exchange: ExchangeFigures, snapshot: ClusterSnapshot) -> list[Line]:
    onward = [b for b in snapshot.bindings if (b.vhost, b.source) == exchange.key]
    inward = [
        b for b in snapshot.bindings if b.destination_type == "exchange" and (b.vhost, b.destination) == exchange.key
    ]
    lines: list[Line] = [
        (
            *_fact("type", visible(exchange.type)),
            Cell("   "),
            *_rate("in/s", exchange.publish_in_rate),
            *_rate("out/s", exchange.publish_out_rate),
        ),
        (),
    ]
    if exchange.name == "":
        lines.append(words("Every queue is bound to it by its own name; that cannot be changed.", Tone.QUIET))
    lines.append(words(f"Goes to {len(onward)}", Tone.STRONG))
    lines += [_binding(b, f"→ {b.destination_type} {name(b.destination)}") for b in onward[:_LISTED]]
    lines += _more(len(onward))
    if not onward:
        lines.append(words("  Nothing is bound: what is published here is returned or dropped.", Tone.WARN))
    if inward:
        lines += [(), words(f"Fed by {len(inward)}", Tone.STRONG)]
        lines += [_binding(b, f"← exchange {name(b.source)}") for b in inward[:_LISTED]]
    return lines


# -- node -------------------------------------------------------------------------------------------------------------
def _node_page(title: str, node: NodeView, snapshot: ClusterSnapshot) -> list[Line]:
    match title:
        case "Figures":
            return _node_figures(node, snapshot)
        case "Queues":
            return _node_queues(node, snapshot)
        case _:
            return _node_connections(node, snapshot)


def _node_figures(node: NodeView, snapshot: ClusterSnapshot) -> list[Line]:
    figures = node.figures
    lines: list[Line] = [
        (Cell(fit("state", _LABEL), Tone.QUIET), state_cell(node.state)),
        _fact("RabbitMQ's name", visible(node.erlang_name)),
        _fact("AMQP", node.endpoint.amqp_url or UNKNOWN),
        _fact("management", node.endpoint.management_url or UNKNOWN),
        _fact("leads", count(node.leads)),
        _fact("follows", count(node.follows)),
        _fact("connections", count(node.connections)),
        *(
            _fact("alarm", f"{visible(a.resource)}: every publisher of the cluster is blocked", Tone.BAD)
            for a in node.alarms
        ),
        (),
    ]
    known = NodeFigures(node.erlang_name, running=False)
    if figures is not None and figures.running:
        known = figures
    else:
        lines.append(words("RabbitMQ does not answer on this node; the figures below are not known.", Tone.WARN))
    lines += [
        _fact("version", visible(known.version or UNKNOWN)),
        _fact("up", UNKNOWN if known.uptime_ms is None else duration(known.uptime_ms / 1000)),
        _fact("memory", _of(size(known.memory_bytes), size(known.memory_limit_bytes))),
        _fact(
            "disk free",
            _at_least(size(known.disk_free_bytes), size(known.disk_limit_bytes)),
        ),
        _fact("files", _of(count(known.files_used), count(known.files_total))),
        _fact("sockets", count(known.sockets_used)),
        _fact("processes", count(known.processes_used)),
    ]
    lines += [(), words("as command", Tone.STRONG), words(f"  dmq node logs {_quoted(node.name)}")]
    if snapshot.backend != "attached":
        verb = "start" if node.state is NodeState.STOPPED else "kill"
        lines.append(words(f"  dmq node {verb} {_quoted(node.name)}"))
    return lines


def _node_queues(node: NodeView, snapshot: ClusterSnapshot) -> list[Line]:
    led = [q for q in snapshot.queues if q.leader in (node.name, node.erlang_name)]
    lines: list[Line] = [words(f"{node.name} leads {len(led)} queue{'' if len(led) == 1 else 's'}", Tone.QUIET), ()]
    if led:
        lines.append(
            words(f"{fit('QUEUE', 34)} {fit('TYPE', 8)} MEMBERS {'READY'.rjust(9)} {'IN/s'.rjust(8)}", Tone.QUIET)
        )
    for queue in led[:_LISTED]:
        figures = queue.figures
        lines.append(
            (
                Cell(f"{fit(name(figures.name), 34)} {fit(visible(figures.type), 8)}   "),
                members(len(queue.online), len(queue.members)),
                Cell(f"{count(figures.ready).rjust(9)} {rate(figures.publish_rate).rjust(8)}"),
            )
        )
    return lines + _more(len(led))


def _node_connections(node: NodeView, snapshot: ClusterSnapshot) -> list[Line]:
    mine = [c for c in snapshot.connections if c.node in (node.name, node.erlang_name)]
    lines: list[Line] = [words(f"{len(mine)} connection{'' if len(mine) == 1 else 's'}", Tone.QUIET), ()]
    for connection in mine[:_LISTED]:
        who = connection.client_name or connection.name
        peer = UNKNOWN if connection.peer_host is None else f"{connection.peer_host}:{connection.peer_port}"
        lines.append(
            (
                Cell(fit(visible(who), 28)),
                Cell(f" {fit(visible(peer), 22)} {fit(visible(connection.user or UNKNOWN), 10)}", Tone.QUIET),
                Cell(f" {count(connection.channels)} ch  {visible(connection.state or UNKNOWN)}"),
            )
        )
    return lines + _more(len(mine))


# -- shared -----------------------------------------------------------------------------------------------------------
def log_lines(text: str) -> list[Line]:
    """A node's log, a line each, errors and warnings in colour."""
    lines: list[Line] = []
    for line in text.splitlines():
        tone = Tone.BAD if "[error]" in line else Tone.WARN if "[warning]" in line else Tone.PLAIN
        lines.append(words(visible(line.expandtabs()), tone))
    return lines or [words("The log is empty.", Tone.QUIET)]


def _settings(arguments: Arguments, policy: str | None, flags: str, commands: Sequence[str]) -> list[Line]:
    lines: list[Line] = [_fact("kept", flags), _fact("policy", "none" if policy is None else visible(policy))]
    lines += [(), words("arguments", Tone.STRONG)]
    lines += [_fact(f"  {visible(key)}", _shown(value)) for key, value in sorted(arguments.items())]
    lines += [] if arguments else [words("  none", Tone.QUIET)]
    lines += [(), words("as command", Tone.STRONG), *(words(f"  {command}") for command in commands)]
    return lines


def _binding(binding: BindingFigures, where: str) -> Line:
    arguments = "" if not binding.arguments else f"  {_shown(dict(binding.arguments))}"
    key = f"key {visible(binding.routing_key)}" if binding.routing_key else "no key"
    return (
        Cell(f"  {fit(where, 40)} "),
        Cell(key, Tone.ACCENT if binding.routing_key else Tone.QUIET),
        Cell(arguments, Tone.QUIET),
    )


def _fact(label: str, value: str, tone: Tone = Tone.PLAIN) -> Line:
    return (Cell(f"{fit(label, max(_LABEL, len(label) + 1))}", Tone.QUIET), Cell(value, tone))


def _more(total: int) -> list[Line]:
    return [words(f"  and {total - _LISTED:,} more", Tone.QUIET)] if total > _LISTED else []


def _shown(value: object) -> str:
    return visible(value) if isinstance(value, str) else visible(json.dumps(value, ensure_ascii=False, default=str))


def _quoted(text: str) -> str:
    if visible(text) == text:
        return shlex.quote(text)
    return "$'" + visible(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def _of(part: str, whole: str) -> str:
    return part if whole == UNKNOWN else f"{part} of {whole}"


def _at_least(part: str, limit: str) -> str:
    return part if limit == UNKNOWN else f"{part}, alarm below {limit}"
