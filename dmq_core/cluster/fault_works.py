"""How faults of a whole cluster are done: by RabbitMQ's own tools in its nodes, whoever runs these."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dmq_core.cluster.base import NodeAction, NodeInfo, NodeState, Progress, ProgressListener
from dmq_core.cluster.faults import Fault, FaultKind, notes_of, undo_of
from dmq_core.errors import BadInput, ClusterFailed, TimedOut
from dmq_core.text import visible

# Runs one of RabbitMQ's tools (`rabbitmqctl`, `rabbitmq-queues`, `rabbitmq-upgrade`) in a node within so many seconds
# and gives what it printed; `ClusterFailed` if it fails.
RunTool = Callable[[str, str, tuple[str, ...], float], str]
Act = Callable[[NodeAction, str, ProgressListener], None]

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


class FaultWorks:
    """Does faults to one cluster; `nodes` tells its nodes now, `run` and `act` reach into them."""

    def __init__(self, nodes: Callable[[], tuple[NodeInfo, ...]], run: RunTool, act: Act) -> None:
        self._nodes = nodes
        self._run = run
        self._act = act

    def cause(self, fault: Fault, progress: ProgressListener) -> Fault | None:
        """Does `fault` and returns its way back once it holds; `BadInput` if the nodes are in no state for it."""
        if fault.kind in _SET:
            return self._alarm(fault)
        if fault.kind is FaultKind.MOVE_LEADER:
            return self._move(fault)
        if fault.kind is FaultKind.REBALANCE:
            self._run(self._any_running(), "rabbitmq-queues", ("rebalance", "quorum"), notes_of(fault.kind).limit_s)
        elif fault.kind is FaultKind.ROLLING_RESTART:
            self._roll(progress)
        else:
            raise BadInput(f"{fault.title}: this backend cannot do that")
        return None

    def _alarm(self, fault: Fault) -> Fault | None:
        node = self._running(fault.node)
        resource, change = _SET[fault.kind]
        wanted = "true" if fault.kind in (FaultKind.MEMORY_ALARM, FaultKind.DISK_ALARM) else "false"
        said = self._eval(node, f"{change}," + _UNTIL.format(resource=resource, wanted=wanted), fault)
        if said != "done":
            raise TimedOut(f"{fault.title}: {node} does not tell of it after ten seconds", "Look at 'dmq doctor'.")
        return undo_of(fault)

    def _move(self, fault: Fault) -> Fault | None:
        target = self._running(fault.node)
        names = {info.erlang_name: info.name for info in self._nodes()}
        erlang_name = next(name for name, ours in names.items() if ours == target)
        question = _MOVE.format(vhost=_binary(fault.virtual_host), queue=_binary(fault.queue or ""))
        said = self._eval(target, f"Target = '{erlang_name}', {question}", fault)
        if said in ("no_queue", "no_quorum_queue"):
            raise BadInput(
                f"there is no quorum queue {visible(fault.queue or '')!r} in virtual host {fault.virtual_host!r}",
                "'dmq queue list' shows those that there are.",
            )
        state, _, before = said.strip("{}").partition(",")
        if state != "done":
            raise TimedOut(
                f"{fault.title}: the leader stays where it is", "Is a member of the queue on that node, and up to date?"
            )
        return undo_of(fault, names.get(before.strip("'")))

    def _roll(self, progress: ProgressListener) -> None:
        infos = self._nodes()
        missing = [info.name for info in infos if info.state is not NodeState.RUNNING]
        if missing or len(infos) < 3:
            raise BadInput(
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
        return self._run(node, "rabbitmqctl", ("eval", expression), notes_of(fault.kind).limit_s).strip()

    def _running(self, node: str | None) -> str:
        states: Mapping[str, NodeState] = {info.name: info.state for info in self._nodes()}
        if node is None or node not in states:
            raise BadInput(f"there is no node {visible(node or '')!r}", f"The nodes are {', '.join(states)}.")
        if states[node] is not NodeState.RUNNING:
            raise BadInput(f"{node} is {states[node]}", "'dmq start' brings every node back.")
        return node

    def _any_running(self) -> str:
        running = [info.name for info in self._nodes() if info.state is NodeState.RUNNING]
        if not running:
            raise ClusterFailed("no node runs", "'dmq start' brings every node back.")
        return running[0]


def _binary(text: str) -> str:
    """An Erlang binary that says `text`, whatever is in it."""
    return f"<<{','.join(map(str, text.encode()))}>>"
