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
    return judged(reading.records(), reading.setting, str(reading.path), trouble)


def judged(records: Iterable[Record], setting: RunSetup, journal: str = "", trouble: str = "") -> ProofResult:
    """The result that these records make; as `judge`."""
    algebra, follower, witness = Accounting(setting), TimelineBuilder(), EvidenceCollector(setting)
    for record in records:
        algebra.take(record)
        follower.take(record)
        witness.take(record)
    if trouble:
        witness.take(DamageRecord(0.0, 0.0, trouble))
    accounted, course = algebra.accounted(), follower.course()
    evidence = witness.evidence()
    verdict, reasons = verdict_of(accounted, course.timeline, evidence)
    return ProofResult(
        verdict=verdict,
        reasons=reasons,
        backend=setting.backend,
        rabbitmq=setting.rabbitmq,
        fault=setting.fault,
        target=setting.target,
        node=course.node,
        workload=setting.workload,
        account=accounted.account,
        timeline=course.timeline,
        marks=course.marks,
        curves=course.curves,
        max_confirm_gap_s=course.max_confirm_gap_s,
        max_delivery_gap_s=course.max_delivery_gap_s,
        began_at=course.began_at,
        ended_at=course.ended_at,
        seed=setting.seed,
        journal=journal,
        balances=evidence.balances,
    )
