"""A proof run as one HTML page without external files; pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from dmq_core.proof.report.chart_svg import chart, numbered
from dmq_core.proof.report.wording import (
    IDS_SHOWN,
    AccountRow,
    TimelineRow,
    account_rows,
    headline,
    repeat_command,
    run_summary,
    seconds_text,
    timeline_rows,
)
from dmq_core.proof.result import ProofResult, TimelineMark, Verdict
from dmq_core.text import visible

MARKS_SHOWN: Final = 300
_GLYPH: Final = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?"}
_STYLE: Final = """
:root{color-scheme:light dark;--back:#fff;--card:#f6f7f9;--ink:#1c2330;--soft:#5b6573;--line:#d9dee5;
--pass:#0a7d3c;--fail:#c22026;--inconclusive:#9a6700;--confirms:#1769c4;--deliveries:#c2570c;--leader:#7a3fc4}
@media(prefers-color-scheme:dark){:root{--back:#12161c;--card:#1b212a;--ink:#e4e8ee;--soft:#98a3b1;--line:#323b47;
--pass:#4cc280;--fail:#ff6b6b;--inconclusive:#e3b341;--confirms:#6cb0ff;--deliveries:#f5a35c;--leader:#bf94ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1040px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
.verdict{border-left:8px solid var(--of);background:var(--card);padding:1.1rem 1.4rem;border-radius:0 8px 8px 0}
.verdict h1{color:var(--of)} .verdict ul{margin:.5rem 0 0;padding-left:1.2rem}
.verdict.PASS{--of:var(--pass)} .verdict.FAIL{--of:var(--fail)} .verdict.INCONCLUSIVE{--of:var(--inconclusive)}
.figures{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.4rem 0 0;padding:0}
.figures div{background:var(--card);border-radius:8px;padding:.6rem 1rem;min-width:9rem;flex:1}
.figures dt{color:var(--soft);font-size:.85rem}
.figures dd{margin:0;font-size:1.35rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%} th{text-align:left;color:var(--soft);font-weight:500;font-size:.85rem}
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap} .soft{color:var(--soft)}
tr.bad td{color:var(--fail);font-weight:600} tr.zero td{color:var(--soft)} td:first-child{white-space:nowrap}
tr.fault td:nth-child(3){color:var(--fail);font-weight:600} tr.undo td:nth-child(3){color:var(--pass)}
tr.leader td:nth-child(3){color:var(--leader)}
code,pre{font-family:ui-monospace,monospace;font-size:.9rem;background:var(--card);border-radius:6px;overflow-wrap:anywhere}
code{padding:.1rem .3rem} pre{padding:.8rem 1rem;white-space:pre-wrap}
.chart{width:100%;min-width:640px;height:auto;display:block} .chart text{font:11px system-ui,sans-serif}
.chart .label{fill:var(--soft)} .chart .grid{stroke:var(--line)} .chart .curve{fill:none;stroke-width:1.6}
.chart .curve.confirms{stroke:var(--confirms)} .chart .curve.deliveries{stroke:var(--deliveries)}
.chart .gap.confirms{fill:var(--confirms);opacity:.16} .chart .gap.deliveries{fill:var(--deliveries);opacity:.16}
.chart .mark polyline{fill:none;stroke:var(--of);stroke-width:1.4} .chart .mark circle{fill:var(--of)}
.chart .mark text{fill:var(--back);font-weight:600} .chart .mark.undo polyline{stroke-dasharray:6 3}
.chart .mark.leader polyline{stroke-dasharray:2 3}
.fault{--of:var(--fail)} .undo{--of:var(--pass)} .leader{--of:var(--leader)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;color:var(--soft);font-size:.85rem;padding:0;
margin:.3rem 0 0;list-style:none}
.legend i{display:inline-block;width:1.4rem;height:0;border-top:2px solid;vertical-align:middle;margin-right:.4rem}
.legend .shade{height:.8rem;border:0;background:currentColor;opacity:.25}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
@media print{main{padding:0;max-width:none}}
"""
_LEGEND: Final = """<ul class="legend">
<li><i style="color:var(--confirms)"></i>confirms a second</li>
<li><i style="color:var(--deliveries)"></i>deliveries a second</li>
<li><i style="color:var(--fail)"></i>fault</li>
<li><i style="color:var(--leader);border-top-style:dotted"></i>new leader</li>
<li><i style="color:var(--pass);border-top-style:dashed"></i>undone</li>
<li><i class="shade" style="color:var(--confirms)"></i>longest gap</li></ul>"""


def html(result: ProofResult, command: str = "") -> str:
    """The page; `command` is the command line that repeats the run (empty: made from the result)."""
    title = f"{result.verdict} · dmq proof"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{_safe(title)}</title><style>{_STYLE}</style></head>
<body><main>
{_verdict(result)}
{_figures(result)}
<h2>The run</h2>
<p>{_safe(run_summary(result))}</p>
<h2>Confirms and deliveries</h2>
<div class="wide">{chart(result)}</div>
{_LEGEND}
<h2>What became of every message</h2>
{_account(account_rows(result))}
<h2>After the fault</h2>
{_timeline(timeline_rows(result.timeline))}
{_events(result)}
<h2>Repeat it</h2>
<pre>{_safe(command or repeat_command(result))}</pre>
{_journal(result)}
<footer>A gap is a time in which confirms or deliveries were expected and none arrived.
Every message was recorded in the journal before it was published and before it was acknowledged.</footer>
</main></body></html>
"""


def _safe(text: str) -> str:
    """Text from outside as text of the page, whatever it holds."""
    return escape(visible(text))


def _verdict(result: ProofResult) -> str:
    reasons = "".join(f"<li>{_safe(reason)}</li>" for reason in result.reasons)
    listed = f"<ul>{reasons}</ul>" if reasons else ""
    return (
        f'<section class="verdict {result.verdict.name}"><h1>{_GLYPH[result.verdict]} {_safe(headline(result))}</h1>'
        f"{listed}</section>"
    )


def _figures(result: ProofResult) -> str:
    account = result.account
    shown = (
        ("confirmed", f"{account.confirmed:,}"),
        ("lost", f"{len(account.lost):,}"),
        ("longest gap of confirms", seconds_text(result.max_confirm_gap_s)),
        ("longest gap of deliveries", seconds_text(result.max_delivery_gap_s)),
        ("redelivered", f"{account.redelivered:,}"),
    )
    return f'<dl class="figures">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown)}</dl>'


def _account(lines: Iterable[AccountRow]) -> str:
    rows = "".join(_term(term) for term in lines)
    return (
        '<div class="wide"><table><thead><tr><th>term</th><th class="n">messages</th><th>meaning</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _term(term: AccountRow) -> str:
    look = "bad" if term.is_bad else "zero" if not term.value else ""
    ids = ""
    if term.ids:
        more = len(term.ids) - IDS_SHOWN
        listed = " ".join(f"<code>{_safe(i)}</code>" for i in term.ids[:IDS_SHOWN])
        ids = f"<br/>{listed}{f' and {more:,} more' if more > 0 else ''}"
    figure = f'<td class="n">{term.value:,}</td>'
    return f'<tr class="{look}"><td>{term.name}</td>{figure}<td>{_safe(term.meaning)}{ids}</td></tr>'


def _timeline(lines: Iterable[TimelineRow]) -> str:
    rows = "".join(
        f'<tr class="{"zero" if m.after_s is None else ""}"><td>{m.name}</td>'
        f'<td class="n">{seconds_text(m.after_s)}</td><td>{_safe(m.meaning)}</td></tr>'
        for m in lines
    )
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'


def _events(result: ProofResult) -> str:
    if not result.marks:
        return ""
    numbers = {mark: number for number, mark in numbered(result.marks)}
    rows = "".join(_line(mark, numbers.get(mark)) for mark in result.marks[:MARKS_SHOWN])
    more = len(result.marks) - MARKS_SHOWN
    rest = f'<p class="soft">and {more:,} more, which the journal holds</p>' if more > 0 else ""
    return (
        '<h2>Events</h2><div class="wide"><table><thead><tr><th>mark</th><th class="n">second</th><th>what</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{rest}"
    )


def _line(mark: TimelineMark, number: int | None) -> str:
    kind = mark.kind if mark.kind in ("fault", "undo", "leader") else ""
    return (
        f'<tr class="{kind}"><td>{"" if number is None else number}</td><td class="n">{mark.at_s:.2f}</td>'
        f"<td>{_safe(mark.text)}</td></tr>"
    )


def _journal(result: ProofResult) -> str:
    if not result.journal:
        return ""
    return (
        f"<p>The journal, with every attempt, outcome and delivery, is in <code>{_safe(result.journal)}</code>. "
        "<code>dmq proof judge</code> reads it again. "
        f"The seed of the random choices was <code>{result.seed}</code>.</p>"
    )
