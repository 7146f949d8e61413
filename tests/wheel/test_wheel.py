"""The wheel: what it carries, and that it works from any folder without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


class Installed:
    """A fresh environment that has the wheel, and a folder far from the checkout to run it in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        venv.create(folder / "venv")
        self.bin = folder / "venv" / "bin"
        # The pip that is there already spares seconds of unpacking another.
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", str(wheel)], check=True, timeout=300, cwd=self.home)

    def run(self, program: str, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DMQ_", "PYTHON", "VIRTUAL_ENV", "XDG_"))
        }
        return subprocess.run(
            [str(self.bin / program), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=self.home,
            env={**environment, "HOME": str(self.home)},
            check=False,
        )

    def python(self, statement: str) -> str:
        done = self.run("python", "-c", statement)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("elsewhere"), wheel)


def test_the_wheel_carries_every_file_of_the_packages_and_of_cluster(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        carried = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "dmq_core", "dmq_tui", "cluster", "demos"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if tracked.returncode != 0:
        pytest.skip("this is no git checkout, so there is no list of files to compare with")
    wanted = {_place_in_wheel(name) for name in tracked.stdout.split() if _belongs(name)}
    assert wanted - carried == set()


def test_the_wheel_has_no_top_level_name_that_is_not_ours(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dmq_core", "dmq_tui"}


def test_site_packages_has_neither_demos_nor_cluster(installed: Installed) -> None:
    site = Path(installed.python("import sysconfig; print(sysconfig.get_paths()['purelib'])"))
    assert (site / "dmq_core").is_dir()
    assert not (site / "demos").exists()
    assert not (site / "cluster").exists()


def test_the_installed_core_finds_its_own_cluster_folder(installed: Installed) -> None:
    found = installed.python("from dmq_core.resources import cluster_folder as f; print(f())")
    assert found.endswith("dmq_core/bundled/cluster")
    assert str(ROOT) not in found
    for name in ("rabbitmq.conf", "enabled_plugins", "image/Dockerfile", "compose.yaml"):
        assert (Path(found) / name).is_file(), name


@pytest.mark.parametrize("program", ["dmq", "dmq-tui"])
def test_both_programs_explain_themselves(installed: Installed, program: str) -> None:
    done = installed.run(program, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {program} ")


@pytest.mark.real
@pytest.mark.docker
def test_the_installed_wheel_starts_and_destroys_a_cluster(installed: Installed) -> None:
    cluster = f"wheel-{uuid.uuid4().hex[:6]}"
    choice = ("--cluster", cluster, "--json")
    try:
        started = installed.run("dmq", "start", "--nodes", "1", "--backend", "docker", *choice, timeout_s=600)
        assert started.returncode == 0, started.stderr
        (node,) = json.loads(started.stdout)["nodes"]
        assert node["state"] == "running"
        assert json.loads(installed.run("dmq", "status", *choice).stdout)["cluster"] == cluster
    finally:
        destroyed = installed.run("dmq", "destroy", "--yes", *choice, timeout_s=120)
    assert destroyed.returncode == 0, destroyed.stderr
    assert installed.run("dmq", "status", *choice).returncode == 3


def _belongs(name: str) -> bool:
    return (ROOT / name).is_file() and not name.endswith(".svg")


def _place_in_wheel(name: str) -> str:
    return name if name.startswith("dmq_") else f"dmq_core/bundled/{name}"
