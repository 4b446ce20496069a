"""Burn formulas against the oracles of the reference."""

import numpy as np
import pytest

from gateway.measure.burn import (
    budget_remaining,
    burn_rate,
    pairs_of,
    seconds_to_exhaustion,
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


def test_factors_of_thirty_days() -> None:
    assert [pair.factor for pair in pairs_of(success())] == pytest.approx([14.4, 6, 3, 1])


def test_factors_of_a_week() -> None:
    pairs = pairs_of(success(window=7 * DAY_S))
    assert [pair.factor for pair in pairs] == pytest.approx([13.44, 3.5, 1.4, 0.98])


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


def test_time_to_exhaustion_of_a_rolling_period() -> None:
    assert seconds_to_exhaustion(400, 720_000, 0.001, 5 / 3600) == pytest.approx(64 * 3600)
    assert seconds_to_exhaustion(400, 720_000, 0.001, 0) is None
