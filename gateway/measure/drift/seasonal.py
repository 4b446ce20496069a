"""What a signal looks like at each hour of the week, for signals that have a rhythm.

Law: the reference of an hour is known before the hour begins, so evidence against it stays valid.
An hour's shares are drawn towards those of the whole week, the more so the fewer events it has, and
its radius grows by what that and its own events cannot tell. All functions are pure.

The radius: with w = n / (n + prior), the hour's truth differs from its drawn shares by w times the
sampling error plus 1 - w times the distance of hour and week, which is at most what was observed
plus the sampling error. So delta = tolerance + r + (1 - w) d, where r covers the sampling errors of
all hours together with probability 1 - ETA. Source: drift.md section 3.6.

The share of the unusual bin that the rule of three gave is no hour's to learn: no hour goes below
it, and as for the week it adds itself to chi-squared.
"""

from typing import Final

import numpy as np
from scipy import special

from gateway.measure.drift.baseline import ETA, UNUSUAL
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


def hourly_shares(counts: Float64, shares: Float64, assumed: Float64 | float = 0.0) -> Float64:
    """Return shares of hours, drawn towards the week's.

    Shape: counts (…, bins) of hours, shares (bins,) or (…, bins) of their weeks, assumed (…,) the
    share that the rule of three gave to the unusual; returns (…, bins).
    """
    total = counts.sum(axis=-1, keepdims=True)
    drawn: Float64 = (counts + PRIOR_EVENTS * shares) / (total + PRIOR_EVENTS)
    unusual = drawn[..., UNUSUAL].copy()
    least = np.maximum(unusual, assumed)
    others = np.where(unusual < 1, 1 - unusual, 1.0)
    drawn *= ((1 - least) / others)[..., None]
    drawn[..., UNUSUAL] = least
    return drawn


def hourly_delta(
    counts: Float64,
    shares: Float64,
    tolerance: Float64 | float,
    phi: Float64 | float,
    assumed: Float64 | float = 0.0,
) -> Float64:
    """Return the radius in which change is benign at hours of the week.

    Shape: counts, shares and assumed as of `hourly_shares`, tolerance and phi (…,); returns (…,).
    An hour without events has a radius so large that nothing is evidence.
    """
    total = counts.sum(axis=-1)
    known = np.maximum(total, 1.0)
    freedom = np.maximum((shares > 0).sum(axis=-1) - 1 - (np.asarray(assumed) > 0), 1)
    error = np.sqrt(special.chdtri(freedom, ETA / HOURS) * phi / known + assumed)
    gap = (counts / known[..., None] - shares) ** 2
    terms = np.divide(gap, shares, out=np.zeros(gap.shape), where=shares > 0)
    distance = np.sqrt(terms.sum(axis=-1))
    drawn = PRIOR_EVENTS / (total + PRIOR_EVENTS)
    radius: Float64 = tolerance + error + drawn * distance
    return radius
