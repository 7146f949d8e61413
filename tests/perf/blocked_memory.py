"""How a publishing process grows while the broker blocks it for a minute: `python -m tests.perf.blocked_memory`.

A node of its own gets a memory alarm. A process then offers messages as fast as it can; it is measured once its bounds
are full, and again a minute later.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from dmq_core.cluster.docker.cluster import DockerCluster
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.states import ConnectionState
from dmq_core.messaging.connection.topology_commands import declare
from dmq_core.messaging.publishing.publisher import Publisher
from dmq_core.messaging.topology.model import Queue

BLOCKED_S = 60.0
SETTLE_S = 5.0
LIMIT_S = 30.0
QUEUE = "dmq.perf.blocked"
ROOT = Path(__file__).parents[2]


def growth_mib() -> float:
    """MiB that the process has grown by in the minute; prints both figures."""
    cluster = DockerCluster(f"perf-{os.getpid()}", nodes=1)
    try:
        cluster.start()
        node = cluster.nodes()[0]
        _set_watermark(cluster.name, node.name, "0.00001")
        command = [sys.executable, "-m", "tests.perf.blocked_memory", str(node.endpoint.amqp_port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * BLOCKED_S, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        print(f"  {done.stdout.strip()}")
        before, after = (float(word) for word in done.stdout.split() if word.replace(".", "").isdigit())
        return after - before
    finally:
        cluster.destroy()


def _set_watermark(cluster: str, node: str, share: str) -> None:
    command = ["docker", "exec", f"dmq-{cluster}-{node}", "rabbitmqctl", "set_vm_memory_high_watermark", share]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)


def rss_mib() -> float:
    """MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Offers for a minute and prints what that costs."""
    connection = Connection([NodeEndpoint("127.0.0.1", int(sys.argv[1]), None)], Credentials(), "dmq perf blocked")
    connection.wait_open()
    declare(connection, [Queue(QUEUE, "quorum")], LIMIT_S)
    producer = Publisher(connection)
    stop = threading.Event()
    offered = 0

    def offer() -> None:
        nonlocal offered
        while not stop.is_set():
            producer.send("", QUEUE, os.urandom(1000), capacity_timeout_s=0.001)
            offered += 1

    threading.Thread(target=offer, daemon=True).start()
    began = time.monotonic()
    while connection.status.state is not ConnectionState.BLOCKED or producer.has_capacity:
        if time.monotonic() - began > LIMIT_S:
            raise TimeoutError(f"the broker did not block: {connection.status}")
        time.sleep(0.05)
    time.sleep(SETTLE_S)
    before = rss_mib()
    time.sleep(BLOCKED_S)
    after = rss_mib()
    if connection.status.state is not ConnectionState.BLOCKED:
        raise RuntimeError(f"the broker did not stay blocked: {connection.status}")
    stop.set()
    print(f"{before:.1f} MiB when its bounds were full and {after:.1f} MiB at the end; {offered}-odd messages offered")
    os._exit(0)


if __name__ == "__main__":
    main()
