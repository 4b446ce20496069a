"""Event rates are saved, restored and merged: counts add, evidence does not."""

import numpy as np

from gateway.contract.schema import DriftRule, Season
from gateway.measure.drift.fleet import Budget
from gateway.measure.drift.ratebaseline import DAY_NS, EVENTS, OF_TICKS, freeze_rate
from gateway.measure.drift.rates import (
    FIELDS,
    REFERENCE,
    Rates,
)
from gateway.measure.drift.ratestate import load, merge, save
from gateway.measure.settings import FalseAlarms, MeasureSettings
from gateway.measure.state import State
from tests.unit.measure.build import contract, plan
from tests.unit.measure.drift.rated import (
    BEGIN_NS,
    TICK_NS,
    Site,
    armed,
    made,
    same,
)
from tests.unit.measure.drift.test_ratebaseline import TICKS

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


def test_a_rule_that_comes_after_weeks_has_no_ticks_of_weeks_to_close() -> None:
    silent = made(0)
    silent.heard(BEGIN_NS)
    later_ns = BEGIN_NS + 60 * DAY_NS
    for at_ns in (BEGIN_NS + TICK_NS, later_ns):
        silent.turn(at_ns)
        silent.heard(at_ns)
    rates = restored(save(silent), made(1))
    assert rates.tick == later_ns // TICK_NS
    assert rates.turn(later_ns + TICK_NS) == []
    assert rates.hour[0, 2] == 1


def test_what_no_longer_means_the_same_starts_anew() -> None:
    rates = made(2)
    armed(rates, np.full((2, 24 * TICKS), 10))
    rates.heard(BEGIN_NS)
    state = save(rates)
    seasonal = restored(state, made(2, season=Season.HOUR_OF_WEEK))
    assert (seasonal.running, seasonal.tick) == (0, rates.tick)
    assert restored(state, made(1)).running == 1
    other = plan(contract("model-0", drift=DriftRule(rate_tolerance=0.2)))
    longer = restored(
        state, Rates(other, MeasureSettings(drift_tick_s=20.0), Budget(FalseAlarms.SIGNAL))
    )
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
