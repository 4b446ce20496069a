"""Indices against the oracles of the reference, scipy and simulation."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.drift.indices import (
    Z_95,
    chi_squared,
    chi_squared_fit,
    chi_squared_two_sample,
    effective_size,
    hellinger,
    jeffreys,
    js,
    js_distance_base2,
    kl,
    kl_chain,
    kolmogorov_smirnov,
    kolmogorov_smirnov_p_value,
    largest_difference,
    likelihood_ratio_fit,
    pooled,
    psi,
    psi_bias,
    psi_critical,
    psi_interval,
    psi_null,
    psi_null_sd,
    psi_p_value,
    psi_sd,
    psi_terms,
    relative_drift,
    spread_of,
    total_variation,
    wasserstein,
    wasserstein_null,
)
from gateway.measure.state import Int64
from gateway.tables import Float64

REFERENCE_A = np.array([100, 150, 200, 250, 150, 80, 40, 20, 7, 3])
CURRENT_A = np.array([80, 120, 190, 240, 170, 100, 55, 30, 10, 5])
REFERENCE_B = np.array([50, 50, 0])
CURRENT_B = np.array([50, 40, 10])
RAW_A = (0.1, 0.4, 0.4, 0.5, 0.7, 0.9)
RAW_B = (0.2, 0.4, 0.6, 0.8, 0.8, 0.95, 0.99)


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


EXACT = 1e-12
DECILES_BETA = (
    *(0.29594, 0.17285, 0.13149, 0.10502, 0.08518),
    *(0.06899, 0.05493, 0.04202, 0.0293, 0.01428),
)


def test_oracle_a_all_indices() -> None:
    p, q = shares(REFERENCE_A), shares(CURRENT_A)
    assert float(kl(q, p)) == pytest.approx(0.015220160565245836, rel=EXACT)
    assert float(kl(p, q)) == pytest.approx(0.014747436902114865, rel=EXACT)
    assert float(kl(q, p)) == pytest.approx(stats.entropy(q, p), rel=EXACT)
    assert float(js_distance_base2(q, p)) == pytest.approx(0.07339305292511576, rel=EXACT)
    assert float(js_distance_base2(q, p)) == pytest.approx(
        distance.jensenshannon(q, p, base=2), rel=EXACT
    )
    assert np.sqrt(float(js(q, p))) == pytest.approx(0.06110372463974609, rel=EXACT)
    assert float(total_variation(q, p)) == pytest.approx(0.07, rel=EXACT)
    assert float(largest_difference(q, p)) == pytest.approx(0.03, rel=EXACT)
    assert float(kolmogorov_smirnov(q, p)[0]) == pytest.approx(0.07, rel=EXACT)
    index, middles = np.arange(10.0), np.linspace(0.05, 0.95, 10)
    assert float(wasserstein(q, p, np.ones(9))) == pytest.approx(0.302, rel=EXACT)
    assert float(wasserstein(q, p, np.diff(middles))) == pytest.approx(0.0302, rel=EXACT)
    assert stats.wasserstein_distance(index, index, q, p) == pytest.approx(0.302, rel=EXACT)


def test_oracle_a_all_tests() -> None:
    statistic, freedom, p_value = chi_squared_two_sample(CURRENT_A, REFERENCE_A)
    assert statistic == pytest.approx(14.886102484178558, rel=EXACT)
    assert freedom == 9
    assert p_value == pytest.approx(0.09411243425012401, rel=EXACT)
    theirs = stats.chi2_contingency(np.array([CURRENT_A, REFERENCE_A]), correction=False)
    assert statistic == pytest.approx(theirs.statistic, rel=EXACT)
    statistic, _, p_value = chi_squared_fit(CURRENT_A, shares(REFERENCE_A))
    assert statistic == pytest.approx(31.81071428571428, rel=EXACT)
    assert p_value == pytest.approx(2.14698892891762e-4, rel=EXACT)
    assert statistic / 1_000 == pytest.approx(
        float(chi_squared(shares(CURRENT_A), shares(REFERENCE_A))), rel=EXACT
    )
    statistic, _, p_value = likelihood_ratio_fit(CURRENT_A, shares(REFERENCE_A))
    assert statistic == pytest.approx(30.440321130491647, rel=EXACT)
    assert p_value == pytest.approx(3.690897918565709e-4, rel=EXACT)
    theirs = stats.power_divergence(CURRENT_A, REFERENCE_A, lambda_="log-likelihood")
    assert statistic == pytest.approx(theirs.statistic, rel=EXACT)


def test_oracle_a_null_law_of_psi() -> None:
    raw, k = 0.02996759746736071, 0.002
    assert float(psi_null(10, k)) == pytest.approx(0.018, rel=EXACT)
    assert float(psi_null_sd(10, k)) == pytest.approx(0.00848528137423857, rel=EXACT)
    assert float(psi_critical(10, k, 0.05)) == pytest.approx(0.0338379552092409, rel=EXACT)
    assert float(psi_p_value(raw, 10, k)) == pytest.approx(0.09138195999759925, rel=EXACT)


def test_overdispersion_divides_every_statistic() -> None:
    p = shares(REFERENCE_A)
    for plain, wide in (
        (chi_squared_fit(CURRENT_A, p), chi_squared_fit(CURRENT_A, p, phi=4)),
        (likelihood_ratio_fit(CURRENT_A, p), likelihood_ratio_fit(CURRENT_A, p, phi=4)),
        (
            chi_squared_two_sample(CURRENT_A, REFERENCE_A),
            chi_squared_two_sample(CURRENT_A, REFERENCE_A, phi=4),
        ),
    ):
        assert wide[0] == pytest.approx(plain[0] / 4, rel=EXACT)
        assert wide[2] == pytest.approx(stats.chi2.sf(plain[0] / 4, 9), rel=EXACT)


def test_oracle_c_values_as_bins() -> None:
    a, b = RAW_A, RAW_B
    atoms = np.unique([*a, *b])
    q, p = (np.array([np.mean(np.equal(each, x)) for x in atoms]) for each in (a, b))
    assert float(kolmogorov_smirnov(q, p)[0]) == pytest.approx(0.40476190476190477, rel=EXACT)
    found = float(wasserstein(q, p, np.diff(atoms)))
    assert found == pytest.approx(0.17714285714285713, rel=EXACT)
    assert found == pytest.approx(stats.wasserstein_distance(a, b), rel=EXACT)


GRIDS = tuple(Grid(kind=kind) for kind in (GridKind.LINEAR, GridKind.LOGIT, GridKind.LOG))


def binned(grid: Grid, values: Float64) -> Float64:
    """Return the shares of the grid's value bins."""
    bins = bins_of_numbers(grid, values, np.zeros(len(values), dtype=np.bool_))
    return shares(np.bincount(bins, minlength=grid.width)[: grid.bins])


def check_raw_samples(grid: Grid, a: Float64, b: Float64) -> None:
    """What a grid says of two samples holds for the samples, as scipy knows it.

    There is no energy distance and no Cramer-von Mises test here: both want the events themselves,
    and an alarm wants neither. What bounds of the distance and W1 say of energy has to be true.
    """
    q, p = binned(grid, a), binned(grid, b)
    theirs = stats.ks_2samp(a, b, method="exact")
    low, high = (float(each) for each in kolmogorov_smirnov(q, p))
    assert low - EXACT <= theirs.statistic <= high + EXACT
    edges = grid.edges()
    used = np.flatnonzero(q + p)
    widest = float(np.diff(edges)[used[0] : used[-1] + 1].max())
    near = float(wasserstein(q, p, np.diff((edges[1:] + edges[:-1]) / 2)))
    assert near == pytest.approx(stats.wasserstein_distance(a, b), abs=widest)
    # Energy squared is twice the integral of (F - G)**2.
    assert stats.energy_distance(a, b) ** 2 <= 2 * high * (near + widest) + EXACT
    # The asymptotic law is on the safe side of the exact one, but for the coarse steps that the
    # distance of two samples of one small size takes: .054 at 5 and 5, the smallest used here.
    assert float(kolmogorov_smirnov_p_value(low, len(a), len(b))) >= theirs.pvalue - 0.055


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.kind.value)
def test_oracle_c_raw_samples_on_a_grid(grid: Grid) -> None:
    a, b = (np.array(each) for each in (RAW_A, RAW_B))
    theirs = stats.ks_2samp(a, b, method="exact")
    assert theirs.statistic == pytest.approx(0.40476190476190477, rel=EXACT)
    assert theirs.pvalue == pytest.approx(0.5279720279720281, rel=EXACT)
    assert stats.wasserstein_distance(a, b) == pytest.approx(0.17714285714285713, rel=EXACT)
    assert stats.energy_distance(a, b) == pytest.approx(0.3173730038657454, rel=EXACT)
    rank_test = stats.cramervonmises_2samp(a, b)
    assert rank_test.statistic == pytest.approx(0.17124542124542108, rel=EXACT)
    assert rank_test.pvalue == pytest.approx(0.377039627039627, rel=EXACT)
    check_raw_samples(grid, a, b)
    # No two different values share a bin, so that the grid knows the distance to the last digit.
    low, high = kolmogorov_smirnov(binned(grid, a), binned(grid, b))
    assert float(low) == pytest.approx(theirs.statistic, rel=EXACT)
    assert float(high) == pytest.approx(theirs.statistic, rel=EXACT)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.kind.value)
def test_small_raw_samples_lie_where_a_grid_says(grid: Grid, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        n, m = rng.integers(5, 60, size=2)
        low, high = rng.uniform(0.5, 9, 2).tolist()
        a, b = rng.beta(8, 2, n), rng.beta(low, high, m)
        if rng.random() < 0.3:
            a, b = np.round(a, 1), np.round(b, 1)  # ties
        check_raw_samples(grid, a, b)


def test_oracle_d_deciles() -> None:
    current = np.array([147, 115, 105, 99, 95, 92, 90, 87, 86, 84])
    q, p = shares(current), np.full(10, 0.1)
    assert float(psi(q, p)) == pytest.approx(0.029146469155452985, rel=EXACT)
    assert float(js_distance_base2(q, p)) == pytest.approx(0.0723494112279046, rel=EXACT)
    assert float(hellinger(q, p)) == pytest.approx(0.060297147925313425, rel=EXACT)
    assert float(wasserstein(q, p, np.full(9, 0.1))) == pytest.approx(0.0445, rel=EXACT)


def test_oracle_e_closed_forms() -> None:
    reference, current = stats.beta(8, 2), stats.beta(7, 3)
    deciles = reference.ppf(np.linspace(0, 1, 11))
    q, p = np.diff(current.cdf(deciles)), np.full(10, 0.1)
    assert np.round(q, 5).tolist() == pytest.approx(DECILES_BETA, abs=1e-9)
    assert float(psi(q, p)) == pytest.approx(0.6060990679, abs=1e-10)
    assert float(chi_squared(q, p)) == pytest.approx(0.6363776361, abs=1e-10)
    assert float(kl(q, p)) == pytest.approx(0.2844465254, abs=1e-10)
    edges = np.linspace(0, 1, 65)
    fine_q, fine_p = np.diff(current.cdf(edges)), np.diff(reference.cdf(edges))
    low, high = kolmogorov_smirnov(fine_q, fine_p)
    assert float(low) == pytest.approx(0.3060052, abs=1e-7)
    assert float(low) <= 0.306102 <= float(high)
    assert float(js_distance_base2(fine_q, fine_p)) == pytest.approx(0.3254834, abs=1e-7)
    assert float(wasserstein(fine_q, fine_p, np.full(63, 1 / 64))) == pytest.approx(0.1, abs=1e-6)
    grid = np.linspace(-9, 10, 20_001)
    normal_q, normal_p = np.diff(stats.norm(0.5).cdf(grid)), np.diff(stats.norm.cdf(grid))
    assert float(psi(normal_q, normal_p)) == pytest.approx(0.25, rel=1e-6)
    assert float(kl(normal_q, normal_p)) == pytest.approx(0.125, rel=1e-6)
    assert float(hellinger(normal_q, normal_p)) == pytest.approx(0.17540457668959458, rel=1e-6)
    assert float(kolmogorov_smirnov(normal_q, normal_p)[0]) == pytest.approx(
        0.1974126513658474, rel=1e-6
    )


def test_oracle_f_null_points() -> None:
    assert float(psi_critical(10, 1 / 10_000 + 1 / 1_000, 0.05)) == pytest.approx(0.01861, abs=5e-6)
    assert float(psi_critical(10, 0.002, 0.05)) == pytest.approx(0.03384, abs=5e-6)
    # The statistic is sqrt(n n0 / (n + n0)) times the distance.
    assert float(kolmogorov_smirnov_p_value(1.36, 2, 2)) == pytest.approx(0.049486, abs=5e-7)
    assert float(kolmogorov_smirnov_p_value(0.1, 900, 700)) == pytest.approx(
        stats.kstwobign.sf(0.1 * np.sqrt(900 * 700 / 1_600)), rel=EXACT
    )
    exact = kolmogorov_smirnov_p_value(0.1, 900, 700)
    assert kolmogorov_smirnov_p_value(0.1, 900, 700, error=0.02) > exact
    assert kolmogorov_smirnov_p_value(0.1, 900, 700, error=0.2) == 1


def test_debiased_psi_has_no_bias_and_its_interval_covers(seed: int) -> None:
    # With 20 bins and 500 events or more: bias at most .002, coverage at least 93 %, and at most
    # 97 % once the drift is as large as the noise.
    rng = np.random.default_rng(seed)
    p, runs = np.full(20, 0.05), 4_000
    ramp = np.linspace(-1, 1, 20)
    for n in (500, 2_000):
        n0 = 10_000
        k = 1 / n + 1 / n0
        for strength in (0.0, 0.2, 0.4):
            q = p * (1 + strength * ramp)
            true = float(psi(q, p))
            here = jeffreys(rng.multinomial(n, q, size=runs))
            there = jeffreys(rng.multinomial(n0, p, size=runs))
            found, low, high = psi_interval(here, there, n, n0, 20)
            assert abs(found.mean() - true) <= 0.002, (n, strength)
            covered = float(((low <= true) & (true <= high)).mean())
            assert covered >= 0.93, (n, strength, covered)
            if true >= 19 * k:
                assert covered <= 0.97, (n, strength, covered)


def test_the_bias_without_drift_is_that_of_the_null_law() -> None:
    p = shares(REFERENCE_A)
    found = float(psi_bias(p, p, 800, 3_000, 10))
    assert found == pytest.approx(float(psi_null(10, 1 / 800 + 1 / 3_000)), rel=EXACT)
    padded = np.concatenate((p, np.zeros(4)))
    assert float(psi_bias(padded, padded, 800, 3_000, 10)) == pytest.approx(found, rel=EXACT)


def test_ewma_windows_have_an_effective_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    decay, n, bins, runs = 0.9, 50, 10, 3_000
    weights = decay ** np.arange(200)
    size = float(effective_size(n * weights.sum(), n * (weights**2).sum()))
    assert size == pytest.approx(n * (1 + decay) / (1 - decay), rel=1e-8)
    p = np.full(bins, 1 / bins)
    window = np.zeros((runs, bins))
    for _ in range(200):
        window = decay * window + rng.multinomial(n, p, size=runs)
    found = psi(shares_of(window), p)
    assert found.mean() == pytest.approx(float(psi_null(bins, 1 / size)), rel=0.05)
    assert effective_size(0.0, 0.0) == 0


def shares_of(counts: Float64) -> Float64:
    found: Float64 = counts / counts.sum(axis=-1, keepdims=True)
    return found


def test_wasserstein_has_its_null_floor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, widths, n, n0 = np.full(20, 0.05), np.full(19, 0.05), 1_000, 4_000
    q, r = (rng.multinomial(size, p, size=4_000) / size for size in (n, n0))
    floor = float(wasserstein_null(p, widths, 1 / n + 1 / n0))
    assert wasserstein(q, r, widths).mean() == pytest.approx(floor, rel=0.03)
    middles = np.arange(0.025, 1, 0.05)
    assert float(spread_of(p, middles)) == pytest.approx(np.std(middles), rel=EXACT)


def test_the_relative_index_is_one_at_the_noise_ceiling() -> None:
    k = 0.002
    ceiling = float(psi_critical(10, k, 0.01) - psi_null(10, k))
    assert float(relative_drift(ceiling, 10, k)) == pytest.approx(1, rel=EXACT)
    assert float(relative_drift(-0.01, 10, k)) == 0
    assert float(relative_drift(0.1, 10, k, block_psi_95=0.2)) == pytest.approx(0.5, rel=EXACT)


def test_attribution_adds_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, p = (rng.dirichlet(np.ones(12)).reshape(3, 4) for _ in range(2))
    of_class, inner = kl_chain(q, p)
    assert float(of_class + inner.sum()) == pytest.approx(
        float(kl(q.ravel(), p.ravel())), rel=1e-12
    )
    for row in range(3):
        expected = q[row].sum() * stats.entropy(q[row], p[row])
        assert float(inner[row]) == pytest.approx(expected, rel=1e-9)
    assert psi_terms(q.ravel(), p.ravel()).sum() == pytest.approx(float(psi(q.ravel(), p.ravel())))


def test_thin_bins_are_pooled_for_an_index() -> None:
    reference = np.array([1, 1, 1, 97, 500, 395, 3, 2])
    pools = pooled(reference, 1_000)
    assert pools.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]
    assert pooled(reference, 20).tolist() == [0] * 5 + [0] * 3
    assert pooled(np.zeros(3), 100).tolist() == [0, 0, 0]
