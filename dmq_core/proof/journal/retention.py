"""Where journals are kept that nobody gave a folder: the newest ones, until they fill four gibibytes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dmq_core.state_directory import state_folder

MOST_KEPT: Final = 4 << 30
# A run writes all the time, so that a journal which is older than this is nobody's any more.
RESTS_S: Final = 3600.0
_NAME: Final = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}\.journal")


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A journal on the shelf: its bytes, and the epoch second at which it was last written."""

    path: Path
    size: int
    written_at: float


def journals_folder() -> Path:
    """The folder, which may not be there yet."""
    return state_folder() / "proofs"


def journals_to_prune(journals: Iterable[JournalFile], now: float, most: int = MOST_KEPT) -> tuple[JournalFile, ...]:
    """Which of them have to go, oldest first: those that `most` bytes of newer ones have taken the room of.

    The newest stays, however big it is, and so does whatever may still be written.
    """
    gone: list[JournalFile] = []
    total = 0
    for journal in sorted(journals, key=lambda kept: kept.written_at, reverse=True):
        if total >= most and now - journal.written_at > RESTS_S:
            gone.append(journal)
        total += journal.size
    return tuple(reversed(gone))


def prune() -> int:
    """Removes what the shelf has outgrown; how many journals that were. Other files there are nobody's business."""
    removed = 0
    for journal in journals_to_prune(_kept(journals_folder()), time.time()):
        try:
            journal.path.unlink()
        except OSError:
            continue
        removed += 1
    return removed


def _kept(folder: Path) -> list[JournalFile]:
    found = []
    for path in folder.glob("*.journal"):
        try:
            fields_read = path.stat()
        except OSError:
            continue
        if _NAME.fullmatch(path.name):
            found.append(JournalFile(path, fields_read.st_size, fields_read.st_mtime))
    return found
