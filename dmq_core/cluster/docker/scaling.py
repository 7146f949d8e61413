"""What a node's coming and going means in Docker: a definition in labels, a container, a volume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from dmq_core.cluster.docker.definition import ClusterDefinition, erlang_name
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.isolation import run_tool
from dmq_core.cluster.docker.provisioning import complete, discard, find, record
from dmq_core.cluster.docker.readiness import Boot, NodeWaiter
from dmq_core.cluster.protocol import NodeInfo
from dmq_core.endpoints import Credentials
from dmq_core.progress import Progress, ProgressListener

_JOIN_LIMIT_S = 90.0


class DockerScaling:
    """The cluster `definition`, locked by the caller; satisfies `ScalingBackend`."""

    def __init__(
        self,
        engine: Engine,
        definition: ClusterDefinition,
        credentials: Credentials,
        nodes: Callable[[], tuple[NodeInfo, ...]],
        choose_ports: Callable[[Iterable[str]], tuple[tuple[int, int], ...]],
    ) -> None:
        self._engine = engine
        self._definition = definition
        self._credentials = credentials
        self._nodes = nodes
        self._choose_ports = choose_ports

    @property
    def joining(self) -> str | None:
        """The node whose coming is not finished."""
        return self._definition.joining

    @property
    def leaving(self) -> str | None:
        """The node whose going is not finished."""
        return self._definition.leaving

    @property
    def credentials(self) -> Credentials:
        """The user that the cluster was made with."""
        return self._credentials

    def nodes(self) -> tuple[NodeInfo, ...]:
        """The nodes of the definition."""
        return self._nodes()

    def run(self, node: str, tool: str, words: tuple[str, ...], limit_s: float) -> str:
        """Runs one of RabbitMQ's tools in the node's container."""
        return run_tool(self._engine, self._definition.container(node), node, tool, words)

    def erlang_name(self, node: str) -> str:
        """RabbitMQ's name of a node."""
        return erlang_name(node)

    def define_joining(self, node: str) -> None:
        """Adds a node, with ports that are free, to the definition."""
        self._define(self._definition.with_node(node, self._choose_ports([node])[0]))

    def define_leaving(self, node: str) -> None:
        """Takes a node out of the definition."""
        self._define(self._definition.without_node(node))

    def settle(self) -> None:
        """Makes the definition final."""
        self._define(self._definition.settled())

    def bring_up(self, node: str, progress: ProgressListener) -> None:
        """Makes and starts a container, within 90 s."""
        complete(
            self._engine, self._definition, find(self._engine, self._definition.cluster), self._credentials, progress
        )
        progress(Progress("starting the node", node))
        self._engine.start_container(self._definition.container(node))
        waiter = NodeWaiter(self._engine, self._definition, self._credentials, progress)
        waiter.await_node(node, Boot(restarts=1), time.monotonic() + _JOIN_LIMIT_S)

    def discard(self, node: str) -> None:
        """Removes a container and its volume."""
        discard(self._engine, self._definition, node)

    def _define(self, definition: ClusterDefinition) -> None:
        record(self._engine, definition)
        self._definition = definition
