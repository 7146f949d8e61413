"""The `dmq` command on a simulated cluster: options, exit statuses, documents, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from dmq_core.actions.action import Action
from dmq_core.actions.impact import impact_of
from dmq_core.actions.wording import text_of
from dmq_core.cli import connect
from dmq_core.cli.app import dmq
from dmq_core.cli.groups import LazyGroup
from dmq_core.cli.running import run, signals_ignored
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeState
from dmq_core.errors import ClusterNotFoundError
from dmq_core.majority import Margin
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.settings.settings import Settings
from dmq_core.testing import FakeSession, hostile


class Shell:
    """Runs `dmq` in this process, without a terminal, on a simulated cluster."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.session = FakeSession()
        self.settings: list[Settings] = []
        self.out = ""
        self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capsys.readouterr()
        status = run(dmq, "dmq", arguments)
        self.out, self.err = self._capsys.readouterr()
        return status

    def json(self, *arguments: str) -> Any:
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)

    def open_for_start(self, settings: Settings, **_choices: object) -> Cluster:
        self.settings.append(settings)
        return self.session.cluster

    def find_cluster(self, settings: Settings) -> Cluster:
        self.settings.append(settings)
        if not self.session.cluster.exists():
            raise ClusterNotFoundError("there is no cluster called dmq here", "'dmq start' makes it.")
        return self.session.cluster

    def take_snapshot(self, _cluster: Cluster) -> ClusterSnapshot:
        return self.session.snapshot()

    @contextmanager
    def open_session(self, settings: Settings) -> Iterator[FakeSession]:
        self.settings.append(settings)
        yield self.session


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    shell = Shell(capsys)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("DMQ_CLUSTER", "DMQ_URL", "DMQ_PROFILE", "DMQ_READ_ONLY", "DMQ_PASSWORD", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connect, "find_cluster", shell.find_cluster)
    monkeypatch.setattr(connect, "open_for_start", shell.open_for_start)
    monkeypatch.setattr(connect, "take_snapshot", shell.take_snapshot)
    monkeypatch.setattr(connect, "open_session", shell.open_session)
    return shell


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


LEAVES = [(path, command) for path, command in commands(dmq) if not isinstance(command, click.Group)]


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--cluster", "shop"),
        ("--cluster", "shop", "status"),
        ("--cluster=shop", "status"),
        ("--cluster", "other", "status", "--cluster", "shop"),
        ("--json", "--cluster", "shop", "status"),
    ],
)
def test_options_stand_before_or_after_the_command_and_the_last_one_wins(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    assert shell(*arguments) == 0
    assert shell.settings[-1].cluster.value == "shop"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "node", "logs", "rmq1", "--lines", "3"),
        ("node", "--json", "--lines", "3", "logs", "rmq1"),
        ("--lines", "3", "node", "logs", "rmq1", "--json"),
        ("--lines=3", "--cluster", "node", "node", "logs", "rmq1", "--json"),
    ],
)
def test_a_commands_own_options_may_stand_before_its_name_too(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert shell(*arguments) == 0
    assert len(json.loads(shell.out)["lines"]) == 3


def test_an_option_that_the_command_lacks_is_a_usage_error(shell: Shell) -> None:
    assert shell("--lines", "3", "status") == 2
    assert shell.err.startswith("dmq: No such option")
    assert shell.err.endswith("\nSee 'dmq status --help'.\n")


@pytest.mark.parametrize("arguments", [("--json",), ("frobnicate",), ("node", "frobnicate"), ("node", "kill"), ("-x",)])
def test_a_call_that_makes_no_sense_is_two_lines_and_status_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert shell(*arguments) == 2
    assert len(shell.err.splitlines()) == 2
    assert shell.out == ""


def test_every_command_takes_the_shared_options() -> None:
    for path, command in LEAVES:
        options = {name for parameter in command.params for name in parameter.opts}
        assert {"--cluster", "--url", "--profile", "--read-only", "--json"} <= options, path


def test_no_option_takes_a_value_in_one_command_and_none_in_another() -> None:
    """Options that stand before a command's name are told from their values by what all commands say of them."""
    takes_value: dict[str, bool] = {}
    for path, command in LEAVES:
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for name in (*parameter.opts, *parameter.secondary_opts):
                    assert takes_value.setdefault(name, not parameter.is_flag) is not parameter.is_flag, (path, name)


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    assert isinstance(dmq, LazyGroup)
    for name, entry in dmq.entries.items():
        command = dmq.get_command(click.Context(dmq), name)
        assert command is not None
        assert command.help is not None
        assert entry.help == command.help.splitlines()[0], name


def test_every_command_explains_itself(shell: Shell) -> None:
    for path, _ in commands(dmq):
        assert shell(*path, "--help") == 0
        assert shell.out.startswith(f"Usage: dmq {' '.join(path)} ")


# -- seeing -----------------------------------------------------------------------------------------------------------


def test_status_has_the_fields_of_the_contract(shell: Shell) -> None:
    document = shell.json("status")
    assert list(document) == [
        "cluster", "backend", "rabbitmq", "nodes", "partitions", "totals", "taken_at", "age_s",
    ]  # fmt: skip
    assert [node["name"] for node in document["nodes"]] == ["rmq1", "rmq2", "rmq3"]
    assert list(document["nodes"][0]) == [
        "name", "state", "amqp", "management", "version", "leaders", "connections", "memory_bytes", "alarms",
    ]  # fmt: skip
    assert document["nodes"][0]["amqp"] == "amqp://127.0.0.1:5672"
    assert list(document["totals"]) == ["queues", "ready", "unacked", "publish_rate", "deliver_rate"]


def test_queue_list_has_the_fields_of_the_contract(shell: Shell) -> None:
    queues = shell.json("queue", "list")
    assert queues
    assert list(queues[0]) == [
        "vhost", "name", "type", "state", "leader", "members", "online", "ready", "unacked", "consumers",
        "publish_rate", "deliver_rate", "redeliver_rate", "age_s",
    ]  # fmt: skip


def test_status_tells_the_states_of_nodes_while_no_api_answers(shell: Shell) -> None:
    shell.session.broker.management_problem = "refused"
    shell.session.cluster.stop()
    document = shell.json("status")
    assert {node["state"] for node in document["nodes"]} == {"stopped"}
    assert document["age_s"] is None
    assert document["nodes"][0]["memory_bytes"] is None
    assert shell("status") == 0
    assert "0/3 nodes" in shell.out
    assert "–" in shell.out


def test_lists_need_an_api_that_answers(shell: Shell) -> None:
    shell.session.broker.management_problem = "refused"
    for noun in ("queue", "exchange", "connection"):
        assert shell(noun, "list") == 3
        assert shell.out == ""
        assert "no management API of dmq answers" in shell.err


def test_a_cluster_that_is_not_there_is_status_3_and_says_how_to_make_it(shell: Shell) -> None:
    shell.session = FakeSession(started=False)
    assert shell("status") == 3
    assert shell.err == "dmq: there is no cluster called dmq here\n'dmq start' makes it.\n"


def test_names_from_outside_reach_the_terminal_escaped(shell: Shell) -> None:
    shell.session = FakeSession(hostile)
    for arguments in (("queue", "list"), ("exchange", "list"), ("connection", "list"), ("status",), ("doctor",)):
        shell(*arguments)
        assert "\x1b" not in shell.out + shell.err, arguments
    assert shell("node", "logs", "rmq1") == 0
    assert "\x1b" not in shell.out
    assert "\\x1b[31mred?" in shell.out


def test_queue_show_tells_one_queue(shell: Shell) -> None:
    name = shell.json("queue", "list")[0]["name"]
    document = shell.json("queue", "show", name)
    assert document["name"] == name
    assert {"arguments", "bindings", "policy", "durable"} <= set(document)
    assert shell("queue", "show", "nothing-of-that-name") == 1
    assert "there is no queue" in shell.err


# -- doing ------------------------------------------------------------------------------------------------------------


def test_start_stop_and_destroy_tell_what_they_did(shell: Shell) -> None:
    shell.session = FakeSession(started=False)
    assert {node["state"] for node in shell.json("start")["nodes"]} == {"running"}
    assert shell.json("stop") == {"cluster": "dmq", "state": "stopped"}
    assert shell.json("destroy", "--yes") == {"cluster": "dmq", "state": "destroyed"}
    assert shell("destroy", "--yes") == 3


def test_destroy_needs_yes_where_nobody_can_be_asked(shell: Shell) -> None:
    assert shell("destroy") == 6
    assert shell.session.cluster.exists()
    assert "--yes" in shell.err
    assert "deleted for good" in shell.err


def test_an_act_that_leaves_a_majority_needs_no_yes(shell: Shell) -> None:
    document = shell.json("node", "kill", "rmq2")
    assert (document["node"], document["action"], document["state"]) == ("rmq2", "kill", "stopped")


@pytest.mark.parametrize(
    ("fault", "state", "undo"), [("isolate", "isolated", "rejoin"), ("drain", "draining", "revive")]
)
def test_a_node_is_cut_off_or_drained_and_brought_back(shell: Shell, fault: str, state: str, undo: str) -> None:
    assert shell.json("node", fault, "rmq2")["state"] == state
    assert shell("node", "kill", "rmq3") == 6
    assert "no majority" in shell.err
    assert shell.json("node", undo, "rmq2")["state"] == "running"


def test_a_node_is_added_and_its_removal_needs_yes(shell: Shell) -> None:
    added = shell.json("node", "add")
    assert (added["node"], added["action"], added["state"]) == ("rmq4", "add", "running")
    assert added["nodes"] == ["rmq1", "rmq2", "rmq3", "rmq4"]
    assert shell("node", "remove", "rmq4") == 6
    assert "queue members" in shell.err
    assert "3 of 3 nodes remain" in shell.err
    removed = shell.json("node", "remove", "rmq4", "--yes")
    assert (removed["node"], removed["action"]) == ("rmq4", "remove")
    assert removed["nodes"] == ["rmq1", "rmq2", "rmq3"]
    assert shell("node", "remove", "rmq9", "--yes") == 2


def test_a_node_with_a_classic_queue_is_removed_by_force_only(shell: Shell) -> None:
    assert shell("node", "remove", "rmq2", "--yes") == 6
    assert "classic queue 'small'" in shell.err
    assert shell("node", "remove", "rmq2", "--force") == 6
    assert "are deleted" in shell.err
    assert shell("node", "remove", "rmq2", "--force", "--yes") == 0


def test_an_alarm_needs_yes_and_says_how_to_undo_it(shell: Shell) -> None:
    assert shell("fault", "do", "memory-alarm", "--node", "rmq2") == 6
    assert "every publisher of the cluster is blocked" in shell.err
    done = shell.json("fault", "do", "memory-alarm", "--node", "rmq2", "--yes")
    assert (done["fault"], done["node"], done["queue"]) == ("memory-alarm", "rmq2", None)
    assert done["undo"] == "dmq fault do clear-memory-alarm --node rmq2"
    assert shell("fault", "undo", "memory-alarm", "--node", "rmq2") == 0
    assert "memory-alarm" in {f["fault"] for f in shell.json("fault", "list")}


def test_active_faults_are_listed_with_their_undo_and_are_findings_of_the_doctor(shell: Shell) -> None:
    assert shell("fault", "do", "cut-link", "--node", "rmq1", "--peer", "rmq3", "--yes") == 0
    assert "Undo it with 'dmq fault do mend-link --node rmq1 --peer rmq3'" in shell.err
    [active] = shell.json("fault", "active")
    assert (active["fault"], active["undo"]) == ("cut-link", "dmq fault do mend-link --node rmq1 --peer rmq3")
    assert shell("doctor") == 1
    assert "Cut link of rmq1 and rmq3: that fault is active" in shell.out
    assert "Undo it: 'dmq fault do mend-link --node rmq1 --peer rmq3'." in shell.out
    assert shell("fault", "undo", "cut-link", "--node", "rmq1", "--peer", "rmq3") == 0
    assert shell("fault", "active") == 0
    assert "no active faults" in shell.out


def test_the_command_line_and_the_console_judge_a_kill_alike_while_a_node_starts(shell: Shell) -> None:
    shell.session.broker.set_state("rmq1", NodeState.STARTING)
    kill = Action(NodeAction.KILL, "rmq2")
    in_console = impact_of(kill, shell.session.snapshot())
    assert in_console.margin is Margin.NO_MAJORITY
    assert shell("node", "kill", "rmq2") == 6
    assert text_of(in_console) in shell.err


def test_a_fault_that_is_given_too_little_or_cannot_be_undone_is_a_usage_error(shell: Shell) -> None:
    assert shell("fault", "do", "memory-alarm") == 2
    assert shell("fault", "do", "nonsense") == 2
    assert shell("fault", "undo", "rebalance") == 2
    assert shell("fault", "undo", "move-leader") == 2
    assert shell("fault", "do", "move-leader", "--node", "rmq1", "--queue", "orders") == 0


def test_an_act_that_costs_the_majority_needs_yes(shell: Shell) -> None:
    assert shell("node", "kill", "rmq2") == 0
    assert shell("node", "pause", "rmq3") == 6
    assert "no majority" in shell.err
    assert shell("node", "pause", "rmq3", "--yes") == 0
    assert shell("node", "unpause", "rmq3") == 0
    assert shell("node", "start", "rmq2") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("start",),
        ("stop",),
        ("destroy", "--yes"),
        ("node", "kill", "rmq2"),
        ("node", "restart", "rmq2"),
        ("node", "add"),
        ("node", "remove", "rmq3", "--yes"),
        ("fault", "do", "rebalance"),
        ("publish", "--key", "q", "x"),
        ("consume", "q"),
        ("queue", "declare", "q"),
        ("queue", "delete", "q", "--yes"),
        ("tail", "--firehose"),
        ("load", "--for", "1"),
    ],
)
def test_read_only_forbids_every_change(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell.session = FakeSession(read_only=True)
    assert shell("--read-only", *arguments) == 6
    assert "read-only" in shell.err
    assert all(node.state is NodeState.RUNNING for node in shell.session.cluster.nodes())


def test_a_node_that_is_not_there_is_named_with_those_that_are(shell: Shell) -> None:
    assert shell("node", "kill", "rmq9\x1b[31m") == 2
    assert "rmq9\\x1b[31m" in shell.err
    assert "rmq1, rmq2, rmq3" in shell.err


def test_a_load_accounts_for_its_messages(shell: Shell) -> None:
    shell.session = FakeSession(realtime=True)
    account = shell.json("load", "--rate", "100", "--for", "1")
    assert account["confirmed"] > 0
    assert (account["lost"], account["verdict"]) == (0, "PASS")


# -- ends -------------------------------------------------------------------------------------------------------------


def failing(error: BaseException) -> Callable[..., Cluster]:
    def fail(_settings: Settings) -> Cluster:
        raise error

    return fail


def test_an_error_is_one_line_of_what_and_one_of_what_to_do(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ClusterNotFoundError("two\nlines \x1b[31m", "do\tthis")
    monkeypatch.setattr(connect, "find_cluster", failing(error))
    assert shell("status") == 3
    assert shell.err == "dmq: two lines \\x1b[31m\ndo this\n"


def test_ctrl_c_is_status_130(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "find_cluster", failing(KeyboardInterrupt()))
    assert shell("status") == 130
    assert shell.err.strip() == "dmq: interrupted"


def test_a_fault_of_ours_is_no_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "find_cluster", failing(ZeroDivisionError("boom")))
    assert shell("status") == 1
    assert shell.err.splitlines()[0] == "dmq: unexpected ZeroDivisionError: boom"
    assert "Traceback" not in shell.err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    program = "from dmq_core.cli import main; main(['config', 'show', '--json'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_asks_for_the_end_lets_clean_up_run(name: str, status: int) -> None:
    program = (
        "import os, signal, time, click\n"
        "from dmq_core.cli.running import run\n"
        "@click.command()\n"
        "def wait():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), signal.{name}); time.sleep(20)\n"
        "    finally:\n"
        "        print('clean')\n"
        "raise SystemExit(run(wait, 'dmq', []))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status
    assert done.stdout == "clean\n"
    assert done.stderr == "dmq: terminated\n"


def test_under_nohup_a_terminal_that_goes_away_ends_nothing() -> None:
    program = (
        "import os, signal, click\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from dmq_core.cli.running import run\n"
        "@click.command()\n"
        "def wait():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('went on')\n"
        "raise SystemExit(run(wait, 'dmq', []))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_what_undoes_things_is_done_to_its_end_however_often_the_end_is_asked_for() -> None:
    done = []
    with signals_ignored():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
            done.append(number)
    assert len(done) == 3
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


# -- config -----------------------------------------------------------------------------------------------------------


def test_config_show_tells_each_value_and_where_it_came_from(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMQ_READ_ONLY", "1")
    settings = shell.json("config", "show", "--cluster", "shop")["settings"]
    assert settings["cluster"] == {"value": "shop", "source": "flag", "where": "--cluster"}
    assert settings["read_only"] == {"value": True, "source": "environment", "where": "DMQ_READ_ONLY"}
    assert settings["verify"] == {"value": True, "source": "default", "where": ""}


def test_config_show_never_shows_a_password(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMQ_PASSWORD", "hunter2")
    arguments = ("config", "show", "--url", "amqp://u:hunter2@a:5672", "--url", "http://u:hunt/er2@b:1")
    for form in ((), ("--json",)):
        assert shell(*arguments, *form) == 0
        assert "hunt" not in shell.out + shell.err
        assert "amqp://a:5672" in shell.out


def test_a_broken_file_is_told_by_every_command(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "dmq").mkdir()
    (tmp_path / "dmq" / "config.toml").write_text("\n\ncluster = [\n")
    assert shell("status") == 2
    assert "config.toml: line" in shell.err
    assert len(shell.err.splitlines()) == 2


def test_links_are_cut_slowed_told_of_and_mended_by_command(shell: Shell) -> None:
    assert shell("fault", "do", "cut-link", "--node", "rmq1", "--peer", "rmq2", "--yes") == 0
    assert "dmq fault do mend-link --node rmq1 --peer rmq2" in shell.err
    assert shell("fault", "do", "slow-link", "--node", "rmq3", "--peer", "rmq2", "--delay", "250", "--yes") == 0
    told = shell.json("fault", "active")
    assert [(f["fault"], f["node"], f["peer"], f["delay_ms"]) for f in told] == [
        ("cut-link", "rmq1", "rmq2", None),
        ("slow-link", "rmq2", "rmq3", 250),
    ]
    assert shell("fault", "active") == 0
    assert (
        "Slow link of rmq2 and rmq3 by 250 ms: undo with 'dmq fault do mend-link --node rmq2 --peer rmq3'" in shell.out
    )
    assert shell("fault", "undo", "cut-link", "--node", "rmq1", "--peer", "rmq2") == 0
    assert shell("fault", "undo", "slow-link", "--node", "rmq2") == 0
    assert shell("fault", "active") == 0
    assert shell.out == "no active faults\n"
    assert shell("fault", "do", "cut-link", "--node", "rmq1", "--yes") == 2
    assert "needs a peer" in shell.err
