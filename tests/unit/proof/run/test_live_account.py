"""The ledger agrees with plain sets, stays small, and when one thing is broken on purpose exactly that set changes."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.messaging.messages import Outcome
from dmq_core.proof.run.live_account import OVERTAKEN_S, LiveAccount, MessageCounts

STEPS = st.lists(
    st.one_of(
        st.just(("attempt", 0, None)),
        st.tuples(st.just("settle"), st.integers(1, 25), st.sampled_from(list(Outcome))),
        st.tuples(st.just("deliver"), st.integers(-1, 30), st.booleans()),
    ),
    max_size=120,
)


@given(STEPS)
def test_any_history_is_counted_as_sets_would(steps: list[tuple[str, int, object]]) -> None:
    account = LiveAccount()
    attempted: set[int] = set()
    outcome: dict[int, Outcome] = {}
    delivered: set[int] = set()
    duplicates = unexpected = redelivered = 0
    for step, number, detail in steps:
        if step == "attempt":
            attempted.add(account.attempt())
        elif step == "settle":
            assert isinstance(detail, Outcome)
            account.settled(number, detail)
            if number in attempted:
                outcome.setdefault(number, detail)
        else:
            account.delivered(number, bool(detail), now=0.0)
            redelivered += bool(detail)
            if number not in attempted:
                unexpected += 1
            elif number in delivered:
                duplicates += 1
            else:
                delivered.add(number)
    with_outcome = {o: {n for n, seen in outcome.items() if seen is o} for o in Outcome}
    account.close(drained=True)
    lost = with_outcome[Outcome.CONFIRMED] - delivered
    assert account.counts() == MessageCounts(
        attempted=len(attempted),
        outstanding=len(attempted - set(outcome)),
        confirmed=len(with_outcome[Outcome.CONFIRMED]),
        nacked=len(with_outcome[Outcome.NACKED]),
        returned=len(with_outcome[Outcome.RETURNED]),
        unknown=len(with_outcome[Outcome.UNKNOWN]),
        not_sent=len(with_outcome[Outcome.NOT_SENT]),
        delivered=len(delivered),
        redelivered=redelivered,
        duplicates=duplicates,
        recovered=len(with_outcome[Outcome.UNKNOWN] & delivered),
        leak=len(with_outcome[Outcome.RETURNED] & delivered),
        phantom=len(with_outcome[Outcome.NOT_SENT] & delivered),
        unexpected=unexpected,
        lost=len(lost),
    )
    assert set(account.lost()) == lost


def run(drop: int = 0, double: int = 0, forge: int = 0, never_sent: int = 0, lose_confirm: int = 0) -> MessageCounts:
    """A run of 100 messages, all confirmed and delivered, but for what is broken on purpose."""
    account = LiveAccount()
    for number in range(1, 101):
        assert account.attempt() == number
        outcome = Outcome.CONFIRMED
        if number == never_sent:
            outcome = Outcome.NOT_SENT
        elif number == lose_confirm:
            outcome = Outcome.UNKNOWN
        account.settled(number, outcome)
        if number != drop:
            account.delivered(number, redelivered=False, now=number / 1000)
        if number == double:
            account.delivered(number, redelivered=True, now=number / 1000)
    if forge:
        account.delivered(forge, redelivered=False, now=1.0)
    account.close(drained=True)
    return account.counts()


SOUND = run()


@pytest.mark.parametrize(
    ("broken", "changed"),
    [
        ({"drop": 50}, {"lost": 1, "delivered": 99}),
        ({"double": 50}, {"duplicates": 1, "redelivered": 1}),
        ({"forge": 101}, {"unexpected": 1}),
        ({"forge": 7}, {"duplicates": 1}),
        ({"never_sent": 50}, {"phantom": 1, "not_sent": 1, "confirmed": 99}),
        ({"lose_confirm": 50}, {"recovered": 1, "unknown": 1, "confirmed": 99}),
        ({"lose_confirm": 50, "drop": 50}, {"unknown": 1, "confirmed": 99, "delivered": 99}),
    ],
)
def test_what_is_broken_on_purpose_changes_exactly_its_own_figures(
    broken: dict[str, int], changed: dict[str, int]
) -> None:
    before, after = asdict(SOUND), asdict(run(**broken))
    assert {name: value for name, value in after.items() if value != before[name]} == changed


def test_what_is_confirmed_and_delivered_is_forgotten() -> None:
    account = LiveAccount()
    for _ in range(50_000):
        number = account.attempt()
        account.settled(number, Outcome.CONFIRMED)
        account.delivered(number, redelivered=False, now=0.0)
    kept = sum(len(part) for part in vars(account).values() if isinstance(part, set | dict))
    assert kept < 50
    assert not account.delivered(1, redelivered=True, now=0.0)
    assert account.counts().duplicates == 1


def test_oddities_are_kept_up_to_a_bound() -> None:
    account = LiveAccount(kept=10)
    for _ in range(100):
        account.settled(account.attempt(), Outcome.UNKNOWN)
    for number in range(1, 101):
        account.delivered(number, redelivered=False, now=0.0)
    assert (account.counts().unknown, account.counts().recovered) == (100, 10)


def test_a_message_counts_as_lost_only_after_deliveries_have_flowed_past_it_for_long() -> None:
    account = LiveAccount()
    missing = account.attempt()
    account.settled(missing, Outcome.CONFIRMED)

    def flow(from_s: float, to_s: float) -> None:
        for tenth in range(int(from_s * 10), int(to_s * 10)):
            number = account.attempt()
            account.settled(number, Outcome.CONFIRMED)
            account.delivered(number, redelivered=False, now=tenth / 10)

    flow(0, OVERTAKEN_S - 4)
    assert (account.counts().lost, account.counts().in_flight) == (0, 1)
    # Ten minutes in which the whole cluster was away: nothing overtook anything.
    flow(700, 700 + 2)
    assert account.counts().lost == 0
    flow(702, 706)
    assert account.lost() == (missing,)
    assert account.counts().in_flight == 0
    account.delivered(missing, redelivered=True, now=710.0)
    assert account.counts().lost == 0


def test_an_undrained_queue_leaves_its_messages_in_flight() -> None:
    account = LiveAccount()
    account.settled(account.attempt(), Outcome.CONFIRMED)
    account.close(drained=False)
    assert (account.counts().in_flight, account.counts().lost) == (1, 0)
