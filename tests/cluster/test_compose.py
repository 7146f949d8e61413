"""The compose file and its scripts, for people who prefer compose."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import await_until

from dmq_core.cluster.discovery import docker_unavailable
from dmq_core.cluster.docker.engine import connect
from dmq_core.cluster.docker.image import ensure_image
from dmq_core.cluster.ports import PortChooser
from dmq_core.cluster.readiness import amqp_answers, running_nodes
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.resources import cluster_folder

pytestmark = [pytest.mark.real, pytest.mark.docker, pytest.mark.thorough]
ALL = {"rabbit@rmq1", "rabbit@rmq2", "rabbit@rmq3"}


def run(script: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(cluster_folder() / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    reason = docker_unavailable()
    if reason is not None:
        pytest.skip(f"Docker is missing: {reason}")
    if shutil.which("docker-compose") is None:
        pytest.skip("compose is not installed (apt-get install docker-compose)")
    if subprocess.run(["docker", "network", "inspect", "dmq-compose_cluster"], capture_output=True).returncode == 0:
        pytest.skip("this user's own compose cluster is there; ./tear-down.sh removes it")
    engine = connect()
    ports = PortChooser()
    yield {
        **os.environ,
        "DMQ_STATE_DIR": str(tmp_path),
        "DMQ_IMAGE": ensure_image(engine).reference,
        **{f"DMQ_{kind}_{i}": str(ports.take()) for kind in ("AMQP", "MANAGEMENT") for i in (1, 2, 3)},
    }
    engine.close()


def test_set_up_makes_a_whole_cluster_and_tear_down_leaves_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    endpoints = [
        NodeEndpoint("127.0.0.1", int(environment[f"DMQ_AMQP_{i}"]), int(environment[f"DMQ_MANAGEMENT_{i}"]))
        for i in (1, 2, 3)
    ]
    try:
        done = run("set-up.sh", environment)
        assert done.returncode == 0, done.stderr
        assert environment["DMQ_AMQP_1"] in done.stdout
        for endpoint in endpoints:
            await_until(lambda e=endpoint: amqp_answers(e), 30, "each node serves")
            assert running_nodes(endpoint, Credentials()) == ALL
        cookie = tmp_path / "compose" / "cookie"
        before = cookie.read_text()
        assert cookie.stat().st_mode & 0o077 == 0
        assert run("set-up.sh", environment).returncode == 0
        assert cookie.read_text() == before
    finally:
        done = run("tear-down.sh", environment)
    assert done.returncode == 0, done.stderr
    for kind in (["ps", "-a"], ["network", "ls"], ["volume", "ls"]):
        listed = subprocess.run(["docker", *kind], capture_output=True, text=True, check=True).stdout
        assert "dmq-compose" not in listed
    assert not (tmp_path / "compose").exists()


def test_the_scripts_say_what_is_missing(environment: dict[str, str], tmp_path: Path) -> None:
    without = run("set-up.sh", {**environment, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert without.returncode != 0
    assert "no Docker engine answers" in without.stderr
