"""The Docker engine's failures told in dmq's errors: what could not be done, why, and the way out."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator

from dmq_core.errors import BackendUnavailableError, ClusterError, DmqError, OperationTimeoutError
from dmq_core.text import visible

_PORT_TAKEN = re.compile(
    r"(?:Bind for \S+?:(\d+) failed: port is already allocated|listen tcp\S* \S+?:(\d+): bind: address already in use"
    r"|failed to bind host port (?:for )?\S+?:(\d+))"
)


class NotFoundError(ClusterError):
    """The engine knows no such container, network, volume or image."""


class ConflictError(ClusterError):
    """The name is taken, or the thing is in use or in another state."""


class PortTakenError(ClusterError):
    """A port that a node should publish belongs to somebody else; `port` is its number."""

    def __init__(self, what: str, hint: str, port: int) -> None:
        super().__init__(what, hint)
        self.port = port


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns what the SDK raises while it is `doing` something ("start the container x") into a `DmqError`."""
    try:
        yield
    except DmqError:
        raise
    except Exception as error:
        failure = _failure(error, doing)
        if failure is None:
            raise
        raise failure from error


def missing(error: Exception) -> bool:
    """Whether the engine says that the thing does not exist."""
    return getattr(getattr(error, "response", None), "status_code", None) == 404


def unreachable(error: Exception, address: str, installed: bool | None = None) -> BackendUnavailableError:
    """Why the engine at `address` cannot be reached, and the way out; `installed`: whether Docker is here at all."""
    number, text = errno_in(error), visible(str(error))
    if number == errno.EACCES:
        return BackendUnavailableError(
            f"this user may not use the Docker engine at {address}",
            "Run 'sudo usermod -aG docker $USER' and log in again, or use --backend local.",
        )
    if "paramiko" in text:
        return BackendUnavailableError(
            f"the Docker engine at {address} needs SSH support that is not installed",
            "Run 'pip install paramiko', or point DOCKER_HOST at a forwarded socket.",
        )
    if number in (errno.ENOENT, errno.ECONNREFUSED):
        if installed is None:
            installed = shutil.which("dockerd") is not None or shutil.which("docker") is not None
        if not installed and address.startswith("unix:"):
            return BackendUnavailableError(
                "Docker is not installed",
                "Install it (Debian: 'sudo apt-get install docker.io'), or use --backend local.",
            )
        return BackendUnavailableError(
            f"no Docker engine runs at {address}",
            "Start it ('sudo systemctl start docker', or Docker Desktop), or use --backend local.",
        )
    return BackendUnavailableError(
        f"the Docker engine at {address} does not answer: {_why(error)}",
        "Look at 'docker info', DOCKER_HOST and 'docker context ls', or use --backend local.",
    )


def errno_in(error: BaseException) -> int | None:
    """The number of the first operating system error within `error`, its causes and its arguments."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        if isinstance(found, OSError) and isinstance(found.errno, int):
            return found.errno
        seen.add(id(found))
        waiting += [*found.args, getattr(found, "reason", None), found.__cause__, found.__context__]
    return None


def port_in(message: str) -> int | None:
    """The port that an engine's message says is taken; None if it says nothing of the kind."""
    found = _PORT_TAKEN.search(message)
    return None if found is None else int(next(group for group in found.groups() if group))


def _failure(error: Exception, doing: str) -> DmqError | None:
    if hasattr(error, "explanation"):
        return _refusal(error, doing)
    if "Timeout" in type(error).__name__ or "timed out" in str(error).lower():
        return OperationTimeoutError(
            f"the Docker engine took too long to {doing}", "Look at 'docker info'; then try again."
        )
    if isinstance(error, OSError) or type(error).__module__.startswith(("docker.", "urllib3.")):
        return BackendUnavailableError(
            f"the Docker engine could not {doing}: {_why(error)}", "Look at 'docker info'; then try again."
        )
    return None


def _refusal(error: Exception, doing: str) -> DmqError:
    reason = visible(" ".join(str(getattr(error, "explanation", None) or error).split()))
    port = port_in(reason)
    if port is not None:
        return PortTakenError(
            f"port {port} on 127.0.0.1 belongs to somebody else",
            f"See who has it with 'ss -ltnp sport = :{port}', end that, then start again.",
            port,
        )
    if "no space left" in reason.lower():
        return ClusterError(f"could not {doing}: the disk is full", "Free some space ('docker system df' helps).")
    kind = {404: NotFoundError, 409: ConflictError}.get(
        getattr(getattr(error, "response", None), "status_code", 0), ClusterError
    )
    return kind(f"could not {doing}: {reason}", "Look at 'docker info' and 'docker ps -a'.")


def _why(error: BaseException) -> str:
    number = errno_in(error)
    if number is not None and number > 0:
        return errno.errorcode.get(number, str(number))
    if "Timeout" in type(error).__name__ or "timed out" in str(error).lower():
        return "no answer in time"
    return visible(" ".join(str(error).split()))[:200]
