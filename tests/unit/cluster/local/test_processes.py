"""Finding and signalling exactly our own processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmq_core.cluster.local import processes
from dmq_core.cluster.local.processes import OwnProcess

pytestmark = pytest.mark.skipif(
    not processes.supported(), reason="this system has no /proc with environments or no pidfd"
)

MARK = "DMQ_TEST_MARK"


@pytest.fixture
def value(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path)
    processes.kill_all(MARK, str(tmp_path))


def sleeper(tmp_path: Path, value: str, *, script: str = "sleep 60") -> OwnProcess:
    pid = processes.spawn(["/bin/sh", "-c", script], {"PATH": os.defpath, MARK: value}, tmp_path, tmp_path / "out")
    found = processes.identify(pid)
    assert found is not None
    return found


def test_a_process_is_found_by_the_whole_value_of_its_mark(tmp_path: Path, value: str) -> None:
    ours = sleeper(tmp_path, value)
    longer = sleeper(tmp_path, value + "-2")
    try:
        assert ours in processes.find(MARK, value)
        assert longer not in processes.find(MARK, value)
        assert {ours, longer} <= processes.find(MARK).keys()
    finally:
        processes.kill_all(MARK, value + "-2")


def opened_by(pid: int) -> set[Path]:
    opened = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened.add(link.readlink())
    return opened


def is_sleeping(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def test_a_spawned_process_has_its_own_session_no_terminal_and_none_of_our_files(tmp_path: Path, value: str) -> None:
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        process = sleeper(tmp_path, value, script="echo hello; pwd; exec sleep 60")
    deadline = time.monotonic() + 10
    # A program that begins opens its libraries first.
    while opened_by(process.pid) != {Path("/dev/null"), tmp_path / "out"} or not is_sleeping(process.pid):
        assert time.monotonic() < deadline, opened_by(process.pid)
        time.sleep(0.02)
    assert processes.leads_session(process)
    assert (tmp_path / "out").read_text() == f"hello\n{tmp_path}\n"


def test_a_number_that_another_process_has_got_is_never_signalled() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        now = processes.identify(other.pid)
        assert now is not None
        before = OwnProcess(now.pid, now.started - 1)
        assert not processes.alive(before)
        assert not processes.send(before, signal.SIGKILL)
        assert other.poll() is None
        assert processes.send(now, signal.SIGKILL)
        assert other.wait(10) == -signal.SIGKILL
    assert not processes.send(now, signal.SIGKILL)


def test_a_frozen_process_is_told_from_a_running_one(tmp_path: Path, value: str) -> None:
    process = sleeper(tmp_path, value)
    assert not processes.frozen(process)
    processes.send(process, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while not processes.frozen(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert processes.alive(process)


def test_a_dead_child_does_not_stay_behind_as_a_zombie(tmp_path: Path, value: str) -> None:
    process = sleeper(tmp_path, value)
    processes.send(process, signal.SIGKILL)
    assert processes.await_end([process], 10) == ()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{process.pid}").exists():
        assert not processes.alive(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killing_all_reaches_children_that_keep_starting(tmp_path: Path, value: str) -> None:
    sleeper(tmp_path, value, script="for i in 1 2 3 4 5; do (sleep 60) & done; (setsid sleep 61) & wait")
    deadline = time.monotonic() + 10
    while len(processes.find(MARK, value)) < 7:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert processes.kill_all(MARK, value) == ()
    assert not processes.find(MARK, value)


def test_listening_ports_are_seen_without_connecting() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert port in processes.listening_ports()
    assert port not in processes.listening_ports()


def test_the_age_of_a_process_grows_from_its_start(tmp_path: Path, value: str) -> None:
    assert 0 <= processes.age_s(sleeper(tmp_path, value)) < 30
