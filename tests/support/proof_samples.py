"""Results of proof runs as they come out of real ones, for the tests of what shows them."""

from __future__ import annotations

from dataclasses import replace

from dmq_core.proof.result import Account, Curves, Duplicates, ProofResult, Timeline, TimelineMark, Verdict, Workload

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;'\"`|[a](javascript:b)\x1b[31m\u202e"


def passed() -> ProofResult:
    """A run in which the leader was killed and everything was accounted for."""
    steady = [500.0, 496.0, 504.0, 500.0] * 20
    confirms = [*steady[:26], 320.0, 0.0, 0.0, 980.0, 760.0, *steady[:49]]
    deliveries = [*steady[:26], 300.0, 0.0, 0.0, 40.0, 1160.0, 800.0, *steady[:48]]
    return ProofResult(
        verdict=Verdict.PASS,
        reasons=("All 9,874 confirmed messages were delivered, and the queue is empty on every node.",),
        backend="docker",
        rabbitmq="4.3.6",
        fault="kill",
        target="leader",
        node="rmq2",
        workload=Workload(),
        account=Account(9_890, 9_874, 4, 0, 12, 0, 9_881, 61, 7, Duplicates(redelivery=58)),
        timeline=Timeline(6.58, 0.004, 0.12, 0.41, 0.47, 0.63, 0.49),
        marks=(
            TimelineMark(6.58, "fault", "rmq2 killed"),
            TimelineMark(6.59, "client", "publisher 1 lost rmq2: the connection was closed"),
            TimelineMark(6.70, "client", "publisher 1 now on rmq3"),
            TimelineMark(6.99, "leader", "rmq3 leads the queue (term 2)"),
            TimelineMark(14.6, "undo", "rmq2 started"),
        ),
        curves=Curves(0.25, tuple(confirms), tuple(deliveries)),
        max_confirm_gap_s=0.51,
        max_delivery_gap_s=0.66,
        began_at=1_790_000_000.0,
        ended_at=1_790_000_024.0,
        seed=7,
        journal="/var/lib/dmq/proofs/20261124-133000",
    )


def failed() -> ProofResult:
    """A run that lost two messages."""
    account = replace(passed().account, lost=("k3-000412", "k5-000007"), order_violations=3)
    reasons = ("2 confirmed messages were never delivered: k3-000412, k5-000007.",)
    return replace(passed(), verdict=Verdict.FAIL, reasons=reasons, account=account)


def hostile() -> ProofResult:
    """A result all of whose texts are up to no good."""
    return replace(
        failed(),
        reasons=(HOSTILE,),
        backend=HOSTILE,
        rabbitmq=HOSTILE,
        target=HOSTILE,
        node=HOSTILE,
        workload=Workload(queue_type=HOSTILE, exchange_type=HOSTILE),
        account=Account(lost=(HOSTILE,)),
        marks=tuple(TimelineMark(float(n), kind, HOSTILE) for n, kind in enumerate(("fault", "leader", HOSTILE))),
        journal=HOSTILE,
    )
