"""A message being written: what the fields say, whether it can be sent, and where it would go. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dmq_core.errors import InvalidInputError
from dmq_core.management.models import EntityKey, ExchangeFigures
from dmq_core.messaging.messages import Outcome, OutgoingMessage, PublishResult
from dmq_core.messaging.topology.routing import Topology, route
from dmq_core.messaging.typed_fields import parse_headers, parse_properties, type_name
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone, size
from dmq_core.text import visible
from dmq_tui.render.format import Cell, name
from dmq_tui.widgets.paint import Line
from dmq_tui.widgets.prose import words

_JSON_LIMIT = 256 * 1024
_SHORT_STRING_BYTES = 255
_NAMED_QUEUES = 6


@dataclass(frozen=True, slots=True)
class MessageForm:
    """The fields of the form as typed."""

    exchange: str = ""
    routing_key: str = ""
    headers: str = ""
    properties: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class VirtualHostView:
    """What a form is judged against: the snapshot, its topology, and the names of one virtual host as shown."""

    snapshot: ClusterSnapshot
    topology: Topology
    virtual_host: str
    exchanges: Mapping[str, str]
    queues: Mapping[str, str]

    @classmethod
    def of(cls, snapshot: ClusterSnapshot, virtual_host: str) -> VirtualHostView:
        """What `snapshot` shows of `virtual_host`."""
        return cls(
            snapshot,
            topology_in(snapshot),
            virtual_host,
            {visible(e.name): e.name for e in snapshot.exchanges if e.vhost == virtual_host},
            {visible(q.key.name): q.key.name for q in snapshot.queues if q.key.vhost == virtual_host},
        )

    def exchange(self, typed: str) -> str:
        """The exchange that `typed` stands for: a name with control characters can only be typed as it is shown."""
        return self.exchanges.get(typed, typed)

    def routing_key(self, exchange: str, typed: str) -> str:
        """The routing key that `typed` stands for; on the default exchange it is a queue's name as it is shown."""
        return self.queues.get(typed, typed) if exchange == "" else typed

    def figures(self, exchange: str) -> ExchangeFigures | None:
        """The exchange called `exchange`."""
        return self.topology.exchanges.get(EntityKey(self.virtual_host, exchange))


def topology_in(snapshot: ClusterSnapshot) -> Topology:
    """What routing depends on, as far as `snapshot` shows it."""
    complete = snapshot.queues_total is None or snapshot.queues_total <= len(snapshot.queues)
    queues = (queue.key for queue in snapshot.queues)
    return Topology.made_of(snapshot.exchanges, snapshot.bindings, queues, complete=complete)


def message_of(form: MessageForm, view: VirtualHostView | None) -> OutgoingMessage:
    """The message that `form` describes; `InvalidInputError` names the field that is wrong."""
    exchange = view.exchange(form.exchange) if view else form.exchange
    routing_key = view.routing_key(exchange, form.routing_key) if view else form.routing_key
    for field, value in (("exchange", exchange), ("routing key", routing_key)):
        if len(_encoded(value)) > _SHORT_STRING_BYTES:
            raise InvalidInputError(f"the {field} is longer than 255 bytes", "AMQP allows no more; shorten it.")
    headers = parse_headers(form.headers.splitlines())
    properties = parse_properties(form.properties.splitlines(), headers)
    return OutgoingMessage(exchange, routing_key, _encoded(form.body), properties)


def header_notes(form: MessageForm) -> Line:
    """The headers with the types that were recognised, or what is wrong with them."""
    try:
        headers = parse_headers(form.headers.splitlines())
    except InvalidInputError as error:
        return words(error.what, Tone.WARN)
    if not headers:
        return words("name=value, one a line", Tone.QUIET)
    cells: list[Cell] = []
    for key, value in headers.items():
        separator = "" if not cells else " · "
        cells += [Cell(f"{separator}{visible(key)} ", Tone.PLAIN), Cell(type_name(value), Tone.ACCENT)]
    return tuple(cells)


def property_notes(form: MessageForm) -> Line:
    """What the properties amount to, or what is wrong with them."""
    try:
        properties = parse_properties(form.properties.splitlines(), {})
    except InvalidInputError as error:
        return words(error.what, Tone.WARN)
    mode = "persistent" if properties.delivery_mode == 2 else "transient"
    if not form.properties.strip():
        return words(f"{mode}; name=value, one a line", Tone.QUIET)
    return words(mode, Tone.QUIET)


def body_notes(form: MessageForm) -> Line:
    """The size of the body and whether it is JSON."""
    length = len(_encoded(form.body))
    if length == 0:
        return words("empty", Tone.QUIET)
    if length > _JSON_LIMIT:
        return words(f"{size(length)} · too long for the JSON check", Tone.QUIET)
    looks_like_json = form.body.lstrip()[:1] in ("{", "[", '"') or "json" in form.properties.lower()
    try:
        json.loads(form.body)
    except RecursionError:
        return (Cell(f"{size(length)} · "), Cell("JSON too deep to check", Tone.WARN))
    except json.JSONDecodeError as error:
        reason = f"{visible(error.msg)}, line {error.lineno} column {error.colno}"
        tone = Tone.WARN if looks_like_json else Tone.QUIET
        return (
            Cell(f"{size(length)} · ", Tone.QUIET),
            Cell(f"not JSON: {reason}" if looks_like_json else "text", tone),
        )
    return (Cell(f"{size(length)} · ", Tone.QUIET), Cell("JSON ✓", Tone.GOOD))


def exchange_note(form: MessageForm, view: VirtualHostView | None) -> Line:
    """What the exchange is."""
    if view is None:
        return words("not seen yet", Tone.QUIET)
    figures = view.figures(view.exchange(form.exchange))
    if figures is None:
        return words("no such exchange", Tone.WARN)
    if figures.name == "":
        return words("default: by queue name", Tone.QUIET)
    if figures.internal:
        return words(f"{visible(figures.type)}, internal", Tone.WARN)
    return words(visible(figures.type), Tone.QUIET)


def destination(form: MessageForm, view: VirtualHostView | None) -> Line:
    """Where the message would go now."""
    if view is None:
        return words("Where it would go is not known: no figures from the cluster yet.", Tone.WARN)
    try:
        message = message_of(form, view)
    except InvalidInputError as error:
        return (Cell("Not ready: ", Tone.WARN), Cell(error.what, Tone.WARN))
    if view.figures(message.exchange) is None:
        return words("It would be refused: there is no such exchange.", Tone.WARN)
    found = route(view.topology, message.exchange, message.routing_key, message.properties.headers, view.virtual_host)
    doubts = "".join(f"; {doubt}" for doubt in found.doubts)
    if not found.queues:
        known = "Where it would go is not known" if found.doubts else "No queue would take it: it would be returned"
        return words(f"{known}{doubts}.", Tone.WARN)
    total = len(found.queues)
    cells = [Cell(f"Would go to {total} queue{'' if total == 1 else 's'}: ", Tone.QUIET)]
    for index, key in enumerate(found.queues[:_NAMED_QUEUES]):
        cells += [Cell(", " if index else ""), *_queue_cells(view.snapshot, key)]
    if total > _NAMED_QUEUES:
        cells.append(Cell(f" and {total - _NAMED_QUEUES} more", Tone.QUIET))
    return (*cells, Cell(doubts, Tone.WARN))


def outcome_line(settlement: PublishResult, snapshot: ClusterSnapshot | None) -> Line:
    """How a publish ended, in one line."""
    where = _who(settlement.endpoint, snapshot)
    took = "" if settlement.seconds is None else f" in {settlement.seconds * 1000:,.0f} ms"
    reason = f": {visible(settlement.reason)}" if settlement.reason else ""
    match settlement.outcome:
        case Outcome.CONFIRMED:
            return (Cell("✓ confirmed", Tone.GOOD), Cell(f" by {where}{took}{reason}"))
        case Outcome.RETURNED:
            return (
                Cell("↩ returned", Tone.WARN),
                Cell(f" by {where}{took}: no queue wanted it{reason and f' ({reason[2:]})'}"),
            )
        case Outcome.NACKED:
            return (Cell("✗ refused", Tone.BAD), Cell(f" by {where}{took}{reason}"))
        case Outcome.UNKNOWN:
            return (
                Cell("? unknown", Tone.BAD),
                Cell(f" after asking {where}{reason}. It may be in the queue; sending again may double it."),
            )
        case Outcome.NOT_SENT:
            return (Cell("✗ not sent", Tone.BAD), Cell(f"{reason}. Nothing left; sending again is safe."))


def completion(typed: str, options: Iterable[str]) -> str | None:
    """The first of `options` in order that `typed` begins; never one that cannot be shown as it is."""
    if not typed:
        return None
    fitting = (o for o in options if o.startswith(typed) and o != typed and visible(o) == o)
    return min(fitting, default=None)


def key_options(form: MessageForm, view: VirtualHostView) -> Iterable[str]:
    """Routing keys that lead somewhere: queue names on the default exchange, else binding keys without wildcards."""
    exchange = view.exchange(form.exchange)
    if exchange == "":
        return view.queues.values()
    bindings = view.topology.bindings.get(EntityKey(view.virtual_host, exchange), ())
    return (b.routing_key for b in bindings if "*" not in b.routing_key and "#" not in b.routing_key)


Options = Callable[[], Iterable[str]]


def _queue_cells(snapshot: ClusterSnapshot, key: EntityKey) -> tuple[Cell, ...]:
    view = snapshot.queue(key)
    if view is not None and view.leader is None:
        return (Cell(name(key.name), Tone.STRONG), Cell(" (no leader now)", Tone.BAD))
    return (Cell(name(key.name), Tone.STRONG),)


def _who(endpoint: str | None, snapshot: ClusterSnapshot | None) -> str:
    if endpoint is None:
        return "the broker"
    nodes = snapshot.nodes if snapshot else ()
    known = next((n.name for n in nodes if f"{n.endpoint.host}:{n.endpoint.amqp_port}" == endpoint), None)
    return visible(f"{known} ({endpoint})" if known else endpoint)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
