"""Rates from counters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.observe.rates import RING, Meter, Meters


def test_one_sample_tells_no_rate() -> None:
    meter = Meter()
    meter.sample(10.0, (100,))
    assert meter.rates is None
    assert meter.history == ()


def test_a_steady_stream_shows_its_rate() -> None:
    meter = Meter()
    for second in range(10):
        meter.sample(float(second), (second * 500, second * 250))
    assert meter.rates == pytest.approx((500.0, 250.0))
    assert meter.history == pytest.approx((500.0,) * 9)


def test_samples_that_beat_against_the_brokers_second_are_smoothed() -> None:
    meter = Meter()
    for second, count in enumerate((0, 0, 1000, 1000, 2000, 2000, 3000, 3000, 4000)):
        meter.sample(float(second), (count,))
    assert meter.rates is not None
    assert 300 < meter.rates[0] < 700


def test_a_broker_that_counts_in_steps_of_five_seconds_shows_a_steady_stream_as_steady() -> None:
    meter = Meter()
    seen = []
    for second in range(40):
        meter.sample(float(second), (second // 5 * 2500,))
        seen.append(meter.rates)
    assert all(rates == pytest.approx((500.0,)) for rates in seen[10:])


def test_what_begins_after_a_long_silence_shows_its_own_rate_at_once() -> None:
    meter = Meter()
    for second in range(100):
        meter.sample(float(second), (max(0, second - 90) * 300,))
        if second == 91:
            assert meter.rates == pytest.approx((300.0,))
    assert meter.rates == pytest.approx((300.0,))


def test_a_counter_that_falls_begins_a_new_epoch_and_is_never_a_negative_rate() -> None:
    meter = Meter()
    meter.sample(0.0, (5000, 10))
    meter.sample(1.0, (5500, 20))
    meter.sample(2.0, (30, 30))
    assert meter.rates is None
    meter.sample(3.0, (130, 40))
    assert meter.rates == pytest.approx((100.0, 10.0))


def test_the_rate_falls_to_nought_when_nothing_comes_any_more() -> None:
    meter = Meter()
    for second in range(10):
        meter.sample(float(second), (min(second, 3) * 100,))
    assert meter.rates == (0.0,)


def test_history_is_a_ring_of_thirty() -> None:
    meter = Meter()
    for second in range(100):
        meter.sample(float(second), (second,))
    assert len(meter.history) == RING == 30


def test_meters_of_keys_that_are_gone_are_forgotten() -> None:
    meters: Meters[str] = Meters()
    meters.sample(0.0, {"a": (0,), "b": (0,)})
    meters.sample(1.0, {"a": (5,)})
    meters.sample(2.0, {"a": (10,), "b": (900,)})
    assert meters.rates("a") == pytest.approx((5.0,))
    assert meters.rates("b") is None
    assert meters.rates("c") is None


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**12)), max_size=40))
def test_whatever_is_sampled_no_rate_is_negative(samples: list[tuple[float, int]]) -> None:
    meter = Meter()
    for at, count in samples:
        meter.sample(at, (count, count // 2))
        assert meter.rates is None or min(meter.rates) >= 0
    assert len(meter.history) <= RING
