"""Which cluster is meant and who runs it: an existing one by its name, a new one by what this machine has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dmq_core.cluster.node_config import checked_cluster_name
from dmq_core.cluster.protocol import Backend, Cluster
from dmq_core.endpoints import Credentials, TlsSettings
from dmq_core.errors import BackendUnavailableError, ClusterNotFoundError, InvalidInputError

AUTO = "auto"
MADE_BY_US = (Backend.DOCKER, Backend.LOCAL)


class Maker(Protocol):
    """Gives the cluster of a name on one backend, whether it exists or not."""

    def __call__(self, name: str, nodes: int | None, rabbitmq: str | None, credentials: Credentials | None) -> Cluster:
        """The cluster; nothing is made yet."""
        ...


@dataclass(frozen=True, slots=True)
class Runner:
    """One backend as selection sees it: `unavailable` says in a line why it cannot be used, or None if it can."""

    make: Maker
    names: Callable[[], Sequence[str]]
    unavailable: Callable[[], str | None]


def open_cluster(
    name: str = "dmq",
    backend: str = AUTO,
    urls: Sequence[str] = (),
    nodes: int | None = None,
    rabbitmq: str | None = None,
    credentials: Credentials | None = None,
    tls: TlsSettings | None = None,
    *,
    runners: dict[Backend, Runner] | None = None,
) -> Cluster:
    """The cluster that is meant, whether it exists yet or not, within 6 s.

    With `urls` it is somebody else's, and has answered. Else an existing one called `name` wins, whoever runs it; a
    new one is for Docker if an engine answers, else for local processes. `InvalidInputError` if what is asked for
    differs from what exists, `BackendUnavailableError` if nothing can run it.
    """
    if urls:
        return _attached(urls, nodes, rabbitmq, credentials, tls)
    checked_cluster_name(name)
    runners = _real_runners() if runners is None else runners
    asked = _asked(backend)
    found = _existing(name, asked, runners)
    chosen = found if found is not None else _for_new(asked, runners)
    cluster = runners[chosen].make(name, nodes, rabbitmq, credentials)
    if found is not None:
        _check_differences(cluster, nodes)
    return cluster


def find_cluster(
    name: str = "dmq",
    backend: str = AUTO,
    urls: Sequence[str] = (),
    credentials: Credentials | None = None,
    tls: TlsSettings | None = None,
    *,
    runners: dict[Backend, Runner] | None = None,
) -> Cluster:
    """The cluster that is meant, which exists; `ClusterNotFoundError` if there is none of that name."""
    if urls:
        return _attached(urls, None, None, credentials, tls)
    checked_cluster_name(name)
    runners = _real_runners() if runners is None else runners
    found = _existing(name, _asked(backend), runners)
    if found is None:
        raise ClusterNotFoundError(f"there is no cluster called {name} here", f"'{_start(name)}' makes it.")
    return runners[found].make(name, None, None, credentials)


def _existing(name: str, asked: Backend | None, runners: dict[Backend, Runner]) -> Backend | None:
    holders = [backend for backend, runner in runners.items() if name in _names(runner)]
    if asked is not None:
        others = [h for h in holders if h is not asked]
        if others and asked not in holders:
            raise InvalidInputError(
                f"{name} exists and runs on {others[0]}, not on {asked}",
                f"Leave out --backend, destroy it first, or choose another --cluster than {name}.",
            )
        return asked if asked in holders else None
    if len(holders) > 1:
        raise InvalidInputError(
            f"there are two clusters called {name}: on {' and on '.join(holders)}",
            f"Say which with --backend {' or --backend '.join(holders)}.",
        )
    return holders[0] if holders else None


def _for_new(asked: Backend | None, runners: dict[Backend, Runner]) -> Backend:
    reasons: list[str] = []
    for backend in (asked,) if asked is not None else MADE_BY_US:
        reason = runners[backend].unavailable()
        if reason is None:
            return backend
        reasons.append(reason)
    raise _unavailable(asked, reasons)


def _unavailable(asked: Backend | None, reasons: list[str]) -> BackendUnavailableError:
    what = "; ".join(reasons)
    if asked is Backend.DOCKER:
        return BackendUnavailableError(what, "Mend that, or use --backend local.")
    hint = "'dmq start --install' gets rabbitmq-server with apt; 'dmq doctor' tells what this machine has."
    if asked is Backend.LOCAL:
        return BackendUnavailableError(what, hint)
    return BackendUnavailableError(
        f"nothing here can run a cluster: {what}", f"Start or install Docker, or RabbitMQ: {hint}"
    )


def _check_differences(cluster: Cluster, nodes: int | None) -> None:
    """Whether the existing cluster has as many nodes as asked for; its version is checked when it starts."""
    there = len(cluster.nodes())
    if nodes is not None and there not in (0, nodes):
        version = getattr(cluster, "rabbitmq", None)
        of_version = f" of RabbitMQ {version}" if version else ""
        raise InvalidInputError(
            f"{cluster.name} exists with {there} nodes{of_version}, not {nodes}",
            "Leave out --nodes, or choose another --cluster; 'dmq node add' and 'dmq node remove' change the number.",
        )


def _asked(backend: str) -> Backend | None:
    if backend == AUTO:
        return None
    if backend not in tuple(MADE_BY_US):
        raise InvalidInputError(f"{backend!r} is no backend", "Choose auto, docker or local.")
    return Backend(backend)


def _attached(
    urls: Sequence[str],
    nodes: int | None,
    rabbitmq: str | None,
    credentials: Credentials | None,
    tls: TlsSettings | None,
) -> Cluster:
    from dmq_core.cluster.attached.cluster import AttachedCluster

    if nodes is not None or rabbitmq is not None:
        raise InvalidInputError(
            "a cluster reached by URL is not made by dmq", "Leave out --nodes and --rabbitmq, or the URL."
        )
    cluster = AttachedCluster(urls, credentials=credentials, tls=tls)
    cluster.attach()
    return cluster


def _names(runner: Runner) -> Sequence[str]:
    try:
        return runner.names()
    except BackendUnavailableError:
        return ()


def _start(name: str) -> str:
    return "dmq start" if name == "dmq" else f"dmq start --cluster {name}"


def _real_runners() -> dict[Backend, Runner]:
    return {Backend.DOCKER: Runner(_docker, _docker_names, docker_unavailable), Backend.LOCAL: _local_runner()}


def _docker(name: str, nodes: int | None, rabbitmq: str | None, credentials: Credentials | None) -> Cluster:
    from dmq_core.cluster.docker.cluster import DockerCluster

    return DockerCluster(name, nodes=nodes, rabbitmq=rabbitmq, credentials=credentials)


def _docker_names() -> Sequence[str]:
    from dmq_core.cluster.docker.cluster import docker_cluster_names

    return docker_cluster_names()


def docker_unavailable() -> str | None:
    """None if a Docker engine answers, else why not, in a line, within 2 s."""
    from dmq_core.cluster.docker.engine import connect

    try:
        connect().close()
    except BackendUnavailableError as error:
        return error.what
    return None


def _local_runner() -> Runner:
    from dmq_core.cluster.local.cluster import LocalCluster, local_unavailable
    from dmq_core.cluster.local.state import local_cluster_names

    def make(name: str, nodes: int | None, rabbitmq: str | None, credentials: Credentials | None) -> Cluster:
        return LocalCluster(name, nodes=nodes, rabbitmq=rabbitmq, credentials=credentials)

    return Runner(make, local_cluster_names, local_unavailable)
