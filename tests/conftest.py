"""Real clusters for the tests: made once, handed to each test healthy and whole, and removed at the end.

`DMQ_TEST_RABBITMQ` chooses the RabbitMQ version of the clusters in Docker (default: what `dmq start` takes).
All state of a test run is kept in a folder of its own, so that clusters of this user are neither seen nor touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients import ClusterMaker

from dmq_core.cluster import ports
from dmq_core.cluster.discovery import docker_unavailable
from dmq_core.cluster.docker import engine as docker_engine
from dmq_core.cluster.docker.cluster import DockerCluster
from dmq_core.cluster.docker.image import ensure_image
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.installation import find_installation
from dmq_core.cluster.protocol import Backend, Cluster
from dmq_core.endpoints import Credentials
from dmq_core.errors import DmqError
from dmq_core.state_directory import locked

pytest_plugins = ["backend_count", "lanes"]

# A runner may ignore these, and every program that is started here to mind them would inherit that.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# A suite that makes and drops screens by the hundred spends a tenth of its time in collections that find little.
gc.freeze()
gc.set_threshold(50_000, 20, 20)

IMAGE_LIMIT_S = 900.0
PORTS = ports._FREE_PORTS
PORTS_OF_A_WORKER = 400
ON_DOCKER = pytest.param(Backend.DOCKER, marks=(pytest.mark.real, pytest.mark.docker), id="docker")
ON_LOCAL = pytest.param(Backend.LOCAL, marks=(pytest.mark.real, pytest.mark.local), id="local")


def cluster_name() -> str:
    """A name that no other cluster on this machine has."""
    return f"test-{os.getpid()}-{secrets.token_hex(3)}"


def why_not(backend: Backend) -> str | None:
    """None if clusters of `backend` can be made here, else the reason to skip with."""
    if backend is Backend.DOCKER:
        reason = docker_unavailable()
        return None if reason is None else f"Docker is missing: {reason}"
    return None if find_installation() else "rabbitmq-server is not installed (apt-get install rabbitmq-server)"


def version() -> str | None:
    """The RabbitMQ version that clusters in Docker have; None is what `dmq start` takes."""
    return os.environ.get("DMQ_TEST_RABBITMQ")


def build(backend: Backend, name: str, nodes: int = 3, credentials: Credentials | None = None) -> Cluster:
    """A cluster that exists once it is started."""
    if backend is Backend.DOCKER:
        return DockerCluster(name, nodes=nodes, rabbitmq=version(), credentials=credentials)
    return LocalCluster(name, nodes=nodes, credentials=credentials)


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> Iterator[None]:
    """Ports for the nodes of this worker, of which no other worker and no other run on this machine takes any.

    A port is chosen a while before a node listens on it, so that two who choose from the same ones may collide.
    """
    with contextlib.ExitStack() as stack:
        for number, first in enumerate(range(PORTS.start, PORTS.stop, PORTS_OF_A_WORKER)):
            claim = Path(tempfile.gettempdir()) / f"dmq-test-ports-{number}"
            try:
                file = stack.enter_context(claim.open("w"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            ports._FREE_PORTS = range(first, first + PORTS_OF_A_WORKER)
            break
        yield
        ports._FREE_PORTS = PORTS


@pytest.fixture(scope="session", autouse=True)
def own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which this run, and every `dmq` that it starts, keeps state."""
    folder = tmp_path_factory.mktemp("state")
    before = os.environ.get("DMQ_STATE_DIR")
    os.environ["DMQ_STATE_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DMQ_STATE_DIR"]
    else:
        os.environ["DMQ_STATE_DIR"] = before


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run see."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def image(common_folder: Path) -> None:
    """The image of the nodes in Docker, which the first worker that needs it builds while the others wait."""
    if docker_unavailable() is not None:
        return
    engine = docker_engine.connect()
    try:
        with locked(common_folder / "image", IMAGE_LIMIT_S, make=True):
            ensure_image(engine, version())
    finally:
        engine.close()


@pytest.fixture(scope="session")
def _clusters(own_state_folder: Path) -> Iterator[dict[Backend, Cluster]]:
    made: dict[Backend, Cluster] = {}
    yield made
    for cluster in made.values():
        cluster.destroy()


@pytest.fixture(scope="session")
def cluster_on(_clusters: dict[Backend, Cluster], request: pytest.FixtureRequest) -> Callable[[Backend], Cluster]:
    """Gives the run's cluster of three nodes on a backend, whole whatever the last test did; skips where it cannot."""

    def get(backend: Backend) -> Cluster:
        reason = why_not(backend)
        if reason is not None:
            pytest.skip(reason)
        if backend is Backend.DOCKER:
            request.getfixturevalue("image")
        if backend not in _clusters:
            _clusters[backend] = build(backend, cluster_name())
        cluster = _clusters[backend]
        try:
            cluster.start()
        except DmqError:
            # Beyond repair: the next test must not suffer for the last one.
            cluster.destroy()
            cluster.start()
        return cluster

    return get


@pytest.fixture
def docker_cluster(cluster_on: Callable[[Backend], Cluster]) -> Cluster:
    """A whole cluster of three nodes in Docker; mark its tests `real` and `docker`."""
    return cluster_on(Backend.DOCKER)


@pytest.fixture
def local_cluster(cluster_on: Callable[[Backend], Cluster]) -> Cluster:
    """A whole cluster of three local processes; mark its tests `real` and `local`."""
    return cluster_on(Backend.LOCAL)


@pytest.fixture(params=[ON_DOCKER, ON_LOCAL])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that runs nodes; a test that uses it is marked for it."""
    chosen: Backend = request.param
    return chosen


@pytest.fixture
def real_cluster(backend: Backend, cluster_on: Callable[[Backend], Cluster]) -> Cluster:
    """A whole cluster of three nodes on each backend in turn."""
    return cluster_on(backend)


@pytest.fixture
def make_cluster(backend: Backend, request: pytest.FixtureRequest) -> Iterator[ClusterMaker]:
    """Makes clusters of one's own on each backend in turn; they are removed at the end, however it ends."""
    if backend is Backend.DOCKER:
        request.getfixturevalue("image")
    yield from _maker(backend)


@pytest.fixture
def make_docker_cluster(image: None) -> Iterator[ClusterMaker]:
    """Makes clusters of one's own in Docker, which are removed at the end, however it ends."""
    yield from _maker(Backend.DOCKER)


def _maker(backend: Backend) -> Iterator[ClusterMaker]:
    reason = why_not(backend)
    if reason is not None:
        pytest.skip(reason)
    made: list[Cluster] = []

    def make(nodes: int = 1, name: str | None = None, credentials: Credentials | None = None) -> Cluster:
        cluster = build(backend, name or cluster_name(), nodes, credentials)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.destroy()
