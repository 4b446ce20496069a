"""What a signal looks like at each hour of the week, for signals that have a rhythm.

Law: the reference of an hour is known before the hour begins, so evidence against it stays valid.
An hour's shares are drawn towards those of the whole week, the more so the fewer events it has, and
its radius grows by what that and its own events cannot tell. All functions are pure.

The radius: with w = n / (n + prior), the hour's truth differs from its drawn shares by w times the
sampling error plus 1 - w times the distance of hour and week, which is at most what was observed
plus the sampling error. So delta = tolerance + r + (1 - w) d, where r covers the sampling errors of
all hours together with probability 1 - ETA. Source: drift.md section 3.6.
"""

from typing import Final

import numpy as np
from scipy import special

from gateway.measure.drift.baseline import ETA
from gateway.measure.state import Int64
from gateway.tables import Float64

HOURS: Final = 168
HOUR_NS: Final = 3_600_000_000_000
# 1970 began on a Thursday; hour 0 of the week is Monday 00:00 UTC.
EPOCH_HOUR: Final = 72
PRIOR_EVENTS: Final = 500.0


def hour_of_week(at_ns: Int64) -> Int64:
    """Return 0 … 167 of Unix nanoseconds, from Monday 00:00 UTC on."""
    hours: Int64 = (at_ns // HOUR_NS + EPOCH_HOUR) % HOURS
    return hours


def hourly_shares(counts: Float64, shares: Float64) -> Float64:
    """Return each hour's shares, drawn towards the week's.

    Shape: counts (hours, bins) and shares (bins,) of one signal; returns (hours, bins).
    """
    total = counts.sum(axis=1, keepdims=True)
    drawn: Float64 = (counts + PRIOR_EVENTS * shares) / (total + PRIOR_EVENTS)
    return drawn


def hourly_delta(counts: Float64, shares: Float64, tolerance: float, phi: float) -> Float64:
    """Return the radius in which change is benign at each hour. Shape: (hours,).

    An hour without events has a radius so large that nothing is evidence.
    """
    total = counts.sum(axis=1)
    known = np.maximum(total, 1.0)
    observed = counts / known[:, None]
    distance = np.sqrt(((observed - shares) ** 2 / shares).sum(axis=1))
    freedom = max(int((shares > 0).sum()) - 1, 1)
    error = np.sqrt(special.chdtri(freedom, ETA / len(counts)) * phi / known)
    drawn = PRIOR_EVENTS / (total + PRIOR_EVENTS)
    radius: Float64 = tolerance + error + drawn * distance
    return radius
