"""What the README shows works: its commands run in order, its file is read, its keys are keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from dmq_core.cluster.protocol import Cluster
from dmq_core.settings.settings import Flags, load_settings
from dmq_tui.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SHELL_BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# Run by other means: make by `make -n` below and by whoever runs this suite, the wheel's installation by tests/wheel.
RUN_ELSEWHERE = ("make ", "pipx ")


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.strip()]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    others = {n: v for n, v in os.environ.items() if not n.startswith("DMQ_") or n == "DMQ_STATE_DIR"}
    return {
        **others,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(tmp_path),
    }


def bash(script: str, environment: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        check=False,
    )


def run_all(lines: Iterable[str], environment: dict[str, str]) -> None:
    for command in lines:
        done = bash(command, environment, 300)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.real
@pytest.mark.docker
@pytest.mark.xdist_group("readme")
@pytest.mark.timeout(900)
def test_the_commands_of_the_readme_run_in_order(image: None, environment: dict[str, str]) -> None:
    """On clusters of names of their own, so that nobody's `dmq` or `shop` is touched.

    What concerns the cluster `shop` runs beside the rest, and a load beside the block that follows it, as README says.
    """
    own, other = (f"readme-{uuid.uuid4().hex[:6]}" for _ in range(2))
    environment = {**environment, "DMQ_CLUSTER": own}
    blocks = [[c for c in commands(block) if not c.startswith(RUN_ELSEWHERE)] for block in SHELL_BLOCKS]
    of_shop = [command.replace("shop", other) for block in blocks for command in block if "shop" in command]
    assert of_shop
    try:
        with ThreadPoolExecutor() as terminals:
            shop = terminals.submit(run_all, of_shop, environment)
            load: Future[None] | None = None
            for block in blocks:
                if any(command.startswith("dmq load ") for command in block):
                    load = terminals.submit(run_all, block, environment)
                    continue
                run_all([command for command in block if "shop" not in command], environment)
                if load is not None:
                    load.result()
            shop.result()
    finally:
        for name in (own, other):
            bash(f"dmq destroy --yes --cluster {name} || test $? = 3", environment, 120)


@pytest.mark.real
@pytest.mark.docker
def test_the_library_snippet_of_the_readme_runs_as_it_stands(
    docker_cluster: Cluster, environment: dict[str, str]
) -> None:
    """Its ports alone are those of a cluster of the tests."""
    snippet = next(block for block in PYTHON_BLOCKS if "register_broker" in block)
    for usual, node in zip((5672, 5673, 5674), docker_cluster.nodes(), strict=True):
        snippet = snippet.replace(f"{usual})", f"{node.endpoint.amqp_port})")
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["confirmed", "Hello World! greetings"]
    assert done.stderr == ""


def test_the_make_targets_of_the_readme_are_targets(environment: dict[str, str]) -> None:
    made = [line for block in SHELL_BLOCKS for line in commands(block) if line.startswith("make ")]
    assert "make run" in made
    assert "make test" in made
    for command in made:
        done = bash(command.replace("make ", "make -n "), environment, 30)
        assert done.returncode == 0, done.stderr


def test_every_dmq_command_that_the_readme_names_exists(environment: dict[str, str]) -> None:
    named = set(re.findall(r"`dmq ([a-z]+(?: list| show| kill| logs)?)", README))
    assert {"start", "status --json"} & named or "start" in named
    for words in sorted(named):
        done = bash(f"dmq {words} --help", environment, 30)
        assert done.returncode == 0, f"dmq {words}: {done.stderr}"


def test_the_completion_of_the_readme_completes(environment: dict[str, str]) -> None:
    (line,) = [line for block in SHELL_BLOCKS for line in commands(block) if "_COMPLETE" in line]
    done = bash(f"{line}\ncomplete -p dmq", environment, 30)
    assert done.returncode == 0, done.stderr
    assert "_dmq_completion dmq" in done.stdout


def test_the_configuration_of_the_readme_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "dmq").mkdir()
    (tmp_path / "dmq" / "config.toml").write_text(text)
    settings = load_settings(Flags(profile="staging"), {"XDG_CONFIG_HOME": str(tmp_path)})
    assert settings.urls.value == ("https://mq1.example.org:15671", "https://mq2.example.org:15671")
    assert settings.read_only.value is True
    assert settings.user.value == "watcher"


def test_the_keys_of_the_readme_are_keys_of_the_console() -> None:
    rows = re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
    known = {key for command in COMMANDS for key in (*command.keys, command.key)}
    named = {key for row in rows for key in re.findall(r"`([^` ]+)`", row) if len(key) == 1 or key == "enter"}
    assert len(named) > 15
    assert named - known == set()


def test_the_picture_of_the_readme_is_there() -> None:
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).is_file()


def test_every_room_of_the_map_is_there() -> None:
    rooms = re.findall(r"^\| `((?:dmq_|demos|cluster|tests)[^`]*)` \|", README, re.MULTILINE)
    assert len(rooms) > 8
    assert all((ROOT / room).exists() for room in rooms)
