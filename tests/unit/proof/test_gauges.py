"""Gaps count only while something is on offer, and rates fall into slices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.proof.gauges import GapMeter, RateHistory


def test_a_gap_runs_from_the_first_offer_to_the_first_answer() -> None:
    meter = GapMeter()
    assert meter.current(5.0) == 0.0
    meter.expect(10.0)
    meter.expect(10.5)
    assert meter.current(11.0) == 1.0
    assert meter.arrived(12.0, more=True) == 2.0
    assert meter.arrived(12.5, more=False) == 0.5
    assert meter.current(99.0) == 0.0
    assert meter.longest_s == 2.0


def test_an_open_gap_counts_toward_the_longest() -> None:
    meter = GapMeter()
    meter.expect(0.0)
    assert meter.longest_so_far(3.0) == 3.0
    assert meter.longest_s == 0.0


def test_rates_are_those_of_whole_slices() -> None:
    history = RateHistory(started=100.0, slice_s=0.5)
    for moment in (100.0, 100.1, 100.4, 100.6, 101.6):
        history.add(moment)
    assert history.rates(102.1) == (6.0, 2.0, 0.0, 2.0)


def test_a_long_silence_does_not_fill_the_memory() -> None:
    history = RateHistory(started=0.0, slice_s=0.5, slices=10)
    history.add(0.1)
    history.add(1_000_000.0)
    assert history.rates(1_000_000.6) == (*[0.0] * 9, 2.0)


@given(st.lists(st.floats(0, 60, allow_nan=False), max_size=50))
def test_nothing_is_counted_twice_or_lost_in_the_slices(moments: list[float]) -> None:
    history = RateHistory(started=0.0, slice_s=0.5, slices=240)
    for moment in sorted(moments):
        history.add(moment)
    assert sum(history.rates(61.0)) * 0.5 == pytest.approx(len(moments))
