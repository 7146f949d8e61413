"""Building the image when it goes wrong: one clear cause, and nothing half built is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import await_until

from dmq_core.cluster.docker import image as module
from dmq_core.cluster.docker.debian_mirror import debian_mirror
from dmq_core.cluster.docker.engine import Engine, connect
from dmq_core.cluster.docker.image import RECIPES, build_image, ensure_image
from dmq_core.errors import BackendUnavailableError, ClusterError
from dmq_core.progress import no_progress
from dmq_core.resources import cluster_folder

pytestmark = [pytest.mark.real, pytest.mark.docker, pytest.mark.thorough]
NOBODY = "http://127.0.0.1:9/debian"
SCRIPT = cluster_folder() / "image" / "make-root.sh"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        found = connect()
    except BackendUnavailableError as error:
        pytest.skip(f"Docker is missing: {error.what}")
    yield found
    found.close()


def docker(*arguments: str) -> set[str]:
    return set(subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.split())


def what_is_there() -> tuple[set[str], set[str]]:
    builds = docker("ps", "-a", "-q", "--no-trunc", "--filter", "label=dmq.recipe")
    return builds, docker("images", "-q", "--filter", "dangling=true")


def can_make_a_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    if not Path("/usr/sbin/debootstrap").exists():
        pytest.skip("debootstrap is not installed (apt-get install debootstrap)")


def test_a_mirror_out_of_reach_is_the_cause_that_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_image(engine)
    if engine.image_environment("dmq-base:trixie") is None:
        pytest.skip("a registry gives the image here, so nothing is built")
    before = what_is_there()
    monkeypatch.setattr(module, "debian_mirror", lambda: NOBODY)
    monkeypatch.setattr(module, "own_tag", lambda _recipe: "4.3-test")
    with pytest.raises(ClusterError) as caught:
        build_image(engine, RECIPES["4.3"])
    assert "127.0.0.1:9" in caught.value.what
    assert NOBODY in caught.value.hint
    assert what_is_there() == before
    assert engine.image_environment("dmq-rabbitmq:4.3-test") is None


def test_a_root_that_cannot_be_made_leaves_neither_folder_nor_image(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    can_make_a_root()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = what_is_there()
    with pytest.raises(ClusterError) as caught:
        module._make_base(engine, "duke", NOBODY, no_progress)
    assert "E: " in caught.value.what
    assert list(tmp_path.iterdir()) == []
    assert engine.image_environment("dmq-base:duke") is None
    assert what_is_there() == before


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_root_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    can_make_a_root()
    process = subprocess.Popen(
        ["sh", str(SCRIPT), "trixie", debian_mirror()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    await_until(lambda: any(tmp_path.glob("dmq-root.*/*")), 30, "debootstrap has begun")
    process.send_signal(how)
    assert process.wait(30) != 0
    assert list(tmp_path.iterdir()) == []
    mine = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert mine == ""
