"""Docker's failures in words, each with the way out."""

from __future__ import annotations

import errno

import pytest

from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.errors import PortTakenError, errno_in, port_in, translated, unreachable
from dmq_core.errors import BackendUnavailableError, ClusterError, DmqError, InvalidInputError, OperationTimeoutError

SOCKET = "unix:///var/run/docker.sock"


def wrapped(number: int) -> Exception:
    """An operating system error the way requests and the SDK wrap it."""
    inner = ConnectionError("Connection aborted.", OSError(number, "of the system"))
    outer = RuntimeError("Error while fetching server API version")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "installed", "what", "hint"),
    [
        (wrapped(errno.EACCES), True, "may not use the Docker engine", "usermod -aG docker"),
        (wrapped(errno.ENOENT), True, "no Docker engine runs", "systemctl start docker"),
        (wrapped(errno.ECONNREFUSED), True, "no Docker engine runs", "systemctl start docker"),
        (wrapped(errno.ENOENT), False, "Docker is not installed", "apt-get install docker.io"),
        (RuntimeError("Install paramiko package"), True, "SSH support", "pip install paramiko"),
        (RuntimeError("Read timed out."), True, "no answer in time", "docker info"),
    ],
)
def test_an_engine_out_of_reach_says_why_and_what_to_do(
    error: Exception, installed: bool, what: str, hint: str
) -> None:
    told = unreachable(error, SOCKET, installed)
    assert isinstance(told, BackendUnavailableError)
    assert what in told.what
    assert hint in told.hint


@pytest.mark.parametrize(
    ("message", "port"),
    [
        (
            "driver failed programming external connectivity on endpoint x: "
            "Bind for 127.0.0.1:5672 failed: port is already allocated",
            5672,
        ),
        (
            "driver failed programming external connectivity on endpoint x (id): Error starting userland proxy: "
            "listen tcp4 127.0.0.1:15672: bind: address already in use",
            15672,
        ),
        ("failed to bind host port for 127.0.0.1:5673:172.17.0.2:5672/tcp: address already in use", 5673),
        ("failed to bind host port 127.0.0.1:5673/tcp: address already in use", 5673),
        ("No such container: x", None),
    ],
)
def test_a_taken_port_is_found_in_the_engines_words(message: str, port: int | None) -> None:
    assert port_in(message) == port


class Refusal(Exception):
    """What the SDK raises when the engine says no."""

    def __init__(self, status: int, explanation: str) -> None:
        super().__init__(explanation)
        self.explanation = explanation
        self.response = type("Response", (), {"status_code": status})()


def raised(error: Exception) -> DmqError:
    with pytest.raises(DmqError) as caught, translated("start the container x"):
        raise error
    return caught.value


def test_refusals_are_told_by_kind() -> None:
    taken = raised(Refusal(500, "Bind for 127.0.0.1:5672 failed: port is already allocated"))
    assert isinstance(taken, PortTakenError)
    assert taken.port == 5672
    assert "5672" in taken.hint
    full = raised(Refusal(500, "write /var/lib/docker: no space left on device"))
    assert "disk is full" in full.what
    other = raised(Refusal(500, "odd \x1b[31m thing"))
    assert isinstance(other, ClusterError)
    assert "\x1b" not in other.what


def test_silence_is_a_time_out_and_a_lost_engine_is_unavailable() -> None:
    assert isinstance(raised(RuntimeOSError("Read timed out. (read timeout=4)")), OperationTimeoutError)
    assert isinstance(raised(OSError(errno.ECONNRESET, "reset")), BackendUnavailableError)


class RuntimeOSError(OSError):
    """An operating system error without a number, as requests raises."""


def test_errors_of_ours_and_mistakes_of_ours_pass_unchanged() -> None:
    assert isinstance(raised(InvalidInputError("no")), InvalidInputError)
    with pytest.raises(KeyError), translated("x"):
        raise KeyError("a mistake in this program")


def test_errors_that_contain_themselves_end() -> None:
    error = RuntimeError("x")
    error.__cause__ = error
    assert errno_in(error) is None


@pytest.mark.parametrize(
    ("address", "remote"),
    [
        (None, False),
        ("unix:///run/user/1000/docker.sock", False),
        ("npipe:////./pipe/docker_engine", False),
        ("tcp://localhost:2375", False),
        ("tcp://127.0.0.1:2375", False),
        ("tcp://10.0.0.7:2376", True),
        ("https://docker.example:2376", True),
        ("ssh://me@host", True),
    ],
)
def test_an_engine_on_another_machine_is_recognised(address: str | None, remote: bool) -> None:
    assert Engine({"base_url": address} if address else {}).remote is remote
