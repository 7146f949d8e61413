"""A proof run as JSON for scripts; pure.

The fields that `dmq proof run` fixes come first and keep their names; the others may grow.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from dmq_core.proof.result import ProofResult

_IDS: Final = ("lost", "unexpected", "leak", "phantom")
_TEXTS: Final = ("backend", "rabbitmq", "fault", "target", "node", "journal")
_NUMBERS: Final = ("max_confirm_gap_s", "max_delivery_gap_s", "began_at", "ended_at")


def contract_json(result: ProofResult) -> dict[str, Any]:
    """The report as what `json.dumps` takes."""
    account = result.account
    return {
        "verdict": result.verdict.value,
        "backend": result.backend,
        "rabbitmq": result.rabbitmq,
        "fault": result.fault,
        "target": result.target,
        "attempted": account.attempted,
        "confirmed": account.confirmed,
        "delivered": account.delivered,
        "redelivered": account.redelivered,
        "duplicates": asdict(account.duplicates),
        **{name: list(getattr(account, name)) for name in _IDS},
        "unknown": account.unknown,
        "order_violations": account.order_violations,
        "timeline": asdict(result.timeline),
        "max_confirm_gap_s": result.max_confirm_gap_s,
        "max_delivery_gap_s": result.max_delivery_gap_s,
        "reasons": list(result.reasons),
        "node": result.node,
        "nacked": account.nacked,
        "returned": account.returned,
        "not_sent": account.not_sent,
        "recovered": account.recovered,
        "workload": asdict(result.workload),
        "marks": [asdict(mark) for mark in result.marks],
        "curves": {
            "slice_s": result.curves.slice_s,
            "confirms": list(result.curves.confirms),
            "deliveries": list(result.curves.deliveries),
        },
        "began_at": result.began_at,
        "ended_at": result.ended_at,
        "seed": result.seed,
        "journal": result.journal,
        "counters": [asdict(balance) for balance in result.counter_checks],
    }
