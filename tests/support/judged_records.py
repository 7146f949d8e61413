"""What one collector of the judging makes of records, without the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from dmq_core.proof.journal.records import Record, RunSetup
from dmq_core.proof.judging.accounting import AccountedJournal, Accounting
from dmq_core.proof.judging.evidence import Evidence, EvidenceCollector
from dmq_core.proof.judging.timeline import RunHistory, TimelineBuilder


class Collector(Protocol):
    def add(self, record: Record) -> None: ...


C = TypeVar("C", bound=Collector)


def account_of(records: Iterable[Record], setup: RunSetup) -> AccountedJournal:
    return _filled(Accounting(setup), records).accounted()


def evidence_of(records: Iterable[Record], setup: RunSetup) -> Evidence:
    return _filled(EvidenceCollector(setup), records).evidence()


def history_of(records: Iterable[Record]) -> RunHistory:
    return _filled(TimelineBuilder(), records).build()


def _filled(collector: C, records: Iterable[Record]) -> C:
    add = collector.add
    for record in records:
        add(record)
    return collector
