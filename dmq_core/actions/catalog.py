"""The one place that says what can be done to a cluster: the words, the undo and the effect of every action.

A new fault is an entry here, how it is done (`dmq_core.cluster.faults.injector`) and a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from dmq_core.cluster.faults.model import DELAY_MS, FaultKind
from dmq_core.cluster.protocol import NodeAction, NodeState


class Scaling(StrEnum):
    """How many nodes there are can change; the words are those of `dmq node`."""

    ADD = "add"
    REMOVE = "remove"


class Scope(StrEnum):
    """What an action is done to."""

    NODE = "node"
    LINK = "link"
    QUEUE = "queue"
    CLUSTER = "cluster"


ActionKind: TypeAlias = NodeAction | FaultKind | Scaling


@dataclass(frozen=True, slots=True)
class ProofUse:
    """How a proof run uses an action: a run lasts `lasts_s` seconds and undoes it at `undo_s` (None: nothing to undo).

    `title` names the run (`{}` is the target), `hint` is one line for a form, `report` the sentence of a report, in
    which `{who}` is the node with its role and `{node}` its name alone. `name` is the word of `--fault`, where it is
    not that of the action. One that is not `targeted` happens to no node in particular, as `victims` says.
    """

    title: str
    hint: str
    report: str
    lasts_s: float
    undo_s: float | None
    name: str = ""
    targeted: bool = True
    victims: str = ""
    quorum_only: bool = False
    soak: bool = False


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """All that is to be known of one kind of action.

    `title` and `done` say what is done and that it was; they may name the node, peer, queue and delay. `past_tense` is
    what its node then is. `state` is what a node is in until `undo` is done. `expected` is the effect, on a cluster
    before 4.3 or of two nodes another one. `needs` and `takes` are what it must and may be given. `at_once`: clients
    may feel it before its node shows it. `takes_node_away`: its node may not count for the majority meanwhile. It is
    refused with fewer nodes than `least_nodes`, and with `all_must_run` unless every node runs.
    """

    kind: ActionKind
    scope: Scope
    title: str
    past_tense: str
    expected: str
    done: str = ""
    help: str = ""
    undo: ActionKind | None = None
    state: NodeState | None = None
    destructive: bool = False
    takes_node_away: bool = False
    at_once: bool = False
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    least_nodes: int = 1
    all_must_run: bool = False
    expected_before_4_3: str = ""
    expected_of_two: str = ""
    undone: str = ""
    proof: ProofUse | None = None

    @property
    def label(self) -> str:
        """Its name without a target: `Memory alarm`."""
        return str(self.kind).replace("-", " ").capitalize()

    @property
    def within_s(self) -> float:
        """The seconds within which it is done or fails; of a rolling restart, for each node."""
        if isinstance(self.kind, FaultKind):
            return self.kind.limit_s
        return 180.0 if isinstance(self.kind, Scaling) else 60.0


_NODE = ("node",)
_BLOCKED: Final = "Every publisher of the cluster is blocked within a second, on whichever node; consumers go on."
_RELEASED: Final = "Publishers go on within a second, unless another alarm holds them."
_CUT: Final = "Nothing passes between the two nodes any more; they notice after five to six seconds."
_SPECS: Final = (
    ActionSpec(
        NodeAction.KILL,
        Scope.NODE,
        "Kill {node}",
        "killed",
        "New leaders within a second; unacknowledged messages come again.",
        help="Kill the node at once (SIGKILL).",
        undo=NodeAction.START,
        state=NodeState.STOPPED,
        destructive=True,
        takes_node_away=True,
        at_once=True,
        needs=_NODE,
        proof=ProofUse(
            "Kill {}, start it again",
            "SIGKILL, then restart",
            "{who} was killed at once (SIGKILL)",
            16.0,
            8.0,
            soak=True,
        ),
    ),
    ActionSpec(
        NodeAction.STOP,
        Scope.NODE,
        "Stop {node}",
        "stopped",
        "Leaders move in half a second; clients reconnect.",
        help="Stop the node gracefully; its data stays.",
        undo=NodeAction.START,
        state=NodeState.STOPPED,
        destructive=True,
        takes_node_away=True,
        needs=_NODE,
        proof=ProofUse(
            "Stop {} gracefully, start it again",
            "gracefully, then start it again",
            "{who} was stopped gracefully",
            16.0,
            8.0,
            soak=True,
        ),
    ),
    ActionSpec(
        NodeAction.START,
        Scope.NODE,
        "Start {node}",
        "started",
        "The node serves, and its members catch up.",
        help="Start the node; returns once it serves.",
        needs=_NODE,
    ),
    ActionSpec(
        NodeAction.RESTART,
        Scope.NODE,
        "Restart {node}",
        "restarted",
        "Leaders move, the node is back in about ten seconds.",
        help="Stop the node, start it; returns once it serves.",
        state=NodeState.STOPPED,
        destructive=True,
        takes_node_away=True,
        needs=_NODE,
    ),
    ActionSpec(
        NodeAction.PAUSE,
        Scope.NODE,
        "Pause {node}",
        "paused",
        "Nobody is told; the others notice after one to six seconds.",
        help="Freeze the node: it keeps its connections and answers nobody.",
        undo=NodeAction.UNPAUSE,
        state=NodeState.PAUSED,
        destructive=True,
        takes_node_away=True,
        at_once=True,
        needs=_NODE,
        # Long enough for the others to notice (net_ticktime is 5 s on clusters that dmq makes).
        proof=ProofUse(
            "Freeze {}, let it go on",
            "it keeps its connections and says nothing",
            "{who} was frozen: it kept its connections and answered nobody",
            16.0,
            11.0,
            soak=True,
        ),
    ),
    ActionSpec(
        NodeAction.UNPAUSE,
        Scope.NODE,
        "Unpause {node}",
        "unpaused",
        "The node goes on where it was, and catches up.",
        help="Let a frozen node go on; returns once it serves.",
        needs=_NODE,
    ),
    ActionSpec(
        NodeAction.ISOLATE,
        Scope.NODE,
        "Isolate {node}",
        "isolated",
        "The others elect new leaders in one to three seconds; it keeps its clients and confirms them nothing.",
        expected_before_4_3="The others elect new leaders in one to three seconds; after about 6.5 s it closes its "
        "ports and its clients reconnect elsewhere.",
        help="Cut the node off from its peers; its clients still reach it.",
        undo=NodeAction.REJOIN,
        state=NodeState.ISOLATED,
        destructive=True,
        takes_node_away=True,
        at_once=True,
        needs=_NODE,
        proof=ProofUse(
            "Cut off {} from its peers, connect it again",
            "cut it off from its peers, not from clients",
            "{who} was cut off from its peers, while clients could still reach it",
            16.0,
            11.0,
            soak=True,
        ),
    ),
    ActionSpec(
        NodeAction.REJOIN,
        Scope.NODE,
        "Rejoin {node}",
        "back with its peers",
        "The cluster is whole again in one to ten seconds.",
        help="Connect a node that was cut off again; returns once the cluster is whole.",
        needs=_NODE,
    ),
    ActionSpec(
        NodeAction.DRAIN,
        Scope.NODE,
        "Drain {node}",
        "drained",
        "Leaders move in one to three seconds; its clients are closed and reconnect elsewhere.",
        help="Put the node into maintenance: it moves its leaders, closes its clients and takes no new ones.",
        undo=NodeAction.REVIVE,
        state=NodeState.DRAINING,
        destructive=True,
        takes_node_away=True,
        needs=_NODE,
        proof=ProofUse(
            "Put {} into maintenance, revive it",
            "maintenance: it gives leaders and clients away",
            "{who} was put into maintenance: it gave its leaders away and closed its clients' connections",
            14.0,
            8.0,
            soak=True,
        ),
    ),
    ActionSpec(
        NodeAction.REVIVE,
        Scope.NODE,
        "Revive {node}",
        "revived",
        "The node takes clients and leaders again.",
        help="End the node's maintenance; returns once it serves.",
        needs=_NODE,
    ),
    ActionSpec(
        FaultKind.ROLLING_RESTART,
        Scope.CLUSTER,
        "Rolling restart",
        "restarted",
        "One node after the other is drained and restarted, about 15 seconds each; a majority always runs.",
        done="every node restarted in turn",
        destructive=True,
        takes_node_away=True,
        least_nodes=3,
        all_must_run=True,
        proof=ProofUse(
            "Restart every node, one after the other",
            "stop and start every node, one after the other",
            "every node was restarted, one after the other",
            60.0,
            None,
            name="rolling",
            targeted=False,
            victims="every node, in turn",
        ),
    ),
    ActionSpec(
        FaultKind.MEMORY_ALARM,
        Scope.NODE,
        "Memory alarm at {node}",
        "put under a memory alarm",
        _BLOCKED,
        undo=FaultKind.CLEAR_MEMORY_ALARM,
        destructive=True,
        needs=_NODE,
        proof=ProofUse(
            "A memory alarm at {}, which blocks every publisher, then end it",
            "every publisher is blocked until it ends",
            "{who} raised a memory alarm, which blocks every publisher of the cluster",
            16.0,
            8.0,
            soak=True,
        ),
    ),
    ActionSpec(
        FaultKind.CLEAR_MEMORY_ALARM,
        Scope.NODE,
        "Clear memory alarm at {node}",
        "relieved of its memory alarm",
        _RELEASED,
        needs=_NODE,
    ),
    ActionSpec(
        FaultKind.DISK_ALARM,
        Scope.NODE,
        "Disk alarm at {node}",
        "put under a disk alarm",
        _BLOCKED,
        undo=FaultKind.CLEAR_DISK_ALARM,
        destructive=True,
        needs=_NODE,
        proof=ProofUse(
            "A disk alarm at {}, which blocks every publisher, then end it",
            "every publisher is blocked until it ends",
            "{who} raised a disk alarm, which blocks every publisher of the cluster",
            16.0,
            8.0,
        ),
    ),
    ActionSpec(
        FaultKind.CLEAR_DISK_ALARM,
        Scope.NODE,
        "Clear disk alarm at {node}",
        "relieved of its disk alarm",
        _RELEASED,
        needs=_NODE,
    ),
    ActionSpec(
        FaultKind.MOVE_LEADER,
        Scope.QUEUE,
        "Move leader of {queue} to {node}",
        "made the leader",
        "The queue's leader is on that node within a second; nothing is lost.",
        done="leader of {queue} moved to {node}",
        undone="no longer the leader",
        undo=FaultKind.MOVE_LEADER,
        needs=("node", "queue"),
        least_nodes=2,
        proof=ProofUse(
            "Move the queue's leader to {}, and back",
            "the queue's leader goes, and comes back",
            "the queue's leader was moved to {node}",
            14.0,
            8.0,
            quorum_only=True,
            soak=True,
        ),
    ),
    ActionSpec(
        FaultKind.REBALANCE,
        Scope.CLUSTER,
        "Rebalance",
        "the leader when leaders were spread anew",
        "Leaders of quorum queues are spread evenly; some move, nothing is lost.",
        done="leaders spread evenly",
        proof=ProofUse(
            "Spread the leaders of all queues evenly",
            "leaders are spread evenly over the nodes",
            "the leaders of all queues were spread evenly",
            12.0,
            None,
            targeted=False,
            victims="the leaders of all queues",
            quorum_only=True,
        ),
    ),
    ActionSpec(
        FaultKind.CUT_LINK,
        Scope.LINK,
        "Cut link of {node} and {peer}",
        "cut off from one other node",
        f"{_CUT} Every node stays up; clients of one end may wait for queues that the other end leads.",
        expected_before_4_3=f"{_CUT} RabbitMQ may then pause one, both or all nodes until the link is mended.",
        expected_of_two=f"{_CUT} Each of the two is then alone; they keep their clients and confirm nothing.",
        done="link of {node} and {peer} cut",
        undo=FaultKind.MEND_LINK,
        destructive=True,
        takes_node_away=True,
        needs=("node", "peer"),
        least_nodes=2,
        # As with a node that is silent.
        proof=ProofUse(
            "Cut the link of {} and one other node, mend it",
            "it and one other node do not reach each other",
            "{who} was cut off from one of its peers, while both could still reach the others",
            20.0,
            12.0,
            soak=True,
        ),
    ),
    ActionSpec(
        FaultKind.SLOW_LINK,
        Scope.LINK,
        "Slow link of {node} and {peer} by {delay_ms} ms",
        "slowed on its links",
        "What one node sends the other waits for up to the delay, half of it on average, each way; nobody is given up "
        "unless the delay is of the order of seconds.",
        done="link of {node} and {peer} slowed by {delay_ms} ms",
        undo=FaultKind.MEND_LINK,
        destructive=True,
        needs=_NODE,
        takes=("peer", "delay"),
        least_nodes=2,
        proof=ProofUse(
            "Slow the links of {} to all others, mend them",
            f"what it and the others send waits up to {DELAY_MS} ms",
            "{who} had slow links to all its peers",
            18.0,
            11.0,
            soak=True,
        ),
    ),
    ActionSpec(
        FaultKind.MEND_LINK,
        Scope.LINK,
        "Mend link of {node} and {peer}",
        "given whole links again",
        "The nodes reach each other at full speed again; the cluster is whole within ten seconds.",
        done="link of {node} and {peer} mended",
        needs=_NODE,
        takes=("peer",),
        least_nodes=2,
    ),
    ActionSpec(
        FaultKind.CLOSE_CONNECTIONS,
        Scope.NODE,
        "Close connections of {node}",
        "told to close every client's connection",
        "Every client of the node loses its connection at once, is told why, and connects again.",
        done="connections of {node} closed",
        destructive=True,
        at_once=True,
        needs=_NODE,
        proof=ProofUse(
            "Close every connection of {}",
            "every client of it is disconnected, and told why",
            "{who} closed the connections of all its clients",
            12.0,
            None,
            soak=True,
        ),
    ),
    ActionSpec(
        Scaling.ADD,
        Scope.CLUSTER,
        "Add a node",
        "added",
        "The new node serves, and every quorum queue and stream has a member on it, within three minutes.",
        help="Add a node; returns once it serves and quorum queues and streams have grown onto it.",
        undo=Scaling.REMOVE,
        takes=_NODE,
        all_must_run=True,
        proof=ProofUse(
            "Add a node, let queues grow onto it, remove it",
            "queues grow onto a new node, and leave it again",
            "a node, {node}, was added, and queues grew onto it",
            20.0,
            8.0,
            name="scale",
            targeted=False,
            victims="a node more",
        ),
    ),
    ActionSpec(
        Scaling.REMOVE,
        Scope.NODE,
        "Remove {node}",
        "removed",
        "Its queue members and its data are removed; its clients are closed and reconnect elsewhere.",
        help="Remove NODE and its data; returns once its queue members are elsewhere and the others forgot it.",
        destructive=True,
        takes_node_away=True,
        needs=_NODE,
    ),
)
CATALOG: Final[Mapping[ActionKind, ActionSpec]] = {spec.kind: spec for spec in _SPECS}
# By the words that journals keep.
BY_NAME: Final[Mapping[str, ActionSpec]] = {str(spec.kind): spec for spec in _SPECS}
# What a proof run may break: the word of `--fault`, and how it is used.
PROOF_NAMES: Final[Mapping[ActionKind, str]] = {
    spec.kind: spec.proof.name or str(spec.kind) for spec in _SPECS if spec.proof is not None
}
PROOF_FAULTS: Final[Mapping[str, ActionKind]] = {name: kind for kind, name in PROOF_NAMES.items()}
PROOF_USES: Final[Mapping[ActionKind, ProofUse]] = {spec.kind: spec.proof for spec in _SPECS if spec.proof is not None}
