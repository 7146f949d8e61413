"""Makes a whole result of a journal, be it of a run that has just ended or of one that was killed."""

from __future__ import annotations

from collections.abc import Iterable

from dmq_core.proof.journal.file import JournalReading
from dmq_core.proof.journal.records import DamageRecord, Record, RunSetup
from dmq_core.proof.judging.accounting import Accounting
from dmq_core.proof.judging.evidence import EvidenceCollector
from dmq_core.proof.judging.timeline import TimelineBuilder
from dmq_core.proof.judging.verdict import verdict_of
from dmq_core.proof.result import ProofResult


def judge(reading: JournalReading, trouble: str = "") -> ProofResult:
    """The result of the run that left this journal; `trouble`: why the run knows it to be incomplete, if it does.

    Takes some 7 s of processor time for a million messages.
    """
    return judged(reading.records(), reading.setup, str(reading.path), trouble)


def judged(records: Iterable[Record], setup: RunSetup, journal: str = "", trouble: str = "") -> ProofResult:
    """The result that these records make; as `judge`."""
    accounting, history, evidence_collector = Accounting(setup), TimelineBuilder(), EvidenceCollector(setup)
    account = accounting.add  # looked up once, since a method that chooses by type is made anew at each look
    for record in records:
        account(record)
        history.add(record)
        evidence_collector.add(record)
    if trouble:
        evidence_collector.add(DamageRecord(0.0, 0.0, trouble))
    accounted, build = accounting.accounted(), history.build()
    evidence = evidence_collector.evidence()
    verdict, reasons = verdict_of(accounted, build.timeline, evidence)
    return ProofResult(
        verdict=verdict,
        reasons=reasons,
        backend=setup.backend,
        rabbitmq=setup.rabbitmq,
        fault=setup.fault,
        target=setup.target,
        node=build.node,
        workload=setup.workload,
        account=accounted.account,
        timeline=build.timeline,
        marks=build.marks,
        curves=build.curves,
        max_confirm_gap_s=build.max_confirm_gap_s,
        max_delivery_gap_s=build.max_delivery_gap_s,
        began_at=build.began_at,
        ended_at=build.ended_at,
        seed=setup.seed,
        journal=journal,
        counter_checks=evidence.counter_checks,
    )
