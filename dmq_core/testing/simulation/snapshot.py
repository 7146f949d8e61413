"""The simulated cluster as the snapshot that the real observation would give."""

from __future__ import annotations

from dataclasses import replace

from dmq_core.cluster.protocol import NodeState
from dmq_core.management.models import Alarm, BindingFigures, ConnectionFigures, NodeFigures, QueueFigures
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView, QueueView, SourceStatus, Totals
from dmq_core.testing.simulation.broker import SimBroker, SimNode, SimQueue

VERSION = "4.3.6"
_GIB = 1 << 30


class Photographer:
    """Takes snapshots; what the management API would say stays as it was while no node answers."""

    def __init__(self, broker: SimBroker) -> None:
        self._broker = broker
        self._last: ClusterSnapshot | None = None

    def take(self, clients: tuple[tuple[str, str], ...] = ()) -> ClusterSnapshot:
        """The cluster now, with connections of `clients` (role, node)."""
        with self._broker.lock:
            serving = self._broker.serving()
            problem = self._broker.management_problem or ("" if serving else "no node answers")
            connections = tuple(self._connection(i, role, at) for i, (role, at) in enumerate(clients))
            nodes = tuple(self._node(n, clients) for n in self._broker.nodes.values()) if self._broker.exists else ()
            snapshot = self._stale(nodes, problem) if problem else self._fresh(nodes, connections, serving[0])
            self._last = snapshot
            return snapshot

    def _stale(self, nodes: tuple[NodeView, ...], problem: str) -> ClusterSnapshot:
        before = self._last or ClusterSnapshot(self._broker.name, self._broker.backend, self._broker.now)
        heard_at = next((s.heard_at for s in before.sources if s.name == "management"), None)
        return replace(
            before,
            taken_at=self._broker.now,
            nodes=nodes,
            asks=None,
            sources=self._sources(None, heard_at, problem),
        )

    def _fresh(
        self, nodes: tuple[NodeView, ...], connections: tuple[ConnectionFigures, ...], asked: SimNode
    ) -> ClusterSnapshot:
        broker = self._broker
        queues = tuple(self._queue(q) for _, q in sorted(broker.queues.items()))
        return ClusterSnapshot(
            cluster=broker.name,
            backend=broker.backend,
            taken_at=broker.now,
            rabbitmq=VERSION,
            asks=asked.name,
            nodes=nodes,
            exchanges=tuple(
                replace(e, publish_in_rate=broker.exchange_rates.get(key, 0.0))
                for key, e in sorted(broker.exchanges.items())
            ),
            queues=queues,
            bindings=(*_default_bindings(queues), *broker.bindings),
            connections=connections,
            alarms=tuple(Alarm(broker.nodes[n].erlang_name, resource) for n, resource in sorted(broker.alarms)),
            totals=Totals(
                queues=len(queues),
                connections=len(connections),
                ready=sum(q.figures.ready or 0 for q in queues),
                unacked=sum(q.figures.unacked or 0 for q in queues),
                publish_rate=sum(q.figures.publish_rate or 0.0 for q in queues),
                deliver_rate=sum(q.figures.deliver_rate or 0.0 for q in queues),
            ),
            sources=self._sources(asked.endpoint.management_url, broker.now, ""),
            queues_total=len(queues),
        )

    def _sources(self, endpoint: str | None, heard_at: float | None, problem: str) -> tuple[SourceStatus, ...]:
        return (
            SourceStatus("management", endpoint, heard_at, problem),
            SourceStatus("backend events", None, self._broker.now),
        )

    def _node(self, node: SimNode, clients: tuple[tuple[str, str], ...]) -> NodeView:
        queues = self._broker.queues.values()
        return NodeView(
            name=node.name,
            erlang_name=node.erlang_name,
            state=node.state,
            endpoint=node.endpoint,
            figures=self._figures(node),
            alarms=tuple(Alarm(node.erlang_name, r) for n, r in sorted(self._broker.alarms) if n == node.name),
            leads=sum(q.leader == node.name for q in queues) if node.serves else 0,
            follows=sum(node.name in q.members and q.leader != node.name for q in queues),
            connections=sum(at == node.name for _, at in clients) if node.serves else 0,
            memory_history=tuple(node.memory),
        )

    def _figures(self, node: SimNode) -> NodeFigures:
        if not node.serves:
            rests = node.state is NodeState.DRAINING
            return NodeFigures(node.erlang_name, running=rests, being_drained=rests)
        return NodeFigures(
            node.erlang_name,
            running=True,
            version=VERSION,
            memory_bytes=node.memory[-1] if node.memory else 150_000_000,
            memory_limit_bytes=4 * _GIB,
            disk_free_bytes=71 * _GIB,
            disk_limit_bytes=50_000_000,
            memory_alarm=(node.name, "memory") in self._broker.alarms,
            disk_alarm=(node.name, "disk") in self._broker.alarms,
            files_used=110,
            files_total=65_536,
            sockets_used=4,
            processes_used=560,
            uptime_ms=int((self._broker.now - node.up_since) * 1000),
            being_drained=False,
        )

    def _queue(self, queue: SimQueue) -> QueueView:
        published, delivered, redelivered = queue.rates
        online = self._broker.online(queue)
        available = self._broker.available(queue)
        leader = queue.leader if available or not queue.replicated else None
        figures: QueueFigures = replace(
            queue.figures,
            state="running" if available else ("minority" if queue.replicated else "down"),
            leader=self._erlang(leader),
            members=tuple(self._broker.nodes[m].erlang_name for m in queue.members),
            online=tuple(self._broker.nodes[m].erlang_name for m in online),
            ready=len(queue.messages),
            unacked=queue.unacked,
            consumers=queue.consumers,
            memory_bytes=142_000 + 2_000 * len(queue.messages),
            publish_rate=published,
            deliver_rate=delivered,
            ack_rate=delivered,
            redeliver_rate=redelivered,
        )
        return QueueView(figures, leader, queue.members, online, tuple(queue.history))

    def _erlang(self, name: str | None) -> str | None:
        return None if name is None else self._broker.nodes[name].erlang_name

    def _connection(self, index: int, role: str, at: str) -> ConnectionFigures:
        port = 40_000 + index
        return ConnectionFigures(
            name=f"127.0.0.1:{port} -> 127.0.0.1:5672",
            node=self._erlang(at),
            vhost="/",
            user="guest",
            client_name=f"dmq {role}",
            protocol="AMQP 0-9-1",
            state="running",
            channels=1,
            peer_host="127.0.0.1",
            peer_port=port,
            connected_at_ms=int(self._broker.now * 1000),
            receive_rate=0.0,
            send_rate=0.0,
        )


def _default_bindings(queues: tuple[QueueView, ...]) -> tuple[BindingFigures, ...]:
    return tuple(BindingFigures(q.key.vhost, "", q.key.name, "queue", q.key.name) for q in queues)
