"""The report for scripts has the fixed fields under their fixed names."""

from __future__ import annotations

import json

import pytest
from proof_samples import failed, hostile, passed

from dmq_core.proof.report.json_document import contract_json
from dmq_core.proof.result import ProofResult

FIXED = [
    "verdict",
    "backend",
    "rabbitmq",
    "fault",
    "target",
    "attempted",
    "confirmed",
    "delivered",
    "redelivered",
    "duplicates",
    "lost",
    "unexpected",
    "leak",
    "phantom",
    "unknown",
    "order_violations",
    "timeline",
    "max_confirm_gap_s",
    "max_delivery_gap_s",
]


@pytest.mark.parametrize("result", [passed(), failed(), hostile()])
def test_it_is_json_that_keeps_every_text_as_it_is(result: ProofResult) -> None:
    report = json.loads(json.dumps(contract_json(result), allow_nan=False))
    assert report["reasons"] == list(result.reasons)
    assert report["workload"]["queue_type"] == result.workload.queue_type


def test_the_fixed_fields_are_there_first_and_in_order() -> None:
    report = contract_json(failed())
    assert list(report)[: len(FIXED)] == FIXED
    assert report["verdict"] == "FAIL"
    assert report["duplicates"] == {"redelivery": 58, "republish": 0, "retry_handoff": 0, "unexplained": 0}
    timeline = ["fault_s", "noticed_s", "reconnected_s", "leader_elected_s", "first_confirm_s", "first_delivery_s"]
    assert list(report["timeline"])[:6] == timeline
    assert report["lost"] == ["k3-000412", "k5-000007"]
