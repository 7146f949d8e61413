"""How long `start` takes beside the same nodes started raw, in rounds that alternate: `python -m tests.perf.start_up`.

Raw is the least that starting can be: the nodes' own containers or processes, started at the same moment and asked
until each sees all. Ours may take 1.25 times as long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dmq_core.cluster.docker.cluster import DockerCluster
from dmq_core.cluster.docker.engine import connect
from dmq_core.cluster.local import node as local_node
from dmq_core.cluster.local import processes
from dmq_core.cluster.local.cluster import LocalCluster
from dmq_core.cluster.local.installation import find_installation
from dmq_core.cluster.local.state import read_state
from dmq_core.cluster.protocol import Backend, Cluster, NodeInfo
from dmq_core.cluster.readiness import running_nodes
from dmq_core.endpoints import Credentials

ALLOWED = 1.25
LIMIT_S = 180.0


def await_whole(nodes: tuple[NodeInfo, ...]) -> None:
    """Returns when every node answers that all run."""
    deadline = time.monotonic() + LIMIT_S
    expected = frozenset(n.erlang_name for n in nodes)
    for each in nodes:
        while running_nodes(each.endpoint, Credentials(), 2.0) != expected:
            if time.monotonic() > deadline:
                raise TimeoutError(each.name)
            time.sleep(0.1)


def raw_docker(cluster: Cluster) -> None:
    """Starts the containers of a stopped cluster with nothing but Docker."""
    nodes = cluster.nodes()
    engine = connect()
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(lambda n: engine.start_container(f"dmq-{cluster.name}-{n.name}"), nodes))
    await_whole(nodes)
    engine.close()


def raw_local(cluster: Cluster) -> None:
    """Starts the processes of a stopped cluster with nothing but RabbitMQ's own script."""
    if not isinstance(cluster, LocalCluster):
        raise TypeError(cluster)
    state, installation = read_state(cluster.folder), find_installation()
    if state is None or installation is None:
        raise LookupError(cluster.name)
    if state.epmd_port not in processes.listening_ports():
        local_node.launch_epmd(cluster.folder, state, installation)
    for place in local_node.places(cluster.folder, state):
        local_node.launch(place, state, installation)
    await_whole(cluster.nodes())


def seconds(act: Callable[[], None]) -> float:
    """How long `act` takes."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def compare(cluster: Cluster, raw: Callable[[Cluster], None], rounds: int) -> float:
    """Prints each round and the ratio of the medians, which it returns."""
    first = seconds(cluster.start)
    print(f"{cluster.backend}: made and started in {first:.1f} s")
    pairs: list[tuple[float, float]] = []
    for turn in range(rounds):
        times: dict[str, float] = {}
        for which in ("raw", "dmq") if turn % 2 == 0 else ("dmq", "raw"):
            cluster.stop()
            times[which] = seconds(cluster.start if which == "dmq" else lambda: raw(cluster))
        pairs.append((times["raw"], times["dmq"]))
        print(f"{cluster.backend}: raw {times['raw']:5.1f} s   dmq {times['dmq']:5.1f} s")
    ratio = statistics.median(ours for _, ours in pairs) / statistics.median(raw_s for raw_s, _ in pairs)
    print(f"{cluster.backend}: dmq / raw = {ratio:.2f} (allowed {ALLOWED})")
    return ratio


def main() -> int:
    """Measures the backends asked for; 1 if any takes longer than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=[Backend.DOCKER, Backend.LOCAL], action="append")
    parser.add_argument("--rabbitmq", help="the version in Docker")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as state:
        os.environ["DMQ_STATE_DIR"] = state
        for backend in asked.backend or [Backend.DOCKER, Backend.LOCAL]:
            name = f"perf-{os.getpid()}"
            docker = backend == Backend.DOCKER
            cluster: Cluster = DockerCluster(name, rabbitmq=asked.rabbitmq) if docker else LocalCluster(name)
            try:
                worst = max(worst, compare(cluster, raw_docker if docker else raw_local, asked.rounds))
            finally:
                cluster.destroy()
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
