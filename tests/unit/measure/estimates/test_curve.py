"""Estimates of accuracy against closed forms, scipy and simulated traffic."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from gateway.measure.drift.grid import SCORE_BINS, Grid, GridKind, bins_of_numbers
from gateway.measure.drift.indices import Z_95
from gateway.measure.estimates.curve import (
    atc,
    calibration_error,
    cbpe,
    cbpe_variance,
    curve_of,
    disagree,
    pooled,
    probabilities,
)
from gateway.measure.state import Int64
from gateway.tables import Float64

GRID = Grid(kind=GridKind.LOGIT)
EDGES = probabilities(GRID)
Truth = Callable[[Float64], Float64]


def honest(confidence: Float64) -> Float64:
    """As often right as it says."""
    return confidence


def vain(confidence: Float64) -> Float64:
    """Less often right than it says, but always alike."""
    return 0.9 * confidence**2 + 0.05


def table(rng: np.random.Generator, confidence: Float64, truth: Truth) -> Int64:
    """Label answers."""
    bins = bins_of_numbers(GRID, confidence, np.zeros(len(confidence), dtype=np.bool_))
    wrong = rng.random(len(confidence)) >= truth(confidence)
    found = np.zeros((SCORE_BINS, 2), dtype=np.int64)
    np.add.at(found, (bins, wrong.astype(np.int64)), 1)
    return found


def small(*rows: tuple[int, int]) -> Int64:
    """A table of a few bins."""
    return np.array(rows, dtype=np.int64)


values = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)).filter(any), min_size=1, max_size=40
)


@given(values)
def test_pooling_is_that_of_scipy(rows: list[tuple[int, int]]) -> None:
    counts = small(*rows)
    weights = counts.sum(axis=1).astype(np.float64)
    fit, block = pooled(counts[:, 0] / weights, weights)
    expected = optimize.isotonic_regression(counts[:, 0] / weights, weights=weights)
    np.testing.assert_allclose(fit, expected.x, atol=1e-12)
    assert (np.diff(fit) >= 0).all()
    assert (np.diff(block) >= 0).all()
    assert block[0] == 0
    assert (fit * weights).sum() == pytest.approx(counts[:, 0].sum())


@given(values)
def test_on_its_own_labels_the_estimates_are_the_accuracy(rows: list[tuple[int, int]]) -> None:
    counts = small(*rows)
    accuracy = counts[:, 0].sum() / counts.sum()
    found = cbpe(curve_of(counts), counts.sum(axis=1))
    assert found.value == pytest.approx(accuracy)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert atc(counts, counts.sum(axis=1)) == pytest.approx(accuracy)


def test_the_estimate_is_the_accuracy_of_bins_by_the_shares_of_the_window() -> None:
    reference = small((10, 30), (24, 16), (36, 4))
    window = np.array([10, 20, 70])
    found = cbpe(curve_of(reference), window)
    assert found.value == pytest.approx(0.1 * 0.25 + 0.2 * 0.6 + 0.7 * 0.9)


def test_the_variance_is_that_of_the_source() -> None:
    shares, accuracy = np.array([0.1, 0.2, 0.7]), np.array([0.25, 0.6, 0.9])
    labelled = np.array([40.0, 40.0, 40.0])
    mean = 0.775
    of_reference = (0.01 * 0.1875 + 0.04 * 0.24 + 0.49 * 0.09) / 40
    of_window = (0.1 * 0.0625 + 0.2 * 0.36 + 0.7 * 0.81 - mean**2) / 500
    of_answers = (0.1 * 0.1875 + 0.2 * 0.24 + 0.7 * 0.09) / 500
    found = cbpe_variance(shares, accuracy, labelled, 500)
    assert found == pytest.approx(of_reference + of_window + of_answers)


def test_the_variance_is_what_draws_show(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares, accuracy = np.array([0.1, 0.2, 0.7]), np.array([0.25, 0.6, 0.9])
    labelled, events, draws = np.array([40, 60, 100]), 300, 20_000
    learned = rng.binomial(labelled, accuracy, (draws, 3)) / labelled
    counts = rng.multinomial(events, shares, draws)
    estimate = (counts / events * learned).sum(axis=1)
    truth = rng.binomial(counts, accuracy).sum(axis=1) / events
    # The window's shares scatter in the estimate and in the truth alike; the source counts them.
    of_window = (shares * accuracy**2).sum() - (shares * accuracy).sum() ** 2
    expected = cbpe_variance(shares, accuracy, labelled.astype(np.float64), events)
    assert np.var(estimate - truth) == pytest.approx(expected - of_window / events, rel=0.05)


def test_bins_without_labels_are_as_the_nearest_that_has_some() -> None:
    reference = small((0, 0), (1, 3), (0, 0), (0, 0), (9, 1), (0, 0))
    curve = curve_of(reference)
    assert curve.accuracy[curve.block].tolist() == [0.25, 0.25, 0.25, 0.9, 0.9, 0.9]
    assert curve.outside(np.array([1, 1, 1, 1, 1, 5])) == pytest.approx(0.6)


@pytest.mark.parametrize("truth", [honest, vain])
@pytest.mark.parametrize("shift", [(8.0, 2.0), (6.0, 3.0), (9.0, 1.5), (40.0, 1.0)])
def test_the_mean_error_is_half_a_point_at_most_while_the_assumption_holds(
    seed: int, truth: Truth, shift: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    errors, covered = [], []
    for _ in range(60):
        curve = curve_of(table(rng, rng.beta(8, 2, 20_000), truth))
        now = rng.beta(*shift, 5_000)
        window = table(rng, now, truth)
        found = cbpe(curve, window.sum(axis=1))
        errors.append(found.value - float(truth(now).mean()))
        covered.append(found.low <= window[:, 0].sum() / window.sum() <= found.high)
    # The last window lies where but one label of fifty is.
    tolerated = 0.01 if shift == (40.0, 1.0) else 0.005
    assert np.mean(np.abs(errors)) < tolerated
    assert abs(np.mean(errors)) < (0.009 if shift == (40.0, 1.0) else 0.002)
    assert np.mean(covered) >= 0.88


def test_where_the_concept_has_changed_the_estimate_is_wrong_without_a_sign(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curve = curve_of(table(rng, rng.beta(8, 2, 20_000), honest))
    now = rng.beta(8, 2, 5_000)
    found = cbpe(curve, table(rng, now, vain).sum(axis=1))
    assert found.low > float(vain(now).mean()) + 0.05


def test_the_threshold_is_linear_inside_a_bin() -> None:
    # 12 wrong: all 8 of the first bin and 4 of the 16 of the second are below the threshold.
    reference = small((2, 6), (12, 4), (14, 2))
    assert atc(reference, np.array([10, 40, 50])) == pytest.approx(1 - (10 + 0.25 * 40) / 100)
    assert atc(small((3, 0), (4, 0)), np.array([5, 5])) == 1.0
    assert atc(small((0, 3), (0, 4)), np.array([5, 5])) == 0.0


def test_a_disagreement_is_more_than_chance_explains() -> None:
    found = cbpe(curve_of(small((500, 500), (900, 100))), np.array([5_000, 5_000]))
    assert found.value == pytest.approx(0.7)
    margin = Z_95 * np.sqrt(found.variance + 0.21 * (1 / 2_000 + 1 / 10_000))
    assert not disagree(found, 0.7 + 0.019 + margin, 2_000, 10_000)
    assert disagree(found, 0.7 + 0.025 + margin, 2_000, 10_000)
    assert disagree(found, 0.7 - 0.025 - margin, 2_000, 10_000)


def test_the_calibration_error_is_the_mean_distance_of_groups() -> None:
    reference = np.zeros((SCORE_BINS, 2), dtype=np.int64)
    middles = (EDGES[:-1] + EDGES[1:]) / 2
    # Bins 80 to 87 are one group; distances within it cancel, those of two groups do not.
    reference[81], reference[86], reference[120] = (80, 20), (100, 0), (50, 50)
    first = 180 - 100 * (middles[81] + middles[86])
    second = 100 * middles[120] - 50
    expected = (abs(first) + abs(second)) / 300
    assert calibration_error(reference, EDGES) == pytest.approx(expected)


def test_a_calibrated_model_has_a_small_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    honest_table, vain_table = (
        table(rng, rng.beta(8, 2, 50_000), truth) for truth in (honest, vain)
    )
    assert calibration_error(honest_table, EDGES) < 0.01
    now = rng.beta(8, 2, 50_000)
    distance = float((now - vain(now)).mean())
    assert calibration_error(vain_table, EDGES) == pytest.approx(distance, abs=0.01)


def test_confidence_of_another_range_is_a_share_of_it() -> None:
    assert probabilities(GRID)[[0, 64, -1]].tolist() == [0.0, 0.5, 1.0]
    percent = probabilities(Grid(kind=GridKind.LOGIT, low=0.0, high=100.0))
    np.testing.assert_allclose(percent, EDGES, atol=1e-12)
    above = probabilities(Grid(kind=GridKind.LOGIT, low=0.5, high=1.0))
    np.testing.assert_allclose(above, 0.5 + EDGES / 2, atol=1e-12)
