"""Drift indices of two histograms, and what they are when nothing has changed.

Law: shares are Jeffreys-smoothed, (c + 1/2) / (N + B/2), and never padded with a tiny constant.
Every function takes arrays whose last axis is the bin. Logs are natural; what is in base 2 says so.
Sample sizes `n` and `n0` are effective ones, already divided by the overdispersion phi, and
k = 1/n0 + 1/n.

Null law: without drift PSI / k, 2 KL / k, 8 JS / k and 8 H**2 / k all follow chi-squared with B - 1
degrees of freedom, as long as every bin expects about 10 events; pool thinner ones. None of the
intervals is an alarm: watched all the time, each would be passed some day.
Source: drift.md section 2; Yurdakul (2018) for the null law of PSI.
"""

from typing import Final

import numpy as np
from scipy import special

from gateway.measure.state import Array, Int64
from gateway.tables import Float64

# Two-sided 95 % of a normal.
Z_95: Final = 1.96
# A bin of the reference that expects fewer events is pooled for an index.
EXPECTED_MIN: Final = 10.0
# The noise that a relative drift index of 1 stands for.
RELATIVE_QUANTILE: Final = 0.99


def jeffreys(counts: Array, bins: Array | int | None = None) -> Float64:
    """Estimate shares from counts. `bins` is the count of real bins when there is padding."""
    width = np.asarray(counts.shape[-1] if bins is None else bins, dtype=np.float64)[..., None]
    total = counts.sum(axis=-1, keepdims=True)
    shares = (counts + 0.5) / (total + width / 2)
    return np.where(np.arange(counts.shape[-1]) < width, shares, 0.0)


def pooled(reference: Array, n: float) -> Int64:
    """Return to which pool each bin belongs, so that each expects EXPECTED_MIN of n events.

    Neighbours are pooled, and what is left over joins the last pool. Shape: (bins,).
    """
    expected = np.asarray(reference) / max(float(np.sum(reference)), 1.0) * n
    pools = np.zeros(len(expected), dtype=np.int64)
    at, held = 0, 0.0
    for index, value in enumerate(expected.tolist()):
        pools[index] = at
        held += value
        if held >= EXPECTED_MIN:
            at, held = at + 1, 0.0
    last = at - 1 if held < EXPECTED_MIN and at else at
    return np.minimum(pools, last)


def effective_size(total: Array | float, square: Array | float) -> Float64:
    """Return the count of equally weighted events of the same variance, (sum w)**2 / sum w**2."""
    below = np.asarray(square, dtype=np.float64)
    above = np.asarray(total, dtype=np.float64) ** 2
    size: Float64 = np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
    return size


def _log_ratio(q: Float64, p: Float64) -> Float64:
    used = (q > 0) & (p > 0)
    return np.log(np.where(used, q, 1.0) / np.where(used, p, 1.0))


def psi_terms(q: Float64, p: Float64) -> Float64:
    """Return what each bin adds to the population stability index; padding adds nothing."""
    return (q - p) * _log_ratio(q, p)


def psi(q: Float64, p: Float64) -> Float64:
    """Return the population stability index of positive shares q against p."""
    total: Float64 = psi_terms(q, p).sum(axis=-1)
    return total


def psi_null(bins: Array | int, k: Array | float) -> Float64:
    """Return the mean of PSI without drift, to be subtracted from a raw PSI."""
    mean: Float64 = (np.asarray(bins) - 1) * np.asarray(k, dtype=np.float64)
    return mean


def psi_null_sd(bins: Array | int, k: Array | float) -> Float64:
    """Return the standard deviation of PSI without drift."""
    sd: Float64 = np.sqrt(2 * (np.asarray(bins) - 1)) * np.asarray(k, dtype=np.float64)
    return sd


def psi_critical(bins: Array | int, k: Array | float, alpha: float) -> Float64:
    """Return the PSI that one window without drift exceeds with probability alpha."""
    value: Float64 = special.chdtri(np.asarray(bins) - 1, alpha) * np.asarray(k)
    return value


def psi_p_value(value: Array | float, bins: Array | int, k: Array | float) -> Float64:
    """Return how often one window without drift has at least this PSI."""
    p_value: Float64 = special.chdtrc(np.asarray(bins) - 1, np.maximum(value, 0) / np.asarray(k))
    return p_value


def psi_sd(q: Float64, p: Float64, n: Array | float, n0: Array | float) -> Float64:
    """Return the standard deviation of PSI by the delta method, with estimated shares.

    With true shares it is 0 where q is p, and the 2 (B - 1) k**2 of `psi_null_sd` is to be added.
    """
    ratio = _log_ratio(q, p)
    used = (q > 0) & (p > 0)
    safe_q, safe_p = np.where(used, q, 1.0), np.where(used, p, 1.0)
    here = np.where(used, ratio + 1 - p / safe_q, 0.0)
    there = np.where(used, -ratio + 1 - q / safe_p, 0.0)
    current = (q * here**2).sum(axis=-1) - (q * here).sum(axis=-1) ** 2
    reference = (p * there**2).sum(axis=-1) - (p * there).sum(axis=-1) ** 2
    sd: Float64 = np.sqrt(np.maximum(current, 0) / n + np.maximum(reference, 0) / n0)
    return sd


def psi_bias(
    q: Float64, p: Float64, n: Array | float, n0: Array | float, bins: Array | int
) -> Float64:
    """Return by how much PSI of Jeffreys-smoothed shares is too large, to second order.

    It is `psi_null` where q is p. With a drift, smoothing takes away part of it: at 20 bins and 500
    events subtracting only `psi_null` would leave PSI 4 % low.
    """
    width = np.asarray(bins, dtype=np.float64)[..., None]
    forth = _bias_of(q, p, width) / n
    back: Float64 = forth + _bias_of(p, q, width) / n0
    return back


def _bias_of(q: Float64, p: Float64, bins: Float64) -> Float64:
    """Return n times the bias that sampling and smoothing of q bring."""
    used = (q > 0) & (p > 0)
    ratio = np.where(used, p, 1.0) / np.where(used, q, 1.0)
    curve: Float64 = np.where(used, (1 - q) * (1 + ratio), 0.0).sum(axis=-1) / 2
    slope = np.where(used, 1 - ratio - np.log(ratio), 0.0)
    shrunk: Float64 = ((1 - q * bins) * slope).sum(axis=-1) / 2
    return curve + shrunk


def psi_interval(
    q: Float64, p: Float64, n: Array | float, n0: Array | float, bins: Array | int
) -> tuple[Float64, Float64, Float64]:
    """Return debiased PSI and the ends of its 95 % interval; it may be negative."""
    debiased = psi(q, p) - psi_bias(q, p, n, n0, bins)
    margin = Z_95 * psi_sd(q, p, n, n0)
    return debiased, debiased - margin, debiased + margin


def relative_drift(
    debiased: Array | float,
    bins: Array | int,
    k: Array | float,
    block_psi_95: Array | float = 0.0,
) -> Float64:
    """Return debiased PSI in units of what noise alone reaches; 1 is the noise ceiling.

    It compares places with different traffic, which raw PSI does not. `block_psi_95` is the 95 %
    quantile of debiased PSI among blocks of the reference itself. One bin has no index: it is 0.
    """
    freedom = np.maximum(np.asarray(bins) - 1, 1)
    noise = np.asarray(k) * (special.chdtri(freedom, 1 - RELATIVE_QUANTILE) - freedom)
    index = np.maximum(debiased, 0.0) / np.maximum(noise, block_psi_95)
    return np.where(np.asarray(bins) > 1, index, 0.0)


def kl(q: Float64, p: Float64) -> Float64:
    """Return the Kullback-Leibler divergence of q from p in nats; p is positive where q is."""
    total: Float64 = (q * _log_ratio(q, p)).sum(axis=-1)
    return total


def kl_chain(q: Float64, p: Float64) -> tuple[Float64, Float64]:
    """Split the divergence of a joint histogram into classes and, by class, confidence.

    Returns KL(class) and q_c KL(confidence | c) of each class; they add up to KL of the joint.
    Shape: q and p (classes, bins), of sum 1.
    """
    of_class, of_class_p = q.sum(axis=1), p.sum(axis=1)
    inner = (q * _log_ratio(q, p)).sum(axis=1) - of_class * _log_ratio(of_class, of_class_p)
    return kl(of_class, of_class_p), inner


def js(q: Float64, p: Float64) -> Float64:
    """Return the Jensen-Shannon divergence in nats; shares may be 0."""
    middle = (q + p) / 2

    def half(share: Float64) -> Float64:
        used = share > 0
        ratio = np.where(used, share, 1.0) / np.where(used, middle, 1.0)
        total: Float64 = (share * np.log(ratio)).sum(axis=-1)
        return total

    return (half(q) + half(p)) / 2


def js_distance_base2(q: Float64, p: Float64) -> Float64:
    """Return the Jensen-Shannon distance, the root of the divergence in bits, in [0, 1]."""
    distance: Float64 = np.sqrt(np.maximum(js(q, p), 0.0) / np.log(2))
    return distance


def hellinger(q: Float64, p: Float64) -> Float64:
    """Return the Hellinger distance, in [0, 1]."""
    total: Float64 = ((np.sqrt(q) - np.sqrt(p)) ** 2).sum(axis=-1)
    return np.sqrt(total / 2)


def total_variation(q: Float64, p: Float64) -> Float64:
    """Return the total variation distance, in [0, 1]."""
    total: Float64 = np.abs(q - p).sum(axis=-1) / 2
    return total


def largest_difference(q: Float64, p: Float64) -> Float64:
    """Return the largest difference of the shares of a bin, L-infinity."""
    largest: Float64 = np.abs(q - p).max(axis=-1)
    return largest


def chi_squared(q: Float64, p: Float64) -> Float64:
    """Return chi-squared of shares q against p, the square of the radius that alarms allow for."""
    used = p > 0
    total: Float64 = np.where(used, (q - p) ** 2 / np.where(used, p, 1.0), 0.0).sum(axis=-1)
    return total


def chi_squared_fit(counts: Array, p: Float64, phi: float = 1.0) -> tuple[float, int, float]:
    """Test counts against known shares. Returns statistic, degrees of freedom and p-value."""
    used = p > 0
    expected = counts.sum() * p[used]
    statistic = float(((counts[used] - expected) ** 2 / expected).sum()) / phi
    freedom = int(used.sum()) - 1
    return statistic, freedom, float(special.chdtrc(freedom, statistic))


def chi_squared_two_sample(
    counts: Array, reference: Array, phi: float = 1.0
) -> tuple[float, int, float]:
    """Test two counts for one law. Returns statistic, degrees of freedom and p-value."""
    both = counts + reference
    used = both > 0
    p = both[used] / both.sum()
    statistic = sum(
        float(((each[used] - each.sum() * p) ** 2 / (each.sum() * p)).sum())
        for each in (counts, reference)
    )
    freedom = int(used.sum()) - 1
    return statistic / phi, freedom, float(special.chdtrc(freedom, statistic / phi))


def likelihood_ratio_fit(counts: Array, p: Float64, phi: float = 1.0) -> tuple[float, int, float]:
    """Test counts against known shares by G. Returns statistic, degrees of freedom, p-value."""
    shares = counts / counts.sum()
    statistic = 2 * float(counts.sum() * kl(shares, p)) / phi
    freedom = int((p > 0).sum()) - 1
    return statistic, freedom, float(special.chdtrc(freedom, statistic))


def kolmogorov_smirnov(q: Float64, p: Float64) -> tuple[Float64, Float64]:
    """Return between which values the Kolmogorov-Smirnov distance of the events lies.

    Bins know it at their edges alone; inside a bin either law may rise first.
    """
    f, g = np.cumsum(q, axis=-1), np.cumsum(p, axis=-1)
    lower: Float64 = np.abs(f - g).max(axis=-1)
    before_f, before_g = f - q, g - p
    upper: Float64 = np.maximum(f - before_g, g - before_f).max(axis=-1)
    return lower, upper


def kolmogorov_smirnov_p_value(
    distance: Array | float, n: float, n0: float, error: float = 0.0
) -> Float64:
    """Return the asymptotic p-value of a distance known up to an error; conservative with it."""
    sure = np.maximum(np.asarray(distance, dtype=np.float64) - error, 0.0)
    p_value: Float64 = special.kolmogorov(np.sqrt(n * n0 / (n + n0)) * sure)
    return p_value


def wasserstein(q: Float64, p: Float64, widths: Float64) -> Float64:
    """Return the Wasserstein-1 distance on a grid, off by at most the widest bin.

    Units: those of `widths`, the distance from each bin to the next. Shape: widths (bins - 1,).
    """
    gap = np.cumsum(q - p, axis=-1)[..., :-1]
    total: Float64 = (widths * np.abs(gap)).sum(axis=-1)
    return total


def wasserstein_null(p: Float64, widths: Float64, k: Array | float) -> Float64:
    """Return the mean of Wasserstein-1 without drift: the floor beside which to show it."""
    f = np.cumsum(p, axis=-1)[..., :-1]
    spread = (widths * np.sqrt(np.maximum(f * (1 - f), 0.0))).sum(axis=-1)
    mean: Float64 = np.sqrt(2 * np.asarray(k) / np.pi) * spread
    return mean


def spread_of(p: Float64, middles: Float64) -> Float64:
    """Return the standard deviation of a binned law, in whose units Wasserstein-1 is shown."""
    mean = (p * middles).sum(axis=-1, keepdims=True)
    sd: Float64 = np.sqrt((p * (middles - mean) ** 2).sum(axis=-1))
    return sd
