"""Waiting until nodes in Docker serve and are a whole, and mending what keeps them from it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from dmq_core.cluster.docker.definition import USER, ClusterDefinition, erlang_name
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.isolation import is_cut_off, is_drained, maintain
from dmq_core.cluster.docker.values import Container
from dmq_core.cluster.node_log import boot_failure_reason
from dmq_core.cluster.readiness import amqp_answers, management_answers, partitioned, running_nodes, side_by_side
from dmq_core.endpoints import Credentials
from dmq_core.errors import AccessDeniedError, ClusterError, NodeBootError, OperationTimeoutError
from dmq_core.majority import is_majority
from dmq_core.progress import Progress, ProgressListener
from dmq_core.versions import Version, parse_version

_POLL_S = 0.15
_VIEW_TIMEOUT_S = 2.0
_LOG_LINES = 2000
# The default user is made while the first node boots, a moment after its management listener may answer.
_DENIAL_PATIENCE_S = 10.0
# Nodes of a healthy cluster find each other again in less, also after a pause longer than net_ticktime.
_SPLIT_PATIENCE_S = 8.0
_MNESIA_SPLIT_PATIENCE_S = 3.0
# A node that was frozen believes for a moment what it knew before.
_SETTLED_S = 1.5
_KHEPRI_ONLY = Version(4, 3)


@dataclass(slots=True)
class Boot:
    """How many more times nodes that end while they boot may be started again, and why each ended last time."""

    restarts: int
    reasons: dict[str, str] = field(default_factory=dict)


class NodeWaiter:
    """Waits for the nodes of one cluster.

    Each wait ends at its deadline (`time.monotonic`) with `OperationTimeoutError`.
    """

    def __init__(
        self, engine: Engine, definition: ClusterDefinition, credentials: Credentials, progress: ProgressListener
    ) -> None:
        self._engine = engine
        self._definition = definition
        self._credentials = credentials
        self._progress = progress
        self._began = time.monotonic()
        self._leaving = frozenset({erlang_name(definition.leaving)} if definition.leaving else ())
        self._mnesia = parse_version(definition.rabbitmq) < _KHEPRI_ONLY
        self._serving: frozenset[str] = frozenset()
        self._split_since: float | None = None
        self._may_be_drained: set[str] = set()

    def revive_also(self, nodes: Iterable[str]) -> None:
        """Lets `await_whole` end the maintenance of those of `nodes` that are in it."""
        self._may_be_drained.update(nodes)

    def await_whole(self, boot: Boot, deadline: float) -> None:
        """Returns when every node serves and all see all running."""
        everybody = self._definition.nodes
        while True:
            self._check_containers(everybody, boot)
            views = self._views(everybody)
            if self._agree(views, everybody):
                return
            self._revive(self._may_be_drained - views.keys())
            self._mend_split(views, deadline)
            if time.monotonic() > deadline:
                raise self._late(sorted(set(everybody) - self._serving))
            time.sleep(_POLL_S)

    def await_node(self, node: str, boot: Boot, deadline: float, *, apart: bool = False) -> None:
        """Returns when `node` serves and it and the other nodes that are up see each other.

        `apart`: it was frozen or cut off, so that the others may have given it up. One that is in maintenance, and was
        not cut off, may remain so.
        """
        settling = _SETTLED_S if apart and self._mnesia else 0.0
        agreed_since: float | None = None
        while True:
            self._check_containers((node,), boot)
            up, resting = self._up()
            views = self._views(up)
            joined = node in (*up, *resting) and self._agree(views, up, resting)
            if joined and not self._partitioned(up, ask=settling > 0):
                agreed_since = agreed_since or time.monotonic()
                if time.monotonic() - agreed_since >= settling:
                    return
            else:
                agreed_since = None
            self._mend_split(views, deadline)
            if time.monotonic() > deadline:
                raise self._late([node])
            time.sleep(_POLL_S)

    def _up(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The nodes that run and are not cut off: those in service, and those in maintenance."""
        names = self._definition.nodes
        containers = side_by_side(lambda n: self._engine.container(self._definition.container(n)), names)
        pairs = zip(names, containers, strict=True)
        there = [(n, c) for n, c in pairs if c and c.status == "running" and not is_cut_off(self._definition, c)]
        resting = tuple(n for n, c in there if self._rests(n, c))
        return tuple(n for n, _ in there if n not in resting), resting

    def _rests(self, node: str, container: Container) -> bool:
        # Only a node that does not serve is worth a look into its log.
        closed = node not in self._serving and management_answers(self._definition.endpoint(node)) is False
        return closed and is_drained(self._engine, container)

    def _revive(self, nodes: Iterable[str]) -> None:
        for node in sorted(nodes):
            container = self._engine.container(self._definition.container(node))
            if container is not None and container.status == "running" and is_drained(self._engine, container):
                self._progress(Progress("the node is in maintenance; reviving it", node))
                # Without a majority, which may be about to come, it cannot be.
                with contextlib.suppress(ClusterError):
                    maintain(self._engine, container, "revive")

    def _views(self, nodes: tuple[str, ...]) -> dict[str, frozenset[str]]:
        """What each of `nodes` that serves sees running, by RabbitMQ's names."""

        def view(node: str) -> frozenset[str] | None:
            try:
                return running_nodes(self._definition.endpoint(node), self._credentials, _VIEW_TIMEOUT_S)
            except AccessDeniedError:
                if time.monotonic() - self._began > _DENIAL_PATIENCE_S:
                    raise
                return None

        seen = zip(nodes, side_by_side(view, nodes), strict=True)
        views = {n: v - self._leaving for n, v in seen if v is not None}
        for node in sorted(views.keys() - self._serving):
            self._progress(Progress("the node serves", node))
        self._serving = frozenset(views)
        return views

    def _agree(self, views: dict[str, frozenset[str]], nodes: tuple[str, ...], resting: tuple[str, ...] = ()) -> bool:
        expected = frozenset(erlang_name(n) for n in (*nodes, *resting))
        whole = len(views) == len(nodes) and all(view == expected for view in views.values())
        return whole and all(side_by_side(lambda n: amqp_answers(self._definition.endpoint(n)), nodes))

    def _partitioned(self, nodes: tuple[str, ...], *, ask: bool) -> bool:
        return ask and any(side_by_side(lambda n: partitioned(self._definition.endpoint(n), self._credentials), nodes))

    def _check_containers(self, nodes: tuple[str, ...], boot: Boot) -> None:
        for node in nodes:
            name = self._definition.container(node)
            container = self._engine.container(name)
            if container is None:
                raise ClusterError(f"the container of {node} is gone", "'dmq start' makes it again; its data is kept.")
            if container.status in ("running", "paused", "restarting"):
                continue
            failure = self._boot_failed(node, container)
            # What ends a node twice in the same way will end it a third time.
            if boot.restarts <= 0 or boot.reasons.get(node) == failure.what:
                raise failure
            boot.restarts -= 1
            boot.reasons[node] = failure.what
            self._progress(Progress("the node ended while it booted; starting it again", node))
            self._engine.start_container(name)

    def _boot_failed(self, node: str, container: Container) -> NodeBootError:
        reason = boot_failure_reason(self._engine.logs(container.id, _LOG_LINES))
        return NodeBootError(
            f"{node} ended while it booted: {reason or f'exit status {container.exit_code}, and its log is empty'}",
            f"'dmq node logs {node} --cluster {self._definition.cluster}' tells more; "
            f"'dmq destroy --cluster {self._definition.cluster}' removes the cluster.",
        )

    def _mend_split(self, views: dict[str, frozenset[str]], deadline: float) -> None:
        """Nodes on Mnesia that lost each other never meet again by themselves: restarts RabbitMQ in one."""
        expected = frozenset(erlang_name(n) for n in views)
        split = any(not expected <= view for view in views.values())
        split = split or self._partitioned(tuple(views), ask=self._mnesia and len(views) > 1)
        patience = _MNESIA_SPLIT_PATIENCE_S if self._mnesia else _SPLIT_PATIENCE_S
        if not split:
            self._split_since = None
            return
        self._split_since = self._split_since or time.monotonic()
        if time.monotonic() - self._split_since < patience or time.monotonic() > deadline:
            return
        self._split_since = None
        smallest = min(views, key=lambda n: (len(views[n] & expected), n))
        self._restart_application(smallest)

    def _restart_application(self, node: str) -> None:
        self._progress(Progress("the node does not find the others; restarting RabbitMQ in it", node))
        for command in ("stop_app", "start_app"):
            self._engine.run_in(self._definition.container(node), ["rabbitmqctl", "-q", command], USER)

    def _late(self, nodes: list[str]) -> OperationTimeoutError:
        total, up = len(self._definition.nodes), len(self._up()[0])
        names = ", ".join(nodes) or self._definition.cluster
        if not is_majority(up, total):
            return OperationTimeoutError(
                f"{names} cannot serve: {total - up} of {total} nodes are down",
                "Start the others too; a majority is needed.",
            )
        if self._engine.remote:
            ports = ", ".join(str(port) for pair in self._definition.ports for port in pair)
            return OperationTimeoutError(
                f"{names} cannot be reached: the Docker engine at {self._engine.address} is on another machine",
                f"Forward its ports {ports} to 127.0.0.1 here ('ssh -L'), then start again.",
            )
        return OperationTimeoutError(
            f"{names} runs but is not part of a whole cluster yet" if nodes else f"{names} is not whole yet",
            f"Look at 'dmq node logs {nodes[0] if nodes else self._definition.nodes[0]}'; then start again.",
        )
