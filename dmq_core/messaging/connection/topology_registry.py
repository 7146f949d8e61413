"""The exchanges, queues and bindings that a program needs, declared again wherever its connections come to."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dmq_core.messaging.connection.topology_commands import is_adopted, is_refusal
from dmq_core.messaging.topology.lint import in_order
from dmq_core.messaging.topology.model import NOT_IMPLEMENTED, Binding, Entity
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.messaging.topology.model import QueueDepth
    from dmq_core.messaging.transport.close_reason import CloseReason
    from dmq_core.messaging.transport.protocol import Channel, Link

_LOG = logging.getLogger("dmq.messaging")


class TopologyRegistry:
    """What was declared, by name, and what the broker last refused of it; methods may be called from any thread.

    It is the opening of every connection: on each new link everything is declared again, each entity after what it
    needs. One that the broker refuses does not keep the rest from being declared.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entities: dict[object, Entity] = {}
        self._refused: dict[object, str] = {}
        self._given_up: set[object] = set()

    def add(self, entities: Iterable[Entity]) -> None:
        """Keeps `entities`; each replaces an earlier one of its name, unless it would have taken that one as it is."""
        with self._lock:
            for entity in entities:
                known = self._entities.get(_identity(entity))
                if known is None or isinstance(entity, Binding) or not entity.adopt:
                    self._entities[_identity(entity)] = entity
                    self._given_up.discard(_identity(entity))

    def remove(self, entities: Iterable[Entity]) -> None:
        """Forgets `entities`; another of the same name stays."""
        with self._lock:
            for entity in entities:
                if self._entities.get(_identity(entity)) == entity:
                    del self._entities[_identity(entity)]
                    self._refused.pop(_identity(entity), None)

    def entities(self) -> tuple[Entity, ...]:
        """Everything, in the order in which it is declared."""
        with self._lock:
            return in_order(self._entities.values())

    def declarable(self) -> tuple[Entity, ...]:
        """What is declared again: everything but what the broker ends a whole connection over."""
        with self._lock:
            return in_order(entity for key, entity in self._entities.items() if key not in self._given_up)

    def refused(self) -> tuple[tuple[Entity, str], ...]:
        """What the broker refused when it was last declared, with its words."""
        with self._lock:
            return tuple((self._entities[key], words) for key, words in self._refused.items() if key in self._entities)

    def run(self, link: Link, done: Callable[[], None]) -> None:
        """Declares everything over `link`, then calls `done`; on the I/O thread."""
        _Redeclaration(self, link, done).begin()

    def note(self, entity: Entity, problem: str | None, *, give_up: bool = False) -> None:
        """Remembers how the declaration of `entity` ended; None: well. `give_up`: it is not to be tried again."""
        with self._lock:
            if give_up:
                self._given_up.add(_identity(entity))
            if problem is None:
                self._refused.pop(_identity(entity), None)
            else:
                self._refused[_identity(entity)] = problem


class _Redeclaration:
    """One declaration of everything, on a fresh channel after each refusal."""

    def __init__(self, registry: TopologyRegistry, link: Link, done: Callable[[], None]) -> None:
        self._registry = registry
        self._link = link
        self._done = done
        self._left = deque(registry.declarable())

    def begin(self) -> None:
        if self._left:
            self._link.channel(self._step, self._closed)
        else:
            self._done()

    def _step(self, channel: Channel) -> None:
        if not self._left:
            channel.close()
            self._done()
            return

        def declared(_depth: QueueDepth | None) -> None:
            self._registry.note(self._left.popleft(), None)
            self._step(channel)

        channel.declare(self._left[0], declared)

    def _closed(self, reason: CloseReason) -> None:
        if not self._left or reason.code is None or not is_refusal(reason):
            # Done, or the link is lost: the next one begins anew.
            return
        entity = self._left.popleft()
        problem = None if is_adopted(entity, reason) else visible(reason.text)
        self._registry.note(entity, problem, give_up=reason.code == NOT_IMPLEMENTED)
        if problem is not None:
            _LOG.warning("not declared again: %s", problem)
        self.begin()


def _identity(entity: Entity) -> object:
    if isinstance(entity, Binding):
        return entity.source, entity.destination, entity.to_exchange, entity.routing_key, repr(dict(entity.arguments))
    return type(entity), entity.name
