"""Waits and rates keep their bounds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forward.backoff import (
    BACKOFF_S_MAX,
    Backoff,
    TokenBucket,
)


def test_waits_are_jittered_over_the_whole_of_a_doubling_ceiling() -> None:
    ceilings = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    samples: list[list[float]] = [[] for _ in ceilings]
    rng = random.Random(1)
    for _ in range(2000):
        backoff = Backoff(rng=rng)
        for column in samples:
            column.append(backoff.next_s())
    for ceiling, column in zip(ceilings, samples, strict=True):
        assert 0.0 <= min(column) < 0.02 * ceiling
        assert 0.98 * ceiling < max(column) <= ceiling
        assert sum(column) / len(column) == pytest.approx(ceiling / 2, rel=0.06)


def test_a_success_starts_the_waits_anew() -> None:
    backoff = Backoff(rng=random.Random(1))
    for _ in range(2000):
        assert backoff.next_s() <= BACKOFF_S_MAX
    backoff.reset()
    assert backoff.next_s() <= 1.0


@pytest.mark.parametrize(
    ("hint", "low", "high"), [(0.0, 1.0, 1.1), (30.0, 30.0, 33.0), (1e9, 3600.0, 3960.0)]
)
def test_a_hint_is_honoured_within_limits(hint: float, low: float, high: float) -> None:
    backoff = Backoff(rng=random.Random(1))
    assert all(low <= backoff.next_s(hint) <= high for _ in range(100))


def test_a_bucket_without_a_rate_never_waits() -> None:
    assert TokenBucket(bytes_per_second=None).delay_s(1 << 40, 0.0) == 0.0


@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=50),
    idle=st.lists(st.floats(0, 3), min_size=50, max_size=50),
)
def test_no_stretch_of_time_carries_more_than_its_rate_and_one_burst(
    sizes: list[int], idle: list[float]
) -> None:
    rate = 1000
    bucket = TokenBucket(bytes_per_second=rate)
    now = 100.0
    sent: list[tuple[float, int]] = []
    for size, pause in zip(sizes, idle, strict=False):
        now += pause
        now += bucket.delay_s(size, now)
        sent.append((now, size))
    for start in range(len(sent)):
        total = 0
        for time_s, size in sent[start:]:
            # The frame that overdraws the bucket is itself not bounded by it.
            assert total <= rate * (time_s - sent[start][0]) + rate * 1.0 + 1e-6
            total += size


def test_a_clock_that_jumps_back_does_not_stop_the_flow() -> None:
    bucket = TokenBucket(bytes_per_second=1000)
    bucket.delay_s(1000, 50.0)
    assert bucket.delay_s(1000, 10.0) <= 1.0
