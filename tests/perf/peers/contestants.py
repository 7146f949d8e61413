"""Installs the contestants where they are missing, and runs one on one task."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.perf.peers.task import LIMIT_S, Sample, Task

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name("rabbitmq_c.c")
PROGRAM = Path(tempfile.gettempdir()) / f"dmq-perf-rabbitmq-c-{SOURCE.stat().st_mtime_ns}"
PACKAGES = ("aio_pika", "kombu", "uvloop")
HEADER = Path("/usr/include/amqp.h")


def install() -> None:
    """Puts the extra `perf` into this environment and builds the C program, unless they are there."""
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", f"{ROOT}[perf]"], check=True, timeout=600)
    if PROGRAM.exists():
        return
    if not HEADER.exists() or shutil.which("gcc") is None:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "librabbitmq-dev", "gcc", "libc6-dev"], check=True, timeout=600
        )
    subprocess.run(["gcc", "-O2", "-o", str(PROGRAM), str(SOURCE), "-lrabbitmq"], check=True, timeout=120)


def run(contestant: str, task: Task) -> Sample:
    """What `contestant`, a module beside this one or `rabbitmq_c`, reaches in a process of its own."""
    command = [str(PROGRAM)] if contestant == "rabbitmq_c" else [sys.executable, "-m", f"tests.perf.peers.{contestant}"]
    done = subprocess.run(
        [*command, *task.arguments()], cwd=ROOT, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{contestant} failed:\n{done.stderr[-2000:]}")
    return Sample(**json.loads(done.stdout.splitlines()[-1]))
