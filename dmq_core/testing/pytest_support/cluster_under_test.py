"""A real cluster in the hands of a test: where it is, what to break, and clients that end with the test."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.actions.gate import perform
from dmq_core.cluster.faults.model import DELAY_MS, FaultKind
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeState
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import DmqError, InvalidInputError, OperationTimeoutError
from dmq_core.management.models import EntityKey
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.chaos.proxy import ChaosProxy
    from dmq_core.connection_manager import BrokerConnectionManager
    from dmq_core.management.client import ManagementClient
    from dmq_core.proof.result import Workload
    from dmq_core.proof.run.run import ProofOptions
    from dmq_core.testing.pytest_support.proof_block import ProofBlock

LEADER_LIMIT_S = 15.0
# What one node has declared another may not know for a moment.
DECLARED_S = 2.0
_LOOK_EVERY_S = 0.1


class ClusterUnderTest:
    """A running cluster with faults by method call; what the fixture `dmq_cluster` gives.

    Nodes are called `rmq1`, `rmq2` and so on; an unknown one raises `InvalidInputError`. A fault returns once it
    holds, `start`, `unpause`, `rejoin`, `revive` and `heal` once the nodes serve, each within 60 s or with a
    `DmqError`.

    >>> dmq_cluster.nodes
    ('rmq1', 'rmq2', 'rmq3')
    >>> dmq_cluster.kill("rmq1")
    >>> dmq_cluster.amqp_url == dmq_cluster.urls[1]
    True
    >>> dmq_cluster.heal()
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._managers: list[BrokerConnectionManager] = []
        self._proxies: list[ChaosProxy] = []
        self._undos: list[Action] = []

    def __repr__(self) -> str:
        return f"<{self._cluster.name} on {self._cluster.backend}>"

    @property
    def cluster(self) -> Cluster:
        """The cluster itself, with its logs and states."""
        return self._cluster

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of all nodes, in order."""
        return tuple(info.name for info in self._cluster.nodes())

    @property
    def endpoints(self) -> tuple[NodeEndpoint, ...]:
        """Where clients reach each node, in the order of `nodes`."""
        return tuple(info.endpoint for info in self._cluster.nodes())

    @property
    def urls(self) -> tuple[str, ...]:
        """The AMQP URL of each node, in the order of `nodes`, without credentials: `amqp://127.0.0.1:5672`."""
        return tuple(url for endpoint in self.endpoints if (url := endpoint.amqp_url) is not None)

    @property
    def amqp_url(self) -> str:
        """The AMQP URL of a node that runs."""
        infos = self._cluster.nodes()
        running = [info for info in infos if info.state is NodeState.RUNNING] or infos
        return str(running[0].endpoint.amqp_url)

    @property
    def credentials(self) -> Credentials:
        """The user of the cluster: guest/guest, every client's default."""
        return self._cluster.credentials

    def kill(self, node: str) -> None:
        """Ends a node with SIGKILL."""
        self._act(NodeAction.KILL, node)

    def stop(self, node: str) -> None:
        """Stops a node in good order; its data is kept."""
        self._act(NodeAction.STOP, node)

    def start(self, node: str) -> None:
        """Starts a node that was killed or stopped."""
        self._act(NodeAction.START, node)

    def pause(self, node: str) -> None:
        """Freezes a node: it keeps its connections and says nothing."""
        self._act(NodeAction.PAUSE, node)

    def unpause(self, node: str) -> None:
        """Lets a frozen node go on."""
        self._act(NodeAction.UNPAUSE, node)

    def isolate(self, node: str) -> None:
        """Cuts a node off from its peers; clients still reach it."""
        self._act(NodeAction.ISOLATE, node)

    def rejoin(self, node: str) -> None:
        """Connects a node that was cut off with its peers again."""
        self._act(NodeAction.REJOIN, node)

    def drain(self, node: str) -> None:
        """Puts a node into maintenance: it moves its leaders, closes its clients and takes no new ones."""
        self._act(NodeAction.DRAIN, node)

    def revive(self, node: str) -> None:
        """Ends a node's maintenance."""
        self._act(NodeAction.REVIVE, node)

    def memory_alarm(self, node: str) -> None:
        """Raises the memory alarm of a node: every publisher of the cluster is blocked, until `heal` or a restart.

        >>> dmq_cluster.memory_alarm("rmq1")
        >>> dmq_cluster.heal()
        """
        self._inject(Action(FaultKind.MEMORY_ALARM, node))

    def disk_alarm(self, node: str) -> None:
        """Raises the disk alarm of a node: as the memory alarm."""
        self._inject(Action(FaultKind.DISK_ALARM, node))

    def move_leader(self, queue: str, node: str, virtual_host: str = "/") -> None:
        """Moves the leader of a quorum queue to a node that has a member of it; `heal` leaves it there."""
        self._inject(Action(FaultKind.MOVE_LEADER, node, queue, virtual_host))

    def rolling_restart(self) -> None:
        """Drains and restarts one node after the other, about 15 s each."""
        self._inject(Action(FaultKind.ROLLING_RESTART))

    def cut_link(self, node: str, peer: str) -> None:
        """Lets nothing pass between two nodes, which still reach all others, until `heal`.

        >>> dmq_cluster.cut_link("rmq1", "rmq2")
        >>> dmq_cluster.heal()
        """
        self._inject(Action(FaultKind.CUT_LINK, node, peer=peer))

    def slow_link(self, node: str, peer: str | None = None, delay_ms: int = DELAY_MS) -> None:
        """Holds what passes between a node and `peer` (None: all) for up to `delay_ms` (1 to 5000), until `heal`."""
        self._inject(Action(FaultKind.SLOW_LINK, node, peer=peer, delay_ms=delay_ms))

    def add_node(self) -> str:
        """Adds a node, onto which the queues grow, and returns its name; `heal` leaves it.

        >>> dmq_cluster.add_node()
        'rmq4'
        >>> dmq_cluster.remove_node("rmq4")
        """
        undo = perform(self._cluster, Action(Scaling.ADD), read_only=False)
        return "" if undo is None or undo.node is None else undo.node

    def remove_node(self, node: str) -> None:
        """Takes the queues off a node and removes it with its data.

        Raises `RefusedError` if that loses a queue or a majority.
        """
        perform(self._cluster, Action(Scaling.REMOVE, node), read_only=False)

    def heal(self) -> None:
        """Ends what was done here: alarms, links, and nodes that are down, frozen, cut off or in maintenance.

        Returns when the cluster is whole. One that cannot be healed is made anew, empty.
        """
        try:
            self._cluster.start()
            while self._undos:
                perform(self._cluster, self._undos[-1], read_only=False)
                self._undos.pop()
        except DmqError:
            self._undos.clear()
            self._cluster.destroy()
            self._cluster.start()

    def leader_of(self, queue: str, virtual_host: str = "/") -> str:
        """The running node that leads `queue`, within 15 s of an election.

        Raises `InvalidInputError` if there is no such queue.
        """
        from dmq_core.cluster.view import ClusterView

        client = ClusterView.of(self._cluster).management()
        try:
            return self._await_leader(client, EntityKey(virtual_host, queue))
        finally:
            client.close()

    def manager(self) -> BrokerConnectionManager:
        """A `BrokerConnectionManager` that knows every node by its name; closed after the test.

        >>> [broker.id for broker in dmq_cluster.manager().brokers]
        ['rmq1', 'rmq2', 'rmq3']
        """
        from dmq_core.connection_manager import BrokerConnectionManager

        manager = BrokerConnectionManager()
        self._managers.append(manager)
        manager.register_nodes(self._cluster.nodes(), self.credentials)
        return manager

    def proxy(self, node: str) -> ChaosProxy:
        """A `ChaosProxy` in front of a node; closed after the test.

        >>> proxy = dmq_cluster.proxy("rmq1")
        >>> proxy.stall()
        >>> dmq_cluster.close_clients()
        """
        from dmq_core.chaos.proxy import ChaosProxy

        endpoint = dict(zip(self.nodes, self.endpoints, strict=True)).get(node)
        if endpoint is None or endpoint.amqp_port is None:
            raise InvalidInputError(
                f"{self._cluster.name} has no node {visible(node)!r}", f"Its nodes: {', '.join(self.nodes)}."
            )
        proxy = ChaosProxy(endpoint.host, endpoint.amqp_port)
        self._proxies.append(proxy)
        return proxy

    def proof(
        self,
        fault: str = "kill",
        target: str = "leader",
        *,
        duration_s: float | None = None,
        scenario: str | None = None,
        workload: Workload | None = None,
        options: ProofOptions | None = None,
    ) -> ProofBlock:
        """A load with a fault in its middle, which goes on while the `with` block runs, and the account of it all.

        `target` is leader, follower, connected or a node; `scenario` names one in place of both, or a TOML file.

            with dmq_cluster.proof(fault="kill", target="leader") as proof:
                ...  # what your own service does meanwhile
            assert proof.verdict == "PASS"
            assert proof.result.max_confirm_gap_s < 1
        """
        from dataclasses import replace

        from dmq_core.proof.run.run import ProofRun
        from dmq_core.proof.scenario import checked_scenario, find_scenario, scenario_of
        from dmq_core.testing.pytest_support.proof_block import ProofBlock

        chosen = find_scenario(scenario) if scenario is not None else scenario_of(fault, target, duration_s)
        if workload is not None:
            chosen = checked_scenario(replace(chosen, workload=workload), "workload")
        return ProofBlock(ProofRun(self._cluster, chosen, options))

    def close_clients(self) -> None:
        """Closes every manager and proxy that was asked for."""
        managers, self._managers = self._managers, []
        proxies, self._proxies = self._proxies, []
        for manager in managers:
            manager.close()
        for proxy in proxies:
            proxy.close()

    def _act(self, action: NodeAction, node: str) -> None:
        perform(self._cluster, Action(action, node), read_only=False)

    def _inject(self, fault: Action) -> None:
        # Noted first: what fails half way may have been done. Where a leader was is not known here, and it stays.
        if fault.undo is not None:
            self._undos.append(fault.undo)
        perform(self._cluster, fault, read_only=False)

    def _await_leader(self, client: ManagementClient, key: EntityKey) -> str:
        began = time.monotonic()
        while time.monotonic() - began < LEADER_LIMIT_S:
            # With a node frozen an answer may take long; the next one comes from another node.
            with contextlib.suppress(OperationTimeoutError):
                figures = client.queue(key)
                if figures is None and time.monotonic() - began > DECLARED_S:
                    raise InvalidInputError(f"there is no queue {visible(key.name)!r}", "Declare it before you ask.")
                leader = None if figures is None else self._running(figures.leader)
                if leader is not None:
                    return leader
            time.sleep(_LOOK_EVERY_S)
        raise OperationTimeoutError(
            f"{visible(key.name)!r} has no leader on a running node after {LEADER_LIMIT_S:g} s",
            "Does a majority of its members run?",
        )

    def _running(self, erlang_name: str | None) -> str | None:
        """Our name for a node, if it runs: figures lag behind, and may still tell one that went for the leader."""
        running = {i.erlang_name: i.name for i in self._cluster.nodes() if i.state is NodeState.RUNNING}
        return None if erlang_name is None else running.get(erlang_name)
