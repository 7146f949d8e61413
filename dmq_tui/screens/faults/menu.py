"""What the menu of faults offers: the active faults and their undo, then what can be done, to whom, why not; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dmq_core.actions.action import Action, action_of, matching_faults
from dmq_core.actions.catalog import CATALOG, ActionSpec, Scaling
from dmq_core.cluster.faults.model import DELAY_MS, Fault, FaultKind
from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.scaling.checks import check_may_grow, check_may_leave, lowest_free_name
from dmq_core.errors import DmqError
from dmq_core.management.models import EntityKey
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.presentation import Tone
from dmq_core.text import visible
from dmq_tui.render.format import Cell, Line, fit

DELAYS_MS: Final = (10, 50, DELAY_MS, 250, 500, 1000, 2000, 5000)
_QUORUM: Final = "quorum"
# What only undoes another one is offered where that one is active.
_OFFERED: Final = tuple(
    kind for kind in FaultKind if not any(s.undo is kind and s.kind is not kind for s in CATALOG.values())
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
class FaultMenuItem:
    """One line of the menu: `action` does it, unless there is an `objection`. `id` stays while the aim changes.

    `undoes`: the action undoes an active fault, which `title` names. `uses` are those of node, peer and delay that it
    is given.
    """

    id: str
    title: str
    expected: str
    within_s: float
    action: Action | None
    objection: str = ""
    undoes: bool = False
    uses: frozenset[str] = frozenset()


def alarms_of(snapshot: ClusterSnapshot | None) -> tuple[Fault, ...]:
    """The alarms that the figures tell of, as faults."""
    nodes = () if snapshot is None else snapshot.nodes
    return tuple(Fault(_ALARM_OF[a.resource], n.name) for n in nodes for a in n.alarms if a.resource in _ALARM_OF)


def menu_items(snapshot: ClusterSnapshot, aim: Aim, active: Sequence[Fault]) -> tuple[FaultMenuItem, ...]:
    """The lines of the menu for that aim."""
    done = map(action_of, active)
    undos = [_undo(action, undo) for action in done if (undo := action.undo) is not None]
    faults = (_fault(CATALOG[kind], snapshot, _aimed(kind, snapshot, aim), active) for kind in _OFFERED)
    return (*undos, *faults, _add(snapshot), _remove(snapshot, aim))


def peers(snapshot: ClusterSnapshot, node: str | None) -> tuple[str, ...]:
    """The other ends that a link of `node` may have, those that run first."""
    others = sorted((n for n in snapshot.nodes if n.name != node), key=lambda n: n.state is not NodeState.RUNNING)
    return tuple(n.name for n in others)


def line_of(item: FaultMenuItem, width: int) -> Line:
    """An item on one line; what cannot be done now is faint."""
    room = max(24, width * 2 // 5)
    tone = Tone.BAD if item.undoes else Tone.FAINT if item.objection else Tone.STRONG
    said = f"↵ undo: {item.expected}" if item.undoes else item.objection or item.expected
    return (
        Cell("✗ " if item.undoes else "  ", tone),
        Cell(f"{fit(visible(item.title), room)}  ", tone),
        Cell(fit(visible(said), max(0, width - room - 4)), Tone.QUIET),
    )


def _undo(fault: Action, undo: Action) -> FaultMenuItem:
    spec = undo.spec
    return FaultMenuItem(f"active: {fault.title}", fault.title, spec.expected, spec.within_s, undo, undoes=True)


def _fault(spec: ActionSpec, snapshot: ClusterSnapshot, aim: Aim, active: Sequence[Fault]) -> FaultMenuItem:
    uses = frozenset({*spec.needs, *spec.takes})
    why_not = _objection(spec, uses, snapshot, aim)
    if why_not:
        return FaultMenuItem(spec.kind, spec.label, spec.expected, spec.within_s, None, why_not, uses=uses)
    action = Action(
        spec.kind,
        aim.node if "node" in uses else None,
        aim.queue.name if aim.queue is not None and "queue" in uses else None,
        aim.queue.vhost if aim.queue is not None and "queue" in uses else "/",
        aim.peer if "peer" in uses else None,
        aim.delay_ms if "delay" in uses else DELAY_MS,
    )
    # A link that is slow can be slower.
    is_active = spec.kind is not FaultKind.SLOW_LINK and bool(matching_faults(action, active))
    why_not = "It is active already." if is_active else ""
    wanted = None if is_active else action
    return FaultMenuItem(spec.kind, action.title, spec.expected, spec.within_s, wanted, why_not, uses=uses)


def _aimed(kind: FaultKind, snapshot: ClusterSnapshot, aim: Aim) -> Aim:
    """`aim` with a peer that the fault may have; a link that is cut has one."""
    choice = peers(snapshot, aim.node)
    peer = aim.peer if aim.peer in choice else None
    return replace(aim, peer=next(iter(choice), None) if peer is None and kind is FaultKind.CUT_LINK else peer)


def _objection(spec: ActionSpec, uses: frozenset[str], snapshot: ClusterSnapshot, aim: Aim) -> str:
    """Why the fault cannot be done now, as the cluster would say too."""
    if "node" in uses and (said := _not_running(snapshot, aim.node)):
        return said
    if "peer" in uses and aim.peer is not None and (said := _not_running(snapshot, aim.peer)):
        return said
    if "peer" in uses and (len(snapshot.nodes) < spec.least_nodes or ("peer" in spec.needs and aim.peer is None)):
        return "It takes two nodes that run."
    if "queue" in uses:
        return _cannot_move(snapshot, aim)
    if spec.all_must_run:
        missing = snapshot.voting < len(snapshot.nodes) or len(snapshot.nodes) < spec.least_nodes
        return f"It takes {spec.least_nodes} nodes or more that all run." if missing else ""
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


def _add(snapshot: ClusterSnapshot) -> FaultMenuItem:
    infos = _infos(snapshot)
    why_not = _refusal(lambda: check_may_grow(infos)) or _refusal(lambda: lowest_free_name([n.name for n in infos]))
    return _scaling(Action(Scaling.ADD), why_not)


def _remove(snapshot: ClusterSnapshot, aim: Aim) -> FaultMenuItem:
    node = aim.node or ""
    return _scaling(Action(Scaling.REMOVE, node), _refusal(lambda: check_may_leave(node, _infos(snapshot))))


def _scaling(action: Action, why_not: str) -> FaultMenuItem:
    spec, uses = action.spec, frozenset(action.spec.needs)
    wanted = None if why_not else action
    return FaultMenuItem(spec.kind, action.title, spec.expected, spec.within_s, wanted, why_not, uses=uses)


def _infos(snapshot: ClusterSnapshot) -> tuple[NodeInfo, ...]:
    return tuple(NodeInfo(n.name, n.erlang_name, n.state, n.endpoint) for n in snapshot.nodes)


def _refusal(check: Callable[[], object]) -> str:
    """What the cluster would say to it; empty: nothing."""
    try:
        check()
    except DmqError as error:
        return f"{error.what[:1].upper()}{error.what[1:]}."
    return ""
