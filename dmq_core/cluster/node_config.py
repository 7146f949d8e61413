"""What a node of ours is configured with: pure functions from a RabbitMQ version to configuration files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dmq_core.endpoints import Credentials
from dmq_core.errors import InvalidInputError
from dmq_core.resources import cluster_folder
from dmq_core.versions import Version

NODE_NAME_PREFIX = "rmq"
MOST_NODES = 9
_CLUSTER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """The configuration files of one node, as text."""

    rabbitmq_conf: str
    advanced_config: str
    enabled_plugins: str


@dataclass(frozen=True, slots=True)
class ListenAddresses:
    """Where a node listens: AMQP and management `ip:port`; None leaves RabbitMQ's default (all addresses)."""

    amqp: str | None = None
    management_ip: str | None = None
    management_port: int = 15672
    prometheus_port: int | None = None


def checked_cluster_name(name: str) -> str:
    """`name` if containers, networks and directories may carry it, else `InvalidInputError`."""
    if not _CLUSTER_NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name!r} cannot name a cluster",
            "Use up to 40 small letters, digits and hyphens, beginning with a letter or digit.",
        )
    return name


def node_names(count: int) -> tuple[str, ...]:
    """`rmq1` .. `rmqN`; `InvalidInputError` unless 1 <= count <= 9."""
    if not 1 <= count <= MOST_NODES:
        raise InvalidInputError(
            f"a cluster of {count} nodes cannot be made", "Ask for 1 to 9 nodes; 3 is a good number."
        )
    return tuple(f"{NODE_NAME_PREFIX}{i}" for i in range(1, count + 1))


def node_files(
    version: Version,
    erlang_names: tuple[str, ...],
    cluster_name: str,
    credentials: Credentials,
    listen: ListenAddresses | None = None,
    folder: Path | None = None,
) -> NodeFiles:
    """The files of one node of a cluster whose members are `erlang_names`; they hold the password, so keep them 0600.

    The settings that every version shares stand in `cluster/rabbitmq.conf`; what depends on version, place or user is
    added here.
    """
    folder = folder or cluster_folder()
    lines = [(folder / "rabbitmq.conf").read_text().rstrip(), ""]
    lines += _version_settings(version)
    lines += _peers(erlang_names)
    lines.append("loopback_users = none")
    lines += _listeners(listen)
    lines.append(f"cluster_name = {cluster_name}")
    return NodeFiles(
        rabbitmq_conf="\n".join(lines) + "\n",
        advanced_config=_advanced(version, credentials),
        enabled_plugins=(folder / "enabled_plugins").read_text(),
    )


def _version_settings(version: Version) -> list[str]:
    settings: list[str] = []
    if version >= Version(4, 0):
        settings.append("raft.adaptive_failure_detector.poll_interval = 500")
    if version >= Version(4, 3):
        settings.append("consumer_disconnected_timeout = 1000")
    else:
        settings.append("cluster_partition_handling = pause_minority")
    return settings


def _peers(erlang_names: tuple[str, ...]) -> list[str]:
    if len(erlang_names) == 1:
        return []
    nodes = [f"cluster_formation.classic_config.nodes.{i} = {n}" for i, n in enumerate(erlang_names, 1)]
    return ["cluster_formation.peer_discovery_backend = classic_config", *nodes]


def _user(credentials: Credentials) -> str:
    """The first user, for advanced.config: rabbitmq.conf cannot hold every password, and on 3.10 not even quotes."""
    name, password = (_binary(text) for text in (credentials.username, credentials.password))
    return f"{{default_user, {name}}}, {{default_pass, {password}}}, {{default_user_tags, [administrator]}}"


def _binary(text: str) -> str:
    if not text:
        raise InvalidInputError("a user name or password is empty", "Give both.")
    return f"<<{','.join(str(byte) for byte in text.encode())}>>"


def _listeners(listen: ListenAddresses | None) -> list[str]:
    if listen is None:
        return []
    lines = [f"management.tcp.port = {listen.management_port}"]
    if listen.amqp is not None:
        lines.append(f"listeners.tcp.1 = {listen.amqp}")
    if listen.management_ip is not None:
        lines.append(f"management.tcp.ip = {listen.management_ip}")
    if listen.prometheus_port is not None:
        lines.append(f"prometheus.tcp.port = {listen.prometheus_port}")
        lines += [f"prometheus.tcp.ip = {listen.management_ip}"] if listen.management_ip else []
    return lines


def _advanced(version: Version, credentials: Credentials) -> str:
    applications = [f"{{rabbit, [{{quorum_tick_interval, 1000}}, {_user(credentials)}]}}"]
    if version < Version(4, 0):
        applications.append("{aten, [{poll_interval, 500}]}")
    return f"[{', '.join(applications)}].\n"
