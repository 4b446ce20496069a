"""Alarms of event rates: as plain Python finds them, within their budget, and soon."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pytest
from scipy import stats

from gateway.contract.schema import Season
from gateway.measure.drift.rates import (
    SUSTAINED_NS,
)
from gateway.measure.drift.seasonal import HOURS
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Int64
from tests.conftest import FUZZ
from tests.unit.measure.drift.rated import (
    BEGIN_NS,
    HOUR_OF_BEGIN,
    TICK_NS,
    Site,
    armed,
    live,
    made,
)
from tests.unit.measure.drift.test_ratebaseline import TICKS, rhythm

# What an alarm is


def plain_steps(
    counts: Sequence[int], low: float, high: float, phi: float, bound: float
) -> tuple[int, float, int]:
    """Step four bets in plain Python. Returns tick and log M of the alarm, ticks since onset."""
    m, since, level, gain = [0.0] * 4, [0] * 4, [0.0] * 4, [0.0] * 4
    for at, count in enumerate(counts):
        for bet, rho in enumerate((0.5, 0.8, 1.25, 2.0)):
            mean = high if rho > 1 else low
            value = (count * math.log(rho) - mean * (rho - 1)) / phi
            m[bet] = math.exp(value) * (m[bet] + (rho > 1 or low > 0))
            m[bet] = min(m[bet], math.exp(level[bet] + bound / 2))
            level[bet] += (max(0.0, math.log(m[bet])) - level[bet]) / (SUSTAINED_NS / TICK_NS)
            gain[bet] = max(0.0, gain[bet] + value)
            since[bet] = since[bet] + 1 if gain[bet] > 0 else 0
        if math.log(sum(m) / 4) >= bound:
            return at, math.log(sum(m) / 4), since[gain.index(max(gain))]
    return -1, 0.0, 0


@pytest.mark.parametrize("now", [0.0, 5.0, 16.0, 20.0])
def test_an_alarm_is_that_of_plain_python(now: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = made(false_alarms_per_s=1 / (86_400 * 30))
    armed(rates, rng.poisson(10, (1, 24 * TICKS)))
    site = Site(rates)
    [found] = rates.baselines.values()
    low, high = (float(each[0]) for each in found.ranges(0.2))
    counts = [*rng.poisson(10, 200).tolist(), *rng.poisson(now, 300).tolist()]
    bound = rates.log_bound(rates.contracts[0])
    assert bound == pytest.approx(12.465, abs=1e-3)
    at, evidence, ticks = plain_steps(counts, low, high, found.phi, bound)
    assert at >= 200
    for count in counts:
        site.send([count])
    alarm = site.alarms()[0]
    assert alarm.end_ns == BEGIN_NS + (at + 1) * TICK_NS
    assert alarm.log_evidence == pytest.approx(evidence, rel=1e-9)
    assert alarm.onset_ns == alarm.end_ns - ticks * TICK_NS
    assert alarm.events == sum(counts[at + 1 - ticks : at + 1])
    assert alarm.now_hz == pytest.approx(alarm.events / (ticks * 10))
    assert alarm.expected_hz == pytest.approx(found.sums[0, 1].sum() / 86_400)
    assert (alarm.low_hz, alarm.high_hz) == pytest.approx((low / 10, high / 10))
    assert alarm.baseline_events == found.events


def budget(
    counts: Sequence[Int64], *, hours: Int64, season: Season, tolerance: float, bound: float
) -> tuple[int, float]:
    """Return how many alarms there are, each one counted, and how many are allowed."""
    models = len(hours)
    per_s = math.exp(-bound) / 10
    rates = made(models, tolerance=tolerance, season=season, false_alarms_per_s=per_s)
    armed(rates, hours)
    site = Site(rates)
    for tick in counts:
        site.send(tick)
        rates.alarmed[:] = False
    return len(site.alarms()), len(counts) * models * math.exp(-bound)


MODELS: Final = 60
LIVE_TICKS: Final = 40 * TICKS if FUZZ else 2 * TICKS


@pytest.mark.parametrize("mean", [0.3, 8.0])
@pytest.mark.parametrize("phi", [1.0, 4.0])
@pytest.mark.parametrize("tolerance", [0.0, 0.2])
def test_false_alarms_stay_within_the_budget(
    mean: float, phi: float, tolerance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    hours = live(np.full((MODELS, 24 * TICKS), mean), phi, rng)
    counts = live(np.full((LIVE_TICKS, MODELS), mean * (1 + tolerance)), phi, rng)
    found, allowed = budget(
        list(counts), hours=hours, season=Season.NONE, tolerance=tolerance, bound=math.log(200)
    )
    assert found <= stats.poisson.isf(1e-6, allowed)


@pytest.mark.parametrize("tolerance", [0.0, 0.2])
def test_false_alarms_stay_within_the_budget_with_a_rhythm(tolerance: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    week = np.roll(rhythm(8.0, 0.6), 0)
    models = 20
    hours = rng.poisson(np.repeat(week, TICKS), (models, HOURS * TICKS))
    at = np.arange(LIVE_TICKS) // TICKS
    means = week[(HOUR_OF_BEGIN + at) % HOURS] * (1 - tolerance)
    counts = rng.poisson(means[:, None], (LIVE_TICKS, models))
    found, allowed = budget(
        list(counts),
        hours=hours,
        season=Season.HOUR_OF_WEEK,
        tolerance=tolerance,
        bound=math.log(200),
    )
    assert found <= stats.poisson.isf(1e-6, allowed)
    # The same counts at other hours are no peace.
    shifted = np.roll(hours, 12 * TICKS, axis=1)
    found, _ = budget(
        list(counts),
        hours=shifted,
        season=Season.HOUR_OF_WEEK,
        tolerance=0.0,
        bound=math.log(200),
    )
    assert found > 3 * allowed


@pytest.mark.parametrize(
    ("mean", "factor", "minutes"),
    [
        (0.1, 0.0, 90),
        (1.0, 0.5, 90),
        (1.0, 2.0, 40),
        (10.0, 0.5, 12),
        (10.0, 2.0, 9),
        (100.0, 0.0, 7),
    ],
)
def test_how_soon_a_change_is_found(mean: float, factor: float, minutes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = 20
    rates = made(models)
    armed(rates, rng.poisson(mean, (models, 24 * TICKS)))
    site = Site(rates)
    for _ in range(6 * minutes):
        site.send(rng.poisson(mean * factor, models))
    delays = [(each.end_ns - BEGIN_NS) / (60 * SECOND_NS) for each in site.alarms()]
    assert len(delays) >= 0.9 * models
    assert min(delays) >= SUSTAINED_NS / (60 * SECOND_NS), "shorter changes are none"


def test_a_gap_and_the_backlog_after_it_are_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = made()
    armed(rates, rng.poisson(100, (1, 24 * TICKS)))
    site = Site(rates)
    for tick in range(400):
        is_gone = 200 <= tick < 225
        site.send([0 if is_gone else 2_600 if tick == 225 else int(rng.poisson(100))])
    assert site.told == []
