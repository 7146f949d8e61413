"""Where RabbitMQ would route a message, computed from exchanges and bindings; pure, nothing is asked or published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dmq_core.management.models import Arguments, BindingFigures, EntityKey, ExchangeFigures
from dmq_core.messaging.messages import NO_HEADERS, Headers

_COMPUTABLE_TYPES = frozenset({"direct", "fanout", "topic", "headers"})


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """What routing depends on. `complete` is False if there may be queues and bindings that we have not heard of."""

    exchanges: Mapping[EntityKey, ExchangeFigures]
    bindings: Mapping[EntityKey, tuple[BindingFigures, ...]]
    queues: frozenset[EntityKey]
    complete: bool = True

    @classmethod
    def made_of(
        cls,
        exchanges: Iterable[ExchangeFigures],
        bindings: Iterable[BindingFigures],
        queues: Iterable[EntityKey],
        *,
        complete: bool = True,
    ) -> Topology:
        """The topology of these parts."""
        by_source: dict[EntityKey, list[BindingFigures]] = {}
        for binding in bindings:
            by_source.setdefault(EntityKey(binding.vhost, binding.source), []).append(binding)
        return cls(
            exchanges={e.key: e for e in exchanges},
            bindings={source: tuple(of_source) for source, of_source in by_source.items()},
            queues=frozenset(queues),
            complete=complete,
        )


@dataclass(frozen=True, slots=True)
class Route:
    """The queues that get one copy each, in name order, and why the answer may be incomplete (safe text)."""

    queues: tuple[EntityKey, ...]
    doubts: tuple[str, ...] = ()


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic binding with `pattern` takes `routing_key`: `*` is one word, `#` any number, also none."""
    words = routing_key.split(".") if routing_key else []
    reachable = {0}
    for part in pattern.split(".") if pattern else []:
        if part == "#":
            reachable = set(range(min(reachable), len(words) + 1))
        else:
            reachable = {i + 1 for i in reachable if i < len(words) and part in ("*", words[i])}
        if not reachable:
            return False
    return len(words) in reachable


def headers_match(arguments: Arguments, headers: Headers) -> bool:
    """Whether a headers binding takes a message: `x-match` is `all` (default), `any`, `all-with-x` or `any-with-x`.

    An argument of None asks only that the header is there; an integer never equals a boolean or a float.
    """
    mode = str(arguments.get("x-match", "all"))
    wanted = {k: v for k, v in arguments.items() if k != "x-match" and (mode.endswith("-with-x") or k[:2] != "x-")}
    hits = [name in headers and (value is None or _same_value(value, headers[name])) for name, value in wanted.items()]
    return any(hits) if mode.startswith("any") else all(hits)


def route(
    topology: Topology,
    exchange: str,
    routing_key: str,
    headers: Headers = NO_HEADERS,
    virtual_host: str = "/",
) -> Route:
    """Where a message published to `exchange` would go, through exchange bindings and alternate exchanges."""
    walk = _Walk(topology, headers)
    keys = (routing_key, *_extra_keys(headers))
    walk.visit(EntityKey(virtual_host, exchange), keys)
    if not topology.complete:
        walk.doubts.setdefault("not every queue of this cluster is loaded")
    return Route(tuple(sorted(walk.queues)), tuple(walk.doubts))


class _Walk:
    def __init__(self, topology: Topology, headers: Headers) -> None:
        self.topology = topology
        self.headers = headers
        self.queues: set[EntityKey] = set()
        self.doubts: dict[str, None] = {}
        self._visited: set[EntityKey] = set()

    def visit(self, source: EntityKey, keys: tuple[str, ...]) -> None:
        """Follows `source` and all that it leads to; a loop instead of a recursion, so depth has no limit."""
        pending = [source]
        while pending:
            at = pending.pop()
            if at not in self._visited:
                self._visited.add(at)
                pending.extend(self._step(at, keys))

    def _step(self, source: EntityKey, keys: tuple[str, ...]) -> Iterable[EntityKey]:
        if source.name == "":
            self.queues |= {EntityKey(source.vhost, key) for key in keys} & self.topology.queues
            return ()
        exchange = self.topology.exchanges.get(source)
        if exchange is None:
            self.doubts.setdefault("an exchange on the way is not known here")
            return ()
        if exchange.type not in _COMPUTABLE_TYPES:
            self.doubts.setdefault("an exchange on the way has a plugin's type, whose choice only the broker knows")
            return ()
        return self._follow(exchange, keys)

    def _follow(self, exchange: ExchangeFigures, keys: tuple[str, ...]) -> Iterable[EntityKey]:
        bindings = self.topology.bindings.get(exchange.key, ())
        taken = [b for b in bindings if any(_takes(exchange.type, b, key, self.headers) for key in keys)]
        self.queues |= {EntityKey(b.vhost, b.destination) for b in taken if b.destination_type == "queue"}
        onward = [EntityKey(b.vhost, b.destination) for b in taken if b.destination_type == "exchange"]
        alternate = exchange.arguments.get("alternate-exchange")
        if not taken and isinstance(alternate, str):
            onward.append(EntityKey(exchange.vhost, alternate))
        elif not taken and exchange.policy is not None:
            self.doubts.setdefault("a policy may name an alternate exchange")
        return onward


def _takes(exchange_type: str, binding: BindingFigures, routing_key: str, headers: Headers) -> bool:
    match exchange_type:
        case "fanout":
            return True
        case "topic":
            return topic_matches(binding.routing_key, routing_key)
        case "headers":
            return headers_match(binding.arguments, headers)
        case _:
            return binding.routing_key == routing_key


def _same_value(wanted: object, given: object) -> bool:
    return type(wanted) is type(given) and wanted == given


def _extra_keys(headers: Headers) -> tuple[str, ...]:
    lists = (headers.get(name) for name in ("CC", "BCC"))
    return tuple(key for keys in lists if isinstance(keys, list | tuple) for key in keys if isinstance(key, str))
