"""Acts on nodes as data: what will be done, to whom, what it will cause, and the one gate that may refuse it."""

from __future__ import annotations

from dataclasses import dataclass

from dmq_core.cluster.protocol import NodeAction

_TAKES_DOWN = frozenset(
    {NodeAction.KILL, NodeAction.STOP, NodeAction.RESTART, NodeAction.PAUSE, NodeAction.ISOLATE, NodeAction.DRAIN}
)
_VERB = {
    NodeAction.KILL: "Kill",
    NodeAction.STOP: "Stop",
    NodeAction.START: "Start",
    NodeAction.RESTART: "Restart",
    NodeAction.PAUSE: "Pause",
    NodeAction.UNPAUSE: "Unpause",
    NodeAction.ISOLATE: "Isolate",
    NodeAction.REJOIN: "Rejoin",
    NodeAction.DRAIN: "Drain",
    NodeAction.REVIVE: "Revive",
}
_DONE = {
    NodeAction.KILL: "killed",
    NodeAction.STOP: "stopped",
    NodeAction.START: "started",
    NodeAction.RESTART: "restarted",
    NodeAction.PAUSE: "paused",
    NodeAction.UNPAUSE: "unpaused",
    NodeAction.ISOLATE: "isolated",
    NodeAction.REJOIN: "back with its peers",
    NodeAction.DRAIN: "drained",
    NodeAction.REVIVE: "revived",
}
_UNDO = {
    NodeAction.KILL: NodeAction.START,
    NodeAction.STOP: NodeAction.START,
    NodeAction.PAUSE: NodeAction.UNPAUSE,
    NodeAction.ISOLATE: NodeAction.REJOIN,
    NodeAction.DRAIN: NodeAction.REVIVE,
}


@dataclass(frozen=True, slots=True)
class NodeOperation:
    """An act on the node called `node`, captured by name so that a moving cursor cannot change its target."""

    action: NodeAction
    node: str

    @property
    def title(self) -> str:
        """`Kill rmq2`."""
        return f"{_VERB[self.action]} {self.node}"

    @property
    def command(self) -> str:
        """The `dmq` command that does the same."""
        return f"dmq node {self.action} {self.node}"

    @property
    def done(self) -> str:
        """`rmq2 killed`."""
        return f"{self.node} {_DONE[self.action]}"

    @property
    def destructive(self) -> bool:
        """Whether it takes the node away from its clients."""
        return self.action in _TAKES_DOWN

    @property
    def undo(self) -> NodeOperation | None:
        """The act that brings the node back, if there is one."""
        action = _UNDO.get(self.action)
        return None if action is None else NodeOperation(action, self.node)
