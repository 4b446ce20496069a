"""The event-rate detector: valid for every mean of its range, and it finds silence and floods."""

import numpy as np
import pytest
from scipy import stats

from gateway.measure.drift.rate import FACTORS, mean_range, rate_step, rate_values
from gateway.measure.state import Int64

A = 500.0


def alarms(counts: Int64, low: float, high: float, phi: float = 1.0) -> Int64:
    """Return how often each stream alarms at A. Shape: counts (ticks, streams)."""
    streams = counts.shape[1]
    ends = [np.full(streams, each) for each in (low, high, phi)]
    log_m = np.full((streams, len(FACTORS)), -np.inf)
    found = np.zeros(streams, dtype=np.int64)
    for tick in counts:
        log_m, mixed = rate_step(rate_values(tick, ends[0], ends[1], ends[2]), log_m)
        found += mixed >= np.log(A)
        log_m[mixed >= np.log(A)] = -np.inf
    return found


def test_no_factor_gains_at_any_mean_of_the_range() -> None:
    counts = np.arange(400)
    low, high = np.full(400, 8.0), np.full(400, 12.0)
    values = rate_values(counts, low, high, np.ones(400))
    for mean in (8.0, 9.0, 10.0, 12.0):
        weight = stats.poisson(mean).pmf(counts)
        assert (weight @ np.exp(values)).max() <= 1 + 1e-12
    assert float(weight @ np.exp(values[:, 3])) == pytest.approx(1, rel=1e-9)


def test_the_range_is_the_exact_poisson_interval() -> None:
    low, high = mean_range(np.array([100.0, 0.0]), np.array([10.0, 10.0]), 0.0, 1.0)
    assert low[0] == pytest.approx(stats.chi2.ppf(0.005, 200) / 20, rel=1e-9)
    assert high[0] == pytest.approx(stats.chi2.ppf(0.995, 202) / 20, rel=1e-9)
    assert low[1] == 0
    assert high[1] > 0
    wide = mean_range(np.array([100.0]), np.array([10.0]), 0.2, 4.0)
    assert wide[0][0] < 0.8 * low[0]
    assert wide[1][0] > 1.2 * high[0]


def test_false_alarms_stay_within_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    streams, ticks = 200, 1_500
    for mean in (0.3, 10.0, 200.0):
        counts = rng.poisson(mean, (ticks, streams))
        found = int(alarms(counts, mean, mean).sum())
        assert found <= stats.poisson.isf(1e-6, streams * ticks / A)


def test_silence_and_floods_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = mean_range(np.array([5_000.0]), np.array([500.0]), 0.1, 1.0)
    for mean in (0.0, 5.0, 15.0, 40.0):
        counts = rng.poisson(mean, (60, 20))
        assert (alarms(counts, float(low[0]), float(high[0])) > 0).all(), mean
    assert alarms(rng.poisson(10, (60, 20)), float(low[0]), float(high[0])).sum() == 0
