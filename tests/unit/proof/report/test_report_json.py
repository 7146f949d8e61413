"""The report for scripts has the fixed fields under their fixed names, and a result can be made of it again."""

from __future__ import annotations

import json

import pytest
from proof_samples import failed, hostile, passed

from dmq_core.errors import InvalidInputError
from dmq_core.proof.report.json_document import contract_json, from_json
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
def test_a_report_comes_back_whole(result: ProofResult) -> None:
    assert from_json(json.loads(json.dumps(contract_json(result)))) == result


def test_the_fixed_fields_are_there_first_and_in_order() -> None:
    report = contract_json(failed())
    assert list(report)[: len(FIXED)] == FIXED
    assert report["verdict"] == "FAIL"
    assert report["duplicates"] == {"redelivery": 58, "republish": 0, "retry_handoff": 0, "unexplained": 0}
    timeline = ["fault_s", "noticed_s", "reconnected_s", "leader_elected_s", "first_confirm_s", "first_delivery_s"]
    assert list(report["timeline"])[:6] == timeline
    assert report["lost"] == ["k3-000412", "k5-000007"]


def test_fields_of_a_later_version_are_passed_over() -> None:
    report = {**contract_json(passed()), "weather": "fine"}
    assert from_json(report) == passed()


@pytest.mark.parametrize(
    "change", [{"lost": 3}, {"verdict": "MAYBE"}, {"attempted": "1"}, {"curves": []}, {"marks": 7}]
)
def test_what_is_no_report_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="no report"):
        from_json({**contract_json(passed()), **change})
    with pytest.raises(InvalidInputError, match="no report"):
        from_json([])
