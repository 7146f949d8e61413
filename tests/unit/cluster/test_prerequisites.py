"""What a machine has to run clusters with, and how what is missing is got."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dmq_core.cluster.local.installation import find_installation, matches_version
from dmq_core.cluster.prerequisites import AptAccess, DockerState, Package, Prerequisites, inspect, install
from dmq_core.errors import BackendUnavailableError
from dmq_core.progress import Progress
from dmq_core.resources import cluster_folder
from dmq_core.versions import Version

NOTHING = Prerequisites(DockerState.ABSENT, "", None, False, False, AptAccess.BY_HAND, False)
SCRIPT = cluster_folder() / "install_packages.sh"


def test_either_backend_is_enough_to_start() -> None:
    assert not NOTHING.can_start
    assert replace(NOTHING, docker=DockerState.ANSWERS).can_start
    assert replace(NOTHING, rabbitmq=Version(3, 10, 8)).can_start
    assert not replace(NOTHING, docker=DockerState.NOT_PERMITTED).can_start


@pytest.mark.parametrize(
    ("docker", "access", "told"),
    [
        (DockerState.ABSENT, AptAccess.BY_HAND, ["https://docs.docker.com", "sudo apt-get install rabbitmq-server"]),
        (DockerState.NOT_PERMITTED, AptAccess.BY_HAND, ["usermod -aG docker", "sudo apt-get install rabbitmq-server"]),
        (DockerState.NOT_RUNNING, AptAccess.ROOT, ["systemctl start docker", "dmq start --install"]),
        (DockerState.ABSENT, AptAccess.SUDO, ["https://docs.docker.com", "dmq start --install"]),
        (DockerState.ABSENT, AptAccess.NO_APT, ["https://docs.docker.com", "package manager"]),
    ],
)
def test_the_advice_says_exactly_what_to_do_by_hand(docker: DockerState, access: AptAccess, told: list[str]) -> None:
    advice = replace(NOTHING, docker=docker, apt=access).advice
    assert len(advice) == len(told)
    assert all(words in line for words, line in zip(told, advice, strict=True))


def test_a_machine_that_can_start_needs_neither_advice_nor_packages() -> None:
    ready = replace(NOTHING, docker=DockerState.ANSWERS)
    assert ready.advice == ()
    assert ready.missing == ()
    assert NOTHING.missing == (Package.RABBITMQ_SERVER,)


def test_looking_at_this_machine_asks_docker_once_and_finds_this_user() -> None:
    asked: list[str] = []

    def docker() -> tuple[DockerState, str]:
        asked.append("docker")
        return DockerState.NOT_RUNNING, "nothing listens"

    found = inspect(docker)
    assert asked == ["docker"]
    assert found.docker is DockerState.NOT_RUNNING
    assert (found.rabbitmq is not None) == (find_installation() is not None)
    assert any("nothing listens" in line for line in found.findings)


def test_an_engine_that_nobody_can_reach_is_told_apart_from_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("dmq_core.cluster.prerequisites.search_path", lambda: str(tmp_path))
    assert inspect().docker is DockerState.ABSENT
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    assert inspect().docker is DockerState.NOT_RUNNING


class FakeApt:
    """Runs nothing: says `lines` and ends with `status`."""

    def __init__(self, lines: Sequence[str] = (), status: int = 0) -> None:
        self.lines, self.status = lines, status
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str], on_line: Callable[[str], None], limit_s: float) -> int:
        assert limit_s > 0
        self.commands.append(list(command))
        for line in self.lines:
            on_line(line + "\n")
        return self.status


def test_root_runs_the_script_and_others_go_through_sudo_without_a_password() -> None:
    for access, prefix in ((AptAccess.ROOT, []), (AptAccess.SUDO, ["sudo", "-n"])):
        apt = FakeApt()
        install([Package.RABBITMQ_SERVER, Package.DEBOOTSTRAP], access=access, run=apt)
        assert apt.commands == [[*prefix, "sh", str(SCRIPT), "rabbitmq-server", "debootstrap"]]


def test_nothing_missing_runs_nothing() -> None:
    apt = FakeApt()
    install([], access=AptAccess.ROOT, run=apt)
    assert apt.commands == []


@pytest.mark.parametrize("access", [AptAccess.BY_HAND, AptAccess.NO_APT])
def test_whoever_may_not_install_is_told_what_to_type(access: AptAccess) -> None:
    apt = FakeApt()
    with pytest.raises(BackendUnavailableError) as caught:
        install([Package.RABBITMQ_SERVER], access=access, run=apt)
    assert "rabbitmq-server" in caught.value.hint
    assert apt.commands == []


def test_apts_progress_is_passed_on_as_fractions() -> None:
    heard: list[Progress] = []
    lines = [
        "Reading package lists...",
        "dlstatus:1:12.5:Retrieving file 1 of 3",
        "pmstatus:erlang-base:50.0:Unpacking",
    ]
    install([Package.RABBITMQ_SERVER], heard.append, access=AptAccess.ROOT, run=FakeApt(lines))
    assert [p.fraction for p in heard] == [None, 0.125, 0.5]
    assert heard[-1].text == "installing rabbitmq-server: Unpacking"


def test_a_failure_gives_apts_own_reason_and_the_command_to_try_by_hand() -> None:
    apt = FakeApt(["E: Unable to locate package rabbitmq-server"], 100)
    with pytest.raises(BackendUnavailableError, match="Unable to locate package") as caught:
        install([Package.RABBITMQ_SERVER], access=AptAccess.SUDO, run=apt)
    assert "sudo apt-get install rabbitmq-server" in caught.value.hint


def test_a_failure_without_a_reason_gives_the_status() -> None:
    with pytest.raises(BackendUnavailableError, match="status 7"):
        install([Package.RABBITMQ_SERVER], access=AptAccess.ROOT, run=FakeApt(status=7))


class Debian:
    """A make-believe Debian in a folder, on which the install script runs with fakes of apt and dpkg."""

    def __init__(self, root: Path, apt: str) -> None:
        self.policy = root / "policy-rc.d"
        self.log = root / "log"
        self._bin = root / "bin"
        self._bin.mkdir()
        self._script = root / "install_packages.sh"
        text = SCRIPT.read_text().replace("/usr/sbin/policy-rc.d", str(self.policy))
        self._script.write_text(text.replace("/run/dmq-install.lock", str(root / "lock")))
        self.tool("id", "echo 0")
        self.tool("dpkg-query", f'grep -qx "$4" {root}/installed 2>/dev/null && echo installed')
        self.tool("systemctl", f'echo "systemctl $*" >>{self.log}')
        self.tool("apt-get", f'echo "apt-get" >>{self.log}\n{apt}')
        self.root = root

    def tool(self, name: str, body: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\nPOLICY={self.policy}\nLOG={self.log}\n{body}\n")
        path.chmod(0o755)

    def run(self) -> int:
        path = f"{self._bin}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", str(self._script), "rabbitmq-server"],
            env={"PATH": path},
            capture_output=True,
            timeout=30,
            check=False,
        ).returncode

    def may_start(self, service: str) -> bool:
        if not self.policy.exists():
            return True
        return subprocess.run([str(self.policy), service, "start"], timeout=10, check=False).returncode == 0

    @property
    def said(self) -> list[str]:
        return self.log.read_text().split("\n")[:-1]


ASK_POLICY = """
for service in rabbitmq-server rabbitmq-server.service epmd.socket nginx; do
    "$POLICY" $service start && echo "$service starts" >>$LOG || echo "$service does not start" >>$LOG
done
"""


def test_while_packages_are_installed_only_their_own_services_are_kept_from_starting(tmp_path: Path) -> None:
    debian = Debian(tmp_path, ASK_POLICY)
    assert debian.run() == 0
    assert debian.said == [
        "apt-get",
        "rabbitmq-server does not start",
        "rabbitmq-server.service does not start",
        "epmd.socket does not start",
        "nginx starts",
        "systemctl disable rabbitmq-server.service",
        "systemctl disable epmd.service",
        "systemctl disable epmd.socket",
    ]
    assert not debian.policy.exists()


def test_a_policy_that_was_there_is_obeyed_meanwhile_and_put_back(tmp_path: Path) -> None:
    debian = Debian(tmp_path, ASK_POLICY)
    debian.policy.write_text("#!/bin/sh\nexit 101\n")
    debian.policy.chmod(0o755)
    assert debian.run() == 0
    assert "nginx does not start" in debian.said
    assert debian.policy.read_text() == "#!/bin/sh\nexit 101\n"
    assert stat.S_IMODE(debian.policy.stat().st_mode) == 0o755


def test_services_of_packages_that_are_installed_already_are_left_alone(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "true")
    (tmp_path / "installed").write_text("rabbitmq-server\nerlang-base\n")
    assert debian.run() == 0
    assert debian.said == ["apt-get"]


def test_the_policy_is_put_back_when_apt_fails_and_lists_are_updated_once(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "exit 100")
    debian.policy.write_text("#!/bin/sh\nexit 0\n")
    assert debian.run() == 100
    assert debian.policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert debian.said == ["apt-get", "apt-get"]


def test_a_run_that_was_killed_denies_nothing_afterwards_and_the_next_run_tidies_up(tmp_path: Path) -> None:
    debian = Debian(tmp_path, "kill -9 $PPID")
    debian.policy.write_text("#!/bin/sh\n# mine\nexit 0\n")
    debian.policy.chmod(0o755)
    assert debian.run() != 0
    assert "dmq" in debian.policy.read_text()
    assert debian.may_start("rabbitmq-server")
    debian.tool("apt-get", "true")
    assert debian.run() == 0
    assert debian.policy.read_text() == "#!/bin/sh\n# mine\nexit 0\n"


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_distributions_wrapper_on_the_path_leads_to_the_newest_of_rabbitmqs_own_scripts(tmp_path: Path) -> None:
    for name in ("rabbitmq-server", "erl", "epmd"):
        executable(tmp_path / "bin" / name)
    for version in ("3.9.9", "3.10.8"):
        executable(tmp_path / "lib" / f"rabbitmq_server-{version}" / "sbin" / "rabbitmq-server")
    found = find_installation(str(tmp_path / "bin"), [tmp_path / "lib"])
    assert found is not None
    assert found.version == Version(3, 10, 8)
    assert found.server == tmp_path / "lib" / "rabbitmq_server-3.10.8" / "sbin" / "rabbitmq-server"


def test_an_unpacked_release_on_the_path_is_taken_as_it_is(tmp_path: Path) -> None:
    server = executable(tmp_path / "rabbitmq_server-4.2.1" / "sbin" / "rabbitmq-server")
    executable(tmp_path / "otp" / "bin" / "erl")
    epmd = executable(tmp_path / "otp" / "erts-15.0" / "bin" / "epmd")
    found = find_installation(f"{server.parent}:{tmp_path / 'otp' / 'bin'}", [])
    assert found is not None
    assert (found.version, found.server, found.epmd) == (Version(4, 2, 1), server, epmd)


def test_rabbitmq_without_erlang_or_without_its_own_scripts_is_not_installed(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "rabbitmq-server")
    assert find_installation(str(tmp_path / "bin"), [tmp_path / "lib"]) is None
    executable(tmp_path / "bin" / "erl")
    executable(tmp_path / "bin" / "epmd")
    assert find_installation(str(tmp_path / "bin"), [tmp_path / "lib"]) is None


@pytest.mark.parametrize(
    ("asked", "matches"),
    [("3.10.8", True), ("3.10", True), ("3", True), ("3.1", False), ("3.10.9", False), ("4", False)],
)
def test_a_version_may_be_asked_for_with_an_open_end(asked: str, matches: bool) -> None:
    assert matches_version(Version(3, 10, 8), asked) is matches
