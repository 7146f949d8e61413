"""What every cluster offers, whoever runs it: the `Cluster` protocol and the values it speaks in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.progress import ProgressListener, no_progress

if TYPE_CHECKING:
    from dmq_core.cluster.faults.model import Fault


class Backend(StrEnum):
    """Who runs the nodes: a Docker engine, this machine's processes, or somebody else."""

    DOCKER = "docker"
    LOCAL = "local"
    ATTACHED = "attached"


class NodeState(StrEnum):
    """What a node is doing; the words are fixed for scripts."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    PAUSED = "paused"
    ISOLATED = "isolated"
    DRAINING = "draining"
    UNREACHABLE = "unreachable"

    @property
    def votes(self) -> bool:
        """Whether a node in this state counts for the majority: others hold no replicas that vote, or not yet."""
        return self is NodeState.RUNNING


class NodeAction(StrEnum):
    """What can be done to one node of a cluster that dmq made."""

    KILL = "kill"
    STOP = "stop"
    START = "start"
    RESTART = "restart"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    ISOLATE = "isolate"
    REJOIN = "rejoin"
    DRAIN = "drain"
    REVIVE = "revive"


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the backend itself knows of a node, without asking RabbitMQ.

    `name` is ours (`rmq1`), `erlang_name` is RabbitMQ's (`rabbit@rmq1`). `state` comes from the process or container.
    """

    name: str
    erlang_name: str
    state: NodeState
    endpoint: NodeEndpoint


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node's process or container changed its state, as told by the backend at the moment `at` (epoch seconds)."""

    at: float
    node: str
    state: NodeState


class Cluster(Protocol):
    """A RabbitMQ cluster that can be seen, and, if dmq made it, started, stopped and broken on purpose.

    Methods may be called from any thread; each returns or raises a `DmqError` within a bound of its own
    (`start` at most 180 s after the image is there, node actions 60 s, queries 5 s). Node names are ours (`rmq2`);
    an unknown one raises `InvalidInputError`. An attached cluster raises `RefusedError` for everything that changes a
    node.
    """

    @property
    def name(self) -> str:
        """The cluster's name, `dmq` by default; for an attached one its host."""
        ...

    @property
    def backend(self) -> Backend:
        """Who runs the nodes."""
        ...

    @property
    def credentials(self) -> Credentials:
        """The user that front ends connect as."""
        ...

    def exists(self) -> bool:
        """Whether anything of this cluster is here; for an attached one whether any endpoint answers."""
        ...

    def nodes(self) -> tuple[NodeInfo, ...]:
        """Every node in name order, without asking RabbitMQ; empty if the cluster does not exist."""
        ...

    def start(self, progress: ProgressListener = no_progress) -> None:
        """Makes the cluster if need be and starts it; returns when every node serves and the cluster is whole.

        A second call changes nothing. Interrupted half way, it removes what it half made, or leaves what the next
        call can finish.
        """
        ...

    def stop(self, progress: ProgressListener = no_progress) -> None:
        """Stops every node and keeps all data."""
        ...

    def destroy(self, progress: ProgressListener = no_progress) -> None:
        """Removes nodes, networks, volumes, directories and processes of this cluster, and nothing else."""
        ...

    def act(self, action: NodeAction, node: str, progress: ProgressListener = no_progress) -> None:
        """Does `action` to `node` and returns once it holds.

        That is, for start, restart and unpause, once the node serves, and for rejoin once it and all that run see each
        other. A start also lets a node rejoin or revives it, but one that is frozen must be unpaused.
        """
        ...

    def add_node(self, progress: ProgressListener = no_progress) -> str:
        """Makes one more node and returns its name, the lowest `rmqN` that is free, once the queues have grown onto it.

        That is within 180 s: it serves, it and all others see each other, and every quorum queue and stream has a
        member on it that is online; one that does not grow is told and left. `RefusedError` while any node does not
        serve. Interrupted half way, the next call, or a start, finishes what it began.
        """
        ...

    def remove_node(self, node: str, progress: ProgressListener = no_progress, *, force: bool = False) -> None:
        """Takes the members of all queues off `node`, lets the others forget it and removes it with its data.

        That is within 180 s. `RefusedError` if queues are only on it (unless `force`, which deletes them), if a queue
        or the cluster would have no majority without it, or if it is the last. Its ports are free again. Interrupted
        half way, the next call, or a start, finishes what it began.
        """
        ...

    def inject(self, fault: Fault, progress: ProgressListener = no_progress) -> str | None:
        """Does a fault of the whole cluster and returns once it holds: of a leader that moved, where it was before.

        It takes `fault.kind.limit_s` seconds at most. An alarm ends with a restart of its node, and so does what was
        done to a link with that of either end; a start of the cluster and a rejoin end that too.
        """
        ...

    def active_faults(self) -> tuple[Fault, ...]:
        """The alarms and the cut or slow links that hold now, as the nodes that answer tell within 20 s.

        An alarm may have come by itself. Nodes that are isolated, paused or stopped are not asked.
        """
        ...

    def logs(self, node: str, lines: int = 200) -> str:
        """The last `lines` lines of the node's log as raw text from outside, also while it is stopped."""
        ...

    def metrics(self, node: str) -> str:
        """What the node tells of itself at `/metrics`, as Prometheus' text.

        Raises `NotReachableError` if it does not answer.
        """
        ...

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        """Yields changes of node states as the backend pushes them, within 0.5 s, until `stop` is set."""
        ...
