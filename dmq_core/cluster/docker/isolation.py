"""What a container that runs may suffer from: cut off from its peers, or in maintenance; causing it and mending it.

A node is in two networks: the one on which nodes meet, which is internal, and the one by which its published ports are
reached. Taking it out of the first isolates it from its peers alone, without root and without packet filters, and what
Docker itself knows of the container says whether it is isolated: there is no note that could be wrong.
"""

from __future__ import annotations

import math
import time

from dmq_core.cluster.docker.definition import NODE_LABEL, USER, ClusterDefinition, started_ago_s
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.errors import ConflictError
from dmq_core.cluster.docker.values import Container
from dmq_core.cluster.node_log import LOG_LINES, in_maintenance, tool_failure_reason
from dmq_core.errors import ClusterError


def is_cut_off(definition: ClusterDefinition, container: Container) -> bool:
    """Whether it is not on the network on which nodes meet."""
    return definition.cluster_network not in container.network_names


def cut_off(engine: Engine, definition: ClusterDefinition, container: Container) -> None:
    """Takes it out of the network on which nodes meet; clients come by the other one. Twice does no harm."""
    if not is_cut_off(definition, container):
        engine.disconnect(definition.cluster_network, container.id)


def let_back(engine: Engine, definition: ClusterDefinition, container: Container) -> None:
    """Puts it back into the network on which nodes meet, under the name that they know. Twice does no harm."""
    if not is_cut_off(definition, container):
        return
    try:
        engine.connect(definition.cluster_network, container.id, container.labels[NODE_LABEL])
    except ConflictError:
        # Somebody else may have been quicker.
        now = engine.container(container.id)
        if now is None or is_cut_off(definition, now):
            raise


def is_drained(engine: Engine, container: Container) -> bool:
    """Whether a container whose ports are closed is in maintenance, by what it has logged since it was started."""
    ago = started_ago_s(container.started_at)
    since = None if math.isinf(ago) else time.time() - ago
    return in_maintenance(engine.logs(container.id, LOG_LINES, since))


def maintain(engine: Engine, container: Container, word: str) -> None:
    """Runs `rabbitmq-upgrade drain` or `revive` in it; `ClusterError` with what it said if it fails."""
    run_tool(engine, container.id, container.labels.get(NODE_LABEL, container.name), "rabbitmq-upgrade", (word,))


def run_tool(engine: Engine, container: str, node: str, tool: str, words: tuple[str, ...]) -> str:
    """Runs one of RabbitMQ's tools in the node's container and gives what it printed; `ClusterError` if it fails."""
    status, said = engine.run_in(container, [tool, "-q", *words], USER)
    if status == 0:
        return said
    raise ClusterError(
        f"{tool} {words[0]} failed on {node}: {tool_failure_reason(said) or f'exit status {status}'}",
        f"'dmq node logs {node}' may tell more.",
    )
