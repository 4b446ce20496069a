"""The alarm on how many events there are: a Poisson e-detector.

Law: let the count of a tick have, given the past, a mean between `low` and `high`. Then
x ln rho - mean (rho - 1), with `high` for rho > 1 and `low` for rho < 1, is the log of an e-value,
because E[rho ** x] = exp(mean (rho - 1)) for a Poisson count. The rest is as in `drift`: M becomes
L (1 + M), and the expected number of alarms in T ticks is at most T / A. Here a tick without events
is evidence like any other, so every tick of the clock is stepped on. Where `low` is 0 nothing is
bet on fewer events, for silence would then add 1 to M at every tick; so nothing starts there.
Dividing by phi >= 1 keeps this for Poisson counts; for bursts phi is calibration. All functions are
pure.
Source: drift.md section 6.
"""

from typing import Final

import numpy as np
from scipy import special

from gateway.measure.drift.baseline import ETA
from gateway.measure.drift.detector import accumulate
from gateway.measure.state import Int64
from gateway.tables import Bool, Float64

FACTORS: Final = (0.5, 0.8, 1.25, 2.0)


def mean_range(
    events: Float64, ticks: Float64, tolerance: float, phi: Float64 | float, eta: float = ETA
) -> tuple[Float64, Float64]:
    """Return between which means per tick a stream counts as unchanged.

    `events` in `ticks` is the reference. Its exact two-sided interval at 1 - eta, widened by phi,
    is what it cannot know; `tolerance` is the relative change that does not matter.
    """
    effective = events / phi
    low = np.where(effective > 0, special.gammaincinv(np.maximum(effective, 1e-300), eta / 2), 0.0)
    high = special.gammaincinv(effective + 1, 1 - eta / 2)
    return low * phi / ticks * (1 - tolerance), high * phi / ticks * (1 + tolerance)


def rate_values(counts: Int64, low: Float64, high: Float64, phi: Float64) -> Float64:
    """Return the log e-value of each factor. Shape: counts, low, high, phi (rows,); (rows, 4)."""
    rho = np.array(FACTORS)
    mean = np.where(rho > 1, high[:, None], low[:, None])
    values: Float64 = (counts[:, None] * np.log(rho) - mean * (rho - 1)) / phi[:, None]
    return values


def rate_step(
    values: Float64, log_m: Float64, starts: Bool | bool = True
) -> tuple[Float64, Float64]:
    """Take one step. Returns log M of each factor and of their equal mixture."""
    after = accumulate(values, log_m, starts)
    return after, rate_mixture(after)


def rate_mixture(log_m: Float64) -> Float64:
    """Return the log of the equal mixture of all factors' M. Shape: (rows, 4) to (rows,)."""
    mixed: Float64 = np.logaddexp.reduce(log_m, axis=1) - np.log(len(FACTORS))
    return mixed
