"""A small deterministic simulation of a RabbitMQ cluster: nodes, queues with leaders, routing, and a clock."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dmq_core.cluster.node_config import NODE_NAME_PREFIX
from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.majority import is_majority
from dmq_core.management.models import BindingFigures, EntityKey, ExchangeFigures, QueueFigures
from dmq_core.messaging.messages import Outcome, OutgoingMessage, SeenMessage
from dmq_core.messaging.topology.routing import Topology, route
from dmq_core.observe.events import Details, Event, Origin, Severity
from dmq_core.text import visible

EPOCH = 1_790_000_000.0
STEP_S = 0.05
TICK_S = 1.0
# Epoch seconds are no finer than a quarter of a microsecond, and steps add up.
ROUNDING_S = 1e-4
ELECTION_S = 0.5
SILENT_ELECTION_S = 1.2
HANDED_OVER_S = 0.2
_BUILT_IN = (
    ("", "direct"),
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
    ("amq.rabbitmq.trace", "topic"),
    ("amq.topic", "topic"),
)


@dataclass(slots=True)
class SimNode:
    """One simulated node."""

    name: str
    number: int
    state: NodeState
    up_since: float

    @property
    def erlang_name(self) -> str:
        """RabbitMQ's name of the node."""
        return f"rabbit@{self.name}"

    @property
    def serves(self) -> bool:
        """Whether it takes clients and its replicas vote; maintenance ends both."""
        return self.state is NodeState.RUNNING

    @property
    def endpoint(self) -> NodeEndpoint:
        """The address that a real node of this number would have."""
        return NodeEndpoint("127.0.0.1", 5671 + self.number, 15671 + self.number)

    def memory_bytes(self, now: float) -> int:
        """What it uses at `now`: a little more and a little less, each node for itself."""
        wave = abs((int(now) / 7 + self.number * 3) % 12 - 6)
        return int((150 + 12 * self.number + 4 * wave) * 1_000_000)


@dataclass(slots=True)
class SimMessage:
    """A message in a queue; `number` is its place in a load's own count (0: it is not a load's)."""

    message: OutgoingMessage
    number: int = 0
    redelivered: bool = False


@dataclass(slots=True)
class SimQueue:
    """One simulated queue; `leader` and `members` are our node names; `steady_rate` is traffic from elsewhere.

    `published`, `delivered` and `redelivered` count messages since it was declared.
    """

    figures: QueueFigures
    leader: str | None
    members: tuple[str, ...]
    messages: deque[SimMessage] = field(default_factory=deque)
    unacked: int = 0
    consumers: int = 0
    steady_rate: float = 0.0
    published: float = 0
    delivered: float = 0
    redelivered: int = 0

    @property
    def replicated(self) -> bool:
        """Whether it has members on several nodes that elect a leader."""
        return self.figures.type != "classic"


class Stepper(Protocol):
    """Something that lives in the simulation and moves with its clock."""

    def step(self, now: float, elapsed_s: float) -> None:
        """Moves on to `now`."""
        ...


class SimBroker:
    """The simulated cluster. With `realtime` its clock follows the wall; else only `advance` moves it.

    Thread-safe; everything that waits inside the simulation (a boot, a confirm) moves a virtual clock by itself.

    >>> from dmq_core.testing import FakeSession, SimBroker
    >>> def one_queue(broker: SimBroker) -> None:
    ...     _ = broker.declare_queue("orders", leader="rmq2")
    >>> [queue.figures.name for queue in FakeSession(one_queue).snapshot().queues]
    ['orders']
    """

    def __init__(self, name: str, node_count: int, *, backend: Backend, started: bool, realtime: bool) -> None:
        self.name = name
        self.backend = backend
        self.realtime = realtime
        self.lock = threading.RLock()
        self.now = time.time() if realtime else EPOCH
        self.exists = started
        self.nodes = {f"rmq{i}": SimNode(f"rmq{i}", i, NodeState.STOPPED, self.now) for i in range(1, node_count + 1)}
        self.exchanges: dict[EntityKey, ExchangeFigures] = {}
        self.queues: dict[EntityKey, SimQueue] = {}
        self.bindings: list[BindingFigures] = []
        self.steppers: list[Stepper] = []
        self.listeners: list[Callable[[Event | None], None]] = []
        self.taps: list[Callable[[SeenMessage, tuple[EntityKey, ...]], None]] = []
        self.management_problem = ""
        self.lose_confirmed = 0
        self.alarms: set[tuple[str, str]] = set()
        self.entered: dict[EntityKey, int] = {}
        self._happenings: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._next_tick = self.now + TICK_S
        self._topology: Topology | None = None
        self._stop_clock = threading.Event()
        for exchange, kind in _BUILT_IN:
            self.declare_exchange(exchange, kind)
        if started:
            for node in self.nodes.values():
                node.state = NodeState.RUNNING
        if realtime:
            threading.Thread(target=self._follow_the_wall, name="fake-clock", daemon=True).start()

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Moves the clock by `seconds` in steps of 0.05 s, so that everything due happens in order."""
        with self.lock:
            self._move_to(self.now + seconds)

    def wait(self, seconds: float) -> None:
        """Lets `seconds` of simulated time pass for the caller: moves a virtual clock, sleeps on a real one."""
        if not self.realtime:
            self.advance(seconds)
        else:
            self._stop_clock.wait(seconds)

    def later(self, seconds: float, happening: Callable[[], None]) -> None:
        """Lets `happening` happen in `seconds`."""
        heapq.heappush(self._happenings, (self.now + seconds, next(self._order), happening))

    def close(self) -> None:
        """Stops a clock that follows the wall."""
        self._stop_clock.set()

    def _follow_the_wall(self) -> None:
        while not self._stop_clock.wait(STEP_S):
            with self.lock:
                self._move_to(max(self.now, time.time()))

    def _move_to(self, target: float) -> None:
        while self.now < target - ROUNDING_S:
            start = self.now
            self.now = min(target, start + STEP_S)
            while self._happenings and self._happenings[0][0] <= self.now + ROUNDING_S:
                heapq.heappop(self._happenings)[2]()
            for stepper in tuple(self.steppers):
                stepper.step(self.now, self.now - start)
            if self.now >= self._next_tick - ROUNDING_S:
                self._tick()

    def _tick(self) -> None:
        self._next_tick = max(self._next_tick + TICK_S, self.now)
        for queue in self.queues.values():
            if self.available(queue):
                queue.published += queue.steady_rate * TICK_S
                queue.delivered += queue.steady_rate * TICK_S
        self.changed()

    # -- news ---------------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Tells every observer that there is something new to see."""
        for listener in tuple(self.listeners):
            listener(None)

    def say(self, origin: Origin, severity: Severity, kind: str, subject: str, details: Details | None = None) -> None:
        """Tells an event of this moment, as `tell`."""
        self.tell(Event(self.now, origin, severity, kind, subject, details))

    def tell(self, event: Event) -> None:
        """Tells every observer an event that it cannot see for itself."""
        for listener in tuple(self.listeners):
            listener(event)

    # -- topology -----------------------------------------------------------------------------------------------------

    def declare_exchange(self, name: str, kind: str, vhost: str = "/", **more: object) -> None:
        """Declares an exchange; `more` are its arguments with `_` for `-`."""
        arguments = {k.replace("_", "-"): v for k, v in more.items()}
        exchange = ExchangeFigures(vhost, name, kind, internal=name == "amq.rabbitmq.trace", arguments=arguments)
        self.exchanges[exchange.key] = exchange
        self._topology = None

    def declare_queue(
        self, name: str, kind: str = "quorum", *, vhost: str = "/", leader: str | None = None, **more: object
    ) -> SimQueue:
        """Declares a queue (`quorum`, `classic` or `stream`) if it is not there; `more` as with exchanges."""
        key = EntityKey(vhost, name)
        if key not in self.queues:
            names = tuple(self.nodes)
            home = leader or names[len(self.queues) % len(names)]
            arguments = {"x-queue-type": kind, **{k.replace("_", "-"): v for k, v in more.items()}}
            members = (home,) if kind == "classic" else names
            self.queues[key] = SimQueue(QueueFigures(vhost, name, kind, arguments=arguments), home, members)
            self._topology = None
        return self.queues[key]

    def delete_queue(self, name: str, vhost: str = "/") -> None:
        """Deletes a queue and its bindings."""
        self.queues.pop(EntityKey(vhost, name), None)
        self.bindings = [b for b in self.bindings if (b.vhost, b.destination) != (vhost, name)]
        self._topology = None
        self.changed()

    def bind(
        self,
        source: str,
        destination: str,
        routing_key: str = "",
        *,
        vhost: str = "/",
        to: str = "queue",
        **more: object,
    ) -> None:
        """Binds a queue, or with `to="exchange"` an exchange, to the exchange `source`."""
        arguments = {k.replace("_", "-"): v for k, v in more.items()}
        self.bindings.append(BindingFigures(vhost, source, destination, to, routing_key, arguments))
        self._topology = None

    def topology(self) -> Topology:
        """The exchanges, bindings and queues for routing."""
        if self._topology is None:
            self._topology = Topology.made_of(self.exchanges.values(), self.bindings, self.queues)
        return self._topology

    # -- nodes --------------------------------------------------------------------------------------------------------

    def serving(self) -> tuple[SimNode, ...]:
        """The nodes that serve, in name order."""
        return tuple(n for n in self.nodes.values() if n.serves)

    def set_state(self, name: str, state: NodeState, election_s: float | None = None) -> None:
        """Puts a node into `state`; leaders that it held are elected anew after `election_s`."""
        node = self.nodes[name]
        if node.state is state:
            return
        served = node.serves
        if state is NodeState.STOPPED:
            self.alarms = {alarm for alarm in self.alarms if alarm[0] != name}
        node.state = state
        if node.serves and not served:
            node.up_since = self.now
            self.later(HANDED_OVER_S, self._elect)
        elif served and not node.serves:
            self.later(ELECTION_S if election_s is None else election_s, self._elect)
        self.changed()

    def add_node(self, name: str) -> None:
        """Adds a node that is stopped and has a member of nothing."""
        number = int(name.removeprefix(NODE_NAME_PREFIX))
        nodes = [*self.nodes.values(), SimNode(name, number, NodeState.STOPPED, self.now)]
        self.nodes = {node.name: node for node in sorted(nodes, key=lambda node: node.number)}
        self.changed()

    def grow_onto(self, name: str) -> None:
        """Gives every replicated queue a member on a node."""
        for queue in self.queues.values():
            if queue.replicated and name not in queue.members:
                queue.members = (*queue.members, name)
        self.changed()

    def remove_node(self, name: str) -> None:
        """Forgets a node, its members and the queues that are on no other; leaders that it held are elected anew."""
        for queue in tuple(self.queues.values()):
            queue.members = tuple(member for member in queue.members if member != name)
            if not queue.members:
                self.delete_queue(queue.figures.name, queue.figures.vhost)
            elif queue.leader == name:
                self._follow_new_leader(queue)
        del self.nodes[name]
        self.changed()

    def set_alarm(self, node: str, resource: str, *, on: bool) -> None:
        """Lets a node have an alarm (`memory` or `disk`), or not; while there is any, no publish is confirmed."""
        if ((node, resource) in self.alarms) is on:
            return
        (self.alarms.add if on else self.alarms.discard)((node, resource))
        self.changed()

    def move_leader(self, queue: SimQueue, node: str) -> None:
        """Makes a member of a replicated queue its leader."""
        if queue.leader != node:
            queue.leader = node
            self.changed()

    def available(self, queue: SimQueue) -> bool:
        """Whether the queue takes and gives messages now."""
        return queue.leader is not None and self.nodes[queue.leader].serves and self._quorate(queue)

    def online(self, queue: SimQueue) -> tuple[str, ...]:
        """The members of the queue on nodes that serve."""
        return tuple(m for m in queue.members if self.nodes[m].serves)

    def _quorate(self, queue: SimQueue) -> bool:
        return is_majority(len(self.online(queue)), len(queue.members))

    def _elect(self) -> None:
        for queue in self.queues.values():
            if not queue.replicated or (queue.leader and self.nodes[queue.leader].serves):
                continue
            if self._quorate(queue):
                self._follow_new_leader(queue)
            else:
                queue.leader = None
        self.changed()

    def _follow_new_leader(self, queue: SimQueue) -> None:
        online = self.online(queue)
        queue.leader = online[sum(map(ord, queue.figures.name)) % len(online)]

    # -- messages -----------------------------------------------------------------------------------------------------

    def can_settle(self, message: OutgoingMessage, vhost: str = "/") -> bool:
        """Whether there is no alarm, and no replicated queue that the message goes to lacks its leader."""
        with self.lock:
            headers = message.properties.headers
            targets = route(self.topology(), message.exchange, message.routing_key, headers, vhost).queues
            return not self.alarms and all(
                self.available(q) or not q.replicated for q in map(self.queues.__getitem__, targets)
            )

    def publish(self, message: OutgoingMessage, vhost: str = "/") -> tuple[Outcome, str]:
        """Routes and stores one message; its outcome and the reason for any but CONFIRMED."""
        exchange = self.exchanges.get(EntityKey(vhost, message.exchange))
        if exchange is None:
            return Outcome.NACKED, f"no exchange {visible(message.exchange)!r} (404)"
        if exchange.internal:
            return Outcome.NACKED, f"exchange {visible(message.exchange)!r} is internal (403)"
        if self.alarms:
            return Outcome.UNKNOWN, "no confirm: an alarm blocks publishers"
        self.entered[exchange.key] = self.entered.get(exchange.key, 0) + 1
        targets = route(
            self.topology(), message.exchange, message.routing_key, message.properties.headers, vhost
        ).queues
        self._copy_to_taps(message, targets)
        if not targets:
            return (Outcome.RETURNED, "NO_ROUTE (312)") if message.mandatory else (Outcome.CONFIRMED, "")
        worst = (Outcome.CONFIRMED, "")
        for key in targets:
            refusal = self._enqueue(self.queues[key], message)
            worst = refusal or worst
        self.changed()
        return worst

    def _enqueue(self, queue: SimQueue, message: OutgoingMessage) -> tuple[Outcome, str] | None:
        name = visible(queue.figures.name)
        if not self.available(queue):
            if queue.replicated:
                return Outcome.UNKNOWN, f"no confirm: queue {name} has no majority"
            return Outcome.NACKED, f"the node of classic queue {name} is down"
        limit = queue.figures.arguments.get("x-max-length")
        if isinstance(limit, int) and len(queue.messages) >= limit:
            if queue.figures.arguments.get("x-overflow") == "reject-publish":
                return Outcome.NACKED, f"queue {name} is full"
            queue.messages.popleft()
        queue.messages.append(SimMessage(message))
        queue.published += 1
        return None

    def _copy_to_taps(self, message: OutgoingMessage, targets: tuple[EntityKey, ...]) -> None:
        seen = SeenMessage(
            self.now, message.exchange, message.routing_key, message.body, len(message.body), message.properties
        )
        for tap in tuple(self.taps):
            tap(seen, targets)
