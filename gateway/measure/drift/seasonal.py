"""What a signal looks like at each hour of the week, for signals that have a rhythm.

Law: the reference of an hour is known before the hour begins, so evidence against it stays valid.
An hour's shares are drawn towards those of the whole week, the more so the fewer events it has, and
its radius grows by what that and its own events cannot tell. All functions are pure.

The radius: let an hour have observed c of n events, the week p, and w = n / (n + prior), so that
its drawn shares are r = w c + (1 - w) p. The truth q differs by (q - c) + (1 - w) (c - p), each
taken against r as the ball is. The second part is known. Of the first, r is at least w c,
so that it is at most the sampling error over the root of w. So delta = tolerance + e / sqrt(w) +
(1 - w) |c - p|, where e covers the sampling errors of all hours together with probability 1 - ETA.
Measured against p instead, an hour that lacks what the week has would lie outside.
Source: drift.md section 3.6.

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
    known = np.maximum(counts.sum(axis=-1), 1.0)
    freedom = np.maximum((shares > 0).sum(axis=-1) - 1 - (np.asarray(assumed) > 0), 1)
    error = np.sqrt(special.chdtri(freedom, ETA / HOURS) * phi / known + assumed)
    own = known / (known + PRIOR_EVENTS)
    radius: Float64 = tolerance + error / np.sqrt(own) + _drawn_apart(counts, shares, assumed)
    return radius


def _drawn_apart(counts: Float64, shares: Float64, assumed: Float64 | float = 0.0) -> Float64:
    """Return how far drawing towards the week takes hours from what was observed in them.

    Shape: as of `hourly_shares`; returns (…,).
    """
    total = counts.sum(axis=-1)
    gap = (counts / np.maximum(total, 1.0)[..., None] - shares) ** 2
    drawn = hourly_shares(counts, shares, assumed)
    terms = np.divide(gap, drawn, out=np.zeros(gap.shape), where=drawn > 0)
    part: Float64 = PRIOR_EVENTS / (total + PRIOR_EVENTS) * np.sqrt(terms.sum(axis=-1))
    return part
