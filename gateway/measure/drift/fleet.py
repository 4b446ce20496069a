"""False alarms of many detectors together, and evidence of many sites.

Law: none of this assumes anything about how detectors depend on one another. A detector's M after T
ticks has a mean of at most T, and that is all that is used. Functions are pure; M is in logs.

Pages, per site: detector i has the bound A_i K, where K counts the detectors that run, and those of
event rates from the time on in which they learn. K may grow and never falls. Let Phi be the sum of
M_i / (A_i K) plus the number N of alarms of all detectors.
In a tick the M_i of a detector without change grows by at most 1 in the mean; where K grows, the
sum only falls; an alarm takes at least 1 from the sum and adds 1 to N. So N grows in the mean by at
most the sum of 1 / (A_i K) over those that run, which are at most K, and

    E[N in T ticks] <= sum of T / (A_i K) <= T / (the least A_i),

T / A where all contracts have the same A. Contracts with different rates share the site in equal
parts: the site as a whole has the mean of their rates. A K that fell would break this, because Phi
would jump; so it is part of the state, and counts what ran in the past too.

Reports: over a patience of H ticks let k be the largest number such that the k-th largest M is at
least K H / (alpha k); report those k. For a detector without change, 1{reported} / k is at most
alpha M / (K H), whose mean is at most alpha / K, so the expected share of false reports is at most
alpha. M here is the bank's `lasting`, which an alarm does not set back. Detectors that may not be
reported count in K all the same. Source: drift.md section 4; Wang and Ramdas (2022), arXiv
2009.02824; Dandapanthula and Ramdas (2025), arXiv 2501.04130.
"""

from typing import Final

import numpy as np

from gateway.measure.settings import FalseAlarms
from gateway.measure.state import Int64
from gateway.tables import Float64

# What a report promises: at most this share of it is false on average, over this patience.
REPORT_ALPHA: Final = 0.1
PATIENCE_S: Final = 30 * 86_400.0


class Budget:
    """Whose budget of false alarms is in force, and how many detectors share it.

    Every kind of detector tells here how many of it run; this is the one place that counts them.
    """

    def __init__(self, per: FalseAlarms) -> None:
        self.per = per
        self.detectors = 0
        self._running: dict[str, int] = {}

    @property
    def sharing(self) -> int:
        """K, by which the bound of each detector is multiplied: 1 where each has its own."""
        return max(self.detectors, 1) if self.per is FalseAlarms.SITE else 1

    def tell(self, kind: str, running: int) -> None:
        """Note how many detectors of a kind run; the count of all never falls."""
        self._running[kind] = running
        self.detectors = max(self.detectors, sum(self._running.values()))

    def restore(self, detectors: int) -> None:
        """Take over a saved count."""
        self.detectors = max(self.detectors, detectors)


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
