"""How a cluster of ours looks in Docker: names, labels, environment and files. Pure functions and values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dmq_core.cluster.docker.values import ContainerPlan, File
from dmq_core.cluster.node_config import MOST_NODES, node_files, node_names
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import ClusterError, InvalidInputError
from dmq_core.versions import parse_version

CLUSTER_LABEL = "dmq.cluster"
NODE_LABEL = "dmq.node"
_NODES_LABEL = "dmq.nodes"
_RABBITMQ_LABEL = "dmq.rabbitmq"
_IMAGE_LABEL = "dmq.image"
_PORTS_LABEL = "dmq.ports"
_GENERATION_LABEL = "dmq.generation"
_JOINING_LABEL = "dmq.joining"
_LEAVING_LABEL = "dmq.leaving"
HOST = "127.0.0.1"
USER = "rabbitmq"
HOME = "/var/lib/rabbitmq"
ADVANCED_FILE = "/etc/rabbitmq/advanced.config"
COOKIE_FILE = f"{HOME}/.erlang.cookie"
_AMQP_PORT = 5672
_MANAGEMENT_PORT = 15672
# The engine keeps what the console shows; a second copy would only grow inside the container.
_ONLY_CONSOLE_LOG = "log.file = false\n"
_SETTING = re.compile(r"\{default_(user|pass), <<([\d,]*)>>\}")


@dataclass(frozen=True, slots=True)
class ClusterDefinition:
    """What defines a cluster; every thing of it carries what this was, when that was made, in its labels.

    `ports` has each node's AMQP and management port on 127.0.0.1, in the order of `nodes`. Of several definitions that
    are found the one with the highest `generation` counts. `joining` has not got its share of the queues yet; `leaving`
    is no node any more, and may still be there.
    """

    cluster: str
    rabbitmq: str
    image: str
    nodes: tuple[str, ...]
    ports: tuple[tuple[int, int], ...]
    generation: int = 0
    joining: str | None = None
    leaving: str | None = None

    def with_node(self, node: str, ports: tuple[int, int]) -> ClusterDefinition:
        """The next definition, in which `node` joins."""
        known = dict(zip(self.nodes, self.ports, strict=True)) | {node: ports}
        nodes = tuple(sorted(known))
        placed = tuple(known[name] for name in nodes)
        return replace(self, nodes=nodes, ports=placed, generation=self.generation + 1, joining=node)

    def without_node(self, node: str) -> ClusterDefinition:
        """The next definition, in which `node` leaves."""
        stay = [i for i, name in enumerate(self.nodes) if name != node]
        nodes, ports = tuple(self.nodes[i] for i in stay), tuple(self.ports[i] for i in stay)
        joining = None if self.joining == node else self.joining
        return replace(self, nodes=nodes, ports=ports, generation=self.generation + 1, joining=joining, leaving=node)

    def settled(self) -> ClusterDefinition:
        """The next definition, in which nothing joins or leaves."""
        return replace(self, generation=self.generation + 1, joining=None, leaving=None)

    @property
    def erlang_names(self) -> tuple[str, ...]:
        """RabbitMQ's names of the nodes, in order."""
        return tuple(erlang_name(node) for node in self.nodes)

    @property
    def cluster_network(self) -> str:
        """The internal network on which nodes meet: a cut in it leaves clients alone."""
        return cluster_network(self.cluster)

    @property
    def client_network(self) -> str:
        """The network that publishes the ports."""
        return f"{thing_name(self.cluster)}-ct"

    def labels(self, node: str | None = None) -> dict[str, str]:
        """The labels of a thing of the cluster, or of `node`."""
        labels = {
            CLUSTER_LABEL: self.cluster,
            _NODES_LABEL: " ".join(self.nodes),
            _RABBITMQ_LABEL: self.rabbitmq,
            _IMAGE_LABEL: self.image,
            _PORTS_LABEL: " ".join(f"{amqp}/{management}" for amqp, management in self.ports),
            _GENERATION_LABEL: str(self.generation),
            **({_JOINING_LABEL: self.joining} if self.joining else {}),
            **({_LEAVING_LABEL: self.leaving} if self.leaving else {}),
        }
        return labels if node is None else {**labels, NODE_LABEL: node}

    def endpoint(self, node: str) -> NodeEndpoint:
        """Where clients reach `node`."""
        amqp, management = self.ports[self.nodes.index(node)]
        return NodeEndpoint(HOST, amqp, management)

    def container(self, node: str) -> str:
        """The name of the container, and of the volume, of `node`."""
        return f"{thing_name(self.cluster)}-{node}"

    @property
    def record(self) -> str:
        """The name of the empty volume that keeps the definition, as labels of other things cannot be changed."""
        return f"{self._records}{self.generation}"

    def outdates(self, volume: str) -> bool:
        """Whether a volume of the cluster keeps another definition of it."""
        return volume.startswith(self._records) and volume != self.record

    @property
    def _records(self) -> str:
        return f"{thing_name(self.cluster)}-made-"

    def plan(self, node: str) -> ContainerPlan:
        """The container of `node`."""
        amqp, management = self.ports[self.nodes.index(node)]
        return ContainerPlan(
            name=self.container(node),
            image=self.image,
            labels=self.labels(node),
            environment={
                "RABBITMQ_NODENAME": erlang_name(node),
                "ERL_INETRC": "/etc/rabbitmq/inetrc",
                "ERL_CRASH_DUMP_SECONDS": "0",
            },
            network=self.client_network,
            volumes={self.container(node): HOME},
            ports={_AMQP_PORT: amqp, _MANAGEMENT_PORT: management},
        )

    def files(self, node: str, credentials: Credentials, cookie: str, owner: tuple[int, int]) -> list[File]:
        """The files of `node`, owned by the numeric user and group `owner`; password and cookie are for it alone."""
        settings = node_files(parse_version(self.rabbitmq), self.erlang_names, self.cluster, credentials)
        # A node that is cut off from its peers must still find itself.
        names = f'{{host,{{127,0,0,1}},["{node}"]}}.\n{{lookup,[file,native]}}.\n'
        return [
            File("/etc/rabbitmq/rabbitmq.conf", settings.rabbitmq_conf + _ONLY_CONSOLE_LOG, 0o600, *owner),
            File(ADVANCED_FILE, settings.advanced_config, 0o600, *owner),
            File("/etc/rabbitmq/enabled_plugins", settings.enabled_plugins, 0o644, *owner),
            File("/etc/rabbitmq/inetrc", names, 0o644, *owner),
            File(COOKIE_FILE, cookie, 0o400, *owner),
        ]


def thing_name(cluster: str) -> str:
    """What the names of all things of `cluster` begin with."""
    return f"dmq-{cluster}"


def cluster_network(cluster: str) -> str:
    """The name of the network on which the nodes of `cluster` meet."""
    return f"{thing_name(cluster)}-cl"


def erlang_name(node: str) -> str:
    """RabbitMQ's name of `node`."""
    return f"rabbit@{node}"


def definition_from(labels: Mapping[str, str]) -> ClusterDefinition:
    """What the labels of a thing say; `ClusterError` if they are not of this version of dmq."""
    cluster = labels.get(CLUSTER_LABEL, "")
    try:
        pairs = [pair.split("/") for pair in labels[_PORTS_LABEL].split()]
        ports = tuple((int(amqp), int(management)) for amqp, management in pairs)
        definition = ClusterDefinition(
            cluster,
            labels[_RABBITMQ_LABEL],
            labels[_IMAGE_LABEL],
            _nodes_in(labels[_NODES_LABEL]),
            ports,
            int(labels.get(_GENERATION_LABEL, 0)),
            labels.get(_JOINING_LABEL),
            labels.get(_LEAVING_LABEL),
        )
    except (KeyError, ValueError, InvalidInputError) as error:
        raise _senseless(cluster) from error
    if len(ports) != len(definition.nodes) or not 1 <= len(ports) <= MOST_NODES:
        raise _senseless(cluster)
    return definition


def newest(labels: Iterable[Mapping[str, str]]) -> ClusterDefinition | None:
    """What the newest of the definitions that `labels` hold says; None if there are none."""
    return max(map(definition_from, labels), key=lambda definition: definition.generation, default=None)


def _nodes_in(label: str) -> tuple[str, ...]:
    """The nodes that a label names, or counts, as those of older clusters do."""
    return node_names(int(label)) if label.isdigit() else tuple(label.split())


def numeric_owner(passwd: str, user: str = USER) -> tuple[int, int]:
    """The numeric user and group of `user` in a passwd file; `ClusterError` if it is not there."""
    for line in passwd.splitlines():
        fields = line.split(":")
        if fields[0] == user and len(fields) > 3 and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3])
    raise ClusterError(f"the image has no user {user}", "Use an image of RabbitMQ.")


def credentials_in(configuration: str) -> Credentials | None:
    """The first user in an advanced.config of ours; None if it names none."""
    found: dict[str, str] = dict(_SETTING.findall(configuration))
    try:
        user, password = (bytes(int(b) for b in found[key].split(",")).decode() for key in ("user", "pass"))
    except (KeyError, ValueError):
        return None
    return Credentials(user, password)


def started_ago_s(started_at: str, now: datetime | None = None) -> float:
    """How many seconds ago the engine's time stamp was; infinite if it is none."""
    try:
        # Python reads six digits of a second, Docker writes nine.
        began = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", started_at))
        return ((now or datetime.now(UTC)) - began).total_seconds()
    except (ValueError, TypeError):
        return math.inf


def ports_of_others(labels: Iterable[Mapping[str, str]], cluster: str) -> frozenset[int]:
    """The ports that the labels of other clusters reserve; labels that make no sense reserve none."""
    ports: set[int] = set()
    for found in labels:
        if found.get(CLUSTER_LABEL) != cluster:
            ports.update(int(p) for p in re.findall(r"\d+", found.get(_PORTS_LABEL, "")))
    return frozenset(ports)


def _senseless(cluster: str) -> ClusterError:
    return ClusterError(
        f"the labels of the cluster {cluster} in Docker make no sense",
        f"'dmq destroy --cluster {cluster}' removes it.",
    )
