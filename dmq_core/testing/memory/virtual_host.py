"""The exchanges, queues and bindings of one virtual host of the in-memory broker, and what it refuses to declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NoReturn

from dmq_core.management.models import BindingFigures, EntityKey, ExchangeFigures
from dmq_core.messaging.messages import Headers
from dmq_core.messaging.topology.model import Arguments, Binding, Exchange, Queue
from dmq_core.messaging.topology.queue_arguments import QUEUE_TYPES, judge_argument
from dmq_core.messaging.topology.routing import Topology, route
from dmq_core.testing.memory.queue import MemoryQueue
from dmq_core.testing.memory.refusal import refuse
from dmq_core.versions import Version

_BUILT_IN = (
    Exchange("amq.direct", "direct"),
    Exchange("amq.fanout", "fanout"),
    Exchange("amq.headers", "headers"),
    Exchange("amq.match", "headers"),
    Exchange("amq.topic", "topic"),
)
_TYPES = frozenset({"direct", "fanout", "topic", "headers"})
# What a broker does not know, it does not compare.
_COMPARED = frozenset(
    {
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-mode",
        "x-single-active-consumer",
        "x-delivery-limit",
        "x-delayed-retry-type",
        "x-delayed-retry-min",
        "x-delayed-retry-max",
        "x-max-age",
        "x-stream-max-segment-size-bytes",
    }
)


class VirtualHost:
    """What is declared under one name. Everything happens in the broker's turn."""

    def __init__(self, name: str, version: Version) -> None:
        self.name = name
        self.queues: dict[str, MemoryQueue] = {}
        self.exchanges: dict[str, Exchange] = {"": Exchange(""), **{e.name: e for e in _BUILT_IN}}
        self._bindings: dict[object, Binding] = {}
        self._version = version
        self._topology: Topology | None = None

    # Exchanges.

    def declare_exchange(self, wanted: Exchange) -> None:
        """Declares an exchange, or finds it as wanted."""
        if wanted.name == "":
            refuse(403, "operation not permitted on the default exchange")
        if wanted.type not in _TYPES:
            refuse(406 if self._version >= Version(4, 0) else 503, f"unknown exchange type '{wanted.type}'")
        there = self.exchanges.get(wanted.name)
        if there is not None:
            self._check_exchange(there, wanted)
            return
        if wanted.name.startswith("amq."):
            refuse(403, f"exchange name '{wanted.name}' contains reserved prefix 'amq.*'")
        self.exchanges[wanted.name] = wanted
        self._topology = None

    def _check_exchange(self, there: Exchange, wanted: Exchange) -> None:
        what = f"exchange '{wanted.name}' in vhost '{self.name}'"
        if there.type != wanted.type:
            _unlike("type", what, wanted.type, there.type)
        for field in ("durable", "auto_delete", "internal"):
            _compare(field, what, getattr(wanted, field), getattr(there, field))
        _compare_arguments(what, wanted.arguments, there.arguments, ("alternate-exchange",))

    def exchange(self, name: str) -> Exchange:
        """The exchange called `name`."""
        found = self.exchanges.get(name)
        if found is None:
            refuse(404, f"no exchange '{name}' in vhost '{self.name}'")
        return found

    def drop_exchange(self, name: str) -> None:
        """An exchange is deleted, if there is one, its bindings with it."""
        if name == "":
            refuse(403, "operation not permitted on the default exchange")
        if name.startswith("amq."):
            refuse(403, f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed")
        self.exchanges.pop(name, None)
        self._unbind(lambda b: b.source == name or (b.to_exchange and b.destination == name))

    # Queues.

    def queue(self, name: str) -> MemoryQueue:
        """The queue called `name`."""
        found = self.queues.get(name)
        if found is None:
            refuse(404, f"no queue '{name}' in vhost '{self.name}'")
        return found

    def checked_queue(self, wanted: Queue) -> Queue:
        """`wanted` with its type, if it may be declared where there is no queue of that name."""
        if wanted.name.startswith("amq."):
            refuse(403, f"queue name '{wanted.name}' contains reserved prefix 'amq.*'")
        arguments = wanted.all_arguments
        kind = arguments.get("x-queue-type", "classic")
        where = f"for queue '{wanted.name}' in vhost '{self.name}'"
        if kind not in QUEUE_TYPES:
            refuse(406, f"invalid arg 'x-queue-type' {where}: \"unsupported queue type '{kind}'\"")
        if kind != "classic":
            self._check_lasting(wanted, where)
        for name, value in arguments.items():
            verdict = judge_argument(name, value, str(kind), self._version)
            if verdict is not None and verdict.refused:
                refuse(406, f"invalid arg '{name}' {where}: {verdict.what}")
        return replace(wanted, type=str(kind), arguments=arguments)

    def _check_lasting(self, wanted: Queue, where: str) -> None:
        if not wanted.durable:
            refuse(406, f"invalid property 'non-durable' {where}")
        if wanted.exclusive:
            refuse(406, f"invalid property 'exclusive-owner' {where}")
        if wanted.auto_delete:
            refuse(406, f"invalid property 'auto-delete' {where}")

    def check_again(self, there: MemoryQueue, wanted: Queue) -> None:
        """Refuses a declaration that does not fit the queue that is there."""
        what = f"queue '{wanted.name}' in vhost '{self.name}'"
        arguments = {"x-queue-type": "classic", **wanted.all_arguments}
        if arguments["x-queue-type"] != there.spec.type:
            _unlike("x-queue-type", what, str(arguments["x-queue-type"]), str(there.spec.type))
        _compare("durable", what, wanted.durable, there.spec.durable)
        _compare("auto_delete", what, wanted.auto_delete, there.spec.auto_delete)
        known = [name for name in {**arguments, **there.spec.all_arguments} if name in _COMPARED]
        _compare_arguments(what, arguments, there.spec.all_arguments, sorted(known))

    def add(self, queue: MemoryQueue) -> None:
        """A queue is declared."""
        self.queues[queue.name] = queue
        self._topology = None

    def drop(self, queue: MemoryQueue) -> None:
        """A queue is deleted, its bindings with it."""
        if self.queues.get(queue.name) is not queue:
            return
        del self.queues[queue.name]
        self._unbind(lambda b: not b.to_exchange and b.destination == queue.name)
        queue.end()

    # Bindings.

    def bind(self, binding: Binding) -> None:
        """Adds a binding."""
        if binding.source == "" or (binding.to_exchange and binding.destination == ""):
            refuse(403, "operation not permitted on the default exchange")
        if binding.to_exchange:
            self.exchange(binding.destination)
        else:
            self.queue(binding.destination)
        self.exchange(binding.source)
        self._bindings[_identity(binding)] = binding
        self._topology = None

    def _unbind(self, fits: Callable[[Binding], bool]) -> None:
        gone = [binding for binding in self._bindings.values() if fits(binding)]
        for binding in gone:
            del self._bindings[_identity(binding)]
        self._topology = None
        for source in {binding.source for binding in gone}:
            self._drop_unused_exchange(source)

    def _drop_unused_exchange(self, name: str) -> None:
        exchange = self.exchanges.get(name)
        used = any(binding.source == name for binding in self._bindings.values())
        if exchange is not None and exchange.auto_delete and not used:
            del self.exchanges[name]
            self._unbind(lambda b: b.to_exchange and b.destination == name)

    # Routing.

    def targets(self, exchange: str, routing_key: str, headers: Headers) -> tuple[MemoryQueue, ...]:
        """The queues that get a copy each."""
        found = route(self._routes(), exchange, routing_key, headers, self.name).queues
        return tuple(self.queues[key.name] for key in found)

    def _routes(self) -> Topology:
        if self._topology is None:
            self._topology = Topology.made_of(
                (ExchangeFigures(self.name, e.name, e.type, arguments=e.arguments) for e in self.exchanges.values()),
                (_figures(self.name, binding) for binding in self._bindings.values()),
                (EntityKey(self.name, name) for name in self.queues),
            )
        return self._topology


def _figures(virtual_host: str, binding: Binding) -> BindingFigures:
    kind = "exchange" if binding.to_exchange else "queue"
    return BindingFigures(
        virtual_host, binding.source, binding.destination, kind, binding.routing_key, binding.arguments
    )


def _identity(binding: Binding) -> object:
    return binding.source, binding.destination, binding.to_exchange, binding.routing_key, repr(dict(binding.arguments))


def _compare(field: str, what: str, wanted: bool, there: bool) -> None:
    if wanted != there:
        _unlike(field, what, str(wanted).lower(), str(there).lower())


def _compare_arguments(what: str, wanted: Arguments, there: Arguments, names: Iterable[str]) -> None:
    for name in names:
        if wanted.get(name) != there.get(name):
            received, current = _told(wanted, name), _told(there, name)
            refuse(406, f"inequivalent arg '{name}' for {what}: received {received} but current is {current}")


def _unlike(name: str, what: str, wanted: str, there: str) -> NoReturn:
    refuse(406, f"inequivalent arg '{name}' for {what}: received '{wanted}' but current is '{there}'")


def _told(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if value is None:
        return "none"
    kind = {bool: "bool", int: "signedint", str: "longstr"}.get(type(value), type(value).__name__)
    return f"the value '{str(value).lower() if isinstance(value, bool) else value}' of type '{kind}'"
