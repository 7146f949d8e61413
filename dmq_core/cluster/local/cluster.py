"""A cluster of `rabbitmq-server` processes of this machine, on loopback, that outlive the program that started them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dmq_core.cluster.faults.injector import MENDS_LINKS, FaultWorks
from dmq_core.cluster.faults.model import Fault
from dmq_core.cluster.local import isolation as local_isolation
from dmq_core.cluster.local import node as local_node
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.boot import LocalBoot
from dmq_core.cluster.local.installation import Installation, checked_version, find_installation, matches_version
from dmq_core.cluster.local.node import CLUSTER_MARK, NODE_MARK, NodePlace
from dmq_core.cluster.local.processes import OwnProcess
from dmq_core.cluster.local.scaling import LocalScaling
from dmq_core.cluster.local.state import LocalState, choose_state, clusters_folder, read_state, write_state
from dmq_core.cluster.local.status import LocalStatus
from dmq_core.cluster.metrics import ask_for_metrics
from dmq_core.cluster.node_config import checked_cluster_name, node_names
from dmq_core.cluster.protocol import Backend, NodeAction, NodeChange, NodeInfo, NodeState
from dmq_core.cluster.scaling import procedure
from dmq_core.cluster.scaling.checks import other_number
from dmq_core.endpoints import Credentials
from dmq_core.errors import (
    BackendUnavailableError,
    ClusterError,
    ClusterNotFoundError,
    InvalidInputError,
    NodeBootError,
    OperationTimeoutError,
)
from dmq_core.progress import Progress, ProgressListener, no_progress
from dmq_core.state_directory import locked, remove_folder

START_LIMIT_S = 180.0
ACT_LIMIT_S = 60.0
_STOP_LIMIT_S = 40.0
_LINK_LIMIT_S = 20.0
_LOG_LATE_S = 6.0
_DEFAULT_NODES = 3


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
        self._status = LocalStatus(self._folder)

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
        with contextlib.suppress(ClusterError):
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
        return () if state is None else self._status.infos(state)

    def start(self, progress: ProgressListener = no_progress) -> None:
        """Makes the cluster if need be and starts it, within 180 s; returns when it is whole.

        `NodeBootError` as soon as a node gives up; its log can be read then. Interrupted, a call removes the cluster
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
                boot = self._boot(installation)
                if state.leaving is not None:
                    processes.kill_all(NODE_MARK, str(self._folder / state.leaving))
                state = boot.launch(state, state.node_names, progress)
            self._bring_back(state, boot, deadline, progress)
            boot.await_whole(state, deadline, progress, again=not made)
            if state.leaving is not None or state.joining is not None:
                with self._held() as held:
                    scaling = self._scaling(held, installation)
                    procedure.finish_leaving(scaling, progress)
                    procedure.finish_joining(scaling, progress)
        except (NodeBootError, OperationTimeoutError):
            raise
        except BaseException:
            if made:
                with contextlib.suppress(ClusterError, OperationTimeoutError):
                    self.destroy()
            raise

    def stop(self, progress: ProgressListener = no_progress) -> None:
        """Stops every node within 60 s and keeps all data; the cluster's epmd ends with them."""
        with locked(self._folder, ACT_LIMIT_S) as here:
            state = read_state(self._folder) if here else None
            if state is None:
                raise self._none()
            self._end(state, state.node_names, progress)
            self._kill_rest()

    def destroy(self, progress: ProgressListener = no_progress) -> None:
        """Removes every process and the folder of this cluster; nothing happens if there are none."""
        with locked(self._folder, ACT_LIMIT_S) as here:
            if here:
                progress(Progress(f"removing {self._name}"))
                self._kill_rest()
                remove_folder(self._folder)

    def act(self, action: NodeAction, node: str, progress: ProgressListener = no_progress) -> None:
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
            NodeAction.ISOLATE: self._isolate,
            NodeAction.REJOIN: self._rejoin,
            NodeAction.DRAIN: self._drain,
            NodeAction.REVIVE: self._revive,
        }
        if action in MENDS_LINKS and self._noted(state):
            self._works().mend_links((node,))
        acts[action](state, place, progress)

    def add_node(self, progress: ProgressListener = no_progress) -> str:
        """Makes one more node and returns its name once queues have grown onto it, within 180 s."""
        installation = self._installation()
        with self._held(START_LIMIT_S) as state:
            self._asked_nodes = None
            return procedure.add(self._scaling(state, installation), progress)

    def remove_node(self, node: str, progress: ProgressListener = no_progress, *, force: bool = False) -> None:
        """Takes the queues off `node`, lets the others forget it and removes it with its data, within 180 s."""
        installation = self._installation()
        with self._held(START_LIMIT_S) as state:
            self._asked_nodes = None
            procedure.remove(self._scaling(state, installation), node, progress, force=force)

    def inject(self, fault: Fault, progress: ProgressListener = no_progress) -> str | None:
        """Does a fault of the whole cluster and returns once it holds."""
        return self._works().inject(fault, progress)

    def active_faults(self) -> tuple[Fault, ...]:
        """The faults that hold now, by what the nodes tell of themselves."""
        return self._works().active_faults()

    def logs(self, node: str, lines: int = 200) -> str:
        """The last `lines` lines of the node's log."""
        return local_node.log_tail(self._place(self._state(), node), lines)

    def metrics(self, node: str) -> str:
        """What the node tells of itself at `/metrics`."""
        place = self._place(self._state(), node)
        return ask_for_metrics(node, place.endpoint.host, place.node.prometheus_port)

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        """Yields changes of node states within 0.5 s until `stop` is set; nodes that go away have stopped."""
        return self._status.watch(stop)

    def _works(self) -> FaultWorks:
        state, installation = self._state(), self._installation()
        boot = self._boot(installation)

        def run(node: str, tool: str, words: tuple[str, ...], limit_s: float) -> str:
            return local_node.tool(self._place(state, node), state, installation, tool, words, limit_s)

        def settle(nodes: tuple[str, ...], progress: ProgressListener) -> None:
            deadline = time.monotonic() + ACT_LIMIT_S
            for node in nodes:
                boot.rejoin(state, self._place(state, node), deadline, progress)

        return FaultWorks(self.nodes, run, self.act, settle)

    def _noted(self, state: LocalState) -> tuple[str, ...]:
        """The nodes in which a link was cut or slowed; it may have ended since."""
        return tuple(p.node.name for p in local_node.places(self._folder, state) if p.links_note.exists())

    def _state(self) -> LocalState:
        state = read_state(self._folder)
        if state is None:
            raise self._none()
        return state

    def _none(self) -> ClusterNotFoundError:
        return ClusterNotFoundError(f"there is no local cluster called {self._name}", "'dmq start' makes one.")

    def _place(self, state: LocalState, node: str) -> NodePlace:
        found = next((p for p in local_node.places(self._folder, state) if p.node.name == node), None)
        if found is None:
            names = ", ".join(n.name for n in state.nodes)
            raise InvalidInputError(f"{self._name} has no node called {node!r}", f"Its nodes are {names}.")
        return found

    def _installation(self) -> Installation:
        found = self._given_installation or find_installation()
        reason = local_unavailable(found)
        if found is None or reason is not None:
            raise BackendUnavailableError(
                reason or "", "'dmq start --install' gets RabbitMQ with apt, or start Docker."
            )
        if self._asked_rabbitmq is not None and not matches_version(found.version, self._asked_rabbitmq):
            raise InvalidInputError(
                f"this machine has RabbitMQ {found.version}, not {self._asked_rabbitmq}",
                "Leave out --rabbitmq, install that version, or use --backend docker.",
            )
        return found

    def _scaling(self, state: LocalState, installation: Installation) -> LocalScaling:
        return LocalScaling(self._folder, state, self._status, installation, self.credentials)

    def _boot(self, installation: Installation) -> LocalBoot:
        return LocalBoot(self._folder, self._status, installation, self.credentials)

    def _as_asked(self, state: LocalState) -> LocalState:
        if self._asked_nodes is not None and len(self._asked_nodes) != len(state.nodes):
            raise other_number(self._name, len(state.nodes))
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

    def _bring_back(self, state: LocalState, boot: LocalBoot, deadline: float, progress: ProgressListener) -> None:
        """Lets frozen nodes go on and mends the links of those that were cut off or slow."""
        paused = [info.name for info in self._status.infos(state) if info.state is NodeState.PAUSED]
        for name in paused:
            progress(Progress(f"{name} was paused and goes on", name))
            process = self._status.process(state, name)
            if process is not None:
                processes.send(process, signal.SIGCONT)
        noted = self._noted(state)
        if noted:
            progress(Progress(f"opening the links of {', '.join(noted)}"))
            self._works().mend_links(noted)
        isolated = [
            name for name, process in self._status.processes(state).items() if self._is_cut(state, name, process)
        ]
        for name in isolated:
            progress(Progress(f"{name} was cut off and rejoins", name))
            self._mend(name, boot, progress)
        for name in dict.fromkeys((*paused, *isolated)):
            boot.rejoin(state, self._place(state, name), deadline, progress)

    def _kill(self, state: LocalState, place: NodePlace, _progress: ProgressListener) -> None:
        process = self._status.process(state, place.node.name)
        if process is not None:
            processes.send(process, signal.SIGKILL)
            processes.await_end((process,), ACT_LIMIT_S / 2)
        left = processes.kill_all(NODE_MARK, str(place.folder))
        if left:
            raise ClusterError(f"{place.node.name} did not die", f"Look at process {left[0].pid}.")

    def _stop(self, _state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        with self._held() as state:
            self._end(state, (place.node.name,), progress)

    def _start(self, state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        deadline = time.monotonic() + ACT_LIMIT_S
        installation = self._installation()
        name = place.node.name
        running = self._status.process(state, place.node.name)
        if running is not None and processes.frozen(running):
            raise InvalidInputError(f"{name} is paused, not stopped", f"'dmq node unpause {name}' lets it go on.")
        if running is not None and self._is_cut(state, name, running):
            self._rejoin(state, place, progress)
            return
        if running is not None and local_node.drained(place, running):
            self._revive(state, place, progress)
            return
        with self._held() as held:
            boot = self._boot(installation)
            state = boot.launch(held, (name,), progress)
        boot.await_node(state, self._place(state, name), deadline)

    def _restart(self, state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        self._stop(state, place, progress)
        self._start(state, place, progress)

    def _pause(self, state: LocalState, place: NodePlace, _progress: ProgressListener) -> None:
        process = self._status.process(state, place.node.name)
        if process is None or not processes.send(process, signal.SIGSTOP):
            raise InvalidInputError(
                f"{place.node.name} does not run, so it cannot be paused", f"'dmq node start {place.node.name}'."
            )
        deadline = time.monotonic() + 5.0
        while not processes.frozen(process):
            if time.monotonic() > deadline or not processes.alive(process):
                raise ClusterError(f"{place.node.name} did not freeze", "Look whether it still runs.")
            time.sleep(0.01)

    def _unpause(self, state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        deadline = time.monotonic() + ACT_LIMIT_S
        name = place.node.name
        process = self._status.process(state, name)
        if process is None:
            raise InvalidInputError(f"{name} does not run, so it is not paused", f"'dmq node start {name}' starts it.")
        processes.send(process, signal.SIGCONT)
        if self._is_cut(state, name, process):
            progress(Progress(f"{name} goes on and is still isolated", name))
        else:
            self._boot(self._installation()).rejoin(state, place, deadline, progress)

    def _isolate(self, state: LocalState, place: NodePlace, _progress: ProgressListener) -> None:
        name = place.node.name
        if len(state.nodes) == 1:
            raise InvalidInputError(f"{name} has no peers to be cut off from", "Make a cluster of three nodes.")
        installation = self._installation()
        with self._held() as held:
            process = self._awake(held, name)
            if not self._is_cut(held, name, process):
                local_isolation.cut(place, process, held, installation, _LINK_LIMIT_S)

    def _rejoin(self, state: LocalState, place: NodePlace, progress: ProgressListener) -> None:
        deadline = time.monotonic() + ACT_LIMIT_S
        self._awake(state, place.node.name)
        boot = self._boot(self._installation())
        self._mend(place.node.name, boot, progress)
        boot.rejoin(state, place, deadline, progress)

    def _mend(self, node: str, boot: LocalBoot, progress: ProgressListener) -> None:
        """Opens the links of a node, if they are cut."""
        with self._held() as state:
            process = self._status.process(state, node)
            if process is not None and self._is_cut(state, node, process):
                boot.mend(state, self._place(state, node), _LINK_LIMIT_S, progress)

    def _is_cut(self, state: LocalState, node: str, process: OwnProcess) -> bool:
        return local_isolation.is_cut(self._place(state, node), process)

    def _drain(self, state: LocalState, place: NodePlace, _progress: ProgressListener) -> None:
        name = place.node.name
        if self._awake_state(state, name) is NodeState.DRAINING:
            return
        local_node.maintain(place, state, self._installation(), "drain", limit_s=ACT_LIMIT_S)
        # RabbitMQ writes its log file up to two seconds late.
        deadline = time.monotonic() + _LOG_LATE_S
        while self._awake_state(state, name) is not NodeState.DRAINING:
            if time.monotonic() > deadline:
                raise OperationTimeoutError(
                    f"{name} does not say that it is in maintenance", f"See 'dmq node logs {name}'."
                )
            time.sleep(0.05)

    def _revive(self, state: LocalState, place: NodePlace, _progress: ProgressListener) -> None:
        deadline = time.monotonic() + ACT_LIMIT_S
        installation = self._installation()
        if self._awake_state(state, place.node.name) is NodeState.DRAINING:
            local_node.maintain(place, state, installation, "revive", limit_s=ACT_LIMIT_S)
        boot = self._boot(installation)
        boot.await_node(state, place, deadline)

    def _awake_state(self, state: LocalState, node: str) -> NodeState:
        """The state of a node that can be put into maintenance or revived; `InvalidInputError` if it cannot."""
        if self._is_cut(state, node, self._awake(state, node)):
            raise InvalidInputError(f"{node} is isolated", f"Mend that first: 'dmq node rejoin {node}'.")
        return next(info.state for info in self._status.infos(state) if info.name == node)

    def _awake(self, state: LocalState, node: str) -> OwnProcess:
        """The process of a node that runs and is not frozen; `InvalidInputError` if it is."""
        process = self._status.process(state, node)
        if process is None:
            raise InvalidInputError(f"{node} does not run", f"'dmq node start {node}' starts it.")
        if processes.frozen(process):
            raise InvalidInputError(f"{node} is paused", f"Mend that first: 'dmq node unpause {node}'.")
        return process

    @contextlib.contextmanager
    def _held(self, limit_s: float = ACT_LIMIT_S) -> Iterator[LocalState]:
        with locked(self._folder, limit_s) as here:
            state = read_state(self._folder) if here else None
            if state is None:
                raise self._none()
            yield state

    def _end(self, state: LocalState, nodes: tuple[str, ...], progress: ProgressListener) -> None:
        """Lets the nodes shut down in good order, side by side; one that will not is killed after 40 s."""
        running = {name: p for name, p in self._status.processes(state).items() if name in nodes}
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
            raise ClusterError(f"process {left[0].pid} of {self._name} did not end", "End it by hand and try again.")


def local_unavailable(installation: Installation | None = None) -> str | None:
    """None if local clusters can run here, else why not, in a line."""
    if not processes.supported():
        return "local clusters need Linux 5.3 or newer"
    return None if installation or find_installation() else "rabbitmq-server is not installed"
