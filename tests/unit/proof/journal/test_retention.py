"""Journals that nobody gave a folder are kept as long as there is room for them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.proof.journal import retention
from dmq_core.proof.journal.retention import JournalFile, journals_to_prune

NOW = 1_790_000_000.0
JOURNALS = st.lists(
    st.builds(JournalFile, st.builds(Path, st.uuids().map(str)), st.integers(0, 500), st.floats(NOW - 90_000, NOW)),
    max_size=12,
)


@given(JOURNALS)
def test_what_stays_fits_or_may_still_be_written_and_what_goes_is_older_than_what_stays(
    journals: list[JournalFile],
) -> None:
    gone = journals_to_prune(journals, NOW, most=1000)
    stays = [journal for journal in journals if journal not in gone]
    at_rest = [journal for journal in stays if NOW - journal.written_at > retention.RESTS_S]
    for journal in at_rest:
        assert sum(newer.size for newer in journals if newer.written_at > journal.written_at) < 1000
    assert bool(stays) == bool(journals)
    assert all(old.written_at <= new.written_at for old in gone for new in at_rest)
    assert list(gone) == sorted(gone, key=lambda journal: journal.written_at)


def test_only_journals_of_ours_are_ever_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "journals_to_prune", lambda kept, _now: tuple(kept))
    folder = retention.journals_folder()
    folder.mkdir(parents=True, exist_ok=True)
    ours, notes = folder / "20260101-120000-0123abcd.journal", folder / "notes.journal"
    for path in (ours, notes):
        path.write_text("x")
        os.utime(path, (time.time() - 90_000,) * 2)
    assert retention.prune() >= 1
    assert not ours.exists()
    assert notes.exists()
    notes.unlink()


def test_a_shelf_that_is_not_there_needs_no_tidying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DMQ_STATE_DIR", str(tmp_path))
    assert retention.prune() == 0
