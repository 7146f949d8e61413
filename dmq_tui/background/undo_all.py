"""The undoing of all active faults, as the console does it in one go; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dmq_core.actions.action import Action, action_of
from dmq_core.cluster.faults.model import Fault


@dataclass(frozen=True, slots=True)
class UndoAll:
    """All that undoes the active faults, one after the other."""

    actions: tuple[Action, ...]
    destructive: bool = False

    @property
    def title(self) -> str:
        """What is done."""
        return f"Undo {len(self.actions)} faults"

    @property
    def done(self) -> str:
        """That it was done."""
        return f"{len(self.actions)} faults undone"

    @property
    def node(self) -> str | None:
        """It concerns no single node."""
        return None

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that it concerns."""
        return frozenset(name for action in self.actions for name in action.nodes)


def undo_all(active: Sequence[Fault]) -> Action | UndoAll | None:
    """What undoes all of `active`; None where there is nothing to undo."""
    actions = tuple(dict.fromkeys(undo for fault in active if (undo := action_of(fault).undo) is not None))
    return UndoAll(actions) if len(actions) > 1 else next(iter(actions), None)
