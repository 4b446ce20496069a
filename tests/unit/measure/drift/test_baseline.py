"""Baselines: coarse bins, overdispersion, what is unusual."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gateway.measure.drift.baseline import (
    CELLS,
    COARSE_BINS_MAX,
    CUTS,
    EVENTS_PER_BIN_MIN,
    MISSING_PLACE,
    ODD_PLACE,
    SPARE,
    UNUSUAL,
    Baseline,
    block_noise,
    freeze,
    overdispersion,
    thawed,
)
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.drift.indices import jeffreys, psi
from gateway.measure.explain import drift_numbers
from gateway.measure.state import Int64
from gateway.tables import Float64

SCORE = Grid(kind=GridKind.LOGIT)
CLASSES = Grid(kind=GridKind.CLASSES, values=("ok", "cracked", "wet", "torn"))


def counted(values: Float64, grid: Grid = SCORE) -> Int64:
    bins = bins_of_numbers(grid, values, np.zeros(len(values), dtype=np.bool_))
    return np.bincount(bins, minlength=grid.width)


def healthy(size: int = 4_000, seed: int = 1, blocks: int = 8) -> Baseline:
    rng = np.random.default_rng(seed)
    parts = [counted(part) for part in np.split(rng.beta(8, 2, size), blocks)]
    return freeze(SCORE, np.sum(parts, axis=0), parts)


def test_shares_add_up_to_one_and_bins_are_not_thin() -> None:
    baseline = healthy()
    assert baseline.shares.sum() == pytest.approx(1)
    assert baseline.bins <= COARSE_BINS_MAX
    sizes = np.bincount(baseline.group, weights=baseline.counts)
    assert (sizes[1:] >= EVENTS_PER_BIN_MIN).all()


def test_what_the_reference_never_showed_is_unusual() -> None:
    baseline = healthy()
    assert baseline.group[SCORE.missing] == UNUSUAL
    assert baseline.group[SCORE.odd] == UNUSUAL
    assert baseline.group[0] == UNUSUAL
    assert baseline.assumed == pytest.approx(4.605 / 4_004.6, rel=0.2)


def test_a_frequent_missing_value_has_a_bin_of_its_own() -> None:
    counts = counted(np.random.default_rng(2).beta(8, 2, 4_000))
    counts[SCORE.missing] = 400
    baseline = freeze(SCORE, counts, [counts])
    assert baseline.group[SCORE.missing] == baseline.bins - 1
    assert baseline.shares[-1] == pytest.approx(400 / 4_404.6, rel=0.01)
    assert baseline.describe(baseline.bins - 1) == "missing"


def test_a_constant_signal_makes_everything_else_unusual() -> None:
    baseline = freeze(SCORE, counted(np.full(4_000, 0.5)), [counted(np.full(1_000, 0.5))] * 4)
    assert baseline.bins == 2
    assert baseline.phi == 1.0
    assert 0 < baseline.delta(0.1) < 1


def test_rare_classes_are_pooled() -> None:
    counts = np.array([3_000, 900, 95, 5, 0, 0])
    baseline = freeze(CLASSES, counts, [counts])
    assert baseline.group.tolist() == [1, 2, 3, UNUSUAL, UNUSUAL, UNUSUAL]
    assert baseline.describe(1) == "ok"
    assert not baseline.is_ordered
    held = [baseline.describe_place(place) for place in (1, 2, 3, 4)]
    assert held == ["ok", "cracked", "wet", ""]
    seen = freeze(CLASSES, np.array([900, 95, 3_000, 5, 300, 40]), [counts])
    held = [seen.describe_place(place) for place in (1, 2, 3, MISSING_PLACE, ODD_PLACE)]
    assert held == ["wet", "ok", "cracked", "missing", "unseen class"]


@pytest.mark.parametrize("levels", [0, 2, 3, 16, 255])
def test_every_coarse_bin_has_a_place_of_its_own_in_order(levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for size in (12, 300, 20_000):
        values = rng.beta(8, 2, size)
        if levels:
            values = np.round(values * levels) / levels
        counts = counted(values)
        counts[SCORE.missing], counts[SCORE.odd] = size // 10, size // 20
        baseline = freeze(SCORE, counts, [counts])
        assert len(set(baseline.places.tolist())) == baseline.bins
        assert (np.diff(baseline.places) > 0).all()
        assert baseline.places[-1] < SPARE
        # The place is the cell in which the bin's own mid-rank lies, or the one beside it.
        ordered = (baseline.places >= 1) & (baseline.places <= CELLS)
        part = baseline.shares[ordered] / baseline.shares[ordered].sum()
        cells = 1 + np.searchsorted(CUTS, np.cumsum(part) - part / 2, side="right")
        assert (np.abs(baseline.places[ordered] - cells) <= 1).all()


def test_how_many_events_a_tolerance_needs() -> None:
    # The table of the reference: bins 10, 20 and 32 need 8,667, 14,477 and 20,877 events at 0.1.
    baseline = healthy(size=40_000)
    expected = stats.chi2.ppf(0.99, baseline.bins - 1) * baseline.phi / 0.05**2
    assert baseline.events_needed(0.1) == pytest.approx(expected, rel=1e-12)
    assert baseline.events_needed(0.05) == pytest.approx(4 * expected, rel=1e-12)


def test_independent_blocks_are_not_overdispersed() -> None:
    assert healthy().phi < 1.5


def test_sticky_scenes_are_overdispersed_by_what_theory_says() -> None:
    # A chain that repeats its last value with probability a is overdispersed by (1 + a) / (1 - a).
    rng = np.random.default_rng(5)
    a, size = 0.9, 200_000
    fresh = rng.random(size) >= a
    fresh[0] = True
    values = rng.beta(8, 2, size)[fresh][np.cumsum(fresh) - 1]
    parts = [counted(part) for part in np.split(values, 200)]
    total = np.sum(parts, axis=0)
    group = freeze(SCORE, total, parts).group
    # The estimate is doubled once it is clearly above 1.
    assert overdispersion(group, total, parts) / 2 == pytest.approx(19, rel=0.15)


def test_delta_is_tolerance_and_ignorance() -> None:
    baseline = healthy()
    freedom = baseline.bins - 2
    ignorance = stats.chi2.ppf(0.99, freedom) * baseline.phi / 4_000 + baseline.assumed
    assert baseline.delta(0.1) == pytest.approx(0.1 + np.sqrt(ignorance), rel=1e-9)


def test_delta_covers_the_truth() -> None:
    # The law of large numbers is the truth here; the reference must lie within its own ignorance.
    truth = counted(np.random.default_rng(6).beta(8, 2, 2_000_000))
    outside = 0
    for seed in range(100, 200):
        baseline = healthy(seed=seed)
        p = baseline.coarse(truth)[: baseline.bins] / truth.sum()
        distance = np.sqrt(((p - baseline.shares) ** 2 / baseline.shares).sum())
        outside += distance > baseline.delta(0.0)
    assert outside <= 5


def test_a_baseline_is_made_again_from_its_counts() -> None:
    baseline = healthy()
    again = thawed(SCORE, baseline.counts, baseline.phi)
    assert again.digest == baseline.digest
    assert np.array_equal(again.shares, baseline.shares)


def test_the_digest_tells_baselines_apart() -> None:
    assert healthy(seed=1).digest != healthy(seed=2).digest


def test_coarse_counts_keep_every_event() -> None:
    baseline = healthy()
    rows = np.random.default_rng(3).integers(0, 9, (3, 2, SCORE.width))
    assert np.array_equal(baseline.coarse(rows).sum(axis=-1), rows.sum(axis=-1))


@pytest.mark.parametrize("frames", [1, 10])
def test_noise_is_the_quantile_of_the_debiased_index_of_blocks(frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [counted(part.repeat(frames)) for part in rng.beta(8, 2, (20, 100))]
    baseline = freeze(SCORE, np.sum(parts, axis=0), parts)
    by_hand = []
    for part in parts:
        q = jeffreys(baseline.coarse(part)[: baseline.bins])
        k = baseline.phi * (1 / part.sum() - 1 / baseline.events)
        by_hand.append(psi(q, baseline.shares) - (baseline.bins - 1) * k)
    assert baseline.noise == pytest.approx(max(0.0, np.quantile(by_hand, 0.95)), rel=1e-9)
    assert baseline.noise == block_noise(baseline, parts)
    # What is shown does not change what a baseline is.
    again = thawed(SCORE, baseline.counts, baseline.phi)
    assert (again.digest, again.noise) == (baseline.digest, 0)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_relative_index_is_debiased_psi_over_noise(noise: float) -> None:
    baseline = replace(healthy(), noise=noise)
    counts = baseline.shares * 2_000 * np.linspace(0.4, 1.6, baseline.bins)
    found = drift_numbers(counts, 2_000, baseline, baseline.shares)
    k = baseline.phi / baseline.events + 1 / 2_000
    freedom = baseline.bins - 1
    ceiling = k * (stats.chi2.isf(0.01, freedom) - freedom)
    assert 0 < ceiling < 0.05
    assert found["relative_drift_index"] == pytest.approx(
        found["psi_debiased"] / max(ceiling, noise)
    )
    calm = drift_numbers(baseline.shares * 2_000, 2_000, baseline, baseline.shares)
    assert calm["psi_debiased"] < 0
    assert calm["relative_drift_index"] == 0


def test_hours_are_part_of_what_is_frozen() -> None:
    baseline = healthy()
    hours = np.zeros((168, baseline.bins), dtype=np.uint32)
    other = thawed(SCORE, baseline.counts, baseline.phi, hours=hours)
    assert other.digest != baseline.digest
    changed = hours.copy()
    changed[5, 1] = 1
    assert thawed(SCORE, baseline.counts, baseline.phi, hours=changed).digest != other.digest
