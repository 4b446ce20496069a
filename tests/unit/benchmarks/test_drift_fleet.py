"""The simulated fleet: false reports and pages are counted as they are defined."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks import drift_fleet
from benchmarks.drift_fleet import ALPHA, Fleet, delay_ratio, simulate
from gateway.measure.state import Int64
from gateway.tables import Float64

NONE = Fleet(
    name="x",
    streams=100,
    horizon=10,
    repeats=20,
    false_share=0.0,
    false_share_high=0.0,
    found_ratio=0.0,
    paging_groups=0,
    copies=5,
)


def test_the_bound_of_pages_counts_groups() -> None:
    assert NONE.pages == 0
    assert NONE.pages_high == pytest.approx(2.9957 * 5 / 20, rel=1e-4)
    some = replace(NONE, paging_groups=8)
    assert some.pages == 2
    assert some.pages_high == pytest.approx(stats.chi2.isf(0.05, 18) / 2 * 5 / 20)


@pytest.mark.parametrize("copies", [1, 10])
def test_a_small_fleet_keeps_alpha_and_its_budget(copies: int, seed: int) -> None:
    told: list[str] = []
    found = simulate(200, 30, 8, seed, copies=copies, told=told.append)
    assert (found.streams, found.horizon, found.repeats) == (200, 30, 8)
    assert found.false_share <= ALPHA
    # Fails with a probability below 1e-6 where the budget is just spent.
    assert found.paging_groups <= stats.poisson.isf(1e-6, 8 / copies)
    # Half of the drifting detectors have a PSI of .1, which 30 ticks always show.
    assert found.found_ratio > 0.4
    assert len(told) == 8


def test_reports_that_are_false_are_counted(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    def everything(log_m: Float64, _horizon: float, _alpha: float) -> Int64:
        return np.arange(len(log_m))

    monkeypatch.setattr(drift_fleet, "reported", everything)
    found = simulate(100, 3, 2, seed)
    # One drifts and 99 do not, and all are named.
    assert found.false_share == pytest.approx(0.99)
    assert found.false_share_high == pytest.approx(0.99)
    assert found.found_ratio == 1


def test_pages_of_detectors_without_change_are_counted(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(drift_fleet, "fleet_log_bound", lambda *_: np.float64(-1e9))
    found = simulate(40, 3, 2, seed, copies=10)
    assert (found.paging_groups, found.pages) == (8, 40)


def test_a_fleet_needs_less_than_its_evidence_more(seed: int) -> None:
    mean, worst = delay_ratio((0.1,), 20, 200, seed)
    # The evidence is 1.74 times as much, but the first tick is lost in both.
    assert 1.2 < mean <= worst < 1.9
