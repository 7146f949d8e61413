"""What a node's coming and going means for local processes: a state file, a process, a folder."""

from __future__ import annotations

import time
from pathlib import Path

from dmq_core.cluster.local import node as local_node
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.boot import LOCK_LIMIT_S, LocalBoot
from dmq_core.cluster.local.installation import Installation
from dmq_core.cluster.local.node import NODE_MARK, NodePlace
from dmq_core.cluster.local.state import LocalNode, LocalState, settled, with_node, without_node, write_state
from dmq_core.cluster.local.status import LocalStatus
from dmq_core.cluster.protocol import NodeInfo
from dmq_core.endpoints import Credentials
from dmq_core.errors import ClusterError
from dmq_core.progress import ProgressListener
from dmq_core.state_directory import locked, remove_folder

_JOIN_LIMIT_S = 90.0


class LocalScaling:
    """The cluster in `folder` as `state` defines it, locked by the caller; satisfies `ScalingBackend`."""

    def __init__(
        self, folder: Path, state: LocalState, look: LocalStatus, installation: Installation, credentials: Credentials
    ) -> None:
        self._folder = folder
        self._state = state
        self._status = look
        self._installation = installation
        self._credentials = credentials

    @property
    def joining(self) -> str | None:
        """The node whose coming is not finished."""
        return self._state.joining

    @property
    def leaving(self) -> str | None:
        """The node whose going is not finished."""
        return self._state.leaving

    @property
    def credentials(self) -> Credentials:
        """The user that the cluster was made with."""
        return self._credentials

    def nodes(self) -> tuple[NodeInfo, ...]:
        """The nodes of the definition."""
        return self._status.infos(self._state)

    def run(self, node: str, tool: str, words: tuple[str, ...], limit_s: float) -> str:
        """Runs one of RabbitMQ's tools in the node."""
        return local_node.tool(self._place(node), self._state, self._installation, tool, words, limit_s)

    def erlang_name(self, node: str) -> str:
        """RabbitMQ's name of a node."""
        return local_node.erlang_name(node)

    def define_joining(self, node: str) -> None:
        """Adds a node, with ports that are free, to the definition."""
        with locked(self._folder.parent, LOCK_LIMIT_S, make=True):
            self._define(with_node(self._state, node, self._folder))

    def define_leaving(self, node: str) -> None:
        """Takes a node out of the definition."""
        self._define(without_node(self._state, node))

    def settle(self) -> None:
        """Makes the definition final."""
        self._define(settled(self._state))

    def bring_up(self, node: str, progress: ProgressListener) -> None:
        """Starts a process, within 90 s."""
        boot = LocalBoot(self._folder, self._status, self._installation, self._credentials)
        self._state = boot.launch(self._state, (node,), progress)
        boot.await_node(self._state, self._place(node), time.monotonic() + _JOIN_LIMIT_S)

    def discard(self, node: str) -> None:
        """Ends a process and removes its folder."""
        left = processes.kill_all(NODE_MARK, str(self._folder / node))
        if left:
            raise ClusterError(f"{node} did not die", f"Look at process {left[0].pid}.")
        remove_folder(self._folder / node)

    def _place(self, node: str) -> NodePlace:
        known = {place.name: place for place in self._state.nodes}
        # One that is leaving has ports no more, but tools still reach it by its name.
        return NodePlace(self._folder, known.get(node, LocalNode(node, 0, 0, 0, 0)))

    def _define(self, state: LocalState) -> None:
        write_state(self._folder, state)
        self._state = state
