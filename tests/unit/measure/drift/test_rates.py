"""Event rates: what is evidence, what is not, how soon an alarm comes, and what a restart keeps."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gateway.contract.schema import DriftRule, Season
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.ratebaseline import COUNT, EVENTS, OF_TICKS, SQUARES, freeze_rate
from gateway.measure.drift.rates import (
    CANDIDATE,
    EVENT_RATE,
    FIELDS,
    REFERENCE,
    SETTLE_NS,
    SUSTAINED_NS,
    UNHEARD_TICKS,
    RateAlarm,
    RateEnd,
    Rates,
)
from gateway.measure.drift.ratestate import load, merge, save
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.state import Int64, State
from gateway.tables import Float64
from tests.conftest import FUZZ
from tests.unit.measure.build import START_NS, contract, plan
from tests.unit.measure.drift.test_ratebaseline import TICKS, folded, rhythm

TICK_NS: Final = 10 * SECOND_NS
# A whole hour, so that an hour of the test is one of the clock.
BEGIN_NS: Final = START_NS // HOUR_NS * HOUR_NS
HOUR_OF_BEGIN: Final = (BEGIN_NS // HOUR_NS + 72) % HOURS


def made(models: int = 1, *, tolerance: float | None = 0.2, **rule: Any) -> Rates:
    """Rates of some models, all judged in the same way, and of one that is not."""
    judged = DriftRule(rate_tolerance=tolerance, **rule)
    listed = [contract(f"model-{number}", drift=judged) for number in range(models)]
    return Rates(plan(contract("other"), *listed), MeasureSettings())


def armed(rates: Rates, hours: Int64) -> None:
    """Give every row a reference. Shape: hours (models, TICKS * whole hours)."""
    for row, counts in enumerate(hours):
        rates.sums[row, REFERENCE] = folded(counts)
        rates.filling[row, REFERENCE] = False
        rates.arm(row)
    rates.started[:] = True


class Site:
    """Sends counts of inferences tick by tick; a tick is heard of even if it brings none."""

    def __init__(self, rates: Rates, *, settled: bool = True) -> None:
        self.rates = rates
        self.tick = BEGIN_NS // TICK_NS
        self.told: list[RateAlarm | RateEnd] = []
        self.rates.heard(BEGIN_NS)
        if settled:
            self.rates.judged_from = 0

    @property
    def now_ns(self) -> int:
        return self.tick * TICK_NS

    def send(self, counts: Int64 | Sequence[int], *, event_ns: int | None = None) -> None:
        """Take one tick of (models,) counts and go on to the next."""
        self.rates.heard(self.now_ns + SECOND_NS)
        rows = np.repeat(np.array(self.rates.contracts), np.asarray(counts))
        self.rates.add(rows, np.full(len(rows), event_ns or self.now_ns))
        self.tick += 1
        self.told += self.rates.turn(self.now_ns)

    def alarms(self) -> list[RateAlarm]:
        return [each for each in self.told if isinstance(each, RateAlarm)]


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(
        np.array_equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one
    )


# What is counted


def test_nothing_is_done_where_no_contract_asks() -> None:
    rates = made(tolerance=None)
    rates.heard(BEGIN_NS)
    rates.add(np.array([0, 1, 1]), np.full(3, BEGIN_NS))
    assert rates.turn(BEGIN_NS + HOUR_NS) == []
    assert (rates.running, rates.contracts, len(rates.total)) == (0, (), 0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 3), max_size=20), min_size=1, max_size=40))
def test_sums_are_those_of_a_recount_in_plain_python(ticks: list[list[int]]) -> None:
    site = Site(made(3))
    plain: list[list[int]] = [[] for _ in range(3)]
    began = [False] * 3
    for rows in ticks:
        # One of the contracts is not judged.
        site.rates.heard(site.now_ns)
        site.rates.add(np.array(rows, dtype=np.int64), np.full(len(rows), site.now_ns))
        site.tick += 1
        site.told += site.rates.turn(site.now_ns)
        for model in range(3):
            count = rows.count(site.rates.contracts[model])
            if began[model]:
                plain[model].append(count)
            began[model] = began[model] or count > 0
    for model, counts in enumerate(plain):
        total = sum(row.count(site.rates.contracts[model]) for row in ticks)
        assert site.rates.total[model] == total
        found = site.rates.sums[model, REFERENCE, OF_TICKS].sum(axis=1)
        assert found[COUNT] == len(counts), "the tick of the first inference is not whole"
        assert found[EVENTS] == sum(counts)
        assert found[SQUARES] == sum(count * count for count in counts)


# What an alarm is


def plain_steps(
    counts: Sequence[int], low: float, high: float, phi: float, bound: float
) -> tuple[int, float, int]:
    """Step four bets in plain Python. Returns tick and log M of the alarm, ticks since onset."""
    m, since, level = [0.0] * 4, [0] * 4, [0.0] * 4
    for at, count in enumerate(counts):
        for bet, rho in enumerate((0.5, 0.8, 1.25, 2.0)):
            mean = high if rho > 1 else low
            value = (count * math.log(rho) - mean * (rho - 1)) / phi
            m[bet] = math.exp(value) * (m[bet] + (rho > 1 or low > 0))
            m[bet] = min(m[bet], math.exp(level[bet] + bound / 2))
            level[bet] += (max(0.0, math.log(m[bet])) - level[bet]) / (SUSTAINED_NS / TICK_NS)
            since[bet] = since[bet] + 1 if m[bet] > 1 else 0
        if math.log(sum(m) / 4) >= bound:
            return at, math.log(sum(m) / 4), since[m.index(max(m))]
    return -1, 0.0, 0


@pytest.mark.parametrize("now", [0.0, 5.0, 14.0, 20.0])
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


def live(means: Float64, phi: float, rng: np.random.Generator) -> Int64:
    """Draw counts with these means, and with phi times the variance of independent events."""
    if phi == 1:
        return rng.poisson(means)
    return rng.negative_binomial(means / (phi - 1), 1 / phi)


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
        (1.0, 0.5, 45),
        (1.0, 2.0, 30),
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


# What is no evidence


def test_a_gap_of_the_gateway_is_no_silence_and_its_backlog_no_flood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = made()
    armed(rates, rng.poisson(10, (1, 24 * TICKS)))
    site = Site(rates)
    for _ in range(50):
        site.send(rng.poisson(10, 1))
    before = rates.log_m.copy()
    heard_ns = rates.heard_ns
    site.tick += 600
    rates.resume(site.now_ns)
    assert rates.turn(site.now_ns) == []
    # What was held back comes slowly, and marked by when it happened.
    for _ in range(SETTLE_NS // TICK_NS + 1):
        site.send([400])
    assert np.array_equal(rates.log_m, before)
    for _ in range(60):
        rows = np.full(1_000, rates.contracts[0])
        rates.add(rows, np.full(1_000, heard_ns + 60 * SECOND_NS))
        site.send(rng.poisson(10, 1))
    assert site.told == []
    assert rates.evidence[0] < 3
    # Without the notice the same silence is one.
    site.tick += 600
    site.told += rates.turn(site.now_ns)
    assert len(site.alarms()) == 1


def test_a_new_gateway_learns_nothing_from_what_was_held_back_for_it() -> None:
    site = Site(made(), settled=False)
    site.send([5_000])
    for _ in range(SETTLE_NS // TICK_NS - 1):
        site.send([10])
    assert not site.rates.started[0]
    for _ in range(10):
        site.send([7])
    found = site.rates.sums[0, REFERENCE, OF_TICKS].sum(axis=1)
    assert found[EVENTS] == 7 * found[COUNT]
    assert found[COUNT] >= 8


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 60)), min_size=1, max_size=12),
    st.integers(1, 3 * UNHEARD_TICKS),
    st.integers(0, 1 << 30),
)
def test_idle_steps_come_to_the_same_as_one_long_step(
    gaps: list[tuple[int, int]], long: int, number: int
) -> None:
    rng = np.random.default_rng(number)
    hours = rng.poisson(10, (1, 24 * TICKS))
    kept: list[tuple[State, list[RateAlarm | RateEnd]]] = []
    for idle in (False, True):
        rates = made()
        armed(rates, hours)
        site = Site(rates)
        for ticks, count in [*gaps, (long, 3), (1, 0)]:
            rows = np.full(count, rates.contracts[0])
            site.told += rates.turn(site.now_ns)
            rates.heard(site.now_ns)
            rates.add(rows, np.full(count, site.now_ns))
            if idle:
                for at in sorted(rng.integers(0, ticks, 40).tolist()):
                    site.told += rates.turn(site.now_ns + at * TICK_NS + 1)
            site.tick += ticks
        site.told += rates.turn(site.now_ns)
        kept.append((save(rates), site.told))
    assert same(kept[0][0], kept[1][0])
    assert kept[0][1] == kept[1][1]


def test_a_long_silence_costs_a_bounded_number_of_steps() -> None:
    rates = made()
    armed(rates, np.full((1, 24 * TICKS), 10))
    site = Site(rates)
    site.send([10])
    site.told += rates.turn(site.now_ns + 10 * 365 * 24 * HOUR_NS)
    assert rates.hour[0, 2] + rates.hour_before[0, 1] <= 2 * TICKS
    assert (rates.tick * TICK_NS - site.now_ns) // HOUR_NS == 10 * 365 * 24
    assert len(site.alarms()) == 1


# Its life


def lived(rates: Rates, mean: float, ticks: int, rng: np.random.Generator, site: Site) -> None:
    for count in rng.poisson(mean, ticks).tolist():
        site.send([count])


def test_a_rate_is_learned_alarms_is_promoted_and_is_quiet(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = made()
    site = Site(rates)
    lived(rates, 10, 24 * TICKS, rng, site)
    assert (rates.running, rates.maybe_now(0)) == (0, None)
    lived(rates, 10, TICKS + 1, rng, site)
    assert rates.running == 1
    now = rates.maybe_now(0)
    assert now is not None
    assert now.expected_hz == pytest.approx(1, rel=0.05)
    assert now.now_hz == pytest.approx(1, rel=0.1)
    assert now.low_hz < 0.8 < 1.2 < now.high_hz
    lived(rates, 20, 26 * TICKS, rng, site)
    [alarm] = site.told
    assert isinstance(alarm, RateAlarm), "one for each episode, and no end"
    candidate = rates.maybe_candidate(0)
    assert candidate is not None
    assert candidate.means()[0] == pytest.approx(20, rel=0.05)
    old = rates.baselines[0].digest
    name = baseline_id("model-0", "", EVENT_RATE, candidate.digest)
    assert not rates.promote("0" * 64, site.now_ns)
    assert rates.baselines[0].digest == old
    assert rates.promote(name, site.now_ns)
    assert not rates.promote(name, site.now_ns), "it is no candidate any more"
    assert (rates.baselines[0].digest, rates.alarmed[0]) == (candidate.digest, False)
    lived(rates, 20, 2 * TICKS, rng, site)
    assert site.told == [alarm]


def test_an_alarm_ends_after_a_whole_hour_in_range_and_keeps_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = made()
    armed(rates, rng.poisson(10, (1, 24 * TICKS)))
    before = rates.baselines[0].digest
    site = Site(rates)
    lived(rates, 3, TICKS + 200, rng, site)
    assert len(site.told) == 1
    assert rates.filling[0, CANDIDATE]
    lived(rates, 10, 2 * TICKS - 200, rng, site)
    assert len(site.told) == 1, "the hour in which it came back is not whole"
    lived(rates, 10, 1, rng, site)
    end = site.told[1]
    assert end == RateEnd(row=0, end_ns=BEGIN_NS + 3 * HOUR_NS)
    assert rates.baselines[0].digest == before
    assert not rates.filling[0].any()
    assert rates.maybe_candidate(0) is None
    lived(rates, 3, TICKS, rng, site)
    assert isinstance(site.told[2], RateAlarm), "the next change is another episode"


def test_an_hour_in_which_nothing_is_expected_collects_no_evidence() -> None:
    rates = made(season=Season.HOUR_OF_WEEK)
    counts = np.full(HOURS * TICKS, 10)
    counts[(np.arange(HOURS).repeat(TICKS) - HOUR_OF_BEGIN) % HOURS < 4] = 0
    armed(rates, counts[None, :])
    site = Site(rates)
    for _ in range(3 * TICKS):
        site.send([0])
    assert (rates.log_m[0, :2] < 0).all()
    assert site.told == []


# Keeping it


def restored(state: State, rates: Rates) -> Rates:
    load(rates, state)
    return rates


def test_a_restart_goes_on_as_if_there_were_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hours = rng.poisson(10, (2, 24 * TICKS))
    one = Site(made(2))
    armed(one.rates, hours)
    one.rates.sums[1] = 0
    one.rates.filling[1] = (True, False)
    del one.rates.baselines[1]
    for _ in range(30):
        one.send(rng.poisson(5, 2))
    two = Site(made(2))
    load(two.rates, save(one.rates))
    two.tick = one.tick
    assert same(save(two.rates), save(one.rates))
    for _ in range(300):
        counts = rng.poisson(5, 2)
        one.send(counts)
        two.send(counts)
    assert same(save(two.rates), save(one.rates))
    assert one.told == two.told
    assert len(one.alarms()) == 1


def test_what_no_longer_means_the_same_starts_anew() -> None:
    rates = made(2)
    armed(rates, np.full((2, 24 * TICKS), 10))
    rates.heard(BEGIN_NS)
    state = save(rates)
    seasonal = restored(state, made(2, season=Season.HOUR_OF_WEEK))
    assert (seasonal.running, seasonal.tick) == (0, rates.tick)
    assert restored(state, made(1)).running == 1
    other = plan(contract("model-0", drift=DriftRule(rate_tolerance=0.2)))
    longer = restored(state, Rates(other, MeasureSettings(drift_tick_s=20.0)))
    assert (longer.running, longer.tick) == (0, rates.tick // 2)
    assert restored({}, made(2)).running == 0
    assert restored(state, made(2, tolerance=None)).contracts == ()


def test_merging_adds_counts_and_no_evidence() -> None:
    hours = np.full((2, 24 * TICKS), 10)
    sites = [Site(made(2)), Site(made(2)), Site(made(1))]
    for number, site in enumerate(sites):
        if number < 2:
            armed(site.rates, hours[: len(site.rates.models)])
        for _ in range(20):
            site.send([number + 3] * len(site.rates.models))
    sites[1].rates.sums[1, REFERENCE, OF_TICKS, EVENTS, 0] += 1
    first, second, third = (save(site.rates) for site in sites)
    total = merge(first, merge(second, third))
    found = restored(total, made(2))
    assert found.total.tolist() == [20 * (3 + 4 + 5), 20 * (3 + 4)]
    assert (found.log_m == -np.inf).all()
    assert not found.alarmed.any()
    assert list(found.baselines) == [0], "two sites disagree on the other one"
    assert found.baselines[0].digest == sites[0].rates.baselines[0].digest
    assert merge({}, {}) == {}
    assert restored(merge({}, first), made(2)).running == 2
    swapped = merge(merge(third, second), first)
    assert restored(swapped, made(2)).total.tolist() == found.total.tolist()


def test_every_field_is_saved() -> None:
    rates = made()
    declared = set(Rates.__annotations__)
    assert declared == set(FIELDS)
    assert set(save(rates)) == {*FIELDS, "kinds", "clock"}


def test_a_frozen_reference_is_what_its_sums_say(seed: int) -> None:
    rates = made()
    armed(rates, np.random.default_rng(seed).poisson(10, (1, 24 * TICKS)))
    again = freeze_rate(rates.sums[0, REFERENCE], TICK_NS, Season.NONE)
    assert again.digest == rates.baselines[0].digest
    assert isinstance(rates.sums, np.ndarray)
