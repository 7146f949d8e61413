"""Small pictures and snapshots to test with."""

from __future__ import annotations

from dataclasses import replace

from dmq_core.cluster.protocol import Backend, NodeInfo, NodeState
from dmq_core.endpoints import NodeEndpoint
from dmq_core.management.endpoints import ManagementEndpoint
from dmq_core.management.models import NodeFigures, Overview, QueueFigures
from dmq_core.observe.management_poll import ManagementFigures
from dmq_core.observe.snapshot import ClusterSnapshot, SourceStatus
from dmq_core.observe.snapshot_builder import assemble
from dmq_core.observe.state import MANAGEMENT, ClusterState, with_source

T0 = 1_790_000_000.0
NAMES = ("rmq1", "rmq2", "rmq3")
ERLANG = tuple(f"rabbit@{name}" for name in NAMES)


def node(name: str, state: NodeState = NodeState.RUNNING) -> NodeInfo:
    number = int(name[-1])
    return NodeInfo(name, f"rabbit@{name}", state, NodeEndpoint("127.0.0.1", 5671 + number, 15671 + number))


def quorum(
    name: str, leader: str = "rmq1", *, consumers: int | None = 0, online: tuple[str, ...] = NAMES
) -> QueueFigures:
    return QueueFigures(
        "/",
        name,
        "quorum",
        state="running",
        leader=f"rabbit@{leader}",
        members=ERLANG,
        online=tuple(f"rabbit@{n}" for n in online),
        ready=0,
        unacked=0,
        consumers=consumers,
    )


def figures(
    *queues: QueueFigures, at: float = T0, running: tuple[str, ...] = NAMES, asked: str = "rmq1"
) -> ManagementFigures:
    endpoint = ManagementEndpoint(asked, f"http://127.0.0.1:1567{asked[-1]}")
    return ManagementFigures(
        began_at=at,
        taken_at=at + 0.1,
        counted_at=at,
        asked=endpoint,
        overview_asked=endpoint,
        overview=Overview("dmq", f"rabbit@{asked}", "4.3.6"),
        nodes=tuple(NodeFigures(f"rabbit@{n}", running=n in running, version="4.3.6") for n in NAMES),
        queues=queues,
    )


def cluster_state(*queues: QueueFigures, at: float = T0, **more: object) -> ClusterState:
    told = figures(*queues, at=at)
    whole = ClusterState("dmq", Backend.DOCKER, nodes=tuple(node(n) for n in NAMES), figures=told, asks="rmq1")
    whole = with_source(whole, SourceStatus(MANAGEMENT, "http://127.0.0.1:15671", at + 0.1))
    return replace(whole, **more)  # type: ignore[arg-type]  # the tests know the fields


def snapshot(*queues: QueueFigures, at: float = T0, **more: object) -> ClusterSnapshot:
    return assemble(cluster_state(*queues, at=at, **more), at + 0.2)
