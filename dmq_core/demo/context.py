"""What the steps of a demo work with: the live cluster, clients of its own, and names that no other run uses."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import ActionKind
from dmq_core.actions.gate import ClusterActions, actions_on
from dmq_core.cluster.protocol import Cluster, NodeState
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.demo.broker_figures import BrokerFigures, activity, figures_of, leader, online, spread
from dmq_core.demo.fault_guard import FaultGuard
from dmq_core.demo.inbox import Inbox
from dmq_core.demo.lossy_link import LossyLink, ProxyLink
from dmq_core.errors import DmqError, RefusedError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.connection.load_balancing import Policy
from dmq_core.messaging.connection.topology_commands import delete_exchange, delete_queue, queue_depth
from dmq_core.messaging.consuming.consumers import DirectConsumer
from dmq_core.messaging.topology.model import QueueDepth
from dmq_core.progress import ProgressListener, no_progress

if TYPE_CHECKING:
    from dmq_core.messaging.consuming.consumer import Consumer

PREFIX: Final = "dmq.demo."
CLIENT: Final = "dmq demo"
_LOOK_S: Final = 0.05
_ASK_S: Final = 0.25
# By default RabbitMQ counts every five seconds, and what quorum queues hold another five seconds later.
_LATE: Final = 2.0
_HARDLY: Final = 0.1
_RECONNECT_S: Final = 30.0


class ConnectionManagerFactory(Protocol):
    """Makes a connection manager called `name` that knows every node of a cluster, or `node` alone."""

    def __call__(
        self, cluster: Cluster, name: str = CLIENT, policy: Policy = Policy.ORDERED, node: str = ""
    ) -> BrokerConnectionManager:
        """Connects to nothing yet."""
        ...


def manager_of(
    cluster: Cluster, name: str = CLIENT, policy: Policy = Policy.ORDERED, node: str = ""
) -> BrokerConnectionManager:
    """A manager that knows every node of `cluster`, or `node` alone."""
    manager = BrokerConnectionManager(policy, name)
    manager.register_nodes((one for one in cluster.nodes() if node in ("", one.name)), cluster.credentials)
    return manager


def _new_run() -> str:
    return secrets.token_hex(2)


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """What a demo runs on: a cluster, how clients connect to it, and where its figures come from.

    `link` makes one on which confirms get lost, for clients of a name. `actions` are those of a session (None:
    straight on the cluster). `run` is in the names of this demo_run; what should happen is waited for `patience_s`
    seconds.
    """

    cluster: Cluster
    connect: ConnectionManagerFactory = manager_of
    figures: Callable[[Cluster], BrokerFigures] = figures_of
    read_only: bool = False
    progress: ProgressListener = no_progress
    run: str = field(default_factory=_new_run)
    patience_s: float = 10.0
    link: Callable[[Cluster, str], LossyLink] = ProxyLink
    actions: ClusterActions | None = None


class DemoContext:
    """What the steps of one demo run share; `close` ends its clients and removes what it made.

    `answer` is what the person said to the question of the step; `is_sabotaged` whether its claim was broken on
    purpose.
    """

    def __init__(self, environment: DemoEnvironment) -> None:
        self.environment = environment
        self.cluster = environment.cluster
        self.answer = ""
        self.is_sabotaged = False
        self._leaving = threading.Event()
        self._manager: BrokerConnectionManager | None = None
        self._figures: BrokerFigures | None = None
        self._names: list[str] = []
        self._endings: list[Callable[[], object]] = []
        self._fault_guard: FaultGuard | None = None

    @property
    def manager(self) -> BrokerConnectionManager:
        """Knows every node of the cluster."""
        if self._manager is None:
            self._manager = self.environment.connect(self.cluster)
        return self._manager

    def client(self, name: str, policy: Policy = Policy.ORDERED, node: str = "") -> BrokerConnectionManager:
        """A connection manager of its own, as another program would have; closed at the end.

        With `node`, it knows no other.
        """
        manager = self.environment.connect(self.cluster, self.client_name(name), policy, node)
        self._endings.append(manager.close)
        return manager

    def client_name(self, name: str) -> str:
        """How the broker knows the client that the demo calls `name`."""
        return f"{self.prefix}{name}"

    @property
    def figures(self) -> BrokerFigures:
        """What the management API of a running node reports, up to a few seconds late."""
        if self._figures is None:
            self._figures = self.environment.figures(self.cluster)
        return self._figures

    def key(self, queue: str) -> EntityKey:
        """What identifies a queue within the cluster."""
        return EntityKey(self.cluster.nodes()[0].endpoint.virtual_host, queue)

    def activity(self, queue: str) -> dict[str, bool]:
        """Which of the clients consume from a queue, and whether each is active, as the broker reports."""
        figures = self.figures
        told = activity(figures.consumers(), figures.connections(), self.key(queue))
        return {name.removeprefix(self.prefix).split(" ")[0]: active for name, active in told.items()}

    def spread(self, client: str) -> dict[str, int]:
        """How many connections of a client each node has, as the broker reports."""
        return spread(self.figures.connections(), self.client_name(client), self.cluster.nodes())

    def leader(self, queue: str) -> str:
        """The node that leads a queue, as the broker reports; empty while there is none."""
        return leader(self.figures.queue(self.key(queue)), self.cluster.nodes())

    def is_replicated(self, queue: str) -> bool:
        """Whether every node runs and, as the broker reports, has an online member of the queue."""
        told, nodes = self.figures.queue(self.key(queue)), self.cluster.nodes()
        names = {node.erlang_name for node in nodes}
        runs = all(node.state is NodeState.RUNNING for node in nodes)
        return told is not None and runs and set(told.members) == online(told, nodes) == names

    def online(self, queue: str) -> str:
        """Which members of a queue are online, in words, as the broker reports."""
        nodes = self.cluster.nodes()
        names = online(self.figures.queue(self.key(queue)), nodes)
        return ", ".join(node.name for node in nodes if node.erlang_name in names) or "none"

    def state(self, node: str) -> str:
        """The state of a node."""
        return next((str(one.state) for one in self.cluster.nodes() if one.name == node), "gone")

    def wait_until_reported(self, condition: Callable[[], bool], within_s: float | None = None) -> bool:
        """`wait_until` for what the management API reports, which is late: it is asked less often, for longer."""
        return self.wait_until(condition, self.patience_s * _LATE if within_s is None else within_s, _ASK_S)

    @property
    def patience_s(self) -> float:
        """How long what should happen is waited for; shortly after a sabotage, since it should not happen."""
        return self.environment.patience_s * (_HARDLY if self.is_sabotaged else 1.0)

    def before_step(self) -> None:
        """Called before each step, to note what its check compares with."""

    @property
    def prefix(self) -> str:
        """What every name of this run begins with."""
        return f"{PREFIX}{self.environment.run}."

    def unique_name(self, word: str) -> str:
        """A name for an exchange or a queue that only this run uses, and that is removed at its end."""
        name = f"{self.prefix}{word}"
        if name not in self._names:
            self._names.append(name)
        return name

    def wait_consuming(self, consumer: Consumer) -> bool:
        """Waits until the consumer is subscribed to its queue; whether it is."""
        return self.wait_until(lambda: consumer.status.consuming)

    def on_close(self, ending: Callable[[], object]) -> None:
        """Calls `ending` when the demo is over, the latest first."""
        self._endings.append(ending)

    def allow_faults(self, *, may_lose_majority: bool) -> None:
        """Lets the steps take nodes down; `close` brings back whatever they took."""
        environment = self.environment
        actions = environment.actions or actions_on(self.cluster, environment.progress, read_only=environment.read_only)
        self._fault_guard = FaultGuard(self.cluster, actions, may_lose_majority=may_lose_majority)

    @property
    def fault_guard(self) -> FaultGuard:
        """What takes nodes down and brings them back; `RefusedError` for a demo that does not say that it does so."""
        if self._fault_guard is None:
            raise RefusedError("this demo does not declare that it takes nodes down", "Its Demo needs breaks=True.")
        return self._fault_guard

    def perform(self, kind: ActionKind, node: str) -> Action | None:
        """Does an action at a node through the one gate; gives what undoes it, if anything does."""
        self._ask_anew()
        return self.fault_guard.perform(Action(kind, node))

    def stop_cluster(self) -> None:
        """Stops every node."""
        self.fault_guard.stop()

    def start_cluster(self) -> None:
        """Starts every node that does not run, and waits until a client gets in again."""
        self.fault_guard.start()
        self.manager.wait_open(_RECONNECT_S)

    def restore_cluster(self) -> None:
        """Brings back every node that was taken down, undoes every fault, and waits until a client gets in."""
        self._ask_anew()
        self.fault_guard.repair()
        self.manager.wait_open(_RECONNECT_S)

    def depth(self, queue: str) -> QueueDepth | None:
        """How much is in a queue now; None if there is no such queue."""
        return queue_depth(self.manager.consuming(), queue, self.patience_s)

    def ready(self, queue: str) -> int:
        """How many messages wait in a queue; -1 if there is no such queue."""
        depth = self.depth(queue)
        return -1 if depth is None else depth.ready

    def drain_queue(self, queue: str) -> None:
        """Consumes what is ready in a queue."""
        waiting, inbox = self.ready(queue), Inbox()
        if waiting > 0:
            with DirectConsumer(self.manager, queue).start_consuming(inbox.handle):
                # A queue with nothing ready may yet get back what is in the consumer's hands.
                self.wait_until(lambda: len(inbox.messages) >= waiting)

    def delete(self, queue: str) -> None:
        """Deletes a queue, with what it holds."""
        delete_queue(self.manager.consuming(), queue, timeout_s=self.patience_s)

    def wait_until(
        self, condition: Callable[[], bool], within_s: float | None = None, every_s: float = _LOOK_S
    ) -> bool:
        """Waits until `condition` holds, usually for `patience_s`; whether it does.

        Once the demo is being closed, it waits no more.
        """
        deadline = time.monotonic() + (self.patience_s if within_s is None else within_s)
        while not condition():
            if time.monotonic() >= deadline or self._leaving.wait(every_s):
                return False
        return True

    def cancel_waits(self) -> None:
        """Ends every wait early; from any thread."""
        self._leaving.set()

    def close(self) -> str:
        """Ends clients, undoes faults, removes queues and exchanges; what stays and why (empty: nothing)."""
        stays: list[str] = []
        self.is_sabotaged = False
        if self._fault_guard is not None:
            # First, for nothing can be removed from a cluster that does not answer.
            self._endings.append(self._fault_guard.repair)
        while self._endings:
            try:
                self._endings.pop()()
            except DmqError as error:
                stays.append(error.what)
        self._ask_anew()
        if self._manager is not None:
            stays += self._remove(self._manager)
            self._manager.close()
            self._manager = None
        return "; ".join(stays)

    def _ask_anew(self) -> None:
        """Chooses anew which nodes are asked for figures: an isolated one reports only its own side."""
        if self._figures is not None:
            self._figures.close()
            self._figures = None

    def _remove(self, manager: BrokerConnectionManager) -> list[str]:
        """Removes what has a name of this run; what stays, and why. Where one fails, the others are not tried."""
        connection = manager.consuming()
        for number, name in enumerate(self._names):
            try:
                delete_queue(connection, name, timeout_s=self.patience_s)
                delete_exchange(connection, name, timeout_s=self.patience_s)
            except DmqError as error:
                return [f"{', '.join(self._names[number:])}: {error.what}"]
        return []
