"""What a local cluster keeps on disk: one folder each, a state file in it, and the ports that it was given."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from dmq_core.cluster.node_config import MOST_NODES, node_names
from dmq_core.cluster.ports import DEFAULT_AMQP_PORT, DEFAULT_MANAGEMENT_PORT, PortChooser, default_port, port_is_free
from dmq_core.endpoints import Credentials
from dmq_core.errors import ClusterError
from dmq_core.state_directory import STATE_FILE, state_folder, write_private

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A node's name and its ports, all on 127.0.0.1."""

    name: str
    amqp_port: int
    management_port: int
    prometheus_port: int
    distribution_port: int

    @property
    def ports(self) -> tuple[int, ...]:
        """All of them."""
        return (self.amqp_port, self.management_port, self.prometheus_port, self.distribution_port)


@dataclass(frozen=True, slots=True)
class LocalState:
    """What defines a local cluster; `rabbitmq` is the version that it last started with.

    `joining` has not got its share of the queues yet; `leaving` is no node any more, and may still be there.
    """

    rabbitmq: str
    epmd_port: int
    nodes: tuple[LocalNode, ...]
    credentials: Credentials = field(default_factory=Credentials)
    joining: str | None = None
    leaving: str | None = None

    @property
    def ports(self) -> frozenset[int]:
        """Every port that belongs to the cluster, whether it runs or not."""
        return frozenset({self.epmd_port, *(port for node in self.nodes for port in node.ports)})

    @property
    def node_names(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node.name for node in self.nodes)


def clusters_folder() -> Path:
    """The folder that holds a folder for each local cluster."""
    return state_folder().resolve() / "local"


def local_cluster_names() -> tuple[str, ...]:
    """The names of the local clusters that are here, also of one that was only half made."""
    try:
        return tuple(sorted(p.name for p in clusters_folder().iterdir() if p.is_dir() and not p.is_symlink()))
    except OSError:
        return ()


def read_state(folder: Path) -> LocalState | None:
    """The state of the cluster in `folder`; None if there is none, `ClusterError` if it makes no sense."""
    try:
        text = (folder / STATE_FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(folder, error) from error
    try:
        return parse_state(text)
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(folder, error) from error


def parse_state(text: str) -> LocalState:
    """The state that `text` holds; `ValueError`, `TypeError` or `KeyError` if it holds none."""
    raw = cast("dict[str, object]", json.loads(text))
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        raise ValueError("not a state file of this version of dmq")
    nodes = tuple(
        LocalNode(_text(node, "name"), *(_port(node, key) for key in _PORT_KEYS)) for node in _rows(raw, "nodes")
    )
    if not nodes:
        raise ValueError("a cluster without nodes")
    user = cast("dict[str, object]", raw["credentials"])
    return LocalState(
        rabbitmq=_text(raw, "rabbitmq"),
        epmd_port=_port(raw, "epmd_port"),
        nodes=nodes,
        credentials=Credentials(_text(user, "username"), _text(user, "password")),
        joining=_node_name(raw, "joining"),
        leaving=_node_name(raw, "leaving"),
    )


def render_state(state: LocalState) -> str:
    """`state` as the text of a state file; it holds the password."""
    return json.dumps({"format": _FORMAT, **asdict(state)}, indent=1) + "\n"


def write_state(folder: Path, state: LocalState) -> None:
    """Replaces the state file as a whole, so that a reader sees the old one or the new one."""
    write_private(folder / STATE_FILE, render_state(state))


def reserved_ports(but: Path) -> frozenset[int]:
    """The ports of every local cluster but the one in folder `but`."""
    ports: set[int] = set()
    for name in local_cluster_names():
        folder = clusters_folder() / name
        with contextlib.suppress(ClusterError):
            state = read_state(folder) if folder != but else None
            ports |= state.ports if state else set()
    return frozenset(ports)


def choose_state(
    name: str, nodes: tuple[str, ...], rabbitmq: str, credentials: Credentials, folder: Path
) -> LocalState:
    """A state for a new cluster, with ports that are free now and belong to no other local cluster."""
    ports = PortChooser(reserved_ports(folder))
    return LocalState(
        rabbitmq=rabbitmq,
        epmd_port=ports.take(),
        nodes=tuple(_choose_node(name, node, ports) for node in nodes),
        credentials=credentials,
    )


def with_node(state: LocalState, node: str, folder: Path) -> LocalState:
    """`state` with a node that joins, in name order, with ports that are free now."""
    chosen = _choose_node(folder.name, node, PortChooser(reserved_ports(folder) | state.ports))
    return replace(state, nodes=tuple(sorted((*state.nodes, chosen), key=lambda n: n.name)), joining=node)


def without_node(state: LocalState, node: str) -> LocalState:
    """`state` in which a node leaves."""
    stay = tuple(n for n in state.nodes if n.name != node)
    joining = None if state.joining == node else state.joining
    return replace(state, nodes=stay, joining=joining, leaving=node)


def settled(state: LocalState) -> LocalState:
    """`state` in which nothing joins or leaves."""
    return replace(state, joining=None, leaving=None)


def _choose_node(cluster: str, node: str, ports: PortChooser) -> LocalNode:
    return LocalNode(
        node,
        ports.take(default_port(DEFAULT_AMQP_PORT, cluster, node)),
        ports.take(default_port(DEFAULT_MANAGEMENT_PORT, cluster, node)),
        ports.take(),
        ports.take(),
    )


def with_free_ports(state: LocalState, nodes: tuple[str, ...], folder: Path, *, keep_epmd: bool) -> LocalState:
    """`state` in which each port of `nodes` that something else listens on is replaced by a free one."""
    chooser = PortChooser(reserved_ports(folder) | state.ports)

    def usable(port: int) -> int:
        return port if port_is_free(port) else chooser.take()

    return replace(
        state,
        epmd_port=state.epmd_port if keep_epmd else usable(state.epmd_port),
        nodes=tuple(LocalNode(n.name, *map(usable, n.ports)) if n.name in nodes else n for n in state.nodes),
    )


_PORT_KEYS = ("amqp_port", "management_port", "prometheus_port", "distribution_port")


def _unreadable(folder: Path, error: Exception) -> ClusterError:
    return ClusterError(
        f"the state file of the cluster {folder.name} cannot be understood: {type(error).__name__}",
        f"'dmq destroy --cluster {folder.name}' removes the cluster; or mend {folder / STATE_FILE}.",
    )


def _rows(raw: dict[str, object], key: str) -> list[dict[str, object]]:
    rows = raw[key]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError(f"{key} is no list of objects")
    return cast("list[dict[str, object]]", rows)


def _node_name(raw: dict[str, object], key: str) -> str | None:
    """The name of a node of ours, which names a folder to be removed; None if there is none."""
    if raw.get(key) is None:
        return None
    name = _text(raw, key)
    if name not in node_names(MOST_NODES):
        raise ValueError(f"{key} is no name of a node")
    return name


def _text(raw: dict[str, object], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{key} is no text")
    return value


def _port(raw: dict[str, object], key: str) -> int:
    value = raw[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise ValueError(f"{key} is no port")
    return value
