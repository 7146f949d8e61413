"""A proof run as Markdown, for a pull request or a ticket; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dmq_core.proof.report.wording import (
    IDS_SHOWN,
    account_rows,
    headline,
    repeat_command,
    run_summary,
    seconds_text,
    timeline_rows,
)
from dmq_core.proof.result import ProofResult, TimelineMark
from dmq_core.text import visible

MARKS_SHOWN = 200
# Whatever could begin markup, HTML, a link, a mention or a cell, anywhere or at the beginning.
_MEANINGFUL = re.compile(r"([\\`*_{}\[\]<>#!|~&@]|:(?=//)|^[-+=]|^\d+(?=[.)]))")


def markdown(result: ProofResult, command: str = "") -> str:
    """The report as Markdown; `command` is the command line that repeats it (empty: made from the result)."""
    parts = [
        f"# {_plain(headline(result))}",
        *(f"- {_plain(reason)}" for reason in result.reasons),
        "",
        _plain(run_summary(result)),
        "",
        f"Longest gap between confirms **{seconds_text(result.max_confirm_gap_s)}**, "
        f"between deliveries **{seconds_text(result.max_delivery_gap_s)}**.",
        "",
        "## Account",
        "",
        "| term | messages | meaning |",
        "|---|---:|---|",
        *_account_rows(result),
        "",
        *_ids(result),
        "## Timeline",
        "",
        "| event | after the fault | meaning |",
        "|---|---:|---|",
        *(f"| {m.name} | {seconds_text(m.after_s)} | {m.meaning} |" for m in timeline_rows(result.timeline)),
        "",
        *_events(result.marks),
        "## Repeat it",
        "",
        _fence(command or repeat_command(result)),
        "",
        *([f"The journal of every message is in `{_in_code(result.journal)}`.", ""] if result.journal else []),
    ]
    return "\n".join(parts)


def _account_rows(result: ProofResult) -> Iterable[str]:
    for term in account_rows(result):
        name, value = (f"**{term.name}**", f"**{term.value:,}**") if term.is_bad else (term.name, f"{term.value:,}")
        yield f"| {name} | {value} | {term.meaning} |"


def _ids(result: ProofResult) -> Iterable[str]:
    for term in account_rows(result):
        if term.ids:
            more = len(term.ids) - IDS_SHOWN
            shown = ", ".join(f"`{_in_code(i)}`" for i in term.ids[:IDS_SHOWN])
            yield f"{term.name}: {shown}{f' and {more:,} more' if more > 0 else ''}\n"


def _events(marks: tuple[TimelineMark, ...]) -> Iterable[str]:
    if not marks:
        return
    for mark in marks[:MARKS_SHOWN]:
        yield f"- {mark.at_s:.2f} s: {_plain(mark.text)}"
    if len(marks) > MARKS_SHOWN:
        yield f"- and {len(marks) - MARKS_SHOWN:,} more, which the journal holds"
    yield ""


def _plain(text: str) -> str:
    """`text` so that Markdown shows it as it is."""
    return _MEANINGFUL.sub(_escaped, visible(text))


def _escaped(found: re.Match[str]) -> str:
    # A backslash says nothing before a digit: there the dot behind it makes the list.
    return f"{found[0]}\u200b" if found[0].isdigit() else f"\\{found[0]}"


def _in_code(text: str) -> str:
    return visible(text).replace("`", "'").replace("|", "\\|")


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{visible(text)}\n{ticks}"
