"""What an action will cause, judged from a snapshot: figures and the majority that is left; the words come later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.majority import Margin, margin_left
from dmq_core.observe.snapshot import ClusterSnapshot, NodeView
from dmq_core.versions import Version, parse_version

_MINORITY_STAYS: Final = Version(4, 3)


class Count(StrEnum):
    """What becomes of the nodes that an impact counts."""

    REMAIN = "remain"
    REMAIN_AT_WORST = "remain at worst"
    RUN = "run"
    WILL_RUN = "will run"


@dataclass(frozen=True, slots=True)
class Impact:
    """What an action will cause; `remaining` of `total` nodes then vote, and `margin` is how safe that is.

    `counted` says how those nodes are told of (None: not at all). `target` is the node that goes, as it is now,
    `members` the queue members on it where they go for good, and `clients` how many connections are concerned where
    it is not those of one node. `summary` is said first, `ending` last.
    """

    margin: Margin
    remaining: int
    total: int
    counted: Count | None = None
    target: NodeView | None = None
    members: int | None = None
    clients: int | None = None
    expected: str = ""
    summary: str = ""
    ending: str = ""


class _Node(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def state(self) -> NodeState: ...


def votes_without(nodes: Iterable[_Node], *going: str) -> int:
    """How many of `nodes` count for the majority once those called `going` do not."""
    return sum(node.state.votes and node.name not in going for node in nodes)


def impact_of(action: Action, snapshot: ClusterSnapshot) -> Impact:
    """What `action` will cause, judged from `snapshot`."""
    remaining, total = _left_by(action, snapshot)
    margin = margin_left(remaining, total)
    expected = _expected(action, snapshot)
    if isinstance(action.kind, FaultKind):
        rolls = action.kind is FaultKind.ROLLING_RESTART
        counted = Count.REMAIN if rolls else Count.RUN if margin is Margin.NO_MAJORITY else None
        counted = None if action.kind is FaultKind.CUT_LINK else counted
        reaches_all = action.destructive and counted is not Count.REMAIN and action.kind is not FaultKind.CUT_LINK
        clients = len(snapshot.connections) if reaches_all else None
        return Impact(margin, remaining, total, counted, clients=clients, expected=expected)
    if not action.destructive:
        return Impact(margin, remaining, total, Count.WILL_RUN, expected=expected)
    target = None if action.node is None else snapshot.node(action.node)
    without = margin is Margin.NO_MAJORITY and action.kind not in (NodeAction.ISOLATE, Scaling.REMOVE)
    members = _members(target) if action.kind is Scaling.REMOVE else None
    return Impact(margin, remaining, total, Count.REMAIN, target, members, expected="" if without else expected)


def _members(node: NodeView | None) -> int | None:
    return None if node is None or node.leads is None or node.follows is None else node.leads + node.follows


def _left_by(action: Action, snapshot: ClusterSnapshot) -> tuple[int, int]:
    """How many of how many nodes surely still work together once `action` is noticed."""
    total, running = len(snapshot.nodes), votes_without(snapshot.nodes)
    match action.kind:
        case Scaling.ADD:
            return running + 1, total + 1
        case Scaling.REMOVE:
            return votes_without(snapshot.nodes, action.node or ""), total - _is_known(action, snapshot)
        case FaultKind.ROLLING_RESTART:
            return running - 1, total
        case FaultKind.CUT_LINK:
            if _is_before_4_3(snapshot):
                return 0, total
            # Two that have no third one to meet over are alone, each of them.
            return running if running > 2 else running - 1, total
        case FaultKind():
            return running, total
    comes = not action.destructive and _is_known(action, snapshot)
    return votes_without(snapshot.nodes, action.node or "") + comes, total


def _is_known(action: Action, snapshot: ClusterSnapshot) -> bool:
    return any(node.name == action.node for node in snapshot.nodes)


def _expected(action: Action, snapshot: ClusterSnapshot) -> str:
    spec = action.spec
    if spec.expected_before_4_3 and _is_before_4_3(snapshot):
        return spec.expected_before_4_3
    if spec.expected_of_two and votes_without(snapshot.nodes) <= 2:
        return spec.expected_of_two
    return spec.expected


def _is_before_4_3(snapshot: ClusterSnapshot) -> bool:
    version = None if snapshot.rabbitmq is None else parse_version(snapshot.rabbitmq)
    return version is not None and version < _MINORITY_STAYS
