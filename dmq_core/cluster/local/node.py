"""One `rabbitmq-server` process of this machine: its folder, its environment, its start, its log."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from dmq_core.cluster.faults.erlang_links import note_name
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.installation import Installation, search_path
from dmq_core.cluster.local.state import LocalNode, LocalState
from dmq_core.cluster.node_config import ListenAddresses, node_files
from dmq_core.cluster.node_log import boot_failure_reason, in_maintenance, tool_failure_reason
from dmq_core.endpoints import NodeEndpoint
from dmq_core.errors import ClusterError, OperationTimeoutError
from dmq_core.state_directory import write_private

HOST = "127.0.0.1"
CLUSTER_MARK = "DMQ_LOCAL_CLUSTER"
NODE_MARK = "DMQ_LOCAL_NODE"
_ONLY_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
_LOG_TAIL_BYTES = 4_000_000
_MAINTENANCE_TAIL_BYTES = 200_000
_LOG_SETTINGS = """
log.console = false
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 3
"""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where a node of a local cluster lives and how RabbitMQ calls it."""

    cluster_folder: Path
    node: LocalNode

    @property
    def folder(self) -> Path:
        """Everything of the node: data, logs, configuration."""
        return self.cluster_folder / self.node.name

    @property
    def erlang_name(self) -> str:
        """RabbitMQ's name for it."""
        return erlang_name(self.node.name)

    @property
    def endpoint(self) -> NodeEndpoint:
        """Where clients reach it."""
        return NodeEndpoint(HOST, self.node.amqp_port, self.node.management_port)

    @property
    def log_file(self) -> Path:
        """What RabbitMQ logs."""
        return self.folder / "log" / f"{self.erlang_name}.log"

    @property
    def links_note(self) -> Path:
        """What the node writes when a link of it is cut or slowed: its home is the cluster's folder."""
        return self.cluster_folder / note_name(self.erlang_name)

    @property
    def boot_file(self) -> Path:
        """What the process printed since it was last started."""
        return self.folder / "log" / "boot.log"


def erlang_name(node: str) -> str:
    """RabbitMQ's name for the node that we call `node`."""
    return f"{node}@localhost"


def places(folder: Path, state: LocalState) -> tuple[NodePlace, ...]:
    """Every node of the cluster in `folder`, in name order."""
    return tuple(NodePlace(folder, node) for node in state.nodes)


def ensure_cluster_files(folder: Path) -> None:
    """Gives a cluster its cookie, which only its owner can read, and the names that Erlang resolves."""
    cookie = folder / ".erlang.cookie"
    if not (cookie.exists() and cookie.stat().st_size >= 20):
        write_private(cookie, secrets.token_urlsafe(36), 0o400)
    write_private(folder / "inetrc", '{host,{127,0,0,1},["localhost"]}.\n{lookup,[file,native]}.\n')


def launch(place: NodePlace, state: LocalState, installation: Installation) -> None:
    """Writes the node's configuration and starts its process, which goes on when this program ends."""
    _write_files(place, state, installation)
    processes.spawn(
        [str(installation.server)],
        {**_environment(place.cluster_folder, state), **_node_environment(place)},
        place.folder,
        place.boot_file,
    )


def launch_epmd(folder: Path, state: LocalState, installation: Installation, limit_s: float = 5.0) -> None:
    """Starts the cluster's own epmd and waits until it listens; the system's epmd is not asked."""
    command = [str(installation.epmd), "-address", HOST, "-port", str(state.epmd_port)]
    processes.spawn(command, _environment(folder, state), folder, folder / "epmd.log")
    deadline = time.monotonic() + limit_s
    while state.epmd_port not in processes.listening_ports():
        if time.monotonic() > deadline:
            said = boot_failure_reason(_read_tail(folder / "epmd.log"))
            raise ClusterError(f"epmd did not come up: {said or 'it said nothing'}", "Look whether Erlang is whole.")
        time.sleep(0.02)


def control(place: NodePlace, state: LocalState, installation: Installation, *command: str, limit_s: float) -> str:
    """Runs a `rabbitmqctl` command in the node and gives what it printed; `ClusterError` if it fails."""
    return _run_tool(installation.ctl, place, state, command, limit_s)


def maintain(place: NodePlace, state: LocalState, installation: Installation, word: str, *, limit_s: float) -> None:
    """Runs `rabbitmq-upgrade drain` or `revive` in the node; `ClusterError` if it fails."""
    _run_tool(installation.upgrade, place, state, (word,), limit_s)


def tool(
    place: NodePlace, state: LocalState, installation: Installation, name: str, words: tuple[str, ...], limit_s: float
) -> str:
    """Runs one of RabbitMQ's tools in the node and gives what it printed; `ClusterError` if it fails."""
    return _run_tool(installation.scripts / name, place, state, words, limit_s)


def drained(place: NodePlace, process: processes.OwnProcess) -> bool:
    """Whether a node that runs with its ports closed is in maintenance, by what the process has logged."""
    began_at = time.time() - processes.age_s(process)
    if _modified(place.log_file) < began_at:
        return False
    return in_maintenance(_read_tail(place.log_file, _MAINTENANCE_TAIL_BYTES), began_at)


def _run_tool(tool: Path, place: NodePlace, state: LocalState, command: tuple[str, ...], limit_s: float) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - RabbitMQ's own tool with fixed words
            [str(tool), "-q", "-n", place.erlang_name, *command],
            env=_environment(place.cluster_folder, state),
            cwd=place.cluster_folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OperationTimeoutError(
            f"{tool.name} {command[0]} on {place.node.name} took over {limit_s:.0f} s"
        ) from error
    if done.returncode != 0:
        said = tool_failure_reason((done.stderr or done.stdout).decode(errors="replace"))
        raise ClusterError(
            f"{tool.name} {command[0]} failed on {place.node.name}: {said or f'exit status {done.returncode}'}",
            f"'dmq node logs {place.node.name}' may tell more.",
        )
    return done.stdout.decode(errors="replace")


def is_node_process(process: processes.OwnProcess) -> bool:
    """Whether a process that bears a node's mark is the node itself and not a helper that Erlang started."""
    if not processes.leads_session(process):
        return False
    # Erlang's launcher gives BINDIR to all that comes after it.
    return processes.program(process) in ("beam.smp", "erlexec") or not processes.has_variable(process, "BINDIR")


def boot_failure(place: NodePlace) -> str:
    """Why the node's process ended while it booted, in one line; empty if its log does not tell."""
    return boot_failure_reason(_read_tail(place.boot_file)) or boot_failure_reason(_read_tail(place.log_file))


def log_tail(place: NodePlace, lines: int) -> str:
    """The last `lines` lines of what the node logged and, where that is newer, printed."""
    text = _read_tail(place.log_file)
    if not text or _modified(place.boot_file) > _modified(place.log_file):
        text += _read_tail(place.boot_file)
    return "".join(text.splitlines(keepends=True)[-lines:]) if lines > 0 else ""


def _write_files(place: NodePlace, state: LocalState, installation: Installation) -> None:
    for folder in (place.folder, place.folder / "log", place.folder / "data"):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ClusterError(
                f"{folder} cannot be made: {error.strerror}", "Make room, or look at its rights."
            ) from error
    files = node_files(
        installation.version,
        tuple(erlang_name(node.name) for node in state.nodes),
        place.cluster_folder.name,
        state.credentials,
        ListenAddresses(
            amqp=f"{HOST}:{place.node.amqp_port}",
            management_ip=HOST,
            management_port=place.node.management_port,
            prometheus_port=place.node.prometheus_port,
        ),
    )
    write_private(place.folder / "rabbitmq.conf", files.rabbitmq_conf + _LOG_SETTINGS)
    write_private(place.folder / "advanced.config", files.advanced_config)
    write_private(place.folder / "enabled_plugins", files.enabled_plugins)
    place.boot_file.unlink(missing_ok=True)


def _environment(folder: Path, state: LocalState) -> dict[str, str]:
    """Nothing of the caller's but PATH: its RABBITMQ_ and ERL_ variables belong to some other node."""
    return {
        "PATH": search_path(),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),  # noqa: S108 - where the system keeps it unless told otherwise
        CLUSTER_MARK: str(folder),
        "ERL_EPMD_PORT": str(state.epmd_port),
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_INETRC": str(folder / "inetrc"),
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_CONF_ENV_FILE": str(folder / "no-rabbitmq-env.conf"),
        "RABBITMQ_CTL_ERL_ARGS": _ONLY_LOOPBACK,
    }


def _node_environment(place: NodePlace) -> dict[str, str]:
    folder = place.folder
    return {
        NODE_MARK: str(folder),
        # Makes the script become the Erlang machine instead of waiting beside it.
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_NODENAME": place.erlang_name,
        "RABBITMQ_DIST_PORT": str(place.node.distribution_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ONLY_LOOPBACK,
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "data" / "generated"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        # Not RABBITMQ_LOGS: it would silence the log exchange, from which elections are read.
        "RABBITMQ_LOG_BASE": str(folder / "log"),
    }


def _read_tail(path: Path, limit: int = _LOG_TAIL_BYTES) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
