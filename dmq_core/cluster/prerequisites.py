"""What this machine has to run a cluster with, what is missing, and how to get it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dmq_core.cluster.docker.errors import errno_in
from dmq_core.cluster.local.installation import find_installation, search_path
from dmq_core.errors import BackendUnavailableError, OperationTimeoutError
from dmq_core.progress import Progress, ProgressListener, no_progress
from dmq_core.resources import cluster_folder
from dmq_core.versions import Version

INSTALL_LIMIT_S = 900.0
_STATUS_LINE = re.compile(r"(?:dl|pm)status:[^:]*:([0-9.]+):(.*)")
_ERROR_LINE = re.compile(r"E: |dpkg: error|pmerror:")


class DockerState(StrEnum):
    """Whether a Docker engine can be used."""

    ANSWERS = "answers"
    NOT_PERMITTED = "not permitted"
    NOT_RUNNING = "not running"
    ABSENT = "absent"


class AptAccess(StrEnum):
    """How packages can be installed: as root, by sudo without a password, or only by hand."""

    ROOT = "root"
    SUDO = "sudo"
    BY_HAND = "by hand"
    NO_APT = "no apt"


class Package(StrEnum):
    """What dmq may install, by the name of its Debian package."""

    RABBITMQ_SERVER = "rabbitmq-server"
    DEBOOTSTRAP = "debootstrap"


@dataclass(frozen=True, slots=True)
class Prerequisites:
    """What this machine has; `docker_detail` is what the engine or its absence said, in one line."""

    docker: DockerState
    docker_detail: str
    rabbitmq: Version | None
    epmd: bool
    debootstrap: bool
    apt: AptAccess
    amqp_port_taken: bool

    @property
    def can_start(self) -> bool:
        """Whether a cluster can be started as things are."""
        return self.docker is DockerState.ANSWERS or self.rabbitmq is not None

    @property
    def findings(self) -> tuple[str, ...]:
        """What was looked for and found, a line each, for people."""
        rabbitmq = f"rabbitmq-server {self.rabbitmq}" if self.rabbitmq else "rabbitmq-server: not installed"
        port = "taken; a cluster takes other ports" if self.amqp_port_taken else "free"
        detail = f" ({self.docker_detail})" if self.docker_detail else ""
        return (
            f"Docker engine: {self.docker}{detail}",
            rabbitmq,
            f"debootstrap: {'there' if self.debootstrap else 'not installed'}",
            f"packages can be installed: {self.apt}",
            f"port 5672: {port}",
        )

    @property
    def missing(self) -> tuple[Package, ...]:
        """What `install` would have to get before a cluster can be started; empty if one can."""
        return () if self.can_start else (Package.RABBITMQ_SERVER,)

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do by hand so that a cluster can be started, the easiest way first; empty if one can."""
        if self.can_start:
            return ()
        return (*_docker_advice(self.docker), *_rabbitmq_advice(self.apt))

    @property
    def installable(self) -> bool:
        """Whether `install` may work here without a password."""
        return self.apt in (AptAccess.ROOT, AptAccess.SUDO)


Runner = Callable[[Sequence[str], Callable[[str], None], float], int]


def inspect(docker: Callable[[], tuple[DockerState, str]] | None = None) -> Prerequisites:
    """What this machine has, within 6 s; `docker` replaces the question to the engine."""
    state, detail = (docker or _docker_state)()
    installation = find_installation()
    return Prerequisites(
        docker=state,
        docker_detail=detail,
        rabbitmq=installation.version if installation else None,
        epmd=installation is not None or shutil.which("epmd", path=search_path()) is not None,
        debootstrap=shutil.which("debootstrap", path=search_path()) is not None,
        apt=_apt_access(),
        amqp_port_taken=_answers("127.0.0.1", 5672),
    )


def install(
    packages: Sequence[Package],
    progress: ProgressListener = no_progress,
    *,
    access: AptAccess | None = None,
    run: Runner | None = None,
) -> None:
    """Installs Debian packages, as root or by passwordless sudo, within 15 minutes.

    None of their services is started or enabled, and a service that is here already is left alone.
    `BackendUnavailableError` if this user may not install or apt fails.
    """
    if not packages:
        return
    names = [str(p) for p in packages]
    access = _apt_access() if access is None else access
    if access not in (AptAccess.ROOT, AptAccess.SUDO):
        raise BackendUnavailableError(f"{' and '.join(names)} cannot be installed from here", by_hand(names, access))
    script = str(cluster_folder() / "install_packages.sh")
    prefix = ["sudo", "-n"] if access is AptAccess.SUDO else []
    listener = _AptListener(progress, names)
    progress(Progress(f"installing {' '.join(names)}"))
    status = (run or _run_lines)([*prefix, "sh", script, *names], listener, INSTALL_LIMIT_S)
    if status != 0:
        reason = listener.error or f"apt ended with status {status}"
        raise BackendUnavailableError(f"{' and '.join(names)} could not be installed: {reason}", by_hand(names, access))


def by_hand(packages: Sequence[str], access: AptAccess) -> str:
    """What a person types to install `packages`."""
    if access is AptAccess.NO_APT:
        return f"Install {' and '.join(packages)} with your system's package manager, or start Docker."
    sudo = "" if access is AptAccess.ROOT else "sudo "
    return f"Run '{sudo}apt-get update && {sudo}apt-get install {' '.join(packages)}'."


class _AptListener:
    """Turns the lines of apt into progress, and remembers the last error among them."""

    def __init__(self, progress: ProgressListener, names: Sequence[str]) -> None:
        self._progress = progress
        self._what = " ".join(names)
        self.error = ""

    def __call__(self, line: str) -> None:
        status = _STATUS_LINE.match(line)
        if status:
            fraction = min(max(float(status[1]) / 100, 0.0), 1.0)
            self._progress(Progress(f"installing {self._what}: {status[2].strip()}", fraction=fraction))
        elif _ERROR_LINE.match(line):
            self.error = line.strip().removeprefix("E: ")


def _run_lines(command: Sequence[str], on_line: Callable[[str], None], limit_s: float) -> int:
    """Runs `command`, hands over each line that it prints, and gives its exit status.

    Raises `OperationTimeoutError` after `limit_s`.
    """
    with subprocess.Popen(  # noqa: S603 - the command is our own script with package names from an enum
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PATH": search_path()},
    ) as process:
        expired = threading.Event()

        def end() -> None:
            expired.set()
            process.terminate()

        timer = threading.Timer(limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            for line in process.stdout or ():
                on_line(line)
            status = process.wait()
        except BaseException:
            process.terminate()
            raise
        finally:
            timer.cancel()
    if expired.is_set():
        raise OperationTimeoutError(
            f"apt did not finish within {limit_s:.0f} s", "Look whether another package manager runs."
        )
    return status


def _apt_access() -> AptAccess:
    path = search_path()
    if shutil.which("apt-get", path=path) is None or shutil.which("dpkg-query", path=path) is None:
        return AptAccess.NO_APT
    if os.geteuid() == 0:
        return AptAccess.ROOT
    sudo = shutil.which("sudo", path=path)
    if sudo is None:
        return AptAccess.BY_HAND
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command that asks whether sudo needs a password
            [sudo, "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return AptAccess.BY_HAND
    return AptAccess.SUDO if answer.returncode == 0 else AptAccess.BY_HAND


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _docker_state() -> tuple[DockerState, str]:
    from dmq_core.cluster.docker.engine import connect

    try:
        engine = connect()
    except BackendUnavailableError as error:
        return _why_not(error), error.what
    try:
        return DockerState.ANSWERS, f"at {engine.address}"
    finally:
        engine.close()


def _why_not(error: BackendUnavailableError) -> DockerState:
    cause = errno_in(error)
    if cause == errno.EACCES:
        return DockerState.NOT_PERMITTED
    installed = any(shutil.which(name, path=search_path()) for name in ("docker", "dockerd"))
    return DockerState.NOT_RUNNING if installed or cause not in (errno.ENOENT, None) else DockerState.ABSENT


def _docker_advice(docker: DockerState) -> tuple[str, ...]:
    if docker is DockerState.NOT_PERMITTED:
        return ("Let this user speak to Docker: 'sudo usermod -aG docker $USER', then log in again.",)
    if docker is DockerState.NOT_RUNNING:
        return ("Start the Docker engine: 'sudo systemctl start docker', or open Docker Desktop.",)
    return ("Install Docker: https://docs.docker.com/engine/install/",)


def _rabbitmq_advice(apt: AptAccess) -> tuple[str, ...]:
    if apt in (AptAccess.ROOT, AptAccess.SUDO):
        return ("Or let dmq install RabbitMQ: 'dmq start --install'.",)
    return (f"Or install RabbitMQ. {by_hand([Package.RABBITMQ_SERVER], apt)}",)
