"""A cluster of `rabbitmq-server` processes of this machine, on loopback, that outlive the program that started them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dmq_core.cluster import local_node, processes, readiness
from dmq_core.cluster.base import (
    Backend,
    Credentials,
    NodeAction,
    NodeChange,
    NodeEndpoint,
    NodeInfo,
    NodeState,
    Progress,
    ProgressListener,
    silent,
)
from dmq_core.cluster.blueprint import Version, checked_cluster_name, node_names
from dmq_core.cluster.installation import Installation, checked_version, find_installation, matches_version
from dmq_core.cluster.local_node import CLUSTER_MARK, NODE_MARK, NodePlace
from dmq_core.cluster.local_state import (
    LocalState,
    choose_state,
    clusters_folder,
    locked,
    read_state,
    remove_folder,
    with_free_ports,
    write_state,
)
from dmq_core.cluster.processes import OwnProcess
from dmq_core.errors import BackendUnavailable, BadInput, ClusterFailed, NodeBootFailed, NoSuchCluster, TimedOut

START_LIMIT_S = 180.0
ACT_LIMIT_S = 60.0
_STOP_LIMIT_S = 40.0
_BOOT_LIMIT_S = 120.0
_POLL_S = 0.2
_SETTLED_S = 2.0
_WATCH_S = 0.1
_WATCH_SCANS_EVERY = 3
_DEFAULT_NODES = 3
_KHEPRI_ONLY = Version(4, 3)


class LocalCluster:
    """The local cluster called `name`; its methods may be called from any thread.

    `nodes`, `rabbitmq` (a version such as `3.10`) and `credentials` say what to make; None leaves an existing cluster
    as it was made, and a new one gets 3 nodes, the installed version and `guest`.
    """

    def __init__(
        self,
        name: str,
        *,
        nodes: int | None = None,
        rabbitmq: str | None = None,
        credentials: Credentials | None = None,
        installation: Installation | None = None,
    ) -> None:
        self._name = checked_cluster_name(name)
        self._asked_nodes = None if nodes is None else node_names(nodes)
        self._asked_rabbitmq = None if rabbitmq is None else checked_version(rabbitmq)
        self._credentials = credentials
        self._given_installation = installation
        self._folder = clusters_folder() / name
        self._seen: dict[str, OwnProcess] = {}
        self._served: dict[str, OwnProcess] = {}

    def __repr__(self) -> str:
        return f"LocalCluster({self._name!r})"

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._name

    @property
    def backend(self) -> Backend:
        """Always local."""
        return Backend.LOCAL

    @property
    def folder(self) -> Path:
        """Where everything of the cluster is kept."""
        return self._folder

    @property
    def credentials(self) -> Credentials:
        """The user asked for, else the one that the cluster was made with."""
        if self._credentials is not None:
            return self._credentials
        with contextlib.suppress(ClusterFailed):
            state = read_state(self._folder)
            if state is not None:
                return state.credentials
        return Credentials()

    @property
    def rabbitmq(self) -> str | None:
        """The version that the cluster last started with; None if there is no cluster."""
        state = read_state(self._folder)
        return None if state is None else state.rabbitmq

    def exists(self) -> bool:
        """Whether anything of this cluster is here, be it half made."""
        return self._folder.is_dir()

    def nodes(self) -> tuple[NodeInfo, ...]:
        """Every node in name order, judged from its process and listening port."""
        state = read_state(self._folder)
        return () if state is None else self._look(state)

    def start(self, progress: ProgressListener = silent) -> None:
        """Makes the cluster if need be and starts it, within 180 s; returns when it is whole.

        `NodeBootFailed` as soon as a node gives up; its log can be read then. Interrupted, a call removes the cluster
        that it made, and leaves one that was here before to the next call.
        """
        deadline = time.monotonic() + START_LIMIT_S
        installation = self._installation()
        made = False
        try:
            with locked(self._folder, START_LIMIT_S, make=True):
                state = read_state(self._folder)
                made = state is None
                state = self._made(installation) if state is None else self._as_asked(state)
                state = self._launched(state, installation, state.nodes_named(), progress)
            self._await_whole(state, installation, deadline, progress, again=not made)
        except (NodeBootFailed, TimedOut):
            raise
        except BaseException:
            if made:
                with contextlib.suppress(ClusterFailed, TimedOut):
                    self.destroy()
            raise

    def stop(self, progress: ProgressListener = silent) -> None:
        """Stops every node within 60 s and keeps all data; the cluster's epmd ends with them."""
        with locked(self._folder, ACT_LIMIT_S) as here:
            state = read_state(self._folder) if here else None
            if state is None:
                raise self._none()
            self._end(state, state.nodes_named(), progress)
            self._kill_rest()

    def destroy(self, progress: ProgressListener = silent) -> None:
        """Removes every process and the folder of this cluster; nothing happens if there are none."""
        with locked(self._folder, ACT_LIMIT_S) as here:
            if here:
                progress(Progress(f"removing {self._name}"))
                self._kill_rest()
                remove_folder(self._folder)
        self._seen.clear()

    def act(self, action: NodeAction, node: str, progress: ProgressListener = silent) -> None:
        """Does `action` to `node` within 60 s; an act whose result holds already changes nothing."""
        state = self._state()
        place = self._place(state, node)
        acts: dict[NodeAction, Callable[[LocalState, NodePlace, ProgressListener], None]] = {
            NodeAction.KILL: self._kill,
            NodeAction.STOP: self._stop,
            NodeAction.START: self._start,
            NodeAction.RESTART: self._restart,
            NodeAction.PAUSE: self._pause,
            NodeAction.UNPAUSE: self._unpause,
        }
        acts[action](state, place, progress)

    def logs(self, node: str, lines: int = 200) -> str:
        """The last `lines` lines of the node's log."""
        return local_node.log_tail(self._place(self._state(), node), lines)

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        """Yields changes of node states within 0.5 s until `stop` is set; nodes that go away have stopped."""
        known = self._states(scan=True)
        looks = 0
        while not stop.wait(_WATCH_S):
            looks += 1
            seen = self._states(scan=looks % _WATCH_SCANS_EVERY == 0)
            for node in sorted(known.keys() | seen.keys()):
                after = seen.get(node, NodeState.STOPPED)
                if known.get(node, NodeState.STOPPED) != after:
                    yield NodeChange(time.time(), node, after)
            known = seen

    # --- looking ---

    def _states(self, *, scan: bool) -> dict[str, NodeState]:
        try:
            state = read_state(self._folder)
        except ClusterFailed:
            return {}
        return {} if state is None else {n.name: n.state for n in self._look(state, scan=scan)}

    def _look(self, state: LocalState, *, scan: bool = True) -> tuple[NodeInfo, ...]:
        running = self._processes(state, scan=scan)
        listening = processes.listening_ports()
        infos: list[NodeInfo] = []
        for place in local_node.places(self._folder, state):
            name, process = place.node.name, running.get(place.node.name)
            served = process is not None and self._served.get(name) == process
            judged = _judge(process, place, listening, served=served)
            if process is not None and judged is NodeState.RUNNING:
                self._served[name] = process
            infos.append(NodeInfo(name, place.erlang_name, judged, place.endpoint))
        return tuple(infos)

    def _processes(self, state: LocalState, *, scan: bool = True) -> dict[str, OwnProcess]:
        """The process of each node that has one. A scan looks for the nodes whose process is not known to live."""
        names = {node.name for node in state.nodes}
        seen = {name: p for name, p in self._seen.items() if name in names and processes.alive(p)}
        if scan and seen.keys() != names:
            for process, folder in processes.find(NODE_MARK).items():
                path = Path(folder)
                if path.parent == self._folder and path.name in names and local_node.is_node_process(process):
                    seen.setdefault(path.name, process)
        self._seen = seen
        return dict(seen)

    def _process(self, state: LocalState, place: NodePlace) -> OwnProcess | None:
        return self._processes(state).get(place.node.name)

    def _state(self) -> LocalState:
        state = read_state(self._folder)
        if state is None:
            raise self._none()
        return state

    def _none(self) -> NoSuchCluster:
        return NoSuchCluster(f"there is no local cluster called {self._name}", "'dmq start' makes one.")

    def _place(self, state: LocalState, node: str) -> NodePlace:
        found = next((p for p in local_node.places(self._folder, state) if p.node.name == node), None)
        if found is None:
            names = ", ".join(n.name for n in state.nodes)
            raise BadInput(f"{self._name} has no node called {node!r}", f"Its nodes are {names}.")
        return found

    def _installation(self) -> Installation:
        found = self._given_installation or find_installation()
        reason = local_unavailable(found)
        if found is None or reason is not None:
            raise BackendUnavailable(reason or "", "'dmq start --install' gets RabbitMQ with apt, or start Docker.")
        if self._asked_rabbitmq is not None and not matches_version(found.version, self._asked_rabbitmq):
            raise BadInput(
                f"this machine has RabbitMQ {found.version}, not {self._asked_rabbitmq}",
                "Leave out --rabbitmq, install that version, or use --backend docker.",
            )
        return found

    # --- making and starting ---

    def _as_asked(self, state: LocalState) -> LocalState:
        if self._asked_nodes not in (None, state.nodes_named()):
            raise BadInput(
                f"the cluster {self._name} was made with {len(state.nodes)} nodes",
                "Start it without that option, destroy it first, or choose another --cluster.",
            )
        return state

    def _made(self, installation: Installation) -> LocalState:
        """A new state, after clearing what a call that was killed may have left."""
        self._kill_rest()
        with locked(self._folder.parent, ACT_LIMIT_S, make=True):
            credentials = self._credentials or Credentials()
            nodes = self._asked_nodes or node_names(_DEFAULT_NODES)
            state = choose_state(self._name, nodes, str(installation.version), credentials, self._folder)
            write_state(self._folder, state)
        return state

    def _launched(
        self, state: LocalState, installation: Installation, nodes: tuple[str, ...], progress: ProgressListener
    ) -> LocalState:
        """Starts those of `nodes` that have no process and lets the frozen ones go on; the cluster must be locked."""
        running = self._processes(state)
        missing = tuple(n for n in nodes if n not in running)
        for name in (n for n in nodes if n in running):
            if processes.frozen(running[name]):
                progress(Progress(f"{name} was paused and goes on", name))
                processes.send(running[name], signal.SIGCONT)
        if not missing:
            return state
        state = self._with_free_ports(state, missing, installation, anybody=bool(running), progress=progress)
        local_node.ensure_cluster_files(self._folder)
        if state.epmd_port not in processes.listening_ports():
            local_node.launch_epmd(self._folder, state, installation)
        for place in local_node.places(self._folder, state):
            if place.node.name in missing:
                progress(Progress(f"{place.node.name} boots", place.node.name))
                process = local_node.launch(place, state, installation)
                # While it becomes one program after another its environment cannot be read, so no scan would find it.
                if process is not None:
                    self._seen[place.node.name] = process
        return state

    def _with_free_ports(
        self,
        state: LocalState,
        missing: tuple[str, ...],
        installation: Installation,
        *,
        anybody: bool,
        progress: ProgressListener,
    ) -> LocalState:
        """The state in which every node to be started has ports that are free, written if it differs."""
        with locked(self._folder.parent, ACT_LIMIT_S, make=True):
            moved = with_free_ports(state, missing, self._folder, keep_epmd=anybody or self._own_epmd())
            moved = replace(moved, rabbitmq=str(installation.version))
            for before, after in zip(state.nodes, moved.nodes, strict=True):
                if before.amqp_port != after.amqp_port:
                    text = f"port {before.amqp_port} is taken: {after.name} moves to {after.amqp_port}"
                    progress(Progress(text, after.name))
            if moved != state:
                write_state(self._folder, moved)
        return moved

    def _own_epmd(self) -> bool:
        return any(processes.program(p) == "epmd" for p in processes.find(CLUSTER_MARK, str(self._folder)))

    def _await_whole(
        self,
        state: LocalState,
        installation: Installation,
        deadline: float,
        progress: ProgressListener,
        *,
        again: bool,
    ) -> None:
        """Waits until every node serves and all see all; `again`: a node that gives up may try once more."""
        expected = frozenset(local_node.erlang_name(n.name) for n in state.nodes)
        serving: set[str] = set()
        retried: set[str] = set()
        while True:
            running = self._processes(state)
            for place in local_node.places(self._folder, state):
                if place.node.name not in running:
                    self._ended(place, state, installation, progress, again=again and place.node.name not in retried)
                    retried.add(place.node.name)
            infos = self._look(state, scan=False)
            for info in infos:
                if info.state is NodeState.RUNNING and info.name not in serving:
                    serving.add(info.name)
                    progress(Progress(f"{info.name} serves", info.name, len(serving) / len(infos)))
            if len(serving) == len(infos) and readiness.whole([i.endpoint for i in infos], expected, self.credentials):
                return
            if time.monotonic() > deadline:
                waiting = [i.name for i in infos if i.state is not NodeState.RUNNING]
                what = f"{', '.join(waiting)} did not come up" if waiting else "the nodes did not find each other"
                raise TimedOut(f"{what} within {START_LIMIT_S:.0f} s", "'dmq node logs NODE' shows what it waits for.")
            time.sleep(_POLL_S)

    def _ended(
        self,
        place: NodePlace,
        state: LocalState,
        installation: Installation,
        progress: ProgressListener,
        *,
        again: bool,
    ) -> None:
        name = place.node.name
        reason = local_node.boot_failure(place)
        if not again:
            raise NodeBootFailed(
                f"{name} did not boot: {reason}" if reason else f"{name} ended while it booted",
                f"'dmq node logs {name}' shows its log." if self.exists() else "",
            )
        progress(Progress(f"{name} ended while it booted{': ' if reason else ''}{reason}; once more", name))
        with locked(self._folder, ACT_LIMIT_S) as here:
            if not here or read_state(self._folder) is None:
                raise ClusterFailed(f"{self._name} was removed while it started")
            self._launched(state, installation, (name,), silent)

    # --- acts ---

    def _kill(self, state: LocalState, place: NodePlace, _progress: ProgressListener) -> None:
        process = self._process(state, place)
        if process is not None:
            processes.send(process, signal.SIGKILL)
            processes.await_end((process,), ACT_LIMIT_S / 2)
        left = processes.kill_all(NODE_MARK, str(place.folder))
        if left:
            raise ClusterFailed(f"{place.node.name} did not die", f"Look at process {left[0].pid}.")

    def _stop(self, _state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        with self._held() as state:
            self._end(state, (place.node.name,), progress)

    def _start(self, state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        deadline = time.monotonic() + ACT_LIMIT_S
        installation = self._installation()
        name = place.node.name
        running = self._process(state, place)
        if running is not None and processes.frozen(running):
            raise BadInput(f"{name} is paused, not stopped", f"'dmq node unpause {name}' lets it go on.")
        with self._held() as held:
            state = self._launched(held, installation, (name,), progress)
        self._await_node(state, self._place(state, name), deadline)

    def _restart(self, state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        self._stop(state, place, progress)
        self._start(state, place, progress)

    def _pause(self, state: LocalState, place: NodePlace, _progress: ProgressListener) -> None:
        process = self._process(state, place)
        if process is None or not processes.send(process, signal.SIGSTOP):
            raise BadInput(
                f"{place.node.name} does not run, so it cannot be paused", f"'dmq node start {place.node.name}'."
            )
        deadline = time.monotonic() + 5.0
        while not processes.frozen(process):
            if time.monotonic() > deadline or not processes.alive(process):
                raise ClusterFailed(f"{place.node.name} did not freeze", "Look whether it still runs.")
            time.sleep(0.01)

    def _unpause(self, state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        deadline = time.monotonic() + ACT_LIMIT_S
        name = place.node.name
        process = self._process(state, place)
        if process is None:
            raise BadInput(f"{name} does not run, so it is not paused", f"'dmq node start {name}' starts it.")
        processes.send(process, signal.SIGCONT)
        installation = self._installation()
        if installation.version < _KHEPRI_ONLY and not self._rejoined(state, place, deadline - ACT_LIMIT_S / 2):
            text = f"{name} was frozen for so long that the others gave it up; its RabbitMQ is stopped and started"
            progress(Progress(text, name))
            local_node.control(place, state, installation, "stop_app", limit_s=deadline - time.monotonic())
            local_node.control(place, state, installation, "start_app", limit_s=max(5.0, deadline - time.monotonic()))
        self._await_node(state, place, deadline)

    def _rejoined(self, state: LocalState, place: NodePlace, deadline: float) -> bool:
        """Whether the node comes back to the others by itself; False once it serves and still stays apart."""
        good_since = bad_since = 0.0
        while (now := time.monotonic()) < deadline:
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
        return False

    def _partitioned(self, state: LocalState) -> bool:
        serving = [i.endpoint for i in self._look(state) if i.state is NodeState.RUNNING]
        return any(readiness.side_by_side(lambda e: readiness.partitioned(e, self.credentials), serving))

    def _joined(self, state: LocalState, place: NodePlace) -> bool:
        """Whether the node serves, and it and every other node that serves see each other."""
        serving = [i for i in self._look(state) if i.state is NodeState.RUNNING]
        if place.node.name not in {i.name for i in serving} or not readiness.amqp_answers(place.endpoint):
            return False
        expected = frozenset(i.erlang_name for i in serving)

        def sees_all(endpoint: NodeEndpoint) -> bool:
            seen = readiness.running_nodes(endpoint, self.credentials, timeout_s=1.5)
            return seen is not None and expected <= seen

        return all(readiness.side_by_side(sees_all, [i.endpoint for i in serving]))

    def _await_node(self, state: LocalState, place: NodePlace, deadline: float) -> None:
        name = place.node.name
        while not self._joined(state, place):
            if self._process(state, place) is None:
                reason = local_node.boot_failure(place)
                raise NodeBootFailed(
                    f"{name} did not boot: {reason}" if reason else f"{name} ended while it booted",
                    f"'dmq node logs {name}' shows its log.",
                )
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{name} does not serve after {ACT_LIMIT_S:.0f} s",
                    "It may wait for the others: 'dmq start' starts every node.",
                )
            time.sleep(_POLL_S)

    # --- ending ---

    @contextlib.contextmanager
    def _held(self) -> Iterator[LocalState]:
        with locked(self._folder, ACT_LIMIT_S) as here:
            state = read_state(self._folder) if here else None
            if state is None:
                raise self._none()
            yield state

    def _end(self, state: LocalState, nodes: tuple[str, ...], progress: ProgressListener) -> None:
        """Lets the nodes shut down in good order, side by side; one that will not is killed after 40 s."""
        running = {name: p for name, p in self._processes(state).items() if name in nodes}
        for name, process in running.items():
            progress(Progress(f"{name} stops", name))
            processes.send(process, signal.SIGTERM)
            processes.send(process, signal.SIGCONT)
        late = processes.await_end(running.values(), _STOP_LIMIT_S)
        for name, process in running.items():
            if process in late:
                progress(Progress(f"{name} did not stop within {_STOP_LIMIT_S:.0f} s and is killed", name))
            processes.kill_all(NODE_MARK, str(self._folder / name))

    def _kill_rest(self) -> None:
        left = processes.kill_all(CLUSTER_MARK, str(self._folder))
        if left:
            raise ClusterFailed(f"process {left[0].pid} of {self._name} did not end", "End it by hand and try again.")


def local_unavailable(installation: Installation | None = None) -> str | None:
    """None if local clusters can run here, else why not, in a line."""
    if not processes.supported():
        return "local clusters need Linux 5.3 or newer"
    return None if installation or find_installation() else "rabbitmq-server is not installed"


def _judge(process: OwnProcess | None, place: NodePlace, listening: frozenset[int], *, served: bool) -> NodeState:
    if process is None:
        return NodeState.STOPPED
    if processes.frozen(process):
        return NodeState.PAUSED
    if place.node.amqp_port in listening:
        return NodeState.RUNNING
    booting = not served and processes.age_s(process) < _BOOT_LIMIT_S
    return NodeState.STARTING if booting else NodeState.UNREACHABLE
