"""The `dmq` command as people and scripts run it, on real nodes of each backend."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import channel, mostly_on_docker, publish

from dmq_core.cluster.protocol import Cluster, NodeState

PASSWORD = "not-the-password"


class Dmq:
    """Runs `dmq` on one cluster, without a terminal."""

    def __init__(self, cluster: str, home: Path) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DMQ_")},
            "DMQ_STATE_DIR": os.environ["DMQ_STATE_DIR"],
            "DMQ_CLUSTER": cluster,
            "XDG_CONFIG_HOME": str(home),
        }

    def __call__(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", "from dmq_core.cli import main; main()", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=240,
            check=False,
        )
        assert done.returncode == status, f"dmq {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def queue(self, name: str) -> dict[str, Any]:
        return next(q for q in self.json("queue", "list") if q["name"] == name)

    def ready(self, name: str) -> int | None:
        return next((q["ready"] for q in self.json("queue", "list") if q["name"] == name), None)

    def until(self, holds: Callable[[], bool], limit_s: float = 30.0) -> None:
        deadline = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.2)


@pytest.fixture
def dmq(real_cluster: Cluster, tmp_path: Path) -> Dmq:
    return Dmq(real_cluster.name, tmp_path)


@pytest.fixture
def orders(real_cluster: Cluster, dmq: Dmq) -> Iterator[str]:
    """A quorum queue of the test's own with a hundred confirmed persistent messages."""
    queue = f"commands.{secrets.token_hex(3)}"
    endpoint = real_cluster.nodes()[0].endpoint
    publish(endpoint, queue, [f"message {i}" for i in range(100)])
    dmq.until(lambda: dmq.ready(queue) == 100)
    yield queue
    with channel(endpoint) as ch:
        ch.queue_delete(queue)


def test_status_tells_figures_of_every_node_and_their_age(dmq: Dmq) -> None:
    dmq.until(lambda: all(node["memory_bytes"] for node in dmq.json("status")["nodes"]))
    document = dmq.json("status")
    assert [node["state"] for node in document["nodes"]] == ["running"] * 3
    assert all(node["memory_bytes"] > 10_000_000 for node in document["nodes"])
    assert all(node["amqp"].startswith("amqp://127.0.0.1:") for node in document["nodes"])
    assert document["rabbitmq"].count(".") == 2
    assert 0 <= document["age_s"] < 5


def test_a_killed_node_loses_its_leaders_and_comes_back_and_no_message_is_lost(dmq: Dmq, orders: str) -> None:
    leader = dmq.queue(orders)["leader"]
    assert dmq.json("node", "kill", leader)["state"] == "stopped"
    states = {node["name"]: node["state"] for node in dmq.json("status")["nodes"]}
    assert states.pop(leader) == "stopped"
    assert set(states.values()) == {"running"}
    dmq.until(lambda: dmq.queue(orders)["leader"] not in (leader, None))
    assert "node_down" in dmq("doctor", "--json", status=1).stdout
    assert dmq.json("publish", "--key", orders, "--count", "50", "more")["confirmed"] == 50
    assert dmq.json("node", "start", leader)["state"] == "running"
    taken = dmq("consume", orders, "--limit", "150", "--for", "20", "--json").stdout.splitlines()
    assert len(taken) == 150
    assert json.loads(taken[0])["queue"] == orders


@mostly_on_docker
def test_every_fate_of_a_publish_is_told(dmq: Dmq, orders: str) -> None:
    confirmed = dmq.json("publish", "--key", orders, "--header", "n=1", "--property", "type=t", "--count", "3", "body")
    assert (confirmed["published"], confirmed["confirmed"]) == (3, 3)
    returned = json.loads(dmq("publish", "--key", "no such queue", "x", "--json", status=1).stdout)
    assert (returned["published"], returned["returned"], returned["confirmed"]) == (1, 1, 0)
    refused = json.loads(dmq("publish", "--exchange", "no such exchange", "x", "--json", status=1).stdout)
    assert refused["confirmed"] == 0
    assert sum(refused[fate] for fate in ("nacked", "returned", "unknown", "not_sent")) == 1


@mostly_on_docker
def test_a_queue_is_declared_once_and_deleted_only_when_confirmed(dmq: Dmq) -> None:
    queue = f"commands {secrets.token_hex(3)}/%\x1b"
    for _ in range(2):
        assert dmq.json("queue", "declare", queue, "--argument", "x-max-length=5")["state"] == "declared"
    assert "inequivalent" in dmq("queue", "declare", queue, "--type", "classic", status=1).stderr
    assert dmq.json("publish", "--key", queue, "kept")["confirmed"] == 1
    dmq.until(lambda: dmq.ready(queue) == 1)
    refused = dmq("queue", "delete", queue, status=6)
    assert "its 1 ready messages" in refused.stderr
    assert "\x1b" not in refused.stderr
    assert dmq.json("queue", "delete", queue, "--yes")["state"] == "deleted"
    dmq.until(lambda: dmq.ready(queue) is None)
    dmq("queue", "delete", queue, "--yes", status=1)


@mostly_on_docker
def test_a_tail_copies_what_passes_and_takes_nothing(dmq: Dmq, orders: str) -> None:
    command = [sys.executable, "-c", "from dmq_core.cli import main; main()"]
    with subprocess.Popen(
        [*command, "tail", "--exchange", "amq.topic", "--key", "eu.#", "--limit", "2", "--for", "60", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dmq.environment,
    ) as tail:
        assert tail.stderr is not None
        assert any(line.startswith("tail by ") for line in iter(tail.stderr.readline, ""))
        for key in ("eu.new", "us.new", "eu.paid"):
            dmq(
                "publish", "--exchange", "amq.topic", "--key", key, f"to {key}", status=0 if key.startswith("eu") else 1
            )
        out, _ = tail.communicate(timeout=60)
    assert tail.returncode == 0
    assert [json.loads(line)["body"] for line in out.splitlines()] == ["to eu.new", "to eu.paid"]
    assert dmq.ready(orders) == 100


@mostly_on_docker
def test_what_a_reader_did_not_wait_for_goes_back_to_the_queue(dmq: Dmq, orders: str) -> None:
    dmq("consume", orders, "--limit", "10")
    dmq.until(lambda: dmq.ready(orders) == 90)
    assert dmq.queue(orders)["unacked"] == 0


@mostly_on_docker
def test_somebody_elses_cluster_is_seen_and_never_broken(dmq: Dmq, real_cluster: Cluster, orders: str) -> None:
    urls = [
        argument
        for node in real_cluster.nodes()
        for argument in ("--url", f"http://guest:guest@127.0.0.1:{node.endpoint.management_port}")
    ]
    document = dmq.json("status", *urls)
    assert document["backend"] == "attached"
    assert len(document["nodes"]) == 3
    assert "guest" not in json.dumps(document)
    assert any(q["name"] == orders for q in dmq.json("queue", "list", *urls))
    name = document["nodes"][0]["name"]
    for act in (("node", "kill", name), ("stop",), ("destroy", "--yes")):
        assert "dmq did not make" in dmq(*act, *urls, status=6).stderr
    assert all(node.state is NodeState.RUNNING for node in real_cluster.nodes())


@mostly_on_docker
def test_a_wrong_password_or_port_is_told_and_never_shown(dmq: Dmq, real_cluster: Cluster) -> None:
    port = real_cluster.nodes()[0].endpoint.management_port
    wrong = dmq("status", "--url", f"http://guest:{PASSWORD}@127.0.0.1:{port}", status=3)
    assert PASSWORD not in wrong.stdout + wrong.stderr
    assert len(wrong.stderr.splitlines()) == 2
    closed = dmq("status", "--url", f"http://guest:{PASSWORD}@127.0.0.1:1", status=3)
    assert PASSWORD not in closed.stdout + closed.stderr
    assert len(closed.stderr.splitlines()) == 2


@pytest.mark.thorough
def test_a_load_through_a_kill_loses_nothing(dmq: Dmq) -> None:
    command = [sys.executable, "-c", "from dmq_core.cli import main; main()"]
    with subprocess.Popen(
        [*command, "load", "--rate", "100", "--for", "15", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dmq.environment,
    ) as load:
        assert load.stderr is not None
        assert any("consumer on" in line for line in iter(load.stderr.readline, ""))
        victim = next(q["leader"] for q in dmq.json("queue", "list") if q["name"].startswith("dmq.load."))
        dmq("node", "kill", victim)
        out, err = load.communicate(timeout=90)
    account = json.loads(out)
    assert load.returncode == 0, err
    assert (account["lost"], account["verdict"]) == (0, "INCONCLUSIVE"), "the node that is down tells of no queue"
    assert account["delivered"] >= account["confirmed"] > 100
    dmq("node", "start", victim)


@mostly_on_docker
def test_the_benchmark_prints_both_rates_and_their_ratio_and_leaves_no_queue(dmq: Dmq) -> None:
    result = dmq.json("bench", "--messages", "2000", "--rounds", "1")
    for what in ("publish_confirmed", "consume_acked"):
        pair = result[what]
        assert pair["ratio"] == pytest.approx(pair["dmq"] / pair["pika_blocking"], rel=0.01)
        assert pair["ratio"] > 1, "waiting for each confirm is slower than not waiting"
    assert not [q for q in dmq.json("queue", "list") if q["name"].startswith("dmq.bench")]
    assert "read-only" in dmq("bench", "--read-only", status=6).stderr
