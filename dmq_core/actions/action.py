"""One thing to do to a cluster, as a value: what the catalog says of its kind, and its target."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dmq_core.actions.catalog import BY_NAME, CATALOG, ActionKind, ActionSpec, Scaling, Scope
from dmq_core.cluster.faults.model import DELAY_MS, Fault, FaultKind
from dmq_core.cluster.protocol import NodeAction, NodeState
from dmq_core.errors import InvalidInputError

_DELAYS_MS: Final = range(1, 5001)
_SEE: Final = "'dmq fault list' shows what each fault needs."
# What brings a node back to service from a state, whatever put it there.
RECOVERY: Final = {
    **{spec.state: spec.undo for spec in CATALOG.values() if spec.state and isinstance(spec.undo, NodeAction)},
    NodeState.STARTING: NodeAction.START,
    NodeState.UNREACHABLE: NodeAction.START,
}


@dataclass(frozen=True, slots=True)
class Action:
    """An action with its target, captured whole so that a moving cursor cannot change it; names in it are raw.

    `node` is the one that it is done to, where an alarm is or a leader goes, or one end of a link, whose other is
    `peer` (None: every peer). `queue` of `virtual_host` is what moves. A node that is added need not be named.
    `InvalidInputError` if it is not given what its kind needs, or is given what that has no use for.
    """

    kind: ActionKind
    node: str | None = None
    queue: str | None = None
    virtual_host: str = "/"
    peer: str | None = None
    delay_ms: int = DELAY_MS

    def __post_init__(self) -> None:
        spec = self.spec
        delay = None if self.delay_ms == DELAY_MS else self.delay_ms
        for what, given in (("node", self.node), ("queue", self.queue), ("peer", self.peer), ("delay", delay)):
            if given is None and what in spec.needs:
                raise InvalidInputError(f"{self.kind} needs a {what}", _SEE)
            if given is not None and what not in (*spec.needs, *spec.takes):
                raise InvalidInputError(f"{self.kind} takes no {what}", _SEE)
        if self.delay_ms not in _DELAYS_MS:
            raise InvalidInputError(f"a delay of {self.delay_ms} ms", f"It may be 1 to {_DELAYS_MS[-1]}.")
        if self.node is not None and self.node == self.peer:
            raise InvalidInputError(f"{self.node} has no link to itself", "The peer is another node.")

    @property
    def spec(self) -> ActionSpec:
        """What the catalog says of its kind."""
        return CATALOG[self.kind]

    @property
    def title(self) -> str:
        """`Kill rmq2`; `Cut link of rmq1 and rmq2`."""
        return self._filled(self.spec.title)

    @property
    def done(self) -> str:
        """`rmq2 killed`; `link of rmq1 and rmq2 cut`."""
        return self._filled(self.spec.done or f"{{node}} {self.spec.past_tense}")

    @property
    def command(self) -> str:
        """The `dmq` command that does the same."""
        if not isinstance(self.kind, FaultKind):
            node = [shlex.quote(self.node)] if self.node and self.kind is not Scaling.ADD else []
            return " ".join(["dmq node", self.kind, *node])
        given = {"--node": self.node, "--peer": self.peer, "--queue": self.queue}
        if self.virtual_host != "/":
            given["--vhost"] = self.virtual_host
        if self.delay_ms != DELAY_MS:
            given["--delay"] = str(self.delay_ms)
        options = [f"{name} {shlex.quote(value)}" for name, value in given.items() if value is not None]
        return " ".join([f"dmq fault do {self.kind}", *options])

    @property
    def destructive(self) -> bool:
        """Whether it takes something away from clients, so that people are asked first."""
        return self.spec.destructive

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that it concerns; empty: all."""
        if self.kind is Scaling.ADD:
            return frozenset()
        return frozenset(name for name in (self.node, self.peer) if name is not None)

    @property
    def undo(self) -> Action | None:
        """The action that undoes it, if there is one and enough is known for it."""
        return undo_of(self)

    @property
    def ends_another(self) -> bool:
        """Whether all that it does is to undo another action."""
        is_an_undo = any(spec.undo is self.kind and spec.kind is not self.kind for spec in CATALOG.values())
        return is_an_undo and not self.destructive

    @property
    def event_kind(self) -> str:
        """The word for programs of the event that tells of it."""
        return f"{'fault' if isinstance(self.kind, FaultKind) else 'node'}_{self.kind}"

    def _filled(self, words: str) -> str:
        node = self.node if self.node is not None else "a node"
        return words.format(node=node, peer=self.peer or "all its peers", queue=self.queue, delay_ms=self.delay_ms)


def undo_of(action: Action, leader_before: str | None = None) -> Action | None:
    """What undoes `action`; a leader that was moved goes back to `leader_before`."""
    kind = action.spec.undo
    if kind is FaultKind.MOVE_LEADER:
        known = leader_before is not None and leader_before != action.node
        return Action(kind, leader_before, action.queue, action.virtual_host) if known else None
    if kind is None or action.node is None:
        return None
    return Action(kind, action.node, peer=action.peer)


def action_of(fault: Fault) -> Action:
    """What was done where `fault` is active."""
    return Action(fault.kind, fault.node, fault.queue, fault.virtual_host, fault.peer, fault.delay_ms)


def matching_faults(action: Action, active: Sequence[Fault]) -> tuple[Fault, ...]:
    """Those of `active` that are what `action` did; one that slows all links of a node is told of link by link."""
    return tuple(f for f in active if f.kind is action.kind and action.nodes <= {f.node, f.peer})


def undo_command(name: str, node: str) -> str:
    """The `dmq` command that undoes what a journal calls `name` at `node`; empty where nothing is left of it."""
    spec = BY_NAME.get(name)
    if spec is None or spec.undo is None or spec.scope is Scope.QUEUE:
        return ""
    # Which peer's link it was is told by no journal; all of them are mended.
    return Action(spec.undo, node).command
