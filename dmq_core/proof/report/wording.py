"""What the reports for people say, whatever they are written in: sentences and rows of a `ProofResult`; pure."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, fields
from typing import Final

from dmq_core.actions.catalog import PROOF_FAULTS, PROOF_USES
from dmq_core.proof.result import ProofResult, Timeline, Verdict, Workload
from dmq_core.proof.scenario import Scenario, built_in_scenarios
from dmq_core.text import visible

IDS_SHOWN: Final = 50
_HEADLINE: Final = {
    Verdict.PASS: "every message is accounted for",
    Verdict.FAIL: "not every message is accounted for",
    Verdict.INCONCLUSIVE: "this run cannot tell",
}
_TARGET: Final = {
    "leader": "the leader of the queue",
    "follower": "a member of the queue that did not lead it",
    "connected": "the node that the publisher was connected to",
}
_OPTION_OF: Final = {
    "rate": "--rate",
    "size": "--size",
    "keys": "--keys",
    "publishers": "--publishers",
    "consumers": "--consumers",
    "handler_s": "--handler-time",
    "queue_type": "--queue-type",
    "exchange_type": "--exchange-type",
}


@dataclass(frozen=True, slots=True)
class AccountRow:
    """A line of the account: its name, its figure, what it means, and whether the figure is wrong."""

    name: str
    value: int
    meaning: str
    is_bad: bool = False
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """A line of the timeline: what happened, seconds after the fault (None: it did not), and what it means."""

    name: str
    after_s: float | None
    meaning: str


def headline(result: ProofResult) -> str:
    """The verdict in one line."""
    return f"{result.verdict}: {_HEADLINE[result.verdict]}"


def run_summary(result: ProofResult) -> str:
    """Cluster, workload and fault in a few sentences."""
    return f"{_setting(result)} {_load(result.workload)} {_fault(result)}"


def account_rows(result: ProofResult) -> tuple[AccountRow, ...]:
    """Every line of the account, in the order in which a message lives."""
    a = result.account
    again = a.duplicates
    return (
        AccountRow("attempted", a.attempted, "messages that publishers set out to send, noted before each was sent"),
        AccountRow("confirmed", a.confirmed, "the broker took responsibility for these: each has to be delivered"),
        AccountRow("nacked", a.nacked, "the broker refused these and said so"),
        AccountRow("returned", a.returned, "no queue wanted these, and the publisher was told"),
        AccountRow(
            "unknown", a.unknown, "sent, and no answer came before the connection was lost: either fate is right"
        ),
        AccountRow("not sent", a.not_sent, "provably never left the publisher, and it was told so"),
        AccountRow("delivered", a.delivered, "different messages that reached a consumer"),
        AccountRow("recovered", a.recovered, "of unknown outcome, and delivered after all"),
        AccountRow("redelivered", a.redelivered, "deliveries that the broker itself marked as perhaps not the first"),
        AccountRow(
            "duplicates: redelivery", again.redelivery, "delivered again, since the acknowledgement had not arrived"
        ),
        AccountRow("duplicates: republish", again.republish, "delivered again, since the publisher sent it again"),
        AccountRow("duplicates: retry hand-off", again.retry_handoff, "delivered again by the hand-off of a retry"),
        _wrong("duplicates: unexplained", again.unexplained, "delivered again, and nothing explains why"),
        _listed("lost", a.lost, "confirmed and never delivered"),
        _listed("unexpected", a.unexpected, "delivered, and nobody had ever sent it"),
        _listed("leak", a.leak, "returned to the publisher as not routed, and yet delivered"),
        _listed("phantom", a.phantom, "reported as never sent, and yet delivered"),
        AccountRow(
            "order violations",
            a.order_violations,
            "first deliveries that came before an earlier message of the same routing key",
        ),
    )


def timeline_rows(timeline: Timeline) -> tuple[TimelineRow, ...]:
    """What followed the fault, in the order in which it should."""
    return (
        TimelineRow("noticed", timeline.noticed_s, "a client found out that something is wrong"),
        TimelineRow("reconnected", timeline.reconnected_s, "the last client that had lost its node was on another one"),
        TimelineRow("leader elected", timeline.leader_elected_s, "the queue had a new leader"),
        TimelineRow("first confirm", timeline.first_confirm_s, "a message sent after the fault was confirmed"),
        TimelineRow("first delivery", timeline.first_delivery_s, "a message sent after the fault was delivered"),
        TimelineRow("unknowns resolved", timeline.unknowns_resolved_s, "every message had its outcome"),
    )


def repeat_command(
    result: ProofResult, scenario: Scenario | None = None, cluster: str = "", *, soak: bool = False
) -> str:
    """The command line that does the same again; without its `scenario` as far as the result tells."""
    words = ["dmq", "proof", "soak" if soak else "run"]
    if cluster:
        words += ["--cluster", cluster]
    if not soak:
        words += _what_words(result, scenario)
    known = None if scenario is None else built_in_scenarios().get(scenario.name)
    if scenario is not None and (known is None or known.duration_s != scenario.duration_s):
        words += ["--duration", f"{scenario.duration_s:g}"]
    usual = Workload()
    for field in fields(Workload):
        value = getattr(result.workload, field.name)
        if value != getattr(usual, field.name):
            words += [_OPTION_OF[field.name], f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(visible(word) for word in [*words, "--seed", str(result.seed)])


def _what_words(result: ProofResult, scenario: Scenario | None) -> list[str]:
    fault, target = result.fault or "none", result.target
    if scenario is not None and (len(scenario.steps) > 1 or scenario.name.endswith(".toml")):
        return ["--scenario", scenario.name]
    kind = PROOF_FAULTS.get(fault)
    targeted = target and kind is not None and PROOF_USES[kind].targeted
    return ["--fault", fault, *(["--target", target] if targeted else [])]


def utc_text(at: float) -> str:
    """Epoch seconds as a date and a time of day in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def seconds_text(seconds: float | None) -> str:
    """Seconds for people; a dash where there are none."""
    return "–" if seconds is None else f"{seconds:.2f} s"


def _setting(result: ProofResult) -> str:
    took = max(0.0, result.ended_at - result.began_at)
    broker = f"RabbitMQ {visible(result.rabbitmq)}" if result.rabbitmq else "RabbitMQ"
    return f"On {utc_text(result.began_at)}, for {took:.0f} s, on {broker} ({visible(result.backend)})."


def _load(w: Workload) -> str:
    clients = f"{_count(w.publishers, 'publisher')} and {_count(w.consumers, 'consumer')}"
    path = f"a {visible(w.exchange_type)} exchange and a {visible(w.queue_type)} queue"
    return (
        f"{clients} put {w.rate:g} messages a second of {w.size} bytes through {path}, "
        f"with {_count(w.keys, 'routing key')}."
    )


def _fault(result: ProofResult) -> str:
    fault, node = result.fault, visible(result.node)
    if fault in ("", "none"):
        return "Nothing was broken."
    at = result.timeline.fault_s
    when = "" if at is None else f" {at:.1f} s into it"
    if fault == "rolling":
        return f"Then{when or ' it was tried that'} every node was restarted, one after the other."
    struck = sum(mark.kind == "fault" for mark in result.marks)
    if struck > 1:
        return f"Meanwhile {struck} faults followed each other, all of which the story tells."
    kind = PROOF_FAULTS.get(fault)
    if not node or kind is None:
        return f"The fault that was asked for is {visible(fault)} of {visible(result.target)}."
    role = _TARGET.get(result.target)
    said = PROOF_USES[kind].report.format(who=f"{node}, {role}," if role else node, node=node)
    return f"Then{when}, {said}.{_undone(result)}"


def _undone(result: ProofResult) -> str:
    undo = next((mark for mark in result.marks if mark.kind == "undo"), None)
    if undo is None or result.timeline.fault_s is None:
        return ""
    return f" That was undone {undo.at_s - result.timeline.fault_s:.1f} s later."


def _wrong(name: str, value: int, meaning: str) -> AccountRow:
    return AccountRow(name, value, meaning, is_bad=value > 0)


def _listed(name: str, ids: tuple[str, ...], meaning: str) -> AccountRow:
    return AccountRow(name, len(ids), meaning, bool(ids), ids)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
