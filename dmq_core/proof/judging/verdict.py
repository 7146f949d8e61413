"""Whether a run proves that every message is accounted for, with the reasons in whole sentences; pure.

FAIL needs proof: of a loss, that every queue was known empty after a stable drain and the journal is whole; of whatever
else is wrong, records that no missing ones could explain. INCONCLUSIVE is everything that is neither proven wrong nor
beyond doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from dmq_core.actions.action import undo_command
from dmq_core.proof.judging.accounting import AccountedJournal
from dmq_core.proof.judging.evidence import Evidence, FinalDepth, ObservedFault
from dmq_core.proof.judging.timeline import past_tense
from dmq_core.proof.result import Account, Timeline, Verdict
from dmq_core.settings.settings import on_cluster
from dmq_core.text import visible

NAMED: Final = 5
CLOCK_STEP_S: Final = 0.5


def verdict_of(accounted: AccountedJournal, timeline: Timeline, evidence: Evidence) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and the sentences that it rests on: violations first, then doubts, or what makes it a PASS."""
    doubts = tuple(_doubts(accounted, evidence))
    proven, alleged = _violations(accounted, evidence)
    if proven:
        return Verdict.FAIL, (*proven, *alleged, *doubts)
    if doubts or alleged:
        return Verdict.INCONCLUSIVE, (*doubts, *alleged)
    return Verdict.PASS, tuple(_pass_reasons(accounted.account, timeline, evidence))


def ids_text(ids: Sequence[str]) -> str:
    """The first five ids, and how many more there are."""
    shown = ", ".join(visible(an_id) for an_id in ids[:NAMED])
    return shown if len(ids) <= NAMED else f"{shown} and {len(ids) - NAMED:,} more"


def _violations(accounted: AccountedJournal, evidence: Evidence) -> tuple[list[str], list[str]]:
    """What is proven wrong, and what only looks wrong."""
    account = accounted.account
    readable = not evidence.damage and not accounted.contradicting
    whole = readable and not evidence.is_cut
    unrecorded = frozenset(accounted.unrecorded)
    lost = tuple(an_id for an_id in account.lost if an_id not in unrecorded)
    known_empty = evidence.drained and bool(evidence.depths) and all(depth.empty for depth in evidence.depths)
    # Each with what it takes to be sure: of a loss that nothing waits anywhere, of others that no record is missing
    # that could explain them. What an attempt or an outcome contradicts stands, whatever came later.
    found = (
        (_lost_sentence(lost, evidence, known_empty), bool(lost), whole and known_empty),
        (
            _ids_sentence("delivered, though nobody ever sent them", account.unexpected),
            bool(account.unexpected),
            readable,
        ),
        (_ids_sentence("returned as not routed, and yet delivered", account.leak), bool(account.leak), readable),
        (_ids_sentence("reported as never sent, and yet delivered", account.phantom), bool(account.phantom), readable),
        (_unexplained(account), account.duplicates.unexplained > 0, whole),
        (_disorder(account), evidence.order_promised and account.order_violations > 0, whole),
    )
    proven = [sentence for sentence, is_so, is_sure in found if is_so and is_sure]
    alleged = [sentence for sentence, is_so, is_sure in found if is_so and not is_sure]
    return proven, alleged


def _lost_sentence(lost: Sequence[str], evidence: Evidence, known_empty: bool) -> str:
    if known_empty:
        where = f"{_all_empty(evidence)} at {_when(max(d.at_s for d in evidence.depths))}"
    elif evidence.reads_streams:
        where = "they may still be in a stream, since the streams are not known to be read to their ends"
    else:
        where = "they may still be in a queue, since the queues are not known to be empty"
    return f"{_messages(len(lost))} confirmed and not delivered, and {where}: {ids_text(lost)}."


def _all_empty(evidence: Evidence) -> str:
    if evidence.reads_streams:
        return "every stream was read to its end on every node"
    return "every queue was empty on every node"


def _ids_sentence(what: str, ids: Sequence[str]) -> str:
    return f"{_messages(len(ids))} {what}: {ids_text(ids)}."


def _unexplained(account: Account) -> str:
    number = account.duplicates.unexplained
    return (
        f"{_messages(number, 'second delivery', 'second deliveries')} explained neither by the broker nor by a client."
    )


def _disorder(account: Account) -> str:
    number = account.order_violations
    return (
        f"{_messages(number)} delivered after a later message of the same publisher and key, though order was promised."
    )


def _doubts(accounted: AccountedJournal, evidence: Evidence) -> Iterator[str]:
    yield from _journal_doubts(accounted, evidence)
    if evidence.health_problems is None:
        yield "Nobody looked at the health of the cluster before the load began."
    elif evidence.health_problems:
        yield f"The cluster was not well before the load began: {_texts(evidence.health_problems)}."
    yield from _fault_doubts(evidence)
    if accounted.account.attempted == 0:
        yield "No message was ever sent."
    if evidence.nodes and 2 * (evidence.nodes - len(evidence.down)) <= evidence.nodes:
        yield f"A majority of the nodes never came back: {_texts(evidence.down)}."
    yield from _drain_doubts(evidence)
    if evidence.clock_step_s > CLOCK_STEP_S:
        yield (
            f"The clock of this machine stepped by {_when(evidence.clock_step_s)} against its monotonic one, "
            "so the times of the cluster's own news are not to be trusted."
        )
    for balance in evidence.counter_checks:
        if balance.accounted - balance.allowed > balance.counted:
            yield (
                f"The journal has {balance.accounted:,} messages {balance.what}, but the brokers' own counters say "
                f"{balance.counted:,}, and at most {balance.allowed:,} can be missing from them."
            )


def _journal_doubts(accounted: AccountedJournal, evidence: Evidence) -> Iterator[str]:
    if evidence.interrupted is not None:
        yield f"The run was interrupted{_because(evidence.interrupted)}."
    if evidence.damage:
        yield f"The journal is damaged: {_texts(evidence.damage)}."
    if evidence.is_cut:
        yield "The journal ends in the middle of the run, so whatever came later is not known."
    if accounted.contradicting:
        ids = accounted.contradicting
        yield f"The journal contradicts itself: {_messages(len(ids))} settled more often than sent: {ids_text(ids)}."
    if accounted.unsettled and not evidence.is_cut:
        yield f"{_messages(accounted.unsettled)} left without an outcome, so the journal misses some."
    if accounted.unrecorded:
        ids = accounted.unrecorded
        yield f"{_messages(len(ids))} acknowledged with no delivery on record, so records are missing: {ids_text(ids)}."


def _fault_doubts(evidence: Evidence) -> Iterator[str]:
    if evidence.requested_fault != "none" and not evidence.faults:
        yield f"A {visible(evidence.requested_fault)} was to happen, and the journal holds no fault."
    struck = {fault.node for fault in evidence.faults if fault.held_s is not None}
    if evidence.requested_fault == "rolling" and 0 < len(struck) < evidence.nodes:
        yield f"Every node was to be restarted, and only {_texts(sorted(struck))} was seen to be."
    for fault in evidence.faults:
        name = _name(fault)
        if fault.failed:
            yield f"The {name} failed: {visible(fault.failed)}."
        elif fault.held_s is None:
            yield f"The {name} was asked for at {_when(fault.asked_s)}, and nothing shows that it ever held."
        elif not fault.text:
            yield f"The {name} is said to have held at {_when(fault.held_s)}, without any evidence from the cluster."
        elif fault.same_broker:
            yield f"The {name} cannot have happened: the counters of {visible(fault.node)} show one broker that ran on."
        else:
            yield from _cover_doubts(fault)
        command = undo_command(fault.action, fault.node)
        if evidence.is_cut and command and fault.undone_s is None:
            again = visible(on_cluster(command, evidence.cluster))
            yield f"Nothing shows that the {name} was undone: '{again}' undoes it if it is still active."
        if fault.undo_failed:
            yield f"The {name} could not be undone: {visible(fault.undo_failed)}."


def _cover_doubts(fault: ObservedFault) -> Iterator[str]:
    if not fault.confirmed_before:
        yield f"No message was confirmed before the {_name(fault)}, so it struck no traffic."
    if not fault.confirmed_after:
        yield (
            f"No message was confirmed that was sent after the {_name(fault)} held ({_when(fault.held_s or 0.0)}), "
            "so the run does not show that traffic outlived it."
        )


def _drain_doubts(evidence: Evidence) -> Iterator[str]:
    if not evidence.drained:
        yield "The run ended before everything was drained."
    if not evidence.depths:
        yield "No queue's depth was read after the last delivery."
    sentence = _end_sentence if evidence.reads_streams else _depth_sentence
    for depth in evidence.depths[:NAMED]:
        if not depth.empty:
            yield sentence(depth)
    more = sum(1 for depth in evidence.depths[NAMED:] if not depth.empty)
    if more:
        yield f"The same holds for {more:,} more queues and nodes."


def _depth_sentence(depth: FinalDepth) -> str:
    queue, node = visible(depth.queue), visible(depth.node)
    if depth.ready or depth.unacked:
        held = f"{depth.ready or 0:,} ready and {depth.unacked or 0:,} unacknowledged messages"
        return f"Queue {queue} still held {held} at {_when(depth.at_s)}, as {node} said."
    if depth.ready is None or depth.unacked is None:
        return f"How much queue {queue} holds is not known from {node} after the last delivery."
    return f"{node} called queue {queue} empty {depth.reads} times after the last delivery, too few to be sure."


def _end_sentence(depth: FinalDepth) -> str:
    stream, node = visible(depth.queue), visible(depth.node)
    if depth.ready:
        return f"{depth.ready:,} more messages came to the end of stream {stream} at {_when(depth.at_s)} on {node}."
    if depth.ready is None:
        return f"Whether stream {stream} was read to its end on {node} is not known."
    return f"The end of stream {stream} was seen {depth.reads} times on {node}, too few to be sure."


def _pass_reasons(account: Account, timeline: Timeline, evidence: Evidence) -> Iterator[str]:
    last = max((d.at_s for d in evidence.depths), default=0.0)
    yield (
        f"All {account.confirmed:,} confirmed messages were delivered, and {_all_empty(evidence)}, "
        f"stably, at {_when(last)}."
    )
    for fault in evidence.faults:
        yield (
            f"{visible(fault.node)} was {past_tense(fault.action)}, which held from {_when(fault.held_s or 0.0)} on by "
            f"the cluster's own evidence ({visible(fault.text).rstrip('.')}); {fault.confirmed_before:,} messages were "
            f"confirmed before, and {fault.confirmed_after:,} that were sent while it held or later."
        )
    if not evidence.faults:
        yield "No fault was asked for: this shows only what an undisturbed cluster does."
    if evidence.counter_checks:
        counted = " and ".join(f"{balance.counted:,} {balance.what}" for balance in evidence.counter_checks)
        unseen = max(balance.allowed for balance in evidence.counter_checks)
        yield (
            f"The brokers' own counters, each node's by itself: {counted}, of which those of brokers that ended may "
            f"miss at most {unseen:,}."
        )
    if account.unknown:
        some = f"{account.recovered:,} of {account.unknown:,}"
        yield f"{some} messages of unknown outcome were delivered after all; either fate is right."
    again = account.duplicates
    if again.redelivery or again.republish or again.retry_handoff:
        yield (
            f"Each second delivery is explained: {again.redelivery:,} by redelivery, {again.republish:,} by sending "
            f"again, {again.retry_handoff:,} by a retry."
        )


def _name(fault: ObservedFault) -> str:
    return f"{visible(fault.action)} of {visible(fault.node)}"


def _messages(number: int, one: str = "message", many: str = "messages") -> str:
    return f"{number:,} {one} was" if number == 1 else f"{number:,} {many} were"


def _because(text: str) -> str:
    return f": {visible(text)}" if text else ""


def _texts(texts: Iterable[str]) -> str:
    return "; ".join(visible(text).rstrip(".") for text in texts)


def _when(seconds: float) -> str:
    return f"{seconds:.2f} s"
