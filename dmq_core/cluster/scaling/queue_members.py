"""Where the members of queues are, and moving them on and off a node by RabbitMQ's own tools."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from dmq_core.cluster.faults.injector import RunTool, erlang_binary
from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import CLASSIC, names_of
from dmq_core.cluster.view import ClusterView, NodeNames
from dmq_core.endpoints import Credentials
from dmq_core.errors import AccessDeniedError, ClusterError, DmqError, NotReachableError, OperationTimeoutError
from dmq_core.management.client import ManagementClient
from dmq_core.management.models import EntityKey, QueueFigures
from dmq_core.progress import Progress, ProgressListener
from dmq_core.text import visible

T = TypeVar("T")
TOOL_LIMIT_S = 60.0
_STREAM = "stream"
_COLUMNS = (
    "name",
    "vhost",
    "type",
    "node",
    "leader",
    "members",
    "online",
    "durable",
    "exclusive",
    "messages_ready",
    "messages_unacknowledged",
)
_NOT_A_MEMBER = "not_a_cluster_node"
_SETTLE_S = 20.0
_LOOK_EVERY_S = 0.3


class QueueMembers:
    """Moves members of the queues of one cluster; `nodes` tells its nodes now, `run` reaches into them."""

    def __init__(self, nodes: Callable[[], tuple[NodeInfo, ...]], run: RunTool, credentials: Credentials) -> None:
        self._nodes = nodes
        self._run = run
        self._credentials = credentials

    def queues(self, but: str = "") -> tuple[QueueFigures, ...]:
        """Every queue as the nodes that run tell, `but` not asked; nodes have our names."""
        # Classic queues of a node that is down are only here.
        classic = (q for q in self._ask(_figures, but) if q.type == CLASSIC)
        return (*classic, *self._replicated(but))

    def grow(self, node: str, progress: ProgressListener) -> None:
        """Gives every quorum queue and stream a member on `node`; tells of those that do not grow and goes on."""
        progress(Progress("queues grow onto the node", node))
        # RabbitMQ 3.10 on the node itself knows no stream yet, and would try to found another coordinator of them.
        via, name = self.other_than(node), self._erlang_name(node)
        queues = self._replicated(node)
        failed = self._until_none(lambda: self._run_on_all(via, ("grow", name, "all")))
        for queue in queues:
            if queue.type == _STREAM and node not in queue.members:
                reason = self._on_stream(via, "add_replica", queue, name)
                failed |= {queue.key: reason} if reason else {}
        for key, reason in failed.items():
            progress(Progress(f"queue {visible(key.name)} of {visible(key.vhost)} does not grow: {reason}", node))
        grown = {queue.key for queue in queues} - failed.keys()
        late = self._await_queues(lambda queue: queue.key not in grown or node in queue.online, node)
        if late:
            progress(Progress(f"not online yet on the node: {names_of(late)}", node))

    def drain(self, node: str) -> None:
        """Closes the clients of `node` and lets it neither take new ones nor be chosen for new queues."""
        self._run(node, "rabbitmq-upgrade", ("drain",), TOOL_LIMIT_S)

    def revive(self, node: str) -> None:
        """Takes back what a drain did, as far as the node still answers."""
        with contextlib.suppress(DmqError):
            self._run(node, "rabbitmq-upgrade", ("revive",), TOOL_LIMIT_S)

    def shrink(self, node: str) -> None:
        """Takes the members of quorum queues and streams off `node`, which must run; `ClusterError` if one stays."""
        via, name = self.other_than(node), self._erlang_name(node)
        queues = [queue for queue in self._replicated(node) if node in queue.members]
        if not queues:
            return
        failed = self._until_none(lambda: self._run_on_all(via, ("shrink", name)))
        for queue in queues:
            if queue.type == _STREAM:
                reason = self._on_stream(via, "delete_replica", queue, name)
                failed |= {queue.key: reason} if reason else {}
        left = self._await_queues(lambda queue: node not in queue.members, node)
        if left:
            reasons = "; ".join(dict.fromkeys(failed.values()))
            raise ClusterError(
                f"{names_of(left)} cannot be taken off {node}{': ' if reasons else ''}{reasons}",
                "'dmq queue show' tells where its members are; then try again.",
            )

    def delete(self, node: str, queues: Iterable[QueueFigures]) -> None:
        """Deletes queues that are only on `node`; a classic queue whose node is down goes when it is forgotten."""
        via = self.other_than(node)
        for queue in queues:
            words = ("delete_queue", "--vhost", queue.vhost, "--", queue.name)
            with contextlib.suppress(ClusterError):
                self._run(via, "rabbitmqctl", words, TOOL_LIMIT_S)

    def forget(self, node: str, erlang_name: str, progress: ProgressListener) -> None:
        """Lets the others and the queues forget a node whose RabbitMQ does not run; nothing happens if they did."""
        try:
            self._run(self.other_than(node), "rabbitmqctl", ("forget_cluster_node", erlang_name), TOOL_LIMIT_S)
        except ClusterError as error:
            if _NOT_A_MEMBER not in error.what:
                raise
        left = self._await_queues(lambda queue: erlang_name not in queue.members)
        if left:
            progress(Progress(f"{names_of(left)} still counts on a member there", node))

    def other_than(self, node: str) -> str:
        """A node that runs, but `node` (empty: any will do); `ClusterError` if none does."""
        found = next((i.name for i in self._nodes() if i.state is NodeState.RUNNING and i.name != node), None)
        if found is None:
            raise ClusterError(f"no node but {node} runs", "'dmq start' brings every node back.")
        return found

    def _replicated(self, but: str = "") -> tuple[QueueFigures, ...]:
        """Every quorum queue and stream. Full figures may name, for a while, the members of a leader that was."""
        queues = [q for q in self._ask(ManagementClient.queues_without_rates, but) if q.type != CLASSIC]
        if all(queue.members for queue in queues):
            return tuple(queues)
        # Where streams are RabbitMQ 3.10 tells here by statistics alone, which are late.
        return tuple(queue if queue.members else self._told(queue, but) for queue in queues)

    def _told(self, stream: QueueFigures, but: str) -> QueueFigures:
        """The stream with its members as RabbitMQ itself knows them."""
        call = (
            f"{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r({erlang_binary(stream.vhost)}, queue,"
            f" {erlang_binary(stream.name)})), [{{_, All}}, {{_, Up}}] = rabbit_amqqueue:info(Q, [members, online]),"
            ' lists:flatten(io_lib:format("~w ~w", [All, Up])).'
        )
        said = _patiently(lambda: self._run(self.other_than(but), "rabbitmqctl", ("eval", call), TOOL_LIMIT_S))
        members, _, online = said.strip().strip('"').partition("] ")
        return _renamed(replace(stream, members=_atoms(members), online=_atoms(online)), NodeNames(self._nodes()))

    def _ask(self, question: Callable[[ManagementClient], tuple[QueueFigures, ...]], but: str) -> list[QueueFigures]:
        view = ClusterView(self._nodes(), self._credentials)
        client = view.without(but).management()
        try:
            queues = _patiently(lambda: question(client))
        finally:
            client.close()
        return [_renamed(queue, view.names) for queue in queues]

    def _erlang_name(self, node: str) -> str:
        return NodeNames(self._nodes()).long(node)

    def _run_on_all(self, via: str, words: tuple[str, ...]) -> dict[EntityKey, str]:
        """Runs `grow` or `shrink` and gives the queues for which it failed, with the reason."""
        return failures_in(self._run(via, "rabbitmq-queues", (*words, "--formatter", "json"), TOOL_LIMIT_S))

    def _on_stream(self, via: str, command: str, stream: QueueFigures, name: str) -> str:
        """Adds or deletes a replica; the reason if it fails, else nothing."""
        # What rabbitmq-streams would call; Debian's package of 4.0 comes without it.
        call = f"rabbit_stream_queue:{command}({erlang_binary(stream.vhost)}, {erlang_binary(stream.name)}, '{name}')."
        try:
            said = self._run(via, "rabbitmqctl", ("eval", call), TOOL_LIMIT_S).strip()
        except (ClusterError, OperationTimeoutError) as error:
            return error.what
        return "" if said == "ok" else visible(said)

    def _until_none(self, attempt: Callable[[], dict[EntityKey, str]]) -> dict[EntityKey, str]:
        """What still fails once an election or another change of members, which ends by itself, is no reason."""
        deadline = time.monotonic() + _SETTLE_S
        while (failed := attempt()) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        return failed

    def _await_queues(self, good: Callable[[QueueFigures], bool], but: str = "") -> tuple[QueueFigures, ...]:
        """The replicated queues that are not `good` after a while."""
        deadline = time.monotonic() + _SETTLE_S
        while (bad := tuple(q for q in self._replicated(but) if not good(q))) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        return bad


def _patiently(attempt: Callable[[], T]) -> T:
    """What `attempt` gives once it does: while a stream gains or loses a member RabbitMQ may fail to list queues."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        try:
            return attempt()
        except (ClusterError, NotReachableError) as error:
            if isinstance(error, AccessDeniedError) or time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_EVERY_S)


def _atoms(text: str) -> tuple[str, ...]:
    return tuple(name.strip("'") for name in text.strip("[]").split(",") if name)


def _figures(client: ManagementClient) -> tuple[QueueFigures, ...]:
    return client.queues(_COLUMNS)


def _renamed(queue: QueueFigures, names: NodeNames) -> QueueFigures:
    leader = None if queue.leader is None else names.short(queue.leader)
    members, online = tuple(map(names.short, queue.members)), tuple(map(names.short, queue.online))
    return replace(queue, leader=leader, members=members, online=online)


def failures_in(report: str) -> dict[EntityKey, str]:
    """The queues that a report of `rabbitmq-queues grow` or `shrink` tells as failed, with the reason."""
    try:
        rows = [(EntityKey(row["vhost"], row["name"]), str(row["result"])) for row in json.loads(report or "[]")]
    except (ValueError, TypeError, KeyError) as error:
        raise ClusterError(f"RabbitMQ's report makes no sense: {visible(report[:80])}") from error
    return {key: visible(result.removeprefix("error: ")) for key, result in rows if result != "ok"}
