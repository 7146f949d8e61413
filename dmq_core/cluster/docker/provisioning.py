"""Finding, completing and removing what a cluster of ours is made of in Docker."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from dmq_core.cluster.docker.definition import (
    ADVANCED_FILE,
    CLUSTER_LABEL,
    COOKIE_FILE,
    NODE_LABEL,
    ClusterDefinition,
    credentials_in,
    newest,
    numeric_owner,
)
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.errors import ConflictError
from dmq_core.cluster.docker.isolation import is_cut_off, let_back
from dmq_core.cluster.docker.values import Container, DockerNetwork, Volume
from dmq_core.cluster.readiness import side_by_side
from dmq_core.endpoints import Credentials
from dmq_core.progress import Progress, ProgressListener

ALIVE = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class ExistingParts:
    """What there is of a cluster: containers by node name, networks, volumes, and what defines it."""

    containers: Mapping[str, Container]
    networks: tuple[DockerNetwork, ...]
    volumes: tuple[Volume, ...]
    definition: ClusterDefinition | None

    @property
    def anything(self) -> bool:
        """Whether there is any of it."""
        return bool(self.containers or self.networks or self.volumes)

    @property
    def booted_before(self) -> bool:
        """Whether any node has ever been started."""
        return any(c.status != "created" for c in self.containers.values())


def find(engine: Engine, cluster: str) -> ExistingParts:
    """What there is of `cluster` on the engine, by label alone."""
    label = f"{CLUSTER_LABEL}={cluster}"
    containers = {c.labels.get(NODE_LABEL, c.name): c for c in engine.containers(label)}
    networks = tuple(engine.networks(label))
    volumes = tuple(engine.volumes(label))
    labels = [c.labels for c in containers.values()] + [n.labels for n in networks] + [v.labels for v in volumes]
    return ExistingParts(containers, networks, volumes, newest(labels))


def remembered_credentials(engine: Engine, found: ExistingParts) -> Credentials | None:
    """The user that the cluster was made with, read from a node's own configuration."""
    for container in found.containers.values():
        configuration = engine.read_file(container.id, ADVANCED_FILE)
        credentials = None if configuration is None else credentials_in(configuration)
        if credentials is not None:
            return credentials
    return None


def complete(
    engine: Engine,
    definition: ClusterDefinition,
    found: ExistingParts,
    credentials: Credentials,
    progress: ProgressListener,
) -> None:
    """Makes every network, volume and container that is missing or was only half made; starts nothing."""
    networks = {n.name: n.id for n in found.networks}
    for name, internal in ((definition.cluster_network, True), (definition.client_network, False)):
        if name not in networks:
            networks[name] = _create_network(engine, definition, name, internal=internal)
    missing = [
        n for n in definition.nodes if not _usable(definition, found.containers.get(n), frozenset(networks.values()))
    ]
    if missing:
        cookie = _remembered_cookie(engine, found) or secrets.token_hex(24)

        def make(node: str) -> None:
            progress(Progress("making the node", node))
            _make_node(engine, definition, node, found.containers.get(node), credentials, cookie)

        side_by_side(make, missing)
    for node in definition.nodes:
        container = found.containers.get(node)
        if node not in missing and container is not None:
            if is_cut_off(definition, container):
                progress(Progress("the node was cut off; connecting it to its peers", node))
            let_back(engine, definition, container)


def remove_all(engine: Engine, cluster: str) -> None:
    """Removes what carries the label of `cluster`, and nothing else."""
    label = f"{CLUSTER_LABEL}={cluster}"
    side_by_side(lambda c: engine.remove_container(c.id), engine.containers(label))
    for network in engine.networks(label):
        engine.remove_network(network.id)
    for volume in engine.volumes(label):
        engine.remove_volume(volume.name)


def record(engine: Engine, definition: ClusterDefinition) -> None:
    """Makes `definition` what defines the cluster: the next to look, on whatever machine, finds it."""
    label = f"{CLUSTER_LABEL}={definition.cluster}"
    engine.create_volume(definition.record, definition.labels())
    for volume in engine.volumes(label):
        if definition.outdates(volume.name):
            engine.remove_volume(volume.name)


def discard(engine: Engine, definition: ClusterDefinition, node: str) -> None:
    """Removes the container and the volume of a node of the cluster, also of a former one; twice does no harm."""
    found = find(engine, definition.cluster)
    if node in found.containers:
        engine.remove_container(found.containers[node].id)
    for volume in found.volumes:
        if volume.name == definition.container(node):
            engine.remove_volume(volume.name)


def _usable(definition: ClusterDefinition, container: Container | None, networks: frozenset[str]) -> bool:
    # A container that never started may lack its files; one whose networks are gone cannot start. Neither holds data,
    # which is in the volume, so both are made anew. One that was only cut off is connected again.
    if container is None or container.status == "created":
        return False
    if container.status in ALIVE:
        return True
    return definition.client_network in container.network_names and container.networks <= networks


def _make_node(
    engine: Engine,
    definition: ClusterDefinition,
    node: str,
    old: Container | None,
    credentials: Credentials,
    cookie: str,
) -> None:
    if old is not None:
        engine.remove_container(old.id)
    name = definition.container(node)
    labels = engine.volume_labels(name)
    if labels is None:
        engine.create_volume(name, definition.labels(node))
    elif labels.get(CLUSTER_LABEL) != definition.cluster:
        raise _foreign("volume", name)
    container = _create_container(engine, definition, node)
    owner = numeric_owner(engine.read_file(container, "/etc/passwd") or "")
    engine.write_files(container, definition.files(node, credentials, cookie, owner))
    engine.connect(definition.cluster_network, container, node)


def _create_container(engine: Engine, definition: ClusterDefinition, node: str) -> str:
    plan = definition.plan(node)
    try:
        return engine.create_container(plan)
    except ConflictError as error:
        there = engine.container(plan.name)
        if there is None or there.labels.get(CLUSTER_LABEL) != definition.cluster:
            raise _foreign("container", plan.name) from error
    # The engine may have made it only now for a dmq that was killed after it had asked.
    engine.remove_container(there.id)
    return engine.create_container(plan)


def _create_network(engine: Engine, definition: ClusterDefinition, name: str, *, internal: bool) -> str:
    try:
        return engine.create_network(name, definition.labels(), internal=internal)
    except ConflictError as error:
        raise _foreign("network", name) from error


def _foreign(kind: str, name: str) -> ConflictError:
    return ConflictError(
        f"Docker has a {kind} called {name} that dmq did not make",
        f"Rename or remove it ('docker {kind} rm {name}'), or choose another --cluster.",
    )


def _remembered_cookie(engine: Engine, found: ExistingParts) -> str | None:
    # One that was made but never started may have missed its files, or have them; the others agree.
    ordered = sorted(found.containers.values(), key=lambda c: c.status == "created")
    return next((cookie for c in ordered if (cookie := engine.read_file(c.id, COOKIE_FILE))), None)
