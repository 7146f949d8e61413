"""Why messages die in a queue and where they go then, computed from declared entities; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dmq_core.management.models import BindingFigures, EntityKey, ExchangeFigures
from dmq_core.messaging.topology.model import Binding, Entity, Exchange, Queue
from dmq_core.messaging.topology.queue_arguments import QUORUM, delivery_limit, queue_kind
from dmq_core.messaging.topology.routing import Route, Topology, route
from dmq_core.text import visible
from dmq_core.versions import Version

_VHOST = "/"
_BUILT_IN: Mapping[str, str] = {
    "": "direct",
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.topic": "topic",
}


def declared_exchange(name: str) -> Exchange | None:
    """The exchange `name` as every virtual host has it; None if it is not one of the broker's own."""
    return Exchange(name, _BUILT_IN[name]) if name in _BUILT_IN else None


def reasons_to_die(queue: Queue, version: Version) -> tuple[str, ...]:
    """Why a message leaves `queue` though nobody acknowledged or rejected it for good, as words for people."""
    arguments = queue.arguments
    reasons = []
    if "x-message-ttl" in arguments:
        reasons.append(f"they are {visible(str(arguments['x-message-ttl']))} ms old")
    if ("x-max-length" in arguments or "x-max-length-bytes" in arguments) and _drops_head(queue):
        reasons.append("the queue is full")
    if queue_kind(queue) == QUORUM:
        limit = delivery_limit(arguments, version)
        if limit is not None:
            reasons.append(f"they were returned more than {limit} times")
    return tuple(reasons)


def listing(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


class DeadLetters:
    """The ways of dead letters among `entities`, beside the exchanges that every virtual host has."""

    def __init__(self, entities: Sequence[Entity], version: Version) -> None:
        self._version = version
        self._queues = {e.name: e for e in entities if isinstance(e, Queue)}
        self._bindings = [e for e in entities if isinstance(e, Binding)]
        exchanges = {name: Exchange(name, kind) for name, kind in _BUILT_IN.items()}
        exchanges |= {e.name: e for e in entities if isinstance(e, Exchange)}
        self._exchanges = exchanges
        self._topology = Topology.made_of(
            (ExchangeFigures(_VHOST, e.name, e.type, arguments=e.arguments) for e in exchanges.values()),
            (_figures(b) for b in self._bindings),
            (EntityKey(_VHOST, name) for name in self._queues),
        )

    def exchange_type(self, name: str) -> str | None:
        """The type of the exchange `name`; None if there is none that we know of."""
        exchange = self._exchanges.get(name)
        return None if exchange is None else exchange.type

    def has_queue(self, name: str) -> bool:
        """Whether the queue `name` is declared here."""
        return name in self._queues

    def sure_of(self, queue: Queue) -> bool:
        """Whether everything is known that decides where the dead letters of `queue` go."""
        by_headers = self.exchange_type(str(queue.arguments.get("x-dead-letter-exchange"))) == "headers"
        has_key = "x-dead-letter-routing-key" in queue.arguments
        return has_key and not by_headers and not any(found.doubts for found in self._routes(queue))

    def targets(self, queue: Queue) -> tuple[Queue, ...]:
        """The queues that dead letters of `queue` may reach.

        Without a routing key of their own they keep that of the message: the queue's name or a key it is bound by.
        """
        names = {key.name for found in self._routes(queue) for key in found.queues}
        return tuple(q for name, q in self._queues.items() if name in names)

    def cycles(self) -> Iterator[tuple[Queue, ...]]:
        """The circles in which a message can go round without being rejected; each once, from its first queue on."""
        order = list(self._queues.values())
        deadly = [q for q in order if reasons_to_die(q, self._version)]
        onward = {q.name: [t for t in self.targets(q) if t in deadly] for q in deadly}
        for index, start in enumerate(order):
            circle = _circle(start, onward, {q.name for q in order[:index]}) if start.name in onward else None
            if circle is not None:
                yield circle

    def _routes(self, queue: Queue) -> list[Route]:
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if not isinstance(exchange, str):
            return []
        key = queue.arguments.get("x-dead-letter-routing-key")
        keys = {key} if isinstance(key, str) else {queue.name, *self._keys_of(queue)}
        return [route(self._topology, exchange, key) for key in sorted(keys)]

    def _keys_of(self, queue: Queue) -> Iterator[str]:
        return (b.routing_key for b in self._bindings if not b.to_exchange and b.destination == queue.name)


def _circle(start: Queue, onward: Mapping[str, list[Queue]], done: set[str]) -> tuple[Queue, ...] | None:
    """The shortest way from `start` back to itself that avoids the queues `done`."""
    ways: list[tuple[Queue, ...]] = [(start,)]
    seen = set(done)
    while ways:
        way = ways.pop(0)
        for target in onward[way[-1].name]:
            if target.name == start.name:
                return way
            if target.name not in seen:
                seen.add(target.name)
                ways.append((*way, target))
    return None


def _drops_head(queue: Queue) -> bool:
    refuses = ("reject-publish",) if queue_kind(queue) == QUORUM else ("reject-publish", "reject-publish-dlx")
    return queue.arguments.get("x-overflow") not in refuses


def _figures(binding: Binding) -> BindingFigures:
    kind = "exchange" if binding.to_exchange else "queue"
    return BindingFigures(_VHOST, binding.source, binding.destination, kind, binding.routing_key, binding.arguments)
