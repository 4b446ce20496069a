"""Burn formulas against the oracles of the reference."""

import numpy as np
import pytest
from scipy import special

from gateway.contract.slo import budget_of
from gateway.measure.slo.burn import (
    NO_LIMIT,
    Formula,
    Rule,
    budget_remaining,
    burn_rate,
    exhaustion_s,
    is_improbable,
    pairs_of,
    rules_of,
    shown_windows_s,
    wilson_lower,
)
from tests.unit.measure.build import DAY_S, latency, success


@pytest.mark.parametrize(
    ("bad", "total", "bound"),
    [
        (1, 1, 0.2698308834937703),
        (1, 10, 0.02263232984000629),
        (1, 60, 0.003726606324198462),
        (2, 60, 0.011091682807516847),
        (3, 60, 0.020155446722335064),
        (3, 10, 0.12686685286055388),
        (3, 3, 0.5257600518749918),
        (5, 300, 0.008135304256300947),
        (30, 3000, 0.007422176402843347),
        (0, 50, 0.0),
        (0, 0, 0.0),
    ],
)
def test_wilson_bound(bad: int, total: int, bound: float) -> None:
    found = wilson_lower(np.array([bad]), np.array([total]))
    assert float(found[0]) == pytest.approx(bound, rel=1e-12)


def test_a_latency_slo_has_its_own_table() -> None:
    pairs = pairs_of(latency())
    assert [(pair.long_s, pair.short_s, pair.factor) for pair in pairs] == [
        (900, 120, 6.0),
        (3600, 300, 4.0),
        (21_600, 1800, 2.0),
        (259_200, 21_600, 1.0),
    ]
    assert shown_windows_s(latency()) == (120, 300, 900, 1800, 3600, 21_600, 259_200, 2_592_000)


def test_a_pair_that_can_never_fire_is_left_out() -> None:
    assert all(pair.factor * 0.2 < 1 for pair in pairs_of(latency(objective=0.8)))


def test_the_standard_windows_are_shown() -> None:
    expected = (300, 1800, 3600, 7200, 21_600, 86_400, 259_200, 2_592_000)
    assert shown_windows_s(success()) == expected
    assert shown_windows_s(success(window=7 * DAY_S))[-2:] == (259_200, 604_800)


def test_there_is_no_burn_rate_without_events() -> None:
    assert burn_rate(0, 0, 0.001) is None
    assert burn_rate(2, 100, 0.01) == pytest.approx(2)


def test_the_budget_of_the_diurnal_stream() -> None:
    assert budget_remaining(96, 1_920_960, 0.001) == pytest.approx(0.9500249875062469, rel=1e-12)


@pytest.mark.parametrize(("formula", "hours"), [(Formula.ROLLING, 64.0), (Formula.FILLING, 80.0)])
def test_time_to_exhaustion(formula: Formula, hours: float) -> None:
    found = exhaustion_s(
        400, 720_000, 0.001, bad_per_s=5 / 3600, events_per_s=1000 / 3600, formula=formula
    )
    assert found == pytest.approx(hours * 3600, rel=1e-12)


@pytest.mark.parametrize(
    ("formula", "bad_per_s", "budget"),
    [(Formula.ROLLING, 0.0, 0.001), (Formula.FILLING, 0.001, 0.001), (Formula.ROLLING, 1.0, 0.0)],
)
def test_a_budget_that_is_not_spent_lasts_for_ever(
    formula: Formula, bad_per_s: float, budget: float
) -> None:
    rates = {"bad_per_s": bad_per_s, "events_per_s": 1.0}
    assert exhaustion_s(4, 720_000, budget, **rates, formula=formula) is None


@pytest.mark.parametrize("formula", list(Formula))
def test_a_spent_budget_lasts_no_more(formula: Formula) -> None:
    rates = {"bad_per_s": 0.5, "events_per_s": 1.0}
    assert exhaustion_s(900, 720_000, 0.001, **rates, formula=formula) == 0


def test_there_is_no_burn_rate_and_no_rest_without_a_budget() -> None:
    assert burn_rate(1, 100, 0.0) is None
    assert budget_remaining(1, 100, 0.0) is None
    assert pairs_of(success(objective=1.0)) == ()


def test_the_burn_of_a_counter_that_is_born_large() -> None:
    found = burn_rate(500, 86_900, budget_of(0.999))
    assert found == pytest.approx(5.753739930955121, rel=1e-12)


@pytest.mark.parametrize(
    ("bad", "total", "probability"),
    [
        (2, 20, 0.01685933763565184),
        (3, 20, 0.0010035761681002064),
        (3, 50, 0.013817270830600803),
        (5, 100, 0.003432321587755305),
        (0, 20, 1.0),
        (1, 1, 0.01),
    ],
)
def test_bad_events_that_chance_hardly_makes(bad: int, total: int, probability: float) -> None:
    exact = float(special.bdtrc(bad - 1, total, 0.01)) if bad else 1.0
    assert exact == pytest.approx(probability, rel=1e-12)
    found = is_improbable(np.array([bad]), np.array([total]), np.array([0.01]))
    assert found.tolist() == [probability < 0.01 and bad >= 2]


def rule_of(
    *, long: tuple[int, int], short: tuple[int, int], pages: bool = True, limit: float = 0.0144
) -> Rule:
    """Judge one pair by (bad, total) of its windows."""
    columns = (np.array([each]) for each in (*long, *short))
    return Rule(int(rules_of(np.array([limit]), np.array([pages]), *columns)[0]))


@pytest.mark.parametrize(
    ("long", "short", "rule"),
    [
        ((3, 60), (1, 5), Rule.PAGE),
        ((2, 60), (1, 5), Rule.UNSUPPORTED),
        ((1, 1), (1, 1), Rule.UNSUPPORTED),
        ((144, 10_000), (30, 1_000), Rule.EARLY),
        ((145, 10_000), (0, 1_000), Rule.NONE),
        ((10, 10_000), (3, 60), Rule.EARLY),
        ((10, 10_000), (2, 60), Rule.NONE),
        ((0, 0), (0, 0), Rule.NONE),
        ((0, 10_000), (0, 0), Rule.NONE),
    ],
)
def test_rules_of_a_page(long: tuple[int, int], short: tuple[int, int], rule: Rule) -> None:
    assert rule_of(long=long, short=short) is rule


@pytest.mark.parametrize(
    ("long", "short", "rule"),
    [
        ((3, 60), (1, 5), Rule.TICKET),
        ((2, 60), (1, 5), Rule.UNSUPPORTED),
        ((10, 10_000), (3, 60), Rule.NONE),
    ],
)
def test_rules_of_a_ticket(long: tuple[int, int], short: tuple[int, int], rule: Rule) -> None:
    assert rule_of(long=long, short=short, pages=False) is rule


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_pair_that_does_not_exist_never_fires(count: int) -> None:
    assert rule_of(long=(count, count), short=(count, count), limit=NO_LIMIT) is Rule.NONE
