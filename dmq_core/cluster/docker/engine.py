"""The Docker engine as dmq uses it: the only module that knows the docker SDK, imported when it is first needed."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dmq_core.cluster.docker.errors import missing, translated, unreachable
from dmq_core.cluster.docker.values import (
    Container,
    ContainerPlan,
    DockerNetwork,
    File,
    Volume,
    archive_of,
    archive_of_folder,
    container_of,
    only_file_in,
)
from dmq_core.errors import BackendUnavailableError, ClusterError, DmqError
from dmq_core.text import visible

if TYPE_CHECKING:
    from docker import APIClient

CONNECT_TIMEOUT_S = 1.5
QUERY_TIMEOUT_S = 4.0
WORK_TIMEOUT_S = 60.0
BUILD_TIMEOUT_S = 900.0
_LOOPBACK = frozenset({None, "localhost", "127.0.0.1", "::1"})
_DEFAULT_ADDRESS = "unix:///var/run/docker.sock"


class Engine:
    """A Docker engine; threads may share it. Methods raise a `DmqError` within 4 s (questions) or 60 s (acts)."""

    def __init__(self, where: Mapping[str, Any]) -> None:
        self._where = where
        self._clients: dict[float, APIClient] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where the engine listens."""
        return str(self._where.get("base_url") or _DEFAULT_ADDRESS)

    @property
    def remote(self) -> bool:
        """Whether it seems to run on another machine, whose 127.0.0.1 is not ours."""
        address = urlsplit(self.address)
        return address.scheme == "ssh" or (address.scheme != "unix" and address.hostname not in _LOOPBACK)

    def close(self) -> None:
        """Closes the connections to the engine; may be called twice."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def ping(self) -> None:
        """Returns if the engine answers; `BackendUnavailableError` with the way out, within 2 s, if not."""
        self._client(CONNECT_TIMEOUT_S)

    def containers(self, label: str) -> list[Container]:
        """The containers with `label` (`key` or `key=value`), running or not."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated("list containers"):
            ids = [found["Id"] for found in client.containers(all=True, filters={"label": [label]})]
        return [c for c in map(self.container, ids) if c is not None]

    def container(self, name: str) -> Container | None:
        """The container with this name or id, whoever made it; None if there is none."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated(f"look at the container {name}"):
            try:
                return container_of(client.inspect_container(name))
            except Exception as error:
                if missing(error):
                    return None
                raise

    def create_container(self, plan: ContainerPlan) -> str:
        """Makes a container and returns its id; `ConflictError` if the name is taken."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"create the container {plan.name}"):
            host = client.create_host_config(
                binds=[f"{volume}:{path}" for volume, path in plan.volumes.items()],
                port_bindings={inside: ("127.0.0.1", outside) for inside, outside in plan.ports.items()},
                network_mode=plan.network,
            )
            made = client.create_container(
                image=plan.image,
                name=plan.name,
                hostname=plan.name[:63],
                environment=dict(plan.environment),
                labels=dict(plan.labels),
                ports=list(plan.ports),
                host_config=host,
            )
        return str(made["Id"])

    def start_container(self, name: str) -> None:
        """Starts it; nothing happens if it runs. `PortTakenError` if one of its ports belongs to somebody else."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"start the container {name}"):
            client.start(name)

    def stop_container(self, name: str, grace_s: int) -> None:
        """Asks it to end, and kills it after `grace_s` seconds; nothing happens if it does not run."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"stop the container {name}"):
            client.stop(name, timeout=grace_s)

    def kill_container(self, name: str) -> None:
        """Sends SIGKILL; `ConflictError` if it does not run."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"kill the container {name}"):
            client.kill(name, "SIGKILL")

    def pause_container(self, name: str) -> None:
        """Freezes its processes; `ConflictError` if it does not run."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"pause the container {name}"):
            client.pause(name)

    def unpause_container(self, name: str) -> None:
        """Lets its processes go on."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"unpause the container {name}"):
            client.unpause(name)

    def remove_container(self, name: str) -> None:
        """Removes it, running or not; named volumes stay. Nothing happens if it is gone."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"remove the container {name}"), _gone_is_fine():
            client.remove_container(name, force=True, v=True)

    def logs(self, name: str, lines: int, since: float | None = None) -> str:
        """The last `lines` lines that it wrote, ended or not; none from before `since` (epoch seconds)."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated(f"read the log of {name}"):
            return bytes(client.logs(name, tail=lines, since=since)).decode(errors="replace")

    def run_in(self, name: str, command: list[str], user: str) -> tuple[int, str]:
        """Runs a command in a running container: its exit status and output."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"run {command[0]} in the container {name}"):
            made = client.exec_create(name, command, user=user)
            output = client.exec_start(made["Id"])
            status = client.exec_inspect(made["Id"])["ExitCode"]
        return int(status or 0), bytes(output).decode(errors="replace")

    def write_files(self, name: str, files: Iterable[File]) -> None:
        """Puts files into a container, which need not run."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"write files into the container {name}"):
            client.put_archive(name, "/", archive_of(files))

    def read_file(self, name: str, path: str) -> str | None:
        """A text file of a container, which need not run; None if it is not there."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated(f"read {path} in the container {name}"):
            try:
                chunks, _ = client.get_archive(name, path)
                return only_file_in(b"".join(chunks))
            except Exception as error:
                if missing(error):
                    return None
                raise

    def networks(self, label: str) -> list[DockerNetwork]:
        """The networks with `label`."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated("list networks"):
            found = client.networks(filters={"label": [label]})
        return [DockerNetwork(n["Id"], n["Name"], n["Labels"] or {}) for n in found]

    def create_network(self, name: str, labels: Mapping[str, str], *, internal: bool) -> str:
        """Makes a bridge network and returns its id; `ConflictError` if the name is taken."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"create the network {name}"):
            made = client.create_network(
                name, driver="bridge", labels=dict(labels), internal=internal, check_duplicate=True
            )
        return str(made["Id"])

    def connect(self, network: str, container: str, alias: str) -> None:
        """Connects a container to a network, where the others know it as `alias`."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"connect {container} to the network {network}"):
            client.connect_container_to_network(container, network, aliases=[alias])

    def disconnect(self, network: str, container: str) -> None:
        """Takes a container out of a network, running or not; connections through it become black holes."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"disconnect {container} from the network {network}"):
            client.disconnect_container_from_network(container, network)

    def remove_network(self, name: str) -> None:
        """Removes it; nothing happens if it is gone."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"remove the network {name}"), _gone_is_fine():
            client.remove_network(name)

    def volumes(self, label: str) -> list[Volume]:
        """The volumes with `label`."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated("list volumes"):
            found = client.volumes(filters={"label": [label]})["Volumes"] or []
        return [Volume(v["Name"], v["Labels"] or {}) for v in found]

    def volume_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of the volume called `name`, whoever made it; None if there is none."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated(f"look at the volume {name}"):
            try:
                return dict(client.inspect_volume(name)["Labels"] or {})
            except Exception as error:
                if missing(error):
                    return None
                raise

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Makes a named volume."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"create the volume {name}"):
            client.create_volume(name, driver="local", labels=dict(labels))

    def remove_volume(self, name: str) -> None:
        """Removes it; nothing happens if it is gone."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"remove the volume {name}"), _gone_is_fine():
            client.remove_volume(name)

    def image_environment(self, reference: str) -> Mapping[str, str] | None:
        """The environment that an image sets; None if the image is not here."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated(f"look at the image {reference}"):
            try:
                found = client.inspect_image(reference)  # type: ignore[no-untyped-call]  # its stub has no types
            except Exception as error:
                if missing(error):
                    return None
                raise
        pairs = found["Config"].get("Env") or []
        return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}

    def registry_has(self, reference: str, timeout_s: float) -> bool:
        """Whether a registry answers the engine for `reference` within `timeout_s` seconds."""
        client = self._client(timeout_s)
        try:
            with translated(f"ask a registry for {reference}"):
                client.inspect_distribution(reference)  # type: ignore[no-untyped-call]  # its stub has no types
        except DmqError:
            return False
        return True

    def pull(self, repository: str, tag: str) -> Iterator[Mapping[str, Any]]:
        """Pulls an image and yields the engine's reports; `ClusterError` with the cause if it fails."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"pull {repository}:{tag}"):
            yield from _reports(client.pull(repository, tag=tag, stream=True, decode=True))

    def import_image(self, root: IO[bytes], repository: str, tag: str) -> None:
        """Makes an image of the tar stream of a root file system."""
        client = self._client(BUILD_TIMEOUT_S)
        with translated(f"import {repository}:{tag}"):
            answer = client.import_image_from_stream(root, repository=repository, tag=tag)
        if '"error"' in str(answer):
            raise ClusterError(f"could not import {repository}:{tag}: {visible(str(answer))}")

    def build(self, folder: Path, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
        """Builds the image `tag` of `folder` and yields the build's lines; `ClusterError` with the cause if it fails.

        The containers of the build are removed, also when it fails.
        """
        client = self._client(BUILD_TIMEOUT_S)
        with translated(f"build {tag}"):
            reports = client.build(
                fileobj=io.BytesIO(archive_of_folder(folder)),
                custom_context=True,
                tag=tag,
                buildargs=dict(arguments),
                labels=dict(labels),
                rm=True,
                forcerm=True,
                decode=True,
            )
            yield from _whole_lines(str(report.get("stream", "")) for report in _reports(reports))

    def untagged_images(self, label: str) -> list[str]:
        """The ids of images with `label` that have no name."""
        client = self._client(QUERY_TIMEOUT_S)
        with translated("list images"):
            return [i["Id"] for i in client.images(filters={"dangling": True, "label": [label]})]

    def remove_image(self, reference: str) -> None:
        """Removes an image, or this name of it; nothing happens if it is gone."""
        client = self._client(WORK_TIMEOUT_S)
        with translated(f"remove the image {reference}"), _gone_is_fine():
            client.remove_image(reference)

    def event_stream(self) -> Any:
        """The events of all containers and networks: an iterator of JSON values; `close()` from any thread ends it."""
        client = self._client(WORK_TIMEOUT_S)
        with translated("listen to its events"):
            return client.events(filters={"type": ["container", "network"]}, decode=True)

    def _client(self, timeout_s: float) -> APIClient:
        from docker import APIClient

        with self._lock:
            client = self._clients.get(timeout_s)
        if client is not None:
            return client
        try:
            # requests takes fractions of a second, whatever the stubs say.
            made = APIClient(version="auto", timeout=min(timeout_s, CONNECT_TIMEOUT_S), **self._where)  # type: ignore[arg-type]
        except Exception as error:
            raise unreachable(error, self.address) from error
        made.timeout = timeout_s  # type: ignore[assignment]  # as above
        with self._lock:
            return self._clients.setdefault(timeout_s, made)


def connect() -> Engine:
    """The engine that `DOCKER_HOST`, `DOCKER_CONTEXT` or the current docker context names.

    `BackendUnavailableError` with the way out, within 2 s, if none answers.
    """
    engine = Engine(_where())
    engine.ping()
    return engine


def _where() -> dict[str, Any]:
    from docker.context import ContextAPI
    from docker.utils import kwargs_from_env

    try:
        if os.environ.get("DOCKER_HOST"):
            return dict(kwargs_from_env())
        # The SDK's own from_env knows nothing of contexts before 7.2.
        name = os.environ.get("DOCKER_CONTEXT") or None
        context = ContextAPI.get_context(name)
    except Exception as error:  # the SDK raises a bare Exception for a broken context file
        raise BackendUnavailableError(
            f"Docker's settings cannot be read: {visible(str(error))}",
            "Mend DOCKER_HOST and DOCKER_CERT_PATH, or look at 'docker context ls'.",
        ) from error
    if context is None:
        raise BackendUnavailableError(
            f"there is no docker context called {visible(name or 'current')}", "Look at 'docker context ls'."
        )
    where = {"base_url": context.Host, "tls": context.TLSConfig}
    return {key: value for key, value in where.items() if value}


def _reports(stream: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    for report in stream:
        if "error" in report:
            raise ClusterError(visible(" ".join(str(report["error"]).split())))
        yield report


def _whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines of a text that comes in pieces; what came last is given also when the pieces end in an error."""
    rest = ""
    try:
        for piece in pieces:
            *lines, rest = (rest + piece).split("\n")
            yield from lines
    except ClusterError:
        yield rest
        raise
    yield rest


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not missing(error):
            raise
