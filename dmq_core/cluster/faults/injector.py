"""How faults of a whole cluster are done: by RabbitMQ's own tools in its nodes, whoever runs these."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from dmq_core.cluster.faults import erlang_links as links
from dmq_core.cluster.faults.model import Fault, FaultKind
from dmq_core.cluster.protocol import NodeAction, NodeInfo, NodeState
from dmq_core.cluster.readiness import side_by_side
from dmq_core.errors import ClusterError, InvalidInputError, OperationTimeoutError
from dmq_core.progress import Progress, ProgressListener
from dmq_core.text import visible

# Runs one of RabbitMQ's tools (`rabbitmqctl`, `rabbitmq-queues`, `rabbitmq-upgrade`) in a node within so many seconds
# and gives what it printed; `ClusterError` if it fails.
RunTool = Callable[[str, str, tuple[str, ...], float], str]
Act = Callable[[NodeAction, str, ProgressListener], None]
# Returns once these nodes and all that are up see each other.
Settle = Callable[[tuple[str, ...], ProgressListener], None]
_SET = {
    FaultKind.MEMORY_ALARM: ("memory", "vm_memory_monitor:set_vm_memory_high_watermark(0.00001)"),
    FaultKind.DISK_ALARM: ("disk", "rabbit_disk_monitor:set_disk_free_limit(1 bsl 60)"),
    # What a node was configured with stays in its environment.
    FaultKind.CLEAR_MEMORY_ALARM: (
        "memory",
        "{ok, L} = application:get_env(rabbit, vm_memory_high_watermark),"
        " vm_memory_monitor:set_vm_memory_high_watermark(L)",
    ),
    FaultKind.CLEAR_DISK_ALARM: (
        "disk",
        "{ok, L} = application:get_env(rabbit, disk_free_limit), rabbit_disk_monitor:set_disk_free_limit(L)",
    ),
}
_UNTIL = (
    " Await = fun Await(0) -> late; Await(N) ->"
    " case lists:keymember({{resource_limit, {resource}, node()}}, 1, rabbit_alarm:get_alarms()) of"
    " {wanted} -> done; _ -> timer:sleep(50), Await(N - 1) end end, Await(200)."
)
_MOVE = (
    "case rabbit_amqqueue:lookup(rabbit_misc:r({vhost}, queue, {queue})) of"
    " {{ok, Q}} -> case amqqueue:get_type(Q) of rabbit_quorum_queue ->"
    " {{Name, _}} = amqqueue:get_pid(Q),"
    " {{ok, _, {{_, Was}} = Leader}} = ra:members(amqqueue:get_pid(Q)),"
    " ra:transfer_leadership(Leader, {{Name, Target}}),"
    " Await = fun Await(0) -> late; Await(N) -> case ra:members({{Name, Target}}) of"
    " {{ok, _, {{_, Target}}}} -> done; _ -> timer:sleep(50), Await(N - 1) end end,"
    " {{Await(100), Was}};"
    " _ -> no_quorum_queue end; _ -> no_queue end."
)


# The reason is what clients are told.
_CLOSE = '[rabbit_networking:close_connection(C, "closed by dmq") || C <- rabbit_networking:local_connections()], done.'
_ALARM_OF = {"memory": FaultKind.MEMORY_ALARM, "disk": FaultKind.DISK_ALARM}
# In these a node evaluates what it is given; one that is isolated has no links that could be mended.
_AWAKE = frozenset({NodeState.RUNNING, NodeState.STARTING, NodeState.DRAINING, NodeState.UNREACHABLE})
_ASK_LIMIT_S = 20.0
# After these no link of the node is cut or slow.
MENDS_LINKS = frozenset({NodeAction.START, NodeAction.RESTART, NodeAction.REJOIN})


class FaultWorks:
    """Does faults to one cluster; `nodes` tells its nodes now, `run`, `act` and `settle` reach into them."""

    def __init__(self, nodes: Callable[[], tuple[NodeInfo, ...]], run: RunTool, act: Act, settle: Settle) -> None:
        self._nodes = nodes
        self._run = run
        self._act = act
        self._settle = settle

    def inject(self, fault: Fault, progress: ProgressListener) -> str | None:
        """Does `fault` and returns once it holds, with the node that led the queue of a leader that it moved.

        Raises `InvalidInputError` if the nodes are in no state for it.
        """
        if fault.kind is FaultKind.MOVE_LEADER:
            return self._move(fault)
        if fault.kind in _SET:
            self._alarm(fault)
        elif fault.kind is FaultKind.CUT_LINK:
            self._cut(fault)
        elif fault.kind is FaultKind.SLOW_LINK:
            self._slow(fault)
        elif fault.kind is FaultKind.MEND_LINK:
            self._mend(fault, progress)
        elif fault.kind is FaultKind.CLOSE_CONNECTIONS:
            self._eval(self._running(fault.node), _CLOSE, fault)
        elif fault.kind is FaultKind.REBALANCE:
            self._run(self._any_running(), "rabbitmq-queues", ("rebalance", "quorum"), fault.kind.limit_s)
        else:
            self._roll(progress)
        return None

    def active_faults(self) -> tuple[Fault, ...]:
        """The alarms and the cut and slow links that hold now, by what every node that answers tells of itself."""

        def ask(node: str) -> tuple[Fault, ...]:
            names = self._erlang_names()
            expression = links.active_expression(e for n, e in names.items() if n != node)
            return self._active_at(node, expression)

        return _each_once(side_by_side(ask, self._awake()))

    def mend_links(self, nodes: Iterable[str]) -> None:
        """Opens every cut or slow link of those of `nodes` that are awake, at its other end too, and waits for none.

        What is asked of a node that is about to boot or to end may fail, and is let go.
        """
        names = self._erlang_names()
        wanted = set(nodes)

        def mend(node: str) -> None:
            peers = [names[n] for n in names if n != node and (node in wanted or n in wanted)]
            expression = links.mend_expression(peers, forget=node in wanted)
            with contextlib.suppress(ClusterError, OperationTimeoutError):
                self._run(node, "rabbitmqctl", ("eval", expression), _ASK_LIMIT_S)

        side_by_side(mend, self._awake())

    def _cut(self, fault: Fault) -> None:
        node, peer = self._running(fault.node), self._running(fault.peer)
        peers = (self._erlang_names()[peer],)
        self._eval(node, links.noted(links.cut_expression(peers)), fault)

    def _slow(self, fault: Fault) -> None:
        node, names = self._running(fault.node), self._erlang_names()
        asked = [n for n in names if n != node] if fault.peer is None else [self._running(fault.peer)]
        expression = links.slow_expression([names[n] for n in asked], fault.delay_ms)
        said = self._eval(node, links.noted(expression), fault)
        if said == "late":
            raise OperationTimeoutError(
                f"slow link of {fault.node} and {fault.peer}: the peer does not answer",
                "'dmq fault undo slow-link' leaves nothing of it.",
            )
        if said == "[]":
            raise InvalidInputError(
                f"{fault.node} has no link to {fault.peer or 'any peer'} that could be slow",
                "'dmq fault active' shows which are cut.",
            )

    def _mend(self, fault: Fault, progress: ProgressListener) -> None:
        names, awake = self._erlang_names(), self._awake()
        if fault.node not in awake or (fault.peer is not None and fault.peer not in names):
            self._running(fault.node)
            self._running(fault.peer)
        ends = [n for n in names if n != fault.node] if fault.peer is None else [fault.peer]

        def mend(node: str) -> tuple[Fault, ...]:
            peers = ends if node == fault.node else [fault.node or ""] if node in ends else []
            others = [e for n, e in names.items() if n != node]
            expression = links.mend_expression([names[n] for n in peers], others)
            return self._active_at(node, expression)

        left = _each_once(side_by_side(mend, awake))
        cut = next((each for each in left if each.kind is FaultKind.CUT_LINK), None)
        if cut is None:
            self._settle(awake, progress)
        else:
            progress(Progress(f"the link of {cut.node} and {cut.peer} is still cut", fault.node))

    def _active_at(self, node: str, expression: str) -> tuple[Fault, ...]:
        ours = {erlang_name: name for name, erlang_name in self._erlang_names().items()}
        said = links.read_active(self._run(node, "rabbitmqctl", ("eval", expression), _ASK_LIMIT_S))
        return tuple(fault for each in said for fault in _as_fault(node, each, ours))

    def _erlang_names(self) -> dict[str, str]:
        return {info.name: info.erlang_name for info in self._nodes()}

    def _awake(self) -> tuple[str, ...]:
        return tuple(info.name for info in self._nodes() if info.state in _AWAKE)

    def _alarm(self, fault: Fault) -> None:
        node = self._running(fault.node)
        resource, change = _SET[fault.kind]
        wanted = "true" if fault.kind in (FaultKind.MEMORY_ALARM, FaultKind.DISK_ALARM) else "false"
        said = self._eval(node, f"{change}," + _UNTIL.format(resource=resource, wanted=wanted), fault)
        if said != "done":
            raise OperationTimeoutError(
                f"{fault.kind} at {node}: the node does not show it after ten seconds", "Look at 'dmq doctor'."
            )

    def _move(self, fault: Fault) -> str | None:
        target = self._running(fault.node)
        names = {info.erlang_name: info.name for info in self._nodes()}
        erlang_name = next(name for name, ours in names.items() if ours == target)
        question = _MOVE.format(vhost=erlang_binary(fault.virtual_host), queue=erlang_binary(fault.queue or ""))
        said = self._eval(target, f"Target = '{erlang_name}', {question}", fault)
        if said in ("no_queue", "no_quorum_queue"):
            raise InvalidInputError(
                f"there is no quorum queue {visible(fault.queue or '')!r} in virtual host {fault.virtual_host!r}",
                "'dmq queue list' shows those that there are.",
            )
        state, _, before = said.strip("{}").partition(",")
        if state != "done":
            raise OperationTimeoutError(
                f"move leader of {visible(fault.queue or '')} to {target}: the leader stays where it is",
                "Is a member of the queue on that node, and up to date?",
            )
        return names.get(before.strip("'"))

    def _roll(self, progress: ProgressListener) -> None:
        infos = self._nodes()
        missing = [info.name for info in infos if info.state is not NodeState.RUNNING]
        if missing or len(infos) < 3:
            raise InvalidInputError(
                f"a rolling restart needs three nodes or more that all run: {', '.join(missing) or len(infos)}",
                "'dmq start' brings every node back.",
            )
        for index, info in enumerate(infos):
            progress(Progress("awaiting replicas enough to go without it", info.name, index / len(infos)))
            wait = ("await_online_quorum_plus_one", "-t", "60")
            self._run(info.name, "rabbitmq-upgrade", wait, 70.0)
            self._act(NodeAction.DRAIN, info.name, progress)
            self._act(NodeAction.RESTART, info.name, progress)
        progress(Progress("spreading the leaders evenly", fraction=1.0))
        self._run(infos[0].name, "rabbitmq-queues", ("rebalance", "quorum"), 60.0)

    def _eval(self, node: str, expression: str, fault: Fault) -> str:
        return self._run(node, "rabbitmqctl", ("eval", expression), fault.kind.limit_s).strip()

    def _running(self, node: str | None) -> str:
        states: Mapping[str, NodeState] = {info.name: info.state for info in self._nodes()}
        if node is None or node not in states:
            raise InvalidInputError(f"there is no node {visible(node or '')!r}", f"The nodes are {', '.join(states)}.")
        if states[node] is not NodeState.RUNNING:
            raise InvalidInputError(f"{node} is {states[node]}", "'dmq start' brings every node back.")
        return node

    def _any_running(self) -> str:
        running = [info.name for info in self._nodes() if info.state is NodeState.RUNNING]
        if not running:
            raise ClusterError("no node runs", "'dmq start' brings every node back.")
        return running[0]


def _each_once(found: Iterable[tuple[Fault, ...]]) -> tuple[Fault, ...]:
    return tuple(dict.fromkeys(fault for faults in found for fault in faults))


def _as_fault(node: str, told: links.Told, ours: Mapping[str, str]) -> tuple[Fault, ...]:
    """What holds at `node` as a fault; a link is named from its first end, as both ends may tell of it."""
    if told.kind == "alarm":
        return (Fault(_ALARM_OF[told.what], node),) if told.what in _ALARM_OF else ()
    first, second = sorted((node, ours[told.what]))
    if told.delay_ms is None:
        return (Fault(FaultKind.CUT_LINK, first, peer=second),)
    return (Fault(FaultKind.SLOW_LINK, first, peer=second, delay_ms=told.delay_ms),)


def erlang_binary(text: str) -> str:
    """An Erlang binary that says `text`, whatever is in it."""
    return f"<<{','.join(map(str, text.encode()))}>>"
