"""`dmq doctor`: what is wrong with the set-up or the cluster, and what to do."""

from __future__ import annotations

from typing import Any

import click

from dmq_core.cli import reach
from dmq_core.cli.options import Invocation, common_options
from dmq_core.observe.events import Gravity
from dmq_core.observe.health import Finding, findings

_MARK = {Gravity.BAD: "✗", Gravity.NOTICE: "▲"}


@click.command()
@common_options
def doctor(invocation: Invocation) -> int:
    """Say what is wrong, and what to do.

    It looks at the set-up of this machine and at the cluster. Ends with 0 if nothing hurts now, and with 1 otherwise.
    """
    machine = reach.inspect_machine()
    cluster = reach.open_cluster(invocation.settings)
    exists = cluster.exists()
    found = findings(reach.take_snapshot(cluster)) if exists else ()
    sick = any(f.gravity is Gravity.BAD for f in found) or not (exists or machine.can_start)
    if invocation.out.json:
        invocation.out.document(
            {
                "cluster": cluster.name,
                "exists": exists,
                "machine": list(machine.findings),
                "advice": list(machine.advice),
                "findings": [_document(f) for f in found],
                "well": not sick,
            }
        )
        return int(sick)
    for line in machine.findings:
        invocation.out.text(line)
    for line in machine.advice:
        invocation.out.text(f"    {line}")
    if not exists:
        invocation.out.text(f"cluster {cluster.name}: none yet; 'dmq start' makes it")
    for finding in found:
        invocation.out.text(f"{_MARK[finding.gravity]} {finding.text}")
        invocation.out.text(f"    {finding.advice}")
    if exists and not found:
        invocation.out.text(f"cluster {cluster.name}: whole, nothing is wrong")
    return int(sick)


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "subject": finding.subject,
        "severity": str(finding.gravity),
        "text": finding.text,
        "advice": finding.advice,
    }
