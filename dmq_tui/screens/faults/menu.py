"""What the menu of faults offers: what stands and its way back, then what can be done, to whom, and why not; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dmq_core.cluster.faults.model import DELAY_MS, Fault, FaultKind, needs_of, notes_of, takes_of, undo_of
from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import check_may_grow, check_may_leave, lowest_free_name
from dmq_core.errors import DmqError
from dmq_core.management.models import EntityKey
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.proof.acts import told_of
from dmq_core.text import visible
from dmq_tui.deeds import Deed, addition, of_fault, removal
from dmq_tui.render.format import Cell, Line, fit

DELAYS_MS: Final = (10, 50, DELAY_MS, 250, 500, 1000, 2000, 5000)
ADD: Final = "add-node"
REMOVE: Final = "remove-node"
_SCALES_WITHIN_S: Final = 180.0
_QUORUM: Final = "quorum"
_OFFERED: Final = (
    FaultKind.MEMORY_ALARM,
    FaultKind.DISK_ALARM,
    FaultKind.CUT_LINK,
    FaultKind.SLOW_LINK,
    FaultKind.MOVE_LEADER,
    FaultKind.REBALANCE,
    FaultKind.ROLLING_RESTART,
)
_ALARM_OF: Final = {"memory": FaultKind.MEMORY_ALARM, "disk": FaultKind.DISK_ALARM}


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom the faults would hit: names are raw; `peer` None is every peer, or of a link that is cut the first.

    `queue` is the one under pane 3's cursor.
    """

    node: str | None = None
    peer: str | None = None
    delay_ms: int = DELAY_MS
    queue: EntityKey | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One line of the menu: `deed` does it, unless there is an `objection`. `id` stays while the aim changes.

    `stands`: it takes back what is broken now, which `title` names. `uses` are those of node, peer and delay that it
    is given.
    """

    id: str
    title: str
    expected: str
    within_s: float
    deed: Deed | None
    objection: str = ""
    stands: bool = False
    uses: frozenset[str] = frozenset()


def alarms_of(snapshot: ClusterSnapshot | None) -> tuple[Fault, ...]:
    """The alarms that the figures tell of, as faults."""
    nodes = () if snapshot is None else snapshot.nodes
    return tuple(Fault(_ALARM_OF[a.resource], n.name) for n in nodes for a in n.alarms if a.resource in _ALARM_OF)


def offers(snapshot: ClusterSnapshot, aim: Aim, standing: Sequence[Fault]) -> tuple[Offer, ...]:
    """The lines of the menu for that aim."""
    mends = [_mend(fault, back) for fault in standing if (back := undo_of(fault)) is not None]
    faults = (_fault(kind, snapshot, _aimed(kind, snapshot, aim), standing) for kind in _OFFERED)
    return (*mends, *faults, _add(snapshot), _remove(snapshot, aim))


def peers(snapshot: ClusterSnapshot, node: str | None) -> tuple[str, ...]:
    """The other ends that a link of `node` may have, those that run first."""
    others = sorted((n for n in snapshot.nodes if n.name != node), key=lambda n: n.state is not NodeState.RUNNING)
    return tuple(n.name for n in others)


def line_of(offer: Offer, width: int) -> Line:
    """An offer on one line; what cannot be done now is faint."""
    room = max(24, width * 2 // 5)
    tone = Tone.BAD if offer.stands else Tone.FAINT if offer.objection else Tone.STRONG
    said = f"↵ takes it back: {offer.expected}" if offer.stands else offer.objection or offer.expected
    return (
        Cell("✗ " if offer.stands else "  ", tone),
        Cell(f"{fit(visible(offer.title), room)}  ", tone),
        Cell(fit(visible(said), max(0, width - room - 4)), Tone.QUIET),
    )


def _mend(fault: Fault, back: Fault) -> Offer:
    notes = notes_of(back.kind)
    return Offer(f"stands: {fault.title}", fault.title, notes.expected, notes.limit_s, of_fault(back), stands=True)


def _fault(kind: FaultKind, snapshot: ClusterSnapshot, aim: Aim, standing: Sequence[Fault]) -> Offer:
    notes, uses = notes_of(kind), frozenset({*needs_of(kind), *takes_of(kind)})
    why_not = _objection(kind, uses, snapshot, aim)
    title = str(kind).replace("-", " ").capitalize()
    if why_not:
        return Offer(kind, title, notes.expected, notes.limit_s, None, why_not, uses=uses)
    fault = Fault(
        kind,
        aim.node if "node" in uses else None,
        aim.queue.name if aim.queue is not None and "queue" in uses else None,
        aim.queue.vhost if aim.queue is not None and "queue" in uses else "/",
        aim.peer if "peer" in uses else None,
        aim.delay_ms if "delay" in uses else DELAY_MS,
    )
    # A link that is slow can be slower.
    stands = kind is not FaultKind.SLOW_LINK and bool(told_of(fault, standing))
    why_not, deed = ("It stands already.", None) if stands else ("", of_fault(fault))
    return Offer(kind, fault.title, notes.expected, notes.limit_s, deed, why_not, uses=uses)


def _aimed(kind: FaultKind, snapshot: ClusterSnapshot, aim: Aim) -> Aim:
    """`aim` with a peer that the fault may have; a link that is cut has one."""
    choice = peers(snapshot, aim.node)
    peer = aim.peer if aim.peer in choice else None
    return replace(aim, peer=next(iter(choice), None) if peer is None and kind is FaultKind.CUT_LINK else peer)


def _objection(kind: FaultKind, uses: frozenset[str], snapshot: ClusterSnapshot, aim: Aim) -> str:
    """Why the fault cannot be done now, as the cluster would say too."""
    if "node" in uses and (said := _not_running(snapshot, aim.node)):
        return said
    if "peer" in uses and aim.peer is not None and (said := _not_running(snapshot, aim.peer)):
        return said
    if "peer" in uses and (len(snapshot.nodes) < 2 or (kind is FaultKind.CUT_LINK and aim.peer is None)):
        return "It takes two nodes that run."
    if "queue" in uses:
        return _cannot_move(snapshot, aim)
    if kind is FaultKind.ROLLING_RESTART:
        missing = [n.name for n in snapshot.nodes if n.state is not NodeState.RUNNING]
        return "It takes three nodes or more that all run." if missing or len(snapshot.nodes) < 3 else ""
    return ""


def _not_running(snapshot: ClusterSnapshot, node: str | None) -> str:
    view = None if node is None else snapshot.node(node)
    if view is None:
        return "No such node is there now."
    return "" if view.state is NodeState.RUNNING else f"{visible(view.name)} is {view.state}."


def _cannot_move(snapshot: ClusterSnapshot, aim: Aim) -> str:
    queue = None if aim.queue is None else snapshot.queue(aim.queue)
    if queue is None:
        return "Choose a quorum queue in pane 3 first."
    if queue.figures.type != _QUORUM:
        return f"{visible(queue.figures.name)} is no quorum queue; choose one in pane 3."
    if queue.leader == aim.node:
        return f"{visible(aim.node or '')} leads {visible(queue.figures.name)} now."
    if aim.node not in queue.members:
        return f"{visible(aim.node or '')} has no member of {visible(queue.figures.name)}."
    return ""


def _add(snapshot: ClusterSnapshot) -> Offer:
    infos = _infos(snapshot)
    why_not = _refusal(lambda: check_may_grow(infos)) or _refusal(lambda: lowest_free_name([n.name for n in infos]))
    deed = addition()
    expected = deed.impact(snapshot).sentences[0].removeprefix("Expected: ")
    return Offer(ADD, deed.title, expected, _SCALES_WITHIN_S, None if why_not else deed, why_not)


def _remove(snapshot: ClusterSnapshot, aim: Aim) -> Offer:
    uses = frozenset({"node"})
    node = aim.node or ""
    deed = removal(node)
    expected = deed.impact(snapshot).sentences[0]
    why_not = _refusal(lambda: check_may_leave(node, _infos(snapshot)))
    return Offer(REMOVE, deed.title, expected, _SCALES_WITHIN_S, None if why_not else deed, why_not, uses=uses)


def _infos(snapshot: ClusterSnapshot) -> tuple[NodeInfo, ...]:
    return tuple(NodeInfo(n.name, n.erlang_name, n.state, n.endpoint) for n in snapshot.nodes)


def _refusal(check: Callable[[], object]) -> str:
    """What the cluster would say to it; empty: nothing."""
    try:
        check()
    except DmqError as error:
        return f"{error.what[:1].upper()}{error.what[1:]}."
    return ""
