"""False alarms of many detectors together, and evidence of many sites.

Law: none of this assumes anything about how detectors depend on one another. A detector's M after T
ticks has a mean of at most T, and that is all that is used. Functions are pure; M is in logs.

Pages, per fleet: with the bound A K on each of K detectors the expected number of false alarms of
all of them in A ticks is at most K A / (A K) = 1.

Reports: over a patience of H ticks let k be the largest number such that the k-th largest M is at
least K H / (alpha k); report those k. For a detector without change, 1{reported} / k is at most
alpha M / (K H), whose mean is at most alpha / K, so the expected share of false reports is at most
alpha. Source: drift.md section 4; Wang and Ramdas (2022), arXiv 2009.02824; Dandapanthula and
Ramdas (2025), arXiv 2501.04130.
"""

import numpy as np

from gateway.measure.state import Int64
from gateway.tables import Float64


def fleet_log_bound(log_bound: Float64 | float, detectors: int) -> Float64:
    """Return the bound that makes the budget of one detector that of all `detectors` together."""
    total: Float64 = np.asarray(log_bound, dtype=np.float64) + np.log(max(detectors, 1))
    return total


def reported(log_m: Float64, horizon_ticks: float, alpha: float) -> Int64:
    """Return the detectors to report, strongest first; at most `alpha` of them false on average.

    Shape: log_m (detectors,), of all that run, also of those that have nothing to say.
    """
    return _step_up(log_m, np.log(len(log_m) * horizon_ticks / alpha) if len(log_m) else 0.0)


def rejected(log_e: Float64, alpha: float) -> Int64:
    """Return the e-values that a table of one day rejects, by e-BH, largest first.

    An e-value has a mean of at most 1 without change; M after H ticks divided by H is one.
    """
    return _step_up(log_e, np.log(len(log_e) / alpha) if len(log_e) else 0.0)


def combined(log_m: Float64, weights: Float64) -> Float64:
    """Return log M of a fleet from those of its sites. Shape: log_m (…, sites), weights (sites,).

    Weights chosen beforehand add up to 1. The sum is an e-detector whatever the sites share.
    """
    used = weights > 0
    total: Float64 = np.logaddexp.reduce(log_m[..., used] + np.log(weights[used]), axis=-1)
    return total


def _step_up(log_values: Float64, log_all: float) -> Int64:
    """Return the longest run of largest values of which the k-th is at least log_all - log k."""
    order = np.argsort(-log_values, kind="stable")
    enough = log_values[order] >= log_all - np.log(np.arange(1, len(order) + 1))
    count = int(np.flatnonzero(enough)[-1]) + 1 if enough.any() else 0
    kept: Int64 = order[:count].astype(np.int64)
    return kept
