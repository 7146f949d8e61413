"""How a node comes and goes, whoever runs the nodes; each step leaves what the next call can finish."""

from __future__ import annotations

import contextlib
from typing import Protocol

from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import (
    check_may_grow,
    check_may_leave,
    check_nothing_lost,
    check_queues_may_leave,
    lost_with,
    lowest_free_name,
)
from dmq_core.cluster.scaling.queue_members import TOOL_LIMIT_S, QueueMembers
from dmq_core.endpoints import Credentials
from dmq_core.errors import DmqError
from dmq_core.progress import Progress, ProgressListener


class ScalingBackend(Protocol):
    """What scaling needs of a backend; the cluster is locked, so nobody else changes what defines it.

    The definition names the cluster's nodes, and one of them as `joining` until it has its share of the queues. One
    that is `leaving` is named no more, and may still be there.
    """

    @property
    def joining(self) -> str | None:
        """The node whose coming is not finished."""
        ...

    @property
    def leaving(self) -> str | None:
        """The node whose going is not finished."""
        ...

    @property
    def credentials(self) -> Credentials:
        """The user to ask RabbitMQ as."""
        ...

    def nodes(self) -> tuple[NodeInfo, ...]:
        """The nodes of the definition."""
        ...

    def run(self, node: str, tool: str, words: tuple[str, ...], limit_s: float) -> str:
        """Runs one of RabbitMQ's tools in a node, be it leaving, and gives what it printed."""
        ...

    def erlang_name(self, node: str) -> str:
        """RabbitMQ's name of a node, be it here or not."""
        ...

    def define_joining(self, node: str) -> None:
        """Adds a node to the definition, as joining."""
        ...

    def define_leaving(self, node: str) -> None:
        """Takes a node out of the definition; it is leaving."""
        ...

    def settle(self) -> None:
        """Makes the definition final: nothing joins or leaves."""
        ...

    def bring_up(self, node: str, progress: ProgressListener) -> None:
        """Makes and starts a node; returns when it serves and it and all others see each other."""
        ...

    def discard(self, node: str) -> None:
        """Ends a node, if it runs, and removes all that it had; twice does no harm."""
        ...


def add(backend: ScalingBackend, progress: ProgressListener) -> str:
    """Adds a node, or finishes adding one; returns its name. What cannot join is removed again."""
    finish_leaving(backend, progress)
    node = backend.joining
    infos = backend.nodes()
    check_may_grow(info for info in infos if info.name != node)
    if node is None:
        node = lowest_free_name([info.name for info in infos])
        backend.define_joining(node)
    try:
        backend.bring_up(node, progress)
    except BaseException:
        progress(Progress("removing what was half made", node))
        with contextlib.suppress(DmqError):
            backend.define_leaving(node)
            finish_leaving(backend, progress)
        raise
    finish_joining(backend, progress)
    return node


def remove(backend: ScalingBackend, node: str, progress: ProgressListener, *, force: bool) -> None:
    """Removes a node, or finishes removing it; refuses what would lose a queue or a majority."""
    finishing = backend.leaving == node
    finish_leaving(backend, progress)
    if finishing:
        return
    infos = backend.nodes()
    check_may_leave(node, infos)
    members = _members(backend)
    runs = any(info.name == node and info.state is not NodeState.STOPPED for info in infos)
    _take_queues_off(members, node, progress, runs=runs, force=force)
    if runs:
        try:
            # Not before: a drain stops the members on the node, of which a queue of two needs both.
            progress(Progress("clients of the node move to the others", node))
            members.drain(node)
            # Until now clients may have declared queues on it.
            _take_queues_off(members, node, progress, runs=runs, force=force)
        except BaseException:
            progress(Progress("the node stays and serves again", node))
            members.revive(node)
            raise
    backend.define_leaving(node)
    finish_leaving(backend, progress)


def finish_leaving(backend: ScalingBackend, progress: ProgressListener) -> None:
    """Lets the others forget the node that is leaving, if any, and removes what is left of it."""
    node = backend.leaving
    if node is None:
        return
    progress(Progress("the others forget the node", node))
    # Its voice counts until it is forgotten: of two nodes one alone could decide nothing. It may be down already.
    with contextlib.suppress(DmqError):
        backend.run(node, "rabbitmqctl", ("stop_app",), TOOL_LIMIT_S)
    _members(backend).forget(node, backend.erlang_name(node), progress)
    progress(Progress("removing the node's data", node))
    backend.discard(node)
    backend.settle()


def finish_joining(backend: ScalingBackend, progress: ProgressListener) -> None:
    """Gives the node that is joining, if any, its share of the queues."""
    node = backend.joining
    if node is not None:
        _members(backend).grow(node, progress)
        backend.settle()


def _members(backend: ScalingBackend) -> QueueMembers:
    return QueueMembers(backend.nodes, backend.run, backend.credentials)


def _take_queues_off(members: QueueMembers, node: str, progress: ProgressListener, *, runs: bool, force: bool) -> None:
    """Leaves nothing on a node but, where it does not run, what goes when the others forget it."""
    queues = members.queues(node)
    check_queues_may_leave(node, queues)
    lost = lost_with(node, queues)
    if not force:
        check_nothing_lost(node, lost)
    progress(Progress("queues leave the node", node))
    members.delete(node, lost)
    if runs:
        members.shrink(node)
