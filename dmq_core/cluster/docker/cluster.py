"""A cluster whose nodes are containers of a Docker engine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from dmq_core.cluster.docker.definition import (
    CLUSTER_LABEL,
    HOME,
    USER,
    ClusterDefinition,
    erlang_name,
    ports_of_others,
    started_ago_s,
)
from dmq_core.cluster.docker.engine import Engine, connect
from dmq_core.cluster.docker.errors import PortTakenError
from dmq_core.cluster.docker.events import watch
from dmq_core.cluster.docker.image import ensure_image, series_of
from dmq_core.cluster.docker.isolation import is_cut_off, is_drained, run_tool
from dmq_core.cluster.docker.node_actions import ACTION_LIMIT_S, NodeActions, halt
from dmq_core.cluster.docker.provisioning import (
    ALIVE,
    ExistingParts,
    complete,
    find,
    remembered_credentials,
    remove_all,
)
from dmq_core.cluster.docker.readiness import Boot, NodeWaiter
from dmq_core.cluster.docker.scaling import DockerScaling
from dmq_core.cluster.docker.values import Container
from dmq_core.cluster.faults.erlang_links import note_name
from dmq_core.cluster.faults.injector import MENDS_LINKS, FaultWorks
from dmq_core.cluster.faults.model import Fault
from dmq_core.cluster.local.state import reserved_ports
from dmq_core.cluster.metrics import metrics_in, question_inside
from dmq_core.cluster.node_config import checked_cluster_name, node_names
from dmq_core.cluster.ports import DEFAULT_AMQP_PORT, DEFAULT_MANAGEMENT_PORT, PortChooser, default_port
from dmq_core.cluster.protocol import Backend, NodeAction, NodeChange, NodeInfo, NodeState
from dmq_core.cluster.readiness import management_answers, side_by_side
from dmq_core.cluster.scaling import procedure
from dmq_core.cluster.scaling.checks import other_number
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import ClusterError, ClusterNotFoundError, InvalidInputError, NodeBootError, OperationTimeoutError
from dmq_core.progress import Progress, ProgressListener, no_progress
from dmq_core.state_directory import locked, remove_folder, state_folder
from dmq_core.versions import Version, parse_version

START_LIMIT_S = 180.0
_BOOT_LIMIT_S = 120.0
_SLOW_ANSWER_S = 1.0
_LOCK_PATIENCE_S = 1.0
_PORT_ATTEMPTS = 3
_DEFAULT_NODES = 3


class DockerCluster:
    """The cluster called `name` on the Docker engine that `DOCKER_HOST` or the current context names.

    `nodes`, `rabbitmq` (a version such as `4.0`) and `credentials` say what to make; None leaves an existing cluster
    as it was made, and a new one gets 3 nodes, the default version and `guest`. Threads may share it.
    """

    def __init__(
        self,
        name: str,
        *,
        nodes: int | None = None,
        rabbitmq: str | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._name = checked_cluster_name(name)
        if nodes is not None:
            node_names(nodes)
        self._nodes = nodes
        self._rabbitmq = rabbitmq
        self._series = None if rabbitmq is None else series_of(rabbitmq)
        self._asked = credentials
        self._remembered: Credentials | None = None
        self._served: dict[str, str] = {}
        self._engine_lock = threading.Lock()
        self._connected: Engine | None = None

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._name

    @property
    def backend(self) -> Backend:
        """Docker."""
        return Backend.DOCKER

    @property
    def credentials(self) -> Credentials:
        """The user that the cluster was made with; read from a node's configuration unless it was given."""
        if self._asked is not None:
            return self._asked
        if self._remembered is None:
            self._remembered = remembered_credentials(self._engine, self._find())
        return self._remembered or Credentials()

    @property
    def rabbitmq(self) -> Version | None:
        """The RabbitMQ version that the cluster was made with, as far as its image tells; None if there is none."""
        definition = self._find().definition
        return None if definition is None else parse_version(definition.rabbitmq)

    def exists(self) -> bool:
        """Whether there is any container, network or volume of it."""
        return self._find().anything

    def nodes(self) -> tuple[NodeInfo, ...]:
        """Every node in name order; one whose container runs is RUNNING once its management port answers."""
        found = self._find()
        definition = found.definition
        if definition is None:
            return ()

        def info(node: str) -> NodeInfo:
            state = self._state(definition, node, found.containers.get(node))
            return NodeInfo(node, erlang_name(node), state, definition.endpoint(node))

        return tuple(side_by_side(info, definition.nodes))

    def start(self, progress: ProgressListener = no_progress) -> None:
        """Makes what is missing, starts what does not run, and returns when the cluster is whole, within 180 s.

        `NodeBootError` if a node ends while it boots, `PortTakenError` if a stopped node's port now belongs to somebody
        else. Interrupted, it removes the cluster if it made it.
        """
        self._check_asked(self._find())
        with self._locked(progress):
            found = self._find()
            self._check_asked(found)
            try:
                self._start(found, progress)
            except (NodeBootError, OperationTimeoutError):
                # The nodes stay, so that their logs can be read.
                raise
            except BaseException:
                if not found.anything:
                    progress(Progress("removing what was half made"))
                    self._remove()
                raise

    def stop(self, progress: ProgressListener = no_progress) -> None:
        """Stops every node and keeps all data."""
        self._existing()
        with self._locked(progress):
            found = self._existing()
            side_by_side(lambda c: halt(self._engine, c, progress), list(found.containers.values()))

    def destroy(self, progress: ProgressListener = no_progress) -> None:
        """Removes every container, network and volume that carries the cluster's label, and nothing else."""
        self._engine.ping()
        with self._locked(progress):
            progress(Progress("removing containers, networks and volumes"))
            self._remove()

    def act(self, action: NodeAction, node: str, progress: ProgressListener = no_progress) -> None:
        """Does `action` to `node` and returns once it holds, within 60 s."""
        definition, container = self._target(self._existing(), node)
        progress(Progress(f"{action} {node}", node))
        if action in MENDS_LINKS and self._noted(definition.nodes):
            self._works().mend_links((node,))
        waiter = NodeWaiter(self._engine, definition, self.credentials, progress)
        NodeActions(self._engine, definition, self._state, waiter, progress).do(action, container)

    def add_node(self, progress: ProgressListener = no_progress) -> str:
        """Makes one more node and returns its name once queues have grown onto it, within 180 s."""
        self._existing()
        with self._locked(progress):
            self._nodes = None
            return procedure.add(self._scaling(), progress)

    def remove_node(self, node: str, progress: ProgressListener = no_progress, *, force: bool = False) -> None:
        """Takes the queues off `node`, lets the others forget it and removes it with its data, within 180 s."""
        self._existing()
        with self._locked(progress):
            self._nodes = None
            procedure.remove(self._scaling(), node, progress, force=force)

    def inject(self, fault: Fault, progress: ProgressListener = no_progress) -> str | None:
        """Does a fault of the whole cluster and returns once it holds."""
        return self._works().inject(fault, progress)

    def active_faults(self) -> tuple[Fault, ...]:
        """The faults that hold now, by what the nodes tell of themselves."""
        return self._works().active_faults()

    def logs(self, node: str, lines: int = 200) -> str:
        """The last `lines` lines that the node's container wrote, also while it is stopped."""
        _, container = self._target(self._existing(), node)
        return self._engine.logs(container.id, max(lines, 0))

    def metrics(self, node: str) -> str:
        """What the node tells of itself at `/metrics`; asked from inside, since that port is not published."""
        _, container = self._target(self._existing(), node)
        return metrics_in(node, self._engine.run_in(container.id, question_inside(), USER)[1])

    def watch(self, stop: threading.Event) -> Iterator[NodeChange]:
        """Yields changes of node states as the engine pushes them, until `stop` is set."""
        return watch(self._engine, self._name, self.nodes, stop)

    @property
    def _engine(self) -> Engine:
        with self._engine_lock:
            if self._connected is None:
                self._connected = connect()
            return self._connected

    @property
    def _folder(self) -> Path:
        return state_folder() / "docker" / self._name

    def _find(self) -> ExistingParts:
        return find(self._engine, self._name)

    def _works(self) -> FaultWorks:
        definition = self._existing().definition
        if definition is None:
            raise ClusterError(f"{self._name} is half made", "'dmq start' completes it.")

        def run(node: str, tool: str, words: tuple[str, ...], _limit_s: float) -> str:
            return run_tool(self._engine, definition.container(node), node, tool, words)

        def settle(nodes: tuple[str, ...], progress: ProgressListener) -> None:
            waiter = NodeWaiter(self._engine, definition, self.credentials, progress)
            waiter.await_node(nodes[0], Boot(restarts=0), time.monotonic() + ACTION_LIMIT_S, apart=True)

        return FaultWorks(self.nodes, run, self.act, settle)

    def _noted(self, nodes: Iterable[str]) -> tuple[str, ...]:
        """Those of `nodes` in which a link was cut or slowed; it may have ended since."""
        found = self._find().containers

        def noted(node: str) -> bool:
            path = f"{HOME}/{note_name(erlang_name(node))}"
            return node in found and self._engine.read_file(found[node].id, path) is not None

        known = list(nodes)
        return tuple(n for n, is_noted in zip(known, side_by_side(noted, known), strict=True) if is_noted)

    def _remove(self) -> None:
        remove_all(self._engine, self._name)
        self._remembered = None
        remove_folder(self._folder)

    def _existing(self) -> ExistingParts:
        found = self._find()
        if not found.anything:
            raise ClusterNotFoundError(
                f"there is no cluster called {self._name} on this Docker engine",
                f"'dmq start --cluster {self._name}' makes it.",
            )
        return found

    def _target(self, found: ExistingParts, node: str) -> tuple[ClusterDefinition, Container]:
        definition = found.definition
        if definition is None or node not in definition.nodes:
            known = ", ".join(definition.nodes) if definition else "none"
            raise InvalidInputError(f"{self._name} has no node {node!r}", f"Its nodes: {known}.")
        container = found.containers.get(node)
        if container is None:
            raise ClusterError(f"the container of {node} is gone", "'dmq start' makes it again; its data is kept.")
        return definition, container

    def _state(self, definition: ClusterDefinition, node: str, container: Container | None) -> NodeState:
        if container is None or container.status not in ALIVE:
            return NodeState.STOPPED
        if container.status == "paused":
            return NodeState.PAUSED
        if is_cut_off(definition, container):
            return NodeState.ISOLATED
        return self._running_state(container, definition.endpoint(node))

    def _running_state(self, container: Container, endpoint: NodeEndpoint) -> NodeState:
        served = self._served.get(container.id) == container.started_at
        answer = management_answers(endpoint)
        if answer is None and not served:
            answer = management_answers(endpoint, _SLOW_ANSWER_S)
        # A busy machine may be slow to answer; only a closed port tells that a node which served no longer does.
        if answer or (answer is None and served):
            self._served[container.id] = container.started_at
            return NodeState.RUNNING
        if answer is False and is_drained(self._engine, container):
            return NodeState.DRAINING
        booting = not served and started_ago_s(container.started_at) < _BOOT_LIMIT_S
        return NodeState.STARTING if booting else NodeState.UNREACHABLE

    @contextlib.contextmanager
    def _locked(self, progress: ProgressListener) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(self._folder, _LOCK_PATIENCE_S, make=True))
            except OperationTimeoutError:
                progress(Progress(f"another dmq is busy with {self._name}; waiting for it"))
                held.enter_context(locked(self._folder, START_LIMIT_S, make=True))
            yield

    def _check_asked(self, found: ExistingParts) -> None:
        definition = found.definition
        if definition is None:
            return
        if self._nodes not in (None, len(definition.nodes)):
            raise other_number(self._name, len(definition.nodes))
        if self._series not in (None, series_of(definition.rabbitmq)):
            self._differs(f"RabbitMQ {definition.rabbitmq}")

    def _differs(self, what: str) -> None:
        raise InvalidInputError(
            f"the cluster {self._name} was made with {what}",
            "Start it without that option, destroy it first, or choose another --cluster.",
        )

    def _start(self, found: ExistingParts, progress: ProgressListener) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            definition = found.definition or self._choose(progress)
            credentials = self.credentials
            complete(self._engine, definition, found, credentials, progress)
            try:
                self._start_containers(definition, progress)
                break
            except PortTakenError:
                # A new cluster may have other ports; a made one keeps those that its users know.
                if found.booted_before or attempt == _PORT_ATTEMPTS:
                    raise
                remove_all(self._engine, self._name)
                found = self._find()
        self._remembered = credentials
        waiter = NodeWaiter(self._engine, definition, credentials, progress)
        alive = [n for n, c in found.containers.items() if c.status in ALIVE]
        noted = self._noted(alive)
        if noted:
            progress(Progress(f"opening the links of {', '.join(noted)}"))
            self._works().mend_links(noted)
        waiter.revive_also(alive)
        waiter.await_whole(Boot(restarts=2 if found.booted_before else 0), time.monotonic() + START_LIMIT_S)
        scaling = self._scaling()
        procedure.finish_leaving(scaling, progress)
        procedure.finish_joining(scaling, progress)

    def _scaling(self) -> DockerScaling:
        definition = self._existing().definition
        if definition is None:
            raise ClusterError(f"{self._name} is half made", "'dmq start' completes it.")
        return DockerScaling(self._engine, definition, self.credentials, self.nodes, self._ports)

    def _ports(self, nodes: Iterable[str]) -> tuple[tuple[int, int], ...]:
        """A free AMQP and management port for each of `nodes`."""
        things = (self._engine.containers, self._engine.networks, self._engine.volumes)
        labels = [thing.labels for list_all in things for thing in list_all(CLUSTER_LABEL)]
        chooser = PortChooser(ports_of_others(labels, self._name) | reserved_ports(self._folder))
        return tuple(
            (
                chooser.take(default_port(DEFAULT_AMQP_PORT, self._name, node)),
                chooser.take(default_port(DEFAULT_MANAGEMENT_PORT, self._name, node)),
            )
            for node in nodes
        )

    def _choose(self, progress: ProgressListener) -> ClusterDefinition:
        image = ensure_image(self._engine, self._rabbitmq, progress)
        nodes = node_names(self._nodes or _DEFAULT_NODES)
        return ClusterDefinition(self._name, image.rabbitmq, image.reference, nodes, self._ports(nodes))

    def _start_containers(self, definition: ClusterDefinition, progress: ProgressListener) -> None:
        def start(item: tuple[str, Container]) -> None:
            node, container = item
            if container.status == "paused":
                progress(Progress("unpausing the node", node))
                self._engine.unpause_container(container.id)
            elif container.status != "running":
                progress(Progress("starting the node", node))
                self._engine.start_container(container.id)

        # A node that is leaving has a voice in the cluster until it is forgotten.
        containers = self._find().containers
        wanted = (*definition.nodes, definition.leaving)
        side_by_side(start, [(node, container) for node, container in containers.items() if node in wanted])


def docker_cluster_names() -> tuple[str, ...]:
    """The names of the clusters of which anything is on the Docker engine.

    Raises `BackendUnavailableError` if none answers.
    """
    engine = connect()
    try:
        things = (engine.containers, engine.networks, engine.volumes)
        labels = [thing.labels for list_all in things for thing in list_all(CLUSTER_LABEL)]
    finally:
        engine.close()
    return tuple(sorted({found[CLUSTER_LABEL] for found in labels if found.get(CLUSTER_LABEL)}))
