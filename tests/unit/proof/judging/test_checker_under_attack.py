"""Honest runs pass, and each thing that is broken on purpose flips exactly its own set and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from honest_runs import NODES, SETUP, honest_run
from hypothesis import assume, given
from hypothesis import strategies as st
from judged_records import account_of, evidence_of

from dmq_core.actions.action import undo_command
from dmq_core.actions.catalog import PROOF_NAMES
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.file import read_journal
from dmq_core.proof.journal.records import (
    AnswerRecord,
    AttemptRecord,
    CountersRecord,
    DamageRecord,
    DeliveryRecord,
    DepthRecord,
    EndRecord,
    FaultRecord,
    FaultStage,
    ForeignRecord,
    HealthRecord,
    OutcomeRecord,
    PhaseRecord,
    Record,
    RunPhase,
    head_of,
    line_of,
    message_id,
    number_of,
)
from dmq_core.proof.judging.judge import judge, judged
from dmq_core.proof.result import Verdict, Workload

Records = list[Record]
RUNS = st.integers(0, 1 << 32)


def figures(records: Iterable[Record]) -> dict[str, Any]:
    accounted = account_of(records, SETUP)
    flat = asdict(accounted.account)
    flat.update({f"again_{kind}": number for kind, number in flat.pop("duplicates").items()})
    return {**flat, "contradicting": accounted.contradicting, "unrecorded": accounted.unrecorded}


def changes(before: Records, after: Records) -> dict[str, Any]:
    """What differs in the account: numbers by how much, ids as they are now."""
    old, new = figures(before), figures(after)
    return {k: new[k] if isinstance(new[k], tuple) else new[k] - old[k] for k in new if new[k] != old[k]}


def an_id(number: int) -> tuple[str, ...]:
    return (message_id(SETUP.run, number),)


def plain_numbers(records: Records) -> list[int]:
    """Numbers of messages about whose life there is nothing to explain."""
    attempts = Counter(n for r in records if isinstance(r, AttemptRecord) for n in r.numbers)
    delivered = Counter(n for r in records if isinstance(r, DeliveryRecord) for n in r.numbers)
    odd = {r.numbers[i] for r in records if isinstance(r, DeliveryRecord) for i in (*r.redelivered, *r.retried)}
    sure = {n for r in records if isinstance(r, OutcomeRecord) and r.outcome is Outcome.CONFIRMED for n in r.numbers}
    return [n for n in sorted(sure) if attempts[n] == delivered[n] == 1 and n not in odd]


def mapped(records: Records, kind: type[Any], change: Callable[[Any], Record | None]) -> Records:
    found = (change(r) if isinstance(r, kind) else r for r in records)
    return [r for r in found if r is not None]


def without_numbers(*gone: int) -> Callable[[Any], Record]:
    def change(record: Any) -> Record:
        """Takes one number out, and moves the positions that come after it."""
        kept = [i for i, n in enumerate(record.numbers) if n not in gone]
        place = {old: new for new, old in enumerate(kept)}
        values: dict[str, Any] = {"numbers": tuple(record.numbers[i] for i in kept)}
        if isinstance(record, DeliveryRecord):
            values["keys"] = tuple(record.keys[i] for i in kept)
            for name in ("redelivered", "republished", "retried"):
                values[name] = tuple(place[i] for i in getattr(record, name) if i in place)
        changed: Record = replace(record, **values)
        return changed

    return change


def a_delivery(number: int, like: Record, **more: Any) -> DeliveryRecord:
    return DeliveryRecord(like.at, like.wall, 0, 1, "proof", (number,), (0,), **more)


def before_drain(records: Records, record: Callable[[Record], Record]) -> Records:
    """`records` with one more, made like the one that says that all is drained, before it."""
    index = next(i for i, r in enumerate(records) if isinstance(r, PhaseRecord) and r.phase is RunPhase.DRAINED)
    return [*records[:index], record(records[index]), *records[index:]]


# What honest runs hold.


@given(RUNS)
def test_an_honest_run_passes(seed: int) -> None:
    result = judged(honest_run(seed), SETUP)
    assert (result.verdict, result.account.lost) == (Verdict.PASS, ()), result.reasons
    assert result.node == "rmq2"


@given(RUNS)
def test_the_account_is_what_plain_sets_say(seed: int) -> None:
    records = honest_run(seed)
    seen: dict[int, set[Outcome]] = {}
    delivered: Counter[int] = Counter()
    flags = 0
    for record in records:
        if isinstance(record, AttemptRecord):
            for number in record.numbers:
                seen.setdefault(number, set())
        elif isinstance(record, OutcomeRecord):
            for number in record.numbers:
                seen[number].add(record.outcome)
        elif isinstance(record, DeliveryRecord):
            delivered.update(record.numbers)
            flags += len(record.redelivered)
    confirmed = {n for n, outcomes in seen.items() if Outcome.CONFIRMED in outcomes}
    unknown = {n for n, outcomes in seen.items() if Outcome.UNKNOWN in outcomes} - confirmed
    account = account_of(records, SETUP).account
    again = account.duplicates
    assert (account.attempted, account.confirmed, account.unknown) == (len(seen), len(confirmed), len(unknown))
    assert account.nacked + account.returned + account.not_sent == len(seen) - len(confirmed) - len(unknown)
    assert (account.delivered, account.redelivered, account.recovered) == (
        len(delivered),
        flags,
        len(unknown & set(delivered)),
    )
    assert again.redelivery + again.republish + again.retry_handoff == delivered.total() - len(delivered)
    assert not confirmed - set(delivered)


def test_honest_runs_hold_everything_that_has_to_be_explained() -> None:
    found: Counter[str] = Counter()
    for seed in range(60):
        figures_of = figures(honest_run(seed))
        found.update(name for name, value in figures_of.items() if value)
    wanted = {
        "again_redelivery",
        "again_republish",
        "again_retry_handoff",
        "recovered",
        "returned",
        "not_sent",
        "nacked",
    }
    assert wanted <= set(found)
    assert not {"again_unexplained", "lost", "unexpected", "leak", "phantom", "order_violations"} & set(found)


# What is broken on purpose.


@given(RUNS, st.data())
def test_a_dropped_delivery_is_lost(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    number = data.draw(st.sampled_from(plain_numbers(records)))
    broken = mapped(records, DeliveryRecord | AnswerRecord, without_numbers(number))
    assert changes(records, broken) == {"lost": an_id(number), "delivered": -1}
    result = judged(broken, SETUP)
    assert result.verdict is Verdict.FAIL
    assert an_id(number)[0] in result.reasons[0]


@given(RUNS, st.data())
def test_a_doubled_delivery_is_unexplained(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    number = data.draw(st.sampled_from(plain_numbers(records)))
    broken = before_drain(records, lambda like: a_delivery(number, like))
    assume(was_answered(records, number))
    assert changes(records, broken) == {"again_unexplained": 1}
    assert judged(broken, SETUP).verdict is Verdict.FAIL


@given(RUNS, st.data())
def test_a_delivery_doubled_within_its_batch_is_unexplained(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    number = data.draw(st.sampled_from(plain_numbers(records)))
    first = next(r for r in records if isinstance(r, DeliveryRecord) and number in r.numbers)
    twice = replace(first, numbers=(*first.numbers, number), keys=(*first.keys, 0))
    broken = [twice if r is first else r for r in records]
    assert changes(records, broken) == {"again_unexplained": 1}


@given(RUNS, st.data())
def test_a_doubled_delivery_with_the_flag_is_explained(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    number = data.draw(st.sampled_from(plain_numbers(records)))
    again = before_drain(records, lambda like: a_delivery(number, like, redelivered=(0,)))
    assert changes(records, again) == {"again_redelivery": 1, "redelivered": 1}
    assert judged(again, SETUP).verdict is Verdict.PASS


@given(RUNS, st.data())
def test_sending_again_explains_one_more_delivery_and_only_after_an_unknown_outcome(
    seed: int, data: st.DataObject
) -> None:
    records = honest_run(seed)
    number = data.draw(st.sampled_from(plain_numbers(records)))
    assume(was_answered(records, number))

    def sent_again(outcomes: tuple[Outcome, ...]) -> Records:
        first = next(r for r in records if isinstance(r, OutcomeRecord) and number in r.numbers)
        settled = [replace(first, numbers=(number,), outcome=outcome) for outcome in outcomes]
        rest = [r for r in records if r is not first]
        attempt = AttemptRecord(first.at, first.wall, 0, (number,), (0,))
        index = records.index(first)
        made = [*rest[:index], attempt, *settled, *rest[index:]]
        return before_drain(made, lambda like: a_delivery(number, like))

    assert changes(records, sent_again((Outcome.UNKNOWN, Outcome.CONFIRMED))) == {"again_republish": 1}
    assert changes(records, sent_again((Outcome.CONFIRMED, Outcome.CONFIRMED))) == {"again_unexplained": 1}
    thrice = before_drain(sent_again((Outcome.UNKNOWN, Outcome.CONFIRMED)), lambda like: a_delivery(number, like))
    assert changes(records, thrice) == {"again_republish": 1, "again_unexplained": 1}


@given(RUNS, st.data())
def test_an_acknowledgement_before_its_record_proves_nothing(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    number = data.draw(st.sampled_from([n for n in plain_numbers(records) if was_answered(records, n)]))
    missing = mapped(records, DeliveryRecord, without_numbers(number))
    assert changes(records, missing) == {"lost": an_id(number), "delivered": -1, "unrecorded": an_id(number)}
    assert judged(missing, SETUP).verdict is Verdict.INCONCLUSIVE
    delivered = next(r for r in records if isinstance(r, DeliveryRecord) and number in r.numbers)
    late = before_drain(missing, lambda like: a_delivery(number, replace(delivered, at=like.at, wall=like.wall)))
    changed = changes(records, late)
    assert changed.pop("order_violations", 1) == 1
    assert changed == {"unrecorded": an_id(number)}


@given(RUNS, st.integers(0, 10_000), st.text(max_size=20))
def test_a_forged_id_is_unexpected(seed: int, ahead: int, text: str) -> None:
    records = honest_run(seed)
    number = 1 + ahead + max(n for r in records if isinstance(r, AttemptRecord) for n in r.numbers)
    forged = before_drain(records, lambda like: a_delivery(number, like))
    assert changes(records, forged) == {"unexpected": an_id(number)}
    assert judged(forged, SETUP).verdict is Verdict.FAIL
    assume(number_of(SETUP.run, text) is None)
    foreign = before_drain(records, lambda like: ForeignRecord(like.at, like.wall, 0, 1, "proof", (text,)))
    assert changes(records, foreign) == {"unexpected": (text,)}
    assert judged(foreign, SETUP).verdict is Verdict.FAIL


@given(RUNS, st.data())
def test_a_lost_confirm_makes_a_message_unknown(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    number = data.draw(st.sampled_from(plain_numbers(records)))
    flipped = {"confirmed": -1, "unknown": 1, "recovered": 1}

    def lost(record: OutcomeRecord) -> Record | None:
        return record if number not in record.numbers else None

    def unanswered(record: OutcomeRecord) -> Record:
        return record if number not in record.numbers else replace(record, outcome=Outcome.UNKNOWN)

    assert changes(records, mapped(records, OutcomeRecord, unanswered)) == flipped
    assert judged(mapped(records, OutcomeRecord, unanswered), SETUP).verdict is Verdict.PASS
    assert changes(records, mapped(records, OutcomeRecord, lost)) == flipped
    # A journal that was closed in good order has an outcome for every message.
    assert judged(mapped(records, OutcomeRecord, lost), SETUP).verdict is Verdict.INCONCLUSIVE


@given(RUNS, st.data())
def test_two_messages_of_a_key_that_change_places_are_out_of_order(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    key_of = {n: k for r in records if isinstance(r, AttemptRecord) for n, k in zip(r.numbers, r.keys, strict=True)}
    firsts: dict[int, list[int]] = {}
    for record in records:
        for number in record.numbers if isinstance(record, DeliveryRecord) else ():
            line = firsts.setdefault(key_of[number], [])
            if number not in line:
                line.append(number)
    plain = set(plain_numbers(records))

    def place(kind: type[Any], number: int) -> int:
        return next(i for i, r in enumerate(records) if isinstance(r, kind) and number in r.numbers)

    pairs = [
        (a, b)
        for line in firsts.values()
        for a, b in pairwise(line)
        if {a, b} <= plain and place(AttemptRecord, b) < place(DeliveryRecord, a)
    ]
    assume(pairs)
    a, b = data.draw(st.sampled_from(pairs))
    swap = {a: b, b: a}

    def change(record: Any) -> Record:
        changed: Record = replace(record, numbers=tuple(swap.get(n, n) for n in record.numbers))
        return changed

    broken = mapped(records, DeliveryRecord | AnswerRecord, change)
    assert changes(records, broken) == {"order_violations": 1}
    assert judged(broken, SETUP).verdict is Verdict.FAIL
    assert judged(broken, replace(SETUP, ordered=False)).verdict is Verdict.PASS


@pytest.mark.parametrize(("outcome", "wrong"), [(Outcome.RETURNED, "leak"), (Outcome.NOT_SENT, "phantom")])
@given(seed=RUNS)
def test_what_must_not_be_delivered_and_is(outcome: Outcome, wrong: str, seed: int) -> None:
    records = honest_run(seed)
    again = Counter(n for r in records if isinstance(r, AttemptRecord) for n in r.numbers)
    ended_so = [n for r in records if isinstance(r, OutcomeRecord) and r.outcome is outcome for n in r.numbers]
    numbers = [n for n in ended_so if again[n] == 1]
    assume(numbers)
    broken = before_drain(records, lambda like: a_delivery(numbers[0], like))
    changed = changes(records, broken)
    # Coming last, it also comes late.
    assert changed.pop("order_violations", 1) == 1
    assert changed == {wrong: an_id(numbers[0]), "delivered": 1}
    result = judged(broken, replace(SETUP, ordered=False))
    assert result.verdict is Verdict.FAIL
    assert an_id(numbers[0])[0] in result.reasons[0]


@given(RUNS, st.data())
def test_an_outcome_too_many_is_a_contradiction(seed: int, data: st.DataObject) -> None:
    records = honest_run(seed)
    settled = data.draw(st.sampled_from([r for r in records if isinstance(r, OutcomeRecord)]))
    broken = before_drain(records, lambda _: settled)
    assert changes(records, broken) == {"contradicting": an_id(settled.numbers[0])}
    assert judged(broken, SETUP).verdict is Verdict.INCONCLUSIVE


@given(RUNS, st.data())
def test_a_cut_journal_is_inconclusive_wherever_it_ends(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    records = honest_run(seed)
    head = head_of(SETUP).encode()
    content = head + "".join(line_of(r) for r in records).encode()
    path = tmp_path_factory.mktemp("cut") / "journal"
    path.write_bytes(content)
    assert judge(read_journal(path)).verdict is Verdict.PASS
    keep = data.draw(st.integers(0, len(content) - 2))
    path.write_bytes(content[:keep])
    if keep < len(head) - 1:
        with pytest.raises(InvalidInputError):
            read_journal(path)
        return
    result = judge(read_journal(path))
    assert result.verdict is Verdict.INCONCLUSIVE, result.reasons
    account = result.account
    assert (account.unexpected, account.leak, account.phantom) == ((), (), ())


@given(RUNS, st.data())
def test_a_line_gone_from_the_middle_is_never_a_pass(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    lines = [head_of(SETUP), *(line_of(r) for r in honest_run(seed))]
    gone = data.draw(st.integers(1, len(lines) - 2))
    path = tmp_path_factory.mktemp("gone") / "journal"
    path.write_text("".join(lines[:gone] + lines[gone + 1 :]))
    assert judge(read_journal(path)).verdict is Verdict.INCONCLUSIVE
    path.write_text("".join([*lines[:gone], '["A",1,2,0,[1],[0,0]]\n', *lines[gone + 1 :]]))
    assert judge(read_journal(path)).verdict is Verdict.INCONCLUSIVE


# What no PASS may rest on: each is taken away from an honest run.


def no_holds(record: FaultRecord) -> Record | None:
    return None if record.stage is FaultStage.HOLDS and not record.undo else record


def no_evidence(record: FaultRecord) -> Record:
    return replace(record, text="") if record.stage is FaultStage.HOLDS else record


def failed(record: FaultRecord) -> Record:
    if record.undo or record.stage is not FaultStage.HOLDS:
        return record
    return replace(record, stage=FaultStage.FAILED, text="the container was not there")


def same_broker(record: CountersRecord) -> Record:
    return replace(record, epoch="epoch 0")


def drop(_: Record) -> None:
    return None


def only_late(record: HealthRecord) -> Record | None:
    return None if record.at < 100.001 else record


def silent_node(record: DepthRecord) -> Record:
    return replace(record, ready=None) if record.node == "rmq3" else record


def one_left(record: DepthRecord) -> Record:
    return replace(record, ready=1) if record.node == "rmq3" else record


def unacked(record: DepthRecord) -> Record:
    return replace(record, unacked=2) if record.node == "rmq1" else record


def in_one_breath(record: DepthRecord) -> Record:
    return replace(record, at=1.0)


def never_drained(record: PhaseRecord) -> Record | None:
    return None if record.phase is RunPhase.DRAINED else record


def interrupted(record: PhaseRecord) -> Record:
    return replace(record, phase=RunPhase.INTERRUPTED, text="ctrl-c") if record.phase is RunPhase.PUBLISHED else record


def sick(record: HealthRecord) -> Record:
    return replace(record, problems=("rmq3 has a disk alarm.",))


def alone(record: HealthRecord) -> Record:
    return record if record.at < 100.001 else replace(record, running=("rmq1",))


def stepped(record: PhaseRecord) -> Record:
    return replace(record, wall=record.wall + 0.6) if record.phase is RunPhase.DRAINED else record


def modest(record: CountersRecord) -> Record:
    return replace(record, epoch="one", confirmed=record.confirmed // 2)


def no_undo(record: FaultRecord) -> Record:
    return replace(record, stage=FaultStage.FAILED, text="no such container") if record.undo else record


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        (FaultRecord, no_holds, "nothing shows that it ever held"),
        (FaultRecord, no_evidence, "without any evidence"),
        (FaultRecord, drop, "holds no fault"),
        (FaultRecord, failed, "The kill of rmq2 failed: the container was not there."),
        (FaultRecord, no_undo, "could not be undone: no such container"),
        (CountersRecord, same_broker, "cannot have happened"),
        (CountersRecord, modest, "the brokers' own counters say"),
        (HealthRecord, only_late, "Nobody looked at the health"),
        (HealthRecord, sick, "not well before the load began: rmq3 has a disk alarm."),
        (HealthRecord, alone, "A majority of the nodes never came back: rmq2; rmq3."),
        (DepthRecord, drop, "is not known from rmq1"),
        (DepthRecord, silent_node, "is not known from rmq3"),
        (DepthRecord, one_left, "still held 1 ready and 0 unacknowledged messages"),
        (DepthRecord, unacked, "0 ready and 2 unacknowledged messages"),
        (DepthRecord, in_one_breath, "too few to be sure"),
        (PhaseRecord, never_drained, "before everything was drained"),
        (PhaseRecord, interrupted, "interrupted: ctrl-c"),
        (PhaseRecord, stepped, "The clock of this machine stepped by 0.60 s"),
    ],
)
def test_a_run_is_inconclusive_without(kind: type[Any], change: Callable[[Any], Any], reason: str) -> None:
    for seed in range(5):
        records = honest_run(seed)
        broken = mapped(records, kind, change)
        assert changes(records, broken) == {}
        result = judged(broken, SETUP)
        assert result.verdict is Verdict.INCONCLUSIVE
        assert [r for r in result.reasons if reason in r], result.reasons


@pytest.mark.parametrize(
    ("action", "cluster", "command"),
    [
        ("kill", "dmq", "'dmq node start rmq2'"),
        ("pause", "mine", "'dmq node unpause rmq2 --cluster mine'"),
        ("memory-alarm", "", "'dmq fault do clear-memory-alarm --node rmq2'"),
        ("cut-link", "", "'dmq fault do mend-link --node rmq2'"),
        ("slow-link", "", "'dmq fault do mend-link --node rmq2'"),
        ("add", "", "'dmq node remove rmq2'"),
    ],
)
def test_what_a_killed_run_left_active_is_told_with_what_undoes_it(action: str, cluster: str, command: str) -> None:
    setup = replace(SETUP, cluster=cluster)
    records = mapped(honest_run(1), FaultRecord, lambda r: r if r.undo else replace(r, action=action))
    held = next(i for i, r in enumerate(records) if isinstance(r, FaultRecord) and r.stage is FaultStage.HOLDS)
    undone = next(
        i for i, r in enumerate(records) if isinstance(r, FaultRecord) and r.undo and r.stage is FaultStage.HOLDS
    )
    torn = DamageRecord(0.0, 0.0, "it ends here", torn=True)
    said = f"Nothing shows that the {action} of rmq2 was undone: {command} undoes it if it is still active."
    assert said in judged([*records[: held + 1], torn], setup).reasons
    assert said not in judged([*records[: undone + 1], torn], setup).reasons
    assert said not in judged(records, setup).reasons


def test_faults_that_leave_nothing_behind_need_no_undo() -> None:
    assert {kind for kind in PROOF_NAMES if not undo_command(str(kind), "rmq2")} == {
        FaultKind.ROLLING_RESTART,
        FaultKind.MOVE_LEADER,
        FaultKind.REBALANCE,
        FaultKind.CLOSE_CONNECTIONS,
    }
    assert undo_command("start", "rmq2") == ""


@given(RUNS)
def test_a_loss_is_not_proven_while_a_queue_may_hold_it(seed: int) -> None:
    records = honest_run(seed)
    number = plain_numbers(records)[0]
    broken = mapped(records, DeliveryRecord | AnswerRecord, without_numbers(number))
    unread = mapped(broken, DepthRecord, silent_node)
    result = judged(unread, SETUP)
    assert (result.verdict, result.account.lost) == (Verdict.INCONCLUSIVE, an_id(number))
    # A loss that is proven stays proven, whatever else the run leaves open.
    assert judged(mapped(broken, FaultRecord, drop), SETUP).verdict is Verdict.FAIL


def test_traffic_has_to_be_confirmed_before_the_fault_and_after_it() -> None:
    records = honest_run(1)
    held = next(i for i, r in enumerate(records) if isinstance(r, FaultRecord) and r.stage is FaultStage.HOLDS)

    def unknown(record: OutcomeRecord) -> Record:
        return replace(record, outcome=Outcome.UNKNOWN) if record.outcome is Outcome.CONFIRMED else record

    early = [*mapped(records[:held], OutcomeRecord, unknown), *records[held:]]
    late = [*records[:held], *mapped(records[held:], OutcomeRecord, unknown)]
    assert [r for r in judged(early, SETUP).reasons if "No message was confirmed before the kill of rmq2" in r]
    assert [r for r in judged(late, SETUP).reasons if "that was sent after the kill of rmq2 held" in r]


@given(RUNS)
def test_messages_that_no_broker_counted_are_inconclusive(seed: int) -> None:
    records = honest_run(seed)
    newest = max(n for r in records if isinstance(r, AttemptRecord) for n in r.numbers)
    forged = tuple(range(newest + 1, newest + 1001))
    keys = (0,) * len(forged)
    made = before_drain(records, lambda like: AttemptRecord(like.at, like.wall, 0, forged, keys))
    made = before_drain(made, lambda like: OutcomeRecord(like.at, like.wall, Outcome.CONFIRMED, forged))
    made = before_drain(made, lambda like: DeliveryRecord(like.at, like.wall, 0, 1, "proof", forged, keys))
    result = judged(made, SETUP)
    assert (result.verdict, result.account.lost) == (Verdict.INCONCLUSIVE, ())
    assert len([r for r in result.reasons if "the brokers' own counters say" in r]) == 2


@given(RUNS)
def test_the_brokers_of_an_honest_run_counted_it_all_but_what_an_ended_one_did_last(seed: int) -> None:
    for balance in judged(honest_run(seed), SETUP).counter_checks:
        assert balance.counted >= balance.accounted
        assert balance.allowed < balance.accounted


def counted(at: float, node: str, epoch: str, number: int) -> CountersRecord:
    return CountersRecord(at, at, node, epoch, number, number, 0, 0)


def settled(at: float, first: int, count: int) -> OutcomeRecord:
    return OutcomeRecord(at, at, Outcome.CONFIRMED, tuple(range(first, first + count)))


def test_only_what_an_ended_broker_did_after_the_last_look_may_be_missing() -> None:
    records: Records = [
        counted(1, "a", "1", 7),
        counted(1, "b", "1", 0),
        settled(2, 1, 100),
        counted(3, "a", "1", 107),
        # Told late, and asked for before these five.
        settled(4, 101, 5),
        counted(3.5, "a", "1", 107),
        settled(5, 106, 45),
        FaultRecord(6, 6, False, FaultStage.HOLDS, "kill", "a", "gone"),
        settled(8, 151, 2),
        settled(10, 153, 30),
        counted(11, "a", "2", 0),
        counted(11, "b", "1", 32),
    ]
    (confirmed, _) = evidence_of(records, replace(SETUP, nodes=("a", "b"))).counter_checks
    assert (confirmed.accounted, confirmed.counted, confirmed.allowed) == (182, 132, 52)


def test_without_a_look_at_every_node_before_and_after_nothing_is_balanced() -> None:
    setup = replace(SETUP, nodes=("a", "b"))
    early: Records = [counted(1, "a", "1", 0), counted(1, "b", "1", 0)]
    between: Records = [AttemptRecord(2, 2, 0, (1, 2), (0, 0)), settled(2, 1, 2)]
    late: Records = [counted(3, "a", "1", 2), counted(3, "b", "1", 0)]
    assert len(evidence_of([*early, *between, *late], setup).counter_checks) == 2
    for missing in range(2):
        assert evidence_of([*early[:missing], *early[missing + 1 :], *between, *late], setup).counter_checks == ()
        assert evidence_of([*early, *between, *late[:missing], *late[missing + 1 :]], setup).counter_checks == ()


def test_a_journal_that_could_not_be_written_to_its_end_is_inconclusive(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    records = [r for r in honest_run(3) if not isinstance(r, EndRecord)]
    path.write_text(head_of(SETUP) + "".join(line_of(r) for r in records))
    result = judge(read_journal(path), trouble="the disk is full")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "The journal is damaged: the disk is full." in result.reasons
    assert evidence_of([*records, DamageRecord(0.0, 0.0, "x", torn=True)], SETUP).is_cut


def test_of_many_ids_five_are_named() -> None:
    records = honest_run(5)
    numbers = plain_numbers(records)[:9]
    result = judged(mapped(records, DeliveryRecord | AnswerRecord, without_numbers(*numbers)), SETUP)
    assert result.reasons[0].endswith(f"{', '.join(message_id('6f0c', n) for n in numbers[:5])} and 4 more.")


def test_a_rolling_restart_has_to_reach_every_node() -> None:
    result = judged(honest_run(5), replace(SETUP, fault="rolling"))
    assert (result.verdict, len(result.reasons)) == (Verdict.INCONCLUSIVE, 1)
    assert "only rmq2 was seen to be" in result.reasons[0]


def test_in_a_fanout_each_queue_is_owed_each_message() -> None:
    setup = replace(SETUP, queues=("a", "b"), every_queue=True, nodes=NODES)
    base: Records = [AttemptRecord(1.0, 2.0, 0, (1, 2), (0, 0)), OutcomeRecord(1.1, 2.1, Outcome.CONFIRMED, (1, 2))]
    both = [DeliveryRecord(1.2, 2.2, q, 1, name, (1, 2), (0, 0)) for q, name in enumerate("ab")]
    whole = account_of([*base, *both], setup).account
    assert (whole.delivered, whole.duplicates.unexplained, whole.lost) == (2, 0, ())
    assert account_of([*base, both[0]], setup).account.lost == ("6f0c-1", "6f0c-2")


def test_each_reader_of_a_stream_is_owed_each_message() -> None:
    setup = replace(SETUP, workload=Workload(queue_type="stream", consumers=2))
    base: Records = [AttemptRecord(1.0, 2.0, 0, (1, 2), (0, 0)), OutcomeRecord(1.1, 2.1, Outcome.CONFIRMED, (1, 2))]
    both = [DeliveryRecord(1.2, 2.2, reader, 1, "proof", (1, 2), (0, 0)) for reader in (0, 1)]
    whole = account_of([*base, *both], setup).account
    assert (whole.delivered, whole.duplicates.unexplained, whole.lost) == (2, 0, ())
    assert account_of([*base, both[0]], setup).account.lost == ("6f0c-1", "6f0c-2")
    again = DeliveryRecord(1.3, 2.3, 1, 1, "proof", (2,), (0,))
    assert account_of([*base, *both, again], setup).account.duplicates.unexplained == 1


def was_answered(records: Records, number: int) -> bool:
    return any(isinstance(r, AnswerRecord) and number in r.numbers for r in records)
