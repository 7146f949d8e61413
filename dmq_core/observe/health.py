"""What is wrong with a cluster, judged from one snapshot: pure rules, each with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dmq_core.cluster.protocol import Backend, NodeState
from dmq_core.majority import Margin, is_majority, margin_left
from dmq_core.observe.events import Severity
from dmq_core.observe.snapshot import ClusterSnapshot, QueueView
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

_MOST_QUEUES_NAMED = 3
_COMMAND = re.compile(r"'(dmq [^']+)'")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    `kind` is a stable word for programs (`node_down`, `no_majority`, `alarm`), `subject` what it is about (raw text
    from outside), `text` and `advice` are safe to show. BAD hurts now, NOTICE takes away a margin.
    """

    kind: str
    subject: str
    severity: Severity
    text: str
    advice: str


def findings(snapshot: ClusterSnapshot) -> tuple[Finding, ...]:
    """Everything wrong that the snapshot shows, what hurts now first; empty if the cluster is whole."""
    found = [finding for rule in _RULES for finding in rule(snapshot)]
    return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.BAD))


def _majority(snapshot: ClusterSnapshot) -> Iterator[Finding]:
    total, voting = len(snapshot.nodes), snapshot.voting
    if not snapshot.nodes:
        return
    margin = margin_left(voting, total)
    if not snapshot.running:
        yield Finding(
            "no_node",
            snapshot.cluster,
            Severity.BAD,
            f"none of {total} nodes runs",
            _ours(snapshot, "'dmq start' starts them all."),
        )
    elif margin is Margin.NO_MAJORITY:
        yield Finding(
            "no_majority",
            snapshot.cluster,
            Severity.BAD,
            f"{voting} of {total} nodes run, no majority: quorum queues take no messages",
            "Start nodes until more than half run.",
        )
    elif margin is Margin.NO_MARGIN and voting < total:
        yield Finding(
            "no_margin",
            snapshot.cluster,
            Severity.NOTICE,
            f"{voting} of {total} nodes run: quorum OK, cannot lose another",
            "Bring the missing node back before anything else fails.",
        )


def _nodes(snapshot: ClusterSnapshot) -> Iterator[Finding]:
    for node in snapshot.nodes:
        name = visible(node.name)
        kind, text, advice = {
            NodeState.RUNNING: ("", "", ""),
            NodeState.STARTING: ("node_starting", "is still starting", "Wait; 'dmq status' shows when it serves."),
            NodeState.STOPPED: ("node_down", "is stopped", f"Start it: 'dmq node start {name}'."),
            NodeState.PAUSED: ("node_paused", "is frozen", f"Let it go on: 'dmq node unpause {name}'."),
            NodeState.ISOLATED: ("node_isolated", "is cut off from its peers", f"End it: 'dmq node rejoin {name}'."),
            NodeState.DRAINING: ("node_draining", "is in maintenance", f"End that: 'dmq node revive {name}'."),
            NodeState.UNREACHABLE: ("node_down", "does not answer", f"See its log: 'dmq node logs {name}'."),
        }[node.state]
        if kind:
            severity = Severity.NOTICE if node.state in (NodeState.STARTING, NodeState.DRAINING) else Severity.BAD
            yield Finding(kind, node.name, severity, f"{name} {text}", _ours(snapshot, advice))


def _alarms(snapshot: ClusterSnapshot) -> Iterator[Finding]:
    for alarm in snapshot.alarms:
        node = snapshot.node(alarm.node)
        name = visible(alarm.node if node is None else node.name)
        yield Finding(
            "alarm",
            alarm.node,
            Severity.BAD,
            f"{name} has a {visible(alarm.resource)} alarm: every publisher of the cluster is blocked",
            "Free disk space there." if alarm.resource == "disk" else "Consume or purge what fills its memory.",
        )


def _partitions(snapshot: ClusterSnapshot) -> Iterator[Finding]:
    for name in snapshot.partitions:
        yield Finding(
            "partition",
            name,
            Severity.BAD,
            f"{visible(name)} is partitioned from the others",
            "Mend the network between them, then restart the side that you trust less.",
        )


def _queues(snapshot: ClusterSnapshot) -> Iterator[Finding]:
    headless = [q for q in snapshot.queues if q.members and not q.online]
    thin = [q for q in snapshot.queues if q.online and len(q.online) < len(q.members)]
    lost = [q for q in thin if not is_majority(len(q.online), len(q.members))]
    for queues, kind, severity, text in (
        ([*headless, *lost], "queue_unavailable", Severity.BAD, "without a majority of members: no messages in or out"),
        ([q for q in thin if q not in lost], "member_offline", Severity.NOTICE, "with a member offline"),
    ):
        if queues:
            yield Finding(
                kind,
                queues[0].figures.name,
                severity,
                f"{len(queues)} queue{'' if len(queues) == 1 else 's'} {text}: {_names(queues)}",
                "Bring their nodes back; members catch up by themselves.",
            )


def _sources(snapshot: ClusterSnapshot) -> Iterator[Finding]:
    for source in snapshot.sources:
        if source.name == "management" and source.problem and snapshot.running:
            yield Finding(
                "management_silent",
                source.endpoint or snapshot.cluster,
                Severity.BAD,
                f"the management API does not answer: {visible(source.problem)}",
                _ours(snapshot, "Figures are missing until it does; see why with 'dmq node logs NODE'."),
            )


def _names(queues: list[QueueView]) -> str:
    named = ", ".join(visible(q.figures.name) for q in queues[:_MOST_QUEUES_NAMED])
    more = len(queues) - _MOST_QUEUES_NAMED
    return named if more <= 0 else f"{named} and {more} more"


def _ours(snapshot: ClusterSnapshot, advice: str) -> str:
    """`advice` with its commands as they have to be typed for that cluster."""
    if snapshot.backend is Backend.ATTACHED:
        return "Ask whoever runs it."
    return _COMMAND.sub(lambda found: f"'{on_cluster(found[1], snapshot.cluster)}'", advice)


_RULES: tuple[Callable[[ClusterSnapshot], Iterator[Finding]], ...] = (
    _majority,
    _nodes,
    _partitions,
    _alarms,
    _queues,
    _sources,
)
