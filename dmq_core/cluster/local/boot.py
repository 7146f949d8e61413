"""Bringing nodes of a local cluster up: launched side by side, awaited until they serve and have found each other."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path

from dmq_core.cluster import readiness
from dmq_core.cluster.local import isolation as local_isolation
from dmq_core.cluster.local import node as local_node
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.installation import Installation
from dmq_core.cluster.local.node import CLUSTER_MARK, NodePlace
from dmq_core.cluster.local.state import LocalState, read_state, with_free_ports, write_state
from dmq_core.cluster.local.status import LocalStatus
from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import ClusterError, NodeBootError, OperationTimeoutError
from dmq_core.majority import is_majority
from dmq_core.progress import Progress, ProgressListener
from dmq_core.state_directory import locked
from dmq_core.versions import Version

LOCK_LIMIT_S = 60.0
_POLL_S = 0.2
_SETTLED_S = 2.0
_REJOIN_LIMIT_S = 30.0
_REVIVE_LIMIT_S = 30.0
_KHEPRI_ONLY = Version(4, 3)


class LocalBoot:
    """Brings up nodes of the cluster in `folder`, as `credentials`, with an installed RabbitMQ."""

    def __init__(self, folder: Path, look: LocalStatus, installation: Installation, credentials: Credentials) -> None:
        self._folder = folder
        self._status = look
        self._installation = installation
        self._credentials = credentials

    def launch(self, state: LocalState, nodes: tuple[str, ...], progress: ProgressListener) -> LocalState:
        """Starts those of `nodes` that have no process, with ports that are free; the cluster must be locked."""
        running = self._status.processes(state)
        missing = tuple(n for n in nodes if n not in running)
        if not missing:
            return state
        state = self._with_free_ports(state, missing, keep_epmd=bool(running) or self._own_epmd(), progress=progress)
        local_node.ensure_cluster_files(self._folder)
        self._ensure_epmd(state)
        for place in local_node.places(self._folder, state):
            if place.node.name in missing:
                progress(Progress(f"{place.node.name} boots", place.node.name))
                local_isolation.forget(place)
                local_node.launch(place, state, self._installation)
        return state

    def await_whole(self, state: LocalState, deadline: float, progress: ProgressListener, *, again: bool) -> None:
        """Waits until every node serves and all see all; `again`: a node that gives up may try once more."""
        expected = frozenset(map(local_node.erlang_name, state.node_names))
        serving: set[str] = set()
        retried: set[str] = set()
        while True:
            self._launch_ended(state, progress, may_retry=again, retried=retried)
            infos = self._status.infos(state, scan=False)
            self._revive(state, [info.name for info in infos if info.state is NodeState.DRAINING], progress)
            for info in infos:
                if info.state is NodeState.RUNNING and info.name not in serving:
                    serving.add(info.name)
                    progress(Progress(f"{info.name} serves", info.name, len(serving) / len(infos)))
            if len(serving) == len(infos) and readiness.whole([i.endpoint for i in infos], expected, self._credentials):
                return
            if time.monotonic() > deadline:
                raise _not_whole(infos)
            time.sleep(_POLL_S)

    def await_node(self, state: LocalState, place: NodePlace, deadline: float) -> None:
        """Waits until the node serves, or is in maintenance, and it and all that serve see each other."""
        name = place.node.name
        while not self._joined(state, place) and not self._rests(state, name):
            if self._status.process(state, name) is None:
                raise self._boot_failed(place)
            if time.monotonic() > deadline:
                raise OperationTimeoutError(
                    f"{name} does not serve and see the others in time",
                    "It may wait for the others: 'dmq start' starts every node.",
                )
            time.sleep(_POLL_S)

    def mend(self, state: LocalState, place: NodePlace, limit_s: float, progress: ProgressListener) -> None:
        """Opens the links of a node that was cut off, but for those to nodes that still are."""
        serving = {info.name for info in self._status.serving(state)}
        others = [p for p in local_node.places(self._folder, state) if p.node.name in serving and p.node != place.node]
        local_isolation.mend(place, others, state, self._installation, limit_s)
        progress(Progress(f"{place.node.name} can reach its peers again", place.node.name))

    def rejoin(self, state: LocalState, place: NodePlace, deadline: float, progress: ProgressListener) -> None:
        """Waits until a node that was frozen or cut off has joined the others again.

        Before 4.3 a node that was away for longer than the others wait may stay apart for ever; its RabbitMQ is then
        stopped and started within the running process. Where no majority can be reached, nothing is waited for.
        """
        name = place.node.name
        if not self._majority(state):
            progress(Progress(f"{name} serves once a majority of the nodes is there", name))
            return
        # Mnesia's nodes, once they gave each other up, do not merge by themselves; Khepri's (4.3) do.
        settle_by = min(deadline, time.monotonic() + _REJOIN_LIMIT_S)
        if self._installation.version < _KHEPRI_ONLY and not self._rejoined(state, place, settle_by):
            text = f"{name} was away for so long that the others gave it up; its RabbitMQ is stopped and started"
            progress(Progress(text, name))
            self._ensure_epmd(state)
            for command in ("stop_app", "start_app"):
                limit_s = max(5.0, deadline - time.monotonic())
                local_node.control(place, state, self._installation, command, limit_s=limit_s)
        self.await_node(state, place, deadline)

    def _with_free_ports(
        self, state: LocalState, nodes: tuple[str, ...], *, keep_epmd: bool, progress: ProgressListener
    ) -> LocalState:
        """The state, written if it changed, in which everything that `nodes` will listen on is free."""
        # All clusters' folder, not this one's: two clusters that start at once must not choose the same free port.
        with locked(self._folder.parent, LOCK_LIMIT_S, make=True):
            moved = with_free_ports(state, nodes, self._folder, keep_epmd=keep_epmd)
            moved = replace(moved, rabbitmq=str(self._installation.version))
            for before, after in zip(state.nodes, moved.nodes, strict=True):
                if before.amqp_port != after.amqp_port:
                    text = f"port {before.amqp_port} is taken: {after.name} moves to {after.amqp_port}"
                    progress(Progress(text, after.name))
            if moved != state:
                write_state(self._folder, moved)
        return moved

    def _ensure_epmd(self, state: LocalState) -> None:
        """Nodes that run find an epmd that comes back on the same port by themselves."""
        if state.epmd_port not in processes.listening_ports():
            local_node.launch_epmd(self._folder, state, self._installation)

    def _own_epmd(self) -> bool:
        return any(processes.program(p) == "epmd" for p in processes.find(CLUSTER_MARK, str(self._folder)))

    def _launch_ended(
        self, state: LocalState, progress: ProgressListener, *, may_retry: bool, retried: set[str]
    ) -> None:
        """Starts nodes that ended while they booted once more, if they may; else raises what their log says."""
        running = self._status.processes(state)
        for place in local_node.places(self._folder, state):
            name = place.node.name
            if name in running:
                continue
            # Nobody holds the lock while a cluster comes up, so that it can be destroyed meanwhile, as by Ctrl-C.
            with locked(self._folder, LOCK_LIMIT_S) as here:
                if not here or read_state(self._folder) is None:
                    raise ClusterError(
                        "the cluster was removed while it started", "Somebody destroyed it; start it again."
                    )
                if not may_retry or name in retried:
                    raise self._boot_failed(place)
                reason = local_node.boot_failure(place)
                retried.add(name)
                progress(Progress(f"{name} ended while it booted{': ' if reason else ''}{reason}; once more", name))
                self.launch(state, (name,), lambda _progress: None)

    def _boot_failed(self, place: NodePlace) -> NodeBootError:
        name, reason = place.node.name, local_node.boot_failure(place)
        what = f"{name} did not boot: {reason}" if reason else f"{name} ended while it booted"
        return NodeBootError(what, f"'dmq node logs {name}' shows its log.")

    def _rejoined(self, state: LocalState, place: NodePlace, deadline: float) -> bool:
        """Whether the node comes back to the others by itself; False once it serves and still stays apart.

        In maintenance it does not serve, and is left in peace.
        """
        # What nodes say of each other flickers while they meet: only what holds for a while is an answer, either way.
        good_since = bad_since = 0.0
        while (now := time.monotonic()) < deadline and not self._rests(state, place.node.name):
            if place.node.amqp_port not in processes.listening_ports():
                good_since = bad_since = 0.0
            elif self._joined(state, place) and not self._partitioned(state):
                good_since, bad_since = good_since or now, 0.0
                if now - good_since >= _SETTLED_S:
                    return True
            else:
                good_since, bad_since = 0.0, bad_since or now
                if now - bad_since >= _SETTLED_S:
                    return False
            time.sleep(_POLL_S)
        return self._rests(state, place.node.name)

    def _majority(self, state: LocalState) -> bool:
        """Whether the nodes that run and are neither frozen nor cut off are more than half."""
        absent = (NodeState.STOPPED, NodeState.PAUSED, NodeState.ISOLATED)
        infos = self._status.infos(state)
        return is_majority(sum(info.state not in absent for info in infos), len(infos))

    def _revive(self, state: LocalState, nodes: list[str], progress: ProgressListener) -> None:
        for place in local_node.places(self._folder, state):
            if place.node.name in nodes:
                progress(Progress(f"{place.node.name} is in maintenance and is revived", place.node.name))
                # Without a majority, which may be about to come, it cannot be.
                with contextlib.suppress(ClusterError, OperationTimeoutError):
                    local_node.maintain(place, state, self._installation, "revive", limit_s=_REVIVE_LIMIT_S)

    def _rests(self, state: LocalState, node: str) -> bool:
        return any(i.name == node and i.state is NodeState.DRAINING for i in self._status.infos(state))

    def _partitioned(self, state: LocalState) -> bool:
        serving = [info.endpoint for info in self._status.serving(state)]
        return any(readiness.side_by_side(lambda e: readiness.partitioned(e, self._credentials), serving))

    def _joined(self, state: LocalState, place: NodePlace) -> bool:
        serving = self._status.serving(state)
        if place.node.name not in {i.name for i in serving} or not readiness.amqp_answers(place.endpoint):
            return False
        expected = frozenset(i.erlang_name for i in serving)

        def sees_all(endpoint: NodeEndpoint) -> bool:
            seen = readiness.running_nodes(endpoint, self._credentials, timeout_s=1.5)
            return seen is not None and expected <= seen

        return all(readiness.side_by_side(sees_all, [i.endpoint for i in serving]))


def _not_whole(infos: tuple[NodeInfo, ...]) -> OperationTimeoutError:
    waiting = [i.name for i in infos if i.state is not NodeState.RUNNING]
    what = f"{', '.join(waiting)} did not come up in time" if waiting else "the nodes did not find each other in time"
    return OperationTimeoutError(what, f"'dmq node logs {(waiting or [infos[0].name])[0]}' shows what it waits for.")
