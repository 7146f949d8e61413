"""What a proof run asks its cluster before and after: is it well, who leads the queue, is every queue empty."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.protocol import Cluster, NodeInfo, NodeState
from dmq_core.cluster.view import ClusterView
from dmq_core.errors import DmqError, OperationTimeoutError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.topology_commands import delete_queue, queue_depth
from dmq_core.messaging.topology.model import QueueDepth
from dmq_core.observe.events import Severity
from dmq_core.observe.health import findings
from dmq_core.observe.one_shot import snapshot_once

if TYPE_CHECKING:
    from typing import Self

    from dmq_core.observe.snapshot import ClusterSnapshot
    from dmq_core.proof.journal.file import Journal

WELL_WITHIN_S: Final = 15.0
LEADER_WITHIN_S: Final = 15.0
READS: Final = 3
MOST_READS: Final = 8
READ_EVERY_S: Final = 1.0
_ASK_S: Final = 3.0
_OPEN_S: Final = 5.0
_LOOK_S: Final = 0.1
# Queues of others say nothing of ours, and the API goes on telling old news of those that idle.
_NOT_OURS: Final = frozenset({"queue_unavailable"})


def cluster_health(cluster: Cluster, patience_s: float = WELL_WITHIN_S) -> tuple[ClusterSnapshot, tuple[str, ...]]:
    """The cluster, and what is wrong with it in whole sentences; what mends itself within `patience_s` is not told."""
    deadline = time.monotonic() + patience_s
    while True:
        snapshot = snapshot_once(cluster)
        problems = problems_of(snapshot)
        if not problems or time.monotonic() >= deadline:
            return snapshot, problems
        time.sleep(READ_EVERY_S)


def problems_of(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    """What is wrong with a cluster, as far as a run on it is concerned, in whole sentences."""
    return tuple(f.text for f in findings(snapshot) if f.severity is Severity.BAD and f.kind not in _NOT_OURS)


def leader_of(cluster: Cluster, queue: str, virtual_host: str) -> str:
    """Our name for the node that leads `queue`, from the management API.

    Raises `OperationTimeoutError` if nobody does for 15 s.
    """
    view = ClusterView.of(cluster)
    running = {node.erlang_name: node.name for node in view.running}
    client = view.management(_ASK_S)
    deadline = time.monotonic() + LEADER_WITHIN_S
    with contextlib.closing(client):
        while time.monotonic() < deadline:
            with contextlib.suppress(OperationTimeoutError):
                figures = client.queue(EntityKey(virtual_host, queue))
                name = None if figures is None or figures.leader is None else running.get(figures.leader)
                if name is not None:
                    return name
            time.sleep(_LOOK_S)
    raise OperationTimeoutError(
        f"nobody leads the queue after {LEADER_WITHIN_S:g} s", "Does a majority of the nodes run?"
    )


def all_connected_since(cluster: Cluster, node: str, at: float) -> bool:
    """Whether every connection of `node` was opened after the epoch second `at`; asked for up to 15 s."""
    view = ClusterView.of(cluster)
    client = view.management(_ASK_S)
    deadline = time.monotonic() + LEADER_WITHIN_S
    with contextlib.closing(client):
        while time.monotonic() < deadline:
            with contextlib.suppress(OperationTimeoutError):
                opened = [c.connected_at_ms for c in client.connections() if c.node == view.names.long(node)]
                if all(ms is not None and ms >= at * 1000 for ms in opened):
                    return True
            time.sleep(_LOOK_S)
    return False


class DepthProbe:
    """Depths of `queues` as each node that runs tells them; one connection to each, opened when it is made."""

    def __init__(self, cluster: Cluster, queues: Sequence[str], journal: Journal) -> None:
        self._queues = tuple(queues)
        self._journal = journal
        self._nodes = tuple(n for n in cluster.nodes() if n.endpoint.amqp_port is not None)
        self._connections = {
            node.name: Connection([node.endpoint], cluster.credentials, "dmq proof depths")
            for node in self._nodes
            if node.state is NodeState.RUNNING
        }
        for connection in self._connections.values():
            with contextlib.suppress(DmqError):
                connection.wait_open(_OPEN_S)

    def ready(self) -> int | None:
        """The messages that are ready in all queues, by the first node that answers; None: none does."""
        for connection in self._connections.values():
            depths = [_depth(connection, queue) for queue in self._queues]
            if None not in depths:
                return sum(depth.ready for depth in depths if depth is not None)
        return None

    def is_stably_empty(self) -> bool:
        """Whether three reads in a row, a second apart, know all depths and find them zero; tries eight times at most.

        Consumers that have just left are still counted for a moment, and what they held comes back then.
        """
        zeros = 0
        for number in range(MOST_READS):
            time.sleep(READ_EVERY_S if number else 0.0)
            zeros = zeros + 1 if self.read() else 0
            if zeros == READS:
                return True
        return False

    def read(self) -> bool:
        """Asks every node for every queue and puts the answers down; whether all of them were known and zero."""
        return all([self._read_one(node, queue) == 0 for node in self._nodes for queue in self._queues])  # noqa: C419  # all are read

    def delete(self) -> str:
        """Deletes the queues; what went wrong, empty: nothing."""
        trouble = ""
        for queue in self._queues:
            for connection in self._connections.values():
                try:
                    delete_queue(connection, queue, timeout_s=_OPEN_S)
                except DmqError as error:
                    trouble = f"the queue {queue} stays: {error.what}"
                else:
                    trouble = ""
                    break
        return trouble

    def close(self) -> None:
        """Ends its connections."""
        for connection in self._connections.values():
            connection.begin_closing()
        for connection in self._connections.values():
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_one(self, node: NodeInfo, queue: str) -> int | None:
        connection = self._connections.get(node.name)
        depth = None if connection is None else _depth(connection, queue)
        if depth is None:
            self._journal.append_depth(node.name, queue, None, None)
            return None
        # Nobody is there who could hold any. The management API may go on telling of some for good.
        unacked = None if depth.consumers else 0
        self._journal.append_depth(node.name, queue, depth.ready, unacked)
        return None if unacked is None else depth.ready


def _depth(connection: Connection, queue: str) -> QueueDepth | None:
    with contextlib.suppress(DmqError):
        return queue_depth(connection, queue, _ASK_S)
    return None
