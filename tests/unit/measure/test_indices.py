"""Indices against the oracles of the reference, scipy and simulation."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from gateway.measure.indices import (
    Z_95,
    hellinger,
    jeffreys,
    js,
    psi,
    psi_null,
    psi_sd,
    psi_terms,
)
from gateway.measure.state import Int64
from gateway.tables import Float64

REFERENCE_A = np.array([100, 150, 200, 250, 150, 80, 40, 20, 7, 3])
CURRENT_A = np.array([80, 120, 190, 240, 170, 100, 55, 30, 10, 5])
REFERENCE_B = np.array([50, 50, 0])
CURRENT_B = np.array([50, 40, 10])


def shares(counts: Int64) -> Float64:
    found: Float64 = counts / counts.sum()
    return found


def test_oracle_a() -> None:
    p, q = shares(REFERENCE_A), shares(CURRENT_A)
    raw = float(psi(q, p))
    assert raw == pytest.approx(0.02996759746736071, rel=1e-12)
    assert float(js(q, p)) == pytest.approx(0.003733665164849913, rel=1e-12)
    assert float(js(q, p)) == pytest.approx(distance.jensenshannon(q, p) ** 2, rel=1e-12)
    assert float(hellinger(q, p)) == pytest.approx(0.061153815181106956, rel=1e-12)
    debiased = raw - float(psi_null(10, 0.002))
    assert debiased == pytest.approx(0.011967597467360709, rel=1e-12)
    smooth = float(psi(jeffreys(CURRENT_A), jeffreys(REFERENCE_A)))
    assert smooth == pytest.approx(0.029425368531991934, rel=1e-12)


def test_oracle_b_has_an_empty_bin() -> None:
    q, p = jeffreys(CURRENT_B), jeffreys(REFERENCE_B)
    assert float(psi(q, p)) == pytest.approx(0.32169397043273334, rel=1e-12)
    plain = float(js(shares(CURRENT_B), shares(REFERENCE_B)))
    assert np.sqrt(plain / np.log(2)) == pytest.approx(0.23241293654355832, rel=1e-12)
    assert float(hellinger(shares(CURRENT_B), shares(REFERENCE_B))) == pytest.approx(
        0.22975292054736118, rel=1e-12
    )


def test_padding_adds_nothing() -> None:
    padded_q = np.concatenate((CURRENT_A, [0, 0, 0]))
    padded_p = np.concatenate((REFERENCE_A, [0, 0, 0]))
    q, p = jeffreys(padded_q, bins=10), jeffreys(padded_p, bins=10)
    assert float(psi(q, p)) == pytest.approx(0.029425368531991934, rel=1e-12)
    assert psi_terms(q, p)[10:].tolist() == [0, 0, 0]


def test_without_drift_psi_follows_its_null_law() -> None:
    rng = np.random.default_rng(11)
    bins, n0, n, runs = 12, 10_000, 2_000, 4_000
    p = np.full(bins, 1 / bins)
    k = 1 / n0 + 1 / n
    values = psi(
        jeffreys(rng.multinomial(n, p, size=runs)), jeffreys(rng.multinomial(n0, p, size=runs))
    )
    assert values.mean() == pytest.approx(float(psi_null(bins, k)), rel=0.03)
    found = stats.kstest(values / k, stats.chi2(bins - 1).cdf)
    assert found.statistic < 0.03


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(12)
    p = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    q = np.array([0.2, 0.25, 0.25, 0.2, 0.1])
    n0, n, runs = 4_000, 1_500, 2_000
    here = jeffreys(rng.multinomial(n, q, size=runs))
    there = jeffreys(rng.multinomial(n0, p, size=runs))
    debiased = psi(here, there) - psi_null(5, 1 / n0 + 1 / n)
    margin = Z_95 * psi_sd(here, there, n, n0)
    covered = np.abs(debiased - float(psi(q, p))) <= margin
    assert 0.93 <= covered.mean() <= 0.97
