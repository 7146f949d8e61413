"""Processes of this machine that carry a mark in their environment: found, judged and signalled without mistakes.

A process is one of ours because its environment says so, never because a file remembers its number; and it is
signalled through a descriptor taken before that was checked, so that a number used again is never hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_POLL_S = 0.05
_GONE = frozenset("ZXx")
_KERNEL_THREAD = 0x00200000
_YOUNG_S = 30.0
_EXEC_READS = 50
_LISTEN = "0A"
_LOOPBACK_OR_ANY = frozenset({"0100007F", "7F000001", "00000000"})


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """A process by its number and the tick of its start, which together no other process ever has until a reboot."""

    pid: int
    started: int


def supported() -> bool:
    """Whether this system shows processes in the way that this module reads them."""
    return hasattr(os, "pidfd_open") and (_PROC / "self" / "environ").exists()


def find(variable: str, value: str | None = None) -> dict[OwnProcess, str]:
    """The live processes whose environment has `variable` (set to `value`), with its value, the oldest first."""
    entry = f"{variable}=".encode() + (b"" if value is None else os.fsencode(value))
    found: dict[OwnProcess, str] = {}
    for pid in _pids():
        seen = _entry(pid, entry, whole=value is not None)
        process = None if seen is None else identify(pid)
        if seen is not None and process is not None:
            found[process] = os.fsdecode(seen.partition(b"=")[2])
    return dict(sorted(found.items(), key=lambda item: (item[0].started, item[0].pid)))


def identify(pid: int) -> OwnProcess | None:
    """The live process with that number."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in _GONE else OwnProcess(pid, stat[1])


def alive(process: OwnProcess) -> bool:
    """Whether it still runs or is frozen; a dead child of this program is reaped on the way."""
    return _state(process) is not None


def frozen(process: OwnProcess) -> bool:
    """Whether it is stopped by a signal."""
    return _state(process) in ("T", "t")


def leads_session(process: OwnProcess) -> bool:
    """Whether it began its session, as everything that `spawn` starts does."""
    try:
        return os.getsid(process.pid) == process.pid
    except OSError:
        return False


def has_variable(process: OwnProcess, variable: str) -> bool:
    """Whether `variable` stands in its environment."""
    return _entry(process.pid, f"{variable}=".encode(), whole=False) is not None


def program(process: OwnProcess) -> str:
    """The name of the program that it runs, empty if it is gone."""
    try:
        return (_PROC / str(process.pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def age_s(process: OwnProcess) -> float:
    """Seconds since it started."""
    uptime = float((_PROC / "uptime").read_text().split()[0])
    return max(0.0, uptime - process.started / os.sysconf("SC_CLK_TCK"))


def send(process: OwnProcess, number: signal.Signals) -> bool:
    """Signals exactly this process; False if it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def await_end(processes: Iterable[OwnProcess], limit_s: float) -> tuple[OwnProcess, ...]:
    """Waits until all have ended, at most `limit_s`; gives those that have not."""
    deadline = time.monotonic() + limit_s
    left = tuple(p for p in processes if alive(p))
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        left = tuple(p for p in left if alive(p))
    return left


def kill_all(variable: str, value: str, limit_s: float = 5.0) -> tuple[OwnProcess, ...]:
    """Kills what has `variable` set to `value`, also what starts meanwhile; gives the processes that did not end."""
    deadline = time.monotonic() + limit_s
    while (left := tuple(find(variable, value))) and time.monotonic() < deadline:
        for process in left:
            send(process, signal.SIGKILL)
        await_end(left, min(1.0, limit_s))
    return left


def listening_ports() -> frozenset[int]:
    """The ports of 127.0.0.1 and of all addresses that some program listens on, without connecting to any."""
    ports: set[int] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == _LISTEN and address in _LOOPBACK_OR_ANY:
            ports.add(int(port, 16))
    return frozenset(ports)


def spawn(command: list[str], environment: dict[str, str], folder: Path, output: Path) -> int:
    """Starts `command` in a session of its own, detached from this program's terminal and files; gives its pid.

    What it prints is appended to `output`, which only its owner may read.
    """
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    defaults = {signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGXFSZ}
    try:
        return os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", 'umask 077 && cd "$0" && exec "$@"', str(folder), *command],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                *((os.POSIX_SPAWN_CLOSE, number) for number in _inheritable_descriptors()),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=defaults,
        )
    finally:
        os.close(null)
        os.close(log)


def _inheritable_descriptors() -> list[int]:
    """What this program was itself given beyond its standard files: a pipe held open would keep its reader waiting."""
    found: list[int] = []
    for name in os.listdir(_PROC / "self" / "fd"):  # noqa: PTH208 - names are all that is needed
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208 - names are all that is needed


def _entry(pid: int, entry: bytes, *, whole: bool) -> bytes | None:
    content = _environment(pid)
    if entry not in content:
        return None
    return next((e for e in content.split(b"\0") if (e == entry if whole else e.startswith(entry))), None)


def _environment(pid: int) -> bytes:
    for _ in range(_EXEC_READS):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - read for every process at every look
                content = file.read()
        except OSError:
            return b""
        if content or not _may_be_in_exec(pid):
            return content
        time.sleep(0.001)
    return b""


def _may_be_in_exec(pid: int) -> bool:
    """Whether an empty environment may only mean that the process is just becoming another program."""
    fields = _stat_fields(pid)
    if fields is None or fields[0].decode() in _GONE or int(fields[6]) & _KERNEL_THREAD:
        return False
    return age_s(OwnProcess(pid, int(fields[19]))) < _YOUNG_S


def _stat(pid: int) -> tuple[str, int] | None:
    fields = _stat_fields(pid)
    return None if fields is None else (fields[0].decode(), int(fields[19]))


def _stat_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state on; the name before it may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read several times a second
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > 19 else None


def _state(process: OwnProcess) -> str | None:
    stat = _stat(process.pid)
    if stat is None or stat[1] != process.started:
        return None
    if stat[0] in _GONE:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        return None
    return stat[0]
