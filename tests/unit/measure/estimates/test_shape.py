"""Windows of confidence and classes against closed forms and draws."""

import math

import numpy as np
import pytest
from scipy import stats

from gateway.measure.drift.grid import SCORE_BINS, Grid, GridKind, bins_of_numbers
from gateway.measure.estimates.curve import probabilities
from gateway.measure.estimates.shape import (
    SURE_SD,
    Estimated,
    entropy_of,
    maybe_shape,
    overclaim,
    saturation,
    share_above,
    surely_above,
)
from gateway.measure.state import Int64
from gateway.tables import Float64

GRID = Grid(kind=GridKind.LOGIT)
EDGES = probabilities(GRID)


def counted(confidence: Float64) -> Int64:
    bins = bins_of_numbers(GRID, confidence, np.zeros(len(confidence), dtype=np.bool_))
    return np.bincount(bins, minlength=SCORE_BINS)[:SCORE_BINS]


@pytest.mark.parametrize(("a", "b"), [(8.0, 2.0), (40.0, 1.0), (1.0, 1.0), (2.0, 8.0)])
def test_the_shape_is_that_of_the_scores(seed: int, a: float, b: float) -> None:
    confidence = np.random.default_rng(seed).beta(a, b, 200_000)
    found = maybe_shape(counted(confidence), EDGES)
    assert found is not None
    assert found.events == 200_000
    assert found.mean == pytest.approx(confidence.mean(), abs=1e-3)
    assert found.saturated == pytest.approx((confidence >= 0.99).mean(), abs=1e-3)
    assert found.unsure == pytest.approx((confidence < 0.5).mean(), abs=1e-9)


def test_an_empty_window_has_no_shape() -> None:
    assert maybe_shape(np.zeros(SCORE_BINS, dtype=np.int64), EDGES) is None


def test_a_share_is_linear_inside_a_bin() -> None:
    edges = np.array([0.0, 0.5, 0.9, 1.0])
    counts = np.array([10, 30, 60])
    assert share_above(counts, edges, 0.5) == pytest.approx(0.9)
    assert share_above(counts, edges, 0.8) == pytest.approx(0.6 + 0.3 * 0.25)
    assert share_above(counts, edges, 0.0) == 1.0


def test_the_variance_of_saturation_is_binomial_times_overdispersion() -> None:
    counts = np.zeros(SCORE_BINS, dtype=np.int64)
    counts[[10, -1]] = 3_000, 1_000
    found = saturation(counts, EDGES, phi=2.0)
    assert found.value == 0.25
    assert found.variance == pytest.approx(2 * 0.25 * 0.75 / 4_000, rel=1e-3)
    counts[-1] = 0
    assert saturation(counts, EDGES).variance > 0


@pytest.mark.parametrize("shares", [[0.25] * 4, [0.7, 0.2, 0.1], [0.97, 0.02, 0.01]])
def test_entropy_and_its_variance_are_what_draws_show(seed: int, shares: list[float]) -> None:
    rng = np.random.default_rng(seed)
    found = [entropy_of(each) for each in rng.multinomial(2_000, shares, 4_000)]
    mean = np.mean([each.value for each in found])
    assert mean == pytest.approx(stats.entropy(shares), abs=5e-4)
    variance = np.var([each.value for each in found])
    # Where all classes are alike only terms of second order are left, and those are cautious.
    allowed = 4.0 if len(set(shares)) == 1 else 1.1
    assert 0.9 * variance < np.mean([each.variance for each in found]) < allowed * variance


def test_entropy_of_one_class_is_nothing() -> None:
    found = entropy_of(np.array([0, 500, 0]))
    assert found.value == 0.0
    assert found.variance > 0


def test_a_change_is_sure_outside_its_interval() -> None:
    first, second = Estimated(value=0.5, variance=3e-4), Estimated(value=0.3, variance=1e-4)
    margin = SURE_SD * 0.02
    assert surely_above(first, second, 0.2 - margin - 1e-9)
    assert not surely_above(first, second, 0.2 - margin + 1e-9)


def test_chance_alone_is_hardly_ever_sure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    then = entropy_of(rng.multinomial(4_000, [0.6, 0.3, 0.1]))
    passed = 0
    for _ in range(5_000):
        now = entropy_of(rng.multinomial(500, [0.6, 0.3, 0.1]))
        passed += surely_above(then, now, 0.0)
    assert passed <= 5


def test_the_overclaim_is_confidence_less_accuracy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(8, 2, 5_000)
    bins = bins_of_numbers(GRID, confidence, np.zeros(len(confidence), dtype=np.bool_))
    right = rng.random(len(confidence)) < confidence - 0.1
    table = np.zeros((SCORE_BINS, 2), dtype=np.int64)
    np.add.at(table, (bins, (~right).astype(np.int64)), 1)
    found = overclaim(table, EDGES)
    gaps = confidence - right
    assert found.value == pytest.approx(gaps.mean(), abs=1e-3)
    assert math.sqrt(found.variance) == pytest.approx(gaps.std() / math.sqrt(5_000), rel=0.02)
