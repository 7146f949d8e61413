"""`dmq doctor`: what is wrong with the set-up or the cluster, and what to do."""

from __future__ import annotations

from typing import Any

import click

from dmq_core.actions.action import Action, action_of
from dmq_core.actions.catalog import Scope
from dmq_core.actions.gate import guard_change
from dmq_core.cli import connect
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import Output
from dmq_core.cluster.prerequisites import DockerState, Package, Prerequisites
from dmq_core.cluster.protocol import Cluster
from dmq_core.errors import ClusterNotFoundError, DmqError
from dmq_core.observe.events import Severity
from dmq_core.observe.health import Finding, findings
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

_MARK = {Severity.BAD: "✗", Severity.NOTICE: "▲"}


@click.command()
@click.option("--install", is_flag=True, help="Install with apt what either backend needs.")
@common_options
def doctor(invocation: Invocation, install: bool) -> int:
    """Check the setup and the cluster: what is wrong, and what to do.

    Exit status: 0 if nothing is broken now, 1 otherwise.
    """
    if install:
        _install(invocation)
    machine = connect.inspect_machine()
    cluster = _existing(invocation)
    found = () if cluster is None else (*findings(connect.take_snapshot(cluster)), *_links(cluster))
    sick = any(f.severity is Severity.BAD for f in found) or not (cluster or machine.can_start)
    name = invocation.settings.cluster.value if cluster is None else cluster.name
    if invocation.out.json:
        invocation.out.document(
            {
                "cluster": name,
                "exists": cluster is not None,
                "machine": list(machine.findings),
                "advice": list(machine.advice),
                "findings": [_document(f) for f in found],
                "well": not sick,
            }
        )
        return int(sick)
    _write(invocation.out, machine, found)
    if cluster is None:
        invocation.out.text(
            f"cluster {visible(name)}: not created yet; start it with '{on_cluster('dmq start', visible(name))}'"
        )
    elif not found:
        invocation.out.text(f"cluster {visible(name)}: healthy, nothing is wrong")
    return int(sick)


def _existing(invocation: Invocation) -> Cluster | None:
    try:
        return connect.find_cluster(invocation.settings)
    except ClusterNotFoundError:
        return None


def _links(cluster: Cluster) -> tuple[Finding, ...]:
    """What was done to links and is active; alarms are among the findings of every snapshot."""
    try:
        active = cluster.active_faults()
    except DmqError:
        # Of an attached cluster nobody knows, and what keeps nodes from answering is among the other findings.
        return ()
    actions = [action for fault in active if (action := action_of(fault)).spec.scope is Scope.LINK]
    return tuple(_link_finding(action, undo, cluster.name) for action in actions if (undo := action.undo) is not None)


def _link_finding(action: Action, undo: Action, cluster: str) -> Finding:
    text, command = f"{visible(action.title)}: that fault is active", visible(on_cluster(undo.command, cluster))
    return Finding("link", action.node or "", Severity.BAD, text, f"Undo it: '{command}'.")


def _install(invocation: Invocation) -> None:
    guard_change("Install what is missing", read_only=invocation.settings.read_only.value)
    machine = connect.inspect_machine()
    wanted = [Package.RABBITMQ_SERVER] if machine.rabbitmq is None else []
    if machine.docker is DockerState.ANSWERS and not machine.debootstrap:
        wanted.append(Package.DEBOOTSTRAP)
    with invocation.out.progress() as progress:
        connect.install(wanted, progress)


def _write(out: Output, machine: Prerequisites, found: tuple[Finding, ...]) -> None:
    for line in machine.findings:
        out.text(visible(line))
    for line in machine.advice:
        out.text(f"    {line}")
    for finding in found:
        out.text(f"{_MARK[finding.severity]} {finding.text}")
        out.text(f"    {finding.advice}")


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "subject": finding.subject,
        "severity": str(finding.severity),
        "text": finding.text,
        "advice": finding.advice,
    }
