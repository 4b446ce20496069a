"""Drift indices of two histograms, and what they are when nothing has changed.

Law: shares are Jeffreys-smoothed, (c + 1/2) / (N + B/2), and never padded with a tiny constant.
Under no drift PSI / k follows chi-squared with B - 1 degrees of freedom, k = phi/n0 + phi/n.
Every function takes arrays whose last axis is the bin. Logs are natural.
Source: drift.md section 2; Yurdakul (2018) for the null law of PSI.
"""

from typing import Final

import numpy as np

from gateway.measure.state import Array
from gateway.tables import Float64

# Two-sided 95 % of a normal.
Z_95: Final = 1.96


def jeffreys(counts: Array, bins: Array | int | None = None) -> Float64:
    """Estimate shares from counts. `bins` is the count of real bins when there is padding."""
    width = np.asarray(counts.shape[-1] if bins is None else bins, dtype=np.float64)[..., None]
    total = counts.sum(axis=-1, keepdims=True)
    shares = (counts + 0.5) / (total + width / 2)
    return np.where(np.arange(counts.shape[-1]) < width, shares, 0.0)


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


def psi_sd(q: Float64, p: Float64, n: Array | float, n0: Array | float) -> Float64:
    """Return the standard deviation of PSI by the delta method, with estimated shares.

    `n` and `n0` are effective sample sizes, already divided by the overdispersion.
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


def js(q: Float64, p: Float64) -> Float64:
    """Return the Jensen-Shannon divergence in nats; shares may be 0."""
    middle = (q + p) / 2

    def half(share: Float64) -> Float64:
        used = share > 0
        ratio = np.where(used, share, 1.0) / np.where(used, middle, 1.0)
        total: Float64 = (share * np.log(ratio)).sum(axis=-1)
        return total

    return (half(q) + half(p)) / 2


def hellinger(q: Float64, p: Float64) -> Float64:
    """Return the Hellinger distance, in [0, 1]."""
    total: Float64 = ((np.sqrt(q) - np.sqrt(p)) ** 2).sum(axis=-1)
    return np.sqrt(total / 2)
