"""Burn windows are those of the published tables, and their detection times follow from them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Severity
from gateway.contract.schema import BurnWindow, Indicator, Slo
from gateway.contract.slo import (
    FACTOR_MIN,
    SHORT_SLOTS_MIN,
    WIDE_WINDOWS,
    budget_of,
    detections,
    objective_min,
    slot_s_of,
    standard_windows,
    undetectable,
    windows_for,
    windows_of,
)
from tests.unit.contract.countable import uncountable

DAY_S = 86_400.0


def success(objective: float, days: int = 30) -> Slo:
    return Slo(name="s", indicator=Indicator.SUCCESS, objective=objective, window=days * DAY_S)


LATENCY = Slo(
    name="l", indicator=Indicator.LATENCY, objective=0.95, window=30 * DAY_S, threshold=0.1
)


@pytest.mark.parametrize(
    ("days", "factors"),
    [
        (30, [14.4, 6, 3, 1]),
        (28, [13.44, 5.6000000000000005, 2.8000000000000003, 0.9333333333333333]),
        (7, [13.44, 3.5, 1.4, 0.98]),
    ],
)
def test_factors_are_those_of_the_tables(days: int, factors: list[float]) -> None:
    found = [window.factor for window in standard_windows(days * DAY_S)]
    assert found == pytest.approx(factors, rel=1e-12)


def test_windows_are_a_twelfth_and_page_twice() -> None:
    windows = windows_of(success(0.999))
    assert [window.long_s for window in windows] == [3600, 21_600, 86_400, 259_200]
    assert [window.short_s for window in windows] == [300, 1800, 7200, 21_600]
    assert [window.severity for window in windows] == [
        Severity.PAGE,
        Severity.PAGE,
        Severity.TICKET,
        Severity.TICKET,
    ]


def test_wide_budget_has_its_own_table() -> None:
    assert windows_of(LATENCY) == WIDE_WINDOWS == windows_of(success(0.95))
    assert windows_of(success(0.99)) == standard_windows(30 * DAY_S)
    assert [(each.long_s, each.short_s, each.factor) for each in WIDE_WINDOWS] == [
        (900, 120, 6),
        (3600, 300, 4),
        (21_600, 1800, 2),
        (259_200, 21_600, 1),
    ]


def test_detection_times_are_the_published_ones() -> None:
    minutes = [each.total_s / 60 for each in detections(success(0.999))]
    assert minutes == pytest.approx([0.864, 2.16, 4.32, 4.32])
    minutes = [each.total_s / 60 for each in detections(success(0.99))]
    assert minutes == pytest.approx([8.64, 21.6, 43.2, 43.2])
    found = detections(LATENCY)
    assert [each.total_s / 60 for each in found] == pytest.approx([4.5, 12, 36, 216])
    assert [each.error_ratio for each in found] == pytest.approx([0.3, 0.2, 0.1, 0.05])
    assert [each.budget_ratio for each in found] == pytest.approx(
        [0.00208333, 0.00555555, 0.01666666, 0.1], rel=1e-5
    )
    # A tenth of bad events is below or at what the first three need.
    assert [math.isinf(each.tenth_s) for each in found] == [True, True, True, False]


@pytest.mark.parametrize(
    ("objective", "counts"),
    [(0.999, [69, 166, 333, 999]), (0.99, [6, 16, 33, 99]), (0.95, [1, 3, 6, 19])],
)
def test_one_bad_event_fires_up_to_the_published_counts(
    objective: float, counts: list[int]
) -> None:
    found = detections(success(objective), standard_windows(30 * DAY_S))
    assert [each.single_event_count for each in found] == counts


PERIODS_S = st.integers(24, 90 * 24).map(lambda hours: hours * 3600.0)
OBJECTIVES = st.floats(0.001, 0.999999)


@given(st.sampled_from(list(Indicator)), PERIODS_S, OBJECTIVES)
def test_objective_is_refused_exactly_when_a_pair_cannot_fire(
    indicator: Indicator, period_s: float, objective: float
) -> None:
    never = [
        window
        for window in windows_for(indicator, objective, period_s)
        if window.factor * budget_of(objective) >= 1
    ]
    assert (undetectable(indicator, period_s, objective) is not None) == bool(never)
    if objective > objective_min(indicator, period_s) + 1e-12:
        assert not never


@given(st.sampled_from(list(Indicator)), PERIODS_S, OBJECTIVES)
def test_accepted_objective_is_watched_by_pairs_that_can_all_fire(
    indicator: Indicator, period_s: float, objective: float
) -> None:
    slo = Slo(name="s", indicator=indicator, objective=objective, window=period_s, threshold=0.1)
    if undetectable(indicator, period_s, objective) is None:
        for each in detections(slo):
            assert each.error_ratio < 1
            assert each.total_s < each.window.long_s


@given(PERIODS_S, st.sampled_from(list(Indicator)), OBJECTIVES)
def test_windows_of_any_period_can_be_counted_and_ended(
    period_s: float, indicator: Indicator, objective: float
) -> None:
    pairs = windows_for(indicator, objective, period_s)
    assert len(pairs) == 4
    assert uncountable(pairs, period_s) is None
    for pair in pairs:
        for window_s in (pair.long_s, pair.short_s):
            assert window_s % slot_s_of(window_s) == 0
        assert pair.long_s <= period_s
        assert pair.short_s >= SHORT_SLOTS_MIN * slot_s_of(pair.short_s)
        assert pair.factor >= FACTOR_MIN
        if budget_of(objective) < 1 / 6:
            assert pair.factor * budget_of(objective) < 1
    factors = [pair.factor for pair in pairs]
    assert factors == sorted(factors, reverse=True)
    assert [pair.long_s for pair in pairs] == sorted({pair.long_s for pair in pairs})


def test_windows_of_a_day_shrink() -> None:
    found = standard_windows(DAY_S)
    assert [each.long_s for each in found] == [600, 3120, 12_240, 36_000]
    assert [each.short_s for each in found] == [50, 260, 1020, 3000]
    spent = [each.factor * each.long_s / DAY_S for each in found]
    assert spent == pytest.approx([0.08, 0.125, 0.2, 0.42], rel=1e-12)
    assert windows_for(Indicator.LATENCY, 0.95, DAY_S)[-1].long_s == DAY_S / 2


@pytest.mark.parametrize("days", [7, 28])
def test_factors_have_no_step_where_the_shares_change(days: int) -> None:
    before, at = standard_windows(days * DAY_S - 1), standard_windows(days * DAY_S)
    for one, two in zip(before, at, strict=True):
        assert one.factor == pytest.approx(two.factor, rel=1e-4)
        assert one.long_s == two.long_s


OWN = BurnWindow(long_s=3600, short_s=300, factor=10, severity=Severity.PAGE)


def test_pairs_of_an_objective_win() -> None:
    slo = Slo(
        name="s", indicator=Indicator.LATENCY, objective=0.95, window=30 * DAY_S, pairs=(OWN,)
    )
    assert windows_of(slo) == (OWN,)
    assert [each.window for each in detections(slo)] == [OWN]
    assert undetectable(Indicator.LATENCY, 30 * DAY_S, 0.95, (OWN,)) is None
    assert undetectable(Indicator.LATENCY, 30 * DAY_S, 0.9, (OWN,)) is OWN


def test_a_window_beyond_all_rings_is_refused() -> None:
    assert slot_s_of(400 * DAY_S) == 3600
    with pytest.raises(ValueError, match="longer than any"):
        slot_s_of(400 * DAY_S + 1)


@pytest.mark.parametrize("indicator", [Indicator.INTEGRITY, Indicator.BANDWIDTH])
def test_an_objective_without_budget_has_no_pairs(indicator: Indicator) -> None:
    slo = Slo(name="s", indicator=indicator, objective=1.0, window=30 * DAY_S, pairs=(OWN,))
    assert windows_of(slo) == ()
    assert detections(slo) == ()
    assert undetectable(indicator, 30 * DAY_S, 1.0) is None


def test_budget_is_decimal() -> None:
    assert budget_of(0.9995) == 0.0005
    assert budget_of(0.999) == 0.001
