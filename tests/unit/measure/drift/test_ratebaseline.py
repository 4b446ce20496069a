"""What a rate is when it is well: phi, steady hours, and that the range holds the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gateway.contract.schema import Season
from gateway.measure.drift.baseline import ETA
from gateway.measure.drift.ratebaseline import (
    COUNT,
    EVENTS,
    EVENTS_MIN,
    OF_BLOCKS,
    OF_TICKS,
    SCALES,
    SQUARES,
    SUMS,
    block_ticks,
    freeze_rate,
    is_enough,
    rate_overdispersion,
)
from gateway.measure.drift.seasonal import HOURS, PRIOR_EVENTS
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Int64
from gateway.tables import Float64

TICK_NS = 10 * SECOND_NS
TICKS = 360  # in an hour
BLOCK = 30
DAY = 24


def folded(counts: Int64) -> Int64:
    """Sum whole hours of ticks from hour 0 of the week on. Shape: counts (hours * TICKS,)."""
    sums = np.zeros((SCALES, SUMS, HOURS), dtype=np.int64)
    for scale, each in ((OF_TICKS, counts), (OF_BLOCKS, counts.reshape(-1, BLOCK).sum(axis=1))):
        by_hour = each.reshape(len(counts) // TICKS, -1)
        cell = np.arange(len(by_hour)) % HOURS
        np.add.at(sums[scale, COUNT], cell, by_hour.shape[1])
        np.add.at(sums[scale, EVENTS], cell, by_hour.sum(axis=1))
        np.add.at(sums[scale, SQUARES], cell, (by_hour**2).sum(axis=1))
    return sums


def rhythm(mean: float, depth: float) -> Float64:
    """Means of the hours of a week that swing over the day and are lower at weekends."""
    hours = np.arange(HOURS)
    found: Float64 = mean * (1 + depth * np.sin(2 * np.pi * hours / 24))
    return found * np.where(hours < 120, 1.0, 0.7)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40))
def test_phi_of_one_hour_is_the_sample_variance_over_the_mean(ticks: list[int]) -> None:
    counts = np.array(ticks)
    sums = np.zeros((SCALES, SUMS, HOURS), dtype=np.int64)
    sums[OF_TICKS, :, 5] = len(counts), counts.sum(), (counts**2).sum()
    mean = counts.mean()
    found = rate_overdispersion(sums)
    if mean == 0:
        assert found == 1
        return
    plain = counts.var(ddof=1) / mean
    n = len(counts)
    error = np.sqrt(n * (2 * mean**2 + mean)) / (mean * (n - 1))
    assert found == pytest.approx(max(1, plain) if plain <= 1 + 3 * error else 2 * plain)


def test_independent_events_have_a_phi_of_one_whatever_their_rhythm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [
        rate_overdispersion(folded(rng.poisson(np.repeat(rhythm(mean, 0.8), TICKS))))
        for mean in (0.05, 3.0, 200.0)
    ]
    assert min(found) >= 1
    # Chance doubles one in hundreds.
    assert sorted(found)[1] < 1.1


def test_bursts_and_long_scenes_are_seen_and_doubled(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ticks = DAY * TICKS
    bursts = folded(rng.negative_binomial(10 / 4, 1 / 5, ticks))
    assert rate_overdispersion(bursts) == pytest.approx(10, rel=0.3)
    # Scenes of a block with a variance of 1/10 of their mean squared: 1 + 300 / 10 for a block, 2
    # for a tick, which knows nothing of the next one.
    level = np.repeat(rng.gamma(10, 0.1, ticks // BLOCK), BLOCK)
    scenes = folded(rng.poisson(10 * level))
    assert rate_overdispersion(scenes) == pytest.approx(62, rel=0.4)
    assert block_ticks(TICK_NS) == BLOCK


def test_a_steady_rate_has_the_exact_interval_of_all_hours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hour = rng.poisson(10, TICKS)
    counts = np.concatenate([rng.permutation(hour) for _ in range(DAY)])
    for season in Season:
        found = freeze_rate(folded(counts), TICK_NS, season)
        assert found.is_steady
        events = int(counts.sum()) / found.phi
        low, high = found.ranges(0.2)
        assert low == pytest.approx(
            np.full(HOURS, 0.8 * found.phi * stats.chi2.ppf(ETA / 2, 2 * events) / 2 / 8640)
        )
        assert high == pytest.approx(
            np.full(HOURS, 1.2 * found.phi * stats.chi2.ppf(1 - ETA / 2, 2 * events + 2) / 2 / 8640)
        )
        assert found.means() == pytest.approx(np.full(HOURS, counts.mean()))


@pytest.mark.parametrize("mean", [0.02, 1.0, 50.0])
def test_the_ranges_hold_the_truth_of_all_hours(mean: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rhythm(mean, 0.6)
    outside, width, drawn_width = 0, 0.0, 0.0
    for _ in range(60):
        sums = folded(rng.poisson(np.repeat(truth, TICKS)))
        found = freeze_rate(sums, TICK_NS, Season.HOUR_OF_WEEK)
        assert not found.is_steady
        low, high = found.ranges(0.0)
        outside += bool(((truth < low) | (truth > high)).any())
        width += float((high - low).mean())
        # What an interval about a mean that is drawn towards the week would have to be.
        events, ticks = sums[OF_TICKS, EVENTS], sums[OF_TICKS, COUNT]
        week = events.sum() / ticks.sum()
        weight = PRIOR_EVENTS / (events + PRIOR_EVENTS)
        drawn_width += float((high - low + 2 * weight * np.abs(events / ticks - week)).mean())
    assert outside <= stats.binom.isf(1e-4, 60, ETA)
    assert width < drawn_width


def test_without_a_season_the_range_goes_from_the_quietest_hour_to_the_busiest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rhythm(20.0, 0.5)[:DAY]
    found = freeze_rate(folded(rng.poisson(np.repeat(truth, TICKS))), TICK_NS, Season.NONE)
    low, high = found.ranges(0.1)
    assert not found.is_steady
    assert (np.unique(low).size, np.unique(high).size) == (1, 1)
    assert 0.75 * truth.min() < low[0] < 0.9 * truth.min()
    assert 1.1 * truth.max() < high[0] < 1.25 * truth.max()


def test_it_takes_a_day_or_a_week_with_every_hour_and_some_events() -> None:
    day = folded(np.ones(DAY * TICKS, dtype=np.int64))
    week = folded(np.ones(HOURS * TICKS, dtype=np.int64))
    assert is_enough(day, TICK_NS, Season.NONE)
    assert not is_enough(day, TICK_NS, Season.HOUR_OF_WEEK)
    assert is_enough(week, TICK_NS, Season.HOUR_OF_WEEK)
    missing = week + day
    missing[..., 100] = 0
    assert not is_enough(missing, TICK_NS, Season.HOUR_OF_WEEK)
    few = day.copy()
    few[OF_TICKS, EVENTS] = 0
    few[OF_TICKS, EVENTS, 0] = EVENTS_MIN - 1
    assert not is_enough(few, TICK_NS, Season.NONE)
    short = day.copy()
    short[OF_TICKS, COUNT, 0] -= 1
    assert not is_enough(short, TICK_NS, Season.NONE)


def test_the_digest_is_that_of_sums_tick_and_season() -> None:
    sums = folded(np.ones(DAY * TICKS, dtype=np.int64))
    first = freeze_rate(sums, TICK_NS, Season.NONE)
    sums[OF_TICKS, SQUARES, 0] += 1
    others = [
        freeze_rate(sums, TICK_NS, Season.NONE),
        freeze_rate(first.sums, TICK_NS + 1, Season.NONE),
        freeze_rate(first.sums, TICK_NS, Season.HOUR_OF_WEEK),
    ]
    assert len({first.digest, *(each.digest for each in others)}) == 4
    assert first.events == DAY * TICKS
