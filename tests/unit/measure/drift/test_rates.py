"""Event rates: what is counted, what is no evidence, and the life of a reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.schema import Season
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.fleet import Budget
from gateway.measure.drift.ratebaseline import COUNT, EVENTS, OF_TICKS, SQUARES
from gateway.measure.drift.rates import (
    CANDIDATE,
    EVENT_RATE,
    LOG_BOUND_MIN,
    REFERENCE,
    SETTLE_NS,
    UNHEARD_TICKS,
    RateAlarm,
    RateEnd,
)
from gateway.measure.drift.ratestate import save
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.ratewatch import rate_anomaly
from gateway.measure.settings import SECOND_NS, FalseAlarms
from gateway.measure.state import State
from tests.unit.measure.build import contract
from tests.unit.measure.drift.rated import (
    BEGIN_NS,
    HOUR_OF_BEGIN,
    TICK_NS,
    Site,
    armed,
    lived,
    made,
    same,
)
from tests.unit.measure.drift.test_ratebaseline import TICKS

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


def test_a_budget_of_more_than_one_alarm_a_tick_is_one_of_ten_ticks() -> None:
    rates = made(false_alarms_per_s=1 / 3)
    armed(rates, np.full((1, 24 * TICKS), 10))
    assert rates.log_bound(rates.contracts[0]) == LOG_BOUND_MIN
    site = Site(rates)
    for _ in range(100):
        site.send([10])
    assert site.told == []


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


def test_the_quiet_of_before_an_alarm_does_not_end_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = made(quiet_s=7_200)
    armed(rates, rng.poisson(10, (1, 24 * TICKS)))
    site = Site(rates)
    lived(rates, 10, 3 * TICKS, rng, site)
    lived(rates, 0, 45, rng, site)
    assert len(site.told) == 1
    # The mean of this hour is in range, but one hour is not enough.
    lived(rates, 10, TICKS - 45 + 1, rng, site)
    assert len(site.told) == 1
    lived(rates, 10, TICKS, rng, site)
    assert site.told[1] == RateEnd(row=0, end_ns=BEGIN_NS + 5 * HOUR_NS)


def test_an_hour_that_was_hardly_seen_ends_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = made()
    armed(rates, rng.poisson(10, (1, 24 * TICKS)))
    site = Site(rates)
    lived(rates, 0, 45, rng, site)
    assert len(site.told) == 1
    site.tick += TICKS - 45 + 200
    rates.resume(site.now_ns)
    lived(rates, 10, TICKS - 200 + 1, rng, site)
    assert len(site.told) == 1
    lived(rates, 10, TICKS, rng, site)
    assert site.told[1] == RateEnd(row=0, end_ns=BEGIN_NS + 3 * HOUR_NS)


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
    for _ in range(50):
        site.send([10])
    [alarm] = site.alarms()
    assert alarm.expected_hz == 0
    anomaly = rate_anomaly(alarm, contract(), rates.budget, 10)
    assert "risen from 0 to 1 per second; " in anomaly.summary


def test_rates_share_the_budget_of_a_site_with_all_other_detectors() -> None:
    rates = made(2)
    own = rates.log_bound(rates.contracts[0])
    rates.budget = Budget(FalseAlarms.SITE)
    rates.budget.tell("streams", 5)
    rates.budget.tell("rates", 2)
    armed(rates, np.full((2, 24 * TICKS), 10))
    assert rates.budget.detectors == 7
    assert rates.log_bound(rates.contracts[0]) == pytest.approx(own + np.log(7), rel=1e-12)


def test_what_is_learned_between_two_batches_moves_no_bound() -> None:
    rates = made(2)
    budget = rates.budget
    assert budget.detectors == 2
    site = Site(rates)
    for _ in range(24 * TICKS - 5):
        site.send([10, 10])
    assert not rates.baselines
    for _ in range(2 * TICKS):
        site.send([10, 10])
    assert len(rates.baselines) == 2
    assert budget.detectors == 2
