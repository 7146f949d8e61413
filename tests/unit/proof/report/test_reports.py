"""What people read of a proof run: everything is in it, and nothing from outside becomes markup."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from proof_samples import HOSTILE, failed, hostile, passed

from dmq_core.proof.report.chart_svg import chart, longest_gap, numbered
from dmq_core.proof.report.html_page import html
from dmq_core.proof.report.markdown import markdown
from dmq_core.proof.report.wording import account_rows, repeat_command, run_summary
from dmq_core.proof.result import Curves, ProofResult, Timeline, TimelineMark, Verdict, Workload

EVERY = (passed(), failed(), hostile(), replace(passed(), verdict=Verdict.INCONCLUSIVE, timeline=Timeline(), marks=()))


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314  # our own page


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("result", EVERY)
def test_the_page_is_well_formed_whatever_the_result_holds(result: ProofResult) -> None:
    page = html(result)
    assert page.startswith("<!DOCTYPE html>")
    root = parsed(page.partition("\n")[2])
    assert root.tag == "html"
    assert root.find(".//{http://www.w3.org/2000/svg}svg") is not None


def test_the_page_says_the_verdict_the_figures_and_how_to_repeat() -> None:
    text = Tags(html(passed(), command="dmq proof run --fault kill --duration 20")).text
    for said in ("PASS", "9,874", "0.51 s", "0.66 s", "rmq2 killed", "dmq proof run --fault kill --duration 20"):
        assert said in text
    assert passed().journal in text
    for term in account_rows(passed()):
        assert term.name in text


def test_a_failed_run_names_the_messages_that_went_wrong() -> None:
    text = Tags(html(failed())).text
    assert "FAIL" in text
    assert "k3-000412" in text
    assert "k5-000007" in text
    assert "k3-000412" in markdown(failed())


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    for result in EVERY:
        page = html(result)
        for tag, attributes in Tags(page).tags:
            assert tag not in ("script", "link", "img", "iframe", "object")
            assert not {"src", "href", "onclick", "onerror", "onload"} & set(attributes)
        assert "url(" not in page
        assert "@import" not in page


def test_texts_from_outside_are_shown_and_never_read_as_markup() -> None:
    page = html(hostile())
    assert HOSTILE not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "‮" not in page
    assert "onerror=alert(1)" in Tags(page).text


def test_markdown_shows_texts_from_outside_as_they_are() -> None:
    text = markdown(hostile())
    outside_code = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<", outside_code)
    assert not re.search(r"(?<!\\)\[", outside_code)
    assert "\x1b" not in text


def test_markdown_holds_the_account_as_a_table() -> None:
    text = markdown(passed())
    assert text.startswith("# PASS")
    assert "| confirmed | 9,874 |" in text
    assert "| leader elected | 0.41 s |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {4}


def test_what_was_done_names_the_node_its_part_and_the_undoing() -> None:
    said = run_summary(passed())
    assert "rmq2, the leader of the queue, was killed" in said
    assert "undone 8.0 s later" in said
    assert "500 messages a second" in said
    assert "Nothing was broken." in run_summary(replace(passed(), fault="none"))
    assert "every node was restarted" in run_summary(replace(passed(), fault="rolling"))


def test_the_command_repeats_what_differs_from_the_usual() -> None:
    usual = shlex.split(repeat_command(passed()))
    assert usual == ["dmq", "proof", "run", "--fault", "kill", "--target", "leader", "--seed", "7"]
    changed = replace(passed(), workload=Workload(rate=50.5, queue_type="stream"))
    assert "--rate 50.5 --queue-type stream" in repeat_command(changed)


def test_the_chart_marks_the_fault_the_election_and_the_undoing_and_shades_the_gaps() -> None:
    drawn = parsed(chart(passed()))
    classes = [element.get("class", "") for element in drawn.iter()]
    assert [c for c in classes if c.startswith("mark ")] == ["mark fault", "mark leader", "mark undo"]
    assert [c for c in classes if c.startswith("gap ")] == ["gap confirms", "gap deliveries"]
    assert [number for number, _ in numbered(passed().marks)] == [1, 2, 3]


def test_a_long_run_is_drawn_with_a_bounded_number_of_points() -> None:
    long = replace(passed(), curves=Curves(0.25, (500.0,) * 20_000, (500.0,) * 20_000))
    assert len(chart(long)) < 60_000


def test_a_run_without_a_message_has_a_chart() -> None:
    assert "<svg" in chart(replace(passed(), curves=Curves(0.25, (), ()), marks=()))


def test_many_marks_stay_on_the_paper() -> None:
    crowd = tuple(TimelineMark(5.0 + n / 1000, "leader", "moved") for n in range(100))
    drawn = parsed(chart(replace(passed(), marks=crowd)))
    circles = [float(e.get("cx", "0")) for e in drawn.iter() if e.tag.endswith("circle")]
    assert circles
    assert max(circles) <= 960


def test_the_longest_gap_is_where_nothing_came() -> None:
    curve = (9.0, 9.0, 9.0, 0.0, 0.0, 1.0, 9.0)
    assert longest_gap(curve, 0.5, 1.2) == (1.5, 2.7)
    assert longest_gap(curve, 0.5, 0.6) == (1.5, 2.1)
    assert longest_gap(curve, 0.5, 0.4) is None
    assert longest_gap((*curve, 0.0, 0.0, 0.0, 0.0), 0.5, 1.2) == (1.5, 2.7)
    assert longest_gap((), 0.5, 60.0) is None
